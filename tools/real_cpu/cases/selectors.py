"""Loads of segment registers: #GP, #NP and #SS with the selector as error code (SDM vol. 2, MOV; vol. 3, 6.13)."""

from __future__ import annotations

from tools.real_cpu.case import Case
from tools.real_cpu.layout import KERNEL_CODE, KERNEL_DATA, LDT, SELECTORS, TSS, USER_CODE32, USER_CODE64, USER_DATA

_NAMED = SELECTORS | {
    "null": 0, "null with RPL 3": 3, "KERNEL_CODE": KERNEL_CODE, "KERNEL_DATA": KERNEL_DATA | 3, "TSS": TSS,
    "LDT": LDT | 3,
    "USER_CODE32": USER_CODE32, "USER_CODE64": USER_CODE64, "USER_DATA": USER_DATA,
    "USER_DATA with RPL 0": USER_DATA & ~3,
    "empty": 0x63, "beyond": 0x1238, "just beyond": 0x80, "far beyond in the LDT": 0xFFFF,
}  # fmt: skip
_ALWAYS_BAD = ("KERNEL_CODE", "EXECUTE_ONLY", "ABSENT_DATA", "ABSENT_CODE", "beyond", "BEYOND_LDT", "TSS", "empty")
"""FS and GS are tried with these only: a load that succeeds would lose FS's base, which Python's C library needs."""


def cases() -> list[Case]:
    found = []
    for register in ("ds", "es", "ss", "fs", "gs"):
        for what, selector in _NAMED.items():
            if register in ("fs", "gs") and what not in _ALWAYS_BAD:
                continue
            found.append(Case(f"load/{register} {what}", f"mov {register}, eax", {"rax": selector | 0xABCD_0000}))
    for what, selector in _NAMED.items():
        found.append(Case(f"ask/{what}", _ASK, {"rax": selector}))
    rows = {
        "mov ds from absent memory": "mov ds, [ABSENT]",
        "mov ss from memory": "mov ss, [DATA]",
        "pop fs": "push 0x1238\npop fs",
        "pop gs, absent": "push ABSENT_DATA\npop gs",
        "lss": "mov dword ptr [DATA + 4], ABSENT_DATA\nlss eax, [DATA]",
        "lss null": "mov dword ptr [DATA + 4], 0\nlss eax, [DATA]",
        "lfs": "mov dword ptr [DATA + 4], 0x1238\nlfs eax, [DATA]",
        "lgs from absent memory": "lgs eax, [ABSENT]",
        "lgs across": "lgs eax, [DATA + 0xffc]",
        "mov [mem], ss": "mov [DATA + 1], ss",
        "mov rax, ss": "mov rax, ss",
        "mov ax, ss": "mov ax, ss",
        "push fs": "push fs",
    }
    return found + [Case(f"load-more/{what}", code) for what, code in rows.items()]


_ASK = """
        xor ebx, ebx
        xor edx, edx
        lar ebx, eax
        setz r8b
        lsl edx, eax
        setz r9b
        verr ax
        setz r10b
        verw ax
        setz r11b
"""
