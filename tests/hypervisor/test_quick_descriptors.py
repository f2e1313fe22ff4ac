"""What machine code and Python know of a guest's levels, against what the guest has changed since: descriptors that it
has stored to, the region's place, and the flags."""

from __future__ import annotations

import random

import pytest

from hvproto.addresses import GVA
from hvproto.errors import LimitReached
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.machine.ram import MIB
from hvproto.processor import private_layout
from tests.hypervisor.stage import Stage, bare
from tests.hypervisor.test_quick_exits import LIMIT, MEMORY, check_alike, differences
from tests.hypervisor.test_quick_transfers import program
from tests.support.beginnings import FLAT

pytestmark = pytest.mark.skipif(private_layout.self_check() is not None, reason="no native engine here")

# A kernel whose GDT has a page to itself; 16 MiB are mapped one to one. What it finds is left from EBP on.
_START = f"""
.origin 0x100000
.entry start
start:
{FLAT}
    mov esp, 0x88000
    mov edi, 0x10000
    mov ecx, 4
    mov eax, 0x11067
1:  mov [edi], eax
    add edi, 4
    add eax, 0x1000
    loop 1b
    mov edi, 0x11000
    mov eax, 0x67
    mov ecx, 4096
2:  mov [edi], eax
    add edi, 4
    add eax, 0x1000
    loop 2b
    mov eax, 0x10000
    mov cr3, eax
    mov eax, 0x80010001
    mov cr0, eax
    mov ebp, 0x600000
"""
_END = """
    mov al, 0
    out 0xf4, al
    hlt
nothing: iretd
absent:                                 ; #NP: what it says, and the code segment is there again
    pop eax
    mov [ebp], eax
    mov eax, [esp]
    mov [ebp + 4], eax
    add ebp, 8
    mov byte ptr [gdt + 8 + 5], 0x9b
    iretd
gdtr: .word 0x27
    .long gdt
idtr: .word 0x7ff
    .long idt
.align 4096
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
.align 4096
idt: .space 11 * 8
    .word absent & 0xffff, 0x20, 0x8e00, absent >> 16
    .space (0x81 - 12) * 8
    .word nothing & 0xffff, 8, 0x8e00, nothing >> 16
    .space 0x7e * 8
"""


def _check(body: str, found_up_to: int) -> None:
    image = assemble_text(_START + body + _END)
    _, found = check_alike(image)
    alone = bare(image, memory=MEMORY, limit=LIMIT)
    assert found["status"] == (alone.status, "") == (1, "")
    assert found["memory"][0x600000:found_up_to] == alone.guest_ram()[0x600000:found_up_to]
    assert any(found["memory"][0x600000:found_up_to])


def test_a_load_of_a_changed_segment_goes_on_in_its_block_whatever_came_between() -> None:
    _check(
        """
    mov ebx, 20
again:
    add word ptr [gdt + 0x18 + 2], 4
    cli
    mov eax, 0x18
    mov fs, eax
    mov ecx, fs:[0x100000]
    mov [ebp], ecx
    add ebp, 4
    dec ebx
    jnz again
""",
        0x600050,
    )


def test_a_load_from_known_descriptors_sees_that_one_has_been_closed() -> None:
    """The kernel loads a selector over and over again, closes it, and loads it in the same run."""
    _check(
        """
    mov eax, 0x18
    mov ebx, 3
again:
    cli
    mov fs, eax
    mov fs, eax
    dec ebx
    jnz again
    add word ptr [gdt + 0x18 + 2], 4
    cli
    pushfd
    popfd
    mov fs, eax
    mov ecx, fs:[0x100000]
    mov [ebp], ecx
""",
        0x600004,
    )


def test_a_call_goes_by_the_descriptor_not_by_what_was_loaded_from_it() -> None:
    _check(
        """
    int 0x81
    and byte ptr [gdt + 8 + 5], 0x7f
    xor eax, eax
    cpuid                               ; an exit in full: the level is looked at anew
    cli
    int 0x81
""",
        0x600008,
    )


def test_flags_popped_from_a_page_whose_table_is_code_are_those_that_are_set_next() -> None:
    """POPF sets an A bit in a page that is executed: that has to be followed, and nothing is decided before it is."""
    _check(
        """
    mov byte ptr [0x14ffc], 0xc3        ; RET, in the entry of a page that nobody uses
    mov eax, 0x14ffc
    call eax
    mov ebx, 3                          ; what is translated for the first time is heard of
again:
    mov dword ptr [0xd00ff0], 2
    and dword ptr [0x14000 + 0x100*4], ~0x60
    invlpg [0xd00000]
    mov ecx, esp
    cli
    sti
    nop
    mov esp, 0xd00ff0
    popfd
    sti
    nop
    mov esp, ecx
    pushfd
    pop eax
    mov [ebp], eax
    add ebp, 4
    dec ebx
    jnz again
    cli
""",
        0x60000C,
    )


def _moved(image: Image, seed: int, *, enabled: bool) -> dict[str, object]:
    """The guest to its end, with the region moved at random times."""
    draw = random.Random(seed)
    stage = Stage(image, "native", memory=MEMORY, pool_pages=2048, ram_size=64 * MIB)
    guest, processor = stage.guest, stage.machine.processor
    stage.bus.unsubscribe(stage.events.append)
    guest.quick.enabled = enabled
    processor.count_instructions()
    moves = 0
    for limit in (*sorted(draw.randrange(49_500, 60_000) for _ in range(12)), LIMIT):
        try:
            status = stage.run(limit)
            break
        except LimitReached as reached:
            guest.error = None
            if reached.where.eip is not None and not guest.region.contains(reached.where.eip):
                guest.space.move_region(GVA(0xD0000000 + draw.randrange(0x1000) * 0x8000))
                moves += 1
    assert moves
    return {"status": status, "error": str(stage.error or ""), "memory": stage.guest_ram(),
            "time": processor.now, "instructions": processor.instructions}  # fmt: skip


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_program_calls_its_kernel_wherever_the_region_has_gone(seed: int) -> None:
    image = program(seed, 80)
    quick, plain = (_moved(image, seed, enabled=enabled) for enabled in (True, False))
    assert quick["status"] == 1, quick["error"]
    assert differences(quick, plain) == []


def test_the_table_of_another_root_is_the_one_that_counts_from_then_on() -> None:
    """A second root has a copy of the GDT's page at its place, with another base in it; then the page is exchanged."""
    _check(
        """
    mov esi, 0x10000
    mov edi, 0x20000
    mov ecx, 2048                       ; the directory, and its first table
    rep movsd
    mov dword ptr [0x20000], 0x21067
    mov esi, offset gdt
    mov edi, 0x700000
    mov ecx, 1024
    rep movsd
    mov edx, offset gdt
    shr edx, 12
    mov dword ptr [0x21000 + edx*4], 0x700067
    mov byte ptr [0x700000 + 0x18 + 4], 0x10
    mov ebx, 4
again:
    mov eax, 0x20000
    cli
    mov cr3, eax
    call look
    mov eax, 0x10000
    cli
    mov cr3, eax
    call look
    mov dword ptr [0x11000 + edx*4], 0x700067
    invlpg [gdt]
    call look
    mov ecx, offset gdt
    or ecx, 0x67
    mov dword ptr [0x11000 + edx*4], ecx
    mov eax, cr3
    mov cr3, eax
    call look
    dec ebx
    jnz again
    jmp over
look: mov eax, 0x18
    mov fs, eax
    mov ecx, fs:[0x100000]
    mov [ebp], ecx
    add ebp, 4
    ret
over:
""",
        0x600040,
    )
