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


def _at_end(name: str, code: str, before: int) -> int:
    """The address ``before`` bytes ahead of a page's end."""
    return ADDRESSES[name] + _END - before


def cases() -> list[Case]:
    found = [
        Case(f"cross/{what} {place}", code.format(place), {"rax": 0x55})
        for place in _PLACES
        for code, what in _ACCESSES
    ]
    found += [Case(f"cross/{what}", code) for what, code in _MORE.items()]
    for what, place, code in (
        ("behind the page", "CODE", "nop\nnop\nnop\nnop"),
        ("into an absent page", "CODE", "nop\nmov eax, 0x12345678"),
        ("into data", "CODE_THEN_DATA", "nop\nmov eax, 0x12345678"),
        ("data behind", "CODE_THEN_DATA", "nop\nnop\nnop\nnop"),
        ("into code", "CODE_TWO", "nop\nmov eax, 0x12345678\nud2"),
        ("cut prefix", "CODE", "nop\nnop\nnop\n.byte 0x48"),
        ("load before the end", "CODE", "mov eax, [rbx]"),
        ("fault before the end", "CODE", "nop\nud2"),
        ("taken jump at the end", "CODE", "nop\nnop\njmp CODE"),
        ("ud2 that just fits", "CODE", "nop\nnop\n.byte 0x0f, 0x0b"),
        ("operand faults, code is cut", "CODE", "nop\nmov [ABSENT], eax"),
    ):
        before = 2 if what in ("load before the end", "taken jump at the end") else 4
        if "fault before" in what:
            before = 3
        found.append(_cut(f"cross-code/{what}", place, code, before))
    return found


def _cut(name: str, place: str, code: str, before: int) -> Case:
    """Code that begins ``before`` bytes ahead of a page's end; what doesn't fit is left out if nothing is behind."""
    return Case(name, code, {"rbx": ADDRESSES["DATA"]}, origin=ADDRESSES[place] + _END - before)
