"""A machine whose host knows nothing of guests, and a guest that Python lets in, out, and elsewhere."""

from __future__ import annotations

from hvproto.addresses import HPA, PAGE_SIZE
from hvproto.events import Event, EventBus
from hvproto.hypervisor.guest_state import GuestState
from hvproto.hypervisor.hypervisor import Hypervisor
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.stay import ForHost, Stay, spare_frames
from hvproto.images.image import Image
from hvproto.machine.machine import Machine
from hvproto.machine.ram import MIB
from hvproto.testing.places import address_of

MEMORY = 2 * MIB
POOL_PAGES = 256
HOST_MEMORY = 4 * MIB
DISK = bytes(range(256)) * 128
"""64 sectors."""


class Lodging:
    """A machine with an engine, a hypervisor, and by `add` a guest in memory that the host was not told of.

    Sizes are in bytes. ``events`` are all so far, ``printed`` is what guests have printed, ``guest`` and ``image`` are
    those that were added last. A host is loaded by `load_host`; without one, the host stands still forever.
    """

    def __init__(
        self,
        engine: str | None = None,
        plan: str = "mirrored",
        disk: bytes = DISK,
        *,
        host_memory: int = HOST_MEMORY,
        guest_memory: int = MEMORY,
    ) -> None:
        self.host_memory, self.guest_memory = host_memory, guest_memory
        self.machine = Machine(host_memory + guest_memory + 2 * POOL_PAGES * PAGE_SIZE, disk, engine=engine)
        self.machine.told_memory = host_memory
        self.events: list[Event] = []
        bus = EventBus()
        bus.subscribe(self.events.append)
        self.printed = bytearray()
        chosen = Plan.parse(plan)
        chosen.check_runnable()
        self.hypervisor = Hypervisor(self.machine, [], chosen, bus, self.printed.append)
        self.guest: MirroredGuest
        self.image: Image

    def load_host(self, image: Image) -> None:
        """A host that is told of its own memory only."""
        self.machine.load(image, told_memory=self.host_memory)

    def _frames(self) -> tuple[list[HPA], list[HPA]]:
        """For memory and pool. Memory lies backwards: no address means the same in both worlds."""
        frames = spare_frames(self.machine, self.guest_memory // PAGE_SIZE + POOL_PAGES)
        return frames[POOL_PAGES:][::-1], frames[:POOL_PAGES]

    def add(self, image: Image) -> MirroredGuest:
        """A guest that boots an image. Raises ImageError if it doesn't fit."""
        guest = self.hypervisor.add_guest(image, *self._frames())
        assert isinstance(guest, MirroredGuest)
        self.guest, self.image = guest, image
        return guest

    def save(self) -> GuestState:
        """The guest as data, once it has come out of the exit that it may be in. Raises Unsupported."""
        return self.hypervisor.save_guest(self.guest)

    def rebuild(self, state: GuestState, image: Image) -> MirroredGuest:
        """A guest that goes on as a saved one, of this or another machine; the one that is here has to go.

        Raises ValueError if its memory has another size, StateError if it had another board.
        """
        self.hypervisor.images[:] = [image]
        self.guest, self.image = self.hypervisor.rebuild_guest(0, state, *self._frames()), image
        return self.guest

    def run(self, cycles: int = 400_000, for_host: ForHost = ForHost.PENDING) -> Stay:
        """Let the guest run for so many cycles; how its stay has ended."""
        return self.hypervisor.run_guest(self.guest, cycles, for_host=for_host)

    def words(self, symbol: str, count: int = 1) -> list[int]:
        """Doublewords of the guest's memory. Raises BadInput for a symbol that isn't there."""
        data = self.guest.memory.read(address_of(symbol, self.image), 4 * count)
        assert data is not None
        return list(memoryview(data).cast("I"))
