"""Ways out that were found once, and must stay closed: by the stack, by new code, by prefixes, by page ends."""

from __future__ import annotations

import pytest

from hvproto.errors import TripleFault
from hvproto.images.image import Image
from tests.hypervisor.probes import Snippet, kernel, log_of
from tests.hypervisor.stage import Stage
from tests.hypervisor.twins import code, plain_kernel, run, snippets, twins


def frames_of_the_hypervisor(stage: Stage) -> bytes:
    """IDT and TSS, both GDTs: what a guest must not be able to write. The stack above the TSS is left out."""
    view, region = stage.machine.ram.view, stage.guest.space.region
    tables = region.frames[1]
    return bytes(view[tables : tables + 0x868]) + b"".join(bytes(view[f : f + 0x1000]) for f in (region.frames[0],))


STACK_USERS = ("call 0x1b:0x120040", "mov [0x180000], esp\nmov dword ptr [0x180000], 0x120040\nmov word ptr [0x180004], 0x1b\n"
               "call fword ptr ss:[0x180000]", "retf", "iret", "retf 4", "push eax", "pushad", "enter 8, 2", "call eax")  # fmt: skip


@pytest.mark.parametrize("text", STACK_USERS)
@pytest.mark.parametrize("ring", [0, 3])
def test_no_instruction_reaches_the_region_by_its_stack(engine: str, text: str, ring: int) -> None:
    """In the engine, far transfers use the stack with a supervisor's rights, whatever the ring."""
    for offset in (0x40, 0x1100, 0x1700, 0x1804, 0x2100, 0x3100):
        image = kernel([Snippet(code(f"mov esp, {0xFFFF_9000 + offset:#x}\n{text}"), ring)])
        stage = Stage(image, engine)
        assert stage.guest.space.region.base == 0xFFFF_9000
        before = frames_of_the_hypervisor(stage)
        stage.run()
        stage.check_host_untouched()
        assert frames_of_the_hypervisor(stage) == before
        if ring == 0:
            assert isinstance(stage.error, TripleFault)
        else:
            (entry,) = log_of(stage.guest_ram())
            assert entry.words[14] == 14, "it isn't the guest's own page fault"
            assert 0xFFFF_9000 <= entry.words[0] < 0xFFFF_F000 and entry.words[15] & 5 == 4


_PROGRAM = """
    lgdt [pointer]
    jmp 0x08:1f
1:  mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    lidt [idt_pointer]
    mov dword ptr [tss + 4], 0x17f000
    mov dword ptr [tss + 8], 0x10
    mov eax, 0x28
    ltr ax
    mov eax, 0x113000
    mov dword ptr [eax], 0x114007
    mov edi, 0x114000
    mov eax, 7
2:  stosd
    add eax, 0x1000
    cmp eax, 0x200000
    jb 2b
    mov eax, 0x113000
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    push 0x23
    push 0x1a0000
    push 2
    push 0x1b
    push offset program
    iret
back:
    mov [result], ecx
    mov al, 0
    out 0x80, al
    jmp finish
program:
"""
_PROGRAM_DATA = """
.align 8
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff, 0x0000891150000067
pointer:
    .word 47
    .long gdt
idt_pointer:
    .word 0x407
    .long idt
result: .long 0
tss = 0x115000
idt:
    .space 0x80 * 8
    .word (back & 0xffff), 8, 0xee00, (back >> 16)
    .word 0, 0, 0, 0
"""


def program(text: str) -> Image:
    """A kernel that enters a program at ring 3, all of memory open to it; INT 0x80 ends it, and ECX is its result."""
    return plain_kernel(_PROGRAM + text + "\nint 0x80\n", _PROGRAM_DATA)


WRITE_AND_CALL = """
    mov edi, {target:#x}
    mov dword ptr [edi], 0x90909090
    mov dword ptr [edi + 4], 0x90909090
    mov byte ptr [edi + 8], 0xc3
    call {target:#x}                    ; now it has been executed
    {change}
    call {target:#x}
"""


@pytest.mark.parametrize("target", [0x150000, 0x150FFE, 0x150FFF])
@pytest.mark.parametrize("change", [
    "mov dword ptr [edi], 0x90c8018c\nmov byte ptr [edi], 0x9c\nmov word ptr [edi + 1], 0x9059",  # pushf; pop ecx
    "mov dword ptr [edi + 3], 0x90909090\nmov dword ptr [edi], 0x90c9000f",  # str ecx
    "mov byte ptr [edi + 2], 0xe1\nmov byte ptr [edi + 1], 1\nmov byte ptr [edi], 0x0f",  # smsw ecx
])  # fmt: skip
def test_programs_that_write_sensitive_code(engine: str, target: int, change: str) -> None:
    twins(program(WRITE_AND_CALL.format(target=target, change=change)), engine)


@pytest.mark.parametrize("target", [0x150000, 0x150FFF])
def test_a_program_that_writes_a_far_call_and_points_its_stack_at_the_region(engine: str, target: int) -> None:
    text = WRITE_AND_CALL.format(
        target=target,
        change="mov dword ptr [edi], 0x10000099\nmov dword ptr [edi + 4], 0x001b0015\nmov byte ptr [edi], 0x9a\nmov esp, 0xffffb704",
    )
    stage = Stage(program(text.rsplit("call", 1)[0] + f"mov eax, {target:#x}\njmp eax"), engine)
    before = frames_of_the_hypervisor(stage)
    stage.run()
    stage.check_host_untouched()
    assert stage.error is not None, "without a handler for page faults that is the end"
    assert frames_of_the_hypervisor(stage) == before


