"""The agenda: order, cancelling, and actions that plan others."""

from hypothesis import given
from hypothesis import strategies as st

from hvproto.machine.clock import Clock, Event


class Time:
    def __init__(self) -> None:
        self.cycle = 0

    def __call__(self) -> int:
        return self.cycle


def test_now_is_asked_for_each_time() -> None:
    time = Time()
    clock = Clock(time)
    assert clock.now == 0
    time.cycle = 7
    assert clock.now == 7


def test_nothing_planned() -> None:
    clock = Clock(Time())
    assert clock.next_event() is None
    assert clock.run_due() == 0


def test_cancelled_events_are_gone() -> None:
    time = Time()
    clock = Clock(time)
    ran: list[str] = []
    first = clock.at(10, lambda: ran.append("first"))
    clock.at(20, lambda: ran.append("second"))
    first.cancel()
    assert clock.next_event() == 20
    time.cycle = 30
    assert clock.run_due() == 1
    assert ran == ["second"]
    first.cancel()


def test_an_action_may_plan_for_now_and_cancel_others() -> None:
    time = Time()
    clock = Clock(time)
    ran: list[str] = []
    doomed: list[Event] = []

    def action() -> None:
        ran.append("outer")
        clock.at(5, lambda: ran.append("inner"))
        clock.at(51, lambda: ran.append("later"))
        doomed[0].cancel()

    clock.at(10, action)
    doomed.append(clock.at(20, lambda: ran.append("doomed")))
    time.cycle = 50
    assert clock.run_due() == 2
    assert ran == ["outer", "inner"]
    assert clock.next_event() == 51


@given(
    plans=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=40),
    steps=st.lists(st.integers(0, 15), max_size=10),
)
def test_events_run_once_in_order_of_time_then_of_planning(plans: list[tuple[int, bool]], steps: list[int]) -> None:
    time = Time()
    clock = Clock(time)
    ran: list[tuple[int, int]] = []
    for number, (when, cancelled) in enumerate(plans):
        event = clock.at(when, lambda when=when, number=number: ran.append((when, number)))  # type: ignore[misc]
        if cancelled:
            event.cancel()
    kept = sorted((when, number) for number, (when, cancelled) in enumerate(plans) if not cancelled)
    for step in [*steps, 41]:
        time.cycle += step
        before = len(ran)
        assert clock.run_due() == len(ran) - before
        assert ran == [plan for plan in kept if plan[0] <= time.cycle]
        rest = [when for when, _ in kept if when > time.cycle]
        assert clock.next_event() == (rest[0] if rest else None)
