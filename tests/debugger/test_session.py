"""Debugging sessions: stops of every kind, inside switches as well, and the way back from each."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hvproto.debugger.debuggee import View
from hvproto.debugger.gdb.state import write_register
from hvproto.debugger.goal import Goal, Stop
from hvproto.debugger.inspect import history, settings
from hvproto.debugger.position import Position
from hvproto.debugger.session import DebugSession
from hvproto.debugger.timeline import LOOK_BACK, NEARBY, Timeline
from hvproto.errors import BadInput, World
from hvproto.processor.settings import Setting
from tests.debugger.runs import fingerprint, kernel, session

COUNTS = """
start:
    mov esp, 0x9000
    xor eax, eax
    mov ecx, 5
again:
    call increment
    loop again
    mov dword [0x5000], eax
    lidt [0x6000]
    hlt
increment:
    inc eax
    ret
"""


@pytest.fixture
def counting() -> Iterator[DebugSession]:
    with DebugSession(kernel(COUNTS)) as debug:
        yield debug


@pytest.fixture(scope="module")
def switching() -> Iterator[DebugSession]:
    """A session that each test finds at the beginning, without breakpoints."""
    with DebugSession(session()) as debug:
        yield debug


@pytest.fixture
def hosted(switching: DebugSession) -> DebugSession:
    switching.breakpoints.clear()
    switching.goto(Position(0, 0, 0))
    return switching


def loaded(view: View, *names: str) -> list[object]:
    return [view.subject.processor.read_setting(Setting[name]) for name in names]


# -- forwards ------------------------------------------------------------------------------------


def test_step_next_finish_and_until(counting: DebugSession) -> None:
    assert counting.step(3).symbol == "again"
    assert counting.step().symbol == "increment"
    assert counting.finish().symbol.startswith("again+")
    assert counting.evaluate("eax") == 1
    assert counting.step().symbol == "again"
    assert counting.next().symbol.startswith("again+")
    assert (counting.evaluate("eax"), counting.evaluate("ecx")) == (2, 4)
    assert counting.until(counting.evaluate("increment")).symbol == "increment"
    assert counting.cont().ended
    assert counting.evaluate("u32(0x5000)") == 5


def test_breakpoints_with_conditions_and_back_through_them(counting: DebugSession) -> None:
    counting.break_at("increment", condition="eax == 3")
    stop = counting.cont()
    assert (stop.kind, stop.symbol, counting.evaluate("eax")) == ("breakpoint", "increment", 3)
    assert counting.cont().ended
    assert counting.back_continue().position == stop.position
    assert counting.back_continue().position == Position(0, 0, 0)
    counting.breakpoints.clear()
    counting.break_at("increment")
    seen = []
    while not counting.cont().ended:
        seen.append(counting.evaluate("eax"))
    assert seen == [0, 1, 2, 3, 4]
    for value in reversed(seen):
        counting.back_continue()
        assert counting.evaluate("eax") == value


def test_memory_and_settings_are_watched_to_the_instruction(counting: DebugSession) -> None:
    counting.watch_memory(0x5000)
    counting.watch("idtr")
    stop = counting.cont()
    assert stop.kind == "watch"
    assert counting.evaluate("u32(0x5000)") == 5
    assert counting.back().address + 5 == stop.address  # MOV [0x5000], EAX has five bytes
    assert counting.evaluate("u32(0x5000)") == 0
    counting.step()
    last = counting.cont()
    assert "IDTR" in last.reason
    assert counting.evaluate("idtr.limit") == 0
    assert counting.step().ended


@pytest.mark.parametrize(("access", "reads", "writes"), [("read", 1, 0), ("access", 1, 1)])
def test_watches_of_reads(access: str, reads: int, writes: int) -> None:
    with DebugSession(kernel("mov [0x5000], eax\nmov ebx, [0x5002]\npush dword [0x6000]\nhlt")) as debug:
        debug.watch_memory(0x5000, access=access)
        hits = 0
        while not debug.cont().ended:
            hits += 1
        assert hits == reads + writes


LATE = """
start:
    mov esi, 0x5000
    mov ecx, 1000000
spin:
    mov [esi + 8], ecx
    loop spin
    mov dword [esi], 1
    mov dword [esi], 1
    mov ecx, 300000
again:
    mov [esi + 8], ecx
    loop again
late:
    mov byte [esi + 3], 2
    hlt
