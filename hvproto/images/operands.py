"""The operands of one instruction: registers, memory and expressions, as the dialect writes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from hvproto.images.expressions import Expression, ExpressionError, Naming, Number, evaluate, parse

Value = Callable[[Expression], int]
"""Evaluates an expression of an instruction with the symbols of the present pass."""

SEGMENT_PREFIXES = {"es": 0x26, "cs": 0x2E, "ss": 0x36, "ds": 0x3E, "fs": 0x64, "gs": 0x65}


def _register_sizes() -> dict[str, int]:
    sizes = dict.fromkeys(("al", "ah", "bl", "bh", "cl", "ch", "dl", "dh", "sil", "dil", "bpl", "spl"), 1)
    for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp"):
        sizes.update({name: 2, f"e{name}": 4, f"r{name}": 8})
    for number in range(8, 16):
        sizes.update({f"r{number}": 8, f"r{number}d": 4, f"r{number}w": 2, f"r{number}b": 1})
    for number in range(16):
        sizes.update({f"xmm{number}": 16, f"ymm{number}": 32, f"cr{number}": 0, f"dr{number}": 0})
    for number in range(8):
        sizes.update({f"mm{number}": 8, f"st({number})": 10})
    sizes.update({"st": 10, "eip": 4, "rip": 8})
    sizes.update(dict.fromkeys(SEGMENT_PREFIXES, 2))
    return sizes


REGISTERS = _register_sizes()
"""Every register's size in bytes; 0 where it depends on the mode."""

SIZES = {
    "byte": 1, "word": 2, "dword": 4, "fword": 6, "qword": 8, "tbyte": 10, "tword": 10, "xmmword": 16, "oword": 16,
}  # fmt: skip

_SIZE = re.compile(rf"({'|'.join(SIZES)})\b\s*(?:ptr\b\s*)?(?=\S)", re.IGNORECASE)
_DISTANCE = re.compile(r"(short|near|far)\b\s*(?:ptr\b\s*)?(?=\S)", re.IGNORECASE)
_SEGMENT = re.compile(r"([c-gs]s)\s*:\s*", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z_.?@$][\w.?@$]*")
_SCALED = re.compile(r"(\w+)\s*\*\s*(.+)|(.+?)\s*\*\s*(\w+)")
_SIGN = re.compile(r"('(?:\\.|[^'\\])'|[-+()])")


@dataclass(frozen=True, slots=True)
class Register:
    name: str

    @property
    def size(self) -> int:
        return REGISTERS[self.name]


@dataclass(frozen=True, slots=True)
class Memory:
    """``size`` in bytes or 0 if not said; ``registers`` with their scales; ``segment`` or "" if not said."""

    size: int
    segment: str
    registers: tuple[tuple[str, int], ...]
    displacement: Expression

    @property
    def default_segment(self) -> str:
        """What the processor takes without a prefix (SDM vol. 1, 3.7.4): SS for a base of EBP or ESP."""
        base = next((name for name, scale in self.registers if scale == 1), "")
        return "ss" if base[-2:] in ("bp", "sp") else "ds"

    @property
    def address_size(self) -> int:
        """In bytes; 0 if no register tells."""
        return REGISTERS[self.registers[0][0]] if self.registers else 0


@dataclass(frozen=True, slots=True)
class Immediate:
    """``size`` and ``distance`` (short, near, far) are 0 and "" unless written."""

    value: Expression
    text: str
    size: int = 0
    distance: str = ""


@dataclass(frozen=True, slots=True)
class FarPointer:
    """``selector:offset``; ``size`` of the offset in bytes, 0 if not said."""

    selector: Expression
    offset: Expression
    size: int


@dataclass(frozen=True, slots=True)
class FarMemory:
    """A far pointer in memory of ``size`` bytes, 0 if not said: the offset, then a selector of 2 bytes.

    ``far [x]`` has the mode's own size, ``far dword ptr``, ``fword ptr`` and ``far tbyte ptr`` say it.
    """

    memory: Memory
    size: int = 0


Operand = Register | Memory | Immediate | FarPointer | FarMemory


def parse_operand(text: str, naming: Naming) -> Operand:
    """One operand; ``ExpressionError`` if it isn't one."""
    rest = text.strip()
    size, distance = 0, ""
    while True:
        if not size and (match := _SIZE.match(rest)):
            size = SIZES[match.group(1).lower()]
        elif not distance and (match := _DISTANCE.match(rest)):
            distance = match.group(1).lower()
        else:
            break
        rest = rest[match.end() :]
    lowered = re.sub(r"\s+", "", rest.lower())
    if lowered in REGISTERS:
        if distance or (size and size != REGISTERS[lowered]):
            raise ExpressionError(f"{text!r}: a register needs no size")
        return Register(lowered)
    if rest.endswith("]"):
        memory = _memory(rest, size, naming)
        if distance == "far" or size == SIZES["fword"]:
            return FarMemory(memory, size)
        return memory
    pieces = _outside_quotes(rest, ":")
    if len(pieces) == 2:
        return FarPointer(parse(pieces[0], naming), parse(pieces[1], naming), size)
    if "[" in rest:
        raise ExpressionError(f"a ] is missing in {text!r}" if "]" not in rest else f"can't read {text!r}")
    if word := _register_in(rest):
        raise ExpressionError(f"register {word} in the expression {text!r}")
    return Immediate(parse(rest, naming), text.strip(), size, distance)


