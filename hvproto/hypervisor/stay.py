"""One stay of a guest on the processor: the host goes out, the guest comes in, and back again.

It makes no difference what the host is doing at that moment, nor whether it knows of a guest. All that the guest could
change of the processor - general, segment and debug registers, FPU, CR2, model-specific registers - is saved as a
whole; the settings go to the save area in RAM besides, and come back from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from hvproto import events
from hvproto.addresses import HPA, PAGE_SIZE
from hvproto.errors import LimitReached, MachineError, RunError
from hvproto.hypervisor.coupling import Coupling
from hvproto.hypervisor.exit_view import Exit
from hvproto.hypervisor.guest import Guest, Leave
from hvproto.hypervisor.host_functions import ReadBlock, Write
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.machine.machine import NEVER, Machine
from hvproto.processor.processor import Processor
from hvproto.processor.settings import EFLAGS_IF

if TYPE_CHECKING:
    from hvproto.hypervisor.hypervisor import Hypervisor


class ForHost(Enum):
    """What becomes of the host's interrupts and of its time while a guest stays."""

    PENDING = auto()
    """Its devices go on; what they ask for waits until the stay is over."""
    RECOUPLE = auto()
    """The stay ends as soon as there is an interrupt that the host would take."""
    STANDS_STILL = auto()
    """The stay takes no time: the host's clock and its devices are where they were. Events of the stay carry times that
    come again."""


@dataclass(frozen=True, slots=True)
class Stay:
    """How a stay has ended."""

    leave: Leave
    """TIME, INTERRUPT, HALTED, FAILED or EVENT."""
    status: int | None = None
    """The guest's exit status, once it has ended."""
    error: RunError | None = None
    """What the guest failed by."""
    event: Exit | None = None
    """What its vector's route gives to the host; `MirroredGuest.answer_event` says what becomes of it."""


@dataclass(slots=True)
class _End:
    """What is to be said of the end of a stay; an error leaves it as it is."""

    reason: str = "an error"
    temporary: bool = False


@contextmanager
def decoupled(processor: Processor, coupling: Coupling, guest: Guest) -> Iterator[_End]:
    """The guest has the processor inside, the host before and after, come what may."""
    end = _End()
    host = processor.save_context()
    coupling.decouple(guest.replacements(), exchange=guest.enter)

    def exchange() -> None:
        guest.leave()
        processor.restore_user_state(host)

    try:
        if not guest.started:
            guest.first_entry()
            guest.started = True
        yield end
    finally:
        coupling.recouple(end.reason, temporary=end.temporary, exchange=exchange)


def stay(hypervisor: Hypervisor, guest: Guest, coupling: Coupling, cycles: int, for_host: ForHost) -> Stay:
    """`Hypervisor.run_guest`."""
    processor = hypervisor.machine.processor
    began = processor.now
    limit = began + max(cycles, 1)
    guest.host_accepts_interrupts = for_host is ForHost.RECOUPLE and bool(processor.eflags & EFLAGS_IF)
    guest.hosts_time_stands = for_host is ForHost.STANDS_STILL
    try:
        with decoupled(processor, coupling, guest) as end:
            leave = _run(hypervisor, guest, limit)
            end.reason = f"end of a stay: {leave.name.lower()}"
    finally:
        if guest.hosts_time_stands:
            processor.engine.now = began
        guest.hosts_time_stands = False
    event = None
    if leave is Leave.EVENT:
        assert isinstance(guest, MirroredGuest)
        event = guest.exit_policy.take_event()
    return Stay(leave, guest.status, guest.error, event)


def _run(hypervisor: Hypervisor, guest: Guest, limit: int) -> Leave:
    while True:
        try:
            leave = guest.run(limit)
        except LimitReached as reached:
            if reached.limit != limit:
                raise
            guest.error = None  # it is no end
            return Leave.TIME
        if leave is Leave.FUNCTION:
            _serve(hypervisor, guest)
        elif leave is not Leave.IDLE:  # there is nobody to give the processor to: the guest's time jumps
            return leave


def settle(hypervisor: Hypervisor, guest: MirroredGuest) -> None:
    """Bring a guest that has the processor to stand still, with nothing asked of its host that isn't done."""
    guest.hosts_time_stands = True
    try:
        guest.settle(NEVER)
        while guest.functions.waiting:
            _serve(hypervisor, guest)
    finally:
        guest.hosts_time_stands = False


def _serve(hypervisor: Hypervisor, guest: Guest) -> None:
    """Do what the guest asks of its host; the host has nothing to do with it."""
    request = guest.functions.take()
    now = hypervisor.machine.processor.now
    match request:
        case Write(_, data):
            detail = data.decode("latin-1")
            hypervisor.bus.emit(events.HostFunction(now, request.name, "begin", detail, guest.number))
            hypervisor.print_for(guest, data)
        case ReadBlock(lba, done):
            detail = f"block {lba}"
            hypervisor.bus.emit(events.HostFunction(now, request.name, "begin", detail, guest.number))
            hypervisor.machine.disks[0].read(lba, done)
        case None:
            return
    hypervisor.bus.emit(events.HostFunction(now, request.name, "end", detail, guest.number))


def spare_frames(machine: Machine, count: int) -> list[HPA]:
    """The HPAs of the last so many frames of RAM, all beyond what the host was told of (`Machine.load`).

    Raises MachineError if there are fewer.
    """
    first = machine.ram.size - count * PAGE_SIZE
    if first < machine.told_memory:
        there = (machine.ram.size - machine.told_memory) // PAGE_SIZE
        raise MachineError(
            f"{count} spare frames sought, {there} found: the host was told of {machine.told_memory:#x} bytes "
            f"of {machine.ram.size:#x}"
        )
    return [HPA(at) for at in range(first, machine.ram.size, PAGE_SIZE)]
