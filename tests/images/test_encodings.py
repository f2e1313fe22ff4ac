"""Byte-exact encodings, each also read back by Capstone."""

from __future__ import annotations

import capstone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.errors import AssemblyError
from hvproto.images.assembly import assemble_text

ORIGIN = 0x1000
MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}


def encoded(text: str, bits: int = 32, origin: int = ORIGIN) -> bytes:
    return assemble_text(text, origin=origin, bits=bits).segments[0].data


def decoded(code: bytes, bits: int = 32) -> list[str]:
    reader = capstone.Cs(capstone.CS_ARCH_X86, MODES[bits])
    instructions = list(reader.disasm(code, ORIGIN))
    assert sum(instruction.size for instruction in instructions) == len(code)
    return [f"{instruction.mnemonic} {instruction.op_str}".strip() for instruction in instructions]


# Statement, bytes, and what Capstone makes of the bytes.
IN_32 = [
    ("lgdt [0x1234]", "0f011534120000", "lgdt [0x1234]"),
    ("lidt [ebx + 4]", "0f015b04", "lidt [ebx + 4]"),
    ("sgdt [ebx]", "0f0103", "sgdt [ebx]"),
    ("sidt [ebx]", "0f010b", "sidt [ebx]"),
    ("push cs", "0e", "push cs"),
    ("push ds", "1e", "push ds"),
    ("push fs", "0fa0", "push fs"),
    ("pop ds", "1f", "pop ds"),
    ("pop es", "07", "pop es"),
    ("pop ss", "17", "pop ss"),
    ("pop gs", "0fa9", "pop gs"),
    ("iret", "cf", "iretd"),
    ("iretd", "cf", "iretd"),
    ("iretw", "66cf", "iret"),
    ("pushf", "9c", "pushfd"),
    ("popfd", "9d", "popfd"),
    ("pushfw", "669c", "pushf"),
    ("pusha", "60", "pushal"),
    ("popad", "61", "popal"),
    ("jmp 0x08:0x123456", "ea563412000800", "ljmp 8:0x123456"),
    ("call 0x08:0x123456", "9a563412000800", "lcall 8, 0x123456"),
    ("jmp fword ptr [0x1234]", "ff2d34120000", "jmp ptr [0x1234]"),
    ("call far [ebx]", "ff1b", "call ptr [ebx]"),
    ("call far dword ptr [ebx]", "66ff1b", "lcall [ebx]"),
    ("mov ds, ax", "8ed8", "mov ds, eax"),
    ("mov ss, ax", "8ed0", "mov ss, eax"),
    ("mov ax, ds", "668cd8", "mov ax, ds"),
    ("mov word ptr [ebx], ds", "8c1b", "mov word ptr [ebx], ds"),
    ("mov dword [0x1000], 5", "c7050010000005000000", "mov dword ptr [0x1000], 5"),
    ("mov byte ptr [ebx], 'A'", "c60341", "mov byte ptr [ebx], 0x41"),
    ("mov eax, [ecx*4 - 4]", "8b048dfcffffff", "mov eax, dword ptr [ecx*4 - 4]"),
    ("mov eax, [0xfffffff0]", "a1f0ffffff", "mov eax, dword ptr [0xfffffff0]"),
    ("mov eax, [eax + esp]", "8b0404", "mov eax, dword ptr [esp + eax]"),
    ("mov eax, ds:[ebp]", "3e8b4500", "mov eax, dword ptr ds:[ebp]"),
    ("mov eax, ds:[ebx]", "8b03", "mov eax, dword ptr [ebx]"),
    ("mov eax, fs:[0x10]", "64a110000000", "mov eax, dword ptr fs:[0x10]"),
    ("mov eax, [fs:0x10]", "64a110000000", "mov eax, dword ptr fs:[0x10]"),
    ("mov dword ptr gs:[0x20], 7", "65c7052000000007000000", "mov dword ptr gs:[0x20], 7"),
    ("rep movsd", "f3a5", "rep movsd dword ptr es:[edi], dword ptr [esi]"),
    ("repne scasb", "f2ae", "repne scasb al, byte ptr es:[edi]"),
    ("movsd", "a5", "movsd dword ptr es:[edi], dword ptr [esi]"),
    ("movsd xmm0, xmm1", "f20f10c1", "movsd xmm0, xmm1"),
    ("stosw", "66ab", "stosw word ptr es:[edi], ax"),
    ("lock xadd [ebx], eax", "f00fc103", "lock xadd dword ptr [ebx], eax"),
    ("int 3", "cd03", "int 3"),
    ("int3", "cc", "int3"),
    ("int 0x80", "cd80", "int 0x80"),
    ("push 0x10", "6a10", "push 0x10"),
    ("push 0x80", "6880000000", "push 0x80"),
    ("push -1", "6aff", "push -1"),
    ("push 0xfffff000", "6800f0ffff", "push 0xfffff000"),
    ("push [ebx]", "ff33", "push dword ptr [ebx]"),
    ("pop [ebx]", "8f03", "pop dword ptr [ebx]"),
    ("ret", "c3", "ret"),
    ("ret 8", "c20800", "ret 8"),
    ("retf", "cb", "retf"),
    ("and eax, ~0x80000000", "25ffffff7f", "and eax, 0x7fffffff"),
    ("and al, ~1", "24fe", "and al, 0xfe"),
    ("add eax, 0xffffffff", "83c0ff", "add eax, -1"),
    ("lar eax, ax", "0f02c0", "lar eax, eax"),
    ("ltr ax", "0f00d8", "ltr ax"),
    ("mov cr0, eax", "0f22c0", "mov cr0, eax"),
    ("out dx, eax", "ef", "out dx, eax"),
    ("in al, 0x60", "e460", "in al, 0x60"),
    ("jmp 0x1010", "eb0e", "jmp 0x1010"),
    ("jmp near 0x1010", "e90b000000", "jmp 0x1010"),
    ("jmp 0x2000", "e9fb0f0000", "jmp 0x2000"),
    ("jne 0x2000", "0f85fa0f0000", "jne 0x2000"),
    ("call 0xc0100000", "e8fbef0fc0", "call 0xc0100000"),
    ("loop 0x1010", "e20e", "loop 0x1010"),
    ("jecxz 0x1010", "e30e", "jecxz 0x1010"),
    ("jmp eax", "ffe0", "jmp eax"),
    ("jmp [ebx]", "ff23", "jmp dword ptr [ebx]"),
    ("retfw", "66cb", "retf"),
    ("retfw 4", "66ca0400", "retf 4"),
    ("o16 iret", "66cf", "iret"),
    ("o32 iret", "cf", "iretd"),
    ("a16 lodsb", "67ac", "lodsb al, byte ptr [si]"),
    ("nop dword ptr [eax + 8]", "0f1f4008", "nop dword ptr [eax + 8]"),
]
IN_16 = [
    ("iret", "cf", "iret"),
    ("iretd", "66cf", "iretd"),
    ("ret", "c3", "ret"),
    ("push 0x1234", "683412", "push 0x1234"),
    ("call 0x2000", "e8fd0f", "call 0x2000"),
    ("jmp 0x2000", "e9fd0f", "jmp 0x2000"),
    ("jmp dword 0x08:0x123456", "66ea563412000800", "ljmp 8:0x123456"),
    ("jmp 0x08:0x1234", "ea34120800", "ljmp 8:0x1234"),
    ("lgdt [0x1234]", "0f01163412", "lgdt [0x1234]"),
    ("mov ax, [bx + si]", "8b00", "mov ax, word ptr [bx + si]"),
    ("mov cr0, eax", "0f22c0", "mov cr0, eax"),
    ("rep stosd", "f366ab", "rep stosd dword ptr es:[di], eax"),
    ("o32 lgdt [0x1234]", "660f01163412", "lgdt [0x1234]"),
    ("o32 lgdt cs:[0x1234]", "662e0f01163412", "lgdt cs:[0x1234]"),
    ("o16 lgdt [0x1234]", "0f01163412", "lgdt [0x1234]"),
    ("o32 retf", "66cb", "retf"),
    ("retfd 8", "66ca0800", "retf 8"),
    ("a32 rep movsb", "67f3a4", "rep movsb byte ptr es:[edi], byte ptr [esi]"),
    ("o32 push fs", "660fa0", "push fs"),
    ("o32 jmp far [bx]", "66ff2f", "jmp ptr [bx]"),
    ("jmp far [bx]", "ff2f", "ljmp [bx]"),
    ("jmp far dword ptr [bx]", "ff2f", "ljmp [bx]"),
    ("jmp fword ptr [bx]", "66ff2f", "jmp ptr [bx]"),
]
IN_64 = [
    ("iretq", "48cf", "iretq"),
    ("pushf", "9c", "pushfq"),
    ("mov rax, 0x123456789abc", "48b8bc9a785634120000", "movabs rax, 0x123456789abc"),
    ("lidt [0x2000]", "0f011df90f0000", "lidt [rip + 0xff9]"),
    ("mov dword ptr [0x2000], 5", "c705f60f000005000000", "mov dword ptr [rip + 0xff6], 5"),
    ("lea rdi, [0x1000]", "488d3df9ffffff", "lea rdi, [rip - 7]"),
    ("push -5", "6afb", "push -5"),
    ("sysretq", "480f07", "sysretq"),
    ("call [rax]", "ff10", "call qword ptr [rax]"),
    ("rep movsq", "f348a5", "rep movsq qword ptr [rdi], qword ptr [rsi]"),
    ("retfq 8", "48ca0800", "retfq 8"),
    ("jmp fword ptr [rbx]", "ff2b", "jmp ptr [rbx]"),
    ("jmp far tbyte ptr [rbx]", "48ff2b", "ljmp [rbx]"),
    ("jmp far tbyte ptr [r8]", "49ff28", "ljmp [r8]"),
    ("call far tbyte ptr [0x2000]", "48ff1df90f0000", "lcall [rip + 0xff9]"),
    ("movabs rax, [0x123456789abcdef0]", "48a1f0debc9a78563412", "movabs rax, qword ptr [0x123456789abcdef0]"),
    ("movabs gs:[0x10], al", "65a21000000000000000", "movabs byte ptr gs:[0x10], al"),
    ("nop word ptr [rax + rcx]", "660f1f0408", "nop word ptr [rax + rcx]"),
    ("a32 lodsb", "67ac", "lodsb al, byte ptr [esi]"),
    ("fxsave64 [rbx]", "480fae03", "fxsave64 ptr [rbx]"),
    ("swapgs", "0f01f8", "swapgs"),
]


