"""Whoever watches pages of a guest hears of every store to them, and of no other page."""

from __future__ import annotations

import pytest

from hvproto.addresses import GPA, PAGE_MASK, PAGE_SIZE
from hvproto.errors import BadInput
from hvproto.hypervisor.stay import ForHost
from hvproto.images.assembly import assemble_text
from tests.hypervisor.lodger import MEMORY, Lodging, logging_kernel

STORES = """
        mov dword ptr [0x140000], 1         ; plain
        push 7                              ; on the stack
        mov edi, 0x141000
        mov ecx, 0x500
        rep stosd                           ; over two pages, zeros on zeros among them
        lock inc dword ptr [0x143ffe]       ; across two pages
        sidt [0x145010]                     ; made by the hypervisor
        fnsave [0x146000]
        mov dword ptr [0x150000], 0x151007  ; page tables: 2 MiB one to one
        mov edi, 0x151000
        mov eax, 7
1:      stosd
        add eax, 0x1000
        cmp eax, 0x200000
        jb 1b
        mov eax, 0x150000
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        mov eax, [0x147000]                 ; read only: an A bit in the table, and no store to that page
        mov dword ptr [0x151000 + 4 * 0x148], 0x149007
        mov dword ptr [0x148000], 5         ; through an alias
        pushfd
        int 0x30                            ; a frame that the hypervisor pushes
        jmp finish
"""


def test_all_pages_that_change_are_heard_of(engine: str) -> None:
    run = Lodging(engine)
    guest = run.add(assemble_text(logging_kernel(STORES)))
    before = [guest.memory.read(at, PAGE_SIZE) for at in range(0, MEMORY, PAGE_SIZE)]
    heard: set[int] = set()

    def listener(gpa: GPA, size: int) -> None:
        assert size > 0 and gpa & PAGE_MASK <= PAGE_SIZE - size
        heard.add(gpa & ~PAGE_MASK)

    guest.on_write(range(0, MEMORY, PAGE_SIZE), listener)
    run.run_to_end()
    assert [vector for vector, _, _ in run.log] == [48]
    changed = {n * PAGE_SIZE for n, page in enumerate(before) if page != guest.memory.read(n * PAGE_SIZE, PAGE_SIZE)}
    assert changed <= heard
    assert {0x140000, 0x141000, 0x142000, 0x143000, 0x144000, 0x145000, 0x146000, 0x149000, 0x151000} <= heard
    assert not {0x147000, 0x148000, 0x14A000} & heard


def test_a_page_that_is_dropped_is_heard_of_no_more(engine: str) -> None:
    run = Lodging(engine)
    guest = run.add(assemble_text(logging_kernel("1: inc dword ptr [0x140000]\ninc dword ptr [0x141000]\njmp 1b\n")))
    heard: list[int] = []

    def first_only(gpa: GPA, _size: int) -> None:
        heard.append(gpa)
        first.drop(gpa)

    first = guest.on_write([0x140000, 0x141FFF], first_only)
    every: list[int] = []
    other = guest.on_write([0x140000], lambda gpa, _size: every.append(gpa))
    run.run(3000, ForHost.STANDS_STILL)
    assert heard == [0x140000, 0x141000] and first.pages == () and other.pages == (0x140000,) and len(every) > 20
    count = len(every)
    other.close()
    run.run(3000, ForHost.STANDS_STILL)
    assert len(every) == count
    first.add([0x141000])
    run.run(3000, ForHost.STANDS_STILL)
    assert heard == [0x140000, 0x141000, 0x141000]


def test_a_listener_can_end_the_guest_before_its_next_block(engine: str) -> None:
    body = "mov dword ptr [0x140000], 1\njmp 1f\n1: mov dword ptr [result], 1\njmp finish\n"
    run = Lodging(engine)
    guest = run.add(assemble_text(logging_kernel(body)))
    guest.on_write([0x140000], lambda _gpa, _size: guest.end(9, "it wrote there"))
    assert run.run_to_end().status == 9
    assert run.words("result") == [0] and guest.memory.read(0x140000, 1) == b"\1"


def test_where_there_is_no_memory(engine: str) -> None:
    guest = Lodging(engine).add(assemble_text(logging_kernel("jmp finish\n")))
    with pytest.raises(BadInput, match="no memory at GPA 0x200000"):
        guest.on_write([0, MEMORY], lambda _gpa, _size: None)
    assert guest.space.writes.new([0], lambda _gpa, _size: None).pages == (0,)
