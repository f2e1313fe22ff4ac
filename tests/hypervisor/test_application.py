"""The plan `application`: a guest inside a process of the host comes to what it comes to alone, by figure 1's way."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import pytest

from hvproto import bundled
from hvproto.bundled import kernel_path
from hvproto.errors import LimitReached, NoMemory, RunError, TripleFault, Unsupported, World
from hvproto.events import Event, EventBus
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.session import Session
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.processor.settings import Setting
from tests.hypervisor.test_twins import LIMIT, MEASURES_TIME, alone, differing_symbols, image_of

ALL = ("hello", "selfmap", "ptwrites", "spin", "guest", "compare")


@cache
def host() -> Image:
    return load_image(str(kernel_path("host")))


def session_of(guest: Image, engine: str | None = None) -> tuple[Session, list[Event]]:
    seen: list[Event] = []
    bus = EventBus()
    bus.subscribe(seen.append)
    return Session(host(), [guest], Plan.parse("application"), bus=bus, engine=engine), seen


@cache
def inside(name: str, engine: str | None = None) -> tuple[Session, list[Event]]:
    session, seen = session_of(image_of(name), engine)
    assert session.run(LIMIT) == 0
    return session, seen


def word_of_host(session: Session, name: str) -> int:
    at = host().symbols[name]
    return int.from_bytes(session.machine.ram.view[at : at + 4], "little")


@pytest.mark.parametrize("name", ALL)
def test_a_guest_comes_to_what_it_comes_to_alone(name: str) -> None:
    """Output and all 16 MiB of memory: page tables with their A and D bits, stacks, everything."""
    session, _ = inside(name)
    bare = alone(name)
    assert session.guests[0].output == bare.output
    one, other = bytes(session.machine.ram.view[: 16 << 20]), bare.guest_ram()
    assert differing_symbols(image_of(name), one, other) <= MEASURES_TIME.get(name, set())


def test_no_setting_is_replaced_and_every_exception_comes_through_the_host() -> None:
    session, seen = inside("guest")
    kinds = {event.kind for event in seen}
    assert "ExceptionTaken" in kinds
    assert not kinds & {"SettingSaved", "SettingReplaced", "Decoupled", "SettingRestored", "Recoupled", "Relocated"}
    lines = [json.loads(event.to_json()) for event in seen if event.kind == "ExceptionTaken"]
    assert {line["route"] for line in lines} == {"host", "handle"}
    assert {line["vector"] for line in lines if line["route"] == "host"} >= {0, 6, 13, 14, 0x20, 0x80}
    # The program of the guest divides by zero once, and it is the host's kernel that counts it.
    assert word_of_host(session, "divide_errors") == 1


def test_the_processor_keeps_the_hosts_settings() -> None:
    session, _ = session_of(image_of("compare"))
    processor = session.machine.processor
    kept: set[tuple[object, ...]] = set()
    tables = set()

    def look(event: Event) -> None:
        if event.kind == "ExceptionTaken":
            names = (Setting.IDTR, Setting.GDTR, Setting.CR0, Setting.CR4, Setting.EFER)
            kept.add(tuple(processor.read_setting(setting) for setting in names))
            tables.add(processor.control(Setting.CR3))

    session.bus.subscribe(look)
    assert session.run(LIMIT) == 0
    assert len(kept) == 1
    assert tables == {host().symbols["emulator_directory"]}
    ((idtr, *_),) = kept
    assert idtr.base == host().symbols["kernel_idt"]  # type: ignore[attr-defined]


def test_the_host_goes_on_living() -> None:
    session, _ = inside("guest")
    assert word_of_host(session, "ticks") == session.machine.board.pit.raised > 50
    assert word_of_host(session, "worker_count") > 100
    assert b"killed" not in session.machine.debug_output and b"changed" not in session.machine.debug_output


def test_two_runs_are_identical_and_so_are_the_engines(both_engines: tuple[str, str]) -> None:
    _, one = inside("compare", both_engines[0])
    session, again = session_of(image_of("compare"), both_engines[0])
    assert session.run(LIMIT) == 0
    assert [event.to_json() for event in one] == [event.to_json() for event in again]
    _, other = inside("compare", both_engines[1])
    assert [event.to_json() for event in one] == [event.to_json() for event in other]


def test_an_error_is_the_guests_and_says_where() -> None:
    session, _ = session_of(image_of("forever"))
    with pytest.raises(LimitReached) as caught:
        session.run(10_000_000)
    assert (caught.value.where.world, caught.value.where.symbol) == (World.GUEST, "forever")
    session, _ = session_of(image_of("triple"))
    with pytest.raises(TripleFault) as fault:
        session.run(LIMIT)
    assert (fault.value.where.world, fault.value.where.symbol) == (World.GUEST, "last_words")


KERNEL = """
.origin 0x100000
.entry start
start:
    mov esp, 0x90000
    {body}
    cli
    hlt
