"""String instructions: the registers at a fault count what has been done (SDM vol. 1, 7.3.9.1; vol. 2, REP)."""

from __future__ import annotations

from tools.real_cpu.case import DF, TF, ZF, Case
from tools.real_cpu.layout import ADDRESSES as AT

_DATA, _ABSENT, _RO, _TWO, _THEN_RO = (AT[name] for name in ("DATA", "ABSENT", "RO", "TWO", "DATA_THEN_RO"))
_END = 0x1000


def cases() -> list[Case]:
    rows: list[tuple[str, dict[str, int], int]] = [
        ("movsb", {"rsi": _ABSENT, "rdi": _DATA}, 0),
        ("movsq", {"rsi": _DATA, "rdi": _ABSENT}, 0),
        ("movsd", {"rsi": _ABSENT, "rdi": _RO}, 0),
        ("movsw", {"rsi": _DATA, "rdi": _RO}, 0),
        ("stosb", {"rdi": _RO + 5}, 0),
        ("stosq", {"rdi": _DATA + _END - 4}, 0),
        ("lodsd", {"rsi": _DATA + _END - 2}, 0),
        ("scasb", {"rdi": _ABSENT + 1}, 0),
        ("cmpsb", {"rsi": _DATA, "rdi": _ABSENT}, 0),
        ("cmpsb", {"rsi": _ABSENT, "rdi": _ABSENT + 8}, 0),
        ("rep movsb", {"rsi": _TWO, "rdi": _DATA + _END - 37, "rcx": 100}, 0),
        ("rep movsb", {"rsi": _DATA + _END - 21, "rdi": _TWO, "rcx": 100}, 0),
        ("rep movsw", {"rsi": _TWO + 1, "rdi": _DATA + _END - 37, "rcx": 100}, 0),
        ("rep movsd", {"rsi": _TWO, "rdi": _DATA + _END - 30, "rcx": 50}, 0),
        ("rep movsq", {"rsi": _DATA + _END - 44, "rdi": _TWO + 3, "rcx": 50}, 0),
        ("rep movsq", {"rsi": _TWO, "rdi": _THEN_RO + _END - 64, "rcx": 1 << 40}, 0),
        ("rep movsb", {"rsi": _ABSENT + _END + 20, "rdi": _TWO + 100, "rcx": 90}, DF),
        ("rep movsd", {"rsi": _TWO + 200, "rdi": _ABSENT + _END + 16, "rcx": 90}, DF),
        ("rep stosb", {"rdi": _DATA + _END - 100, "rcx": 1000, "rax": 0x7A}, 0),
        ("rep stosq", {"rdi": _DATA + _END - 100, "rcx": 1000}, 0),
        ("rep stosd", {"rdi": _ABSENT + _END + 9, "rcx": 1000}, DF),
        ("rep lodsb", {"rsi": _DATA + _END - 3, "rcx": 10}, 0),
        ("repne scasb", {"rdi": _DATA + _END - 50, "rcx": 500, "rax": 0xFF}, 0),
        ("repe scasw", {"rdi": _DATA + _END - 50, "rcx": 500, "rax": 0xFF}, 0),
        ("repe cmpsb", {"rsi": _DATA + _END - 5, "rdi": _DATA + _END - 5, "rcx": 50}, 0),
        ("repne cmpsd", {"rsi": _DATA + _END - 20, "rdi": _TWO + 1, "rcx": 50}, 0),
        ("repe cmpsq", {"rsi": _DATA + _END - 20, "rdi": _DATA + _END - 20, "rcx": 9}, 0),
        ("rep movsb", {"rsi": _ABSENT, "rdi": _ABSENT, "rcx": 0}, 0),
        ("rep stosq", {"rdi": 1 << 60, "rcx": 0}, 0),
        ("repe cmpsb", {"rsi": _ABSENT, "rdi": _ABSENT, "rcx": 0}, ZF),
        ("rep movsb", {"rsi": _DATA, "rdi": _TWO, "rcx": 3}, TF),
        ("rep stosd", {"rdi": _DATA, "rcx": 1}, TF),
        ("rep stosb", {"rdi": _DATA, "rcx": 0}, TF),
        ("repne scasb", {"rdi": _DATA, "rcx": 6, "rax": 0x11}, TF),
        ("rep movsb", {"rsi": _TWO, "rdi": _TWO + 1, "rcx": 20}, 0),
        ("addr32 rep stosb", {"rdi": 1 << 40 | _DATA + _END - 4, "rcx": 1 << 40 | 9}, 0),
        ("addr32 rep stosb", {"rdi": 1 << 40 | _DATA, "rcx": 1 << 40}, 0),
        ("xlatb", {"rbx": _ABSENT, "rax": 5}, 0),
        ("rep insb", {"rdi": _ABSENT, "rcx": 5, "rdx": 0x60}, 0),
        ("rep insb", {"rdi": _ABSENT, "rcx": 0, "rdx": 0x60}, 0),
        ("outsd", {"rsi": _ABSENT, "rdx": 0x60}, 0),
    ]
    return [
        Case(f"string/{index}: {code}", _encoded(code), registers, eflags=flags)
        for index, (code, registers, flags) in enumerate(rows)
    ]


def _encoded(code: str) -> str:
    prefix, _, rest = code.partition(" ")
    return f".byte 0x67\n{rest}" if prefix == "addr32" else code
