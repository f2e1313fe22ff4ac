"""The one processor: Unicorn plus what Unicorn leaves out of an x86.

Registers, settings, linear memory, delivery through the IDT, virtual time. One class over both
engines; which one is chosen by `HVPROTO_ENGINE` or, by default, by whether the native one passes
its self-check.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from typing import Any, Protocol

from hvproto.errors import BadInput
from hvproto.processor import guards, private_layout, stand_ins, system_calls
from hvproto.processor.data_breakpoints import DataBreakpoints
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
    Raised,
)
from hvproto.processor.explain import explained, is_premature
from hvproto.processor.fpu import FpuState, read_fpu, write_fpu
from hvproto.processor.instruction import Instruction, first_instruction, instruction_at
from hvproto.processor.lookout import Lookout, begins_watched
from hvproto.processor.model import Model
from hvproto.processor.native import NativeEngine
from hvproto.processor.opcodes import MAX_LENGTH
from hvproto.processor.portable import PortableEngine
from hvproto.processor.register_file import RegisterFile
from hvproto.processor.settings import (
    DR6_BREAKPOINTS,
    DR6_BS,
    DR6_ONES,
    DR6_ZEROS,
    DR7_ENABLED,
    DR7_ONES,
    DR7_ZEROS,
    EFLAGS_IF,
    EFLAGS_TF,
    Setting,
    pack_all,
    unpack_all,
)
from hvproto.processor.take_event import take_exception, take_interrupt

ENGINE_VARIABLE = "HVPROTO_ENGINE"


def _raise(fault: Raised) -> None:
    raise fault


class Stop(Enum):
    """Why `Processor.run` came back."""

    DEADLINE = auto()  # at a block boundary, at or after the deadline or a requested stop
    HALT = auto()  # HLT at ring 0; EIP is after it
    TRAP = auto()  # before the instruction at ``trapped_at``, which is planted or that `on_system_call` wants


_HALTED, _HALT = Outcome.HALTED, Stop.HALT


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


class Processor(RegisterFile):
    """An x86 processor in any of its modes over ``ram``, which Python owns.

    Registers are 64 bits wide; outside long mode the upper half of what is written is dropped. The names are those
    of 32-bit code in all modes: ``eip`` is RIP in 64-bit code.
    """

    def __init__(self, ram: memoryview, engine: str | None = None) -> None:
        self.ram = ram
        self.ports: Ports | None = None
        self.on_protected_store: Callable[[int, int], None] | None = None
        """(physical address, size): called after a store to a protected page, inside the run."""
        self.is_urgent: Callable[[int, int], bool] = lambda _physical, _size: False
        """Whether a store to a protected page is to be the last that is done in its run; if not, what stands behind it
        in its basic block may be done, too."""
        self.is_trap: Callable[[int], bool] = lambda _address: True
        self.on_exception: Callable[[PendingException], bool] = lambda _pending: False
        """Called with an exception that Python is to deliver, EIP and CR2 being as it leaves them: True if it has been
        dealt with instead. The native engine doesn't ask for those that it delivers by itself: see `first_look`."""
        """Whether a planted instruction at this address is to stop the processor now."""
        self.on_new_block: Callable[[int, int], bool] | None = None
        """(linear address, bytes) of a basic block that has been translated; True: it has to be once more, with what
        was planted in it. Called inside the run."""
        self.on_system_call: Callable[[SystemCall], bool] | None = None
        """Asked before a SYSCALL or SYSENTER, between two runs of the engine: True stops the processor before it."""
        self.on_breath: Callable[[], None] = lambda: None
        """Called now and then in a long run, while the processor is stopped; what it raises ends the run."""
        self.trapped_at = 0
        self._trapped = False
        self._lookout = Lookout()
        self._breakpoints = DataBreakpoints()
        self._debug_registers_changed = False
        self._is_alone = False
        """Whether the run is of a single instruction."""
        self._done_at = -1
        """Where a trap has done what its instruction does, and will be asked once more."""
        self._intervention: Callable[[], None] | None = None
        """What is to be done instead of the instruction at EIP, once the engine has stopped."""
        self._deadline = 0
        self._breath_end = 0
        self._until_open = False
        self._counts_instructions = False
        self.engine = choose_engine(engine)(ram, self)
        if isinstance(self.engine, PortableEngine):
            me = weakref.proxy(self)
            self.engine.port_refusal = lambda port, size: me._port_refusal(port, size)
            self.engine.code_byte = lambda offset: me._code_byte(offset)
            self.engine.code = lambda address, size: (me.peek_some(address, size), me.decoder_mode)
            self.engine.code_address = lambda: me.code_address

    @property
    def model(self) -> Model | None:
        """Who answers at the ports brings its own local APIC, or none."""
        return getattr(self.ports, "model", None)

    # -- delivery ----------------------------------------------------------------------------

    def interrupt(self, vector: int) -> None:
        """Deliver an external interrupt through the current IDT now. Raises `Shutdown`."""
        if not self.engine.take_quickly(vector):
            take_interrupt(self, vector)

    def nmi(self) -> None:
        """Deliver a non-maskable interrupt now; others are blocked until the next IRET (SDM vol. 3, 6.7.1).

        Raises `Shutdown`. It is the caller's to see that `nmi_blocked` isn't set.
        """
        self.engine.block_nmi()
        self.interrupt(NMI_VECTOR)

    def raise_exception(self, vector: int, error_code: int | None = None) -> Delivered:
        """Deliver a fault of the instruction at EIP through the current IDT. Raises `Shutdown`."""
        return take_exception(self, PendingException(vector, error_code))

    def _fix_debug_registers(self) -> None:
        """Give the bits of DR6 and DR7 that can't be written their values (SDM vol. 3, 17.2.3 and 17.2.4)."""
        for number, ones, zeros in ((6, DR6_ONES, DR6_ZEROS), (7, DR7_ONES, DR7_ZEROS)):
            value = self.debug_register(number)
            self.engine.write_register(DEBUG_IDS[number], (value | ones) & ~zeros)

    def _port_refusal(self, port: int, size: int) -> Raised | None:
        try:
            return None if self.port_allowed(port, size) else Raised(13, 0)
        except Raised as fault:
            return fault

    def _code_byte(self, offset: int) -> int:
        at = self.peek(self.wrapped(self.code_address + offset), 1)
        return at[0] if at else 0

    # -- running -----------------------------------------------------------------------------

    def advance_to(self, when: int) -> None:
        """Let time pass while the processor is halted."""
        self.engine.now = max(self.engine.now, when)

    @property
    def instructions(self) -> int:
        """Instructions that the processor has begun, in all modes and worlds, while `count_instructions` was on.

        Begun counts, and once: whether it then completes, faults, or traps and is performed by a hypervisor. It counts
        again where it is begun anew after a handler has run. A string instruction with REP is one, whatever its rounds.
        What handlers in Python do is none. (SDM vol. 3, 20.2, has a counter of those that retire instead.)
        """
        return self.engine.instructions

    @property
    def counts_instructions(self) -> bool:
        return self._counts_instructions

    def count_instructions(self, on: bool = True) -> None:
        """Count `instructions` from now on, or no longer; to be called between two runs.

        All translated code is dropped if that is a change. Time, and how code is cut into basic blocks, are the same.
        Raises EngineError where it can't be done.
        """
        if on != self._counts_instructions:
            self.engine.count_instructions(on)
            self._counts_instructions = on

    def spend(self, cycles: int) -> None:
        """Let time pass in the middle of a run: the instruction that is under way takes longer than its bytes say."""
        self.engine.now += cycles

    def forget_code(self) -> None:
        self._lookout.forget(self)
        self.engine.flush_code()

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
        if not self._until_open:
            return self._run()
        self.engine.set_until_open(True)
        try:
            return self._run()
        finally:
            self._until_open = False
            self.engine.set_until_open(False)

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
            began, counted = engine.now, engine.instructions if self._counts_instructions else 0
            end = self._deadline if self._deadline < self._breath_end else self._breath_end
            start = self.eip if alone else 0
            if alone:
                engine.set_shadow(True)
                end = min(end, began + 1)
            self._is_alone = alone
            engine.set_deadline(end)
            outcome = engine.run()
            if outcome is _HALTED and not self._lookout.stale and not engine.flush_code_wanted:
                return _HALT
            was_alone, alone = alone, False
            self._translate_anew()
            match outcome:
                case Outcome.STOPPED:
                    if self._trapped:
                        self._intervention = None  # whoever planted the trap decides
                        return Stop.TRAP
                    if self._intervention is not None:
                        action, self._intervention = self._intervention, None
                        self._do_instead(action, hits=hits)
                        continue
                    if engine.now == began:  # the block has just been translated, and has to be once more
                        self._breakpoints.take_back()
                    elif hits and delivered == engine.delivered:
                        self._trap(hits)
                        self._lookout.put_back(self)  # it goes on elsewhere
                    if self._lookout.aside:
                        continue  # nothing else may run before the block at EIP has been translated without
                    if engine.now >= self._deadline or (self._until_open and self._open()):
                        return Stop.DEADLINE
                    if not was_alone:
                        self.on_breath()
                        self._breath_end = engine.now + engine.breath
                case Outcome.HALTED:
                    return Stop.HALT
                case Outcome.RESUMING:
                    alone = True
                case Outcome.URGENT_STORE:
                    alone = True
                    self._begin_anew(counted)
                case Outcome.EXCEPTION:
                    assert engine.pending is not None
                    if is_premature(self, engine.pending) and not (was_alone and self.eip == start):
                        if was_alone and hits:  # of the instruction before, which is done
                            self._trap(hits)
                        alone = True
                        self.cr2 = engine.cr2_before
                        self._begin_anew(counted)
                        continue
                    pending = explained(self, engine.pending)
                    if not self._breakpoints and engine.now < self._deadline and self.on_exception(pending):
                        continue
                    if pending.vector == DEBUG_VECTOR and not pending.software:
                        self._report(hits)
                    self._count_and_deliver(pending)
                case Outcome.SYSTEM_CALL:
                    if not self._perform(engine.system_call):
                        return Stop.TRAP

    def _begin_anew(self, counted: int) -> None:
        """The instruction at EIP is to be begun once more, with no handler between, and counts once.

        ``counted``: the count when the run began. Without a block since then, the one at EIP couldn't be translated.
        """
        if not self._counts_instructions:
            return
        instructions = self.engine.instructions
        start, end = self.engine.last_block
        if instructions != counted and start <= self.code_address < end:
            self.engine.instructions = instructions - 1

    def _translate_anew(self) -> None:
        engine, lookout = self.engine, self._lookout
        if lookout.aside:
            lookout.put_back(self)
        if lookout.astray:
            lookout.step_aside(self)
        for block in lookout.stale:
            engine.forget_code(*block)
        lookout.stale.clear()
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
        self.engine.was_in_shadow = self.in_interrupt_shadow
        delivered = take_exception(self, pending)
        if delivered.vector != pending.vector:
            counts[delivered.vector] += 1

    def _perform(self, call: SystemCall | None) -> bool:
        """Do a SYSCALL or SYSENTER; False if it is to stop the processor instead."""
        assert call is not None
        after, self.eip = self.eip, self.engine.system_call_at
        if self.on_system_call is not None and self.on_system_call(call):
            self.trapped_at = self.code_address
            return False
        self._do_instead(partial(system_calls.perform, self, call, after), masks_step=True)
        return True

    def _do_instead(self, action: Callable[[], None], *, masks_step: bool = False, hits: int = 0) -> None:
        """Do what the instruction at EIP does; what it raises is delivered as its fault, with single step in mind.

        ``masks_step``: it isn't reported if the instruction itself clears TF. ``hits``: data breakpoints, as in DR6.
        """
        stepping = self.eflags & EFLAGS_TF
        if self.in_interrupt_shadow:
            self.set_shadow(False)  # it ends with this instruction, unless that begins one
        try:
            action()
        except Raised as fault:
            if fault.cr2 is not None:
                self.cr2 = fault.cr2
            self._count_and_deliver(PendingException(fault.vector, fault.error_code))
            return
        if stepping and (not masks_step or self.eflags & EFLAGS_TF):
            hits |= DR6_BS
        if hits:
            self._trap(hits)

    # -- what the engine calls back ----------------------------------------------------------

    def port_in(self, port: int, size: int) -> int:
        value = self.ports.read(port, size) if self.ports else -1
        return value & ((1 << 8 * size) - 1)

    def port_out(self, port: int, size: int, value: int) -> None:
        if self.ports:
            self.ports.write(port, size, value & ((1 << 8 * size) - 1))

    def new_block(self, address: int, size: int) -> bool:
        # Who plants a trap must come first: of two hooks on an instruction the older one decides.
        stale = self.on_new_block is not None and self.on_new_block(address, size)
        if stale:
            self._lookout.stale.append((address, size))
        return self._lookout.look(self, address, size) or stale

    def watched(self, address: int) -> bool:
        if self.code_address != address:  # a trap that is planted here, too, has done it, and gone on elsewhere
            return False
        code = self.engine.code_at(address, MAX_LENGTH) or self.peek_some(address, MAX_LENGTH)
        mode = self.decoder_mode
        if not begins_watched(code, mode):  # it calls for the sake of a trap that is planted here, too
            return False
        # Whoever has planted a trap decides, also where somebody else's code was watched at this address before.
        if self.engine.is_planted(address):
            if self.trap(address):
                return True
            if self.code_address != address:
                self._done_at = address
                return False
        decoded = first_instruction(code, mode)
        try:
            if decoded is None:
                raise Raised(INVALID_OPCODE)
            instruction = Instruction(self, decoded, code)
            guards.check(self, instruction)
        except Raised as fault:
            self._intervention = partial(_raise, fault)
        else:
            self._intervention = stand_ins.replacement(self, instruction)
        return self._intervention is not None

    def replace_returns(self) -> None:
        """Have every IRET done by `interrupt_return` from now on: by the book, and some 50 times slower."""
        self.replaces_returns = True
        self.note_task_switch()

    def note_task_switch(self) -> None:
        """A hardware task switch is done here: from now on each IRET may be one back, and is looked at."""
        if not self._lookout.sees_returns:
            self._lookout.sees_returns = True
            self.engine.flush_code_wanted = True

    def set_debug_register(self, number: int, value: int) -> None:
        super().set_debug_register(number, value)
        if number != 6:
            self._debug_registers_changed = True

    def load_debug_registers(self, values: Sequence[int]) -> None:
        """DR0 to DR3, DR6 and DR7, in this order, as another environment has them: in effect from the next run on."""
        self.set_debug_register(7, DR7_ONES)  # nothing is enabled while addresses change
        for number, value in zip((0, 1, 2, 3, 6, 7), values, strict=True):
            self.set_debug_register(number, value)

    def debug_registers_change(self) -> None:
        """A MOV to a debug register is about to be executed: to be called in a run."""
        self._debug_registers_changed = True
        self.request_stop()

    def protected_store(self, physical: int, size: int, value: int) -> bool:
        if not self._is_alone and self.is_urgent(physical, size):
            return False
        self.write_physical(physical, size, value)
        if self.on_protected_store is not None:
            self.on_protected_store(physical, size)
        return True

    def trap(self, address: int) -> bool:
        if address == self._done_at:
            self._done_at = -1
            return False
        if not self.is_trap(address):
            return False
        self._trapped = True
        self.trapped_at = address
        return True

    @property
    def fpu(self) -> FpuState:
        """The floating-point and SSE registers, which can be set, too."""
        return read_fpu(self.engine.uc)

    @fpu.setter
    def fpu(self, state: FpuState) -> None:
        write_fpu(self.engine.uc, state)

    def save_context(self) -> Any:
        """The whole processor state (not memory), to be put back by `restore_context`."""
        return self.engine.save_context()

    def restore_context(self, context: Any) -> None:
        before = self.debug_register(7)
        self.engine.restore_context(context)
        self._debug_registers_changed |= bool((before | self.debug_register(7)) & DR7_ENABLED)

    def restore_user_state(self, context: Any) -> None:
        """Put a saved state back except for the settings: those stay as they are now."""
        bulk = self.engine.bulk
        if bulk is None:
            records = pack_all({setting: self.read_setting(setting) for setting in Setting})
        else:
            records = bulk.packed()
        self.restore_context(context)
        if bulk is None or not bulk.load_packed(records):
            for setting, value in unpack_all(records):
                self.write_setting(setting, value)
