"""Kinds of exits by name, for `Hv.on`: what the patent's hypervisor is called for (Intel SDM vol. 3, table 6-1)."""

from __future__ import annotations

from dataclasses import dataclass

from hvproto.hypervisor.exit_view import Exit, ExitKind


@dataclass(frozen=True, slots=True)
class ExitType:
    """A name for some exits: of one vector, of one kind, or both.

    >>> PageFault.name, PageFault.vector
    ('PageFault', 14)
    """

    name: str
    vector: int | None = None
    kind: ExitKind | None = None

    def matches(self, seen: Exit) -> bool:
        return self.vector in (None, seen.vector) and self.kind in (None, seen.kind)


DivideError = ExitType("DivideError", 0, ExitKind.EXCEPTION)
InvalidOpcode = ExitType("InvalidOpcode", 6, ExitKind.EXCEPTION)
GeneralProtection = ExitType("GeneralProtection", 13, ExitKind.EXCEPTION)
"""With those that privileged instructions raise at ring 3, which the hypervisor emulates."""
PageFault = ExitType("PageFault", 14, ExitKind.EXCEPTION)
"""With those that only the mirror causes, which the guest never sees."""
AnyException = ExitType("AnyException", None, ExitKind.EXCEPTION)
SoftwareInterrupt = ExitType("SoftwareInterrupt", None, ExitKind.SOFTWARE)
Sensitive = ExitType("Sensitive", None, ExitKind.INSTRUCTION)
"""Sensitive instructions that don't trap by themselves."""
