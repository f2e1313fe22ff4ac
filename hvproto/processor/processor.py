"""The one processor: Unicorn plus what Unicorn leaves out of an x86.

Registers, settings, linear memory, delivery through the IDT, virtual time. One class over both
engines; which one is chosen by `HVPROTO_ENGINE` or, by default, by whether the native one passes
its self-check.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from functools import partial
from typing import Any, Protocol

from hvproto.errors import BadInput
from hvproto.processor import far_code, guards, private_layout, stand_ins, system_calls
from hvproto.processor.data_breakpoints import DataBreakpoints
from hvproto.processor.delivery import deliver
from hvproto.processor.engine import (
    DEBUG_IDS,
    Engine,
    Outcome,
    PendingException,
    SystemCall,
)
from hvproto.processor.exceptions import (
    DEBUG_VECTOR,
    INVALID_OPCODE,
    NMI_VECTOR,
    Delivered,
    Event,
    Raised,
    Source,
    descriptor_place,
    exception_source,
)
from hvproto.processor.explain import explained, is_premature
from hvproto.processor.instruction import instruction_at
from hvproto.processor.linear_memory import LinearMemory
from hvproto.processor.live_target import LiveTarget
from hvproto.processor.lookout import Lookout, watched
from hvproto.processor.native import NativeEngine
from hvproto.processor.opcodes import MAX_LENGTH
from hvproto.processor.portable import PortableEngine
from hvproto.processor.register_file import RegisterFile
from hvproto.processor.segments import (
    NULL_SEGMENT,
    TSS32_AVAILABLE,
    TSS32_BUSY,
    SegmentRegister,
)
from hvproto.processor.settings import (
    CR0_PE,
    DR6_BREAKPOINTS,
    DR6_BS,
    DR6_ONES,
    DR6_ZEROS,
    DR7_GD,
    DR7_ONES,
    DR7_ZEROS,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_TF,
    EFLAGS_VM,
    Setting,
)

ENGINE_VARIABLE = "HVPROTO_ENGINE"
_TSS_IO_MAP_BASE = 0x66
_V86_FRAME = (SegmentRegister.GS, SegmentRegister.FS, SegmentRegister.DS, SegmentRegister.ES)
"""What an interrupt of virtual-8086 mode pushes besides, in this order, and makes null."""


def _raise(fault: Raised) -> None:
    raise fault


def _nothing() -> None:
    """Stop before the instruction at EIP, and then go on with it."""


class Stop(Enum):
    """Why `Processor.run` came back."""

    DEADLINE = auto()  # at a block boundary, at or after the deadline or a requested stop
    HALT = auto()  # HLT at ring 0; EIP is after it
    TRAP = auto()  # before the instruction at ``trapped_at``, which is planted


class Ports(Protocol):
    """What IN and OUT reach."""

    def read(self, port: int, size: int) -> int: ...
    def write(self, port: int, size: int, value: int) -> None: ...


def choose_engine(name: str | None = None) -> type[Engine]:
    """The engine by name ("native", "portable"), by the environment, or the best that works here.

    Raises BadInput for another name.
    """
    name = name or os.environ.get(ENGINE_VARIABLE) or None
    if name == "native":
        return NativeEngine
    if name == "portable":
        return PortableEngine
    if name is not None:
        raise BadInput(f"unknown engine {name!r}: {ENGINE_VARIABLE} is native or portable")
    return NativeEngine if private_layout.self_check() is None else PortableEngine


class Processor(RegisterFile, LinearMemory):
    """An x86 processor in any of its modes over ``ram``, which Python owns.

    Registers are 64 bits wide; outside long mode the upper half of what is written is dropped. The names are those
    of 32-bit code in all modes: ``eip`` is RIP in 64-bit code.
    """

    def __init__(self, ram: memoryview, engine: str | None = None) -> None:
        self.ram = ram
        self.ports: Ports | None = None
        self.on_protected_store: Callable[[int, int], None] | None = None
        """(physical address, size): called after a store to a protected page, inside the run."""
        self.is_trap: Callable[[int], bool] = lambda _address: True
        """Whether a planted instruction at this address is to stop the processor now."""
        self.on_breath: Callable[[], None] = lambda: None
        """Called now and then in a long run, while the processor is stopped; what it raises ends the run."""
        self.trapped_at = 0
        self._trapped = False
        self._lookout = Lookout()
        self._breakpoints = DataBreakpoints()
        self._debug_registers_changed = False
        self._intervention: Callable[[], None] | None = None
        """What is to be done instead of the instruction at EIP, once the engine has stopped."""
        self._deadline = 0
        self._breath_end = 0
        self._until_open = False
        self.engine = choose_engine(engine)(ram, self)
        if isinstance(self.engine, PortableEngine):
            me = weakref.proxy(self)
            self.engine.port_refusal = lambda port, size: me._port_refusal(port, size)
            self.engine.code_byte = lambda offset: me._code_byte(offset)

    # -- delivery ----------------------------------------------------------------------------

    def target(self) -> LiveTarget:
        """The state as it is now, for one delivery."""
        return LiveTarget(self)

    def interrupt(self, vector: int) -> Delivered:
        """Deliver an external interrupt through the current IDT now. Raises `Shutdown`."""
        eip = self.eip
        return self._deliver(Event(vector, Source.EXTERNAL, eip), eip)

    def nmi(self) -> Delivered:
        """Deliver a non-maskable interrupt now; others are blocked until the next IRET (SDM vol. 3, 6.7.1).

        Raises `Shutdown`. It is the caller's to see that `nmi_blocked` isn't set.
        """
        self.engine.block_nmi()
        return self.interrupt(NMI_VECTOR)

    @property
    def nmi_blocked(self) -> bool:
        """Whether an NMI has been delivered and no IRET executed since."""
        return self.engine.state().nmi_blocked

    def raise_exception(self, vector: int, error_code: int | None = None) -> Delivered:
        """Deliver a fault of the instruction at EIP through the current IDT. Raises `Shutdown`."""
        return self._deliver_pending(PendingException(vector, error_code))

    def _deliver_pending(self, pending: PendingException) -> Delivered:
        eip = self.eip
        source = Source.SOFTWARE if pending.software else exception_source(pending.vector)
        cr2 = self.cr2 if pending.vector == 14 and not pending.software else None
        return self._deliver(Event(pending.vector, source, eip + pending.length, pending.error_code, cr2), eip)

    def _deliver(self, event: Event, eip: int) -> Delivered:
        target = self.target()
        v86 = bool(target.eflags & EFLAGS_VM)
        if v86:
            event = replace(event, v86=tuple(self.segment(register).selector for register in _V86_FRAME))
        result = deliver(target, event, eip, self.target)
        if not result.switched:
            segments = {SegmentRegister.CS: far_code.marked(target, result.code)}
            if result.stack is not None:
                segments[SegmentRegister.SS] = far_code.marked(target, result.stack)
            if v86:
                segments.update(dict.fromkeys(_V86_FRAME, NULL_SEGMENT))
            self.eflags = result.eflags
            self.set_segments(segments)
            self.eip = result.eip
        self.esp = result.esp
        if result.cr2 is not None:
            self.cr2 = result.cr2
        if result.vector == DEBUG_VECTOR and event.source is not Source.SOFTWARE:
            self._end_general_detection()
        if self.engine.state().shadow:
            self.engine.set_shadow(False)
        return result

    def _end_general_detection(self) -> None:
        """The processor clears DR7.GD as it enters the handler of #DB, so that this may use the debug registers."""
        dr7 = self.debug_register(7)
        if dr7 & DR7_GD:
            self.engine.write_register(DEBUG_IDS[7], dr7 & ~DR7_GD)

    def _fix_debug_registers(self) -> None:
        """Give the bits of DR6 and DR7 that can't be written their values (SDM vol. 3, 17.2.3 and 17.2.4)."""
        for number, ones, zeros in ((6, DR6_ONES, DR6_ZEROS), (7, DR7_ONES, DR7_ZEROS)):
            value = self.debug_register(number)
            self.engine.write_register(DEBUG_IDS[number], (value | ones) & ~zeros)

    def peek_descriptor(self, selector: int) -> int | None:
        """The 8 bytes that a selector names, without any effect; None where its table has none."""
        try:
            raw = self.peek(self.wrapped(descriptor_place(self.target(), selector)), 8)
        except Raised:
            return None
        return None if raw is None else int.from_bytes(raw, "little")

    @property
    def in_interrupt_shadow(self) -> bool:
        """Whether an STI or a load of SS, the last instruction, holds interrupts off for one more (SDM vol. 3, 6.8)."""
        return self.engine.state().shadow

    def port_allowed(self, port: int, size: int) -> bool:
        """Whether IOPL or the I/O permission bitmap allow an access (SDM vol. 1, 19.5)."""
        if not self.control(Setting.CR0) & CR0_PE:
            return True
        eflags = self.eflags
        if not eflags & EFLAGS_VM and self.cpl <= (eflags & EFLAGS_IOPL) >> 12:
            return True
        tr = self.tr
        if tr.system_type not in (TSS32_AVAILABLE, TSS32_BUSY) or tr.limit < _TSS_IO_MAP_BASE + 1:
            return False
        at = self.read(self.wrapped(tr.base + _TSS_IO_MAP_BASE), 2) + port // 8
        if at + 1 > tr.limit:
            return False
        bits = self.read(self.wrapped(tr.base + at), 2) >> (port & 7)
        return not bits & ((1 << size) - 1)

    def _port_refusal(self, port: int, size: int) -> Raised | None:
        try:
            return None if self.port_allowed(port, size) else Raised(13, 0)
        except Raised as fault:
            return fault

    def _code_byte(self, offset: int) -> int:
        at = self.peek(self.wrapped(self.code_address + offset), 1)
        return at[0] if at else 0

    # -- running -----------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """Virtual time in cycles; live, also inside a run."""
        return self.engine.now

    def advance_to(self, when: int) -> None:
        """Let time pass while the processor is halted."""
        self.engine.now = max(self.engine.now, when)

    def request_stop(self) -> None:
        """End the run at the next block boundary; safe from any hook."""
        self.limit_run(0)

    def limit_run(self, deadline: int) -> None:
        """Bring the deadline of the run that is under way forward to this time (cycles)."""
        if deadline < self._deadline and self.engine.failure is None:
            self._deadline = deadline
            self.engine.set_deadline(min(deadline, self._breath_end))

    def stop_when_open(self) -> None:
        """Have the next run end also at the first basic block that would start with IF set.

        For who has an interrupt waiting that IF holds off.
        """
        self._until_open = True

    def run(self, deadline: int) -> Stop:
        """Run until HLT, a planted instruction, or the first block at or after ``deadline`` (cycles).

        Raises `Shutdown` for a triple fault, and whatever a hook raised.
        """
        self._deadline = deadline
        self.engine.set_until_open(self._until_open)
        try:
            return self._run()
        finally:
            self._until_open = False

    def _run(self) -> Stop:
        engine = self.engine
        self._breath_end = engine.now + engine.breath
        alone = False
        while True:
            self._trapped = False
            if self._debug_registers_changed:
                self._debug_registers_changed = False
                self._fix_debug_registers()
                self._breakpoints.refresh(self)
            hits, delivered = 0, b""
            if self._breakpoints:
                alone = True
                hits, delivered = self._breakpoints.hits(self, instruction_at(self)), engine.delivered
            end = min(self._deadline, self._breath_end)
            start = self.eip if alone else 0
            if alone:
                engine.set_shadow(True)
                end = min(end, engine.now + 1)
            engine.set_deadline(end)
            outcome = engine.run()
            was_alone, alone = alone, False
            self._translate_anew()
            match outcome:
                case Outcome.STOPPED:
                    if self._trapped:
                        return Stop.TRAP
                    if self._intervention is not None:
                        action, self._intervention = self._intervention, None
                        if action is not _nothing:
                            self._do_instead(action)
                        continue
                    if hits and delivered == engine.delivered:
                        self._trap(hits)
                    if engine.now >= self._deadline or (self._until_open and self._open()):
                        return Stop.DEADLINE
                    if not was_alone:
                        self.on_breath()
                        self._breath_end = engine.now + engine.breath
                case Outcome.HALTED:
                    return Stop.HALT
                case Outcome.RESUMING:
                    alone = True
                case Outcome.EXCEPTION:
                    assert engine.pending is not None
                    if is_premature(self, engine.pending) and not (was_alone and self.eip == start):
                        if was_alone and hits:  # of the instruction before, which is done
                            self._trap(hits)
                        alone = True
                        continue
                    pending = explained(self, engine.pending)
                    if pending.vector == DEBUG_VECTOR and not pending.software:
                        self._report(hits)
                    self._count_and_deliver(pending)
                case Outcome.SYSTEM_CALL:
                    self._perform(engine.system_call)

    def _translate_anew(self) -> None:
        engine = self.engine
        for block in self._lookout.stale:
            engine.forget_code(*block)
        self._lookout.stale.clear()
        if engine.flush_code_wanted:
            engine.flush_code_wanted = False
            engine.flush_code()

    def _report(self, bits: int) -> None:
        """Set bits of DR6; those of other breakpoints are cleared (SDM vol. 3, 17.2.3)."""
        if bits:
            self.set_debug_register(6, self.debug_register(6) & ~DR6_BREAKPOINTS | bits)

    def _trap(self, bits: int) -> None:
        """Deliver #DB behind an instruction."""
        self._report(bits)
        self._count_and_deliver(PendingException(DEBUG_VECTOR))

    def _open(self) -> bool:
        """Whether an external interrupt would be taken now."""
        return bool(self.eflags & EFLAGS_IF) and not self.in_interrupt_shadow

    def _count_and_deliver(self, pending: PendingException) -> None:
        counts = self.engine.counts
        counts[pending.vector] += 1
        delivered = self._deliver_pending(pending)
        if delivered.vector != pending.vector:
            counts[delivered.vector] += 1

    def _perform(self, call: SystemCall | None) -> None:
        assert call is not None
        after, self.eip = self.eip, self.engine.system_call_at
        self._do_instead(partial(system_calls.perform, self, call, after), masks_step=True)

    def _do_instead(self, action: Callable[[], None], *, masks_step: bool = False) -> None:
        """Do what the instruction at EIP does; what it raises is delivered as its fault, with single step in mind.

        ``masks_step``: it isn't reported if the instruction itself clears TF.
        """
        stepping = self.eflags & EFLAGS_TF
        try:
            action()
        except Raised as fault:
            if fault.cr2 is not None:
                self.cr2 = fault.cr2
            self._count_and_deliver(PendingException(fault.vector, fault.error_code))
            return
        if stepping and (not masks_step or self.eflags & EFLAGS_TF):
            self._trap(DR6_BS)

    # -- what the engine calls back ----------------------------------------------------------

    def port_in(self, port: int, size: int) -> int:
        value = self.ports.read(port, size) if self.ports else -1
        return value & ((1 << 8 * size) - 1)

    def port_out(self, port: int, size: int, value: int) -> None:
        if self.ports:
            self.ports.write(port, size, value & ((1 << 8 * size) - 1))

    def new_block(self, address: int, size: int) -> bool:
        return self._lookout.look(self, address, size)

    def watched(self, address: int) -> bool:
        code = self.peek_some(address, MAX_LENGTH)
        if address not in watched(self, code, address, returns=True, most=1):
            self._lookout.forget(self, address)
            self._intervention = _nothing
            return True
        instruction = instruction_at(self)
        try:
            if instruction is None:
                raise Raised(INVALID_OPCODE)
            guards.check(self, instruction)
        except Raised as fault:
            self._intervention = partial(_raise, fault)
        else:
            self._intervention = stand_ins.replacement(self, instruction)
        return self._intervention is not None

    def note_task_switch(self) -> None:
        """A hardware task switch is done here: from now on each IRET may be one back, and is looked at."""
        if not self._lookout.sees_returns:
            self._lookout.sees_returns = True
            self.engine.flush_code_wanted = True

    def debug_registers_change(self) -> None:
        """A MOV to a debug register is about to be executed: to be called in a run."""
        self._debug_registers_changed = True
        self.request_stop()

    def protected_store(self, physical: int, size: int, value: int) -> None:
        self.write_physical(physical, size, value)
        if self.on_protected_store is not None:
            self.on_protected_store(physical, size)

    def trap(self, address: int) -> bool:
        if not self.is_trap(address):
            return False
        self._trapped = True
        self.trapped_at = address
        return True

    def save_context(self) -> Any:
        """The whole processor state (not memory), to be put back by `restore_context`."""
        return self.engine.save_context()

    def restore_context(self, context: Any) -> None:
        self.engine.restore_context(context)

    def restore_user_state(self, context: Any) -> None:
        """Put a saved state back except for the settings: those stay as they are now."""
        settings = {setting: self.read_setting(setting) for setting in Setting}
        self.engine.restore_context(context)
        for setting, value in settings.items():
            self.write_setting(setting, value)
