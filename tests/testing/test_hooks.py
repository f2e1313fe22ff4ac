"""Hooks on a guest under the bundled host that really faults: what the hook says is what the guest's log shows."""

from __future__ import annotations

from typing import Any

import pytest

from hvproto.errors import BadInput, HookError, World
from hvproto.events import Shutdown
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.processor.settings import Setting
from hvproto.testing import (
    Decoupled,
    ExceptionTaken,
    Exit,
    GeneralProtection,
    HostFunction,
    Hv,
    Inject,
    InvalidOpcode,
    PageFault,
    Sensitive,
    SettingReplaced,
    SoftwareInterrupt,
)
from tests.hypervisor.lodger import logging_kernel

BODY = """
        mov dword ptr [resume], offset after_ud
fault:  ud2
after_ud:
        mov dword ptr [resume], 0
call48: int 0x30
after_int:
        int 0x30
        sgdt [0x17f000]
behind: jmp finish
"""


@pytest.fixture
def guest() -> Image:
    return assemble_text(logging_kernel(BODY))


def log(hv: Hv) -> list[int]:
    """The vectors that came to the guest's own handlers."""
    count = (hv.read("log_end") - hv.image.symbols["log"]) // 12
    return [hv.read(hv.image.symbols["log"] + 12 * index) for index in range(count)]


def test_without_hooks(hv: Hv) -> None:
    assert hv.run() == 0
    assert log(hv) == [6, 48, 48]


def test_a_type_and_a_symbol(hv: Hv) -> None:
    @hv.on(InvalidOpcode, where="fault")
    def skip(seen: Exit) -> str:
        seen.skip()
        return "handle"

    @hv.on(InvalidOpcode, where="after_ud")
    def elsewhere(_seen: Exit) -> None:
        raise AssertionError("there is no UD2")

    assert hv.run() == 0
    assert log(hv) == [48, 48] and skip.calls == 1 and elsewhere.calls == 0


@pytest.mark.parametrize("place", ["call48..after_int", "call48", range(0x100000, 0x200000), "address", "predicate"])
def test_a_vector_and_a_place(hv: Hv, place: Any) -> None:
    """All of them hold for the first of the two calls; the range for the second, too."""
    at = hv.image.symbols["call48"]
    place = (
        {"address": at, "predicate": lambda seen: seen.eip == at}.get(place, place) if isinstance(place, str) else place
    )

    @hv.on(48, where=place)
    def serve(_seen: Exit) -> str:
        return "handle"

    assert hv.run() == 0
    assert log(hv) == ([6] if isinstance(place, range) else [6, 48])
    assert serve.calls == (2 if isinstance(place, range) else 1)


def test_kinds(hv: Hv) -> None:
    calls = {what: hv.on(what)(lambda _seen: None) for what in (SoftwareInterrupt, Sensitive, GeneralProtection, Exit)}
    hv.run()
    assert calls[SoftwareInterrupt].calls == 2 and calls[Sensitive].calls >= 1
    assert calls[GeneralProtection].calls >= 2, "LGDT, LIDT and CLI"
    assert calls[Exit].calls > sum(hook.calls for what, hook in calls.items() if what is not Exit)


def test_injection_and_the_address_of_a_fault(hv: Hv) -> None:
    hv.on(InvalidOpcode)(lambda _seen: Inject(14, 4, 0xDEAD_B000))
    assert hv.run() == 0
    assert log(hv) == [14, 48, 48]
    assert hv.guest.cpu.cr2 == 0xDEAD_B000  # type: ignore[attr-defined]


def test_stop_ends_the_guest(hv: Hv) -> None:
    hv.on(48)(lambda _seen: "stop")
    assert hv.run() == 0
    assert log(hv) == [6] and hv.ended


def test_an_exit_hook_that_raises_ends_the_run(hv: Hv) -> None:
    @hv.on(48)
    def bad(seen: Exit) -> None:
        assert seen.eip == 5, "as it should be"

    with pytest.raises(HookError, match=r"guest at EIP .*\(call48\).*bad.*AssertionError") as caught:
        hv.run()
    cause = caught.value.__cause__
    assert isinstance(cause, AssertionError) and caught.value.where.world is World.GUEST
    assert cause.__traceback__ is not None and bad.function.__code__ in _codes(cause)
    assert hv.ended and bad.calls == 1
    assert log(hv) == [6]


