"""The user's handlers of exits, and the routes of vectors, on a guest that really faults."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hvproto.errors import HookError, PlanError, World
from hvproto.events import ExceptionTaken, Recoupled
from hvproto.hypervisor.exit_view import (
    DEFAULT,
    HANDLED,
    REFLECT,
    STOP,
    Answer,
    EndGuest,
    Exit,
    ExitKind,
    Handler,
    Inject,
)
from hvproto.hypervisor.guest import Leave
from hvproto.hypervisor.plan import Plan, Provider
from hvproto.images.assembly import assemble_text
from hvproto.processor.processor import Processor
from tests.hypervisor.hosted import Run
from tests.hypervisor.lodger import Lodging, logging_kernel

BODY = """
        mov dword ptr [resume], offset after_ud
fault:  ud2
after_ud:
        mov dword ptr [resume], 0
call48: int 0x30
after_int:
        mov [result], eax
        mov dword ptr [resume], offset after_gp
gp:     mov word ptr [0x17f000], 0x33
        mov ds, [0x17f000]
after_gp:
        sgdt [0x17f000]
"""


def lodging(engine: str, body: str = BODY, plan: str = "mirrored") -> Lodging:
    made = Lodging(engine, plan)
    made.add(assemble_text(logging_kernel(body)))
    return made


def only(vector: int, answer: Answer | Callable[[Exit], Answer]) -> Handler:
    """A handler that decides about one vector."""

    def handler(seen: Exit) -> Answer:
        if seen.vector != vector:
            return None
        return answer(seen) if callable(answer) else answer

    return handler


def test_without_handlers_the_guest_has_its_own_events(engine: str) -> None:
    run = lodging(engine)
    stay = run.run_to_end()
    assert stay.leave is Leave.HALTED and stay.status == 0
    symbols = run.image.symbols
    assert run.log == [
        (6, 0, symbols["fault"]), (48, 0, symbols["after_int"]), (13, 0x30, symbols["gp"] + 9)
    ]  # fmt: skip


def test_handlers_see_every_exit_in_order(engine: str) -> None:
    run, seen, order = lodging(engine), [], []

    def first(exit_: Exit) -> None:
        order.append(1)
        seen.append((exit_.kind, exit_.vector, exit_.error_code, exit_.eip))
        assert exit_.world is World.GUEST and exit_.cpu.eip == exit_.eip

    def second(exit_: Exit) -> Answer:
        order.append(2)
        return DEFAULT

    run.guest.on_exit(first)
    run.guest.on_exit(second)
    run.run_to_end()
    symbols = run.image.symbols
    assert order == [1, 2] * len(seen)
    assert (ExitKind.EXCEPTION, 6, None, symbols["fault"]) in seen
    assert (ExitKind.SOFTWARE, 48, None, symbols["call48"]) in seen
    assert (ExitKind.INSTRUCTION, 13, 0, symbols["gp"] + 9) in seen, "whether a kernel may load DS is looked at first"
    assert (ExitKind.INSTRUCTION, 13, 0, symbols["after_gp"]) in seen, "SGDT doesn't trap by itself"
    assert any(vector == 13 and eip == symbols["start"] for _, vector, _, eip in seen), "CLI does"
    assert run.log == lodging_log(engine), "who only looks changes nothing"


def lodging_log(engine: str) -> list[tuple[int, int, int]]:
    run = lodging(engine)
    run.run_to_end()
    return run.log


def test_a_handler_serves_a_call(engine: str) -> None:
    """INT 0x30 never reaches the guest's handler: the answer is in EAX, and the next instruction follows."""
    run = lodging(engine)

    def serve(seen: Exit) -> Answer:
        assert seen.instruction is not None and seen.instruction.mnemonic == "int"
        seen.cpu.set_gpr(0, 0x1234_5678)
        return HANDLED

    run.guest.on_exit(only(48, serve))
    run.run_to_end()
    assert run.words("result") == [0x1234_5678]
    assert [vector for vector, _, _ in run.log] == [6, 13]


def test_a_handler_skips_an_instruction(engine: str) -> None:
    run = lodging(engine)

    def skip(seen: Exit) -> Answer:
        seen.skip()
        return HANDLED

    run.guest.on_exit(only(6, skip))
    run.run_to_end()
    assert [vector for vector, _, _ in run.log] == [48, 13]


def test_a_handler_injects_another_exception(engine: str) -> None:
    run = lodging(engine)
    run.guest.on_exit(only(6, Inject(14, 5, 0xDEAD_B000)))
    run.run_to_end()
    assert run.log[0] == (14, 5, run.image.symbols["fault"])
    assert run.guest.cpu.cr2 == 0xDEAD_B000


