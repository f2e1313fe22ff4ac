"""One instruction to bytes.

Branches, stack, string and return forms are encoded by the tables of ``forms``; everything else by Keystone, one
statement a call, after all symbols have become numbers (``verified``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hvproto.images import forms
from hvproto.images.expressions import Expression, ExpressionError, Naming
from hvproto.images.operands import (
    SEGMENT_PREFIXES,
    FarMemory,
    FarPointer,
    Immediate,
    Memory,
    Operand,
    Register,
    Value,
    parse_operand,
)
from hvproto.images.source import split_arguments
from hvproto.images.verified import Written, immediate_value

_MNEMONIC = re.compile(r"([A-Za-z][A-Za-z0-9]*)(?:\s+|$)")


@dataclass(frozen=True, slots=True)
class Instruction:
    """A parsed instruction: prefix bytes, mnemonic in lower case, operands, and the mode in bits."""

    prefix: bytes
    mnemonic: str
    operands: tuple[Operand, ...]
    bits: int

    @property
    def is_branch(self) -> bool:
        """Whether the length depends on the distance to the operand."""
        return self.mnemonic in forms.BRANCHES

    def expressions(self) -> list[Expression]:
        """All that has to be evaluated to encode it."""
        found: list[Expression] = []
        for operand in self.operands:
            match operand:
                case Memory(displacement=expression) | FarMemory(Memory(displacement=expression)):
                    found.append(expression)
                case Immediate(value=expression):
                    found.append(expression)
                case FarPointer(selector, offset):
                    found += [selector, offset]
        return found


def parse_instruction(body: str, bits: int, naming: Naming) -> Instruction:
    """The instruction that ``body`` is; ``ExpressionError`` if it has not the form of one."""
    prefix, rest = b"", body
    while True:
        match = _MNEMONIC.match(rest)
        if match is None:
            raise ExpressionError("neither an instruction nor a directive")
        mnemonic, rest = match.group(1).lower(), rest[match.end() :].strip()
        size_prefix = forms.size_prefix(mnemonic, bits)
        if not rest or (mnemonic not in forms.PREFIXES and size_prefix is None):
            break
        prefix += bytes([forms.PREFIXES[mnemonic]]) if size_prefix is None else size_prefix
    operands = tuple(parse_operand(piece, naming) for piece in split_arguments(rest))
    instruction = Instruction(prefix, mnemonic, operands, bits)
    if not {0xF2, 0xF3}.isdisjoint(prefix) and mnemonic[:-1] not in forms.STRING_STEMS:
        raise ExpressionError(f"{mnemonic} can't be repeated")
    return instruction


def encode(instruction: Instruction, address: int, value: Value, prefer_long: bool = False) -> bytes:
    """The bytes of ``instruction`` at ``address``; ``ExpressionError`` when there is no such encoding.

    ``prefer_long`` takes a branch's long form even where the short one reaches.
    """
    code = _by_hand(instruction, address, value, prefer_long)
    if code is None:
        return _by_keystone(instruction, address, value)
    if forms.OPERAND_SIZE in instruction.prefix and (code[:1] == b"\x66" or _has_sized_number(instruction)):
        raise ExpressionError(f"an operand size prefix before {instruction.mnemonic}: say the size with its operand")
    return instruction.prefix + code


def _has_sized_number(instruction: Instruction) -> bool:
    """Whether a number follows the opcode whose length is the operand size."""
    numbers = Immediate if instruction.mnemonic == "push" else FarPointer
    return any(isinstance(operand, numbers) for operand in instruction.operands)


def _by_hand(instruction: Instruction, address: int, value: Value, prefer_long: bool) -> bytes | None:
    mnemonic, bits = instruction.mnemonic, instruction.bits
    match instruction.operands:
        case ():
            return forms.plain(mnemonic, bits)
        case (FarPointer(selector, offset, size),) if mnemonic in ("jmp", "call", "ljmp", "lcall"):
            return forms.far(mnemonic.removeprefix("l"), value(selector), value(offset), size, bits)
        case (Immediate() as target,) if mnemonic in forms.BRANCHES:
            # A prefix ahead of a branch would move its end; none has a use there.
            if instruction.prefix or target.size or target.distance == "far":
                raise ExpressionError(f"a prefix or size before the target of {mnemonic}")
            distance = target.distance or ("near" if prefer_long else "")
            return forms.branch(mnemonic, address, value(target.value), distance, bits)
        case (Register(name),) if mnemonic in ("push", "pop") and name in SEGMENT_PREFIXES:
            return forms.segment_stack(mnemonic, name, bits)
        case (Immediate() as pushed,) if mnemonic == "push":
            return forms.push(immediate_value(pushed, value), pushed.size, bits)
        case (Immediate() as count,) if mnemonic in ("ret", "retn", "retf", "retfw", "retfd", "retfq"):
            return forms.returning(mnemonic, value(count.value), bits)
        case (Register(name), Memory(registers=()) as memory) if mnemonic == "movabs":
            return forms.absolute(name, value(memory.displacement), memory.segment, True, bits)
        case (Memory(registers=()) as memory, Register(name)) if mnemonic == "movabs":
            return forms.absolute(name, value(memory.displacement), memory.segment, False, bits)
    return None


def _by_keystone(instruction: Instruction, address: int, value: Value) -> bytes:
    written = Written(instruction.prefix, instruction.mnemonic, instruction.operands, instruction.bits, value)
    if not written.rip_relative:
        return written.encoded(written.displacement)
    length = len(written.encoded(0))
    relative = written.displacement - (address + length)
    if -(1 << 31) <= relative < 1 << 31:
        return written.encoded(relative)
    written.make_absolute()
    return written.encoded(written.displacement)
