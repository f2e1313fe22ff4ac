"""What is debugged: a session with a host and guests, or one bare machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hvproto.errors import World
from hvproto.events import EventBus
from hvproto.hypervisor.coupling import Coupling
from hvproto.hypervisor.guest import Guest
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.session import Session
from hvproto.images.image import Image
from hvproto.machine.machine import Machine
from hvproto.processor.processor import Processor


@dataclass(slots=True)
class Subject:
    """``run`` goes from power-on to the end, and gives the exit status. ``session`` is None for a bare machine."""

    machine: Machine
    bus: EventBus
    session: Session | None
    run: Callable[[], int]
    host_context: Any = None
    """The host's processor state, as it was saved at the last decoupling."""

    @property
    def processor(self) -> Processor:
        return self.machine.processor

    @property
    def guest(self) -> Guest | None:
        """The guest that was entered last."""
        coupling = self.coupling
        if self.session is None or coupling is None:
            return None
        return next((guest for guest in self.session.guests if guest.save_area == coupling.save_area.place), None)

    @property
    def mirrored(self) -> MirroredGuest | None:
        guest = self.guest
        return guest if isinstance(guest, MirroredGuest) else None

    @property
    def coupling(self) -> Coupling | None:
        return None if self.session is None else self.session.hypervisor.coupling

    @property
    def world(self) -> World:
        """Whose code the processor is at."""
        guest = self.mirrored
        if self.machine.world is World.GUEST and guest is not None:
            processor = self.processor
            if processor.cpl == 0 and guest.space.region.contains(processor.code_address):
                return World.HYPERVISOR
        return self.machine.world

    def image(self, world: World) -> Image | None:
        return self.machine.images.get(world)

    def symbol_at(self, address: int, world: World | None = None) -> str:
        """``name+0x12`` of a linear address, or nothing."""
        world = world or self.world
        guest = self.mirrored
        if world is World.HYPERVISOR and guest is not None and guest.space.region.contains(address):
            return f"region+{address - guest.space.region.base:#x}"
        image = self.image(world)
        return (image.symbols.name_at(address) if image is not None else None) or ""

    def follow_host(self) -> None:
        """Remember the host's state whenever the hypervisor saves it."""
        save = self.processor.save_context

        def save_context() -> Any:
            context = save()
            if self.machine.world is World.HOST:
                self.host_context = context
            return context

        self.processor.save_context = save_context  # type: ignore[method-assign]


Build = Callable[[Callable[[str, int], None]], Subject]
"""Makes the subject anew; what it gets is called with each byte of output, and whose it is: "guest" or "host"."""
