"""Hooks on a run: by type of exit or event, vector, place, setting or world.

Hooks on exits are handlers of the guest's (`MirroredGuest.on_exit`) and may decide; hooks on events are subscribers of
the bus and only see. A hook is in effect from the next exit on, and gone from the next exit on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hvproto.errors import BadInput, HookError, Where, World
from hvproto.events import Event, EventBus
from hvproto.hypervisor.exit_view import DEFAULT, HANDLED, REFLECT, STOP, Answer, EndGuest, Exit, ExitKind
from hvproto.hypervisor.guest import Guest
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.plan import VECTORS, Plan
from hvproto.images.image import Image
from hvproto.processor.settings import Setting
from hvproto.testing.exit_types import ExitType
from hvproto.testing.places import Place, matcher

What = ExitType | ExitKind | int | type[Any]
"""An exit type or kind, a vector, `Exit` for every exit, or a class of events."""

WORDS: dict[str, Any] = {"handle": HANDLED, "reflect": REFLECT, "stop": STOP, "default": DEFAULT}
"""What a hook may return instead of the values of `hvproto.hypervisor.exit_view`."""


@dataclass(eq=False)
class Hook:
    """One hook; ``calls`` counts what it has been shown. Calling it calls the function."""

    function: Callable[[Any], Any]
    detach: Callable[[], None] = lambda: None
    calls: int = 0
    seen: list[Any] = field(default_factory=list)
    """The events that it has been shown; for exits, which are over once the guest goes on, only ``calls`` counts."""

    def __call__(self, seen: Any) -> Any:
        return self.function(seen)

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        return getattr(self.function, "__qualname__", type(self.function).__name__)

    def remove(self) -> None:
        """Call it no more; harmless when it is gone already."""
        self.detach()
        self.detach = lambda: None


class Hooks:
    """The hooks of one run. ``stop`` is called when a hook on an event has raised or has said "stop"."""

    def __init__(
        self,
        bus: EventBus,
        plan: Plan,
        image: Callable[[], Image],
        where: Callable[[], Where],
        stop: Callable[[], None],
    ) -> None:
        self._bus, self._plan, self._image, self._where, self._stop = bus, plan, image, where, stop
        self._guests: list[MirroredGuest] = []
        self.present: Exit | None = None
        """The exit that a hook is being asked about, or has raised at."""
        self._on_exits: list[Callable[[Exit], Answer]] = []
        self.failure: tuple[Hook, BaseException, Where] | None = None
        """The first exception of a hook on events: raised as soon as the run stands still."""

    def add_guest(self, guest: Guest) -> None:
        """Hooks on exits are asked about this guest's, too."""
        if isinstance(guest, MirroredGuest):
            self._guests.append(guest)
            for handler in self._on_exits:
                guest.on_exit(handler)

    def on(
        self,
        what: What,
        *,
        world: World | str | None = None,
        where: Place | None = None,
        address: Place | None = None,
        setting: Setting | str | None = None,
    ) -> Callable[[Callable[[Any], Any]], Hook]:
        """A decorator: see `Hv.on`. Raises BadInput for a hook that could never be called."""
        tests = _tests(world, where, address, setting, self._image, lambda: self._where().world)
        if isinstance(what, type) and issubclass(what, Event):
            kind = what
            return lambda function: self._on_event(function, kind, tests)
        if setting is not None:
            raise BadInput("exits have no setting: take SettingSaved, SettingReplaced, SettingRestored or Decoupled")
        if self._plan.guest_at_ring0 or self._plan.guest_in_process:
            raise BadInput(
                f"under plan {self._plan.name} the guest has no exits that a hook could decide about; "
                "take the event ExceptionTaken, or plan mirrored"
            )
        if world is not None and World(world) is not World.GUEST:
            raise BadInput(f"exits are the guest's, none is the {world}'s")
        matches = _exit_test(what)
        return lambda function: self._on_exit(function, [lambda seen, _at: matches(seen), *tests])

    # -- exits -------------------------------------------------------------------------------

    def _on_exit(self, function: Callable[[Any], Any], tests: list[Test]) -> Hook:
        hook = Hook(function)

        def handler(seen: Exit) -> Answer:
            if not all(test(seen, seen.eip) for test in tests):
                return None
            hook.calls += 1
            self.present = seen
            answer: Answer = _value(function(seen))
            self.present = None
            return answer

        handler.__qualname__ = hook.name  # what HookError and ExceptionTaken call it
        self._on_exits.append(handler)
        for guest in self._guests:
            guest.on_exit(handler)

        def detach() -> None:
            self._on_exits.remove(handler)
            for guest in self._guests:
                guest.off_exit(handler)

        hook.detach = detach
        return hook

    # -- events ------------------------------------------------------------------------------

    def _on_event(self, function: Callable[[Any], Any], kind: type[Event], tests: list[Test]) -> Hook:
        hook = Hook(function)

        def subscriber(event: Event) -> None:
            if not isinstance(event, kind) or self.failure is not None:
                return
            try:
                if not all(test(event, getattr(event, "eip", getattr(event, "host_eip", None))) for test in tests):
                    return
                hook.calls += 1
                hook.seen.append(event)
                answer = function(event)
                if answer is not None and answer not in ("stop", STOP) and not isinstance(answer, EndGuest):
                    raise ValueError(f"a hook on events returns None or 'stop', not {answer!r}")
            except BaseException as problem:  # in the midst of a switch nothing may be thrown; the run stops behind it
                self.failure = (hook, problem, self._where())
                self._stop()
                return
            if answer is not None:
                self._stop()

        self._bus.subscribe(subscriber)
        hook.detach = lambda: self._bus.unsubscribe(subscriber)
        return hook

    def raise_failure(self) -> None:
        """Raise what a hook on events has raised, once; a HookError says where the processor was then."""
        __tracebackhide__ = True
        if self.failure is None:
            return
        (hook, problem, where), self.failure = self.failure, None
        if not isinstance(problem, Exception):
            raise problem  # pytest.fail, pytest.skip, Ctrl-C: no errors of the hook's
        raise HookError(where, f"the hook {hook.name} raised {type(problem).__name__}: {problem}") from problem


