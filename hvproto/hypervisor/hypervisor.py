"""The hypervisor: the component of the emulation program that decouples and recouples the host (22 in figure 3).

It waits behind a door of the machine. When the host's driver knocks, it decouples the host, lets the
guest run until the host is needed, recouples the host, and says in the run block what for.
"""

from __future__ import annotations

from collections.abc import Callable

from hvproto import events
from hvproto.addresses import HVA
from hvproto.events import EventBus
from hvproto.hypervisor.coupling import Coupling
from hvproto.hypervisor.direct import DirectGuest
from hvproto.hypervisor.guest import Guest, Leave
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.host_functions import ReadBlock, Request, Write
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.pool import Pool
from hvproto.hypervisor.relocation import DEFAULT_POLICY, RelocationPolicy
from hvproto.hypervisor.run_block import BadRunBlock, Door, RunBlock
from hvproto.hypervisor.save_area import SaveArea
from hvproto.images.image import Image
from hvproto.machine.machine import Machine
from hvproto.processor.settings import EFLAGS_IF, Setting

REASONS = {
    Leave.INTERRUPT: "an interrupt for the host",
    Leave.IDLE: "the guest waits",
    Leave.HALTED: "the guest has ended",
    Leave.FAILED: "the guest failed",
    Leave.FUNCTION: "a host function",
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
    ) -> None:
        self.machine = machine
        self.plan = plan
        self.bus = bus
        self.images = images
        self._on_guest_output = on_guest_output
        self._policy = policy
        self._shows_disk = shows_disk
        self.guests: dict[int, Guest] = {}
        self.coupling: Coupling | None = None
        """The coupling of the guest that was entered last."""
        self._couplings: dict[int, Coupling] = {}
        self._requests: dict[int, Request] = {}
        self._power_on = {setting: machine.processor.read_setting(setting) for setting in Setting}
        self._pristine = machine.processor.save_context()
        self.door = Door(machine.processor.request_stop)
        machine.board.ports.attach(self.door, self.door.ports)

    def service(self, limit: int) -> None:
        """Called between slices of the host's run: let the guest run if somebody has knocked."""
        address = self.door.take()
        if address is not None:
            self._enter(address, limit)

    def _enter(self, address: HVA, limit: int) -> None:
        processor = self.machine.processor
        where = self.machine.where()
        block = RunBlock(self.machine.ram.view, processor.paging_mode, processor.read_physical, address, where)
        if block.guest >= len(self.images):
            raise BadRunBlock(where, f"the run block names guest {block.guest}, there are {len(self.images)}")
        guest = self.guests.get(block.guest)
        if guest is None:
            guest = self._make_guest(block)
        self._finish_function(guest, block)
        leave = self._let_run(guest, limit)
        self._answer(guest, block, leave)

    def _make_guest(self, block: RunBlock) -> Guest:
        machine = self.machine
        memory = GuestMemory(machine.ram.view, block.memory_frames())
        image = self.images[block.guest]
        # A guest that boots from an image of its own sees the host's disk if somebody has chosen one.
        sectors = machine.disk_sectors if self._shows_disk or image.kind != "disk" else 0
        guest: Guest
        if self.plan.guest_at_ring0:
            save_area = Pool(machine.ram.view, block.pool_frames()).allocate()
            guest = DirectGuest(
                block.guest, machine, memory, save_area, sectors, self.bus, self._power_on, self._pristine, image
            )
        else:
            guest = MirroredGuest(
                block.guest, machine, memory, block.pool_frames(), sectors, self.bus, self._pristine, image,
                self._policy,
            )  # fmt: skip
        self.guests[block.guest] = guest
        self._couplings[block.guest] = Coupling(
            machine.processor, SaveArea(machine.ram.view, guest.save_area), self.bus
        )
        return guest

    # -- one stay of the guest on the processor ----------------------------------------------

    def _let_run(self, guest: Guest, limit: int) -> Leave:
        """Decouple, run, recouple."""
        processor = self.machine.processor
        coupling = self.coupling = self._couplings[guest.number]
        guest.host_accepts_interrupts = bool(processor.eflags & EFLAGS_IF)
        host = processor.save_context()
        coupling.decouple(guest.replacements(), exchange=guest.enter)
        if not guest.started:
            guest.first_entry()
            guest.started = True
        leave = guest.run(limit)

        def exchange() -> None:
            guest.leave()
            processor.restore_user_state(host)

        coupling.recouple(REASONS[leave], temporary=leave is Leave.FUNCTION, exchange=exchange)
        return leave

    # -- what the host is to do --------------------------------------------------------------

    def _answer(self, guest: Guest, block: RunBlock, leave: Leave) -> None:
        if leave is not Leave.FUNCTION:
            block.answer(leave, guest.status or 0)
            return
        request = guest.functions.take()
        assert request is not None
        self._requests[guest.number] = request
        now = self.machine.processor.now
        match request:
            case Write(stream, data):
                self.bus.emit(events.HostFunction(now, request.name, "begin", _printable(data)))
                block.answer(Leave.WRITE, stream, len(data), data)
            case ReadBlock(lba):
                self.bus.emit(events.HostFunction(now, request.name, "begin", f"block {lba}"))
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
                guest.output += data
                if self._on_guest_output is not None:
                    for byte in data:
                        self._on_guest_output(byte)
            case ReadBlock(lba, done):
                detail = f"block {lba}"
                done(None if failed else block.data)
        self.bus.emit(events.HostFunction(now, request.name, "end", detail + (", failed" if failed else "")))


def _printable(data: bytes) -> str:
    return data.decode("latin-1")
