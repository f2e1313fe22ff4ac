"""Running: virtual time and deadlines, HLT, requested stops, planted instructions, what hooks raise."""

from __future__ import annotations

import pytest

from hvproto.processor.engine import UnmappedAccess
from hvproto.processor.processor import Stop
from hvproto.processor.settings import EFLAGS_IF
from tests.support.bench import CODE0, DATA, NEVER, ORIGIN, STUBS, TSS, USER_STACK, Bench
from tests.support.page_tables import LOW_TABLE, identity


class Device:
    """A bus whose accesses do what the test wants."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.reads: list[int] = []
        self.writes: list[tuple[int, int]] = []
        self.action = lambda: None
        bench.cpu.ports = self

    def read(self, port: int, size: int) -> int:
        self.reads.append(self.bench.cpu.now)
        self.action()
        return 0

    def write(self, port: int, size: int, value: int) -> None:
        self.writes.append((value, self.bench.cpu.now))
        self.action()


# -- time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 3])
def test_a_loop_that_never_ends_stops_at_the_deadline(engine: str, level: int) -> None:
    bench = Bench(engine)
    bench.ring(level)
    bench.code("mov eax, 1\nhere: jmp here")
    assert bench.cpu.run(1000) is Stop.DEADLINE
    # Five bytes and two, then two for each turn.
    assert bench.cpu.now == 1001
    assert bench.cpu.eip == bench.symbol("here")
    assert bench.cpu.run(bench.cpu.now + 1) is Stop.DEADLINE
    assert bench.cpu.now == 1003


def test_a_deadline_that_has_passed_executes_nothing(engine: str) -> None:
    bench = Bench(engine)
    bench.code("inc eax\nhlt")
    assert bench.cpu.run(0) is Stop.DEADLINE
    assert (bench.cpu.now, bench.cpu.gpr(0), bench.cpu.eip) == (0, 0, ORIGIN)
    assert bench.cpu.run(1) is Stop.HALT
    assert (bench.cpu.now, bench.cpu.gpr(0)) == (2, 1)


def test_a_block_is_charged_when_it_is_entered(engine: str) -> None:
    bench = Bench(engine)
    device = Device(bench)
    bench.go("nop\nnop\nin al, 0x60\njmp next\nnext: in al, 0x60\nhlt")
    assert device.reads == [6, 9]
    assert bench.cpu.now == 9


def test_string_instructions_take_time_for_each_turn(engine: str) -> None:
    bench = Bench(engine)
    bench.go(f"mov ecx, 100\nmov edi, {DATA}\nrep stosb\nhlt")
    assert bench.cpu.now > 200
    assert bench.cpu.now == _now_of("native", bench) or engine == "native"


def _now_of(engine: str, like: Bench) -> int:
    from hvproto.processor import private_layout

    if private_layout.self_check():
        return like.cpu.now
    bench = Bench(engine)
    bench.go(f"mov ecx, 100\nmov edi, {DATA}\nrep stosb\nhlt")
    return bench.cpu.now


def test_a_long_string_instruction_can_be_interrupted_and_resumed(engine: str) -> None:
    bench = Bench(engine)
    bench.code(f"mov ecx, 1000\nmov edi, {DATA}\nmov al, 0x5a\nat: rep stosb\nhlt")
    stops = 0
    while bench.cpu.run(bench.cpu.now + 50) is Stop.DEADLINE:
        assert bench.cpu.eip == bench.symbol("at")
        stops += 1
    assert stops > 10
    assert bytes(bench.view[DATA : DATA + 1001]) == b"\x5a" * 1000 + b"\0"


def test_advancing_time_never_turns_it_back(engine: str) -> None:
    bench = Bench(engine)
    bench.cpu.advance_to(500)
    bench.cpu.advance_to(100)
    assert bench.cpu.now == 500
    bench.go("nop\nhlt")
    assert bench.cpu.now == 502


def test_halt(engine: str) -> None:
    bench = Bench(engine)
    assert bench.go("hlt\nnext: mov eax, 7\nhlt\nend:") is Stop.HALT
    assert bench.cpu.eip == bench.symbol("next")
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert (bench.cpu.eip, bench.cpu.gpr(0)) == (bench.symbol("end"), 7)


# -- requested stops -------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["out 0x80, al", "in al, 0x80"])
def test_a_stop_requested_by_a_port_comes_with_the_next_block(engine: str, text: str) -> None:
    bench = Bench(engine)
    device = Device(bench)
    device.action = bench.cpu.request_stop
    stop = bench.go(f"{text}\ninc dword ptr [{DATA}]\ninc dword ptr [{DATA}]\njmp next\nnext: mov ebx, 2\nhlt")
    assert stop is Stop.DEADLINE
    assert bench.load(DATA) == (2,)
    assert bench.cpu.eip == bench.symbol("next")
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.cpu.gpr(3) == 2
    assert len(device.reads) + len(device.writes) == 1


def test_a_deadline_brought_forward_by_a_port(engine: str) -> None:
    bench = Bench(engine)
    device = Device(bench)
    device.action = lambda: bench.cpu.limit_run(500)
    assert bench.go("out 0x80, al\nhere: jmp here") is Stop.DEADLINE
    assert 500 <= bench.cpu.now <= 502
    device.action = lambda: bench.cpu.limit_run(NEVER)
    bench.code("out 0x80, al\nhere: jmp here")
    assert bench.cpu.run(800) is Stop.DEADLINE
    assert 800 <= bench.cpu.now <= 802


def test_a_stop_requested_before_halt_doesnt_hide_the_halt(engine: str) -> None:
    bench = Bench(engine)
    Device(bench).action = bench.cpu.request_stop
    assert bench.go("out 0x80, al\nhlt") is Stop.HALT


# -- planted instructions --------------------------------------------------------------------

PLANTED = """
        mov ecx, 3