.align 8
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cf93100000ffff, 0x008f9b000000ffff
gdt_pointer:
    .word 39
    .long gdt
"""
PAGING = """
    mov dword ptr [0x10000], 0x83       ; 4 MiB one to one, and at 32 MiB once more
    mov dword ptr [0x10020], 0x83
    mov eax, cr4
    or eax, 0x10
    mov cr4, eax
    mov eax, 0x10000
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
"""
SEGMENTS = "lgdt [gdt_pointer]\n"


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (PAGING + "mov eax, [0x2000000]", Unsupported, "0x02000000"),
        ("mov eax, cr0\nand al, 0xfe\nmov cr0, eax", Unsupported, "real mode"),
        ("mov ecx, 0xc0000080\nmov eax, 0x100\nxor edx, edx\nwrmsr", Unsupported, "long mode"),
        ("mov ecx, 0xc0000080\nmov eax, 0x800\nxor edx, edx\nwrmsr", Unsupported, "aren't to be executed"),
        (SEGMENTS + "mov ax, 0x18\nmov fs, ax", Unsupported, "FS can't begin at 0x100000"),
        (SEGMENTS + "jmp 0x20:next\nnext: nop", Unsupported, "16-bit code"),
        ("mov eax, 0x100000\nmov dr0, eax\nmov eax, 1\nmov dr7, eax", Unsupported, "breakpoints"),
        ("mov eax, [0x1000000]", NoMemory, "0x1000000"),
    ],
)  # fmt: skip
def test_what_a_process_cannot_be_has_a_name(body: str, error: type[RunError], words: str) -> None:
    session, _ = session_of(assemble_text(KERNEL.format(body=body)))
    with pytest.raises(error) as caught:
        session.run(LIMIT)
    assert words in str(caught.value)
    assert caught.value.where.world is World.GUEST


def test_sensitive_instructions_show_the_guests_own_state() -> None:
    """What a program may execute without a fault: each answer is the guest's, not the host's."""
    body = (
        SEGMENTS
        + """
    jmp 0x08:loaded
loaded:
    mov ax, 0x10
    mov ds, ax
    mov ss, ax
    mov ax, cs
    movzx eax, ax
    mov [0x2000], eax
    push ds
    pop eax
    mov [0x2004], eax
    sgdt [0x2008]
    mov edx, 0x00200002
    push edx
    popfd
    pushfd
    pop dword ptr [0x2010]
    smsw eax
    mov [0x2014], eax
    mov word ptr [0x2018], ss
    """
    )
    image = assemble_text(KERNEL.format(body=body))
    session, _ = session_of(image)
    assert session.run(LIMIT) == 0
    words = [int.from_bytes(session.machine.ram.view[0x2000 + at :][:4], "little") for at in range(0, 28, 4)]
    gdt = image.symbols["gdt"]
    assert words[:2] == [0x08, 0x10]
    assert (words[2] & 0xFFFF, words[2] >> 16 | (words[3] & 0xFFFF) << 16) == (39, gdt)
    assert words[4] == 0x00200002
    assert words[5] & 0x8000_0001 == 1 and words[6] == 0x10


def test_a_task_switched_flag_of_the_guests_own_traps_the_floating_point_unit() -> None:
    body = (
        SEGMENTS
        + """
    jmp 0x08:loaded
loaded:
    mov eax, handler
    mov [0x3000 + 7 * 8], ax
    mov word ptr [0x3000 + 7 * 8 + 2], 0x08
    mov word ptr [0x3000 + 7 * 8 + 4], 0x8e00
    shr eax, 16
    mov [0x3000 + 7 * 8 + 6], ax
    lidt [idt_pointer]
    fld1                                ; free to go
    mov eax, cr0
    or eax, 8
    mov cr0, eax
    fld1                                ; #NM: the handler clears TS, and it goes on
    fnstsw ax
    mov [0x2004], eax
    jmp out
handler:
    inc dword ptr [0x2000]
    clts
    iret
.align 4
idt_pointer:
    .word 0x7ff
    .long 0x3000
