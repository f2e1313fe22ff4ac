"""Page faults that only the mirror has, dealt with by machine code: the bits that the guest's tables get, and who hears."""

from __future__ import annotations

import pytest

from hvproto.addresses import GPA
from hvproto.errors import LimitReached
from hvproto.hypervisor.mirror import Mirror
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.processor import private_layout
from tests.hypervisor.stage import Stage, bare

pytestmark = pytest.mark.skipif(private_layout.self_check() is not None, reason="no native engine here")

MIB = 1 << 20
TABLE, WINDOW, PAGES = 0x112000, 0x400000, 512
_TWO_LEVEL = """
    mov dword ptr [0x110000], 0x111027
    mov dword ptr [0x110004], 0x112027
    mov eax, 0x110000
    mov cr3, eax
"""
_PAE = """
    mov dword ptr [0x10f000], 0x110001
    mov dword ptr [0x110000], 0x111027
    mov dword ptr [0x110008], 0x113027
    mov dword ptr [0x110010], 0x112027
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, 0x10f000
    mov cr3, eax
"""


def kernel(size: int, body: str, cr0: int = 0x80010001) -> Image:
    """Identity for 4 MiB, A set or not; the window's pages go to 1 MiB from 2 MiB on, with A and D clear."""
    identity = 0x111000, (4 * MIB if size == 4 else 2 * MIB) // 0x1000
    return assemble_text(
        f"""
.origin 0x100000
.entry start
start:
    cli
    mov esp, 0x10e000
    lgdt [pointer]
    mov edi, {identity[0]:#x}
    mov eax, 0x63
    mov ecx, {identity[1]}
fill: mov [edi], eax
    add edi, {size}
    add eax, 0x1000
    loop fill
    {"" if size == 4 else "mov edi, 0x113000"}
    {"" if size == 4 else "mov ecx, 512"}
    {"" if size == 4 else "more: mov [edi], eax; add edi, 8; add eax, 0x1000; loop more".replace("; ", chr(10))}
    mov edi, {TABLE:#x}
    mov eax, 0x200003
    mov ecx, {PAGES}
window: mov [edi], eax
    add edi, {size}
    add eax, 0x1000
    loop window
    {_TWO_LEVEL if size == 4 else _PAE}
    mov eax, {cr0:#x}
    mov cr0, eax
    {body}
done: hlt
.align 8
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
pointer: .word 23
    .long gdt
""",
        "<hidden>",
    )


def touches(pages: str) -> str:
    """Each fourth page is read, each fourth is stored to, another fourth both, one after the other."""
    return f"""
    mov esi, {WINDOW:#x}
    mov ecx, {pages}
touch: mov eax, [esi]
    mov [esi + 0x1000], ecx
    add eax, [esi + 0x2000]
    mov [esi + 0x2004], eax
    add esi, 0x4000
    dec ecx
    jnz touch
"""


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The linear addresses for which Python was asked."""
    asked: list[int] = []
    plain = Mirror.touch

    def touch(mirror: Mirror, linear: int, *, write: bool, user: bool) -> bool:
        asked.append(linear)
        return plain(mirror, linear, write=write, user=user)

    monkeypatch.setattr(Mirror, "touch", touch)
    return asked


def unheard(image: Image) -> Stage:
    stage = Stage(image, "native", memory=4 * MIB, ram_size=16 * MIB, pool_pages=1024)
    stage.bus.unsubscribe(stage.events.append)
    return stage


@pytest.mark.parametrize("size", [4, 8], ids=["2-level", "PAE"])
@pytest.mark.parametrize("cr0", [0x80010001, 0x80000001], ids=["WP", "no WP"])
def test_the_guests_bits_are_set_as_alone_and_nobody_is_asked(size: int, cr0: int, touched: list[int]) -> None:
    image = kernel(size, touches(str(PAGES // 4)), cr0)
    stage = unheard(image)
    assert stage.run() == 0, stage.error
    alone = bare(image, memory=4 * MIB)
    assert stage.guest_ram() == alone.guest_ram()
    table = stage.guest_ram()[TABLE : TABLE + PAGES * size]
    assert [table[size * page] & 0x60 for page in range(4)] == [0x20, 0x60, 0x60, 0]
    assert stage.guest.quick.count > PAGES * 3 // 4
    assert len([one for one in touched if one >= WINDOW]) < 10


def test_who_comes_to_watch_a_table_hears_of_each_bit_from_then_on(touched: list[int]) -> None:
    second = touches("64").replace("touch", "again").replace(f"{WINDOW:#x}", "0x480000")
    image = kernel(4, f"{touches('32')}mov ecx, 100000\nbusy: loop busy\n{second}")
    stage = unheard(image)
    with pytest.raises(LimitReached):
        stage.run(100_000)
    assert 0 < len(touched) < 10
    stage.guest.error = None  # the limit is no end
    heard: list[int] = []
    stage.guest.on_write([GPA(TABLE)], lambda gpa, _size: heard.append((gpa - TABLE) // 4))
    before = len(touched)
    assert stage.run() == 0, stage.error
    assert {*range(128, 384)} - {*range(131, 384, 4)} <= {*heard}, "the second part is all of it"
    assert len(touched) > before + 200, "Python has seen to it"


def test_a_page_that_becomes_code_is_not_left_writable_by_machine_code() -> None:
    """Data and code in one slot, data that is touched first, code that is written to pages of the same table."""
    body = f"""
    mov esi, {WINDOW:#x}
    mov ebx, 16
each: mov eax, [esi + 0x8000]
    mov dword ptr [esi], 0xc3034890     ; nop; dec eax; add eax, ebx; ret, in part
    mov byte ptr [esi + 1], 0x90
    mov word ptr [esi + 2], 0xc343
    call esi
    mov byte ptr [esi + 2], 0x4b        ; dec ebx now
    call esi
    mov byte ptr [esi + 2], 0x4b
    call esi
    add esi, 0x10000
    test ebx, ebx
    jnz each
"""
    image = kernel(4, body)
    stage = unheard(image)
    assert stage.run() == 0, stage.error
    assert stage.guest_ram() == bare(image, memory=4 * MIB).guest_ram()
