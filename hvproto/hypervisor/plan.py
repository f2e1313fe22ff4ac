"""Plans: who provides each piece of supervisor state while the host is decoupled.

One mechanism, three built-in points and any mixture between them: a provider for every setting and
one for every vector. A plan is data; `coupling` and `region` carry it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hvproto.errors import PlanError
from hvproto.processor.settings import Setting

VECTORS = 256


class Provider(StrEnum):
    """Who provides a setting or serves a vector while the host is decoupled."""

    HOST = "host"
    """Left alone: the host stays coupled for this function."""
    HYPERVISOR = "hypervisor"
    GUEST = "guest"


@dataclass(frozen=True)
class Plan:
    """A provider for every setting, and for every vector that differs from the IDT's own provider.

    >>> Plan.parse("mirrored,IDTR=guest").provider(Setting.IDTR)
    <Provider.GUEST: 'guest'>
    >>> Plan.parse("direct,vector.32=host").vectors
    {32: <Provider.HOST: 'host'>}
    """

    name: str
    settings: Mapping[Setting, Provider]
    vectors: Mapping[int, Provider] = field(default_factory=dict)
    shrinks_region: bool = False
    """Whether a mirrored guest's region may shrink to one page where the guest leaves no room for six."""

    def provider(self, setting: Setting) -> Provider:
        return self.settings.get(setting, Provider.HOST)

    def route(self, vector: int) -> Provider:
        """Who serves a vector (0-255): what the plan says of it, or else the IDT's provider."""
        return self.vectors.get(vector, self.provider(Setting.IDTR))

    @property
    def replaced(self) -> tuple[Setting, ...]:
        """The settings that decoupling saves and replaces, in the order of their identification."""
        return tuple(setting for setting in Setting if self.provider(setting) is not Provider.HOST)

    @classmethod
    def parse(cls, text: str) -> Plan:
        """A plan from ``NAME[,SETTING=PROVIDER|,vector.N=PROVIDER|,region=shrink]...``. Raises PlanError."""
        base, *changes = (part.strip() for part in text.split(","))
        if base not in BUILT_IN:
            raise PlanError(f"unknown plan {base!r}: there are {', '.join(BUILT_IN)}")
        settings = dict(BUILT_IN[base].settings)
        vectors = dict(BUILT_IN[base].vectors)
        shrinks = False
        for change in changes:
            what, equals, who = (part.strip() for part in change.partition("="))
            if not equals:
                raise PlanError(f"{change!r} in the plan: write SETTING=PROVIDER or vector.N=PROVIDER")
            if what.lower() == "region":
                shrinks = _shrinks(who)
                continue
            provider = _provider(who)
            if what.lower().startswith("vector."):
                vectors[_vector(what[len("vector.") :])] = provider
            else:
                settings[_setting(what)] = provider
        return cls(text if changes else base, settings, vectors, shrinks)

    def check_runnable(self) -> None:
        """Raise PlanError unless a whole guest can run under this plan.

        Any mixture can be coupled; but a guest kernel needs its exceptions, descriptors and page
        table from one side: with the host's LDT, say, a guest could load the host's segments.
        """
        if self.guest_in_process:
            return
        providers = {self.provider(setting) for setting in Setting}
        if len(providers) > 1 or Provider.HOST in providers:
            shown = ", ".join(f"{setting.name}={self.provider(setting)}" for setting in Setting)
            raise PlanError(
                f"a guest can't run under this mixture ({shown}): these settings must come from one side. "
                "A mixture is for coupling by hand, through hvproto.hypervisor.coupling"
            )
        for vector, provider in sorted(self.vectors.items()):
            if self.guest_at_ring0 and provider is not Provider.GUEST:
                raise PlanError(
                    f"vector {vector} can't go to the {provider} under a plan whose guest is at ring 0: the processor "
                    "calls the guest's own handlers itself. Use plan mirrored"
                )
            check_route(vector, provider)

    @property
    def guest_in_process(self) -> bool:
        """Whether nothing is replaced at all: the guest lives inside a process of the host, as figure 1 has it."""
        return not self.replaced and not self.vectors

    @property
    def guest_at_ring0(self) -> bool:
        """Whether the guest kernel has the processor's own privilege: its page table is in CR3."""
        return self.provider(Setting.CR3) is Provider.GUEST


def check_route(vector: int, provider: Provider) -> None:
    """Raise PlanError if a deprivileged guest's vector can't be routed to this provider."""
    if not 0 <= vector < VECTORS:
        raise PlanError(f"unknown vector {vector}: give a number from 0 to 255")
    if provider is not Provider.HYPERVISOR and vector in _UNROUTABLE:
        raise PlanError(f"vector {vector} can't go to the {provider}: {_UNROUTABLE[vector]}")


_UNROUTABLE = {
    2: "an NMI of the machine is always the host's, and one of the guest's board always the guest's",
    8: "a double fault arises while another exception is delivered to the guest, and belongs to that delivery",
    18: "a machine check is always the host's",
}


def _provider(text: str) -> Provider:
    try:
        return Provider(text.lower())
    except ValueError:
        raise PlanError(f"unknown provider {text!r}: there are host, hypervisor, guest") from None


def _shrinks(text: str) -> bool:
    if text.lower() not in ("shrink", "full"):
        raise PlanError(f"unknown region {text!r}: there are shrink, full")
    return text.lower() == "shrink"


def _setting(text: str) -> Setting:
    try:
        return Setting[text.upper()]
    except KeyError:
        raise PlanError(f"unknown setting {text!r}: there are {', '.join(Setting.__members__)}") from None


def _vector(text: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number < VECTORS:
        raise PlanError(f"unknown vector {text!r}: give a number from 0 to 255")
    return number


def _all(provider: Provider) -> dict[Setting, Provider]:
    return dict.fromkeys(Setting, provider)


BUILT_IN: dict[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan("mirrored", _all(Provider.HYPERVISOR)),
        Plan("direct", _all(Provider.GUEST)),
        Plan("application", _all(Provider.HOST)),
    )
}