out:
    """
    )
    session, _ = session_of(assemble_text(KERNEL.format(body=body)))
    assert session.run(LIMIT) == 0
    view = session.machine.ram.view
    assert int.from_bytes(view[0x2000:0x2004], "little") == 1
    assert view[0x2005] >> 3 & 7 == 6  # TOP: two numbers are on the stack


def test_sse_is_there_if_the_guest_and_the_host_have_it(tmp_path: Path) -> None:
    """Without the guest's own CR4.OSFXSR it is #UD as on the bare machine; without the host's, a program has none."""
    sse = "movups xmm0, [0x1000]\n"
    session, _ = session_of(assemble_text(KERNEL.format(body=sse)))
    with pytest.raises(TripleFault, match="#UD"):
        session.run(LIMIT)
    on = assemble_text(KERNEL.format(body="mov eax, cr4\nor eax, 0x200\nmov cr4, eax\n" + sse))
    session, _ = session_of(on)
    assert session.run(LIMIT) == 0
    shutil.copytree(bundled.folder(), tmp_path / "guests")
    path = tmp_path / "guests" / "host.asm"
    text = path.read_text()
    assert text.count("or eax, 0x200 ") == 1
    path.write_text(text.replace("or eax, 0x200 ", "or eax, 0 "))
    session = Session(load_image(str(path)), [on], Plan.parse("application"))
    with pytest.raises(Unsupported, match="no SSE"):
        session.run(LIMIT)


def test_a_guest_that_spoils_the_emulation_programs_own_page_hurts_nobody_else() -> None:
    """The two pages of the emulation program lie in its guest's reach; the host's kernel and the worker do not."""
    block = host().symbols["run_block"]
    session, _ = session_of(assemble_text(KERNEL.format(body=f"mov dword ptr [{block:#x}], 0x12345678")))
    with pytest.raises(RunError, match="magic 0x12345678"):
        session.run(LIMIT)
    session, _ = session_of(assemble_text(KERNEL.format(body=f"mov dword ptr [{host().symbols['ticks']:#x}], 0")))
    with pytest.raises(RunError):  # it isn't its memory: without tables of its own, it is nowhere
        session.run(LIMIT)
    assert word_of_host(session, "ticks") > 0


def test_nothing_comes_between_sti_and_the_instruction_behind_it() -> None:
    """An interrupt is pending, and that instruction reads a page that the process doesn't have yet."""
    body = (
        SEGMENTS
        + """
    jmp 0x08:loaded
loaded:
    mov eax, handler
    mov [0x3000 + 0x20 * 8], ax
    mov word ptr [0x3000 + 0x20 * 8 + 2], 0x08
    mov word ptr [0x3000 + 0x20 * 8 + 4], 0x8e00
    shr eax, 16
    mov [0x3000 + 0x20 * 8 + 6], ax
    lidt [idt_pointer]
    mov al, 0x11
    out 0x20, al
    mov al, 0x20
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    mov al, 0x30                        ; one interrupt, soon
    out 0x43, al
    mov al, 16
    out 0x40, al
    xor eax, eax
    out 0x40, al
    mov ecx, 20000
wait: dec ecx
    jnz wait
    sti
    add byte ptr [0x700000], 1          ; shielded
    jmp wrong
handler:
    cmp dword ptr [esp], shielded_end
    jne wrong
    cmp byte ptr [0x700000], 1
    jne wrong
    mov byte ptr [0x2000], 0x5a
wrong:
    cli
    hlt
.align 4
idt_pointer:
    .word 0x7ff
    .long 0x3000
    """.replace("; shielded\n", "\nshielded_end:\n")
    )
    session, _ = session_of(assemble_text(KERNEL.format(body=body)))
    assert session.run(LIMIT) == 0
    assert session.machine.ram.view[0x2000] == 0x5A


def test_an_nmi_of_the_guests_own() -> None:
    body = (
        SEGMENTS
        + """
    jmp 0x08:loaded
loaded:
    mov eax, handler
    mov [0x3000 + 2 * 8], ax
    mov word ptr [0x3000 + 2 * 8 + 2], 0x08
    mov word ptr [0x3000 + 2 * 8 + 4], 0x8e00
    shr eax, 16
    mov [0x3000 + 2 * 8 + 6], ax
    lidt [idt_pointer]
spin: cmp dword ptr [0x2000], 0
    je spin
    cli
    hlt
handler:
    inc dword ptr [0x2000]
    iret
.align 4
idt_pointer:
    .word 0x7ff
    .long 0x3000
    """
    )
    session, _ = session_of(assemble_text(KERNEL.format(body=body)))
    session.bus.subscribe(lambda event: session.guests[0].nmi() if getattr(event, "cr2", None) == 0x2000 else None)
    assert session.run(LIMIT) == 0
    assert session.machine.ram.view[0x2000] == 1