def test_an_event_hook_that_raises_ends_the_run(hv: Hv) -> None:
    """In the midst of a switch: the host has its settings back all the same."""

    @hv.on(SettingReplaced, setting=Setting.GDTR)
    def bad(_event: SettingReplaced) -> None:
        raise KeyError("lost")

    with pytest.raises(HookError, match="bad raised KeyError") as caught:
        hv.run()
    assert isinstance(caught.value.__cause__, KeyError) and bad.function.__code__ in _codes(caught.value.__cause__)
    assert bad.calls == 1 and hv.machine.world is World.HOST
    assert all(hv.machine.processor.read_setting(name) == value for name, value in hv.save_area.items())


def test_what_pytest_raises_in_a_hook_is_no_error(hv: Hv) -> None:
    @hv.on(Decoupled)
    def give_up(_event: Decoupled) -> None:
        pytest.fail("enough")

    with pytest.raises(pytest.fail.Exception, match="enough"):
        hv.run()


def test_what_pytest_raises_in_an_exit_hook(hv: Hv) -> None:
    @hv.on(48)
    def give_up(_seen: Exit) -> None:
        pytest.skip("enough")

    with pytest.raises(pytest.skip.Exception, match="enough"):
        hv.run()
    assert hv.ended and hv.machine.world is World.HOST


def _codes(error: BaseException) -> list[Any]:
    trace, codes = error.__traceback__, []
    while trace is not None:
        codes.append(trace.tb_frame.f_code)
        trace = trace.tb_next
    return codes


def test_adding_and_removing_count_from_the_next_exit(hv: Hv) -> None:
    later: list[int] = []

    @hv.on(InvalidOpcode)
    def first(_seen: Exit) -> None:
        @hv.on(48)
        def second(seen: Exit) -> str:
            later.append(seen.eip)
            hv_hooks[0].remove()
            return "handle"

        hv_hooks.append(second)

    hv_hooks: list[Any] = []
    assert hv.run() == 0
    assert later == [hv.image.symbols["call48"]] and log(hv) == [6, 48]
    assert first.calls == 1


def test_settings_and_worlds_of_events(hv: Hv) -> None:
    replaced = hv.on(SettingReplaced, setting="CR3")(lambda _event: None)
    decoupled = hv.on(Decoupled, setting="IDTR")(lambda _event: None)
    hv.run()
    assert {event.setting for event in replaced.seen} == {"CR3"}
    assert len(replaced.seen) == decoupled.calls == len(hv.events.of(Decoupled)) > 0


def test_the_world_of_an_event(hv: Hv) -> None:
    """Its own, or that of whoever has the processor when it happens."""
    guests = hv.on(ExceptionTaken, world="guest")(lambda _event: None)
    hosts = hv.on(ExceptionTaken, world=World.HOST)(lambda _event: None)
    end = hv.on(Shutdown, world="host")(lambda _event: None)
    never = hv.on(Shutdown, world="guest")(lambda _event: None)
    hv.run()
    assert guests.calls == len(hv.events.of(ExceptionTaken)) > 3 and hosts.calls == 0
    assert (end.calls, never.calls) == (1, 0)


def test_an_event_hook_stops_the_run_which_goes_on(hv: Hv) -> None:
    stop = hv.on(HostFunction)(lambda _event: "stop")
    hv.on(48)(lambda _seen: None)
    done = []
    while not hv.ended:
        done.append(hv.run())
    assert done[-1] == 0 and set(done[:-1]) <= {-1} and len(done) == 1 + stop.calls
    assert log(hv) == [6, 48, 48]


@pytest.mark.parametrize(
    ("what", "options", "reason"),
    [
        (300, {}, "no vector 300"),
        (str, {}, "nothing to hook on"),
        (PageFault, {"world": "host"}, "exits are the guest's"),
        (PageFault, {"world": "moon"}, "unknown world"),
        (PageFault, {"setting": "CR3"}, "no setting"),
        (SettingReplaced, {"setting": "CR9"}, "unknown setting"),
        (PageFault, {"where": 1.5}, "is no place"),
    ],
)
def test_hooks_that_could_never_be_called(hv: Hv, what: Any, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        hv.on(what, **options)


@pytest.mark.plan("direct")
def test_a_plan_without_exits(hv: Hv) -> None:
    with pytest.raises(BadInput, match="no exits"):
        hv.on(PageFault)


def test_an_unknown_symbol_is_said_when_it_is_looked_for(hv: Hv) -> None:
    hv.on(48, where="nowhere")(lambda _seen: None)
    with pytest.raises(HookError, match="no symbol 'nowhere'"):
        hv.run()
