"""Stores to page tables that are followed in the run that they are made in, against those that end it."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import pytest

from hvproto.addresses import GPA, PAGE_SIZE
from hvproto.errors import LimitReached
from hvproto.events import Event, GuestMappings
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image, Segment
from tests.hypervisor.stage import MEMORY, Stage, bare

ROOT, OTHER_ROOT, KERNEL_TABLE = 0x110000, 0x111000, 0x112000
TABLES = (0x114000, 0x115000)
DATA = tuple(range(0x180000, 0x188000, PAGE_SIZE))
OPERATIONS = 0x120000
SLOTS = {TABLES[0]: (1, 3), TABLES[1]: (2,)}
"""The first table is at two places, and in both roots at one of them."""
ALL = 0x67
LIMIT = 4_000_000
_KERNEL = """
.origin 0x100000
.entry start
start:
    cli
    mov esp, 0x10f000
    lgdt [gdt_pointer]
    lidt [idt_pointer]
    mov eax, 0x110000
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    mov esi, 0x120000
next:
    mov eax, [esi]
    mov edi, [esi + 4]
    mov edx, [esi + 8]
    add esi, 12
    jmp dword ptr [kinds + eax*4]
store:
    mov [edi], edx
    jmp next
store_byte:
    mov [edi], dl
    jmp next
store_word:
    mov [edi], dx
    jmp next
several:                                ; in one basic block
    mov [edi], edx
    xor edx, 0x3002
    mov [edi + 8], edx
    lock add dword ptr [edi], 0x1000
    xchg [edi + 4], edx
    add [checksum], edx
    jmp next
load_root:
    mov cr3, edx
    jmp next
touch:
    invlpg [edi]
    mov eax, [edi]
    add [checksum], eax
    jmp next
peek:                                   ; with nothing said to the processor
    mov eax, [edi]
    add [checksum], eax
    jmp next
change:
    invlpg [edi]
    mov [edi], edx
    jmp next
finish:
    hlt
page_fault:
    pop eax
    imul ecx, [faults], 5
    add ecx, eax
    mov [faults], ecx
    mov dword ptr [esp], offset next
    iret
.align 8
kinds: .long finish, store, store_byte, store_word, several, load_root, touch, change, peek
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .long gdt
idt_pointer:
    .word 0x7f
    .long idt
faults: .long 0
checksum: .long 0
.align 8
idt:
    .space 14 * 8
    .word (page_fault & 0xffff), 8, 0x8e00, (page_fault >> 16)
    .space 8
