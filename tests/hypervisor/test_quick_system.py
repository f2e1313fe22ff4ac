"""A kernel that switches between processes - roots, TSS, interrupts, sectors - in the engine's run, and by an exit each.

Roots come and go, more of them than mirrors are kept; their pages are touched, given other frames and other bits; the
TSS's descriptor is stored byte by byte and loaded; the timer comes when it likes; a disk's sectors are moved. All of it
is the same whoever decides, and with nothing timed the same as alone.
"""

from __future__ import annotations

import random

import pytest

from hvproto.hypervisor.pool import PoolExhausted
from hvproto.hypervisor.tables import MAX_ROOTS
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.processor import private_layout
from tests.hypervisor.stage import Stage, bare
from tests.hypervisor.test_quick_exits import LIMIT, MEMORY, check_alike
from tests.support.beginnings import FLAT, PICS_AT_40, TICKS

pytestmark = pytest.mark.skipif(private_layout.self_check() is not None, reason="no native engine here")

ROOTS = MAX_ROOTS + 4
DIRECTORIES, TABLES, FRAMES = 0x200000, 0x240000, 0x300000
WINDOW, WINDOW_PAGES = 0x40_0000, 64
SHARED = 0x280000
"""The table of the first 4 MiB, one to one: kernel, tables and frames, all roots'."""
LOG = 0x800000
PRESENT, WRITABLE, USER, ACCESSED, DIRTY = 1, 2, 4, 0x20, 0x40

_KERNEL = """
.origin 0x100000
.entry start
start:
    cli
{flat}
    mov esp, 0x188000
    mov edi, {shared}
    mov eax, 0x3
    mov ecx, 1024
fill: mov [edi], eax
    add edi, 4
    add eax, 0x1000
    loop fill
    mov edi, {log_table}                ; the log's 4 MiB, one to one
    mov eax, {log} + 0x3
    mov ecx, 1024
fill_log: mov [edi], eax
    add edi, 4
    add eax, 0x1000
    loop fill_log
    mov esi, {directories}
    mov edi, {tables}
    mov ebx, {roots}
each: mov dword ptr [esi], {shared} + 3
    lea eax, [edi + 7]
    mov [esi + 4], eax
    mov dword ptr [esi + 8], {log_table} + 3
    add esi, 0x1000
    add edi, 0x1000
    dec ebx
    jnz each
    mov eax, {directories}
    mov cr3, eax
    mov eax, cr0
    and eax, 0xfffeffff
    or eax, {cr0:#x}
    mov cr0, eax
    mov ebp, {log}
    mov ax, 0x28
    ltr ax
    {start}
    {body}
    cli
    mov al, 0
    out 0xf4, al
    hlt
handler:
    push eax
    mov eax, [esp + 4]
    mov [ebp], eax
    mov [ebp + 4], esp
    mov eax, [esp + 12]
    mov [ebp + 8], eax
    add ebp, 12
    mov al, 0x20
    out 0x20, al
    pop eax
    iretd
faulted:
    push eax
    mov eax, cr2
    mov [ebp], eax
    mov eax, [esp + 4]
    mov [ebp + 4], eax
    add ebp, 8
    pop eax
    add esp, 4
    mov dword ptr [esp], skip           ; every access that faults is followed by its own way out
    mov eax, [way_out]
    mov [esp], eax
    iretd
skip: hlt
way_out: .long 0
counter: .long 0
.align 4
patched: mov eax, 0x12345678
    ret
.align 4096
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
    .word 0x67, tss & 0xffff
    .byte tss >> 16, 0x89, 0, 0
    .quad 0x00cf93000000ffff
gdtr: .word gdtr - gdt - 1
    .long gdt
idtr: .word 0x7ff
    .long idt
.align 4096
tss: .long 0, 0x180000, 0x10
    .space 0x5c
.align 4096
idt:
    .space 14 * 8
    .word faulted & 0xffff, 8
    .byte 0, 0x8e
    .word faulted >> 16
    .space (0x40 - 15) * 8
    .word handler & 0xffff, 8
    .byte 0, 0x8e
    .word handler >> 16
    .space 0x7ff - 0x41 * 8
"""
TIMER = f"""
    {PICS_AT_40}
    mov al, 0xfe
    out 0x21, al
    {TICKS}
"""
_TSS_STORES = (
    "mov word ptr [gdt + 0x28], 0x67", "mov word ptr [gdt + 0x2a], tss & 0xffff", "mov byte ptr [gdt + 0x2c], tss >> 16",
    "mov byte ptr [gdt + 0x2d], 0x89", "mov byte ptr [gdt + 0x2e], 0", "mov byte ptr [gdt + 0x2f], 0",
    "mov ax, 0x28", "ltr ax",
)  # fmt: skip
_LOGGED = ["mov [ebp], eax", "add ebp, 4"]


