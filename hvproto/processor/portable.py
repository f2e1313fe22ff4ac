"""The portable way: exceptions stop the engine and are delivered in Python, by public calls only.

Three things have no public call. Each is had by a detour:

* *The error code* of an exception lies in the bytes of a saved context, at an offset that
  `_calibrate` finds by provoking exceptions whose code is known.
* *The engine never forgets an exception* (a second page fault would come as a double fault). The
  memory of it lies in the context too; it is found the same way and patched.
* *The privilege level* can't be lowered by a register write. But SS brings the CPL, and real mode
  (CR0.PE clear for a moment) or virtual-8086 mode (EFLAGS.VM) let any SS be loaded.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import uclib

from hvproto.errors import EngineError
from hvproto.processor.delivery import Raised
from hvproto.processor.engine import (
    SEGMENT_IDS,
    VECTORS_WITH_ERROR_CODE,
    Callbacks,
    Engine,
    Outcome,
    PendingException,
)
from hvproto.processor.segments import NULL_SEGMENT, RPL_MASK, Segment, SegmentRegister, v86_segment
from hvproto.processor.settings import CR0_PE, CR0_PG, EFLAGS_IF, EFLAGS_VM

_CR0 = x86_const.UC_X86_REG_CR0
_CR2 = x86_const.UC_X86_REG_CR2
_CR3 = x86_const.UC_X86_REG_CR3
_EFLAGS = x86_const.UC_X86_REG_EFLAGS
_EIP = x86_const.UC_X86_REG_EIP
_SS = SEGMENT_IDS[SegmentRegister.SS]

_NOWHERE = 0xFFFF_F000
"""A physical address where no machine has memory: a walk that begins there finds nothing present."""


@dataclass(frozen=True, slots=True)
class _Offsets:
    """Where a saved context keeps what no call tells."""

    error_code: int
    is_software: int
    old_exception: int


class PortableEngine(Engine):
    """Unicorn by its public interface."""

    name = "portable"
    traps_port_io = False
    breath = 200_000

    load_descriptor: Callable[[int], Segment]
    """selector -> segment as the current tables define it; set by the processor."""
    port_refusal: Callable[[int, int], Raised | None]
    """(port, size) -> the fault of an access that IOPL and the TSS's bitmap forbid; set by the processor."""
    code_byte: Callable[[int], int]
    """offset from EIP -> byte of code there; set by the processor."""

    def __init__(self, ram: memoryview, callbacks: Callbacks) -> None:
        super().__init__(ram, callbacks)
        self._offsets = _calibrate()
        self._now = 0
        self._deadline = 0
        self._block_end = 0
        self._until_open = False
        self.counts = [0] * 256
        self._asked = False
        self._vector: int | None = None
        self._invalid = False
        self._refusal: Raised | None = None
        self._violation: Any = None
        self._scratch: Any = None
        self.hook(uc_const.UC_HOOK_INTR, self._on_interrupt)
        self.hook(uc_const.UC_HOOK_INSN_INVALID, self._on_invalid)
        self.hook(uc_const.UC_HOOK_BLOCK, self._on_block)
        self.hook(uc_const.UC_HOOK_INSN, self._on_in, instruction=x86_const.UC_X86_INS_IN)
        self.hook(uc_const.UC_HOOK_INSN, self._on_out, instruction=x86_const.UC_X86_INS_OUT)

    # -- state -------------------------------------------------------------------------------

    def read_segment(self, register: SegmentRegister) -> Segment:
        selector = self.read_register(SEGMENT_IDS[register])
        if self.read_register(_EFLAGS) & EFLAGS_VM:
            return v86_segment(selector)
        return self.load_descriptor(selector) if selector & ~RPL_MASK else NULL_SEGMENT.with_selector(selector)

    def write_segments(self, segments: dict[SegmentRegister, Segment]) -> None:
        stack = segments.get(SegmentRegister.SS)
        if stack is not None:
            self._change_level(stack.dpl)
            self.write_register(_SS, stack.selector)
        for register, segment in segments.items():
            if register is not SegmentRegister.SS:
                self.write_register(SEGMENT_IDS[register], segment.selector)

    def _change_level(self, level: int) -> None:
        """Bring the CPL to ``level`` (0 or 3) without touching anything else for good."""
        if level == self.read_register(_SS) & RPL_MASK:
            return
        if level == 0:
            cr0 = self.read_register(_CR0)
            self.write_register(_CR0, cr0 & ~(CR0_PE | CR0_PG))
            self.write_register(_SS, 0)
            self.write_register(_CR0, cr0)
        elif level == 3:
            flags = self.read_register(_EFLAGS)
            self.write_register(_EFLAGS, flags | EFLAGS_VM)
            self.write_register(_SS, 0)
            self.write_register(_EFLAGS, flags)
        else:
            raise EngineError("the portable engine has no way to ring 1 or 2; use HVPROTO_ENGINE=native")

    # -- running -----------------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self._now

    @now.setter
    def now(self, value: int) -> None:
        self._now = value

    @property
    def block_end(self) -> int:
        return self._block_end

    def set_deadline(self, when: int) -> None:
        self._deadline = when

    def set_until_open(self, on: bool) -> None:
        self._until_open = on

    def stop(self) -> None:
        self._asked = True
        self.uc.emu_stop()

    def run(self) -> Outcome:
        self._asked = False
        self._vector = None
        self._refusal = self._violation = None
        self.failure = None
        status = uclib.uc_emu_start(self._handle, ctypes.c_uint64(self.read_register(_EIP)), ctypes.c_uint64(0),
                                    ctypes.c_uint64(0), ctypes.c_size_t(0))  # fmt: skip
        self.raise_failure()
        if status:
            raise unicorn.UcError(status)
        if self._violation is not None:
            # The engine went on: go back to before the IN or OUT.
            self.restore_context(self._violation)
            fault = self._refusal
            assert fault is not None
            if fault.cr2 is not None:
                self.write_register(_CR2, fault.cr2)
            self.pending = PendingException(fault.vector, fault.error_code)
            return Outcome.EXCEPTION
        if self._vector is not None:
            self.pending = self._explain(self._vector)
            return Outcome.EXCEPTION
        return Outcome.STOPPED if self._asked else Outcome.HALTED

    def _explain(self, vector: int) -> PendingException:
        """What the exception is, from the saved context; and make the engine forget it."""
        if self._invalid:
            return PendingException(6)
        base = self._look_into_context()
        if ctypes.c_int32.from_address(base + self._offsets.is_software).value:
            length = 1 if vector in (3, 4) and self.code_byte(-1) in (0xCC, 0xCE) else 2
            self.write_register(_EIP, self.read_register(_EIP) - length & 0xFFFF_FFFF)
            return PendingException(vector, None, True, length)
        error = ctypes.c_int32.from_address(base + self._offsets.error_code).value
        self.forget_exception()
        return PendingException(vector, error if vector in VECTORS_WITH_ERROR_CODE else None)

    def _look_into_context(self) -> int:
        """The address of a fresh copy of the engine's state."""
        if self._scratch is None:
            self._scratch = self.uc.context_save()
        else:
            self.uc.context_update(self._scratch)
        return ctypes.cast(self._scratch.context, ctypes.c_void_p).value or 0

    def forget_exception(self) -> None:
        old = ctypes.c_int32.from_address(self._look_into_context() + self._offsets.old_exception)
        if old.value != -1:
            old.value = -1
            self.uc.context_restore(self._scratch)

    # -- hooks -------------------------------------------------------------------------------

    def _on_interrupt(self, vector: int) -> None:
        self._vector, self._invalid = vector, False
        self.stop()

    def _on_invalid(self) -> bool:
        self._vector, self._invalid = 6, True
        self.stop()
        return True

    def _on_block(self, address: int, size: int) -> None:
        if self._now >= self._deadline or (self._until_open and self.read_register(_EFLAGS) & EFLAGS_IF):
            self.stop()
        else:
            self._now += size
            self._block_end = address + size

    def _refuses(self, port: int, size: int) -> bool:
        if self._refusal is None:
            self._refusal = self.guarded(self.port_refusal, port, size)
            if self._refusal is None:
                return False
            self._violation = self.uc.context_save()
            # The engine doesn't stop before the next load or store, or the end of the block. Page tables in missing
            # memory map nothing, so that no store of the rest reaches RAM.
            self.write_register(_CR3, _NOWHERE)
            self.write_register(_CR0, self.read_register(_CR0) | CR0_PE | CR0_PG)
            self.stop()
        return True

    def _on_in(self, port: int, size: int) -> int:
        if self._refuses(port, size):
            return 0
        return int(self.guarded(self.callbacks.port_in, port, size, otherwise=0))

    def _on_out(self, port: int, size: int, value: int) -> None:
        if not self._refuses(port, size):
            self.guarded(self.callbacks.port_out, port, size, value)