@pytest.mark.parametrize(
    ("bits", "text", "code", "meaning"),
    [(bits, *case) for bits, cases in ((32, IN_32), (16, IN_16), (64, IN_64)) for case in cases],
)
def test_encoding(bits: int, text: str, code: str, meaning: str) -> None:
    assert encoded(text, bits).hex() == code
    assert decoded(encoded(text, bits), bits) == [meaning]


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_mode_directive_is_the_same_as_the_argument(bits: int) -> None:
    assert encoded(f".code{bits}\npush 5\njmp 0x1800\nret") == encoded("push 5\njmp 0x1800\nret", bits)


@pytest.mark.parametrize(
    "text",
    [
        "mov eax, [ebx",
        "mov eax, ebx]",
        "mov al, 0x12345",
        "mov al, -129",
        "mov ax, 0x10000",
        "mov eax, 0x100000000",
        "mov byte ptr [ebx], 300",
        "test al, 0x1ff",
        "mov [0x1000], 5",
        "inc [ebx]",
        "shl [ebx], cl",
        "int 256",
        "int -1",
        "aam 300",
        "enter 0x12345, 0",
        "ret 0x12345",
        "in al, 0x160",
        "shl eax, 256",
        "mov eax, [esp*2]",
        "mov eax, [ax]",
        "mov eax, [ebx + ecx*3]",
        "mov eax, [ecx*2 + edx*2]",
        "mov eax, [ebx - ecx]",
        "mov eax, []",
        "mov eax, [ebx] junk",
        "mov eax, 5 junk",
        "mov eax, 5, 6",
        "mov eax 5",
        "mov eax,",
        "mov , eax",
        "nop nop",
        "lock mov [ebx], eax",
        "lock nop",
        "rep nop",
        "mov eax, dword 5",
        "mov eax, byte ptr [ebx]",
        "mov dword ptr eax, [ebx], 4",
        "mov eax, cs:5",
        "foo",
        "push byte 5",
        "iretq",
        "pushfq",
        "pop cs",
        "jmp 0x10000:0",
        "jmp short 0x3000",
        "call short 0x1002",
        "loop 0x3000",
        "jrcxz 0x1000",
        "jmp -1",
        "mov eax, cr9",
        "db 1",
        "swapgs",
        "cdqe",
        "cqo",
        "cmpxchg16b [ebx]",
        "movabs eax, [5]",
        "jmp far tbyte ptr [ebx]",
        "jmp far word ptr [ebx]",
        "retfq",
        "retfq 4",
        "o16",
        "o16 push 5",
        "o16 jmp 8:5",
        "o16 iretw",
        "o16 mov eax, ebx",
        "o16 jmp 0x1010",
    ],
)
def test_no_such_statement(text: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        encoded(f"nop\n  {text} ; remark")
    assert (caught.value.path, caught.value.line) == ("<text>", 2)
    assert caught.value.text.strip() == f"{text} ; remark"
    assert caught.value.reason


@pytest.mark.parametrize(
    "text", ["iret", "push cs", "pusha", "pushfd", "mov eax, [rip + 5]", "push 0x80000000", "jmp 8:5", "a16 lodsb"]
)
def test_no_such_statement_in_64_bit_mode(text: str) -> None:
    with pytest.raises(AssemblyError):
        encoded(text, 64)


@pytest.mark.parametrize(("origin", "target"), [(0xFFF0, 0x10), (0xFFFF_FFF0, 0xFFFF_0000), (0x2_0000, 0x2_FFFF)])
def test_a_16_bit_branch_goes_around_the_end_of_its_segment(origin: int, target: int) -> None:
    code = encoded(f"jmp near {target}", 16, origin)
    assert (origin + len(code) + int.from_bytes(code[1:], "little") - target) % 0x10000 == 0


REGISTERS = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")


@given(
    base=st.sampled_from(REGISTERS),
    index=st.sampled_from([name for name in REGISTERS if name != "esp"]),
    scale=st.sampled_from([1, 2, 4, 8]),
    displacement=st.integers(-(1 << 31), (1 << 32) - 1),
    segment=st.sampled_from(["", "cs:", "ds:", "es:", "ss:", "fs:", "gs:"]),
)
def test_any_address_decodes_as_written(base: str, index: str, scale: int, displacement: int, segment: str) -> None:
    code = encoded(f"mov ecx, {segment}[{base} + {index}*{scale} + {displacement}]")
    reader = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    reader.detail = True
    (instruction,) = reader.disasm(code, ORIGIN)
    memory = instruction.operands[1].mem
    sums: dict[str, int] = {}
    for register, factor in ((memory.base, 1), (memory.index, memory.scale)):
        if register:
            name = instruction.reg_name(register)
            sums[name] = sums.get(name, 0) + factor
    wanted = {base: 1 + scale} if base == index else {base: 1, index: scale}
    assert sums == wanted
    assert (memory.disp - displacement) % (1 << 32) == 0
    default = "ss" if base in ("esp", "ebp") else "ds"
    if segment[:-1] not in ("", default) and base != index:
        prefixes = {0x26: "es", 0x2E: "cs", 0x36: "ss", 0x3E: "ds", 0x64: "fs", 0x65: "gs"}
        if index not in ("ebp",) or scale != 1:
            assert prefixes[code[0]] == segment[:-1]


@given(register=st.sampled_from([("al", 8), ("bx", 16), ("esi", 32)]), value=st.integers(-(1 << 33), 1 << 33))
def test_any_immediate_is_exact_or_refused(register: tuple[str, int], value: int) -> None:
    name, width = register
    low = -(1 << (width - 1)) if width < 32 else -(1 << 32)
    if low <= value < 1 << width:
        code = encoded(f"mov {name}, {value}")
        assert int.from_bytes(code[-width // 8 :], "little") == value % (1 << width)
    else:
        with pytest.raises(AssemblyError):
            encoded(f"mov {name}, {value}")


@given(distance=st.integers(-300, 300))
def test_a_jump_reaches_its_target_in_the_shortest_form(distance: int) -> None:
    target = ORIGIN + 0x1000 + distance
    code = encoded(f"jz {target}", origin=ORIGIN + 0x1000)
    assert len(code) == (2 if -126 <= distance <= 129 else 6)
    offset = int.from_bytes(code[1 if len(code) == 2 else 2 :], "little", signed=True)
    assert ORIGIN + 0x1000 + len(code) + offset == target
