"""The local APIC through its page of registers; priorities and the timer against small models."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.machine.clock import Clock
from hvproto.machine.lapic import LocalApic

ID, VERSION, TPR, APR, PPR, EOI, LDR, DFR, SVR = 0x20, 0x30, 0x80, 0x90, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0
ISR, TMR, IRR, ESR, ICR, ICR_HIGH = 0x100, 0x180, 0x200, 0x280, 0x300, 0x310
LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR = range(0x320, 0x380, 0x10)
INITIAL, CURRENT, DIVIDE = 0x380, 0x390, 0x3E0
MASKED = 0x10000


class Bench:
    def __init__(self, enable: bool = True) -> None:
        self.cycle = 0
        self.clock = Clock(lambda: self.cycle)
        self.pending: list[int | None] = []
        self.nmis = 0
        self.ends: list[int] = []
        self.apic = LocalApic(
            self.clock, lambda: self.pending.append(self.apic.pending()), self.on_nmi, self.ends.append
        )
        if enable:
            self.write(SVR, 0x1FF)
            self.pending.clear()

    def on_nmi(self) -> None:
        self.nmis += 1

    def read(self, register: int) -> int:
        return self.apic.read_mmio(register, 4)

    def write(self, register: int, value: int) -> None:
        self.apic.write_mmio(register, 4, value)

    def vectors(self, register: int) -> list[int]:
        words = [self.read(register + 0x10 * n) for n in range(8)]
        return [32 * n + bit for n, word in enumerate(words) for bit in range(32) if word >> bit & 1]

    def run_to(self, cycle: int) -> list[int]:
        """Let time pass, event by event, taking and ending every interrupt: the cycles of them all."""
        taken = []
        while True:
            event = self.clock.next_event()
            self.cycle = cycle if event is None else max(self.cycle, min(event, cycle))
            self.clock.run_due()
            if self.apic.pending() is not None:
                self.apic.acknowledge()
                self.write(EOI, 0)
                taken.append(self.cycle)
            if self.cycle >= cycle:
                return taken


def test_after_reset_it_is_present_and_disabled() -> None:
    bench = Bench(enable=False)
    assert bench.apic.present
    assert not bench.apic.enabled
    assert bench.apic.apic_base == 0xFEE0_0900
    assert (bench.read(ID), bench.read(VERSION), bench.read(SVR)) == (0, 0x50014, 0xFF)
    assert (bench.read(DFR), bench.read(LDR), bench.read(TPR), bench.read(DIVIDE)) == (0xFFFF_FFFF, 0, 0, 0)
    assert [bench.read(entry) for entry in range(0x320, 0x380, 0x10)] == [MASKED] * 6
    assert not bench.apic.accept(0x40, False)
    assert bench.vectors(IRR) == []
    assert bench.apic.acknowledge() == 0xFF


def test_lvt_entries_stay_masked_while_disabled() -> None:
    bench = Bench(enable=False)
    bench.write(LVT_LINT0, 0x700)
    assert bench.read(LVT_LINT0) == 0x10700
    assert not bench.apic.takes_ext_int
    bench.write(SVR, 0x1FF)
    assert bench.read(LVT_LINT0) == 0x10700
    bench.write(LVT_LINT0, 0x700)
    assert bench.apic.takes_ext_int
    bench.write(SVR, 0xFF)
    assert bench.read(LVT_LINT0) == 0x10700
    assert not bench.apic.takes_ext_int


def test_registers_have_the_writable_bits_of_the_manual() -> None:
    bench = Bench()
    for register in (ID, TPR, LDR, DFR, SVR, LVT_TIMER, LVT_THERMAL, LVT_LINT0, LVT_ERROR, DIVIDE, ICR_HIGH):
        bench.write(register, 0xFFFF_FFFF)
    assert bench.read(ID) == bench.read(LDR) == bench.read(ICR_HIGH) == 0xFF00_0000
    assert (bench.read(TPR), bench.read(SVR), bench.read(DIVIDE)) == (0xFF, 0x3FF, 0b1011)
    assert (bench.read(LVT_TIMER), bench.read(LVT_THERMAL)) == (0x700FF, 0x107FF)
    assert (bench.read(LVT_LINT0), bench.read(LVT_ERROR)) == (0x1A7FF, 0x100FF)
    bench.write(DFR, 0)
    assert bench.read(DFR) == 0x0FFF_FFFF
    for register in (VERSION, APR, PPR, CURRENT, ISR, TMR + 0x10, IRR + 0x70):
        before = bench.read(register)
        bench.write(register, ~before)
        assert bench.read(register) == before
    bench.write(ESR, 0)
    assert bench.read(ESR) == 0


def test_small_and_unaligned_accesses() -> None:
    bench = Bench()
    bench.write(ID, 0x0500_0000)
    assert bench.apic.read_mmio(ID + 3, 1) == 5
    assert bench.apic.read_mmio(ID + 2, 2) == 0x500
    assert bench.apic.read_mmio(ID, 8) == 0x0500_0000
    assert bench.apic.read_mmio(ID + 4, 4) == 0
    for offset, size in ((ID, 1), (ID, 2), (ID, 8), (ID + 4, 4)):
        bench.apic.write_mmio(offset, size, 0)
    assert bench.read(ID) == 0x0500_0000


def test_request_service_end() -> None:
    bench = Bench()
    assert bench.apic.accept(0x41, False)
    assert bench.apic.accept(0x55, True)
    assert (bench.vectors(IRR), bench.vectors(ISR), bench.vectors(TMR)) == ([0x41, 0x55], [], [0x55])
    assert bench.apic.pending() == 0x55
    assert bench.apic.acknowledge() == 0x55
    assert (bench.vectors(IRR), bench.vectors(ISR)) == ([0x41], [0x55])
    assert (bench.read(PPR), bench.read(APR)) == (0x50, 0x50)
    assert bench.apic.pending() is None
    bench.write(EOI, 0)
    assert bench.ends == [0x55]
    assert bench.apic.acknowledge() == 0x41
    bench.write(EOI, 0)
    assert bench.ends == [0x55]  # an edge isn't broadcast
    bench.write(EOI, 0)  # nothing in service: nothing happens
    assert bench.pending == [0x41, 0x55, None, 0x41, None]


def test_task_priority_holds_back_its_class() -> None:
    bench = Bench()
    bench.write(TPR, 0x40)
    bench.apic.accept(0x4F, False)
    assert bench.apic.pending() is None
    assert bench.read(PPR) == 0x40
    bench.write(TPR, 0x3F)
    assert bench.apic.pending() == 0x4F
    bench.apic.task_priority = 0xF0
    assert bench.apic.pending() is None
    assert bench.apic.acknowledge() == 0xFF  # spurious
    assert bench.vectors(ISR) == []


def test_what_is_in_service_is_left_when_it_is_disabled() -> None:
    bench = Bench()
    bench.apic.accept(0x40, False)
    bench.write(SVR, 0xFF)
    assert bench.apic.pending() == 0x40  # held, says the manual
    assert not bench.apic.accept(0x50, False)
    assert bench.apic.acknowledge() == 0x40
    assert bench.vectors(ISR) == [0x40]


@pytest.mark.parametrize(
    ("high", "low", "arrives"),
    [
        (0x0000_0000, 0x0_4040, True),  # physical, to ID 0
        (0x0100_0000, 0x0_4040, False),
        (0xFF00_0000, 0x0_4040, True),  # to everybody
        (0x0200_0000, 0x0_4840, True),  # logical, flat: LDR is 2
        (0x0D00_0000, 0x0_4840, False),
        (0x0300_0000, 0x0_4940, True),  # lowest priority
        (0x0100_0000, 0x4_4040, True),  # self
        (0x0100_0000, 0x8_4040, True),  # all including self
        (0x0000_0000, 0xC_4040, False),  # all but self
        (0x0000_0000, 0x0_4540, False),  # INIT
        (0x0000_0000, 0x0_4640, False),  # startup
        (0x0000_0000, 0x0_4240, False),  # SMI
    ],
)
def test_messages_to_itself(high: int, low: int, arrives: bool) -> None:
    bench = Bench()
    bench.write(LDR, 0x0200_0000)
    bench.write(ICR_HIGH, high)
    bench.write(ICR, low | 1 << 12)
    assert bench.read(ICR) == low
    assert bench.vectors(IRR) == ([0x40] if arrives else [])
    assert bench.nmis == 0
    bench.write(ICR, low & ~0x700 | 0x400)
    assert bench.nmis == (arrives or low & 0x700 > 0x100)


def test_logical_destinations_of_clusters() -> None:
    bench = Bench()
    bench.write(DFR, 0)
    bench.write(LDR, 0x3200_0000)
    assert [d for d in range(256) if bench.apic.matches(d, True)] == sorted(
        [d for d in range(256) if d >> 4 in (3, 15) and d & 2]
    )


def test_errors_are_shown_by_a_write_and_interrupt_once() -> None:
    bench = Bench()
    bench.write(LVT_ERROR, 0xE0)
    bench.write(ICR, 0x4_400F)  # sends a vector below 16
    assert bench.apic.pending() == 0xE0
    assert bench.read(ESR) == 0
    assert not bench.apic.accept(15, False)
    assert bench.apic.acknowledge() == 0xE0
    bench.write(EOI, 0)
    bench.read(0x40)  # no such register
    assert bench.apic.pending() is None
    bench.write(ESR, 0)
    assert bench.read(ESR) == 0xE0
    bench.write(0x3F0, 0)
    assert bench.apic.pending() == 0xE0
    bench.write(ESR, 0)
    assert bench.read(ESR) == 0x80
    bench.write(ESR, 0)
    assert bench.read(ESR) == 0


def test_an_error_vector_that_is_itself_illegal_ends() -> None:
    bench = Bench()
    bench.write(LVT_ERROR, 0)
    bench.read(0x40)
    bench.write(ESR, 0)
    assert bench.read(ESR) == 0xC0


def test_pins_with_edges() -> None:
    bench = Bench()
    bench.write(LVT_LINT0, 0x31)
    bench.write(LVT_LINT1, 0x400)
    for _ in range(2):
        bench.apic.set_pin(0, True)
        bench.apic.set_pin(1, True)
    assert (bench.vectors(IRR), bench.nmis) == ([0x31], 1)
    bench.apic.set_pin(1, False)
    bench.write(LVT_LINT1, 0x10400)
    bench.apic.set_pin(1, True)
    assert bench.nmis == 1
    bench.write(LVT_LINT1, 0x700)
    bench.apic.set_pin(1, False)
    bench.apic.set_pin(1, True)
    assert (bench.vectors(IRR), bench.nmis) == ([0x31], 1)


def test_lint0_with_a_level() -> None:
    bench = Bench()
    bench.apic.set_pin(0, True)
    bench.write(LVT_LINT0, 0x8031)
    assert bench.read(LVT_LINT0) == 0xC031
    assert bench.vectors(TMR) == [0x31]
    assert bench.apic.acknowledge() == 0x31
    assert bench.apic.pending() is None
    bench.write(EOI, 0)
    assert bench.apic.acknowledge() == 0x31
    bench.apic.set_pin(0, False)
    bench.write(EOI, 0)
    assert bench.read(LVT_LINT0) == 0x8031
    assert bench.apic.pending() is None


def test_apic_base() -> None:
    bench = Bench()
    for bad in (0xFEE0_0D00, 0xFEE0_0901, 1 << 36 | 0x900):
        with pytest.raises(ValueError, match="IA32_APIC_BASE"):
            bench.apic.apic_base = bad
    bench.apic.apic_base = 0xFED0_0900
    assert bench.apic.base == 0xFED0_0000
    assert bench.apic.enabled
    bench.apic.accept(0x40, False)
    bench.apic.apic_base = 0xFEE0_0100
    assert not bench.apic.present
    assert not bench.apic.enabled
    assert bench.apic.pending() is None
    bench.apic.set_pin(1, True)
    assert bench.nmis == 1
    bench.apic.apic_base = 0xFEE0_0900
    assert bench.read(SVR) == 0xFF


def test_reset() -> None:
    bench = Bench()
    bench.apic.apic_base = 0xFED0_0900
    bench.write(LVT_TIMER, 0x20040)
    bench.write(INITIAL, 10)
    bench.write(ID, 0x0300_0000)
    bench.apic.accept(0x40, False)
    bench.apic.reset()
    assert bench.pending[-1] is None
    assert (bench.apic.apic_base, bench.read(ID), bench.read(SVR), bench.vectors(IRR)) == (0xFEE0_0900, 0, 0xFF, [])
    assert bench.clock.next_event() is None


# -- the timer ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("divide", "ticks"), [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)])
def test_one_shot(divide: int, ticks: int) -> None:
    bench = Bench()
    bench.cycle = 1000
    bench.write(LVT_TIMER, 0x40)
    bench.write(DIVIDE, divide)
    bench.write(INITIAL, 10)
    assert (bench.read(CURRENT), bench.read(INITIAL)) == (10, 10)
    bench.cycle += 3 * ticks
    assert bench.read(CURRENT) == 7
    assert bench.run_to(10_000) == [1000 + 10 * ticks]
    assert (bench.read(CURRENT), bench.read(INITIAL)) == (0, 10)


def test_periodic_until_it_is_stopped() -> None:
    bench = Bench()
    bench.write(LVT_TIMER, 0x20040)
    bench.write(DIVIDE, 11)
    bench.write(INITIAL, 300)
    assert bench.run_to(1000) == [300, 600, 900]
    assert bench.read(CURRENT) == 200
    bench.write(INITIAL, 0)
    assert bench.run_to(5000) == []
    assert bench.read(CURRENT) == 0


def test_a_masked_timer_counts_and_plans_nothing() -> None:
    bench = Bench()
    bench.write(LVT_TIMER, 0x30040)
    bench.write(DIVIDE, 11)
    bench.write(INITIAL, 300)
    assert bench.clock.next_event() is None
    bench.cycle = 700
    assert bench.read(CURRENT) == 200
    bench.write(LVT_TIMER, 0x20040)
    assert bench.apic.pending() is None
    assert bench.run_to(1000) == [900]


def test_what_expired_before_the_mask_has_been_requested() -> None:
    for entry, register in ((MASKED | 0x40, LVT_TIMER), (0xFF, SVR)):
        bench = Bench()
        bench.write(LVT_TIMER, 0x40)
        bench.write(INITIAL, 10)
        bench.cycle = 25  # in the middle of a run, with the event overdue
        bench.write(register, entry)
        assert bench.vectors(IRR) == [0x40]
        assert bench.clock.run_due() == 0


def test_the_divisor_keeps_the_count() -> None:
    bench = Bench()
    bench.write(LVT_TIMER, 0x40)
    bench.write(DIVIDE, 11)
    bench.write(INITIAL, 100)
    bench.cycle = 40
    bench.write(DIVIDE, 0)
    assert bench.read(CURRENT) == 60
    assert bench.run_to(1000) == [160]


def test_deadline() -> None:
    bench = Bench()
    bench.apic.timer.deadline = 50
    assert bench.apic.timer.deadline == 0  # another mode
    bench.write(LVT_TIMER, 0x40040)
    bench.apic.timer.deadline = 500
    bench.write(INITIAL, 7)
    assert (bench.apic.timer.deadline, bench.read(CURRENT), bench.read(INITIAL)) == (500, 0, 0)
    assert bench.run_to(1000) == [500]
    assert bench.apic.timer.deadline == 0
    bench.apic.timer.deadline = 400  # in the past
    assert bench.run_to(1001) == [1000]
    bench.apic.timer.deadline = 2000
    bench.write(LVT_TIMER, 0x40)
    assert bench.run_to(3000) == []


class TimerModel:
    """Tick by tick: one cycle at a time."""

    def __init__(self) -> None:
        self.initial = self.current = self.prescaler = 0
        self.periodic, self.masked, self.divisor = False, True, 1
        self.expired = 0

    def cycle(self) -> None:
        if not self.current:
            return
        self.prescaler += 1
        if self.prescaler == self.divisor:
            self.prescaler = 0
            self.current -= 1
            if not self.current:
                self.expired += not self.masked
                self.current = self.initial if self.periodic else 0


TIMER_OPERATION = st.one_of(
    st.tuples(st.just("wait"), st.integers(1, 60)),
    st.tuples(st.just("wait"), st.integers(1, 60)),
    st.tuples(st.just("initial"), st.integers(0, 12)),
    st.tuples(st.just("mode"), st.integers(0, 3)),
    st.tuples(st.just("divide"), st.sampled_from([0, 1, 11])),
)


@given(st.lists(TIMER_OPERATION, max_size=40), st.booleans())
def test_the_timer_is_the_models(operations: list[tuple[str, int]], prompt: bool) -> None:
    """With events on time every expiry is noticed; without, those of one stretch of time come as one."""
    bench, model = Bench(), TimerModel()
    bench.write(DIVIDE, 11)
    taken = 0
    for name, argument in operations:
        match name:
            case "wait":
                before = model.expired
                for _ in range(argument):
                    model.cycle()
                if prompt:
                    taken += len(bench.run_to(bench.cycle + argument))
                    assert taken == model.expired
                else:
                    bench.cycle += argument
                    bench.clock.run_due()
                    assert (bench.apic.pending() is not None) == (model.expired > before)
                    bench.apic.acknowledge()
                    bench.write(EOI, 0)
            case "initial":
                bench.write(INITIAL, argument)
                model.initial = model.current = argument
                model.prescaler = 0
            case "mode":
                bench.write(LVT_TIMER, 0x40 | argument << 16)
                model.masked, model.periodic = bool(argument & 1), bool(argument & 2)
            case "divide":
                bench.write(DIVIDE, argument)
                model.divisor = {0: 2, 1: 4, 11: 1}[argument]
                model.prescaler = 0
        assert bench.read(CURRENT) == model.current


# -- priorities ---------------------------------------------------------------------------------------------------------

OPERATION = st.one_of(
    st.tuples(st.just("accept"), st.integers(16, 255)),
    st.tuples(st.just("accept"), st.integers(16, 255)),
    st.tuples(st.just("level"), st.integers(16, 255)),
    st.tuples(st.just("take"), st.just(0)),
    st.tuples(st.just("take"), st.just(0)),
    st.tuples(st.just("end"), st.just(0)),
    st.tuples(st.just("task"), st.integers(0, 255)),
)


@given(st.lists(OPERATION, max_size=60))
def test_priorities_are_the_models(operations: list[tuple[str, int]]) -> None:
    bench = Bench()
    asking, served, levels, ends, task = set[int](), list[int](), set[int](), list[int](), 0
    for name, vector in operations:
        limit = max([task >> 4, *(v >> 4 for v in served)])
        wanted = [v for v in asking if v >> 4 > limit]
        match name:
            case "accept" | "level":
                assert bench.apic.accept(vector, name == "level")
                asking.add(vector)
                (levels.add if name == "level" else levels.discard)(vector)
            case "take":
                assert bench.apic.acknowledge() == (max(wanted) if wanted else 0xFF)
                if wanted:
                    asking.remove(max(wanted))
                    served.append(max(wanted))
            case "end":
                bench.write(EOI, 0)
                if served and (ended := served.pop()) in levels:  # services are nested, the last is the most urgent
                    ends.append(ended)
            case "task":
                bench.write(TPR, vector)
                task = vector
        assert (bench.vectors(IRR), bench.vectors(ISR)) == (sorted(asking), sorted(served))
        assert bench.vectors(TMR) == sorted(levels)
        assert bench.ends == ends
        limit = max([task >> 4, *(v >> 4 for v in served)])
        assert bench.apic.pending() == max((v for v in asking if v >> 4 > limit), default=None)
        assert bench.read(PPR) >> 4 == limit


@given(
    st.lists(st.tuples(st.integers(0, 0xFFF), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**32 - 1)), max_size=60)
)
def test_no_sequence_of_accesses_breaks_it(accesses: list[tuple[int, int, int]]) -> None:
    bench = Bench()
    for offset, size, value in accesses:
        assert 0 <= bench.apic.read_mmio(offset, size) < 1 << 8 * size
        bench.apic.write_mmio(offset & ~0xF, 4, value)
        bench.apic.write_mmio(offset, size, value)
        bench.cycle += value % 1000
        bench.clock.run_due()
        bench.apic.set_pin(value & 1, bool(value & 2))
        assert 0 <= bench.apic.acknowledge() <= 255