@cache
def _calibrate() -> _Offsets:
    """Find three fields in a saved context by exceptions whose outcome is known."""
    bad_selector = (0x1238, 0x1350)
    # mov eax, 0x7777vvvv; mov ds, ax: the upper half keeps EAX itself from matching.
    gp = [b"\xb8" + (0x7777_0000 | value).to_bytes(4, "little") + b"\x8e\xd8" for value in bad_selector]
    divide = b"\x31\xc9\xf7\xf1"  # xor ecx, ecx; div ecx
    images = [_context_after(code) for code in (*gp, divide, b"\xcd\x30", b"\xcd\x31", b"\xcc")]

    def find(name: str, expected: tuple[int | None, ...]) -> int:
        hits = [
            at
            for at in range(0, len(images[0]) - 3, 4)
            if all(
                value is None or int.from_bytes(image[at : at + 4], "little", signed=True) == value
                for value, image in zip(expected, images, strict=True)
            )
        ]
        if len(hits) != 1:
            raise EngineError(f"the portable engine can't find the {name} in a saved context ({len(hits)} places fit)")
        return hits[0]

    return _Offsets(
        error_code=find("error code", (*bad_selector, None, None, None, None)),
        is_software=find("software-interrupt mark", (0, 0, 0, 1, 1, 1)),
        old_exception=find("last exception", (13, 13, 0, -1, -1, -1)),
    )


def _context_after(code: bytes) -> bytes:
    """The bytes of the context after running ``code`` up to its exception."""
    uc = unicorn.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_32)
    uc.mem_map(0, 0x2000)
    uc.mem_write(0x1000, code)
    uc.hook_add(uc_const.UC_HOOK_INTR, lambda engine, _vector, _data: engine.emu_stop())
    uc.emu_start(0x1000, 0x1FFF)
    context = uc.context_save()
    address = ctypes.cast(context.context, ctypes.c_void_p).value or 0
    return ctypes.string_at(address, uclib.uc_context_size(uc._uch))
