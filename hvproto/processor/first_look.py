"""A look at an event of ring 3 before it is delivered, in the middle of a run: for who has more to say than the IDT.

A hypervisor that lets each exit go through a gate, a stub and its HLT, and then starts the engine anew, pays some 10 us
for it. Here it is asked at once, by machine code (`asking`) that hasn't changed anything yet, and answers for a tenth
of that. So it is about the instructions at which traps are planted. All that it needs of the processor it finds as
words of the engine's state: there is no call on the way.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Any

from hvproto.processor import control_block as block
from hvproto.processor import private_layout as at
from hvproto.processor.asking import SIDE_SIZE
from hvproto.processor.known_transfers import KnownTransfers
from hvproto.processor.native import NativeEngine
from hvproto.processor.state import SUMMARY_SHADOW
from hvproto.processor.unasked import TO_BE_TOLD

_ANSWER = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)
Answer = Callable[[int, int, int, int], int]


class Side:
    """What changes in the processor with the ring, as machine code loads it."""

    def __init__(self, segments: bytes) -> None:
        """``segments``: CS and SS as `NativeEngine.ring_3_segments` gives them."""
        self.segments = segments
        self._words = (ctypes.c_uint64 * (SIDE_SIZE // 8))()
        self.address = ctypes.addressof(self._words)
        ctypes.memmove(self.address, segments, len(segments))

    def set_tables(self, cr3: int, gdt: int) -> None:
        """CR3 (an HPA) and the GDT's base (linear)."""
        self._words[-2], self._words[-1] = cr3, gdt


class FirstLook:
    """The event that is about to be delivered, and the state that it has interrupted.

    Each is a cell: ``look.cr2.value``. ``flags``, of INT n and of traps, is EFLAGS in full; what is written there
    counts for traps only. ``data_selectors`` is for IRET. ``side`` is to be a `Side`'s address if the guest goes on
    there.

    The answer is 0 if nothing is done, `NEXT` or `ELSEWHERE` if all is, and the run goes on.
    Nobody is asked in single step, or where interrupts are held off for the present instruction.
    """

    def __init__(
        self,
        engine: NativeEngine,
        answer: Answer,
        trapped: Answer,
        decided: Callable[[], None],
        known: KnownTransfers,
        cycles: tuple[int, int],
        instructions: tuple[int, int],
        mask: int,
    ) -> None:
        """``answer`` and, for planted traps, ``trapped`` are methods, whose object isn't held.

        ``answer`` gets what is asked about - a vector, or what `asking` says - with the error code, EIP (of INT n, that
        behind it) and ESP; ``trapped`` the instruction's first byte, EIP, ESP and EFLAGS. ``cycles`` is the virtual
        time that the delivery of an INT n takes, and of a fault, ``instructions`` how many each takes: when ``answer``
        is called, they have passed. ``mask``: the flags that the guest has as the processor has them. ``decided``,
        another such method, is called when something was decided with nobody asked, before Python looks at the guest.

        What it raises ends the run, and comes out of it.
        """
        control, env = engine.control_address, engine.state_address
        word, wide = ctypes.c_uint32.from_address, ctypes.c_uint64.from_address
        self.cr2 = wide(control + block.CTL_CR2)
        self.eip = wide(env + at.ENV_EIP)
        self.esp = wide(env + at.ENV_ESP)
        self.side = wide(control + block.CTL_SIDE)
        self.flags = word(control + block.CTL_FLAGS)
        self.data_selectors = wide(control + block.CTL_DATA_SELECTORS)
        self._summary = word(env + at.ENV_SUMMARY)
        self._ask, self._ask_trap = wide(control + block.CTL_ASK), wide(control + block.CTL_ASK_TRAP)
        places = (block.CTL_ASK_CYCLES, block.CTL_ASK_INSTRUCTIONS)
        self._takes = tuple(wide(control + place + more) for place in places for more in (0, 8))
        self._taken = (*cycles, *instructions)
        self.guest = wide(control + block.CTL_GUEST)
        """What machine code may do with nobody asked: see `unasked`. To be 0 if it may do nothing."""
        self._known = wide(control + block.CTL_KNOWN)
        self._real_flags, self._mask = word(control + block.CTL_REAL_FLAGS), mask
        self.unasked_count = wide(control + block.CTL_UNASKED)
        """How often it did."""
        self._engine, self._transfers, self._decided = engine, known, weakref.WeakMethod(decided)
        self._callbacks = [_callback(engine, method) for method in (answer, trapped)]
        self._addresses = [ctypes.cast(one, ctypes.c_void_p).value or 0 for one in self._callbacks]

    def start(self) -> None:
        """Be asked from now on, instead of whoever was."""
        self._ask.value, self._ask_trap.value = self._addresses
        self.side.value = 0
        self._real_flags.value = self._mask
        self._known.value = self._transfers.address
        self._engine.decided = self._decided
        for cell, taken in zip(self._takes, self._taken, strict=True):
            cell.value = taken

    @property
    def is_asked(self) -> bool:
        return self._ask.value == self._addresses[0]

    def stop(self) -> None:
        """Be asked no more."""
        self._ask.value = self._ask_trap.value = 0

    def hold_interrupts(self) -> None:
        """Hold interrupts off for the next instruction, as STI does."""
        self._summary.value |= SUMMARY_SHADOW


def _callback(engine: NativeEngine, method: Answer) -> Any:
    """... that neither the engine nor its owner is held by."""
    owner, function = weakref.ref(method.__self__), method.__func__  # type: ignore[attr-defined]
    failing, running = weakref.WeakMethod(engine.fail), weakref.ref(engine)
    guest = ctypes.c_uint64.from_address(engine.control_address + block.CTL_GUEST)

    def guarded(what: int, second: int, third: int, fourth: int) -> int:
        try:
            if guest.value & TO_BE_TOLD:
                decider = running()
                if decider is not None:
                    decider.tell_decided()
            return function(owner(), what, second, third, fourth)  # type: ignore[no-any-return]
        except BaseException as problem:
            report = failing()
            if report is not None:
                report(problem)
            return 0

    return _ANSWER(guarded)
