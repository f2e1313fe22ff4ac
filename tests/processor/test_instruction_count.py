"""Instructions are counted as they begin: by the engine's own code, by blocks in Python, and, to compare, one by one."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvproto.bundled import kernel_path
from hvproto.hypervisor.guest import Guest
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.images.load import load_image
from hvproto.processor.counted_blocks import starts_of
from hvproto.processor.native import NativeEngine
from hvproto.processor.private_layout import ENV_NUMBER
from hvproto.processor.processor import Processor, Stop
from hvproto.processor.settings import CR0_ET, CR0_PE, CR0_PG, Setting
from hvproto.testing import Assembler, BareMachine, Hv
from tests.processor.test_differential import ALLOWANCE, history
from tests.support.bench import DATA, NEVER, Bench
from tests.support.page_tables import CR3, LOW_TABLE, identity
from tests.support.random_programs import programs

SLICES = st.lists(st.sampled_from((1, 2, 7, 50, 1000, ALLOWANCE)), min_size=1, max_size=4)
random_runs = given(slots=programs, slices=SLICES, interrupts=st.booleans())
often = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class OneByOne:
    """The count by a call at each instruction, and what the processor says at the same moment."""

    def __init__(self, cpu: Processor) -> None:
        self.cpu = cpu
        self.count = 0
        self.differences: list[tuple[int, int, int]] = []
        self._last = -1
        cpu.engine.hear_code(self._begins)
        cpu.count_instructions()

    def _begins(self, address: int, size: int) -> None:
        is_next_round = address == self._last and starts_of(self.cpu.peek_some(address, size), self.cpu.decoder_mode)[1]
        self.count += not is_next_round
        self._last = address
        if self.count != self.cpu.instructions:
            self.differences.append((address, self.count, self.cpu.instructions))

    def check(self) -> None:
        assert self.count > 0
        assert not self.differences
        assert self.count == self.cpu.instructions


def _count(bench: Bench) -> None:
    bench.cpu.count_instructions()


def _count_by_hook(bench: Bench) -> None:
    assert isinstance(bench.cpu.engine, NativeEngine)
    bench.cpu.engine.charge_by_hook(True)
    bench.cpu.count_instructions()


# -- random programs -------------------------------------------------------------------------


@often
@random_runs
def test_it_is_the_count_by_a_call_at_each_instruction(slots: list[bytes], slices: list[int], interrupts: bool) -> None:
    counters = []
    history("native", slots, slices, interrupts, changed=lambda bench: counters.append(OneByOne(bench.cpu)))
    counters[0].check()


@often
@random_runs
def test_both_engines_count_alike(
    both_engines: tuple[str, str], slots: list[bytes], slices: list[int], interrupts: bool
) -> None:
    (native, _), (portable, _) = (history(name, slots, slices, interrupts, changed=_count) for name in both_engines)
    assert native == portable


def _without_count(seen: list[object]) -> list[object]:
    """Stops and what can be seen there, but for the count."""
    return [(*one[:2], *one[3:]) if isinstance(one, tuple) and isinstance(one[0], Stop) else one for one in seen]


@often
@given(slots=programs, slices=SLICES)
def test_counting_changes_nothing(engine: str, slots: list[bytes], slices: list[int]) -> None:
    """The same stops at the same time: blocks are what they were."""
    without, bench = history(engine, slots, slices, False)
    counted, other = history(engine, slots, slices, False, changed=_count)
    assert _without_count(without) == _without_count(counted)
    assert bytes(bench.view) == bytes(other.view)
    assert bench.cpu.instructions == 0 < other.cpu.instructions


@often
@random_runs
def test_whoever_charges_the_blocks_the_count_is_the_same(
    slots: list[bytes], slices: list[int], interrupts: bool
) -> None:
    inline, _ = history("native", slots, slices, interrupts, changed=_count)
    called, _ = history("native", slots, slices, interrupts, changed=_count_by_hook)
    assert inline == called


@settings(often, max_examples=20)
@random_runs
def test_the_engine_has_no_use_for_the_words_before_its_state(
    slots: list[bytes], slices: list[int], interrupts: bool
) -> None:
    words = []

    def mark(bench: Bench) -> None:
        assert isinstance(bench.cpu.engine, NativeEngine)
        place = bench.cpu.engine.state_address + ENV_NUMBER
        words.append((ctypes.c_uint8 * 12).from_address(place))
        words[0][:] = range(100, 112)

    history("native", slots, slices, interrupts, changed=mark)
    assert list(words[0]) == list(range(100, 112))


# -- one program each ------------------------------------------------------------------------

PROGRAMS = {
    "a row": ("mov eax, 1\nnop\nhlt", 3),
    "a loop": ("mov ecx, 1000\nagain: dec ecx\njnz again\nhlt", 2002),
    "a loop of one": ("mov ecx, 1000\nagain: loop again\nhlt", 1002),
    "back into the middle": ("mov ecx, 10\nnop\nagain: dec ecx\njnz again\nhlt", 23),
    "REP": (f"mov ecx, 1000\nmov edi, {DATA}\nrep stosb\nhlt", 4),
    "REP by itself": (f"mov ecx, 9\nmov edi, {DATA}\njmp on\non: rep stosb\nhlt", 5),
    "REP with no round": ("xor ecx, ecx\nrep movsb\nhlt", 3),
    "REPNE that finds": (f"mov ecx, 9\nmov edi, {DATA}\nmov byte ptr [edi + 4], 5\nmov al, 5\nrepne scasb\nhlt", 6),
    "REP again and again": (f"mov ebx, 5\nmov edi, {DATA}\non: mov ecx, ebx\nrep stosd\ndec ebx\njnz on\nhlt", 23),
    "REP right before itself": (f"mov ecx, 9\nmov edi, {DATA}\nrep stosb\nrep stosb\nhlt", 5),
    "two prefixes": (f"mov ecx, 9\nmov edi, {DATA}\n.byte 0x66, 0xf3, 0xab\nhlt", 4),
    "no string": (".byte 0xf3, 0x90, 0xf3, 0x90\nhlt", 3),
    "an interrupt": ("nop\nint 0x30\nnop", 3),
    "a fault in the middle": ("nop\nxor ecx, ecx\ndiv ecx\nnop\nnop\nhlt", 4),
    "an invalid one": ("nop\nud2\nnop", 3),
    "its own block": ("mov bl, 0x90\nmov [on], bl\nnop\non: nop\nnop\nhlt", 6),
    "its own block, in a loop": ("mov ecx, 3\nmov bl, 0x90\non: mov [it], bl\nnop\nit: nop\ndec ecx\njnz on\nhlt", 18),
    "performed in Python": ("mov ecx, 0x174\nrdmsr\ncpuid\nmov eax, cr0\nmov cr0, eax\nhlt", 6),
    "far": ("nop\njmp 0x08:on\nnop\non: hlt", 3),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program(engine: str, name: str) -> None:
    """With HLT, or that of the stub in which it ends."""
    text, count = PROGRAMS[name]
    bench = Bench(engine)
    bench.cpu.count_instructions()
    assert bench.go(text) is Stop.HALT
    assert bench.cpu.instructions == count
    assert bench.go_again() is Stop.HALT
    assert bench.cpu.instructions == 2 * count, "all of it is translated already"


def test_a_program_that_stops_at_every_block(engine: str) -> None:
    """... and in the middle of a REP, which goes on as the same instruction."""
    bench = Bench(engine)
    bench.cpu.count_instructions()
    bench.code(f"mov edx, 3\non: mov ecx, 5\nmov edi, {DATA}\nrep stosb\ndec edx\njnz on\nhlt")
    stops = 0
    while bench.cpu.run(bench.cpu.now + 1) is not Stop.HALT:
        stops += 1
    assert stops > 3 * 5
    assert bench.cpu.instructions == 1 + 3 * 5 + 1


def test_what_faults_counts_and_counts_again_when_it_is_begun_anew(engine: str) -> None:
    """A REP whose fourth round faults; the handler of five instructions goes back to it."""
    bench = Bench(engine)
    identity(bench)
    bench.store(LOW_TABLE + 4 * 0x15, 0)
    bench.cpu.write_setting(Setting.CR3, CR3)
    bench.cpu.write_setting(Setting.CR0, CR0_PE | CR0_ET | CR0_PG)
    bench.cpu.count_instructions()
    bench.ring(0)
    bench.code(f"""
        mov edi, 0x14ffd
        mov ecx, 8
        rep stosb
        hlt
    handler: add esp, 4
        mov dword ptr [{LOW_TABLE + 4 * 0x15}], 0x15003
        invlpg [0x15000]
        iretd
    """)
    bench.gate(14, target=bench.symbol("handler"))
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.cpu.gpr(1) == 0 and bench.cpu.gpr(7) == 0x15005
    assert bench.cpu.instructions == 3 + 4 + 1 + 1


def test_a_store_that_has_to_be_the_last_of_its_run_counts_once(engine: str) -> None:
    """The engine leaves it, and it is executed alone: MOV, and each second round of a REP."""
    bench = Bench(engine)
    bench.cpu.engine.protect(0x15000, 0x1000, on=True)
    bench.cpu.is_urgent = lambda physical, _size: physical & 1 == 0
    bench.cpu.count_instructions()
    assert bench.go("nop\nmov [0x15000], al\nnop\nmov edi, 0x15010\nmov ecx, 6\nrep stosb\nhlt") is Stop.HALT
    assert bench.cpu.gpr(7) == 0x15016
    assert bench.cpu.instructions == 7


def test_a_fault_that_might_be_a_later_instructions_counts_once(engine: str) -> None:
    """Data at the beginning of the page behind the code's: the engine might have meant code there."""
    bench = Bench(engine)
    identity(bench)
    bench.store(LOW_TABLE + 4 * 0x21, 0)
    bench.cpu.write_setting(Setting.CR3, CR3)
    bench.cpu.write_setting(Setting.CR0, CR0_PE | CR0_ET | CR0_PG)
    bench.cpu.count_instructions()
    arrival = bench.provoke("nop\nnop\nmov eax, [0x21000]\nnop")
    assert arrival.vector == 14
    assert bench.cpu.instructions == 3 + 1
    bench.ring(0)
    bench.code("jmp there\nthere: jmp there", origin=0x20FFE - 2)
    bench.view[0x20FFE:0x21000] = b"\x90\x66"  # NOP, and the beginning of an instruction that goes on over there
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.arrival().vector == 14 and bench.cpu.cr2 == 0x21000
    assert bench.cpu.instructions == 4 + 2 + 1, "what couldn't be fetched, hasn't begun"
    bench.ring(0)
    bench.view[0x20FFB:0x21000] = b"\xb8\x90\x90\x90\x66"  # MOV EAX, and the same as its last byte
    bench.cpu.engine.flush_code()
    bench.cpu.eip = 0x20FFB
    assert bench.cpu.run(bench.cpu.now + 1) is Stop.DEADLINE
    bench.cpu.eip = 0x20FFF
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.arrival().vector == 14
    assert bench.cpu.instructions == 7 + 1 + 1, "... nor has it where the last block has such a byte"