"""
KINDS = {"end": 0, "store": 1, "byte": 2, "word": 3, "several": 4, "root": 5, "touch": 6, "change": 7, "peek": 8}


def _operations(seed: int, glance: str) -> list[tuple[str, int, int]]:
    draw = random.Random(seed)
    found = []
    for _ in range(300):
        table, index = draw.choice(TABLES), draw.choice((0, 1, 2, 0x1FF, 0x200, 0x3F0))
        value = draw.choice(DATA) | draw.choice((ALL, ALL, ALL, 0x27, 0x65, 0x63, 0x61, 7, 0, 0x66))
        value = draw.choice((value, value, value, value & 0xFFF | 0x7FFFF000))  # where there is no memory
        linear = draw.choice(SLOTS[table]) << 22 | index << 12 | 8
        kind = draw.choice(("store", "store", "store", "several", "byte", "word", "touch", "change", "root", "upper"))
        match kind:
            case "touch":
                found.append((glance, linear, 0))
            case "change":
                found.append((kind, linear, value))
            case "root":
                found.append((kind, 0, draw.choice((ROOT, OTHER_ROOT))))
            case "upper":  # what leads to a table allows other things, now and then
                slot = draw.choice(SLOTS[table])
                found.append(("store", ROOT + 4 * slot, table | draw.choice((ALL, ALL, 0x65, 0x63, 7))))
            case "byte" | "word":
                found.append((kind, table + 4 * index + draw.choice((0, 2)), draw.choice((ALL, 0x25, 0x18, 0))))
            case _:
                found.append((kind, table + 4 * index, value))
    return found


def _image(seed: int, glance: str = "touch") -> Image:
    program = assemble_text(_KERNEL)
    operations = [*_operations(seed, glance), ("end", 0, 0)]
    places = {OPERATIONS: b"".join(struct.pack("<III", KINDS[kind], where, value) for kind, where, value in operations)}
    places[KERNEL_TABLE] = b"".join(struct.pack("<I", page << 12 | ALL) for page in range(MEMORY >> 12))
    slots = {0: KERNEL_TABLE, **{slot: table for table in TABLES for slot in SLOTS[table]}}
    places[ROOT] = b"".join(struct.pack("<I", slots[slot] | ALL) for slot in range(4))
    places[OTHER_ROOT] = places[ROOT][:8]
    for number, table in enumerate(TABLES):
        entry = DATA[number] | ALL
        places[table] = struct.pack("<I", entry) * 1024
    for at in DATA:
        places[at] = struct.pack("<I", at) * 8
    more = tuple(Segment(GPA(at), data, len(data)) for at, data in sorted(places.items()))
    return replace(program, segments=(*program.segments, *more))


def _run(image: Image, engine: str, *, quick: bool, listened_to: bool) -> tuple[Stage, list[object]]:
    """A guest to its end, and all that there is to see of it: mirrors, memory, time, size of the pool."""
    stage = Stage(image, engine, pool_pages=200)
    if not listened_to:
        stage.bus.unsubscribe(stage.bus.subscribers[0])
    space = stage.guest.space
    space.stores.quick.enabled = quick
    status = stage.run(LIMIT)
    assert stage.error is None, stage.error
    for mirror in space.tables.mirrors:
        space.tables.mirror_for(mirror.mode)  # what isn't loaded may lag behind
    mirrors = [(list(one.kernel.entries()), list(one.user.entries())) for one in space.tables.mirrors]
    holes = [list(one.space.holes()) for one in space.tables.mirrors]
    return stage, [status, mirrors, holes, stage.guest_ram(), stage.guest.now, space.pool.free, space.region.base]


@pytest.mark.parametrize("seed", range(6))
def test_a_store_followed_in_the_run_leaves_what_one_that_ends_it_leaves(seed: int) -> None:
    image = _image(seed)
    plain, expected = _run(image, "native", quick=False, listened_to=False)
    assert not plain.guest.space.stores.quick.count
    quick, found = _run(image, "native", quick=True, listened_to=False)
    assert quick.guest.space.stores.quick.count > 50
    assert found == expected
    assert bare(image, limit=LIMIT).guest_ram() == quick.guest_ram()


@pytest.mark.parametrize("seed", range(6))
def test_the_next_basic_block_sees_what_was_stored(seed: int) -> None:
    """Alone, the processor would go by what it remembers until it is told."""
    image = _image(seed, "peek")
    _, expected = _run(image, "native", quick=False, listened_to=False)
    _, found = _run(image, "native", quick=True, listened_to=False)
    assert found == expected


def _without_runs(told: list[Event]) -> list[Event]:
    """A look in the middle of a basic block shows the mirror as it is, which is the one thing that differs."""
    return [replace(event, runs=()) if isinstance(event, GuestMappings) else event for event in told]


@pytest.mark.parametrize("engine", ["native", "portable"])
def test_who_listens_hears_of_each_store_and_changes_nothing(engine: str) -> None:
    image = _image(1, "peek")
    _, alone = _run(image, engine, quick=True, listened_to=False)
    plain, expected = _run(image, engine, quick=False, listened_to=True)
    quick, found = _run(image, engine, quick=True, listened_to=True)
    assert not quick.guest.space.stores.quick.count
    assert _without_runs(quick.events) == _without_runs(plain.events)
    assert found == expected == alone


@pytest.mark.parametrize("engine", ["native", "portable"])
def test_what_goes_wrong_in_the_run_comes_out_of_it(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(_image(1), engine, pool_pages=200)

    def broken(*_: object) -> bool:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(type(stage.guest.mirror), "map_entry", broken)
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        stage.run(LIMIT)


def test_no_store_stays_unheard_while_somebody_else_has_the_processor() -> None:
    """Stores to a table that isn't loaded now are just done, once one was heard of: while that guest runs."""
    table = TABLES[1]
    stores = [("store", table + 4 * (number % 8), DATA[number % 8] | ALL) for number in range(2000)]
    operations = [("touch", 2 << 22, 0), ("root", 0, OTHER_ROOT), *stores, ("end", 0, 0)]
    image = _image(1)
    data = b"".join(struct.pack("<III", KINDS[kind], where, value) for kind, where, value in operations)
    segments = [Segment(one.address, data, len(data)) if one.address == OPERATIONS else one for one in image.segments]
    stage = Stage(replace(image, segments=tuple(segments)), "native", pool_pages=200)
    stage.bus.unsubscribe(stage.bus.subscribers[0])
    pages = stage.machine.processor.engine.deferred.pages
    with pytest.raises(LimitReached):
        stage.run(8_000)
    assert any(store.deferred for store in stage.guest.space.monitor.records), "none was heard of"
    assert not {1, 2} & {*bytes(pages)}