REMAP = """
    mov edi, 0x150000                   ; two pages of code: nothing of note, and what must be caught
    mov dword ptr [edi], 0xc3909090
    mov dword ptr [edi + 0x1000], 0xc3c1018c
    mov dword ptr [edi + 0x1000], {code}
    call 0x150000
    mov eax, [0x114000 + 0x151 * 4]
    mov [0x114000 + 0x150 * 4], eax     ; the other page comes to the same place
    invlpg_here
    call 0x150000
"""


@pytest.mark.parametrize("ring", [0, 3])
@pytest.mark.parametrize("code_word", [0xC3_C9_8C_90, 0xC3_59_9C_90, 0xC3_E1_01_0F])  # mov ecx, cs; pushf, pop; smsw
def test_other_code_comes_to_a_place_that_was_executed(engine: str, ring: int, code_word: int) -> None:
    text = REMAP.format(code=hex(code_word))
    if ring == 3:
        if code_word == 0xC3_C9_8C_90:
            pytest.skip("a program may see its own CS")
        # A program can't invalidate; an access far away will have to do: alone, the processor reloads CR3 in the handler.
        image = program(text.replace("invlpg_here", "mov eax, 1") + "nop")
        stage, error = run(image, engine)
        assert error is None
        at = image.symbols["result"]
        value = int.from_bytes(stage.guest_ram()[at : at + 4], "little")
        expected = 2 if code_word == 0xC3_59_9C_90 else 0x11
        assert value & 0xFFFF & ~0xC4 & ~0x11 | value & 0x11 in (expected, expected | 4) or value & 0x202 == 2
        return
    body = _PROGRAM.split("push 0x23")[0] + text.replace("invlpg_here", "invlpg [0x150000]") + "mov [result], ecx"
    twins(plain_kernel(body, "back:\n" + _PROGRAM_DATA), engine)


def test_code_that_crosses_into_a_page_that_is_changed_alone(engine: str) -> None:
    """MOV from CS, of which only the second byte, on the next page, is ever changed."""
    body = """
        mov byte ptr [0x150fff], 0x8c
        mov byte ptr [0x151000], 0xd9       ; mov ecx, ds
        mov byte ptr [0x151001], 0xc3
        call 0x150fff
        mov [results], ecx
        mov byte ptr [0x151000], 0xc9       ; mov ecx, cs
        call 0x150fff
        mov [results + 4], ecx
    """
    twins(plain_kernel(body, ".align 8\nresults: .quad 0"), engine)


def test_a_page_that_both_rings_execute(engine: str) -> None:
    """What must be caught in a page depends on who executes it, not on who did so first."""
    probes = ["sgdt [ebx]\nmov eax, [ebx + 2]", "sidt [ebx]\nmov eax, [ebx + 2]", "pushf\npop eax", "str eax"]
    twins(kernel(snippets(probes, (0, 3)) + snippets(probes, (3, 0))), engine)
    twins(kernel(snippets(probes, (3, 0))), engine)


@pytest.mark.parametrize("prefix", ["f0", "f267", "f367", "f2", "f3", "66", "2e", "67f2", "f0f3"])
def test_prefixes_hide_nothing(engine: str, prefix: str) -> None:
    raw = [bytes.fromhex(prefix + text) for text in ("0f01e0", "0f00c8", "9c58", "0f02c0", "0e58")]
    twins(kernel([Snippet(text, ring) for text in raw for ring in (0, 3)]), engine)


def test_a_program_has_no_more_rights_through_emulation() -> None:
    """SGDT and its like are emulated, but a page of the kernel's stays closed to a program."""
    texts = [
        "sgdt [0x1a0000]",
        "sidt [0x1a0ffc]",
        "sldt word ptr [0x1a0000]",
        "smsw word ptr [0x1b0000]",
        "verr word ptr [0x1a0000]",
    ]
    alone, stage = twins(kernel(snippets(texts, (3,))))
    assert [entry.words[14] for entry in log_of(stage.guest_ram())] == [14] * 5
    assert alone.status == 0


def test_a_table_that_is_executed_changes_when_it_is_used(engine: str) -> None:
    """The accessed bit that a use of an entry sets makes a far CALL of what was an FPU store."""
    body = (
        _PROGRAM.split("push 0x23")[0]
        + """
        fninit
        mov dword ptr [0x1141d0 + 4], 0x9090c390    ; nop, ret; as an entry: not present
        mov dword ptr [0x1141d0], 0x000018df        ; fistp word ptr [eax]; as an entry: page 1, dirty but not accessed
        mov eax, 0x180000
        call 0x1141d0
        mov dword ptr [0x180000], offset arrived
        mov word ptr [0x180004], 8
        mov ebx, [0x74000]                          ; the entry is used: DF becomes FF
        call 0x1141d0
        jmp finish
    arrived:
        pop eax
        pop ecx
        mov [result], ecx
    back:
    """
    )
    image = plain_kernel(body, _PROGRAM_DATA)
    stage, error = run(image, engine)
    assert error is None and stage.guest.status == 0
    entry = stage.guest_ram()[0x1141D0]
    assert entry == 0xFF
    at = image.symbols["result"]
    assert stage.guest_ram()[at] == 8, "the far CALL was executed at ring 3 and unseen"
