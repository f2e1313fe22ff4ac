"""The words of exception delivery: what is raised, delivered, to what, with what result (SDM vol. 3, chapter 6)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from hvproto.errors import Fault
from hvproto.processor.segments import RPL_MASK, TABLE_INDICATOR, Segment, TableRegister, decode_descriptor

LINEAR_32 = 0xFFFF_FFFF
DEBUG_VECTOR, NMI_VECTOR, INVALID_OPCODE = 1, 2, 6


class Raised(Exception):
    """An exception raised in the middle of an operation, not yet delivered.

    ``committed`` says that the operation had changed the processor's state for good before: a task switch, behind the
    point where the new task is the current one.
    """

    def __init__(
        self, vector: int, error_code: int | None = None, cr2: int | None = None, *, committed: bool = False
    ) -> None:
        super().__init__(vector, error_code, cr2)
        self.vector = vector
        self.error_code = error_code
        self.cr2 = cr2
        self.committed = committed

    @property
    def fault(self) -> Fault:
        return Fault(self.vector, self.error_code, self.cr2)


class Shutdown(Exception):
    """A triple fault; ``faults`` are the three exceptions: the first, the one that delivering it
    raised (together: #DF), and the one that delivering #DF raised."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults)
        self.faults = faults


class Source(Enum):
    """What an event comes from; decides the gate's DPL check, the EXT bit and RF."""

    EXTERNAL = "external"
    FAULT = "fault"
    """An exception that is reported before its instruction: RF is set in the pushed flags."""
    TRAP = "trap"
    """An exception that is reported after its instruction: single step, data breakpoints, INT1."""
    SOFTWARE = "software"
    """INT n, INT3, INTO."""

    @property
    def is_exception(self) -> bool:
        return self in (Source.FAULT, Source.TRAP)


def exception_source(vector: int) -> Source:
    """Whether an exception of the processor sets RF in what it pushes: all but #DB (SDM vol. 3, 17.3.1.1)."""
    return Source.TRAP if vector == DEBUG_VECTOR else Source.FAULT


@dataclass(frozen=True, slots=True)
class Event:
    """Something to deliver. ``return_eip`` is what the handler's frame will hold."""

    vector: int
    source: Source
    return_eip: int
    error_code: int | None = None
    cr2: int | None = None
    v86: tuple[int, ...] = ()
    """GS, FS, DS and ES (selectors) if it interrupts virtual-8086 mode, which the handler's frame then holds too."""

    @property
    def ext(self) -> int:
        """The EXT bit of the error code of what goes wrong while this is delivered (SDM vol. 3, 6.13)."""
        return 0 if self.source is Source.SOFTWARE else 1


class Memory(Protocol):
    """Linear memory as delivery sees it: at supervisor level unless ``user``. Raises `Raised`."""

    def read(self, linear: int, size: int) -> int: ...
    def write(self, linear: int, size: int, value: int, *, user: bool = False) -> None: ...


class Target(Memory, Protocol):
    """The processor state that delivery reads."""

    @property
    def protected(self) -> bool:
        """CR0.PE."""

    @property
    def long_mode(self) -> bool:
        """EFER.LMA."""

    @property
    def cpl(self) -> int: ...
    @property
    def eip(self) -> int: ...
    @property
    def esp(self) -> int: ...
    @property
    def eflags(self) -> int: ...
    @property
    def code(self) -> Segment: ...
    @property
    def stack(self) -> Segment: ...
    @property
    def idtr(self) -> TableRegister: ...
    @property
    def gdtr(self) -> TableRegister: ...
    @property
    def ldtr(self) -> Segment: ...
    @property
    def tr(self) -> Segment: ...

    def switch_task(self, event: Event, selector: int) -> Delivered:
        """Go through a task gate to the TSS that it names. Raises `Raised`, committed or not."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The state that delivery leads to; nothing but the handler's stack has been written yet.

    Except for a task switch, where all of it is in the processor already: ``switched``.
    """

    vector: int
    code: Segment
    eip: int
    stack: Segment | None
    """The new stack segment, or None where the stack wasn't switched."""
    esp: int
    eflags: int
    error_code: int | None
    faults: tuple[Fault, ...] = ()
    """All exceptions on the way, the first one first; more than one after nested faults."""
    cr2: int | None = None
    switched: bool = False


def load_descriptor(target: Target, selector: int, external: int = 0, vector: int = 13) -> Segment:
    """What a selector stands for; ``vector`` with the selector as error code if nothing."""
    if not selector & ~RPL_MASK:
        raise Raised(vector, external)
    place = descriptor_place(target, selector, external, vector)
    return decode_descriptor(selector, target.read(place, 8))


def descriptor_place(target: Target, selector: int, external: int = 0, vector: int = 13) -> int:
    """The linear address of a selector's descriptor; ``vector`` if it lies beyond its table's limit."""
    if selector & TABLE_INDICATOR:
        table = TableRegister(target.ldtr.base, target.ldtr.limit if target.ldtr.present else 0)
    else:
        table = target.gdtr
    at = selector & ~(RPL_MASK | TABLE_INDICATOR)
    if at + 7 > table.limit:
        raise Raised(vector, selector & ~RPL_MASK | external)
    return table.base + at if target.long_mode else table.base + at & LINEAR_32


def push_all(target: Target, stack: Segment, esp: int, values: list[int], size: int, *, user: bool = False) -> int:
    """Push values in order, ``size`` bytes each; returns the new ESP. A 16-bit stack wraps at 64 KiB."""
    mask = LINEAR_32 if stack.is_32bit else 0xFFFF
    for value in values:
        top = (esp - size) & mask
        esp = esp & ~mask | top
        target.write(stack.base + top & LINEAR_32, size, value & ((1 << 8 * size) - 1), user=user)
    return esp
