"""Addresses that aren't canonical: #GP(0), or #SS(0) if they are of the stack (SDM vol. 1, 3.3.7.1)."""

from __future__ import annotations

from tools.real_cpu.case import Case
from tools.real_cpu.layout import DATA, STACK

_FIRST = 1 << 47
_HIGH_END = (1 << 64) - (1 << 47) - 8
_CODES = (
    "mov eax, [rdi]", "mov [rdi], rax", "add [rdi], eax", "lock inc dword ptr [rdi]", "mov eax, [rdi + rsi]",
    "mov eax, [rbp]", "mov [rbp + 8], eax", "mov eax, [rsp]", "mov eax, [rsp + 8]", "mov eax, ds:[rbp]",
    "mov eax, [rbp + rsi]", "mov eax, [rsi + rbp]", "push rax", "pop rax", "push qword ptr [rdi]", "call CODE + 0x40",
    "ret",
    "retfq", "iretq", "pushfq", "popfq", "enter 8, 0", "leave", "jmp rdi", "call rdi", "jmp qword ptr [rdi]",
    "call qword ptr [rdi]", "lodsb", "stosq", "movsb", "scasd", "cmpsb", "rep stosb", "xlatb", "movups xmm0, [rdi]",
    "movups [rbp], xmm0", "fld dword ptr [rdi]", "fstp qword ptr [rbp]", "cmpxchg8b qword ptr [rdi]", "lea rax, [rdi]",
    "prefetcht0 [rdi]", "clflush [rdi]", "nop dword ptr [rdi]", "pop qword ptr [rdi]", "bt [rdi], eax", "lldt [rdi]",
    "lss rax, [rdi]", "verr [rdi]", "lar eax, word ptr [rdi]",
)  # fmt: skip
_BAD = dict.fromkeys(("rdi", "rbp", "rbx"), _FIRST) | {"rsp": _FIRST + 0x800, "rsi": 0, "rcx": 2}
"""A push stays away from the last page below `_FIRST`: Linux says of it in any case that it is present
(``sanitize_error_code``, arch/x86/mm/fault.c)."""


def cases() -> list[Case]:
    found = [Case(f"canonical/{code}", code, _BAD) for code in _CODES]
    rows: list[tuple[str, str, dict[str, int]]] = [
        ("jump through memory", "mov [DATA], rdi\njmp qword ptr [DATA]", {"rdi": _FIRST}),
        ("call through memory", "mov [DATA], rdi\ncall qword ptr [DATA]", {"rdi": _FIRST}),
        ("return", "push rdi\nret", {"rdi": _FIRST}),
        ("return and release", "push rdi\nret 0x10", {"rdi": 1 << 63}),
        ("call with a bad stack too", "call rdi", {"rdi": _FIRST, "rsp": STACK}),
        ("below the upper half", "mov eax, [rdi]", {"rdi": _HIGH_END}),
        ("by a scaled index", "mov eax, [rdi * 8]", {"rdi": 1 << 44}),
        ("wraps to canonical", "mov eax, [rdi + rsi]", {"rdi": (1 << 64) - 0x1000, "rsi": DATA + 0x1008}),
        ("source and target", "movsb", {"rsi": DATA, "rdi": _FIRST}),
        ("source absent, target not canonical", "movsb", {"rsi": 0, "rdi": _FIRST}),
        ("push of what isn't readable", "push qword ptr [rdi]", {"rdi": 0, "rsp": _FIRST + 0x800}),
        ("pop to it", "pop qword ptr [rdi]", {"rdi": _FIRST}),
        ("misaligned too", "movaps xmm0, [rdi]", {"rdi": _FIRST + 1}),
        ("iretq to it", "push 0x2b\npush rsp\npush 2\npush 0x33\npush rdi\niretq", {"rdi": _FIRST}),
        ("iretq with such a stack", "push 0x2b\npush rdi\npush 2\npush 0x33\npush CODE + 0x40\niretq", {"rdi": _FIRST}),
        ("retfq to it", "push 0x33\npush rdi\nretfq", {"rdi": _FIRST}),
    ]
    return found + [Case(f"canonical/{what}", code, registers) for what, code, registers in rows]
