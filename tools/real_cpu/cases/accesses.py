"""Instructions on pages that don't allow what they want: W, U, P and I of the error code (SDM vol. 3, 4.7).

An instruction that changes its operand in place is a write from its beginning: W is set though the page can't even be
read.
"""

from __future__ import annotations

from tools.real_cpu.case import CF, Case

READS = (
    "mov al, [{}]", "mov rax, [{}]", "movzx eax, word ptr [{}]", "movsxd rax, dword ptr [{}]", "cmp [{}], eax",
    "cmp eax, [{}]", "test [{}], ax", "bt dword ptr [{}], 3", "add rax, [{}]", "imul eax, [{}]", "mul qword ptr [{}]",
    "cmovc eax, [{}]", "cmovnc eax, [{}]", "push qword ptr [{}]", "jmp qword ptr [{}]", "call qword ptr [{}]",
    "bsf eax, [{}]", "movups xmm0, [{}]", "movq xmm0, qword ptr [{}]", "paddb xmm0, [{}]", "fld qword ptr [{}]",
    "fldcw [{}]", "ldmxcsr [{}]", "clflush [{}]", "div dword ptr [{}]", "popcnt eax, [{}]",
)  # fmt: skip
WRITES = (
    "mov [{}], al", "mov [{}], rax", "mov qword ptr [{}], 5", "setc byte ptr [{}]", "setnc byte ptr [{}]",
    "movnti [{}], eax", "movups [{}], xmm0", "movss [{}], xmm0", "fstp qword ptr [{}]", "fnstcw [{}]", "fnstsw [{}]",
    "stmxcsr [{}]", "fxsave64 [{}]", "pop qword ptr [{}]", "fistp dword ptr [{}]", "mov [{}], ds",
)  # fmt: skip
UPDATES = (
    "add [{}], al", "or dword ptr [{}], 1", "adc [{}], rax", "sbb [{}], ax", "and byte ptr [{}], 1", "sub [{}], eax",
    "xor [{}], rax", "inc dword ptr [{}]", "dec byte ptr [{}]", "not qword ptr [{}]", "neg word ptr [{}]",
    "shl dword ptr [{}], 1", "shr byte ptr [{}], 3", "sar qword ptr [{}], cl", "rol word ptr [{}], 1",
    "rcr dword ptr [{}], 1", "shld [{}], eax, 3", "shrd [{}], rax, cl", "xchg [{}], eax", "xadd [{}], rax",
    "cmpxchg [{}], ecx", "cmpxchg8b qword ptr [{}]", "cmpxchg16b [{}]", "bts dword ptr [{}], 3", "btr [{}], eax",
    "btc qword ptr [{}], 40", "lock add [{}], eax", "lock inc byte ptr [{}]", "lock xadd [{}], eax",
    "lock cmpxchg [{}], rcx", "lock bts dword ptr [{}], 3", "lock not qword ptr [{}]", "lock cmpxchg8b qword ptr [{}]",
)  # fmt: skip
_REGISTERS = {"rax": 0x21, "rcx": 5, "rdx": 0}
_IMMEDIATES = (
    "add dword ptr [{}], 0x12345678", "add word ptr [{}], 0x1234", "add qword ptr [{}], 5", "mov byte ptr [{}], 3",
    "mov dword ptr [{}], 0x12345678", "mov word ptr [{}], 0x1234", "test byte ptr [{}], 3",
    "test dword ptr [{}], 77777",
    "imul eax, [{}], 5", "imul eax, [{}], 0x12345", "rol byte ptr [{}], 3", "shl qword ptr [{}], 5",
    "bt dword ptr [{}], 3",
    "bts qword ptr [{}], 3", "shld [{}], rax, 5", "shrd [{}], eax, 5", "pshufd xmm0, [{}], 0x1b",
    "shufps xmm0, [{}], 0x1b", "cmpps xmm0, [{}], 1", "pinsrw xmm0, [{}], 1", "pshuflw xmm0, [{}], 0x1b",
    "cmpsd xmm0, qword ptr [{}], 1", "palignr xmm0, [{}], 3", "roundps xmm0, [{}], 1", "pextrw [{}], xmm0, 2",
    "pinsrb xmm0, byte ptr [{}], 2", "aeskeygenassist xmm0, [{}], 2", "pcmpistri xmm0, [{}], 2", "pshufw mm0, [{}], 2",
    "shufpd xmm0, [{}], 1", "dppd xmm0, [{}], 1", "insertps xmm0, dword ptr [{}], 3",
    "extractps dword ptr [{}], xmm0, 3",
    "cmp byte ptr [{}], 4", "push qword ptr [{}]",
)  # fmt: skip
"""Here the address counts from the end of the instruction, which is behind the immediate (SDM vol. 2, 2.2.1.6)."""
_JUMPS = {
    "absent": "mov rax, ABSENT\njmp rax",
    "no rights": "mov rax, NO_RIGHTS + 5\njmp rax",
    "data": "mov rax, DATA + 0x10\ncall rax",
    "read only": "push RO + 8\nret",
    "null": "xor eax, eax\njmp rax",
    "high": "mov rax, HIGH\njmp rax",
    "all rights": "mov rax, WRITABLE_CODE + 0x40\ncall rax",
    "stack": "jmp rsp",
    "own store": "mov byte ptr [WRITABLE_CODE], 0xf4\nmov rax, WRITABLE_CODE\njmp rax",
    "relative": "jmp ABSENT",
    "conditional": "cmp eax, eax\njz DATA",
}


def cases() -> list[Case]:
    found = []
    for kind, templates, places in (
        ("read", READS, ("ABSENT",)),
        ("write", WRITES, ("ABSENT", "RO")),
        ("update", UPDATES, ("ABSENT", "RO")),
    ):
        for template in templates:
            for place in places:
                code = template.format(f"{place} + 0x20")
                found.append(Case(f"{kind}/{code}", code, _REGISTERS, eflags=CF))
    found += [Case(f"immediate/{code}", code.format("ABSENT + 0x20"), _REGISTERS) for code in _IMMEDIATES]
    for place in ("NO_RIGHTS", "CODE", "HIGH + 0x1000", "0", "STACK - 8"):
        for code in ("mov eax, [rdi]", "mov [rdi], eax", "add [rdi], eax"):
            found.append(Case(f"place/{code} {place}", f"mov rdi, {place}\n{code}", _REGISTERS))
    found += [
        Case("count-0/shl", "shl dword ptr [RO], cl", {"rcx": 0}),
        Case("count-0/ror absent", "ror dword ptr [ABSENT], cl", {"rcx": 0}),
        Case("count-0/shld", "shld [RO], eax, cl", {"rcx": 0}),
        Case("far-bit/bts", "bts [DATA], rax", {"rax": 0x8000 + 9}),
        Case("far-bit/bt", "bt [DATA], rax", {"rax": (1 << 64) - 8}),
        Case("unequal/cmpxchg", "cmpxchg [RO], ecx", {"rax": 0x1234}),
    ]
    found += [Case(f"fetch/{what}", code) for what, code in _JUMPS.items()]
    return found
