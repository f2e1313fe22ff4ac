"""Operands that must be aligned: #GP(0) of SSE and CMPXCHG16B; #AC(0) at ring 3 with EFLAGS.AC and CR0.AM set."""

from __future__ import annotations

from tools.real_cpu.case import AC, Case
from tools.real_cpu.layout import DATA, STACK

_SSE = (
    "movaps xmm0, [rdi]", "movaps [rdi], xmm0", "movapd xmm0, [rdi]", "movdqa [rdi], xmm0", "movntps [rdi], xmm0",
    "movntdq [rdi], xmm0", "addps xmm0, [rdi]", "pxor xmm0, [rdi]", "pshufd xmm0, [rdi], 0", "movups xmm0, [rdi]",
    "movdqu [rdi], xmm0", "movsd xmm0, qword ptr [rdi]", "addsd xmm0, [rdi]", "movaps xmm0, [rsp + 4]",
    "fxsave64 [rdi]",
    "cmpxchg16b [rdi]", "cvtps2pd xmm0, qword ptr [rdi]",
)  # fmt: skip
_CHECKED = {
    "read 4": "mov eax, [rdi]",
    "write 2": "mov [rdi], ax",
    "read 8": "mov rax, [rdi]",
    "update": "add [rdi], eax",
    "byte": "mov al, [rdi]",
    "string": "lodsd",
    "push": "push rax",
    "float": "fld qword ptr [rdi]",
    "absent": "mov eax, [ABSENT + 1]",
    "across": "mov eax, [DATA + 0xffe]",
    "movups": "movups xmm0, [rdi]",
    "aligned": "mov eax, [rdi + 3]",
}


def cases() -> list[Case]:
    found = [Case(f"sse/{code}", code, {"rdi": DATA + 8, "rsp": STACK + 0x80}) for code in _SSE]
    found += [
        Case("sse/absent and misaligned", "movaps xmm0, [ABSENT + 8]"),
        Case("sse/read only and misaligned", "movaps [RO + 8], xmm0"),
        Case("sse/ldmxcsr reserved bit", "mov dword ptr [DATA], 0x10000\nldmxcsr [DATA]"),
    ]
    registers = {"rdi": DATA + 1, "rsi": DATA + 1, "rsp": STACK + 0x81}
    return found + [Case(f"ac/{what}", code, registers, eflags=AC) for what, code in _CHECKED.items()]
