"""The watchman: overlooks a run on its way to a goal, and stops it there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from hvproto.debugger.accesses import READ, WRITE, accesses
from hvproto.debugger.expression import Evaluator
from hvproto.debugger.goal import END_INDEX, Breakpoint, Goal, Stop, Watched
from hvproto.debugger.interrupted import InterruptedCode
from hvproto.debugger.pacer import FOREVER, Pace, Pacer
from hvproto.debugger.position import BETWEEN, IN_EVENT, START, Position
from hvproto.debugger.subject import Subject
from hvproto.errors import BadInput, World
from hvproto.events import Event
from hvproto.processor.lookout import watched
from hvproto.processor.settings import Setting, SettingValue, describe

CHUNK = 2_000_000
"""Cycles for which a free run isn't asked whether it is to stop: some hundredths of a second."""
ASKING = 0.05
"""Seconds between two looks for a message or for the need of a checkpoint."""
SWITCH_EVENTS = ("SettingSaved", "SettingReplaced", "SettingRestored", "Decoupled", "Recoupled")


class Watchman:
    """``prompt`` is called at each stop, and gives the next goal; ``breathe`` now and then between two blocks."""

    def __init__(self, subject: Subject, prompt: Callable[[Stop], Goal], breathe: Callable[[Stop], bool]) -> None:
        self._subject = subject
        self._prompt = prompt
        self._breathe = breathe
        self.history: list[tuple[Position, Event]] = []
        """All events so far."""
        self.goal = Goal()
        self._steps = 0
        self._single = self._stepwise = self._passes_events = False
        self._by_kind: dict[Watched, list[Breakpoint]] = {}
        self._settings: dict[Setting, SettingValue] = {}
        self._memory: dict[int, bytes] = {}
        self._finds_blocks = self._has_changed = False
        self._close = False
        """Whether the present block is gone through by single steps for a watched setting's sake."""
        self._touched: list[Breakpoint] = []
        """Memory watches that the instruction before has met."""
        self._interrupted_code = InterruptedCode(subject)
        self._last: Position | None = None
        self._hit: tuple[Position, int | None, str] | None = None
        self._breath = 0.0
        self._interrupted = False
        self._passed_at = 0
        self._begin_world = subject.world
        self.pacer = Pacer(subject.processor, self)
        subject.bus.subscribe(self.on_event)
        subject.follow_host()
        self.begin(Goal(until=START))

    # -- the goal ----------------------------------------------------------------------------

    def begin(self, goal: Goal) -> None:
        """Go on with a new goal."""
        self.goal = goal
        self._steps = 0
        self._last = self._hit = None
        self._interrupted_code.begin(goal.skips_interrupts)
        self._touched = []
        self._interrupted = False
        self._begin_world = self._subject.world
        marks = [each.address for each in goal.breakpoints if each.kind is Watched.ADDRESS]
        if goal.returns_to is not None:
            marks.append(goal.returns_to)
        self.pacer.mark(tuple(marks))
        self._by_kind = {kind: [each for each in goal.breakpoints if each.kind is kind] for kind in Watched}
        self._settings = {Setting[each.what]: self._setting(each) for each in self._of(Watched.SETTING)}
        self._memory = {each.number: self._bytes(each) for each in self._of(Watched.MEMORY)}
        accessed = any(each.access != "write" for each in self._of(Watched.MEMORY))
        exact = goal.exact or accessed or goal.steps or goal.traces
        self._finds_blocks = bool(self._memory) and not exact
        places = tuple(place for each in self._of(Watched.MEMORY) for place in each.places)
        self.pacer.watch_stores(places if self._finds_blocks else ())
        self._passes_events = not (
            goal.until or goal.traces or goal.any_event or goal.events or goal.skips_interrupts
            or self._settings or self._by_kind[Watched.EVENT] or self._by_kind[Watched.MEMORY]
        )  # fmt: skip
        self._single = bool(goal.steps or goal.traces or (self._memory and exact))
        self._stepwise = bool(self._settings or goal.above is not None)

    def _of(self, kind: Watched) -> list[Breakpoint]:
        return self._by_kind[kind]

    def _setting(self, each: Breakpoint) -> SettingValue:
        return self._subject.processor.read_setting(Setting[each.what])

    def _bytes(self, each: Breakpoint) -> bytes:
        ram = self._subject.machine.ram.view
        return b"".join(bytes(ram[place : place + size]) for place, size in each.places)

    def _pause(self, stop: Stop) -> None:
        self.begin(self._prompt(stop))

    # -- what the pacer asks -----------------------------------------------------------------

    def pace(self) -> Pace:
        goal, now = self.goal, self._subject.processor.now
        if self._single or self._close or self._interrupted or self._has_changed:
            return Pace.STEPS
        if goal.until is not None and now >= goal.until.at:
            return Pace.STEPS
        if goal.time is not None and now >= goal.time:
            return Pace.STEPS
        return Pace.BLOCKS if self._stepwise else Pace.FREE

    def free_until(self) -> int:
        end = self._subject.processor.now + CHUNK
        for limit in (self.goal.until.at if self.goal.until else None, self.goal.time):
            end = min(end, FOREVER if limit is None else limit)
        return end

    def between_blocks(self) -> None:
        if self._finds_blocks and not self._has_changed:
            self._has_changed = self._is_changed()
            if not self._has_changed:
                self.pacer.forget_store()
        now = time.monotonic()
        if now - self._breath >= ASKING:
            self._breath = now
            here = Position(len(self.history), self._subject.processor.now, BETWEEN)
            if self._breathe(self._stop("checkpoint", "", here)):
                self._interrupted = True

    def before_block(self, address: int, size: int) -> None:
        if self._interrupted:
            self._interrupted = False
            self._pause(self._stop("interrupted", "interrupted", self._here(0)))
        from_outside = self._has_changed and self.pacer.stored_at is None
        if self._has_changed:
            self._has_changed = False
            if self.pacer.stored_at is not None:
                self._pass(self.pacer.stored_at, self._here(0))
        self._close = from_outside or (self._stepwise and (self._is_due() or self._changes_settings(address, size)))

    def _is_changed(self) -> bool:
        return any(self._bytes(each) != self._memory[each.number] for each in self._of(Watched.MEMORY))

    def _look_behind(self, here: Position) -> None:
        """Something has happened at the end of a block, which may have changed watched memory."""
        if self._finds_blocks and self.pacer.stored_at is not None and self._is_changed():
            self._has_changed = False
            self._pass(self.pacer.stored_at, here)

    def _pass(self, at: int, here: Position) -> None:
        """A block that began then has changed watched memory: somebody has to go back to see where."""
        self.pacer.forget_store()
        if self.goal.collects:
            self._hit = here, None, ""
            self._passed_at = at
            self._memory = {each.number: self._bytes(each) for each in self._of(Watched.MEMORY)}
        else:
            self._pause(replace(self._stop("passed", "", here), passed_at=at))

    def _is_due(self) -> bool:
        """Whether what is looked for between blocks has come."""
        changed = any(self._subject.processor.read_setting(each) != value for each, value in self._settings.items())
        above = self.goal.above
        return changed or (above is not None and self._is_back(above))

    def _changes_settings(self, address: int, size: int) -> bool:
        if not self._settings:
            return False
        processor = self._subject.processor
        return bool(watched(processor.peek_some(address, size), processor.decoder_mode, returns=True))

    def before_instruction(self, address: int, index: int) -> None:
        self._judge(address, self._here(index))
        self._touched = self._will_touch() if self._memory else []

    def _judge(self, address: int, here: Position) -> None:
        self._weigh(here, lambda: self._why_here(address), lambda kind, reason: self._stop(kind, reason, here))

    def _weigh(
        self, here: Position, why: Callable[[], tuple[str, str, int | None] | None], stop: Callable[[str, str], Stop]
    ) -> None:
        """Pause at this position if the goal is reached here or there is another reason; or note it, if that is all."""
        goal = self.goal
        if goal.until is not None and here >= goal.until:
            self._pause(self._with_previous(stop("goal", "there")))
            return
        if goal.traces:
            self._last = here
            return
        found = why()
        if found is None:
            return
        kind, reason, number = found
        if goal.collects:
            self._hit = here, number, reason
        else:
            self._pause(replace(stop(kind, reason), breakpoint=number))

    def _will_touch(self) -> list[Breakpoint]:
        found = []
        for address, size, kind in accesses(self._subject.processor):
            for each in self._of(Watched.MEMORY):
                wanted = {"read": READ, "access": READ | WRITE}.get(each.access, 0)
                if wanted & kind and self._overlaps(each, address, size):
                    found.append(each)
        return found

    def _overlaps(self, each: Breakpoint, address: int, size: int) -> bool:
        found = self._subject.processor.walk(address).physical
        return found is not None and any(found < at + length and at < found + size for at, length in each.places)

    def _here(self, index: int) -> Position:
        return Position(len(self.history), self.pacer.block_at, index)

    def _why_here(self, address: int) -> tuple[str, str, int | None] | None:
        goal = self.goal
        for each in goal.breakpoints:
            if each.kind is Watched.ADDRESS and each.address == address and self._holds(each):
                return "breakpoint", f"breakpoint {each}", each.number
        found = self._changed_setting() or self._changed_memory()
        if found is not None:
            return found
        if goal.time is not None and self._subject.processor.now >= goal.time:
            return "goal", "there", None
        if goal.returns_to == address and (goal.above is None or self._subject.processor.esp >= goal.above):
            return "step", "", None
        if goal.above is not None and goal.returns_to is None and self._is_back(goal.above):
            return "step", "returned", None
        if goal.steps:
            if self._interrupted_code.is_left(address):
                return None
            self._steps += 1
            if self._steps >= goal.steps:
                return "step", "", None
        return None

    def _is_back(self, above: int) -> bool:
        return self._subject.world is self._begin_world and self._subject.processor.esp > above

    def _changed_setting(self) -> tuple[str, str, int] | None:
        for each in self._of(Watched.SETTING):
            now, before = self._setting(each), self._settings[Setting[each.what]]
            if now != before:
                self._settings[Setting[each.what]] = now
                if self._holds(each):
                    return "watch", f"watch {each}: {describe(before)} -> {describe(now)}", each.number
        return None

    def _changed_memory(self) -> tuple[str, str, int] | None:
        for each in self._touched:
            if self._holds(each):
                return "watch", f"watch {each}", each.number
        for each in self._of(Watched.MEMORY):
            if each.access != "write":
                continue
            now, before = self._bytes(each), self._memory[each.number]
            if now != before:
                self._memory[each.number] = now
                if self._holds(each):
                    return "watch", f"watch {each}: {_hex(before)} -> {_hex(now)}", each.number
        return None

    def _holds(self, each: Breakpoint, event: Event | None = None) -> bool:
        """Whether world and condition are as the breakpoint wants them; one that can't be evaluated holds.

        An event is the hypervisor's doing, as its stop says, and of the world that has the processor meanwhile.
        """
        worlds = (None, self._subject.world) if event is None else (None, self._subject.world, World.HYPERVISOR)
        if each.world not in worlds:
            return False
        if not each.condition:
            return True
        try:
            return Evaluator(self._subject, event_fields(event), each.world).truth(each.condition)
        except BadInput:
            return True

    # -- events ------------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """In the middle of what the hypervisor does."""
        here = Position(len(self.history) + 1, self._subject.processor.now, IN_EVENT)
        self.history.append((here, event))
        if self._passes_events:
            return
        self._look_behind(here)
        self._interrupted_code.on_event(event)
        self._weigh(
            here, lambda: self._why_event(event), lambda kind, reason: self._in_event(kind, reason, here, event)
        )

    def _why_event(self, event: Event) -> tuple[str, str, int | None] | None:
        for each in self._of(Watched.EVENT):
            if each.what in (event.kind, str(event.step or "")) and self._holds(each, event):
                return "breakpoint", f"breakpoint {each}", each.number
        changed = self._changed_setting()
        if changed is not None:
            return changed
        if self.goal.any_event or event.kind in self.goal.events:
            return "event", "", None
        return None

    def _in_event(self, kind: str, reason: str, here: Position, event: Event) -> Stop:
        return replace(self._stop(kind, reason, here), event=event.to_json(), world=World.HYPERVISOR)

    # -- stops -------------------------------------------------------------------------------

    def _stop(self, kind: str, reason: str, here: Position) -> Stop:
        subject = self._subject
        address = subject.processor.code_address
        world = subject.world
        return Stop(here, kind, reason, world, address, subject.processor.now, subject.symbol_at(address, world))

    def end(self, reason: str, status: int) -> None:
        """The run has ended: nothing goes on from here."""
        here = Position(len(self.history), self._subject.processor.now, END_INDEX)
        self._look_behind(here)
        while True:
            self._pause(self._with_previous(replace(self._stop("end", reason, here), status=status)))

    def _with_previous(self, stop: Stop) -> Stop:
        """... and what a tracing or collecting run was asked for."""
        if self.goal.traces:
            return replace(stop, previous=self._last)
        if self._hit is None:
            return stop
        position, number, reason = self._hit
        passed = self._passed_at if number is None else 0
        return replace(stop, previous=position, breakpoint=number, reason=reason, passed_at=passed)


def event_fields(event: Event | None) -> dict[str, Any]:
    """The fields of an event by name, as conditions know them."""
    if event is None:
        return {}
    return {"event": event.kind, "step": event.step} | {each.name: getattr(event, each.name) for each in fields(event)}


def _hex(data: bytes) -> str:
    return data.hex(" ")
