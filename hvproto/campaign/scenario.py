"""What one scenario is, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hvproto.campaign.code import Code
from hvproto.campaign.generated import Generated
from hvproto.errors import BadInput
from hvproto.images.image import Image

AS_ALONE, HARMLESS = "as alone", "harmless"
PASSED, FAILED = "passed", "failed"
EXPECTATIONS = f'"{AS_ALONE}", "{HARMLESS}" or "status N"'


@dataclass(frozen=True, slots=True)
class Scenario:
    """A guest under a host, and what is expected of it. It is complete: a worker needs no file of the user's.

    ``limit`` is in cycles of the guest alone. ``expect`` is "as alone" (it comes to what it comes to on the bare
    machine, in output, end and memory), "harmless" (it ends by itself, at the limit, or by an error that is its own),
    or "status N" (N from 0 to 255). In each case not a byte of the host's may change while it is decoupled, and no
    error may be the hypervisor's. ``allow`` are names of errors that the guest may end by instead.
    """

    number: int
    name: str
    """What the guest is called in the results."""
    guest: Generated | Image
    host: Image
    plan: str
    seed: int
    relocation: str
    limit: int
    expect: str = AS_ALONE
    allow: tuple[str, ...] = ()
    handlers: tuple[Code, ...] = ()
    """Functions that are asked about each exit of a mirrored guest: `hvproto.hypervisor.exit_view.Handler`."""
    policy: Code | None = None
    """A class of relocation policies, made without arguments."""

    @property
    def image(self) -> Image:
        return self.guest.image if isinstance(self.guest, Generated) else self.guest

    @property
    def hosted_limit(self) -> int:
        """Cycles for host and guest together: the host's start, its work for the guest, and the guest's own."""
        return 2 * self.limit + 2_000_000


def check_expectation(text: str) -> int | None:
    """The status that is expected, None for other expectations. Raises BadInput."""
    if text in (AS_ALONE, HARMLESS):
        return None
    word, _, number = text.partition(" ")
    if word == "status" and number.isdecimal() and int(number) < 256:
        return int(number)
    raise BadInput(f"{text!r} is no expectation: write {EXPECTATIONS}")


@dataclass(frozen=True, slots=True)
class Result:
    """What a scenario came to. Nothing of it depends on who has run it, or when."""

    number: int
    verdict: str
    ending: str
    """``status 33``, or the name of the error."""
    kind: str = ""
    """What failed, in a word or two: the failure of a smaller scenario is the same if this is."""
    detail: str = ""
    cycles: int = 0
    """Virtual time of the whole machine at the end."""
    events: int = 0
    moves: dict[int, int] = field(default_factory=dict)
    """The moves that were made: by number of the exit, where the region went (GVA)."""
