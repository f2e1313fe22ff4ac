"""The hypervisor: the component of the emulation program that decouples and recouples the host (22 in figure 3).

It waits behind a door of the machine. When the host's driver knocks, it decouples the host, lets the
guest run until the host is needed, recouples the host, and says in the run block what for.
"""

from __future__ import annotations

from collections.abc import Callable

from hvproto import events
from hvproto.addresses import HPA, HVA
from hvproto.errors import HookError, HvprotoError, ImageError, RunError, World
from hvproto.events import EventBus
from hvproto.hypervisor import guest_state
from hvproto.hypervisor.application import ApplicationGuest
from hvproto.hypervisor.coupling import Coupling
from hvproto.hypervisor.direct import DirectGuest
from hvproto.hypervisor.exit_view import HANDLED
from hvproto.hypervisor.guest import Guest, Leave
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.guest_state import GuestState
from hvproto.hypervisor.host_functions import ReadBlock, Request, Write
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.pool import Pool, PoolExhausted
from hvproto.hypervisor.relocation import DEFAULT_POLICY, RelocationPolicy
from hvproto.hypervisor.run_block import EVENT_HANDLED, BadRunBlock, Door, RunBlock
from hvproto.hypervisor.save_area import SaveArea
from hvproto.hypervisor.stay import ForHost, Stay, decoupled, settle, stay
from hvproto.images.image import Image
from hvproto.images.multiboot_info import BootOptions
from hvproto.machine.machine import Machine
from hvproto.processor.settings import EFLAGS_IF, Setting

REASONS = {
    Leave.INTERRUPT: "an interrupt for the host",
    Leave.IDLE: "the guest waits",
    Leave.HALTED: "the guest has ended",
    Leave.FAILED: "the guest failed",
    Leave.FUNCTION: "a host function",
    Leave.EVENT: "an event for the host",
    Leave.TIME: "its time is up",
}


