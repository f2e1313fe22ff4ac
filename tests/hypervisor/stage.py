"""A stage for guests: a mirrored guest over scattered frames, without a host kernel around it.

What a host would do between two stays of the guest is done here in Python, so that a run costs milliseconds, and every
byte of RAM that isn't the guest's or the hypervisor's can be compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from hvproto.addresses import GVA, HPA, PAGE_SIZE
from hvproto.errors import RunError, World
from hvproto.events import Event, EventBus
from hvproto.hypervisor.coupling import Coupling
from hvproto.hypervisor.guest import Leave
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.host_functions import ReadBlock, Write
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.save_area import SaveArea
from hvproto.images.image import Image
from hvproto.machine.machine import Machine
from hvproto.machine.ram import MIB

MEMORY = 2 * MIB
POOL_PAGES = 256
PATTERN = b"\xa5host\x5a\xf4\x0f"
LIMIT = 400_000
DISK = bytes(range(256)) * 128
"""64 sectors."""


def shuffled_frames(count: int, seed: int, ram_size: int) -> list[HPA]:
    """Frames all over RAM, in no order; never frame 0."""
    numbers = list(range(1, ram_size // PAGE_SIZE))
    random.Random(seed).shuffle(numbers)
    return [HPA(number * PAGE_SIZE) for number in numbers[:count]]


class Stage:
    """One mirrored guest that lies scattered among pages of a host that consists of a pattern only."""

    def __init__(
        self,
        image: Image,
        engine: str | None = None,
        *,
        memory: int = MEMORY,
        pool_pages: int = POOL_PAGES,
        seed: int = 1,
        ram_size: int = 8 * MIB,
        disk: bytes = DISK,
        holes: tuple[int, ...] = (),
    ) -> None:
        """``holes``: numbers of the guest-physical pages that aren't there."""
        self.events: list[Event] = []
        self.bus = EventBus()
        self.bus.subscribe(self.events.append)
        self.machine = Machine(ram_size, disk, world=World.HOST, engine=engine)
        view = self.machine.ram.view
        view[:] = PATTERN * (ram_size // len(PATTERN))
        pages = memory // PAGE_SIZE
        frames = shuffled_frames(pages + pool_pages, seed, ram_size)
        self.pool_frames = frames[pages:]
        self.host_frames = sorted(set(range(0, ram_size, PAGE_SIZE)) - set(frames))
        for frame in frames[:pages]:
            view[frame : frame + PAGE_SIZE] = bytes(PAGE_SIZE)
        self.memory = GuestMemory(view, [None if n in holes else frame for n, frame in enumerate(frames[:pages])])
        processor = self.machine.processor
        self.guest = MirroredGuest(
            0, self.machine, self.memory, self.pool_frames, len(disk) // 512, self.bus, processor.save_context(), image
        )
        self.coupling = Coupling(processor, SaveArea(view, self.guest.save_area), self.bus)
        self.output = bytearray()
        self.disk = disk

    @property
    def error(self) -> RunError | None:
        return self.guest.error

    def run(self, limit: int = LIMIT) -> int | None:
        """Run the guest to its end; its exit status, None after an error (in ``error``). Raises LimitReached."""
        guest, processor = self.guest, self.machine.processor
        while True:
            host = processor.save_context()
            self.coupling.decouple(guest.replacements(), exchange=guest.enter)
            if not guest.started:
                guest.first_entry()
                guest.started = True
            try:
                leave = guest.run(limit)
            finally:
                self.coupling.recouple("stage", exchange=lambda: (guest.leave(), processor.restore_user_state(host))[0])
            match leave:
                case Leave.HALTED:
                    return guest.status
                case Leave.FAILED:
                    return None
                case Leave.FUNCTION:
                    self._serve()
                case _:
                    pass

    def _serve(self) -> None:
        match self.guest.functions.take():
            case Write(_, data):
                self.output += data
            case ReadBlock(lba, done):
                done(self.disk[lba * 512 : (lba + 1) * 512] or None)
            case None:
                pass

    def guest_ram(self) -> bytes:
        """All of guest-physical memory, in its own order."""
        view = self.machine.ram.view
        return b"".join(bytes(view[frame : frame + PAGE_SIZE]) for frame in self.memory.frames)

    def check_host_untouched(self) -> None:
        """Not a byte of RAM outside the guest's memory and the pool has changed."""
        view = self.machine.ram.view
        page = PATTERN * (PAGE_SIZE // len(PATTERN))
        for frame in self.host_frames:
            assert view[frame : frame + PAGE_SIZE] == page, f"the host's page at {frame:#x} was written to"

    def move_at_every_exit(self, place: Callable[[int], int] | None = None) -> list[int]:
        """Move the region whenever the guest has come into a stub; returns the (growing) list of places."""
        return move_at_every_exit(self.guest)


def move_at_every_exit(guest: MirroredGuest) -> list[int]:
    """Have a guest's region moved, to and fro below the highest hole, before each exit is handled."""
    places: list[int] = []
    exits = guest.exits
    guest.quick.enabled = False  # every exit is to come by here

    def move() -> None:
        top = guest.space.hole()
        size = guest.space.region.size
        new = top - (1 + len(places) % 7) * size
        free = guest.space.mirror.space.is_free(GVA(new), size // PAGE_SIZE)
        guest.space.move_region(GVA(new if free else top))
        places.append(guest.space.region.base)

    def moving(action: Callable[..., None]) -> Callable[..., None]:
        def first_move(*arguments: int) -> None:
            move()
            action(*arguments)

        return first_move

    exits.handle = moving(exits.handle)  # type: ignore[method-assign]
    exits.trapped = moving(exits.trapped)  # type: ignore[method-assign]
    return places


@dataclass
class Bare:
    """The control experiment: the same kernel alone on a machine with the same memory."""

    machine: Machine
    status: int | None
    error: RunError | None

    @property
    def output(self) -> bytearray:
        return self.machine.serial_output

    def guest_ram(self) -> bytes:
        return bytes(self.machine.ram.view)


def bare(
    image: Image, engine: str | None = None, *, memory: int = MEMORY, limit: int = LIMIT, disk: bytes = DISK
) -> Bare:
    """Run a kernel alone, to its end or its error."""
    machine = Machine(memory, disk, engine=engine)
    machine.load(image)
    try:
        return Bare(machine, machine.run(limit), None)
    except RunError as error:
        return Bare(machine, None, error)
