"""Stores noted where translated code asks for them, against those that go through the engine's hooks."""

from __future__ import annotations

import random

import pytest
from unicorn import UC_ARCH_X86, UC_HOOK_MEM_WRITE, UC_HOOK_MEM_WRITE_PROT, UC_MODE_32, UC_PROT_READ, Uc

from hvproto.addresses import PAGE_SIZE
from hvproto.processor import store_helpers
from hvproto.processor.native import NativeEngine
from hvproto.processor.processor import Stop
from hvproto.processor.settings import CR4_OSFXSR, Setting
from tests.support.bench import DATA, Bench
from tests.support.page_tables import identity

TABLE, PART, OTHER = DATA + 0x1000, DATA + 0x2000, DATA + 0x3000
"""Pages that are protected: a table, one of which a part matters, and one that is to be heard of at once."""
VALUES = (0, 1, 0x21, 0x67, 0x0101_0101)


def _text(seed: int) -> str:
    draw = random.Random(seed)
    lines = []
    for _ in range(150):
        at = draw.choice((TABLE, TABLE, TABLE, PART, OTHER, DATA)) + draw.choice(
            (0, 8, 16, 32, 0xFF8, 0xFF5, 3, 20, 28)
        )
        value = draw.choice(VALUES)
        lines.append(f"mov edi, {at:#x}\nmov eax, {value:#x}")
        lines.append(draw.choice((
            "mov [edi], eax", "mov [edi], eax", "mov word ptr [edi], ax", "mov byte ptr [edi], al",
            "movd mm0, eax\npunpckldq mm0, mm0\nmovq [edi], mm0", "movd xmm1, eax\nmovups [edi], xmm1",
            "add [edi], eax", "xchg [edi], eax", "lock add [edi], eax", "mov ecx, 3\nrep stosd",
        )))  # fmt: skip
    return "\n".join([*lines, "hlt"])


def _engine(bench: Bench) -> NativeEngine:
    engine = bench.cpu.engine
    assert isinstance(engine, NativeEngine)
    return engine


def _bench(entry_size: int, *, by_hook: bool, paging: bool = False) -> Bench:
    bench = Bench("native")
    if paging:
        identity(bench)
    bench.cpu.write_setting(Setting.CR4, bench.cpu.control(Setting.CR4) | CR4_OSFXSR)
    engine = _engine(bench)
    engine.defer_by_hook(by_hook)
    engine.protect(TABLE, 3 * PAGE_SIZE, on=True)
    engine.deferred.pages[TABLE // PAGE_SIZE] = entry_size
    engine.deferred.watch_part(PART + 16, PART + 32)
    return bench


@pytest.mark.parametrize("paging", [False, True])
@pytest.mark.parametrize("entry_size", [4, 8])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_noted_and_done_is_what_a_hook_notes_and_does(seed: int, entry_size: int, paging: bool) -> None:
    found = []
    for by_hook in (False, True):
        bench = _bench(entry_size, by_hook=by_hook, paging=paging)
        others: list[tuple[int, int, int]] = []
        cpu, deferred = bench.cpu, _engine(bench).deferred
        cpu.on_protected_store = lambda at, size, others=others, cpu=cpu: others.append((at, size, cpu.eip))
        assert bench.go(_text(seed)) is Stop.HALT
        assert (deferred.count_at_helper.value > 20) != by_hook
        found.append((deferred.take(), others, cpu.registers(), cpu.now, bytes(bench.view)))
    assert found[0] == found[1]
    assert found[0][0] and found[0][1]


def test_as_many_wait_as_may() -> None:
    found = []
    for by_hook in (False, True):
        bench = _bench(4, by_hook=by_hook)
        others: list[tuple[int, int]] = []
        bench.cpu.on_protected_store = lambda at, size, others=others: others.append((at, size))
        text = f"mov ecx, 20000\nmov eax, 6\nagain: mov [{TABLE:#x}], eax\nadd eax, 2\ndec ecx\njnz again\nhlt"
        assert bench.go(text) is Stop.HALT
        found.append((_engine(bench).deferred.take(), others))
    assert found[0] == found[1]
    assert len(found[0][0]) + len(found[0][1]) == 20000


def test_a_hook_on_stores_sees_all_of_them() -> None:
    bench = _bench(4, by_hook=False)
    engine = _engine(bench)
    seen: list[int] = []
    text = "\n".join(f"mov dword ptr [{TABLE + at:#x}], 6" for at in range(0, 64, 4)) + "\nhlt"
    handle = engine.uc.hook_add(
        UC_HOOK_MEM_WRITE, lambda _uc, _kind, at, *_: seen.append(at), begin=TABLE, end=PART - 1
    )
    engine.flush_code()
    bench.go(text)
    assert seen == list(range(TABLE, TABLE + 64, 4))
    assert len(engine.deferred.take()) == 16
    assert not engine.deferred.count_at_helper.value
    engine.uc.hook_del(handle)
    engine.flush_code()
    bench.go(text)  # at the end of which the engine forgets the hook
    bench.go(text)
    assert engine.deferred.count_at_helper.value == 15, "all but the first, which finds nothing in the TLB"
    assert len(engine.deferred.take()) == 32
    assert len(seen) == 16


def test_a_page_that_is_protected_no_more_has_plain_stores() -> None:
    bench = _bench(4, by_hook=False)
    text = f"mov dword ptr [{TABLE:#x}], 6\nhlt"
    for protected in (True, False, True):
        _engine(bench).protect(TABLE, PAGE_SIZE, on=protected)
        bench.go(text)
        assert len(_engine(bench).deferred.take()) == protected


def test_an_instance_of_somebody_elses_is_left_alone() -> None:
    assert store_helpers.install(), "this build of Unicorn has its table where it is looked for"
    uc = Uc(UC_ARCH_X86, UC_MODE_32)
    uc.mem_map(0, 0x2000)
    uc.mem_map(0x2000, 0x1000, UC_PROT_READ)
    uc.mem_write(0x1000, b"\xc7\x05\x00\x20\x00\x00\x78\x56\x34\x12\xf4")  # mov dword ptr [0x2000], 0x12345678; hlt
    stored: list[tuple[int, int]] = []
    uc.hook_add(UC_HOOK_MEM_WRITE_PROT, lambda _uc, _kind, at, _size, value, _data: stored.append((at, value)) or True)
    uc.emu_start(0x1000, 0x100A)
    assert stored == [(0x2000, 0x12345678)]