class Hypervisor:
    """Hosts guests on a machine whose host operating system knows nothing of it.

    Make it before the host is loaded: a guest's processor starts in the power-on state that it
    finds then.
    """

    def __init__(
        self,
        machine: Machine,
        images: list[Image],
        plan: Plan,
        bus: EventBus,
        on_guest_output: Callable[[int], None] | None = None,
        policy: RelocationPolicy = DEFAULT_POLICY,
        *,
        shows_disk: bool = True,
        guest_options: BootOptions = BootOptions(),  # noqa: B008 - it can't change
    ) -> None:
        self.machine = machine
        self.plan = plan
        self.bus = bus
        self.images = list(images)
        self._on_guest_output = on_guest_output
        self._policy = policy
        self._shows_disk = shows_disk
        self._options = guest_options
        self.guests: dict[int, Guest] = {}
        self.coupling: Coupling | None = None
        """The coupling of the guest that was entered last."""
        self._couplings: dict[int, Coupling] = {}
        self._requests: dict[int, Request] = {}
        self.on_guest: Callable[[Guest], None] = lambda _guest: None
        """Called with each guest when it has been made, before its first instruction: the place to add handlers."""
        self.on_print: Callable[[Guest, bytes], None] = lambda _guest, _data: None
        """Called with what a guest has printed, and with the guest: for several of them."""
        self.present = 0
        """The number of the guest that a host has asked for last: what is happening is about it."""
        self._lost: dict[int, HvprotoError] = {}
        machine.processor.is_trap = lambda _address: False  # what is planted in a guest's code is none of the host's
        self._power_on = {setting: machine.processor.read_setting(setting) for setting in Setting}
        self._pristine = machine.processor.save_context()
        self.door = Door(machine.processor.request_stop)
        machine.board.ports.attach(self.door, self.door.ports)

    def service(self, limit: int) -> None:
        """Called between slices of the host's run: let the guest run if somebody has knocked."""
        for guest in self._insiders:
            guest.raise_trap()
        address = self.door.take()
        if address is not None:
            self._enter(address, limit)

    def _enter(self, address: HVA, limit: int) -> None:
        processor = self.machine.processor
        where = self.machine.where()
        block = RunBlock(self.machine.ram.view, processor.paging_mode, processor.read_physical, address, where)
        if block.guest >= len(self.images):
            raise BadRunBlock(where, f"the run block names guest {block.guest}, there are {len(self.images)}")
        try:
            self._let_in(block, limit)
        except (RunError, ImageError, PoolExhausted) as problem:
            if len(self.images) == 1 or not self._is_its_own(block.guest, problem):
                raise
            self._lost[block.guest] = problem
            block.answer(Leave.FAILED)

    def _is_its_own(self, number: int, problem: HvprotoError) -> bool:
        """Whether a problem ends this guest only: it needs more than there is, or it couldn't be made at all."""
        return isinstance(problem, PoolExhausted) or (
            number not in self.guests and not isinstance(problem, BadRunBlock | HookError)
        )

    @property
    def failures(self) -> dict[int, HvprotoError]:
        """What guests have come to grief by, by their numbers, in order."""
        own = {guest.number: guest.error for guest in self.guests.values() if guest.error is not None}
        return dict(sorted({**own, **self._lost}.items()))

    def _let_in(self, block: RunBlock, limit: int) -> None:
        self.present = block.guest
        guest = self.guests.get(block.guest)
        if guest is None:
            guest = self._make_guest(block)
        self._finish_function(guest, block)
        if isinstance(guest, MirroredGuest) and guest.exit_policy.event is not None:
            guest.answer_event(HANDLED if block.result == EVENT_HANDLED else None)
        leave = guest.knocked(block, limit) if isinstance(guest, ApplicationGuest) else self._let_run(guest, limit)
        self._answer(guest, block, leave)

    def _make_guest(self, block: RunBlock) -> Guest:
        return self._make(block.guest, block.memory_frames(), block.pool_frames)

    def _make(
        self,
        number: int,
        memory_frames: list[HPA],
        pool_frames: Callable[[], list[HPA]],
        state: GuestState | None = None,
    ) -> Guest:
        machine = self.machine
        memory = GuestMemory(machine.ram.view, memory_frames)
        image = self.images[number]
        # A guest that boots from an image of its own sees the host's disk if somebody has chosen one.
        sectors = machine.disk_sectors if self._shows_disk or image.kind != "disk" else 0
        guest: Guest
        if self.plan.guest_in_process:
            guest = ApplicationGuest(number, machine, memory, sectors, self.bus, self._pristine, image, self._options)
            self._watch_from_outside()
            self.guests[number] = guest
            self.on_guest(guest)
            return guest
        if self.plan.guest_at_ring0:
            frame = Pool(machine.ram.view, pool_frames()).allocate()
            guest = DirectGuest(
                number, machine, memory, frame, sectors, self.bus, self._power_on, self._pristine, image, self._options
            )
        else:
            guest = MirroredGuest(
                number, machine, memory, pool_frames(), sectors, self.bus, self._pristine, image, self._policy, state,
                self._options,
            )  # fmt: skip
            if state is None:
                guest.routes.update(self.plan.vectors)
                guest.space.may_shrink = self.plan.shrinks_region
        self.guests[number] = guest
        save_area = SaveArea(machine.ram.view, guest.save_area)
        self._couplings[number] = Coupling(machine.processor, save_area, self.bus, number)
        self.on_guest(guest)
        return guest

    # -- guests of a host that knows nothing of them -----------------------------------------

    def add_guest(self, image: Image, memory_frames: list[HPA], pool_frames: list[HPA]) -> Guest:
        """A guest for `run_guest`, in memory that the host must not use (`spare_frames` finds some).

        ``memory_frames`` become its physical memory, in this order; ``pool_frames`` (256 do for a small guest) hold
        region, mirror and save area. Raises ImageError for an image that doesn't fit, PoolExhausted.
        """
        self.images.append(image)
        try:
            return self._make(len(self.images) - 1, memory_frames, lambda: pool_frames)
        except HvprotoError:
            self.images.pop()
            raise

    def run_guest(self, guest: Guest, cycles: int, *, for_host: ForHost = ForHost.PENDING) -> Stay:
        """Decouple the host where it stands, let the guest run for so many cycles, and recouple the host.

        To be called whenever the machine is stopped, whatever the host's mode, ring and IF; the host is as it was
        afterwards, instruction for instruction. ``for_host`` says what becomes of its interrupts meanwhile. What the
        guest prints goes to ``on_guest_output``, what it reads comes from the machine's first disk. Raises what
        `Session.run` raises but for the guest's own end, which is in the answer; the host is recoupled even so.
        """
        return stay(self, guest, self._couplings[guest.number], cycles, for_host)

    def save_guest(self, guest: MirroredGuest) -> GuestState:
        """Everything that a guest of `run_guest` is, as data that can be pickled. Raises Unsupported.

        A guest that stands in the middle of an exit comes out of it first.
        """
        with decoupled(self.machine.processor, self._couplings[guest.number], guest) as end:
            settle(self, guest)
            end.reason = "the guest is saved"
        return guest_state.save(guest)

    def remove_guest(self, guest: MirroredGuest) -> None:
        """Nothing of this guest is left in the processor; its frames can be used for something else."""
        del self.guests[guest.number], self._couplings[guest.number]
        guest.close()

    def rebuild_guest(
        self,
        number: int,
        state: GuestState,
        memory_frames: list[HPA],
        pool_frames: list[HPA],
    ) -> MirroredGuest:
        """A guest that goes on as the saved one, in any frames; the one of that number, if there is one, is removed.

        Raises ValueError if the memory has another size, StateError if the guest had another board.
        """
        old = self.guests.get(number)
        if isinstance(old, MirroredGuest):
            self.remove_guest(old)
        guest = self._make(number, memory_frames, lambda: pool_frames, state)
        assert isinstance(guest, MirroredGuest)
        return guest

    # -- guests inside the emulation program -------------------------------------------------

    @property
    def _insiders(self) -> list[ApplicationGuest]:
        return [guest for guest in self.guests.values() if isinstance(guest, ApplicationGuest)]

    def _watch_from_outside(self) -> None:
        """Guests run while the host is coupled: see what code the processor translates, and whose it executes."""
        machine = self.machine
        machine.processor.is_trap = lambda address: any(guest.is_trap(address) for guest in self._insiders)
        machine.processor.on_new_block = lambda address, size: any(
            guest.on_new_block(address, size) for guest in self._insiders
        )
        machine.whose = lambda: World.GUEST if any(guest.has_processor() for guest in self._insiders) else World.HOST

    # -- one stay of the guest on the processor ----------------------------------------------

    def _let_run(self, guest: Guest, limit: int) -> Leave:
        """Decouple, run, recouple."""
        processor = self.machine.processor
        coupling = self.coupling = self._couplings[guest.number]
        guest.host_accepts_interrupts = bool(processor.eflags & EFLAGS_IF)
        with decoupled(processor, coupling, guest) as end:
            leave = guest.run(limit)
            end.reason, end.temporary = REASONS[leave], leave is Leave.FUNCTION
        return leave

    # -- what the host is to do --------------------------------------------------------------

    def _answer(self, guest: Guest, block: RunBlock, leave: Leave) -> None:
        if leave is Leave.INSIDE:
            return  # it has given the answer itself
        if leave is Leave.EVENT:
            assert isinstance(guest, MirroredGuest)
            event = guest.exit_policy.take_event()
            block.answer(leave, event.vector, event.error_code or 0, arg2=event.address or 0)
            return
        if leave is not Leave.FUNCTION:
            block.answer(leave, guest.status or 0)
            return
        request = guest.functions.take()
        assert request is not None
        self._requests[guest.number] = request
        now = self.machine.processor.now
        match request:
            case Write(stream, data):
                self.bus.emit(events.HostFunction(now, request.name, "begin", _printable(data), guest.number))
                block.answer(Leave.WRITE, stream, len(data), data)
            case ReadBlock(lba):
                self.bus.emit(events.HostFunction(now, request.name, "begin", f"block {lba}", guest.number))
                block.answer(Leave.READ_BLOCK, lba)

    def _finish_function(self, guest: Guest, block: RunBlock) -> None:
        """The host has done what was asked for: the guest's device gets the answer."""
        request = self._requests.pop(guest.number, None)
        if request is None:
            return
        now = self.machine.processor.now
        failed = block.result != 0
        match request:
            case Write(_, data):
                detail = _printable(data)
                self.print_for(guest, data)
            case ReadBlock(lba, done):
                detail = f"block {lba}"
                done(None if failed else block.data)
        detail += ", failed" if failed else ""
        self.bus.emit(events.HostFunction(now, request.name, "end", detail, guest.number))

    def print_rest(self) -> None:
        """The run is over, and nobody will go on with it: what guests have printed that the host hasn't got yet."""
        for number in sorted(self.guests):
            request = self._requests.pop(number, None)
            begun = request.data if isinstance(request, Write) else b""
            text = begun + self.guests[number].functions.take_text()
            if text:
                self.print_for(self.guests[number], text)

    def print_for(self, guest: Guest, data: bytes) -> None:
        """What a guest has printed has been printed."""
        guest.output += data
        self.on_print(guest, data)
        if self._on_guest_output is not None:
            for byte in data:
                self._on_guest_output(byte)


def _printable(data: bytes) -> str:
    return data.decode("latin-1")
