"""The pacer: has the processor go free, block by block or instruction by instruction, and the run never notices.

Virtual time is the bytes of all basic blocks that were entered, and what is due is looked for between blocks. So a
debugger that simply stopped in a block and went on would change the time, and with it every later interrupt. The pacer
stands where `Processor` calls the engine: the engine is always asked for whole blocks, or for one instruction at a time
with the time of the whole block charged as if it were whole; and what ends a run is heeded between blocks only. A run
that was stepped from its beginning to its end has the same events, cycle by cycle, as one that was not.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from capstone import x86_const as cs

from hvproto.debugger.accesses import WRITE, accesses
from hvproto.debugger.tripwires import Tripwires
from hvproto.processor.engine import Outcome
from hvproto.processor.instruction import first_instruction
from hvproto.processor.opcodes import MAX_LENGTH
from hvproto.processor.portable import PortableEngine
from hvproto.processor.processor import Processor
from hvproto.processor.settings import DR7_ENABLED, EFLAGS_IF, EFLAGS_RF, EFLAGS_ZF

FOREVER = 1 << 62
_OF_DEADLINE = PortableEngine._on_block.__code__
_REPEATS = (0xF2, 0xF3)
_COMPARING = (0xA6, 0xA7, 0xAE, 0xAF)
_STRINGS = frozenset((0x6C, 0x6D, 0x6E, 0x6F, 0xA4, 0xA5, 0xAA, 0xAB, 0xAC, 0xAD, *_COMPARING))
RCX = 1


class Pace(Enum):
    """How closely the run is followed."""

    FREE = auto()  # to a time, or to a block with a breakpoint in it
    BLOCKS = auto()  # the overseer is asked before each basic block
    STEPS = auto()  # ... and before each instruction


class Overseer(Protocol):
    """Who decides where the run is stopped. It stops the run by not returning for as long as it likes."""

    def pace(self) -> Pace: ...

    def free_until(self) -> int:
        """At a free pace: the time (cycles) at which to be asked again."""

    def between_blocks(self) -> None:
        """Often, and before anything is known about the next block."""

    def before_block(self, address: int, size: int) -> None:
        """The processor is at the beginning of a basic block of so many bytes that it will enter now."""

    def before_instruction(self, address: int, index: int) -> None:
        """... before the instruction at a linear address, number ``index`` of its block."""


@dataclass(slots=True)
class _Block:
    """A basic block that is stepped through."""

    start: int
    size: int
    at: int
    """When it began."""
    end_time: int
    """The time that it shows while it is executed."""
    index: int = 0
    address: int = 0
    alone: bool = False
    """Whether it is one instruction that the engine does again, since it changes the block that it stood in."""
    told: int = -1
    """The index of the instruction that the overseer was asked about last."""


class Pacer:
    """Stands between a processor and its engine. ``marks`` are linear addresses at which a free run is stopped."""

    def __init__(self, processor: Processor, overseer: Overseer) -> None:
        self._processor = processor
        self._overseer = overseer
        engine = self._engine = processor.engine
        self._run_engine, self._program, self._stop_engine = engine.run, engine.set_deadline, engine.stop
        self._set_until_open = engine.set_until_open
        self._wanted = 0
        self._limit = 0
        self._asked = False
        self._until_open = False
        self._tripwires = Tripwires(engine, self._stop_engine, lambda: self._program(0))
        self._block: _Block | None = None
        self._again = 0
        """The size of the instruction that the next block consists of, if not 0."""
        self.block_at = 0
        """When the present basic block began, in cycles."""
        self._overridden: dict[str, Any] = {
            "run": self.run, "set_deadline": self._on_deadline, "stop": self._on_stop,
            "set_until_open": self._on_until_open,
        }  # fmt: skip
        for name, method in self._overridden.items():
            setattr(engine, name, method)

    def detach(self) -> None:
        """Leave the engine as it was."""
        self.mark(())
        self.watch_stores(())
        for name in self._overridden:
            delattr(self._engine, name)

    # -- what the processor tells its engine -------------------------------------------------

    def _on_deadline(self, when: int) -> None:
        self._wanted = when
        self._program(min(when, self._limit))

    def _on_stop(self) -> None:
        # The portable engine stops itself, at its deadline; anybody else who stops it wants something.
        self._asked |= sys._getframe(1).f_code is not _OF_DEADLINE
        self._stop_engine()

    def _on_until_open(self, on: bool) -> None:
        self._until_open = on
        self._set_until_open(on)

    def _go(self, limit: int, *, heeding: bool = True) -> Outcome:
        """Run the engine to its deadline, if that is heeded, but no block at or after ``limit``."""
        self._limit = limit
        self._asked = False
        self._program(min(self._wanted, limit) if heeding else limit)
        try:
            return self._run_engine()
        finally:
            self._limit = FOREVER

    # -- what stops a free run -----------------------------------------------------------------

    def mark(self, addresses: tuple[int, ...]) -> None:
        """Have a free run stop before each basic block with an instruction at one of these linear addresses."""
        self._tripwires.mark(addresses)

    def watch_stores(self, places: tuple[tuple[int, int], ...]) -> None:
        """Have a free run stop behind each basic block that stores to these (host-physical address, bytes).

        All loads and stores take several times as long meanwhile.
        """
        self._tripwires.watch_stores(places)

    @property
    def stored_at(self) -> int | None:
        """When the block began, at the latest, that has stored to what is watched; None if none has."""
        return self._tripwires.stored_at

    def forget_store(self) -> None:
        self._tripwires.stored_at = None

    # -- the run -----------------------------------------------------------------------------

    def run(self) -> Outcome:
        """In the engine's place: returns what it would have returned, when it would have."""
        if self._engine._is_tried_out:
            return self._run_engine()
        overseer, engine = self._overseer, self._engine
        while True:
            if self._block is None:
                overseer.between_blocks()
                if overseer.pace() is Pace.FREE:
                    outcome = self._run_free()
                    if outcome is not None:
                        return outcome
                    if not self._tripwires.tripped and overseer.pace() is Pace.FREE:
                        continue
                outcome = self._enter()
                if outcome is not None:
                    return outcome
                address = self._processor.code_address
                self.block_at = engine.now
                alone, self._again = self._again, 0
                size = alone or engine.uc.ctl_request_cache(address)[2]
                overseer.before_block(address, size)
                if address != self._processor.code_address:
                    continue  # somebody has sent the processor elsewhere
                marked = self._tripwires.tripped or self._tripwires.is_marked(address, size)
                if overseer.pace() is not Pace.STEPS and not marked:
                    if overseer.pace() is Pace.BLOCKS:
                        outcome = self._go(engine.now + 1)
                        if not self._is_ours(outcome):
                            return outcome
                    continue
                self._tripwires.tripped = False
                self._block = _Block(address, size, engine.now, engine.now + size, address=address, alone=bool(alone))
            outcome = self._step()
            if outcome is not None:
                return outcome

    def _is_ours(self, outcome: Outcome) -> bool:
        """Whether the engine has come back only since we wanted it to, at the beginning of a block."""
        if outcome is not Outcome.STOPPED or self._asked or self._engine.now >= self._wanted:
            return False
        if self._until_open and self._is_open():
            return False
        return not self._processor._lookout.stale and not self._engine.flush_code_wanted

    def _is_open(self) -> bool:
        return bool(self._processor.eflags & EFLAGS_IF) and not self._processor.in_interrupt_shadow

    def _run_free(self) -> Outcome | None:
        """None: it is at the beginning of a block, at the overseer's time or before a mark."""
        self._tripwires.tripped = False
        outcome = self._go(self._overseer.free_until())
        if self._tripwires.tripped and outcome is Outcome.STOPPED:
            return None
        self._tripwires.tripped = False
        return None if self._is_ours(outcome) else outcome

    def _enter(self) -> Outcome | None:
        """Have the block at CS:EIP translated; None if nothing is to happen before it is executed."""
        marked = self._tripwires.tripped
        outcome = self._go(0)
        self._tripwires.tripped = marked
        if not self._is_ours(outcome):
            return outcome
        if self._processor.eflags & EFLAGS_RF and self._processor.debug_register(7) & DR7_ENABLED:
            return self._go(self._engine.now + 1)  # one instruction, as the processor will have it
        return None

    # -- one instruction ---------------------------------------------------------------------

    def _step(self) -> Outcome | None:
        """Execute one instruction of the present block; None: go on."""
        block, processor, engine = self._block, self._processor, self._engine
        assert block is not None
        if processor.code_address != block.address:
            self._block = None
            return None
        if block.told != block.index:
            block.told = block.index
            self._overseer.before_instruction(block.address, block.index)
            if processor.code_address != block.address:
                self._block = None
                return None
        code = processor.peek_some(block.address, MAX_LENGTH)
        decoded = first_instruction(code, processor.decoder_mode)
        size = decoded.size if decoded is not None else block.size
        if not block.alone and self._changes(block):
            # The engine has charged the block, leaves it here, and does the instruction in a block of its own.
            engine.now, self._block, self._again = block.end_time, None, size
            return None
        string = _string(code, size)
        count = self._count(decoded) if string else 0
        before = engine.now
        engine.now = block.end_time - size
        natural = processor.in_interrupt_shadow
        engine.set_shadow(True)
        outcome = self._go(engine.now + 1, heeding=False)
        executed = engine.now != block.end_time - size
        next_address = processor.wrapped(block.address + size)
        went_on = processor.code_address == next_address
        shadow = natural if not executed else went_on and not natural and _holds_interrupts_off(decoded)
        if processor.in_interrupt_shadow != shadow:
            engine.set_shadow(shadow)
        if not executed:
            engine.now = before
            if self._asked or outcome is not Outcome.STOPPED:
                self._block = None  # somebody wants something else done than this instruction
                engine.now = block.end_time
                return outcome
            processor._translate_anew()
            return None
        first, end = engine.last_block
        if first == block.address:
            engine.now += size - (end - first)  # of an instruction that it refuses, the engine may not see all
        block.end_time = engine.now
        if outcome is not Outcome.STOPPED or self._asked:
            self._block = None
            return outcome
        if string and went_on and count == 1 and not self._compared(code, size):
            # The engine looks at the count once more, in a block of its own; one instruction alone doesn't.
            processor.eip -= size
            self._block = None
        elif not went_on or next_address >= block.start + block.size:
            self._block = None
        else:
            block.index += 1
            block.address = next_address
        processor._translate_anew()
        return None

    def _changes(self, block: _Block) -> bool:
        """Whether the instruction stores to the code of its own block."""
        end = block.start + block.size
        return any(
            kind & WRITE and address < end and block.start < address + size
            for address, size, kind in accesses(self._processor)
        )

    def _count(self, decoded: Any) -> int:
        bits = {2: 16, 4: 32, 8: 64}[decoded.addr_size]
        return self._processor.gpr(RCX) & (1 << bits) - 1

    def _compared(self, code: bytes, size: int) -> bool:
        """Whether a comparison, not the count, has ended the repetition."""
        if code[size - 1] not in _COMPARING:
            return False
        equal = bool(self._processor.eflags & EFLAGS_ZF)
        return equal != (0xF3 in code[: size - 1])


def _string(code: bytes, size: int) -> bool:
    """Whether it is a string instruction that is repeated."""
    return 1 < size <= len(code) and code[size - 1] in _STRINGS and any(byte in _REPEATS for byte in code[: size - 1])


def _holds_interrupts_off(decoded: Any) -> bool:
    """Whether it is an STI or a load of SS; the engine doesn't have two shadows in a row."""
    if decoded is None:
        return False
    if decoded.id in (cs.X86_INS_MOV, cs.X86_INS_POP):
        operand = decoded.operands[0]
        return bool(operand.type == cs.X86_OP_REG and operand.reg == cs.X86_REG_SS)
    return bool(decoded.id == cs.X86_INS_STI)