def _outside_quotes(text: str, separator: str) -> list[str]:
    return re.sub(
        r"'(?:\\.|[^'\\])'|" + re.escape(separator), lambda m: m[0] if m[0] != separator else "\0", text
    ).split("\0")


def _register_in(text: str) -> str:
    bare = re.sub(r"'(?:\\.|[^'\\])'", " ", text)
    return next((word for word in _WORD.findall(bare) if word.lower() in REGISTERS), "")


def _memory(text: str, size: int, naming: Naming) -> Memory:
    segment = ""
    if match := _SEGMENT.match(text):
        segment, text = match.group(1).lower(), text[match.end() :]
    if not text.startswith("["):
        raise ExpressionError(f"can't read {text!r}: the whole address belongs inside [ ]")
    inner = text[1:-1].strip()
    if "[" in inner or "]" in inner:
        raise ExpressionError(f"unbalanced or nested brackets in {text!r}")
    if not segment and (match := _SEGMENT.match(inner)):
        segment, inner = match.group(1).lower(), inner[match.end() :]
    scales: dict[str, int] = {}
    constants: list[str] = []
    for sign, term in _terms(inner):
        if not _register_in(term):
            constants.append(f"{sign}{term}")
            continue
        register, scale = _scaled_register(term, naming)
        if sign == "-":
            raise ExpressionError(f"register {register} can't be subtracted in {text!r}")
        scales[register] = scales.get(register, 0) + scale
    displacement = parse(" ".join(constants), naming) if constants else Number(0)
    return Memory(size, segment, _checked_registers(scales, text), displacement)


def _terms(text: str) -> list[tuple[str, str]]:
    """The terms of a sum with their signs; a sign after an operator belongs to the term."""
    terms: list[tuple[str, str]] = []
    sign, term, depth = "+", "", 0
    for piece in _SIGN.split(text):
        depth += (piece == "(") - (piece == ")")
        if (
            piece in ("+", "-")
            and depth == 0
            and not re.search(r"[*/%<>&|^~]\s*$", term)
            and (term.strip() or not terms)
        ):
            if term.strip():
                terms.append((sign, term.strip()))
                term = ""
            elif sign == "-" or terms:
                raise ExpressionError(f"an operand is missing in [{text}]")
            sign = piece
        else:
            term += piece
    if not term.strip():
        raise ExpressionError(f"an operand is missing in [{text}]")
    terms.append((sign, term.strip()))
    return terms


def _scaled_register(term: str, naming: Naming) -> tuple[str, int]:
    if term.lower() in REGISTERS:
        return term.lower(), 1
    match = _SCALED.fullmatch(term)
    if match:
        first = match.group(1) or match.group(4)
        factor = match.group(2) or match.group(3)
        if first.lower() not in REGISTERS:
            first, factor = factor, first
        if first.strip().lower() in REGISTERS and not _register_in(factor):
            return first.strip().lower(), evaluate(parse(factor, naming), _no_symbol)
    raise ExpressionError(f"can't read {term!r}: a register may be scaled by 1, 2, 4 or 8")


def _no_symbol(name: str) -> int:
    raise ExpressionError(f"a scale is a plain number, not {name}")


def _checked_registers(scales: dict[str, int], text: str) -> tuple[tuple[str, int], ...]:
    """Base and index of an address the processor can form (SDM vol. 2, 2.1.5)."""
    if not scales:
        return ()
    names = list(scales)
    sizes = {REGISTERS[name] for name in names}
    if "rip" in names or "eip" in names:
        raise ExpressionError("write [address]: in .code64 it is relative to RIP by itself")
    if len(sizes) > 1 or not sizes <= {2, 4, 8} or any(name in SEGMENT_PREFIXES for name in names):
        raise ExpressionError(f"these registers can't form an address together: {text!r}")
    if len(names) == 1 and scales[names[0]] in (3, 5, 9):
        return ((names[0], 1), (names[0], scales[names[0]] - 1))
    if len(names) == 1 and scales[names[0]] == 2 and sizes != {2}:
        return ((names[0], 2),)
    multiplied = [name for name in names if scales[name] != 1]
    if len(names) > 2 or len(multiplied) > 1 or any(scales[name] not in (1, 2, 4, 8) for name in names):
        raise ExpressionError(f"an address has a base and one index scaled by 1, 2, 4 or 8: {text!r}")
    index = multiplied[0] if multiplied else names[-1]
    if len(names) == 2 and index in ("esp", "rsp") and not multiplied:
        names.reverse()
        index = names[-1]
    if index in ("esp", "rsp") and (multiplied or len(names) == 2):
        raise ExpressionError(f"{index} can't be an index: {text!r}")
    return tuple((name, scales[name]) for name in sorted(names, key=lambda name: name == index))
