"""Stores to page tables that machine code follows by itself, against those that Python follows, in the run or after it.

IDT, TSS and the kernel's stack, which `unasked` has learnt, are among what the stores map anew.
"""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import pytest

from hvproto.addresses import GPA, PAGE_SIZE
from hvproto.events import PageTableWrite
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image, Segment
from hvproto.processor import private_layout
from tests.hypervisor.stage import MEMORY, Stage

pytestmark = pytest.mark.skipif(private_layout.self_check() is not None, reason="no native engine here")

ROOT, DIRECTORY, KERNEL_TABLE, OPERATIONS = 0x110000, 0x111000, 0x112000, 0x120000
KNOWN, TWICE, SUPERVISORS = 0x114000, 0x115000, 0x116000
"""Tables: one that maps itself, one that is at two places, and one all of whose pages are a supervisor's at first."""
SLOTS = {4: {0: KERNEL_TABLE, 1: KNOWN, 2: TWICE, 3: TWICE, 4: SUPERVISORS},
         8: {0: KERNEL_TABLE, 2: KNOWN, 4: TWICE, 5: TWICE, 6: SUPERVISORS}}  # fmt: skip
"""By the size of an entry: entries of the directory."""
BASE = 0x40_0000
"""The first linear address that `KNOWN` maps."""
HOLE = 0x189000
DATA = tuple(range(0x180000, 0x188000, PAGE_SIZE))
IDT, TSS, STACK, OTHER_STACK = 8, 9, 10, 11
"""Pages of `KNOWN` by their numbers, of which each of the first three lies in one of two frames."""
FRAMES = {IDT: 0x190000, TSS: 0x192000, STACK: 0x194000, OTHER_STACK: 0x196000}
ALL, LIMIT = 0x67, 6_000_000
# A program at ring 3 calls its kernel over and over again; the kernel does what comes next in a list, until it says that
# it is to go back.
_KERNEL = """
.origin 0x100000
.entry start
start:
    cli
    mov esp, 0x10f000
    lgdt [gdt_pointer]
    lidt [idt_pointer]
    mov eax, {cr4:#x}
    mov cr4, eax
    mov eax, 0x110000
    mov cr3, eax
    mov eax, cr0
    or eax, {cr0:#x}
    mov cr0, eax
    mov ax, 0x28
    ltr ax
    mov ax, 0x23
    mov ds, ax
    mov es, ax
    mov esi, 0x120000
    mov edi, 0x10c000
    push 0x23
    push 0x10e000
    push 2
    push 0x1b
    push user
    iretd
user:
    mov eax, [edi]
    add [0x10c010], eax
call:
    int 0x80
    jmp user
handler:
    mov ebp, 1
    jmp common
other_handler:
    mov ebp, 7
common:
    imul eax, [0x10c00c], 31
    add eax, ebp
    add eax, [esp]
    add eax, esp
    mov [0x10c00c], eax
next:
    mov eax, [esi]
    mov edi, [esi + 4]
    mov edx, [esi + 8]
    mov ebx, [esi + 12]
    add esi, 16
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
locked:
    lock xor [edi], edx
    jmp next
burst:                                  ; each store in a basic block of its own
    mov ecx, 5
more:
    {entry}
    xor edx, 0x1000
    loop more
    jmp next
row:                                    ; of entries, in one basic block or in four
    {entry}
    {apart1}
    add edi, {size}
    xor edx, 0x3000
    {entry}
    {apart2}
    add edi, {size}
    xor edx, 0x5000
    {entry}
    {apart3}
    add edi, {size}
    {entry}
    jmp next
peek:
    mov eax, [edi]
    add [0x10c00c], eax
    jmp next
change:
    invlpg [edi]
    mov [edi], edx
    jmp next
copy:                                   ; a page
    mov ebp, esi
    mov esi, edi
    mov edi, edx
    mov ecx, 1024
    rep movsd
    mov esi, ebp
    jmp next
flags:
    pushfd
    cli
    pop eax
    add [0x10c00c], eax
    push eax
    popfd
    jmp next
load_root:
    mov eax, cr3
    mov cr3, eax
    jmp next
back:
    iretd
finish:
    hlt
page_fault:
    pop eax
    imul ecx, [0x10c008], 5
    add ecx, eax
    mov [0x10c008], ecx
    cmp word ptr [esp + 4], 0x1b
    je of_user
    mov dword ptr [esp], offset next
    iretd
of_user:
    mov dword ptr [esp], offset call
    iretd
.align 8
kinds: .long finish, store, store_byte, store_word, locked, burst, row, peek, change, copy, flags, load_root, back
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
    .word 0x67, 0x9000
    .byte 0x40, 0x89, 0, 0
gdt_pointer:
    .word 47
    .long gdt
idt_pointer:
    .word 0x7ff
    .long 0x408000
"""
_NARROW = "mov [edi], edx"
_WIDE = "mov [0x10c000], edx\nmov [0x10c004], ebx\nmovq mm0, qword ptr [0x10c000]\nmovq [edi], mm0"
KINDS = ("end", "store", "byte", "word", "locked", "burst", "row", "peek", "change", "copy", "flags", "root", "back")
Operation = tuple[str, int, int, int]


