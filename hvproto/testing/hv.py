"""The fixture `hv`: a whole run under a test's control, with hooks, waits, and what it has done on record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hvproto.errors import BadInput, Where, World
from hvproto.events import Event, EventBus
from hvproto.hypervisor.exit_view import Exit
from hvproto.hypervisor.guest import Guest
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.relocation import DEFAULT_POLICY, RelocationPolicy
from hvproto.hypervisor.session import Session
from hvproto.images.image import Image
from hvproto.machine.machine import Machine
from hvproto.processor.settings import Setting, SettingValue
from hvproto.testing.bare import allowed
from hvproto.testing.hooks import Hook, Hooks, What
from hvproto.testing.places import Place, address_of
from hvproto.testing.recorded import Recorded
from hvproto.testing.relocate import Relocator
from hvproto.testing.reports import Reports, without_reports


class NotSeen(AssertionError):
    """What was waited for didn't happen in time."""


class _Pause(Exception):
    """Leaves the machine between two slices, so that it can go on."""


class Hv:
    """A host with one guest, from power-on to the end, in as many steps as the test likes.

    ``limit`` is in instructions (`Processor.instructions`: the host's, the hypervisor's stubs' and the guest's) and for
    the whole run; without one it is 250,000,000, in a second of virtual time. ``relocate_every`` moves a mirrored
    guest's region before every so-manieth exit, ``policy`` says where it goes when the guest wants its place.
    """

    def __init__(
        self,
        host: Image,
        guest: Image,
        plan: str = "mirrored",
        *,
        engine: str | None = None,
        limit: int | None = None,
        relocate_every: int | None = None,
        disk: bytes | None = None,
        policy: RelocationPolicy = DEFAULT_POLICY,
    ) -> None:
        self.limit = limit
        self.host_image = host
        self.image = guest
        """The guest's."""
        self.plan = plan
        self.relocate_every = relocate_every
        self.status: int | None = None
        """Exit status, once the run has ended."""
        self.ended = False
        self._again: Callable[[], Hv] = lambda: Hv(
            host, guest, plan, engine=engine, limit=limit, relocate_every=relocate_every, disk=disk, policy=policy
        )  # fmt: skip
        parsed = Plan.parse(plan)
        bus = EventBus()
        self.events = Recorded()
        bus.subscribe(self.events.append)
        self.session = Session(
            host,
            [guest],
            parsed,
            bus=bus,
            engine=engine,
            disk=disk,
            policy=policy,
            on_guest_output=lambda byte: self._reports.take(byte),
        )
        machine = self.session.machine
        self._reports = Reports(lambda: self.image, lambda: machine.processor.now, bus.emit)
        self._hooks = Hooks(bus, parsed, lambda: self.image, self.where, self._stop)
        self._relocator = Relocator(relocate_every) if relocate_every else None
        self._pausing = False
        hypervisor = self.session.hypervisor
        hypervisor.on_guest = self._on_guest
        self._serve: Callable[[int], None] = hypervisor.service
        hypervisor.service = self._service  # type: ignore[method-assign]

    # -- what there is -----------------------------------------------------------------------

    @property
    def machine(self) -> Machine:
        """The host's machine."""
        return self.session.machine

    @property
    def guest(self) -> Guest:
        """The guest. Raises BadInput as long as the host hasn't entered it."""
        if not self.session.guests:
            raise BadInput("the host hasn't entered its guest yet: run the session first, or wait for Decoupled")
        return self.session.guests[0]

    @property
    def present_exit(self) -> Exit | None:
        """The exit that a hook is being asked about, or has raised at."""
        return self._hooks.present

    def where(self) -> Where:
        """Whose code the processor is at, and where: the guest's own place while its exit is looked at."""
        here = self.machine.where()
        return self.guest.where() if here.world is World.GUEST and self.session.guests else here

    @property
    def output(self) -> str:
        """What the guest has printed, without the reports of its assertions."""
        return without_reports(bytes(self.guest.output)).decode("latin-1") if self.session.guests else ""

    @property
    def now(self) -> int:
        """Virtual time of the machine, in cycles."""
        return self.machine.processor.now

    @property
    def save_area(self) -> dict[Setting, SettingValue]:
        """The host's settings as they stand in RAM at this moment. Raises SaveAreaError if nothing stands there."""
        coupling = self.session.hypervisor.coupling
        return {} if coupling is None else coupling.save_area.decode()

    def read(self, place: int | str, size: int = 4) -> int:
        """A number in the guest's memory, little endian, at a GPA or symbol. Raises BadInput if there is none."""
        gpa = address_of(place, self.image) if isinstance(place, str) else place
        data = self.guest.memory.read(gpa, size)
        if data is None:
            raise BadInput(f"the guest has no memory at {gpa:#x}")
        return int.from_bytes(data, "little")

    def again(self) -> Hv:
        """The same host, guest, plan and engine, from power-on, without hooks."""
        return self._again()

    # -- hooks -------------------------------------------------------------------------------

    def on(
        self,
        what: What,
        *,
        world: World | str | None = None,
        where: Place | None = None,
        address: Place | None = None,
        setting: Setting | str | None = None,
    ) -> Callable[[Callable[[Any], Any]], Hook]:
        """A decorator for a hook, in effect from the next exit on; what it makes has ``calls``, ``seen``, ``remove()``.

        ``what`` is an exit type (`PageFault`), a vector, `Exit` for every exit, or a class of events (`Relocated`).
        ``where`` (GVA, range, symbol or function of what is seen) is where the instruction stands, ``address`` what
        it is about. A hook on exits answers None, "handle", "reflect", Inject(vector, ...) or "stop", which ends the
        guest; one on events None or "stop", which ends `run`. What it raises ends the run as HookError, whose cause it
        is. Raises BadInput for a hook that could never be called.
        """
        return self._hooks.on(what, world=world, where=where, address=address, setting=setting)

    def _on_guest(self, guest: Guest) -> None:
        guest.yields = self._pausing
        if self._relocator is not None and isinstance(guest, MirroredGuest):
            guest.on_exit(self._relocator)
        self._hooks.add_guest(guest)

    # -- running -----------------------------------------------------------------------------

    def run(self, limit: int | None = None, *, cycles: int | None = None) -> int:
        """Run to the end, or until a hook on events says "stop"; the exit status, -1 after a stop.

        ``limit`` is in instructions from now, and ends the run at the first block boundary at or after so many,
        however much time passes in HLT; ``cycles`` is virtual time from now. Without either it is the limit of the
        whole run. Raises GuestAssertion, HookError, LimitReached and other RunErrors.
        """
        __tracebackhide__ = True
        instructions, time = allowed(limit, cycles, self.limit)
        of_all = limit is None and cycles is None
        since = 0 if of_all else self.machine.processor.instructions
        end = None if time is None else time if of_all else self.now + time
        if instructions is None:
            self._advance(end)
        else:
            with self.machine.allowing(instructions, since=since):
                self._advance(end)
        return -1 if self.status is None else self.status

    @contextmanager
    def wait_for(
        self,
        *kinds: type[Event],
        limit: int | None = None,
        where: Callable[[Any], bool] = lambda _event: True,
        count: int = 1,
    ) -> Iterator[list[Event]]:
        """Do the block, then run until such an event has come, ``count`` times, for at most ``limit`` instructions.

        They are counted from behind the block; without a limit it is 250,000,000, in a second of virtual time. What was
        seen, in the block or afterwards, is in the list; the guest stands at its next exit. Raises NotSeen, which says
        what came instead, what `run` raises, and BadInput for a limit that isn't positive.
        """
        instructions, time = allowed(limit, None, None)
        assert instructions is not None
        seen: list[Event] = []
        waiting = False
        passed: list[str] = []

        def look(event: Event) -> None:
            if isinstance(event, kinds) and len(seen) < count and where(event):
                seen.append(event)
                if waiting and len(seen) == count:
                    self._stop()

        def give_up(reason: str) -> None:
            passed.append(reason)
            self._stop()

        self.session.bus.subscribe(look)
        began = len(self.events)
        try:
            yield seen
            waiting = True
            if len(seen) < count:
                self._wait(instructions, time, give_up)
        finally:
            self.session.bus.unsubscribe(look)
        if len(seen) < count:
            names = " or ".join(kind.__name__ for kind in kinds)
            reason = "the run ended" if self.ended else f"{passed[0]} passed"
            came = self.events[began:]
            raise NotSeen(f"{names}: seen {len(seen)} of {count} times before {reason}; {Recorded(came).summary()}")

    def _wait(self, instructions: int, time: int | None, give_up: Callable[[str], None]) -> None:
        def used_up() -> None:
            give_up(f"{instructions:,} instructions")
            if self.machine.world is World.HOST:
                raise _Pause  # at once: it stands between two rounds

        with self.machine.allowing(instructions, used_up):
            if time is None:
                self._advance(None)
                return
            alarm = self.machine.clock.at(self.now + time, lambda: give_up(f"{time:,} cycles"))
            try:
                self._advance(None)
            finally:
                alarm.cancel()

    def _advance(self, limit: int | None) -> None:
        """Run until somebody stops it, or the end."""
        __tracebackhide__ = True
        if self.ended:
            return
        self._yield(False)
        try:
            self.status = self.session.run(limit)
            self.ended = True
        except _Pause:
            pass
        except BaseException:  # an outcome of pytest's, too, that a hook has raised
            self.ended = True
            self._complain()
            raise
        self._complain()

    def _complain(self) -> None:
        """Raise what is to be said besides how the run ended."""
        __tracebackhide__ = True
        if self._hooks.failure is not None:
            self.ended = True
        self._hooks.raise_failure()
        self._reports.check()

    def _stop(self) -> None:
        """Come to stand as soon as the guest is at an exit and the host has the processor again."""
        self._yield(True)
        self.machine.processor.request_stop()

    def _yield(self, pausing: bool) -> None:
        self._pausing = pausing
        for guest in self.session.guests:
            guest.yields = pausing

    def _service(self, limit: int) -> None:
        self._serve(limit)
        if self._pausing:
            raise _Pause

    def __repr__(self) -> str:
        state = f"ended, status {self.status}" if self.ended else f"at {self.now:,} cycles"
        return f"<Hv {json.dumps(self.session.hypervisor.plan.name)}: {state}>"