def test_a_handler_reflects_what_would_have_been_handled(engine: str) -> None:
    """SGDT, then, is a #GP for the guest, which comes back to it; INT n reflected is what it is anyhow."""
    run = lodging(engine)
    at = [run.image.symbols[name] for name in ("call48", "after_gp")]
    left = [3]

    def reflect(seen: Exit) -> Answer:
        if seen.eip not in at or not left[0]:
            return None
        left[0] -= 1
        return REFLECT

    run.guest.on_exit(reflect)
    run.run_to_end()
    assert run.log == [*lodging_log(engine), (13, 0, at[1]), (13, 0, at[1])]


@pytest.mark.parametrize("answer, status, reason", [
    (STOP, 0, "an exit handler ended it"), (EndGuest("enough", 7), 7, "enough"),
])  # fmt: skip
def test_a_handler_ends_the_guest(engine: str, answer: EndGuest, status: int, reason: str) -> None:
    run = lodging(engine)
    run.guest.on_exit(only(48, answer))
    stay = run.run()
    assert stay.leave is Leave.HALTED and stay.status == status
    (ended,) = [event for event in run.events if event.kind == "GuestHalted"]
    assert getattr(ended, "reason") == reason  # noqa: B009 - one kind of event of many
    assert [vector for vector, _, _ in run.log] == [6]


def test_a_handler_that_raises_stops_the_run(engine: str) -> None:
    run = lodging(engine)
    before = state_of(run.machine.processor)

    def broken(seen: Exit) -> Answer:
        raise ZeroDivisionError("mine")

    run.guest.on_exit(only(6, broken))
    with pytest.raises(HookError, match="handler raised ZeroDivisionError: mine") as caught:
        run.run()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.where.world is World.GUEST and caught.value.where.eip == run.image.symbols["fault"]
    assert state_of(run.machine.processor) == before, "the host is coupled again"


def state_of(processor: Processor) -> dict[str, int]:
    return processor.registers()


def test_an_answer_of_another_kind_is_refused(engine: str) -> None:
    run = lodging(engine)
    run.guest.on_exit(only(6, lambda _seen: True))  # type: ignore[arg-type, return-value]
    with pytest.raises(HookError, match="returned True"):
        run.run()
    with pytest.raises(ValueError, match="no vector 256"):
        Inject(256)


def test_handlers_come_and_go_at_the_next_exit(engine: str) -> None:
    """One that is added in the middle of an exit isn't asked about that one; one that has gone still is, once."""
    run, order = lodging(engine), []

    def second(seen: Exit) -> None:
        order.append(("second", seen.vector))

    def first(seen: Exit) -> None:
        order.append(("first", seen.vector))
        if seen.vector == 6:
            run.guest.on_exit(second)
        elif seen.vector == 48:
            run.guest.off_exit(first)

    run.guest.on_exit(first)
    run.run_to_end()
    since = order[order.index(("first", 6)) :]
    until = since.index(("first", 48))
    assert ("second", 6) not in order and since[until : until + 2] == [("first", 48), ("second", 48)]
    assert all(name == "second" for name, _ in since[until + 1 :]) and len(since) > until + 2
    with pytest.raises(ValueError):
        run.guest.off_exit(first)


# -- routes ------------------------------------------------------------------------------------


def test_a_vector_routed_to_the_guest_is_nobody_elses_affair(engine: str) -> None:
    run = lodging(engine, plan="mirrored,vector.6=guest")
    asked = []
    run.guest.on_exit(lambda seen: asked.append(seen.vector))
    run.run_to_end()
    assert 6 not in asked and 48 in asked
    assert run.log == lodging_log(engine)


def test_an_event_goes_to_the_host_and_is_reflected_afterwards(engine: str) -> None:
    run = lodging(engine, plan="mirrored,vector.6=host")
    stay = run.run()
    assert stay.leave is Leave.EVENT and stay.event is not None
    assert (stay.event.vector, stay.event.error_code, stay.event.eip) == (6, None, run.image.symbols["fault"])
    assert run.log == []
    run.run_to_end()
    assert run.log == lodging_log(engine)
    assert [event.route for event in run.events if isinstance(event, ExceptionTaken) and event.vector == 6] == [
        "host", "reflect"
    ]  # fmt: skip