again:  inc eax
        nop
at:     inc ebx
        inc edx
        dec ecx
        jnz again
        hlt
"""


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("level", [0, 3])
def test_a_planted_instruction_stops_before_it_is_executed(engine: str, before: bool, level: int) -> None:
    bench = Bench(engine)
    bench.code(PLANTED)
    at = bench.symbol("at")
    if not before:
        bench.ring(level)
        bench.cpu.run(NEVER)
        bench.code(PLANTED)
        bench.set(eax=0, ebx=0, edx=0)
    bench.ring(level)
    bench.cpu.engine.plant(at)
    bench.cpu.engine.flush_code()
    hits = []
    armed = True

    def is_trap(address: int) -> bool:
        nonlocal armed
        hits.append(address)
        armed = not armed
        return not armed

    bench.cpu.is_trap = is_trap
    for turn in (1, 2, 3):
        assert bench.cpu.run(NEVER) is Stop.TRAP
        assert (bench.cpu.trapped_at, bench.cpu.eip) == (at, at)
        assert [bench.cpu.gpr(i) for i in (0, 3, 2)] == [turn, turn - 1, turn - 1]
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert hits == [at] * 6


def test_only_the_start_of_an_instruction_counts(engine: str) -> None:
    bench = Bench(engine)
    bench.code("at: mov eax, 0x90909090\nhlt")
    for offset in range(1, 5):
        bench.cpu.engine.plant(bench.symbol("at") + offset)
    bench.cpu.engine.flush_code()
    assert bench.cpu.run(NEVER) is Stop.HALT
    bench.cpu.eip = bench.symbol("at") + 2
    assert bench.cpu.run(NEVER) is Stop.TRAP
    assert bench.cpu.trapped_at == bench.symbol("at") + 2


def test_a_trap_that_is_none_passes_and_costs_no_time(engine: str) -> None:
    times = []
    for planted in (False, True):
        bench = Bench(engine)
        bench.code(PLANTED)
        if planted:
            bench.cpu.is_trap = lambda _address: False
            bench.cpu.engine.plant(bench.symbol("at"))
            bench.cpu.engine.plant(bench.symbol("at"))
        assert bench.cpu.run(NEVER) is Stop.HALT
        times.append((bench.cpu.now, bench.cpu.registers()))
    assert times[0] == times[1]


def test_an_unplanted_instruction_runs_on(engine: str) -> None:
    bench = Bench(engine)
    bench.code(PLANTED)
    bench.cpu.engine.plant(bench.symbol("at"))
    assert bench.cpu.run(NEVER) is Stop.TRAP
    bench.cpu.engine.unplant(bench.symbol("at"))
    bench.cpu.engine.unplant(bench.symbol("at"))
    bench.cpu.engine.flush_code()
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.cpu.gpr(3) == 3


def test_unplanting_needs_no_flush(engine: str) -> None:
    bench = Bench(engine)
    bench.code(PLANTED)
    bench.cpu.engine.plant(bench.symbol("at"))
    assert bench.cpu.run(NEVER) is Stop.TRAP
    bench.cpu.engine.unplant(bench.symbol("at"))
    assert bench.cpu.run(NEVER) is Stop.HALT


def test_planting_anew_while_stopped_at_a_trap(engine: str) -> None:
    """Plants and removals in one stop, as a hypervisor does when the code on a page has changed."""
    bench = Bench(engine)
    bench.code(PLANTED)
    at, again = bench.symbol("at"), bench.symbol("again")
    for turn in range(1, 4):
        bench.cpu.engine.plant(at)
        bench.cpu.engine.flush_code()
        assert bench.cpu.run(NEVER) is Stop.TRAP
        assert (bench.cpu.eip, bench.cpu.gpr(0)) == (at, turn)
        bench.cpu.engine.unplant(at)
        if turn < 3:
            bench.cpu.engine.plant(again)
            bench.cpu.engine.flush_code()
            assert bench.cpu.run(NEVER) is Stop.TRAP
            assert (bench.cpu.eip, bench.cpu.gpr(3)) == (again, turn)
            bench.cpu.engine.unplant(again)
    assert bench.cpu.run(NEVER) is Stop.HALT


def test_a_trap_beats_the_fault_of_its_instruction(engine: str) -> None:
    bench = Bench(engine)
    bench.code("nop\nat: ud2")
    bench.cpu.engine.plant(bench.symbol("at"))
    assert bench.cpu.run(NEVER) is Stop.TRAP
    bench.cpu.is_trap = lambda _address: False
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.arrival().vector == 6


# -- what hooks raise ------------------------------------------------------------------------


class Mishap(Exception):
    pass


def _raise() -> None:
    raise Mishap("from a hook")


@pytest.mark.parametrize("text", ["out 0x80, al", "in al, 0x80", "outsb", "insb"])
@pytest.mark.parametrize("level", [0, 3])
def test_what_a_port_raises_comes_out_and_nothing_runs_twice(engine: str, text: str, level: int) -> None:
    bench = Bench(engine)
    device = Device(bench)
    device.action = _raise
    with pytest.raises(Mishap):
        bench.go(
            f"{text}\ninc dword ptr [{DATA}]\npush eax\ninc dword ptr [{DATA}]\njmp next\nnext: inc ebx\nint 0x40",
            level, esi=DATA, edi=DATA + 8, eflags=2 | 3 << 12,
        )  # fmt: skip
    device.action = lambda: None
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.arrival().vector == 0x40
    assert bench.load(DATA) == (2,)
    assert bench.cpu.gpr(3) == 1
    assert len(device.reads) + len(device.writes) == 1


def test_what_a_protected_store_raises_comes_out_after_the_store(engine: str) -> None:
    bench = Bench(engine)
    bench.cpu.engine.protect(DATA, 0x1000, on=True)

    def fail(_physical: int, _size: int) -> None:
        raise Mishap("from the monitor")

    bench.cpu.on_protected_store = fail
    with pytest.raises(Mishap):
        bench.go(f"mov esp, {DATA} + 0x100\npush 5\ninc ebx\njmp next\nnext: add dword ptr [{DATA} + 0xfc], 2\nhlt")
    bench.cpu.on_protected_store = None
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.load(DATA + 0xFC) == (7,)
    assert bench.cpu.esp == DATA + 0xFC
    assert bench.cpu.gpr(3) == 1


def test_what_is_trap_raises_comes_out_before_the_instruction(engine: str) -> None:
    bench = Bench(engine)
    bench.code(PLANTED)
    bench.cpu.engine.plant(bench.symbol("at"))

    def fail(_address: int) -> bool:
        raise Mishap("from the trap")

    bench.cpu.is_trap = fail
    with pytest.raises(Mishap):
        bench.cpu.run(NEVER)
    assert bench.cpu.eip == bench.symbol("at")
    bench.cpu.is_trap = lambda _address: False
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.cpu.gpr(3) == 3


def test_the_first_of_several_exceptions_counts(engine: str) -> None:
    bench = Bench(engine)
    device = Device(bench)
    count = iter(range(10))

    def fail() -> None:
        raise Mishap(next(count))

    device.action = fail
    with pytest.raises(Mishap, match="0"):
        bench.go("out 0x80, al\nout 0x80, al\nin al, 0x60\nhlt")


def test_ctrl_c_in_a_hook_comes_out(engine: str) -> None:
    bench = Bench(engine)

    def interrupt() -> None:
        raise KeyboardInterrupt

    Device(bench).action = interrupt
    with pytest.raises(KeyboardInterrupt):
        bench.go("out 0x80, al\nhere: jmp here")


# -- memory that isn't there -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"), [("mov eax, [0xfee00000]", "read"), ("mov [0xfee00000], eax", "write"),
                       ("mov eax, 0xfee00000\njmp eax", "instruction fetch")],
)  # fmt: skip
@pytest.mark.parametrize("level", [0, 3])
def test_missing_memory(engine: str, text: str, kind: str, level: int) -> None:
    bench = Bench(engine)
    with pytest.raises(UnmappedAccess) as caught:
        bench.go(f"nop\nat: {text}\nnop", level)
    assert (caught.value.kind, caught.value.physical) == (kind, 0xFEE00000)
    assert bench.cpu.eip == (0xFEE00000 if "fetch" in kind else bench.symbol("at"))
    # It is usable afterwards.
    assert bench.provoke("ud2", level).vector == 6


@pytest.mark.parametrize("what", ["IDT", "stack", "TSS"])
def test_missing_memory_during_delivery(engine: str, what: str) -> None:
    bench = Bench(engine)
    identity(bench)
    page = {"IDT": 0x2000, "stack": 0x8000, "TSS": TSS}[what]
    bench.store(LOW_TABLE + 4 * (page >> 12), 0xC000_0007)
    with pytest.raises(UnmappedAccess) as caught:
        bench.go("ud2", 3)
    assert caught.value.physical >> 12 == 0xC0000
    assert caught.value.kind == ("write" if what == "stack" else "read")
    bench.store(LOW_TABLE + 4 * (page >> 12), page | 7)
    bench.cpu.engine.flush_tlb()
    assert bench.provoke("ud2", 3).vector == 6


def test_missing_memory_for_an_interrupt_from_outside(engine: str) -> None:
    bench = Bench(engine)
    identity(bench)
    bench.ring(3)
    bench.store(LOW_TABLE + 4 * 8, 0xC000_0007)
    bench.cpu.engine.flush_tlb()
    with pytest.raises(UnmappedAccess):
        bench.cpu.interrupt(0x30)


# -- interrupts from outside -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shadow"), [("sti", True), ("mov ss, eax", True), ("push ss\npop ss", True), ("nop", False),
                         ("pushfd\npopfd", False), ("cli", False)],
)  # fmt: skip
def test_the_interrupt_shadow(engine: str, text: str, shadow: bool) -> None:
    bench = Bench(engine)
    bench.code(f"{text}\nat: jmp next\nnext: jmp next")
    bench.set(eax=0x10)
    bench.cpu.run(1)
    if bench.cpu.eip != bench.symbol("at"):
        assert not shadow
        return
    assert bench.cpu.in_interrupt_shadow is shadow
    bench.cpu.run(bench.cpu.now + 1)
    assert not bench.cpu.in_interrupt_shadow


def test_an_interrupt_and_its_return_resume_exactly(engine: str) -> None:
    """Interrupts after every block of a program change nothing in what it computes."""
    program = f"""
        mov ecx, 50
        again: lea eax, [eax*2 + ecx]
        push eax
        adc [{DATA}], eax
        pop ebx
        loop again
        int 0x40
    """
    results = []
    for interrupted in (False, True):
        bench = Bench(engine)
        bench.view[STUBS + 16 * 0x30 : STUBS + 16 * 0x30 + 2] = b"\xcf\x90"  # iret
        bench.ring(3)
        bench.code(program)
        bench.cpu.eflags = 2 | EFLAGS_IF
        while bench.cpu.run(bench.cpu.now + 1 if interrupted else NEVER) is Stop.DEADLINE:
            bench.cpu.interrupt(0x30)
            bench.cpu.run(bench.cpu.now + 1)
        registers = bench.cpu.registers()
        results.append((registers, bench.load(DATA), bench.arrival(), bench.load(USER_STACK - 16, 4)))
    assert results[0] == results[1]
    assert bench.cpu.code.selector == CODE0
