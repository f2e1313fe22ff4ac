"""What a picture is of: the plan, and what the kernels are called."""

from __future__ import annotations

from typing import NamedTuple


class Heading(NamedTuple):
    """Of a run. Names, not paths: the same kernels elsewhere make the same picture."""

    plan: str
    host: str
    guests: list[str]

    @property
    def lanes(self) -> list[str]:
        """What the lanes are called, by number (`hvproto.report.lanes`).

        >>> Heading("mirrored", "host", ["hello"]).lanes, Heading("direct", "host", ["hello", "spin"]).lanes
        (['host', 'hypervisor', 'guest'], ['host', 'hypervisor', 'guest hello', 'guest spin'])
        """
        names = [f"guest {name}" for name in self.guests] if len(self.guests) > 1 else ["guest"] * len(self.guests)
        return ["host", "hypervisor", *names]
