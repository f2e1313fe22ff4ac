"""The timeline of a run: checkpoints, the present, and the ways between them.

Each checkpoint is a process that waits at a moment of the run (`debuggee`). It never goes on itself: a copy of it does.
What is asked for is one journey, of many runs and copies perhaps; an interruption ends the whole of it.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from hvproto.debugger.channel import Channel, Closed
from hvproto.debugger.debuggee import start
from hvproto.debugger.goal import Goal, Stop
from hvproto.debugger.position import BETWEEN, Position
from hvproto.debugger.subject import Build
from hvproto.errors import HvprotoError

MOST_CHECKPOINTS = 24
CLOSE = 2_000
"""Cycles before a block, at least, at which a run is that is to meet it step by step."""
NEARBY = 20_000
"""Cycles before a moment that is looked for on the way back: a checkpoint is made there, for the next way back."""
LOOK_BACK = 64
"""Cycles, at first, in which the moment before is looked for."""


class DebuggerError(HvprotoError):
    """A debuggee has come to an end that nobody wanted."""


@contextmanager
def _on_ctrl_c(action: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-C do this instead of raising, which could be in the middle of a message. The outermost one is it."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, lambda _number, _frame: action())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(slots=True)
class Checkpoint:
    """A process that waits at a moment."""

    stop: Stop
    channel: Channel
    edited: bool = False
    """Whether somebody has changed something just before it: what is behind can't be reached without it."""

    @property
    def position(self) -> Position:
        return self.stop.position