class Program:
    """Actions at random, as lines of assembly."""

    def __init__(self, seed: int, *, timed: bool) -> None:
        self.draw = random.Random(seed)
        self.timed = timed
        self.lines: list[str] = []
        self.labels = 0

    def act(self) -> None:
        draw = self.draw
        actions = [self.switch, self.access, self.access, self.access, self.map, self.task, self.flags, self.store]
        actions += [self.patch, self.data_segment] + ([self.open] * 3 if self.timed else [self.sectors])
        for _ in range(draw.choice((1, 1, 1, 3))):
            draw.choice(actions)()

    def switch(self) -> None:
        """Often to one of a few, now and then to any: some mirrors are kept, others built anew."""
        root = self.draw.randrange(3 if self.draw.random() < 0.6 else ROOTS)
        register = self.draw.choice(("eax", "ecx", "edi"))
        self.lines += [f"mov {register}, {DIRECTORIES + 0x1000 * root:#x}", f"mov cr3, {register}"]

    def access(self) -> None:
        draw, self.labels = self.draw, self.labels + 1
        out = f"out{self.labels}"
        self.lines.append(f"mov dword ptr [way_out], {out}")
        for _ in range(draw.choice((1, 2, 4))):
            place = WINDOW + 0x1000 * draw.randrange(WINDOW_PAGES) + 4 * draw.randrange(1024)
            self.lines.append(
                draw.choice((f"mov eax, [{place:#x}]", f"mov [{place:#x}], ebp", f"add dword ptr [{place:#x}], 3"))
            )
        self.lines += [*_LOGGED, f"{out}:"]

    def map(self) -> None:
        """Entries of one root's table, with A and D or without, present or not; what it maps now is loaded anew."""
        draw, root = self.draw, self.draw.randrange(ROOTS)
        for _ in range(draw.choice((1, 2, 8))):
            bits = PRESENT * (draw.random() < 0.9) | WRITABLE * (draw.random() < 0.7) | USER * draw.randrange(2)
            bits |= ACCESSED * draw.randrange(2) | DIRTY * (draw.random() < 0.3)
            entry = FRAMES + 0x1000 * draw.randrange(128) | bits
            place = TABLES + 0x1000 * root + 4 * draw.randrange(WINDOW_PAGES)
            self.lines.append(f"mov dword ptr [{place:#x}], {entry:#x}")
        if draw.random() < 0.2:
            bits = draw.choice((7, 5, 3, 0x27))
            self.lines.append(
                f"mov dword ptr [{DIRECTORIES + 0x1000 * root + 4:#x}], {TABLES + 0x1000 * root + bits:#x}"
            )
        self.lines += ["mov eax, cr3", "mov cr3, eax"]

    def task(self) -> None:
        stores = list(_TSS_STORES)
        if self.draw.random() < 0.2:
            stores.insert(-2, f"mov word ptr [gdt + 0x28], {self.draw.choice((0x67, 0x6F, 0x1FF)):#x}")
        self.lines += [*stores, "str eax", *_LOGGED, "mov eax, [gdt + 0x2c]", *_LOGGED]

    def flags(self) -> None:
        self.lines += self.draw.choice((["pushfd", "pop eax", *_LOGGED], ["cli"], ["pushfd", "cli", "popfd"], ["nop"]))

    def open(self) -> None:
        self.lines += self.draw.choice(
            (
                ["sti"],
                ["sti", "nop", "cli"],
                ["sti", "cli"],
                ["sti", "pushfd", "pop eax", *_LOGGED],
                ["sti", "hlt", "cli"],
            )
        )

    def store(self) -> None:
        """To data in a page of code."""
        self.lines += [f"add dword ptr [counter], {self.draw.randrange(99)}", "mov eax, [counter]", *_LOGGED]

    def patch(self) -> None:
        """Code that is changed by stores."""
        self.lines += [f"mov dword ptr [patched + 1], {self.draw.getrandbits(32):#x}"] * self.draw.randrange(2)
        if self.draw.random() < 0.2:
            self.lines += [f"mov byte ptr [patched], {self.draw.choice((0xB8, 0xB8, 0x05, 0x2D)):#x}"]
        self.lines += ["call patched", *_LOGGED]

    def data_segment(self) -> None:
        base = self.draw.choice((0, 0, 0x1000, 0x2000))
        self.lines += [f"mov word ptr [gdt + 0x32], {base:#x}", "mov ax, 0x30", "mov es, ax", "mov eax, es:[0x100000]"]
        self.lines += [*_LOGGED, "mov ax, 0x10", "mov es, ax"]

    def sectors(self) -> None:
        """A sector of the disk, by REP INSD or REP OUTSD, now and then across two pages, or backwards."""
        draw = self.draw
        is_input = draw.random() < 0.5
        place = SHARED + 0x10000 + draw.choice((0, 4, 0xE00, 0xE10, 0xFFC))
        steps = ("edi", 0x20, "insd") if is_input else ("esi", 0x30, "outsd")
        for port, value in (
            (0x1F6, 0xE0),
            (0x1F2, 1),
            (0x1F3, draw.randrange(32)),
            (0x1F4, 0),
            (0x1F5, 0),
            (0x1F7, steps[1]),
        ):
            self.lines += [f"mov edx, {port:#x}", f"mov al, {value:#x}", "out dx, al"]
        self.labels += 1
        self.lines += [f"wait{self.labels}: in al, dx", "test al, 0x80", f"jnz wait{self.labels}"]
        count = draw.choice((128, 128, 127, 1))
        self.lines += ["mov edx, 0x1f0", f"mov {steps[0]}, {place:#x}", f"mov ecx, {count}", f"rep {steps[2]}"]
        self.lines += [
            f"mov ecx, {128 - count}",
            *(["std", f"rep {steps[2]}", "cld"] if draw.random() < 0.3 else [f"rep {steps[2]}"]),
        ]
        self.lines += [f"mov eax, {steps[0]}", *_LOGGED, "mov eax, [esi - 4]", *_LOGGED]