def test_blocks_of_the_same_address_and_size_are_told_apart(engine: str) -> None:
    """Two address spaces, whose translations live on beside each other."""
    bench = Bench(engine)
    identity(bench)
    bench.cpu.write_setting(Setting.CR3, CR3)
    bench.cpu.write_setting(Setting.CR0, CR0_PE | CR0_ET | CR0_PG)
    bench.view[0x15000:0x15003] = b"\x90\x90\xf4"  # NOP, NOP, HLT
    bench.view[0x16000:0x16003] = b"\xb0\x01\xf4"  # MOV AL, HLT
    bench.cpu.count_instructions()
    counts = []
    for frame in (0x15000, 0x16000, 0x15000, 0x16000):
        bench.store(LOW_TABLE + 4 * 0x15, frame | 3)
        bench.cpu.engine.flush_tlb()
        bench.cpu.eip = 0x15000
        before = bench.cpu.instructions
        assert bench.cpu.run(NEVER) is Stop.HALT
        counts.append(bench.cpu.instructions - before)
    assert counts == [3, 2, 3, 2]


def test_a_planted_instruction_counts_once(engine: str) -> None:
    """Whether whoever has planted it lets it be executed, or stops the processor before it and goes on behind it."""
    bench = Bench(engine)
    bench.code("mov ecx, 3\non: nop\nit: inc eax\ndec ecx\njnz on\nhlt")
    bench.cpu.engine.plant(bench.symbol("it"))
    bench.cpu.count_instructions()
    stops = [True, False, True]
    bench.cpu.is_trap = lambda _address: stops.pop()
    seen = []
    while bench.cpu.run(NEVER) is Stop.TRAP:
        seen.append(bench.cpu.instructions)
        bench.cpu.eip += 1
    assert seen == [3, 3 + 4 + 4]
    assert bench.cpu.instructions == 1 + 3 * 4 + 1
    assert bench.cpu.gpr(0) == 1


