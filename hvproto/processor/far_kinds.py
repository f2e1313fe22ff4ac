"""Which instructions are far transfers, by their bytes: Capstone takes some that go through memory for near ones."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache

_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_GROUP_5 = 0xFF


class FarKind(Enum):
    """A far JMP, CALL or RET, and where it has its pointer from."""

    JMP = "jmp"
    CALL = "call"
    JMP_MEMORY = "jmp through memory"
    CALL_MEMORY = "call through memory"
    RET = "ret"

    @property
    def is_call(self) -> bool:
        return self in (FarKind.CALL, FarKind.CALL_MEMORY)


_BY_OPCODE = {0x9A: FarKind.CALL, 0xEA: FarKind.JMP, 0xCA: FarKind.RET, 0xCB: FarKind.RET}
_BY_REG_FIELD = {3: FarKind.CALL_MEMORY, 5: FarKind.JMP_MEMORY}


@lru_cache(maxsize=1024)
def far_kind(code: bytes, *, wide: bool) -> FarKind | None:
    """What kind of far transfer an instruction is, by its bytes; ``wide``: in 64-bit code.

    >>> far_kind(bytes.fromhex("66 ea 00 00 08 00"), wide=False)
    <FarKind.JMP: 'jmp'>
    >>> far_kind(bytes.fromhex("48 ff 2f"), wide=True)
    <FarKind.JMP_MEMORY: 'jmp through memory'>
    >>> far_kind(bytes.fromhex("ff 27"), wide=True)
    """
    at = 0
    while at < len(code) and (code[at] in _PREFIXES or (wide and code[at] & 0xF0 == 0x40)):
        at += 1
    opcode, following = code[at : at + 1], code[at + 1 : at + 2]
    if not opcode:
        return None
    if opcode[0] == _GROUP_5:
        through_memory = following and following[0] >> 6 != 3
        return _BY_REG_FIELD.get(following[0] >> 3 & 7) if through_memory else None
    if wide and opcode[0] in (0x9A, 0xEA):
        return None
    return _BY_OPCODE.get(opcode[0])