"""


def test_a_watch_over_millions_of_instructions_and_back() -> None:
    with DebugSession(kernel(LATE)) as debug:
        debug.watch_memory(0x5000)
        first = debug.cont()
        assert (first.kind, debug.evaluate("u32(0x5000)")) == ("watch", 1)
        second = debug.cont()
        assert (second.symbol, debug.evaluate("u32(0x5000)")) == ("late+0x4", 0x0200_0001)
        assert debug.cont().ended
        assert debug.back_continue().position == second.position
        assert debug.back_continue().position == first.position
        assert debug.back().symbol == "spin+0x5"
        assert debug.evaluate("u32(0x5000)") == 0


def test_a_watch_stays_with_the_memory_across_address_spaces(hosted: DebugSession) -> None:
    hosted.watch_memory("ticks", 4)
    ticks = []
    for _ in range(3):
        stop = hosted.cont()
        assert (stop.kind, stop.world) == ("watch", World.HOST)
        ticks.append(hosted.evaluate("u32(ticks)"))
    assert ticks == [1, 2, 3]
    assert hosted.back_continue().position < stop.position


# -- inside a switch -----------------------------------------------------------------------------


def test_in_the_middle_of_decoupling_and_recoupling(hosted: DebugSession) -> None:
    host = hosted.break_on("SettingSaved")
    assert hosted.cont().world is World.HYPERVISOR
    before = dict(zip(Setting, hosted.call(loaded, *Setting.__members__), strict=True))
    hosted.delete(host.number)
    hosted.break_on("SettingReplaced", condition='setting == "IDTR"')
    middle = hosted.cont()
    cr3, idtr = hosted.call(loaded, "CR3", "IDTR")
    assert idtr != before[Setting.IDTR]
    assert cr3 == before[Setting.CR3]
    rows = {line.split()[0]: line for line in hosted.call(settings.settings).splitlines()}
    assert "* hypervisor's" in rows["IDTR"]
    assert "host's" in rows["CR3"] and "*" not in rows["CR3"]
    assert hosted.back().position.events == middle.position.events - 1
    assert hosted.call(loaded, "IDTR") == [before[Setting.IDTR]]
    hosted.breakpoints.clear()
    assert "Decoupled" in hosted.step_switch().event
    assert hosted.call(loaded, "CR3") != [before[Setting.CR3]]
    assert "Recoupled" in hosted.step_switch().event
    assert dict(zip(Setting, hosted.call(loaded, *Setting.__members__), strict=True)) == before


def test_a_watched_setting_stops_at_the_register(hosted: DebugSession) -> None:
    hosted.watch("IDTR")
    by_the_host = hosted.cont()
    assert by_the_host.world is World.HOST
    stop = hosted.cont()
    assert '"SettingReplaced"' in stop.event and '"IDTR"' in stop.event
    back = hosted.cont()
    assert '"SettingRestored"' in back.event and '"IDTR"' in back.event


def test_steps_of_each_size(hosted: DebugSession) -> None:
    assert "SettingSaved" in hosted.step_setting().event
    assert hosted.step_setting().position.events == hosted.back().position.events + 1
    assert "ExceptionTaken" in hosted.step_exit().event
    one = hosted.step_event()
    assert hosted.step_event().position.events == one.position.events + 1


def test_a_step_goes_past_the_interrupt_that_comes_in_between(hosted: DebugSession) -> None:
    hosted.break_at("timer_entry", World.HOST)
    handler = hosted.cont()
    returns_to = hosted.evaluate("[esp]")
    hosted.breakpoints.clear()
    before = hosted.back_instruction()
    assert hosted.step().position == handler.position
    hosted.goto(before.position)
    assert hosted.step(skips_interrupts=True).address == returns_to
    assert hosted.position > handler.position


def test_an_instruction_before_a_virtual_time_and_diff(hosted: DebugSession) -> None:
    first = hosted.goto(100_000)
    assert first.position.at >= 100_000 > first.position.at - 200
    one = hosted.call(history.snapshot)
    hosted.step(50)
    other = hosted.call(history.snapshot)
    assert "ecx" in history.differences(one, other)
    hosted.goto(first.position)
    assert hosted.call(history.snapshot) == one


# -- time ----------------------------------------------------------------------------------------


def _walk(debug: DebugSession, seed: int, moves: int) -> None:
    """Random moves in both directions: a moment that was seen before is what it was."""
    chance = random.Random(seed)
    seen: dict[Position, object] = {}
    order: list[Position] = []

    def note(stop: Stop) -> None:
        if stop.ended:
            return
        print_ = debug.call(fingerprint)
        assert seen.setdefault(stop.position, print_) == print_, f"{stop.position} isn't what it was"
        order.append(stop.position)

    for _ in range(moves):
        match chance.randrange(5):
            case 0:
                note(debug.step(chance.randrange(1, 40)))
            case 1:
                note(debug.step_event())
            case 2:
                note(debug.back(chance.randrange(1, 4)))
            case 3:
                note(debug.goto(chance.choice(order) if order else Position(0, 0, 0)))
            case 4:
                note(debug.goto(chance.randrange(280_000, 320_000)))
    assert len(order) > len(seen)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_moment_is_always_the_same(hosted: DebugSession, seed: int) -> None:
    _walk(hosted, seed, 25)


def test_back_is_the_inverse_of_step(hosted: DebugSession) -> None:
    hosted.goto(286_000)
    trail = [hosted.position]
    for _ in range(25):
        hosted.resume(steps=1, any_event=True)
        trail.append(hosted.position)
    for position in reversed(trail[:-1]):
        assert hosted.back().position == position


SPIN = "mov ecx, 5000000\nagain: add eax, ecx\nloop again\nhlt"


def test_back_after_ten_million_instructions() -> None:
    with DebugSession(kernel(SPIN)) as debug:
        assert debug.cont().ended
        assert debug.back(2).symbol.startswith("again+")
        for _ in range(3):
            debug.back()  # ten million steps would take fifteen minutes each time
        assert debug.evaluate("ecx") in (1, 2)


def test_a_step_back_repeats_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In cycles, not in seconds: what is run anew, from copies of the run, and how much of that instruction by
    instruction."""
    repeated: list[tuple[int, bool]] = []
    resume = Timeline.resume

    def counted(timeline: Timeline, goal: Goal, *, records: bool = True) -> Stop:
        began = timeline.stop.now
        stop = resume(timeline, goal, records=records)
        repeated.append((stop.now - began, goal.traces))
        return stop

    with DebugSession(kernel(SPIN)) as debug:
        debug.cont()
        monkeypatch.setattr(Timeline, "resume", counted)
        for number in range(6):
            repeated.clear()
            debug.back()
            stepped = sum(cycles for cycles, traces in repeated if traces)
            assert stepped <= 2 * LOOK_BACK
            # The first one comes from the last checkpoint, wherever that is; it leaves one that is near.
            free = sum(cycles for cycles, traces in repeated if not traces)
            assert free <= 2 * (NEARBY + LOOK_BACK) or number == 0


