"""The PC around a hosted guest: devices of its own, and firmware if it boots from a disk.

What its devices do to the outside world is asked of the host: characters go to the host's serial driver, sectors come
from the host's disk. A disk image that the guest boots from is the emulation program's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hvproto.errors import Where
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.guest_ram import GuestRam
from hvproto.hypervisor.host_functions import HostFunctions, Stream
from hvproto.images.image import Image
from hvproto.machine.ata import SectorBackend
from hvproto.machine.bios.bios import Bios
from hvproto.machine.board import Board
from hvproto.machine.clock import Clock
from hvproto.machine.disk_backend import ImageBackend
from hvproto.machine.model_registers import ModelRegisters
from hvproto.machine.platform import Platform, put_tables
from hvproto.processor.cpu import Cpu


class HostedDisk:
    """A disk whose sectors the host reads. What the guest writes stays with the emulation program."""

    def __init__(self, sectors: int, functions: HostFunctions) -> None:
        self.sectors = sectors
        self._functions = functions
        self._written: dict[int, bytes] = {}

    def read(self, lba: int, done: Callable[[bytes | None], None]) -> None:
        if lba in self._written:
            done(self._written[lba])
        else:
            self._functions.read_block(lba, done)

    def write(self, lba: int, data: bytes, done: Callable[[bool], None]) -> None:
        self._written[lba] = bytes(data)
        done(True)


class Owner(Protocol):
    """Who is told what the devices do."""

    @property
    def now(self) -> int: ...
    def where(self) -> Where: ...
    def on_text(self, stream: Stream, byte: int) -> None: ...
    def end(self, status: int, reason: str) -> None: ...
    def request_look(self) -> None: ...
    def request_reset(self) -> None: ...
    def keep_appointments(self) -> None: ...


class GuestPc:
    """Board, platform, disks and firmware of one guest.

    ``sectors`` is the size of the host's disk, 0 if the guest is not to see it. It is the guest's first disk, or the
    second one of a guest that boots from an image of its own.
    """

    def __init__(
        self, owner: Owner, clock: Clock, memory: GuestMemory, functions: HostFunctions, image: Image, sectors: int
    ) -> None:
        self.ram = GuestRam(memory)
        self.disks: list[SectorBackend] = [ImageBackend(image.disk)] if image.kind == "disk" else []
        if sectors or not self.disks:
            self.disks.append(HostedDisk(sectors, functions))
        self.board = Board(
            clock,
            self.disks[0],
            on_serial=lambda byte: owner.on_text(Stream.SERIAL, byte),
            on_debug=lambda byte: owner.on_text(Stream.DEBUG, byte),
            on_exit=lambda value: owner.end((2 * value + 1) & 0xFF, f"debug exit port, value {value:#x}"),
            on_interrupt=owner.request_look,
            second_disk=self.disks[1] if len(self.disks) > 1 else None,
        )
        self.platform = Platform(
            self.board,
            self.ram,
            None,
            on_reset=owner.request_reset,
            on_power_off=lambda: owner.end(0, "power-off"),
            after_access=owner.keep_appointments,
        )
        self.model = ModelRegisters(
            self.board.interrupts.lapic, self.platform.space, lambda: owner.now, lambda: owner.where()
        )
        self.bios: Bios | None = None
        """The firmware, once the guest has been started from a disk."""

    def start_firmware(self, cpu: Cpu) -> None:
        """Have the firmware boot from the first disk on this processor."""
        put_tables(self.ram)
        self.install_firmware(cpu).start()

    def install_firmware(self, cpu: Cpu) -> Bios:
        """Have the firmware serve this processor, which it doesn't start."""
        self.bios = Bios(cpu, self.board, self.disks)
        return self.bios

    def reset(self) -> None:
        """The guest has reset its machine: the firmware starts again."""
        self.platform.reset()
        if self.bios is not None:
            self.bios.start()
