"""Which instructions read a memory operand in order to write it, by their bytes (SDM vol. 2, appendix A)."""

from __future__ import annotations

from collections.abc import Sequence

MAX_LENGTH = 15
"""Of an instruction, in bytes (SDM vol. 2, 2.3.11)."""
PREFIXES = (0x26, 0x2E, 0x36, 0x3E, *range(0x40, 0x50), 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3)
"""Legacy prefixes and REX, which outside 64-bit code is an INC or DEC of a register, and never faults."""
UPDATES: tuple[int, ...] = (
    0x00, 0x01, 0x08, 0x09, 0x10, 0x11, 0x18, 0x19, 0x20, 0x21, 0x28, 0x29, 0x30, 0x31, 0x63, 0x80, 0x81, 0x82, 0x83,
    0x86, 0x87, 0xC0, 0xC1, 0xD0, 0xD1, 0xD2, 0xD3, 0xF6, 0xF7, 0xFE, 0xFF,
)  # fmt: skip
"""Opcodes that do, or do with some values of ModRM.reg."""
UPDATES_0F: tuple[int, ...] = (0xA4, 0xA5, 0xAB, 0xAC, 0xAD, 0xB0, 0xB1, 0xB3, 0xBA, 0xBB, 0xC0, 0xC1, 0xC7)
"""The same of those after 0F."""
_MEMBERS: dict[int, Sequence[int]] = {
    **dict.fromkeys((0x80, 0x81, 0x82, 0x83), range(7)),
    **dict.fromkeys((0xF6, 0xF7), (2, 3)),
    **dict.fromkeys((0xFE, 0xFF), (0, 1)),
}
_MEMBERS_0F: dict[int, Sequence[int]] = {0xBA: (5, 6, 7), 0xC7: (1,)}
_MOVSXD = 0x63
"""In 64-bit code; elsewhere it is ARPL, which updates its operand."""
_INT1 = 0xF1


def updates_operand(code: bytes, *, wide: bool) -> bool:
    """Whether an instruction reads a memory operand in order to write it: such a fault has W set (SDM vol. 3, 4.7).

    >>> updates_operand(bytes.fromhex("0107"), wide=False), updates_operand(bytes.fromhex("8b07"), wide=False)
    (True, False)
    """
    rest = code[_prefix_count(code) :]
    if rest[:1] == b"\x0f":
        opcode, members, listed, rest = rest[1:2], _MEMBERS_0F, UPDATES_0F, rest[2:]
    else:
        opcode, members, listed, rest = rest[:1], _MEMBERS, UPDATES, rest[1:]
    if not rest or opcode[0] not in listed or (wide and members is _MEMBERS and opcode[0] == _MOVSXD):
        return False
    wanted = members.get(opcode[0])
    return wanted is None or rest[0] >> 3 & 7 in wanted


def lock_is_allowed(code: bytes, *, wide: bool) -> bool:
    """Whether a LOCK prefix is one before an instruction that may have it: else #UD (SDM vol. 2, LOCK).

    >>> lock_is_allowed(bytes.fromhex("f00107"), wide=False), lock_is_allowed(bytes.fromhex("f08b07"), wide=False)
    (True, False)
    """
    rest = code[_prefix_count(code) :]
    shifts = rest[:1] in (b"\xc0", b"\xc1", b"\xd0", b"\xd1", b"\xd2", b"\xd3", b"\x63")
    double_shifts = rest[:2] in (b"\x0f\xa4", b"\x0f\xa5", b"\x0f\xac", b"\x0f\xad")
    if shifts or double_shifts or not updates_operand(code, wide=wide):
        return False
    modrm = rest[2 if rest[:1] == b"\x0f" else 1]
    return modrm >> 6 != 3


def is_refused(code: bytes) -> bool:
    """Whether bytes that no decoder takes are surely an invalid opcode: LOCK where it may not be, or 8F /1 to /7.

    >>> is_refused(bytes.fromhex("f08b07")), is_refused(bytes.fromhex("8fc8")), is_refused(bytes.fromhex("0f0b"))
    (True, True, False)
    """
    count = _prefix_count(code)
    rest = code[count : count + 2]
    return 0xF0 in code[:count] or (len(rest) == 2 and rest[0] == 0x8F and bool(rest[1] & 0x38))


def has_forbidden_lock(code: bytes, *, wide: bool) -> bool:
    """Whether an instruction has a LOCK prefix that it may not have.

    >>> has_forbidden_lock(bytes.fromhex("f09c"), wide=False), has_forbidden_lock(bytes.fromhex("9c"), wide=False)
    (True, False)
    """
    return 0xF0 in code and 0xF0 in code[: _prefix_count(code)] and not lock_is_allowed(code, wide=wide)


def int1_length(code: bytes) -> int | None:
    """The length in bytes of an INT1 with its prefixes; None if it is another instruction.

    >>> int1_length(b"\\xf1"), int1_length(b"\\x0f\\x0b")
    (1, None)
    """
    count = _prefix_count(code)
    return count + 1 if code[count : count + 1] == bytes([_INT1]) else None


def _prefix_count(code: bytes) -> int:
    count = 0
    while count < len(code) and code[count] in PREFIXES:
        count += 1
    return count