@pytest.mark.parametrize("answer, vectors", [
    (None, [6, 48, 13]), (DEFAULT, [6, 48, 13]), (REFLECT, [6, 48, 13]), (HANDLED, [6, 13]),
    (Inject(0), [6, 0, 48, 13]),
])  # fmt: skip
def test_the_host_answers_a_call(engine: str, answer: Answer, vectors: list[int]) -> None:
    """INT 0x30 for the host: whatever it answers, the guest goes on from there."""
    run = lodging(engine)
    run.guest.routes[48] = Provider.HOST
    stay = run.run()
    assert stay.leave is Leave.EVENT and stay.event is not None and stay.event.kind is ExitKind.SOFTWARE
    assert stay.event.eip == run.image.symbols["call48"]
    run.guest.answer_event(answer)
    if isinstance(answer, Inject):  # the guest's handler returns to the same INT 0x30
        assert run.run().leave is Leave.EVENT
    run.run_to_end()
    assert [vector for vector, _, _ in run.log] == vectors
    with pytest.raises(ValueError, match="no event"):
        run.guest.answer_event(None)


PAGING = """
        mov edi, 0x115000               ; 2 MiB one to one
        mov eax, 7
1:      stosd
        add eax, 0x1000
        cmp eax, 0x200000
        jb 1b
        mov dword ptr [0x114000], 0x115007
        mov eax, 0x114000
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80010000
        mov cr0, eax
        mov dword ptr [resume], offset over
        mov ebx, 0x12345678
touch:  mov [ebx], eax
over:   mov eax, [0x150000]
"""


def test_only_the_guests_own_page_faults_go_to_the_host(engine: str) -> None:
    """What the mirror hides stays with the hypervisor, whoever has the vector."""
    run = lodging(engine, PAGING, "mirrored,vector.14=host")
    hidden = []
    run.guest.on_exit(lambda seen: hidden.append(seen.address) if seen.vector == 14 else None)
    stay = run.run()
    assert stay.leave is Leave.EVENT and stay.event is not None
    assert (stay.event.vector, stay.event.error_code, stay.event.address) == (14, 2, 0x1234_5678)
    assert stay.event.eip == run.image.symbols["touch"] and len(hidden) > 1
    run.run_to_end()
    assert run.log == [(14, 2, run.image.symbols["touch"])] and run.guest.cpu.cr2 == 0x1234_5678


def test_routes_change_while_the_guest_runs(engine: str) -> None:
    """A loop of INT 0x30: the route is another one each time."""
    run = lodging(engine, "mov ecx, 6\n1: push ecx\nint 0x30\npop ecx\ndec ecx\njnz 1b")
    asked = []
    run.guest.on_exit(lambda seen: asked.append(seen.vector) if seen.vector == 48 else None)
    run.guest.routes[48] = Provider.HOST
    for provider in (Provider.GUEST, Provider.HOST, Provider.HYPERVISOR):
        assert run.run().leave is Leave.EVENT
        run.guest.answer_event(HANDLED)
        run.guest.routes[48] = provider
        if provider is Provider.GUEST:
            while len(run.log) < 2:
                assert run.run(1).leave is Leave.TIME
            run.guest.routes[48] = Provider.HOST
    run.run_to_end()
    assert 2 <= len(run.log) < 6 and len(asked) >= 3


@pytest.mark.parametrize("vector", [2, 8, 18])
@pytest.mark.parametrize("provider", [Provider.HOST, Provider.GUEST])
def test_what_cannot_be_routed_says_why(vector: int, provider: Provider) -> None:
    with pytest.raises(PlanError, match=f"vector {vector} can't go to the {provider}: "):
        Plan.parse(f"mirrored,vector.{vector}={provider}").check_runnable()
    run = lodging("native")
    with pytest.raises(PlanError):
        run.guest.routes[vector] = provider
    with pytest.raises(PlanError):
        run.guest.routes[256] = provider
    assert set(run.guest.routes.values()) == {Provider.HYPERVISOR}
    Plan.parse("direct,vector.14=guest").check_runnable()
    with pytest.raises(PlanError, match="guest is at ring 0"):
        Plan.parse("direct,vector.14=hypervisor").check_runnable()


@pytest.mark.parametrize("vector", [6, 13, 48])
def test_the_bundled_host_is_told_and_has_the_guest_go_on(vector: int) -> None:
    """Through the run block: the emulation program says that the guest's own handler may have it."""
    image = assemble_text(logging_kernel(BODY))
    run = Run(image, f"mirrored,vector.{vector}=host")
    assert run.error is None and run.status == 0
    routes = [event.route for event in run.events if isinstance(event, ExceptionTaken) and event.vector == vector]
    assert "host" in routes and routes.index("host") + 1 <= len(routes)
    (event,) = [
        event for event in run.events if isinstance(event, Recoupled) and event.reason == "an event for the host"
    ]
    assert not event.temporary
    assert run.words("log", 9)[::3] == [6, 48, 13]
    run.check_the_host_ended_well(worked=False)