def _value(answer: Any) -> Any:
    """What a word stands for; anything else is judged where handlers are asked."""
    return WORDS.get(answer, answer) if isinstance(answer, str) else answer


Test = Callable[[Any, int | None], bool]
"""Of what is seen, and the instruction's address."""


def _tests(
    world: World | str | None,
    where: Place | None,
    address: Place | None,
    setting: Setting | str | None,
    image: Callable[[], Image],
    present: Callable[[], World],
) -> list[Test]:
    tests: list[Test] = []
    if world is not None:
        try:
            wanted = World(world)
        except ValueError:
            raise BadInput(f"unknown world {world!r}: there are {', '.join(World)}") from None
        tests.append(
            lambda seen, _at: getattr(seen, "world", None) in (wanted, None) and _world(seen, present) is wanted
        )
    if where is not None:
        at_instruction = matcher(where, image)
        tests.append(lambda seen, at: at_instruction(at, seen))
    if address is not None:
        at_address = matcher(address, image)
        tests.append(lambda seen, _at: at_address(_address(seen), seen))
    if setting is not None:
        try:
            name = setting.name if isinstance(setting, Setting) else Setting[setting.upper()].name
        except KeyError:
            raise BadInput(f"unknown setting {setting!r}: there are {', '.join(Setting.__members__)}") from None
        tests.append(lambda seen, _at: name == getattr(seen, "setting", None) or name in getattr(seen, "settings", ()))
    return tests


def _world(seen: Any, present: Callable[[], World]) -> World:
    own = getattr(seen, "world", None)
    return present() if own is None else World(own)


def _address(seen: Any) -> int | None:
    """What an exit or event is about: the address that faulted, was written to, is wanted, or moved to."""
    for name in ("address", "cr2", "gpa", "new"):
        value = getattr(seen, name, None)
        if isinstance(value, int):
            return value
    return None


def _exit_test(what: What) -> Callable[[Exit], bool]:
    if isinstance(what, ExitType):
        return what.matches
    if isinstance(what, ExitKind):
        return lambda seen: seen.kind is what
    if isinstance(what, int):
        if not 0 <= what < VECTORS:
            raise BadInput(f"there is no vector {what}: 0 to {VECTORS - 1} are possible")
        return lambda seen: seen.vector == what
    if what is Exit:
        return lambda _seen: True
    raise BadInput(f"{what!r} is nothing to hook on: give an exit type, a vector, Exit, or a class of events")
