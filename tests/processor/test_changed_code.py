"""Code that is changed through another mapping, or by stores that came before the code ran: what is in RAM is what runs.

The engine may skip looking for translations only where there are none.
"""

from __future__ import annotations

import pytest

from hvproto.processor import private_layout
from hvproto.processor.settings import CR0_ET, CR0_PE, CR0_PG, CR0_WP, CR4_PAE, Setting
from tests.support.bench import DATA, ORIGIN, Bench

DIRECTORY, TABLE = 0x40000, 0x41000
SECOND = 0x80_0000
"""A second linear range for the same RAM."""


def two_views(bench: Bench) -> None:
    """Two-level tables: RAM at 0 and again at `SECOND`."""
    bench.store(DIRECTORY, *([0] * 1024))
    for index in (0, SECOND >> 22):
        bench.store(DIRECTORY + 4 * index, TABLE | 7)
    bench.store(TABLE, *(page << 12 | 7 for page in range(256)))
    bench.cpu.write_setting(Setting.CR3, DIRECTORY)
    bench.cpu.write_setting(Setting.CR0, CR0_PE | CR0_ET | CR0_PG | CR0_WP)


PROGRAM = """
    mov edi, {target}
    mov dword ptr [edi], 0xc301b0       ; mov al, 1; ret
    mov dword ptr [edi + 64], 0xc303b0  ; mov al, 3; ret
    mov ebx, {run}
    xor eax, eax
    call ebx
    mov dl, al
    mov byte ptr [edi + 1], 2
    call ebx
    mov dh, al
    lea ecx, [ebx + 64]
    call ecx
    mov ah, al
    mov byte ptr [edi + 65], 4
    push eax
    call ecx
    pop ecx
    mov cl, al
    mov byte ptr [edi + 1], 5
    call ebx
    hlt
"""


@pytest.mark.parametrize(
    ("paged", "target", "run"), [(False, 0, 0), *((True, target, run) for target in (0, SECOND) for run in (0, SECOND))]
)
def test_stores_to_code(engine: str, paged: bool, target: int, run: int) -> None:
    bench = Bench(engine)
    if paged:
        two_views(bench)
    bench.go(PROGRAM.format(target=target + DATA, run=run + DATA))
    cpu = bench.cpu
    assert (cpu.gpr(2) & 0xFF, cpu.gpr(2) >> 8 & 0xFF) == (1, 2)
    assert (cpu.gpr(1) >> 8 & 0xFF, cpu.gpr(1) & 0xFF) == (3, 4)
    assert cpu.gpr(0) & 0xFF == 5


def test_code_that_follows_itself_up(engine: str) -> None:
    """A page of data that becomes code, is overwritten as data by many stores, and is code again, sixteen times."""
    bench = Bench(engine)
    two_views(bench)
    bench.go(f"""
    mov ebp, 0
    xor esi, esi
again:
    mov edi, {SECOND + DATA}
    mov ecx, 1024
    mov eax, 0x90909090
    rep stosd
    mov eax, ebp
    shl eax, 8
    or eax, 0xc30000b0
    mov byte ptr [{SECOND + DATA}], 0xb0
    mov ecx, ebp
    mov byte ptr [{SECOND + DATA} + 1], cl
    mov byte ptr [{SECOND + DATA} + 2], 0xc3
    mov ebx, {DATA}
    xor eax, eax
    call ebx
    add esi, eax
    mov ebx, {SECOND + DATA}
    call ebx
    shl eax, 8
    add esi, eax
    inc ebp
    cmp ebp, 16
    jne again
    hlt
""")
    assert bench.cpu.gpr(6) == 120 + (120 << 8)


def test_across_two_pages(engine: str) -> None:
    """The end of an instruction on the next page is changed."""
    bench = Bench(engine)
    two_views(bench)
    bench.go(f"""
    mov edi, {SECOND + DATA + 0x1000}
    mov byte ptr [edi - 1], 0xb0
    mov byte ptr [edi], 7
    mov byte ptr [edi + 1], 0xc3
    mov ebx, {DATA + 0xFFF}
    xor eax, eax
    call ebx
    mov edx, eax
    mov byte ptr [edi], 9
    call ebx
    hlt
""")
    assert (bench.cpu.gpr(2), bench.cpu.gpr(0)) == (7, 9)


def test_a_view_that_nothing_is_fetched_from(engine: str) -> None:
    """PAE with NX: stores through a mapping that isn't executable."""
    bench = Bench(engine)
    pointers, directory, table, hidden = 0x40000, 0x41000, 0x42000, 0x43000
    bench.store(pointers, directory | 1, 0, 0, 0, 0, 0, 0, 0)
    bench.store(directory, *([0] * 1024))
    bench.store(directory, table | 7)
    bench.store(directory + 8 * (SECOND >> 21), hidden | 7)
    for page in range(256):
        bench.store(table + 8 * page, page << 12 | 7, 0)
        bench.store(hidden + 8 * page, page << 12 | 7, 1 << 31)
    bench.cpu.write_setting(Setting.CR3, pointers)
    bench.cpu.write_setting(Setting.CR4, CR4_PAE)
    bench.cpu.write_setting(Setting.EFER, 0x800)
    bench.cpu.write_setting(Setting.CR0, CR0_PE | CR0_ET | CR0_PG | CR0_WP)
    bench.go(PROGRAM.format(target=SECOND + DATA, run=DATA))
    cpu = bench.cpu
    assert (cpu.gpr(2) & 0xFF, cpu.gpr(2) >> 8 & 0xFF) == (1, 2)
    assert (cpu.gpr(1) >> 8 & 0xFF, cpu.gpr(1) & 0xFF) == (3, 4)
    assert cpu.gpr(0) & 0xFF == 5


def test_code_after_a_flush_is_watched_again() -> None:
    """A flush of all translations takes all marks of pages with code away: stores to such a page are seen nevertheless."""
    if private_layout.self_check() is not None:
        pytest.skip("no native engine here")
    bench = Bench("native")
    two_views(bench)
    marks = bench.cpu.engine._code_pages  # type: ignore[attr-defined]
    text = f"""
        mov eax, {DATA}
        call eax
        mov edx, ebx
        inc byte ptr [{SECOND + DATA} + 1]
        mov eax, {DATA}
        call eax
        hlt
    """
    bench.view[DATA : DATA + 3] = b"\xb3\x05\xc3"  # mov bl, 5; ret
    bench.go(text, ebx=0)
    assert (bench.cpu.gpr(2), bench.cpu.gpr(3)) == (5, 6)
    assert bytes(marks)[DATA >> 12] == bytes(marks)[ORIGIN >> 12] == 1
    bench.cpu.engine.flush_code()
    assert not any(bytes(marks))
    bench.go_again(ebx=0)
    assert (bench.cpu.gpr(2), bench.cpu.gpr(3)) == (6, 7)
    assert bytes(marks)[DATA >> 12] == 1
