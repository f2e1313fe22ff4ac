"""Segments' limits and rights in 32-bit code: #GP(0), or #SS(0) through SS (SDM vol. 3, 5.3 and 5.4)."""

from __future__ import annotations

from tools.real_cpu.case import Case, named
from tools.real_cpu.layout import SELECTORS, STACK

_SMALL, _STACK16 = SELECTORS["SMALL"], SELECTORS["STACK16"]

_ROWS: list[tuple[str, str] | tuple[str, str, dict[str, int]]] = [
    ("last byte", "mov ds, eax\nmov cl, [0x7ff]", {"rax": _SMALL}),
    ("null ds", "xor eax, eax\nmov ds, eax\nmov eax, [DATA]"),
    ("null ds, write", "xor eax, eax\nmov ds, eax\nmov [DATA], eax"),
    ("null es, string", "xor eax, eax\nmov es, eax\nmov edi, DATA\nstosb"),
    ("beyond", "mov ecx, SMALL\nmov ds, ecx\nmov al, [0x800]"),
    ("across", "mov ecx, SMALL\nmov ds, ecx\nmov eax, [0x7fd]"),
    ("within", "mov ecx, SMALL\nmov ds, ecx\nmov eax, [0x7fc]"),
    ("beyond, write", "mov ecx, SMALL\nmov es, ecx\nmov es:[0x900], al"),
    ("expand down, below", "mov ecx, DOWN\nmov ds, ecx\nmov al, [0x7ff]"),
    ("expand down, within", "mov ecx, DOWN\nmov ds, ecx\nmov al, [0x800]"),
    ("expand down, page", "mov ecx, DOWN\nmov ds, ecx\nmov al, [0x1000]"),
    ("write to read only", "mov ecx, READ_ONLY\nmov ds, ecx\nmov [DATA], al"),
    ("update of read only", "mov ecx, READ_ONLY\nmov ds, ecx\ninc dword ptr [DATA]"),
    ("read of read only", "mov ecx, READ_ONLY\nmov ds, ecx\nmov al, [DATA]"),
    ("write to code", "mov cs:[DATA], al"),
    ("write to readable code", "mov ecx, READABLE_CODE\nmov ds, ecx\nmov [DATA], al"),
    ("read of execute only", "jmp EXECUTE_ONLY:there\nthere: mov al, cs:[CODE]"),
    ("read of code", "mov al, cs:[CODE]"),
    ("jmp beyond the code", "jmp SMALL_CODE:0x80"),
    ("call beyond the code", "call SMALL_CODE:0x1000"),
    ("jmp within the code", "jmp SMALL_CODE:0x40"),
    ("jmp near beyond the code", "jmp SMALL_CODE:there - CODE\nthere: jmp $ + 0x100"),
    ("run off the code", "jmp SMALL_CODE:there - CODE\n.fill 0x78 - ($ - CODE), 1, 0x90\nthere: .fill 8, 1, 0x90"),
    ("pop from a small stack", "mov ss, eax\npop eax", {"rax": _SMALL, "rsp": 0x7FE}),
    ("push to a small stack", "mov ss, eax\npush eax", {"rax": _SMALL, "rsp": 0x900}),
    ("push to a stack of 16 bits", "mov ss, eax\npush ecx", {"rax": _STACK16, "rsp": 0x1234_0010}),
    ("push wraps the stack of 16 bits", "mov ss, eax\npush ecx", {"rax": _STACK16, "rsp": 0x1234_0002}),
    ("read through ebp", "mov ss, eax\nmov ecx, [ebp]", {"rax": _SMALL, "rbp": 0x1000, "rsp": 0x100}),
    ("ds after ss", "mov ss, eax\nmov ecx, ds:[ebp]", {"rax": _SMALL, "rbp": STACK, "rsp": 0x100}),
    ("rep movsb beyond", "mov es, eax\nmov esi, DATA\nrep movsb", {"rax": _SMALL, "rdi": 0x7FA, "rcx": 10}),
]


def cases() -> list[Case]:
    return named("limit", 32, _ROWS)
