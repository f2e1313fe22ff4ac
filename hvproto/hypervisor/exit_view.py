"""An exit as a user's handler sees it, and what the handler can answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from hvproto.errors import EXCEPTION_NAMES, World
from hvproto.hypervisor.plan import VECTORS
from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.processor.exceptions import Raised
from hvproto.processor.instruction import Instruction

if TYPE_CHECKING:
    from hvproto.hypervisor.mirrored import MirroredGuest


class ExitKind(Enum):
    """What took the processor from the guest."""

    EXCEPTION = auto()
    """A fault or trap of the real processor; some are the mirror's affair and not the guest's own."""
    SOFTWARE = auto()
    """INT n, INT3 or INTO."""
    INSTRUCTION = auto()
    """A sensitive instruction that doesn't trap by itself, caught before it was executed; vector 13 stands for it."""


class Decision(Enum):
    """Answers without further words."""

    DEFAULT = auto()
    """As if nobody had been asked; None says the same."""
    HANDLED = auto()
    """All is done: the guest goes on where its EIP is now. An INT n whose EIP wasn't touched is over."""
    REFLECT = auto()
    """The event goes to the guest's own handler, even if the hypervisor would have dealt with it."""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Inject:
    """Raise this exception in the guest, at its present EIP, instead. ``address`` goes to CR2. Raises ValueError."""

    vector: int
    error_code: int | None = None
    address: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.vector < VECTORS:
            raise ValueError(f"there is no vector {self.vector}")

    def __str__(self) -> str:
        return f"INJECT {self.vector}"


@dataclass(frozen=True, slots=True)
class EndGuest:
    """The guest is over, for this reason and with this exit status (0-255)."""

    reason: str = "an exit handler ended it"
    status: int = 0

    def __str__(self) -> str:
        return "STOP"


DEFAULT, HANDLED, REFLECT = Decision.DEFAULT, Decision.HANDLED, Decision.REFLECT
STOP = EndGuest()

Answer = Decision | Inject | EndGuest | None


@dataclass(slots=True)
class Exit:
    """One exit. The guest stands still; its registers can be read and changed through ``cpu``."""

    guest: MirroredGuest
    kind: ExitKind
    vector: int
    error_code: int | None
    """As the processor pushed it; None for a vector that has none."""
    eip: int
    """GVA offset of the instruction; of the next one for traps (single step, data breakpoints)."""
    address: int | None = None
    """The GVA that couldn't be reached, for a page fault."""
    length: int = 0
    """Of an INT n, in bytes."""

    @property
    def world(self) -> World:
        """Whose code was interrupted."""
        return World.GUEST

    @property
    def name(self) -> str:
        """ "#GP", or "vector 48"."""
        return EXCEPTION_NAMES.get(self.vector, f"vector {self.vector}")

    @property
    def cpu(self) -> VirtualCpu:
        """The guest's own processor: its registers, settings and linear memory, as it believes them to be."""
        return self.guest.cpu

    @property
    def instruction(self) -> Instruction | None:
        """The instruction at EIP; None if there are no readable bytes of one."""
        try:
            return self.guest.exits.instruction()
        except Raised:
            return None

    def skip(self) -> None:
        """Move the guest's EIP past the instruction. Raises ValueError if none can be read."""
        length = self.length
        if not length:
            instruction = self.instruction
            if instruction is None:
                raise ValueError(f"no instruction can be read at {self.eip:#x}")
            length = instruction.size
        self.cpu.eip = self.eip + length


Handler = Callable[[Exit], Answer]
