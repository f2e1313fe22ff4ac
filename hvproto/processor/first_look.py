"""A look at an event of ring 3 before it is delivered, in the middle of a run: for who has more to say than the IDT.

A hypervisor that lets each exit go through a gate, a stub and its HLT, and then starts the engine anew, pays some 10 us
for it. Here it is asked at once, by machine code that hasn't changed anything yet, and answers for a fifth of that. All
that it needs of the processor it finds as words of the engine's state: there is no call on the way.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable

from hvproto.processor import control_block as block
from hvproto.processor import private_layout as at
from hvproto.processor.native import NativeEngine
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.state import SEGMENT_CACHE, SUMMARY_SHADOW

_ANSWER = ctypes.PYFUNCTYPE(ctypes.c_int)
_SEGMENTS = SEGMENT_CACHE.size * len(SegmentRegister)


class FirstLook:
    """The event that is about to be delivered, and the state that it has interrupted.

    Each is a cell: ``look.vector.value``. ``eip`` is that of the instruction, of INT n the one behind it. ``eflags``
    has no arithmetic flags. ``now`` is virtual time: what the delivery would have taken is to be added.
    """

    def __init__(self, engine: NativeEngine, answer: Callable[[], bool]) -> None:
        """``answer`` is a method, whose object isn't held: True if all is done and the run can go on, else False.

        What it raises ends the run, and comes out of it.
        """
        control, env = engine.control_address, engine.state_address
        word, wide = ctypes.c_uint32.from_address, ctypes.c_uint64.from_address
        self.vector = word(control + block.CTL_VECTOR)
        self.error_code = word(control + block.CTL_ERROR)
        self.cr2 = wide(control + block.CTL_CR2)
        self.now = wide(control + block.CTL_NOW)
        self.is_software = word(env + at.ENV_IS_SOFTWARE)
        self.eip = wide(env + at.ENV_EIP)
        self.esp = wide(env + at.ENV_ESP)
        self.eflags = word(env + at.ENV_EFLAGS)
        self._summary = word(env + at.ENV_SUMMARY)
        self._cr3 = wide(env + at.ENV_CR3)
        self._gdt = wide(env + at.ENV_GDT_BASE)
        self._ask = wide(control + block.CTL_ASK)
        self._segments = env + at.ENV_SEGMENTS
        self._engine = engine
        owner, function = weakref.ref(answer.__self__), answer.__func__  # type: ignore[attr-defined]

        def guarded() -> int:
            asked = owner()
            try:
                return asked is not None and function(asked)
            except BaseException as problem:
                engine.fail(problem)
                return 0

        self._callback = _ANSWER(guarded)
        self._address = ctypes.cast(self._callback, ctypes.c_void_p).value or 0

    def start(self) -> None:
        """Be asked from now on, instead of whoever was."""
        self._ask.value = self._address

    def stop(self) -> None:
        """Be asked no more."""
        self._ask.value = 0

    @property
    def in_shadow(self) -> bool:
        """Whether interrupts are held off for the present instruction."""
        return bool(self._summary.value & SUMMARY_SHADOW)

    def hold_interrupts(self) -> None:
        """Hold interrupts off for the next instruction, as STI does."""
        self._summary.value |= SUMMARY_SHADOW

    def segments(self) -> bytes:
        """All six segment registers, hidden parts and all: 24 bytes each, in the order of `SegmentRegister`."""
        return ctypes.string_at(self._segments, _SEGMENTS)

    def load_tables(self, cr3: int, gdt: int) -> None:
        """CR3 (an HPA) and the GDT's base (linear), with all that depends on CR3 forgotten."""
        self._cr3.value = cr3
        self._gdt.value = gdt
        self._engine.flush_tlb()
