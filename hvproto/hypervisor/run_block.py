"""The page through which the emulation program and its hypervisor talk, and the door that announces it.

The emulation program (a ring-3 process of the host) fills in a *run block* and asks its kernel to
enter the guest; the kernel's driver does ``out 0x4856, eax`` with the block's linear address. The
layout is documented in guests/host.asm too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from hvproto.addresses import HPA, HVA, PAGE_MASK, PAGE_SIZE
from hvproto.errors import RunError, Where
from hvproto.hypervisor.process_cpu import SignalFrame
from hvproto.processor.paging import PagingMode, ReadEntry, walk

DOOR_PORT = 0x4856
MAGIC = 0x42525648  # "HVRB"
VERSION = 1
EVENT_HANDLED = 1
"""What the emulation program answers (as the result) to an event of the guest's that it has dealt with itself: the
guest goes on. 0 has the event reflected to the guest's own handler."""
INSIDE = 8
"""The exit reason that sends the emulation program into the guest itself."""
DATA_OFFSET = 0x200
DATA_SIZE = 512
_CONFIGURATION = struct.Struct("<7I")
_ANSWER = struct.Struct("<4I")
_ANSWER_OFFSET = 0x20
_MAPPINGS_LEFT_OFFSET = 0x24
_RESULT_OFFSET = 0x30
_SIGNALLED_OFFSET = 0x34
_SIGNAL_OFFSET = 0xB0
_MAPPINGS_OFFSET = 0x400
_MAPPING = struct.Struct("<3I")
MAPPINGS = (PAGE_SIZE - _MAPPINGS_OFFSET) // _MAPPING.size
"""As many system calls for mappings fit into the block at once."""


class BadRunBlock(RunError):
    """The emulation program handed over something that is no run block."""


class Door:
    """The port device behind which the hypervisor waits."""

    ports = (DOOR_PORT,)
    wide_ports = frozenset(ports)

    def __init__(self, on_knock: Callable[[], None]) -> None:
        self._on_knock = on_knock
        self.request: HVA | None = None

    def read_port(self, port: int, size: int) -> int:
        return 0

    def write_port(self, port: int, size: int, value: int) -> None:
        self.request = HVA(value)
        self._on_knock()

    def take(self) -> HVA | None:
        """The run block's address if somebody has knocked since the last call."""
        request, self.request = self.request, None
        return request


class RunBlock:
    """One run block, through the page tables of the host process that owns it.

    Raises BadRunBlock if the page isn't mapped, or says that it is something else.
    """

    def __init__(self, ram: memoryview, mode: PagingMode, read: ReadEntry, address: HVA, where: Where) -> None:
        self._ram = ram
        self._mode = mode
        self._read = read
        self._where = where
        place = self._frame(address, "the run block")
        if address & PAGE_MASK:
            raise BadRunBlock(where, f"the run block at {address:#010x} is not page-aligned")
        self.place = place
        magic, version, guest, memory, memory_size, pool, pool_size = _CONFIGURATION.unpack_from(ram, place)
        if magic != MAGIC or version != VERSION:
            raise BadRunBlock(where, f"no run block at {address:#010x}: magic {magic:#x}, version {version}")
        self.guest = guest
        self._memory = (HVA(memory), memory_size)
        self._pool = (HVA(pool), pool_size)

    def _frame(self, address: int, what: str) -> HPA:
        found = walk(self._mode, self._read, address)
        if found.physical is None or found.physical >= len(self._ram):
            raise BadRunBlock(
                self._where, f"{what} at {address:#010x} isn't mapped in the emulation program's address space"
            )
        return HPA(found.physical & ~PAGE_MASK)

    def _frames(self, start: HVA, size: int, what: str) -> list[HPA]:
        if start & PAGE_MASK or size & PAGE_MASK or not 0 < size <= len(self._ram):
            raise BadRunBlock(self._where, f"{what}: {size:#x} bytes at {start:#010x} is not a range of whole pages")
        return [self._frame(start + at, what) for at in range(0, size, PAGE_SIZE)]

    def memory_frames(self) -> list[HPA]:
        """The frames of the guest's memory, in guest-physical order."""
        return self._frames(*self._memory, "the guest's memory")

    def pool_frames(self) -> list[HPA]:
        """The frames that the emulation program lends to its hypervisor."""
        return self._frames(*self._pool, "the hypervisor's pool")

    @property
    def result(self) -> int:
        """What the emulation program says of the last function: 0 is success."""
        return int.from_bytes(self._ram[self.place + _RESULT_OFFSET :][:4], "little")

    @property
    def data(self) -> bytes:
        """The 512 data bytes."""
        return bytes(self._ram[self.place + DATA_OFFSET :][:DATA_SIZE])

    def answer(self, reason: int, arg0: int = 0, arg1: int = 0, data: bytes = b"", *, arg2: int = 0) -> None:
        """Tell the emulation program why the guest gave the processor back."""
        _ANSWER.pack_into(self._ram, self.place + _ANSWER_OFFSET, reason, arg0, arg1, arg2 & 0xFFFF_FFFF)
        at = self.place + DATA_OFFSET
        self._ram[at : at + len(data)] = data

    # -- for a guest inside the emulation program (plan `application`) -----------------------

    def take_signal(self) -> SignalFrame | None:
        """The signal by which the guest was left since the last time, if it was."""
        at = self.place + _SIGNALLED_OFFSET
        signalled = self._ram[at]
        self._ram[at] = 0
        if not signalled:
            return None
        return SignalFrame.unpack(SignalFrame.layout.unpack_from(self._ram, self.place + _SIGNAL_OFFSET))

    def go_inside(self, signal: SignalFrame, mappings: Sequence[tuple[int, int, int]], *, more: bool) -> None:
        """Registers to go on with, and at most MAPPINGS system calls to be made first; ``more`` of these are to come.

        A mapping is (linear address, offset in the guest's memory and rights, size in bytes).
        """
        frame = signal.pack()
        at = self.place + _SIGNAL_OFFSET
        self._ram[at : at + len(frame)] = frame
        for number, mapping in enumerate(mappings):
            _MAPPING.pack_into(self._ram, self.place + _MAPPINGS_OFFSET + number * _MAPPING.size, *mapping)
        self.answer(INSIDE, len(mappings), int(more))

    @property
    def mappings_left(self) -> int:
        """How many of the mappings weren't made, with the one that was refused."""
        return int.from_bytes(self._ram[self.place + _MAPPINGS_LEFT_OFFSET :][:4], "little")
