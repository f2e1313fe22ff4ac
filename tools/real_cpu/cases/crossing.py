"""Accesses across the border of two pages: CR2 is the first byte that can't be accessed in the page that refuses."""

from __future__ import annotations

from tools.real_cpu.case import Case
from tools.real_cpu.layout import ADDRESSES

_PLACES = ("DATA", "DATA_THEN_RO", "RO", "ABSENT", "RO_THEN_ABSENT", "TWO")
_ACCESSES = (
    ("mov eax, [{} + 0xffe]", "read"),
    ("mov [{} + 0xffe], eax", "write"),
    ("mov [{} + 0xff9], rax", "write 8"),
    ("add [{} + 0xffe], eax", "update"),
    ("lock xadd [{} + 0xffd], rax", "locked"),
    ("xchg [{} + 0xfff], ax", "exchange"),
    ("movups xmm0, [{} + 0xff8]", "read 16"),
    ("movups [{} + 0xff8], xmm0", "write 16"),
)
_MORE = {
    "fxsave": "fxsave64 [DATA + 0xf80]",
    "fxrstor": "fxrstor64 [DATA + 0xf80]",
    "fld tbyte": "fld tbyte ptr [DATA + 0xff8]",
    "fstp tbyte": "fld1\nfstp tbyte ptr [DATA + 0xff8]",
    "fstp tbyte to read only": "fldz\nfstp tbyte ptr [DATA_THEN_RO + 0xffc]",
    "cmpxchg8b": "cmpxchg8b qword ptr [DATA + 0xffc]",
    "bts behind": "bts dword ptr [DATA + 0xffe], 30",
    "high": "mov rdi, HIGH\nmov rax, [rdi + 0xffc]",
    "fnsave": "fnsave [DATA + 0xfc0]",
    "fnstenv": "fnstenv [DATA_THEN_RO + 0xff0]",
}
_END = 0x1000
_CUT = (
    ("behind the page", "CODE", 4, "nop\nnop\nnop\nnop"),
    ("into an absent page", "CODE", 4, "nop\nmov eax, 0x12345678"),
    ("into data", "CODE_THEN_DATA", 4, "nop\nmov eax, 0x12345678"),
    ("data behind", "CODE_THEN_DATA", 4, "nop\nnop\nnop\nnop"),
    ("into code", "CODE_TWO", 4, "nop\nmov eax, 0x12345678\nud2"),
    ("cut prefix", "CODE", 4, "nop\nnop\nnop\n.byte 0x48"),
    ("load before the end", "CODE", 2, "mov eax, [rbx]"),
    ("fault before the end", "CODE", 3, "nop\nud2"),
    ("jump at the end", "CODE", 5, "jmp CODE + 0x40"),
    ("jump at the end to data", "CODE_THEN_DATA", 5, "jmp DATA"),
    ("cut jump", "CODE", 4, "jmp CODE + 0x40"),
    ("cut ud2", "CODE", 1, "ud2"),
    ("operand faults, code is cut", "CODE", 4, "nop\nmov [ABSENT], eax"),
    ("call at the end", "CODE", 5, "call CODE + 0x40"),
    ("call into data behind", "CODE_THEN_DATA", 5, "call CODE + 0x40"),
    ("return to the absent page", "CODE", 5, "call there\nthere: ret"),
    ("long prefixes", "CODE", 14, ".fill 15, 1, 0x66"),
)
"""What, the page, how many bytes before its end the code begins, the code. What lies in an absent page is lost."""


def cases() -> list[Case]:
    found = [
        Case(f"cross/{what} {place}", code.format(place), {"rax": 0x55})
        for place in _PLACES
        for code, what in _ACCESSES
    ]
    found += [Case(f"cross/{what}", code) for what, code in _MORE.items()]
    for what, place, before, code in _CUT:
        origin = ADDRESSES[place] + _END - before
        found.append(Case(f"cross-code/{what}", code, {"rbx": ADDRESSES["DATA"]}, origin=origin))
    return found
