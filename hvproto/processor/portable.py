"""The portable way: exceptions stop the engine and are delivered in Python, by public calls only.

What has no public call of its own - the hidden part of a segment register, the privilege level, an exception's error
code, the engine's memory for double faults - lies in the bytes of a saved context, where `calibration` finds it. It is
read there, and written by changing a saved context and restoring it.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Any

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import uclib

from hvproto.processor import calibration
from hvproto.processor.counted_blocks import Code, CountedBlocks
from hvproto.processor.engine import (
    DEBUG_IDS,
    EFLAGS_ID,
    EIP_ID,
    VECTORS_WITH_ERROR_CODE,
    Callbacks,
    Engine,
    Outcome,
    PendingException,
)
from hvproto.processor.errand import execute_privileged
from hvproto.processor.exceptions import DEBUG_VECTOR, Raised
from hvproto.processor.segments import Segment, SegmentRegister
from hvproto.processor.settings import CR0_PE, CR0_PG, DR7_ENABLED, EFLAGS_IF, EFLAGS_RF, Setting, SettingValue
from hvproto.processor.state import StateView

_CR0 = x86_const.UC_X86_REG_CR0
_CR2 = x86_const.UC_X86_REG_CR2
_CR3 = x86_const.UC_X86_REG_CR3

INVALID_OPCODE = 6
_NOWHERE = 0xFFFF_F000
"""A physical address where no machine has memory: a walk that begins there finds nothing present."""


_MOV_DR7_RAX = b"\x0f\x23\xf8"


def _breaks_on_code(dr7: int) -> bool:
    return any(dr7 >> 2 * index & 3 and not dr7 >> 16 + 4 * index & 3 for index in range(4))


class PortableEngine(Engine):
    """Unicorn by its public interface."""

    name = "portable"
    traps_port_io = False
    breath = 200_000

    resuming = False
    port_refusal: Callable[[int, int], Raised | None]
    """(port, size) -> the fault of an access that IOPL and the TSS's bitmap forbid; set by the processor."""
    code_byte: Callable[[int], int]
    """offset from EIP -> byte of code there; set by the processor."""
    code: Code
    """What is to be counted; set by the processor."""
    code_address: Callable[[], int]
    """The linear address of CS:EIP; set by the processor."""

    def __init__(self, ram: memoryview, callbacks: Callbacks) -> None:
        self._flags_are_new = True
        self._copy_is_stale = True
        self._returns: set[int] = set()
        self._counted: CountedBlocks | None = None
        self._instructions = 0
        super().__init__(ram, callbacks)
        self._now = 0
        self._deadline = 0
        self._last_block = (0, 0)
        self._until_open = False
        self.counts = [0] * 256
        self._asked = False
        self._cr2_at_start = 0
        self._vector: int | None = None
        self._refusal: Raised | None = None
        self._violation: Any = None
        self._copy = self.uc.context_save()
        self._copy_is_stale = False
        self._running = False
        self._has_failed = False
        """Whether the engine has ended the last run in the middle of an instruction."""
        self._left_at: int | None = None
        """The linear address of an instruction at which a hook has ended it."""
        address = ctypes.cast(self._copy.context, ctypes.c_void_p).value or 0
        self._view = StateView(address, calibration.layout())
        self.hook(uc_const.UC_HOOK_INTR, self._on_interrupt)
        self.hook(uc_const.UC_HOOK_INSN_INVALID, self._on_invalid)
        self.hook(uc_const.UC_HOOK_BLOCK, self._on_block)
        self.hook(uc_const.UC_HOOK_INSN, self._on_in, instruction=x86_const.UC_X86_INS_IN)
        self.hook(uc_const.UC_HOOK_INSN, self._on_out, instruction=x86_const.UC_X86_INS_OUT)
        self.reset()

    # -- state -------------------------------------------------------------------------------

    def state(self) -> StateView:
        """The copy, brought up to date. What is changed in it counts after `_put_back`."""
        if self._copy_is_stale or self._running:
            self.uc.context_update(self._copy)
            self._copy_is_stale = False
        return self._view

    def _put_back(self) -> None:
        self.uc.context_restore(self._copy)

    def write_register(self, register: int, value: int) -> None:
        self._copy_is_stale = True
        self._flags_are_new |= register == EFLAGS_ID
        super().write_register(register, value)

    def write_setting(self, setting: Setting, value: SettingValue) -> None:
        self._copy_is_stale = True
        super().write_setting(setting, value)

    def write_msr(self, number: int, value: int) -> None:
        self._copy_is_stale = True
        super().write_msr(number, value)

    def restore_at_once(self, saved: Any) -> None:
        self._copy_is_stale = self._flags_are_new = True
        super().restore_at_once(saved)

    def write_segments(self, segments: dict[SegmentRegister, Segment]) -> None:
        view = self.state()
        for register, segment in segments.items():
            view.set_segment(register, segment)
        self.summarize()

    def summarize(self) -> None:
        super().summarize()
        self._put_back()

    def forget_exception(self) -> None:
        if self.state().old_exception.value != -1:
            super().forget_exception()
            self._put_back()

    def set_shadow(self, on: bool) -> None:
        super().set_shadow(on)
        self._put_back()

    def block_nmi(self) -> None:
        super().block_nmi()
        self._put_back()

    def unblock_nmi(self) -> None:
        super().unblock_nmi()
        self._put_back()

    def write_dr7(self, value: int) -> None:
        """Where instruction breakpoints come or go, by a MOV that the engine executes: no public call does it."""
        old = self.read_register(DEBUG_IDS[7])
        if old != value and (_breaks_on_code(old) or _breaks_on_code(value)):
            execute_privileged(self, _MOV_DR7_RAX, value)
        else:
            self.write_register(DEBUG_IDS[7], value)

    # -- running -----------------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self._now

    @now.setter
    def now(self, value: int) -> None:
        self._now = value

    def count_instructions(self, on: bool) -> None:
        instructions = self.instructions
        self._counted = CountedBlocks(lambda address, size: me.code(address, size)) if on else None
        me = weakref.proxy(self)
        self.instructions = instructions
        self.flush_code()

    @property
    def instructions(self) -> int:
        return self._instructions if self._counted is None else self._counted.count

    @instructions.setter
    def instructions(self, value: int) -> None:
        if self._counted is None:
            self._instructions = value
        else:
            self._counted.count = value
            self._counted.forget_rounds()

    @property
    def last_block(self) -> tuple[int, int]:
        return self._last_block

    @property
    def cr2_before(self) -> int:
        return self._cr2_at_start  # each page fault ends a run

    def note_return(self, block: int) -> None:
        # RF comes back by IRET only: to look for it at each block would cost half of all time.
        self._returns.add(block)

    def set_deadline(self, when: int) -> None:
        self._deadline = when

    def set_until_open(self, on: bool) -> None:
        self._until_open = on

    def stop(self) -> None:
        self._asked = True
        self.uc.emu_stop()

    def run(self) -> Outcome:
        if self._counted is None:
            return self._run()
        self._counted.close()
        self._left_at = None
        outcome = None
        try:
            outcome = self._run()
        finally:
            self._settle(outcome)
        return outcome

    def _settle(self, outcome: Outcome | None) -> None:
        """Take back of the count what stands behind the instruction at which a run has ended, in its block."""
        assert self._counted is not None
        if self._left_at is not None:
            self._counted.leave(self._left_at)
        elif self._has_failed or outcome is Outcome.URGENT_STORE:
            self._counted.leave(self.code_address())
        elif outcome is Outcome.EXCEPTION:
            assert self.pending is not None
            if self.pending.vector != DEBUG_VECTOR:  # a trap: its instruction was the block's last
                self._counted.leave(self.code_address())

    def _run(self) -> Outcome:
        self.raise_failure()  # Ctrl-C may have come since the last run
        self._asked = False
        self._vector = None
        self._refusal = self._violation = None
        self.system_call = None
        self.resuming = False
        self.forget_exception()
        self._cr2_at_start = self.read_register(_CR2)
        self._running = True
        status = uclib.uc_emu_start(self._handle, ctypes.c_uint64(self.read_register(EIP_ID)), ctypes.c_uint64(0),
                                    ctypes.c_uint64(0), ctypes.c_size_t(0))  # fmt: skip
        self._running = False
        self._copy_is_stale = True
        self._has_failed = bool(status)
        self.raise_failure()
        if status == uc_const.UC_ERR_WRITE_PROT:
            return Outcome.URGENT_STORE
        if status:
            raise unicorn.UcError(status)
        if self._violation is not None:
            # The engine went on: go back to before the IN or OUT.
            self.restore_at_once(self._violation)
            fault = self._refusal
            assert fault is not None
            if fault.cr2 is not None:
                self.write_register(_CR2, fault.cr2)
            self.pending = PendingException(fault.vector, fault.error_code)
            return Outcome.EXCEPTION
        if self.system_call is not None:  # also where TF made an exception of it already
            return Outcome.SYSTEM_CALL
        if self._vector is not None:
            self.pending = self._explain(self._vector)
            return Outcome.EXCEPTION
        if self.resuming:
            return Outcome.RESUMING
        return Outcome.STOPPED if self._asked else Outcome.HALTED

    def _explain(self, vector: int) -> PendingException:
        """What the exception is, from the saved context."""
        view = self.state()
        if view.is_software.value and vector == INVALID_OPCODE:  # of this one, EIP is left where it is
            return PendingException(vector, None, True, 2)
        if view.is_software.value:
            length = 1 if vector in (3, 4) and self.code_byte(-1) in (0xCC, 0xCE) else 2
            self.write_register(EIP_ID, self.read_register(EIP_ID) - length & 0xFFFF_FFFF_FFFF_FFFF)
            return PendingException(vector, None, True, length)
        return PendingException(vector, view.error_code.value if vector in VECTORS_WITH_ERROR_CODE else None)

    # -- hooks -------------------------------------------------------------------------------

    def _on_interrupt(self, vector: int) -> None:
        self._vector = vector
        self.stop()

    def _on_invalid(self) -> bool:
        self._vector = INVALID_OPCODE
        self.stop()
        return True

    def _on_block(self, address: int, size: int) -> None:
        if self._now >= self._deadline or (self._until_open and self._open()):
            self.stop()
        elif (self._flags_are_new or self._last_block[0] in self._returns) and self._resumes():
            self.resuming = True
            self.stop()
        else:
            self._now += size
            self._last_block = address, address + size
            if self._counted is not None:
                self._counted.begin(address, size)

    def _on_new_block(self, block: Any, before: Any) -> None:
        if self._counted is not None and not self._is_tried_out:
            found = block.contents
            self.guarded(self._counted.translated, found.pc, found.size)
        super()._on_new_block(block, before)

    def _stop_at(self, address: int) -> None:
        self._left_at = address
        super()._stop_at(address)

    def _resumes(self) -> bool:
        """Whether RF is set and matters; cleared where it doesn't, before PUSHF can show it."""
        flags = self.read_register(EFLAGS_ID)
        self._flags_are_new = False
        if not flags & EFLAGS_RF:
            return False
        if self.read_register(DEBUG_IDS[7]) & DR7_ENABLED and not self.state().shadow:
            return True
        self.write_register(EFLAGS_ID, flags & ~EFLAGS_RF)
        self._flags_are_new = False
        return False

    def _open(self) -> bool:
        """Whether an external interrupt could be taken now, in the middle of a run."""
        if not self.read_register(EFLAGS_ID) & EFLAGS_IF:
            return False
        return not self.state().shadow

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
