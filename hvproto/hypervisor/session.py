"""One whole run: a machine, its host, the hypervisor and the guests, from power-on to the end."""

from __future__ import annotations

from collections.abc import Callable

from hvproto import events
from hvproto.errors import RunError, World
from hvproto.events import EventBus
from hvproto.hypervisor.guest import Guest
from hvproto.hypervisor.hypervisor import Hypervisor
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.relocation import DEFAULT_POLICY, RelocationPolicy
from hvproto.images.image import Image
from hvproto.images.multiboot_info import BootOptions
from hvproto.machine.machine import DEFAULT_RAM, Machine


class GuestNeverRan(RunError):
    """The host came to its end without having entered the guest."""


class Session:
    """A host with guests on one machine, under a plan.

    ``on_guest_output`` gets each byte that a guest prints, once the host's driver has printed it;
    ``on_host_debug`` each byte of the host's debug console. ``policy`` says where a mirrored guest's
    region goes. ``options`` are the host's command line and modules: how many guests the bundled host is to have, and
    with how much memory (`accommodate`); ``guest_options`` are each guest's. Raises PlanError for a plan that can't run
    a guest, ImageError for a host that doesn't fit.
    """

    def __init__(
        self,
        host: Image,
        guests: list[Image],
        plan: Plan,
        *,
        ram_size: int = DEFAULT_RAM,
        disk: bytes | None = None,
        engine: str | None = None,
        bus: EventBus | None = None,
        on_guest_output: Callable[[int], None] | None = None,
        on_host_debug: Callable[[int], None] | None = None,
        policy: RelocationPolicy = DEFAULT_POLICY,
        options: BootOptions = BootOptions(),  # noqa: B008 - it can't change
        guest_options: BootOptions = BootOptions(),  # noqa: B008 - it can't change
    ) -> None:
        plan.check_runnable()
        self.bus = bus or EventBus()
        self.machine = Machine(ram_size, disk, world=World.HOST, engine=engine, on_debug=on_host_debug)
        self.hypervisor = Hypervisor(
            self.machine, guests, plan, self.bus, on_guest_output, policy, shows_disk=disk is not None,
            guest_options=guest_options,
        )  # fmt: skip
        self.machine.load(host, options)

    @property
    def guests(self) -> list[Guest]:
        """The guests that have been entered so far, by number."""
        return [self.hypervisor.guests[number] for number in sorted(self.hypervisor.guests)]

    def run(self, limit: int | None = None) -> int:
        """Run to the end; returns the exit status: the first guest's that isn't 0, else the machine's.

        ``limit`` is in cycles of virtual time. Raises the RunError that ended the run, or, once all guests have
        ended, the first one's that came to grief: what ends a guest harms no other.
        """
        try:
            status = self.machine.run(limit, self.hypervisor.service)
        except RunError as error:
            self._say_shutdown(str(error.where.world), error.exit_status, error.reason)
            raise
        for failure in self.hypervisor.failures.values():
            reason = failure.reason if isinstance(failure, RunError) else str(failure)
            self._say_shutdown("guest", failure.exit_status, reason)
            raise failure
        if not self.guests:
            raise GuestNeverRan(
                self.machine.where(), "the host came to its end without entering the guest",
                "A host enters its guest through the hypervisor's door; see guests/host.asm.",
            )  # fmt: skip
        status = next((guest.status for guest in self.guests if guest.status), status)
        self._say_shutdown("host", status, "the host came to its end")
        return status

    def _say_shutdown(self, world: str, status: int, reason: str) -> None:
        self.bus.emit(events.Shutdown(self.machine.processor.now, world, status, reason))