def test_it_counts_while_it_is_on(engine: str) -> None:
    bench = Bench(engine)
    text = "mov ecx, 10\nagain: dec ecx\njnz again\nhlt"
    for on, count in ((False, 0), (True, 22), (True, 44), (False, 44), (False, 44), (True, 66)):
        bench.cpu.count_instructions(on)
        assert bench.cpu.counts_instructions is on
        bench.go(text)
        assert bench.cpu.instructions == count


# -- in 64-bit code, and under a hypervisor --------------------------------------------------

WIDE = """
        mov ebx, 20
on:     lea rdi, [0x170000]
        mov ecx, 100
        rep stosq
        .byte 0x48, 0xff, 0xc8      # DEC RAX: what would be two instructions of 32-bit code
        jmp there
there:  rep movsb
        dec ebx
        jnz on
        cli
        hlt
"""


@pytest.mark.bits(32, 64)
def test_code_of_both_widths(machine: BareMachine, assemble: Assembler) -> None:
    counter = OneByOne(machine.processor)
    text = WIDE if assemble.bits == 64 else WIDE.replace("rdi", "edi").replace("stosq", "stosd").replace("0x48, ", "")
    assert machine.execute(assemble.kernel(text)) == 0
    counter.check()
    assert machine.processor.instructions > 20 * 8


@pytest.mark.parametrize("plan", ["mirrored", "direct"])
def test_a_hosted_guest(plan: str) -> None:
    """Host, entry code, exits and all; the exits the plain way, since the others don't enter the hypervisor's code."""
    hv = Hv(load_image(kernel_path("host")), load_image(kernel_path("ptwrites")), plan, engine="native")
    before = hv.session.hypervisor.on_guest

    def prepare(guest: Guest) -> None:
        before(guest)
        if isinstance(guest, MirroredGuest):
            guest.quick.enabled = False

    hv.session.hypervisor.on_guest = prepare
    counter = OneByOne(hv.machine.processor)
    assert hv.run() == 0
    counter.check()


@pytest.mark.parametrize("plan", ["mirrored", "direct", "application"])
def test_a_hosted_guest_is_counted_alike_by_both_engines(both_engines: tuple[str, str], plan: str) -> None:
    counts = []
    for name in both_engines:
        hv = Hv(load_image(kernel_path("host")), load_image(kernel_path("ptwrites")), plan, engine=name)
        assert hv.run() == 0
        counts.append((hv.now, hv.machine.processor.instructions))
    assert counts[0] == counts[1]
    assert counts[0][1] > 200_000