class Timeline:
    """``on_output`` gets what the kernels print: whose, and the bytes; each once, however often the run is repeated."""

    def __init__(self, build: Build, on_output: Callable[[str, bytes], None] = lambda _whose, _data: None) -> None:
        self._on_output = on_output
        self._shown: dict[str, int] = {}
        self.checkpoints: list[Checkpoint] = []
        self.visitors: dict[int, Callable[[], None]] = {}
        """By descriptor: what is called when there is something to read while the run goes on."""
        self._journeys = 0
        self._interrupted = self._runs = False
        root, self._process = start(build)
        self._channel = root
        with self._unbroken():
            self.stop = self._await_stop()
            self.checkpoints.append(Checkpoint(self.stop, root))
            self._channel = self._copy(self.checkpoints[0])

    def close(self) -> None:
        """End all processes."""
        for checkpoint in self.checkpoints:
            checkpoint.channel.close()
        self._channel.close()
        self.checkpoints.clear()
        if self._process:
            try:
                os.waitpid(self._process, 0)
            except ChildProcessError:
                pass
            self._process = 0

    # -- messages ----------------------------------------------------------------------------

    def _send(self, *message: Any) -> None:
        try:
            self._channel.send(message)
        except Closed:
            raise DebuggerError("the process of the run has gone") from None

    def _receive(self) -> tuple[Any, ...]:
        """The next message that isn't about output or checkpoints."""
        while True:
            (kind, *rest), passed = self._take()
            match kind:
                case "output":
                    self._show(*rest)
                case "checkpoint" if passed is not None:
                    self._keep(Checkpoint(rest[0], Channel(passed)))
                case "forked" if passed is not None:
                    return kind, Channel(passed)
                case "failed":
                    raise rest[0]
                case "crashed" | "broken":
                    raise DebuggerError(f"a defect of the debugger:\n{rest[0]}")
                case _:
                    return kind, *rest

    def _take(self) -> tuple[Any, Any]:
        try:
            while self.visitors:
                ready, _, _ = select.select([self._channel.fileno(), *self.visitors], [], [])
                for descriptor in ready:
                    if descriptor in self.visitors:
                        self.visitors[descriptor]()
                if self._channel.fileno() in ready:
                    break
            return self._channel.receive()
        except Closed:
            raise DebuggerError("the process of the run has gone") from None

    def _show(self, whose: str, at: int, data: bytes) -> None:
        shown = self._shown.get(whose, 0)
        new = data[max(0, shown - at) :]
        if new and at + len(data) > shown:
            self._shown[whose] = at + len(data)
            self._on_output(whose, new)

    def _await_stop(self) -> Stop:
        while True:
            kind, *rest = self._receive()
            if kind == "stopped":
                self._runs = False
                self.stop = rest[0]
                return self.stop

    def _run(self, goal: Goal, records: bool = False) -> Stop:
        """Let the present go on to its next stop: at once, if the journey is interrupted already."""
        if self._interrupted:
            return self._halt()
        self._send("resume", goal, records)
        self._runs = True
        if self._interrupted:  # in between: nobody has told the run
            self._send("interrupt")
        return self._await_stop()

    # -- interruptions -----------------------------------------------------------------------

    @contextmanager
    def journey(self) -> Iterator[None]:
        """What is asked for as a whole: from here to its end, Ctrl-C interrupts it, in whichever of its parts."""
        if self._journeys == 0:
            self._interrupted = False
        self._journeys += 1
        try:
            with _on_ctrl_c(self.interrupt):
                yield
        finally:
            self._journeys -= 1

    def interrupt(self) -> None:
        """End the journey that is under way: the run stops between two blocks, and no other begins."""
        self._interrupted = True
        if self._runs:
            self._send("interrupt")

    def _halt(self) -> Stop:
        """The journey ends where it is."""
        self.stop = replace(self.stop, kind="interrupted", reason="interrupted")
        return self.stop

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        """A question and its answer: Ctrl-C comes after it, as KeyboardInterrupt. In a journey it is the journey's."""
        pressed = False

        def press() -> None:
            nonlocal pressed
            pressed = True

        with _on_ctrl_c(press):
            yield
        if pressed:
            raise KeyboardInterrupt

    # -- checkpoints -------------------------------------------------------------------------

    def _copy(self, checkpoint: Checkpoint) -> Channel:
        before, self._channel = getattr(self, "_channel", None), checkpoint.channel
        self._send("fork")
        _, channel = self._receive()
        if before is not None and before is not checkpoint.channel:
            before.close()
        assert isinstance(channel, Channel)
        return channel

    def _keep(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint; if there are too many, one goes that others are near to."""
        places = [each.position for each in self.checkpoints]
        index = bisect_right(places, checkpoint.position)
        if index and places[index - 1] == checkpoint.position and not checkpoint.edited:
            checkpoint.channel.close()
            return
        self.checkpoints.insert(index, checkpoint)
        if len(self.checkpoints) > MOST_CHECKPOINTS:
            times = [each.position.at for each in self.checkpoints]
            now = times[-1]
            # Far from the end they may be far from each other.
            gaps = [
                ((times[i + 1] - times[i - 1]) / (now - times[i] + 1), i)
                for i in range(1, len(times) - 1)
                if not self.checkpoints[i].edited
            ]
            if gaps:
                self.checkpoints.pop(min(gaps)[1]).channel.close()

    # -- the present -------------------------------------------------------------------------

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of a module in the process of the run, with a `View` and these arguments."""
        with self._unbroken():
            self._send("call", function, arguments)
            _, value = self._receive()
        return value

    def resume(self, goal: Goal, *, records: bool = True) -> Stop:
        """Go on from here. A change of watched memory is looked for block by block, then closely."""
        with self.journey():
            while not self.stop.ended:
                began = self.stop.position
                stop = self._run(goal, records)
                if stop.kind != "passed":
                    break
                self._approach(began, stop.passed_at - CLOSE)
                closely = self._run(replace(goal, exact=True, until=stop.position))
                if closely.kind != "goal" or goal.until == stop.position:
                    break
            return self.stop

    def _approach(self, began: Position, at: int) -> None:
        """To a time, but not to before a moment."""
        if at <= began.at:
            self.goto(began)
            return
        self._from_before(began)
        best = max((each for each in self.checkpoints if each.position.at < at), key=lambda each: each.position)
        if best.position > began:
            self._channel, self.stop = self._copy(best), best.stop
        self._run(Goal(time=at))

    def checkpoint(self) -> None:
        """Make a checkpoint of the present."""
        self._keep_present(edited=False)

    def _keep_present(self, *, edited: bool) -> None:
        if not self.stop.ended:
            with self._unbroken():
                self._send("fork")
                _, channel = self._receive()
                self._keep(Checkpoint(self.stop, channel, edited))

    def edit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that changes the run. What came after is no longer there; to go back before undoes it."""
        with self._unbroken():
            for each in [each for each in self.checkpoints if each.position > self.stop.position]:
                self.checkpoints.remove(each)
                each.channel.close()
            result = self.call(function, *arguments)
            self._keep_present(edited=True)
        return result

    def _forget_edits(self, before: Position) -> None:
        """The present is behind a moment before which nothing was changed: changes after it are undone."""
        edits = [each.position for each in self.checkpoints if each.edited and each.position > before]
        for each in [each for each in self.checkpoints if edits and each.position >= edits[0]]:
            self.checkpoints.remove(each)
            each.channel.close()

    # -- travelling --------------------------------------------------------------------------

    def _from_before(self, position: Position, *, strictly: bool = False) -> Checkpoint:
        """Make the present a copy of the last checkpoint at or before a moment."""
        found = self.checkpoints[0]
        for each in self.checkpoints:
            if each.position < position or (each.position == position and not strictly):
                found = each
        self._channel = self._copy(found)
        self.stop = found.stop
        return found

    def goto(self, position: Position) -> Stop:
        """To a moment, or to the first one behind it that there is."""
        with self.journey():
            self._forget_edits(position)
            if position < self.stop.position or self.stop.ended:
                self._from_before(position)
            elif position == self.stop.position:
                return self.stop
            if self.stop.position < position:
                self.resume(Goal(until=position))
            return self.stop

    def goto_time(self, cycles: int) -> Stop:
        """To the first instruction at or after this virtual time."""
        with self.journey():
            if cycles <= self.stop.now:
                self._from_before(self._before_time(cycles))
                self._forget_edits(self.stop.position)
            if self.stop.position.at < cycles or self.stop.position.in_event:
                self.resume(Goal(time=cycles))
            return self.stop

    def _before_time(self, cycles: int) -> Position:
        """The moment of the last checkpoint before a time."""
        return max(
            each.position for each in self.checkpoints if each.position.at <= max(0, cycles - 1) or not each.position.at
        )

    def back(self) -> Stop:
        """To the moment before: the instruction or event that came last; an interruption leaves it on the way."""
        with self.journey():
            previous = self._previous(self.stop.position)
            if self._interrupted:
                return self._halt()
            return self.goto(previous) if previous is not None else self.stop

    def _previous(self, position: Position) -> Position | None:
        """None at the beginning, and if it was interrupted."""
        first = self.checkpoints[0].position
        if position <= first:
            return None
        distance, limit = LOOK_BACK, position
        while True:
            checkpoint = self._from_before(limit, strictly=True)
            begin = max(0, position.at - distance)
            nearby = max(0, begin - NEARBY)
            if checkpoint.position.at < nearby:
                self.resume(Goal(time=nearby, until=position))
                if self.stop.position < position:
                    self.checkpoint()
            if not self._interrupted and self.stop.position < position and self.stop.position.at < begin:
                self.resume(Goal(time=begin, until=position), records=False)
            if not self._interrupted and self.stop.position < position:
                limit = self.stop.position
                stop = self.resume(Goal(traces=True, until=position), records=False)
                if stop.previous is not None:
                    return stop.previous
                if not self._interrupted and limit.index != BETWEEN:
                    return limit
            if self._interrupted:
                return None
            distance *= 16

    def back_to(self, goal: Goal) -> Stop:
        """To the last moment before this one at which a run with this goal would have stopped; else to the start.

        An interruption leaves it on the way.
        """
        with self.journey():
            limit = self.stop.position
            while True:
                checkpoint = self._from_before(limit, strictly=True)
                stop = self.resume(replace(goal, collects=True, until=limit), records=False)
                if self._interrupted:
                    return self._halt()
                if stop.previous is not None:
                    if stop.passed_at:  # the block is known, not the instruction
                        self._approach(checkpoint.position, stop.passed_at - CLOSE)
                        closely = replace(goal, collects=True, until=stop.previous, exact=True)
                        stop = self.resume(closely, records=False)
                    there = self.goto(stop.previous or stop.position)
                    if self._interrupted:
                        return self._halt()
                    self.stop = replace(there, kind="breakpoint", reason=stop.reason, breakpoint=stop.breakpoint)
                    return self.stop
                limit = checkpoint.position
                if checkpoint is self.checkpoints[0]:
                    return self.goto(limit)