def program(seed: int, count: int, *, timed: bool) -> Image:
    made = Program(seed, timed=timed)
    for _ in range(4):
        made.map()
    while len(made.lines) < count:
        made.act()
    start = TIMER.format(ticks=made.draw.randrange(40, 120)) if timed else ""
    cr0 = made.draw.choice((0x80000001, 0x80010001))
    return assemble_text(text("\n".join(made.lines), start=start, cr0=cr0), "<system>")


def text(body: str, *, start: str, cr0: int) -> str:
    """The kernel with this body; ``start`` comes before it, and may be `TIMER`."""
    return _KERNEL.format(
        flat=FLAT, shared=SHARED, log_table=SHARED + 0x1000, log=LOG, directories=DIRECTORIES,
        tables=TABLES, roots=ROOTS, cr0=cr0, start=start, body=body,
    )  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 6])
def test_processes_that_change_are_the_same_whoever_decides(seed: int) -> None:
    count, found = check_alike(program(seed, 700, timed=True))
    assert count > 100
    assert found["status"] == (1, ""), found["status"][1]


@pytest.mark.parametrize("seed", range(10, 16))
def test_processes_that_change_are_the_same_as_alone(seed: int) -> None:
    image = program(seed, 700, timed=False)
    count, found = check_alike(image)
    assert count > 100
    alone = bare(image, memory=MEMORY, limit=LIMIT)
    assert found["status"] == (alone.status, "") == (1, ""), found["status"][1]
    assert found["memory"] == alone.guest_ram()


def test_a_string_is_moved_by_the_segment_that_was_loaded_just_before() -> None:
    """Nobody but the processor hears of the load."""
    body = """
    mov word ptr [gdt + 0x32], 0x1000
    mov ecx, 3
again:
    push ecx
    mov edx, 0x1000                     ; nobody's port: all ones
    mov ax, 0x10
    mov es, ax
    mov edi, 0x300000
    mov ecx, 4
    rep insd
    mov ax, 0x30
    mov es, ax
    mov edi, 0x310000
    mov ecx, 4
    rep insd
    pop ecx
    dec ecx
    jnz again
"""
    image = assemble_text(text(body, start="", cr0=0x80010001), "<segments>")
    _, found = check_alike(image)
    alone = bare(image, memory=MEMORY, limit=LIMIT)
    assert found["status"] == (alone.status, "") == (1, "")
    assert found["memory"] == alone.guest_ram()
    assert found["memory"][0x311000:0x311010] == b"\xff" * 16 and not any(found["memory"][0x310000:0x310010])


@pytest.mark.parametrize("pool_pages", [*range(36, 60, 3)])
def test_a_root_that_wants_the_regions_place_comes_in_with_however_little_memory(pool_pages: int) -> None:
    """MOV to CR3 of a root that maps the top of linear memory, where the region is, while only one mirror fits."""
    body = """
    mov edi, 0x290000
    mov eax, 0x300003
    mov ecx, 1023
top: mov [edi], eax
    add edi, 4
    loop top
    mov dword ptr [0x201ffc], 0x290003
    mov ecx, 4
again:
    mov eax, 0x201000
    mov cr3, eax
    add ebx, [0xffffe000]
    mov eax, 0x200000
    mov cr3, eax
    dec ecx
    jnz again
    mov [ebp], ebx
"""
    image = assemble_text(text(body, start="mov dword ptr [0x300000], 5", cr0=0x80010001), "<top>")
    ends = []
    for enabled in (True, False):
        stage = Stage(image, "native", memory=MEMORY, pool_pages=pool_pages, ram_size=64 << 20)
        stage.bus.unsubscribe(stage.events.append)
        stage.guest.quick.enabled = enabled
        try:
            ends.append((stage.run(LIMIT), str(stage.error or "")))
        except PoolExhausted:
            ends.append((None, "no memory"))
    assert ends[0] == ends[1]
    assert ends[0] in ((1, ""), (None, "no memory"))