def _linear(table: int, size: int) -> int:
    """The first linear address that a table maps."""
    return next(slot for slot, at in SLOTS[size].items() if at == table) * PAGE_SIZE // size << 12


def _above(table: int, size: int) -> int:
    """Where the directory's entry for a table is."""
    return (DIRECTORY if size == 8 else ROOT) + size * (_linear(table, size) // (PAGE_SIZE // size) >> 12)


def _operations(seed: int, size: int) -> list[Operation]:
    draw = random.Random(seed)
    found: list[Operation] = []
    where = dict(FRAMES)
    high = (0, 0, 0, 0, 0x8000_0000, 0x0001_0000) if size == 8 else (0,)  # NX, and a frame that isn't there
    for _ in range(350):
        table = draw.choice((KNOWN, KNOWN, KNOWN, TWICE, SUPERVISORS))
        base = _linear(table, size)
        index = draw.choice((0, 1, 2, 4, 0x1FB, 0x1F0) if size == 8 else (0, 1, 2, 0x1FE, 0x200, 0x3F0))
        at = table + size * index
        value = draw.choice(DATA) | draw.choice((ALL, ALL, ALL, ALL, 0x27, 0x65, 0x63, 0x61, 0x25, 7, 0, 0x66))
        value = draw.choice((value, value, value, value, value, value & 0xFFF | draw.choice((0x7FFFF000, HOLE))))
        kind = draw.choice(
            ("burst", "burst", "row", "row", "store", "byte", "word", "locked", "peek", "peek", "change", "swap", "swap",
             "flags", "flags", "back", "back", "root", "upper")
        )  # fmt: skip
        match kind:
            case "peek" | "change" | "back":
                found.append((kind, draw.choice((base + (index << 12), base + (index << 12), at)), value, 0))
            case "byte" | "word":
                found.append((kind, at + draw.choice((0, 2)), draw.choice((ALL, 0x25, 0x18, 0)), 0))
            case "locked":
                found.append((kind, at, draw.choice((0x1000, 0x40, 2, 4)), 0))
            case "swap":
                page = draw.choice((IDT, TSS, STACK))
                old, new = where[page], FRAMES[page] | draw.choice((0, 0x1000))
                if page == STACK and old != new:
                    found.append(("copy", old, new, 0))
                found.append(("burst", KNOWN + size * page, new | draw.choice((ALL, ALL, 0x63, 0x27)), 0))
                where[page] = new
            case "upper":
                found.append(("store", _above(table, size), table | draw.choice((ALL, ALL, ALL, 0x63)), 0))
            case "flags" | "root":
                found.append((kind, 0, 0, 0))
            case _:
                found.append((kind, at, value, draw.choice(high)))
    return [*found, ("end", 0, 0, 0)]


def _gate(to: int, dpl: int) -> bytes:
    return struct.pack("<HHHH", to & 0xFFFF, 8, 0x8E00 | dpl << 13, to >> 16)


def _image(operations: list[Operation], size: int, *, write_protect: bool = True, apart: bool = True) -> Image:
    program = assemble_text(_KERNEL.format(
        cr4=0x20 if size == 8 else 0, cr0=0x8000_0000 | write_protect << 16, size=size,
        entry=_WIDE if size == 8 else _NARROW,
        **{f"apart{number}": f"jmp apart{number}\napart{number}:" if apart else "" for number in (1, 2, 3)},
    ))  # fmt: skip
    symbols = program.symbols
    kinds = {name: number for number, name in enumerate(KINDS)}
    listed = [struct.pack("<IIII", kinds[kind], *rest) for kind, *rest in operations]
    places = {OPERATIONS: b"".join(listed)}

    def table(entries: dict[int, int]) -> bytes:
        return b"".join(entries.get(index, 0).to_bytes(size, "little") for index in range(PAGE_SIZE // size))

    places[KERNEL_TABLE] = table({page: page << 12 | ALL for page in range(MEMORY >> 12)})
    places[KNOWN] = table({
        **{index: DATA[index % 8] | ALL for index in range(PAGE_SIZE // size)},
        **{page: frame | ALL for page, frame in FRAMES.items()},
        0x30: KNOWN | ALL,
    })  # fmt: skip
    for at, flags in ((TWICE, ALL), (SUPERVISORS, 0x63)):
        places[at] = table({index: DATA[index % 8] | flags for index in range(PAGE_SIZE // size)})
    if size == 8:
        places[ROOT] = (DIRECTORY | 1).to_bytes(8, "little")
    places[DIRECTORY if size == 8 else ROOT] = table({slot: at | ALL for slot, at in SLOTS[size].items()})
    for number, name in enumerate(("handler", "other_handler")):
        gates = [bytes(8)] * 256
        gates[14], gates[0x80] = _gate(symbols["page_fault"], 0), _gate(symbols[name], 3)
        places[FRAMES[IDT] + number * PAGE_SIZE] = b"".join(gates)
        top = BASE + (STACK + number << 12) + 0xFF0
        places[FRAMES[TSS] + number * PAGE_SIZE] = struct.pack("<III", 0, top, 0x10) + bytes(92)
    for at in DATA:
        places[at] = struct.pack("<I", at) * 1024
    more = tuple(Segment(GPA(at), data, len(data)) for at, data in sorted(places.items()))
    return replace(program, segments=(*program.segments, *more))


def _run(
    image: Image, *, quick: bool = True, says: bool = True, listened_to: bool = False
) -> tuple[Stage, list[object]]:
    """A guest to its end, and all that there is to see of it: mirrors, memory, time, size of the pool."""
    stage = Stage(image, "native", pool_pages=200, holes=(HOLE >> 12,))
    stage.bus.unsubscribe(stage.bus.subscribers[0])
    if listened_to:
        stage.bus.subscribe(stage.events.append, PageTableWrite)
    space = stage.guest.space
    space.stores.quick.enabled, space.stores.quick.says = quick, says
    prepare = space.prepare
    space.prepare = lambda: (prepare(), list(space.mirror.space.holes()))[0]  # type: ignore[method-assign]
    status = stage.run(LIMIT)
    for mirror in space.tables.mirrors:
        space.tables.mirror_for(mirror.mode)
    mirrors = [(list(one.kernel.entries()), list(one.user.entries())) for one in space.tables.mirrors]
    holes = [list(one.space.holes()) for one in space.tables.mirrors]
    return stage, [
        status, str(stage.error), mirrors, holes, stage.guest_ram(), stage.guest.now, space.pool.free, space.region.base
    ]  # fmt: skip


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("seed", range(6))
def test_what_machine_code_follows_is_as_if_python_had(seed: int, size: int, apart: bool) -> None:
    image = _image(_operations(seed, size), size, write_protect=seed % 3 != 2, apart=apart)
    by_python, expected = _run(image, says=False)
    assert by_python.error is None, by_python.error
    by_machine, found = _run(image)
    stores = by_machine.guest.space.stores.quick
    assert stores.unasked_count > 50
    assert stores.count == by_python.guest.space.stores.quick.count
    assert not by_python.guest.space.stores.quick.unasked_count
    assert found == expected
    if apart:  # else what waits behind a store in its basic block is followed sooner where that ends the run
        _, plain = _run(image, quick=False)
        assert found == plain


def _cases(size: int) -> dict[str, list[Operation]]:
    """What Python has to see to while it has said that machine code is to follow stores to `KNOWN`."""

    def at(table: int, index: int) -> int:
        return table + size * index

    first = ("burst", at(KNOWN, 0), DATA[0] | ALL, 0)
    next_one = ("burst", at(KNOWN, 1), DATA[1] | ALL, 0)
    less = ("store", _above(KNOWN, size), KNOWN | 0x65, 0)
    read = ("peek", KNOWN, 0, 0)  # brings its page into the engine's TLB, without which Python sees the first store
    look = ("back", BASE + 0x1008, 0, 0)
    of_supervisor = ("burst", at(SUPERVISORS, 0), DATA[0] | 0x63, 0)
    return {
        "the user's view has no table": [of_supervisor, ("burst", at(SUPERVISORS, 1), DATA[1] | ALL, 0), first, look],
        "another store waits": [("burst", at(TWICE, 1), 0x1066, 0), first, ("store", at(TWICE, 1), DATA[3] | ALL, 0),
                                next_one, ("peek", _linear(TWICE, size) + 0x1000, 0, 0), look],
        "what leads to the table allows less": [first, less, read, next_one],
        "... and another table is known since": [first, less, of_supervisor, read, of_supervisor, next_one],
        "nothing was shown before": [("burst", at(KNOWN, 0), 0x7FFFF000 | ALL, 0), first, next_one, look],
        "there is no memory": [first, ("burst", at(KNOWN, 0), 0x7FFFF000 | ALL, 0), look],
        "a hole in memory": [first, ("burst", at(KNOWN, 0), HOLE | ALL, 0), look],
    }  # fmt: skip


@pytest.mark.parametrize("name", _cases(4))
@pytest.mark.parametrize("size", [4, 8])
def test_what_is_not_simple_is_left_to_python(name: str, size: int) -> None:
    warm = [("burst", KNOWN, DATA[0] | ALL, 0), ("store", DATA[0], 0, 0)] * 2  # Python is told of blocks that are new
    image = _image([*warm, *_cases(size)[name], ("end", 0, 0, 0)], size)
    _, expected = _run(image, quick=False)
    stage, found = _run(image)
    assert stage.error is None
    assert stage.guest.space.stores.quick.unasked_count >= 3
    assert found == expected


@pytest.mark.parametrize("size", [4, 8])
def test_who_listens_hears_of_each_and_changes_nothing(size: int) -> None:
    image = _image(_operations(3, size), size)
    alone, expected = _run(image)
    stage, found = _run(image, listened_to=True)
    assert found == expected
    assert not stage.guest.space.stores.quick.unasked_count
    assert len(stage.events) > alone.guest.space.stores.quick.unasked_count > 50


def test_who_begins_to_listen_between_two_runs_hears_of_all_that_follows() -> None:
    image = _image(_operations(4, 4), 4)
    _, whole = _run(image, listened_to=True)
    stage = Stage(image, "native", pool_pages=200, holes=(HOLE >> 12,))
    stage.bus.unsubscribe(stage.bus.subscribers[0])
    guest = stage.guest
    plain = type(guest.space).prepare

    def listen_later() -> None:
        if guest.space.stores.quick.unasked_count > 20 and not stage.bus.subscribers:
            stage.bus.subscribe(stage.events.append, PageTableWrite)
        plain(guest.space)

    guest.space.prepare = listen_later  # type: ignore[method-assign]
    assert stage.run(LIMIT) == whole[0]
    last = guest.space.stores.quick.unasked_count
    assert 20 < last < 40
    assert len(stage.events) > 100
    assert stage.guest_ram() == whole[4]
    assert guest.now == whole[5]


_LONG = """
.origin 0x100000
.entry start
start:
    cli
    mov eax, 0x20
    mov cr4, eax
    mov eax, 0x110000
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    lgdt [gdt_pointer]
    jmp 0x08:wide
.code64
wide:
    movabs rbx, 0xffff800000000000      ; what 0x114000 maps
    mov ecx, 40
    mov eax, 0x180063
    mov edx, 0x185067
again:
    mov [0x114010], rax
    jmp first
first:
    mov r8, [rbx + 0x2000]              ; what was just mapped
    add [0x10c000], r8
    jmp second
second:
    mov [0x114fe8], rdx
    jmp third
third:
    mov r8, [rbx + 0x1fd000]
    imul r8, rcx
    xor [0x10c008], r8
    add eax, 0x1000
    and eax, 0x187fff
    xor edx, 0x3000
    dec ecx
    jnz again
    hlt
.align 8
gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .long gdt
"""


def test_a_table_of_the_upper_half_of_64_bits() -> None:
    program = assemble_text(_LONG)
    places = {
        0x110000: {0: 0x111000, 256: 0x112000}, 0x111000: {0: 0x113000}, 0x112000: {0: 0x115000},
        0x113000: {0: 0x116000}, 0x115000: {0: KNOWN}, 0x116000: {page: page << 12 for page in range(MEMORY >> 12)},
        KNOWN: {index: DATA[index % 8] for index in range(512)},
    }  # fmt: skip
    tables = {
        at: b"".join((entries[index] | ALL if index in entries else 0).to_bytes(8, "little") for index in range(512))
        for at, entries in places.items()
    }
    tables |= {at: struct.pack("<Q", at * at) * 512 for at in DATA}
    more = tuple(Segment(GPA(at), data, len(data)) for at, data in sorted(tables.items()))
    image = replace(program, segments=(*program.segments, *more))
    _, plain = _run(image, quick=False)
    _, expected = _run(image, says=False)
    stage, found = _run(image)
    assert stage.error is None
    assert stage.guest.space.stores.quick.unasked_count > 60
    assert found == expected == plain
    assert stage.memory.read(0x10C000, 16) != bytes(16)
