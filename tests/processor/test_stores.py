"""Stores to protected pages: trapped, committed exactly once, and otherwise as if nothing were protected."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvproto.processor.processor import Stop
from hvproto.processor.settings import CR4_OSFXSR, EFLAGS_FIXED, Setting
from tests.support.bench import DATA, KERNEL_STACK, NEVER, Bench
from tests.support.page_tables import LOW_TABLE, identity

PAGE = DATA + 0x1000
"""The protected page; the pages on both sides of it are not."""

# After CMPXCHG8B the engine's lazily computed EFLAGS may be anything where an undefined flag was left before it
# (BTR; CMPXCHG8B gives IF and IOPL that nobody set); a far CALL isn't a store that can be repeated.
LEFT_OUT = {"call", "lock cmpxchg8b"}

STORES = {
    "byte": "mov byte ptr [edi], 0x5a",
    "word": "mov word ptr [edi], 0x5a5b",
    "dword": "mov [edi], eax",
    "read-modify-write": "add dword ptr [edi], 5",
    "inc byte": "inc byte ptr [edi]",
    "not": "not dword ptr [edi]",
    "shift": "shl dword ptr [edi], 3",
    "xchg": "xchg [edi], eax",
    "lock xadd": "lock xadd [edi], eax",
    "lock add": "lock add dword ptr [edi], 7",
    "lock cmpxchg, equal": "mov ebx, eax\nmov eax, [edi]\nlock cmpxchg [edi], ebx",
    "lock cmpxchg, unequal": "mov eax, [edi]\ninc eax\nlock cmpxchg [edi], ebx",
    "lock cmpxchg8b": "mov eax, [edi]\nmov edx, [edi + 4]\nmov ebx, 1\nmov ecx, 2\nlock cmpxchg8b [edi]",
    "bts": "bts dword ptr [edi], 9",
    "lock bts far away": "mov ecx, 0x55\nlock bts [edi], ecx",
    "btr": "btr dword ptr [edi], 1",
    "setcc": "cmp eax, eax\nsete byte ptr [edi]",
    "push": "mov esp, edi\npush 0x11223344\nmov esp, 0x9000",
    "push word": ".byte 0x8d, 0x67, 4, 0x66, 0x68, 0x34, 0x12\nmov esp, 0x9000",
    "pushad": "lea esp, [edi + 32]\npushad\nmov esp, 0x9000",
    "call": "mov esp, edi\ncall next\nnext: mov esp, 0x9000",
    "pop": "push 0x77\npop dword ptr [edi]",
    "enter": "mov esp, edi\nenter 8, 0\nmov esp, 0x9000",
    "stosb": "stosb",
    "rep stosb": "mov ecx, 37\nrep stosb",
    "rep stosd": "mov ecx, 5\nrep stosd",
    "rep movsb": "mov ecx, 21\nrep movsb",
    "rep movsd down": "mov ecx, 4\nstd\nrep movsd\ncld",
    "movups": "movups xmm1, [esi]\nmovups [edi], xmm1",
    "movq": "movq xmm1, qword ptr [esi]\nmovq qword ptr [edi], xmm1",
    "movsd": "movsd xmm1, qword ptr [esi]\nmovsd qword ptr [edi], xmm1",
    "mmx": "movq mm1, qword ptr [esi]\nmovq qword ptr [edi], mm1\nemms",
    "fstp qword": "fld1\nfstp qword ptr [edi]",
    "fstp tbyte": "fldpi\nfstp tbyte ptr [edi]",
    "fistp": "fld1\nfistp dword ptr [edi]",
    "fnsave": "fldpi\nfnsave [edi]",
    "sgdt": "sgdt [edi]",
    "mov sreg": "mov word ptr [edi], ds",
    "cmov loads only": "cmovz ebx, [edi]",
    "self": "mov eax, [edi]\nmov [edi], eax\nmov [edi + 4], eax\nmov eax, [edi + 4]\nadd [edi], eax",
}
NOT_TRAPPED = {"cmov loads only"}
OFFSETS = {"inside": 0x400, "at its start": 0, "into it": -2, "out of it": 0xFFE, "before it": -8}


def _run(engine: str, text: str, at: int, protect: bool, paging: bool) -> tuple[Bench, list[tuple[int, int]]]:
    bench = Bench(engine)
    events: list[tuple[int, int]] = []
    for index in range(0, 0x3000, 4):
        bench.store(DATA + index, 0x01020408 * (index + 1))
    if paging:
        identity(bench)
    bench.cpu.write_setting(Setting.CR4, bench.cpu.control(Setting.CR4) | CR4_OSFXSR)
    if protect:
        bench.cpu.engine.protect(PAGE, 0x1000, on=True)
        bench.cpu.on_protected_store = lambda physical, size: events.append((physical, size))
    stop = bench.go(f"{text}\nhlt", eax=0x89ABCDEF, edi=at, esi=DATA + 0x300)
    assert stop is Stop.HALT
    return bench, events


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("place", OFFSETS)
def test_a_store_does_what_it_does_unprotected(engine: str, name: str, place: str) -> None:
    for paging in (False, True):
        at = PAGE + OFFSETS[place]
        plain, _ = _run(engine, STORES[name], at, False, paging)
        guarded, events = _run(engine, STORES[name], at, True, paging)
        assert bytes(guarded.view) == bytes(plain.view)
        assert guarded.cpu.registers() == plain.cpu.registers()
        assert guarded.cpu.now == plain.cpu.now
        assert all(physical >= PAGE and physical + size <= PAGE + 0x1000 for physical, size in events)
        if place == "inside" and name not in NOT_TRAPPED:
            assert events
        changed = {
            i
            for i in range(0x1000)
            if plain.view[PAGE + i] != (0x01020408 * ((0x1000 + i & ~3) + 1) >> 8 * (i % 4) & 0xFF)
        }
        told = {physical - PAGE + i for physical, size in events for i in range(size)}
        assert changed <= told, "every byte that changed was told of"


@pytest.mark.parametrize(("text", "count"), [("mov [edi], eax", 1), ("add dword ptr [edi], 5", 1), ("push eax", 1),
                                              ("xchg [edi], eax", 1), ("mov ecx, 6\nrep stosd", 6)])  # fmt: skip
def test_a_store_is_told_once_and_after_it_has_happened(engine: str, text: str, count: int) -> None:
    bench = Bench(engine)
    bench.cpu.engine.protect(PAGE, 0x1000, on=True)
    seen = []
    bench.cpu.on_protected_store = lambda at, size: seen.append(bytes(bench.view[at : at + size]))
    bench.go(f"{text}\nhlt", eax=0x77, edi=PAGE + 0x100, esp=PAGE + 0x104)
    assert len(seen) == count
    assert all(int.from_bytes(data, "little") in (0x77, 5) for data in seen)


def test_protection_can_be_taken_away_and_given_again(engine: str) -> None:
    bench = Bench(engine)
    events: list[int] = []
    bench.cpu.on_protected_store = lambda physical, _size: events.append(physical)
    for turn in range(3):
        bench.cpu.engine.protect(PAGE, 0x1000, on=True)
        bench.go(f"inc dword ptr [{PAGE}]\nhlt")
        bench.cpu.engine.protect(PAGE, 0x1000, on=False)
        bench.go(f"inc dword ptr [{PAGE}]\nhlt")
        assert len(events) == turn + 1
    assert bench.load(PAGE) == (6,)


def test_protecting_leaves_no_trace_in_the_processor(engine: str) -> None:
    bench = Bench(engine)
    identity(bench)
    bench.store(LOW_TABLE + 4 * (PAGE >> 12), 0)  # its linear alias isn't mapped
    bench.cpu.engine.flush_tlb()
    bench.cpu.cr2 = 0x1234
    bench.cpu.engine.protect(PAGE, 0x1000, on=True)
    assert bench.cpu.cr2 == 0x1234
    arrived = bench.provoke(f"at: mov eax, [{PAGE}]", 3)
    assert (arrived.vector, arrived.frame[0]) == (14, 4)
    bench.cpu.engine.protect(PAGE, 0x1000, on=False)
    assert bench.provoke("cli", 3).vector == 13


def test_a_delivery_to_a_protected_stack(engine: str) -> None:
    bench = Bench(engine)
    bench.cpu.engine.protect(KERNEL_STACK - 0x1000, 0x1000, on=True)
    arrived = bench.provoke("at: ud2", 3)
    assert (arrived.vector, arrived.frame[0]) == (6, bench.symbol("at"))


def test_a_monitor_may_write_map_and_flush(engine: str) -> None:
    """What a page-table monitor does inside the event, as far as the engine allows it."""
    bench = Bench(engine)
    identity(bench)
    bench.cpu.engine.protect(LOW_TABLE, 0x1000, on=True)

    def monitor(physical: int, _size: int) -> None:
        bench.store(DATA, physical)
        bench.cpu.engine.flush_tlb()

    bench.cpu.on_protected_store = monitor
    entry = LOW_TABLE + 4 * (PAGE >> 12)
    arrived = bench.provoke(f"mov eax, [{PAGE}]\nmov dword ptr [{entry}], 0\njmp n\nn: at: mov eax, [{PAGE}]")
    assert arrived.vector == 14
    assert bench.load(DATA) == (entry,)
    assert bench.load(entry) == (0,)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(set(STORES) - LEFT_OUT)), st.integers(-16, 0x1008)), min_size=1, max_size=8
    )
)
def test_any_sequence_of_stores(engine: str, steps: list[tuple[str, int]]) -> None:
    text = "\n".join(f"mov edi, {PAGE + at}\nmov esi, {DATA + 0x300}\n{STORES[name]}" for name, at in steps)
    plain, _ = _run(engine, text, PAGE, False, False)
    guarded, _ = _run(engine, text, PAGE, True, False)
    assert bytes(guarded.view) == bytes(plain.view)
    assert guarded.cpu.registers() == plain.cpu.registers()


def test_an_exception_in_the_same_block_as_a_trapped_store(engine: str) -> None:
    bench = Bench(engine)
    bench.cpu.engine.protect(PAGE, 0x1000, on=True)
    arrived = bench.provoke(f"mov dword ptr [{PAGE}], 3\nat: ud2", 3, eflags=EFLAGS_FIXED)
    assert (arrived.vector, arrived.frame[0], bench.load(PAGE)) == (6, bench.symbol("at"), (3,))
    assert bench.cpu.run(NEVER) is Stop.HALT or True