@pytest.mark.parametrize("messages", [0, 1, 2, 9])
@pytest.mark.parametrize("way", ["back", "back_continue"])
def test_an_interruption_ends_the_whole_way_back(way: str, messages: int) -> None:
    """... whichever part of it, a run or a copy, is waited for when it comes."""
    with DebugSession(kernel(SPIN)) as debug:
        end = debug.cont().position
        awaited = 0

        def interrupt() -> None:
            nonlocal awaited
            if awaited == messages:
                time.sleep(0.01)  # in the middle of a run, if it is one
                debug.timeline.interrupt()
            awaited += 1

        with listened(debug, interrupt):
            stop = debug.back(100_000) if way == "back" else debug.back_continue()
        if awaited > messages:
            assert stop.kind == "interrupted" and stop.position <= end
        else:  # the whole way had fewer messages
            assert way == "back_continue" and stop.position == Position(0, 0, 0)
        here = debug.call(fingerprint)
        assert debug.cont().position == end
        assert debug.goto(stop.position).position == stop.position
        assert debug.call(fingerprint) == here


@contextmanager
def listened(debug: DebugSession, visit: Callable[[], None]) -> Iterator[None]:
    """Have somebody called at each message that the debugger awaits."""
    hears, says = os.pipe()
    os.write(says, b"!")
    debug.timeline.visitors[hears] = visit
    try:
        yield
    finally:
        del debug.timeline.visitors[hears]
        os.close(hears)
        os.close(says)


# -- changes -------------------------------------------------------------------------------------


def test_a_change_holds_until_one_goes_back_before_it(counting: DebugSession) -> None:
    counting.step(3)
    before = counting.position
    counting.edit(write_register, World.GUEST, "ecx", 2)
    counting.step(4)
    assert counting.back(2).position > before
    assert counting.cont().ended
    assert counting.evaluate("u32(0x5000)") == 2
    counting.goto(Position(0, 0, 0))
    assert counting.cont().ended
    assert counting.evaluate("u32(0x5000)") == 5


# -- bad input -----------------------------------------------------------------------------------


def test_bad_input_changes_nothing(counting: DebugSession) -> None:
    for wrong in ("nowhere", "1 +", "f(2)", "[0xfffffff0", "().__class__", "'a' * 9"):
        with pytest.raises(BadInput):
            counting.break_at(wrong)
    with pytest.raises(BadInput):
        counting.break_on("Nothing")
    with pytest.raises(BadInput):
        counting.watch("CR9")
    with pytest.raises(BadInput):
        counting.delete(7)
    assert not counting.breakpoints
    assert counting.position == Position(0, 0, 0)
