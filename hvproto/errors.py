"""Everything that can go wrong, as types that carry what is known about it.

Every error says which *world* it happened in (host, hypervisor, guest), where, and what to do.
``exit_status`` is what a command of ours ends with when the error reaches it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class World(StrEnum):
    """Whose code the processor is executing, or whose input was bad."""

    HOST = "host"
    HYPERVISOR = "hypervisor"
    GUEST = "guest"


@dataclass(frozen=True, slots=True)
class Where:
    """A place in code: the world, the instruction pointer (a linear address), its symbol if known."""

    world: World
    eip: int
    symbol: str | None = None

    def __str__(self) -> str:
        name = f" ({self.symbol})" if self.symbol else ""
        return f"{self.world} at EIP {self.eip:#010x}{name}"


class HvprotoError(Exception):
    """Base of all errors of this package."""

    exit_status = 1


# -- what the user handed in -----------------------------------------------------------------


class BadInput(HvprotoError):
    """A file, an option or a value that can't be used; nothing was run."""

    exit_status = 2


class ImageError(BadInput):
    """A kernel image that can't be loaded."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class AssemblyError(ImageError):
    """A statement that doesn't assemble: file, line (from 1), its text, and why."""

    def __init__(self, path: str, line: int, text: str, reason: str) -> None:
        BadInput.__init__(self, f"{path}:{line}: {reason}\n    {text.strip()}")
        self.path = path
        self.line = line
        self.text = text
        self.reason = reason


class PlanError(BadInput):
    """A plan that names an unknown setting or provider, or a mixture that can't work."""


class MachineError(BadInput):
    """A machine that can't be built as asked: an absurd RAM size, a bad disk."""


# -- what happened while running -------------------------------------------------------------


class RunError(HvprotoError):
    """Something ended the run; ``where`` says whose code and which instruction."""

    def __init__(self, where: Where, reason: str, advice: str = "") -> None:
        text = f"{where}: {reason}"
        super().__init__(f"{text}\n{advice}" if advice else text)
        self.where = where
        self.reason = reason
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Fault:
    """One exception on the way to a shutdown: vector, error code if it has one, CR2 for #PF."""

    vector: int
    error_code: int | None = None
    cr2: int | None = None

    def __str__(self) -> str:
        parts = [EXCEPTION_NAMES.get(self.vector, f"vector {self.vector}")]
        if self.error_code is not None:
            parts.append(f"error code {self.error_code:#x}")
        if self.cr2 is not None:
            parts.append(f"CR2 {self.cr2:#010x}")
        return parts[0] if len(parts) == 1 else f"{parts[0]} ({', '.join(parts[1:])})"


class TripleFault(RunError):
    """The processor shut down (Intel SDM vol. 3, 6.15, #DF): ``faults`` are the three causes, in order."""

    def __init__(self, where: Where, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        steps = ("{}", "delivering it raised {}, hence #DF", "delivering that raised {}")
        chain = "; ".join(step.format(fault) for step, fault in zip(steps, faults, strict=False))
        super().__init__(
            where,
            f"triple fault, the processor shut down: {chain or 'no exception on record'}",
            "Look at the IDT entry, the stack and the TSS that the first exception needed.",
        )


class LimitReached(RunError):
    """The run used up its allowance; ``limit`` is in ``unit``: "cycles" of virtual time, or "instructions"."""

    def __init__(self, where: Where, limit: int, unit: str = "cycles") -> None:
        self.limit = limit
        self.unit = unit
        option = "--limit" if unit == "cycles" else "limit"
        super().__init__(
            where,
            f"still running after the limit of {limit:,} {unit}",
            f"Give a larger {option} if it only needs longer.",
        )


class NoMemory(RunError):
    """An access through a valid mapping to a physical address where there is no memory."""

    def __init__(self, where: Where, access: str, physical: int) -> None:
        self.access = access
        self.physical = physical
        super().__init__(where, f"{access} at physical address {physical:#x}, where the machine has no memory")


class NoRoom(RunError):
    """The guest left no hole that is large enough for the hypervisor's region."""

    def __init__(self, where: Where, pages_sought: int, pages_found: int) -> None:
        self.pages_sought = pages_sought
        self.pages_found = pages_found
        super().__init__(
            where,
            f"no room for the region: {pages_sought} free pages sought, the largest hole has {pages_found}",
        )


class RegionIsFixed(NoRoom):
    """The region may be at one place only, and the guest wants it; ``linear`` is that place (GVA)."""

    def __init__(self, where: Where, linear: int, pages_sought: int, pages_found: int) -> None:
        self.linear = linear
        self.pages_sought = pages_sought
        self.pages_found = pages_found
        RunError.__init__(
            self,
            where,
            f"the region is fixed at {linear:#x} and can't make way for the guest: {pages_sought} free pages sought "
            f"there, {pages_found} found",
            "Fix it where the guest maps nothing, or let it move.",
        )


class Unsupported(RunError):
    """The guest or host asked the processor for something that isn't built."""


class HookError(RunError):
    """A user's hook raised; the original exception is ``__cause__``."""


class EngineError(HvprotoError):
    """The engine underneath can't be used as asked (wrong version, failed self-check)."""

    exit_status = 3


EXCEPTION_NAMES = {
    0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF",
    10: "#TS", 11: "#NP", 12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC", 19: "#XM",
}  # fmt: skip
"""Mnemonics of the architectural exceptions (Intel SDM vol. 3, table 6-1)."""
