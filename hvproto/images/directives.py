"""The data and space directives: what they emit, given the values of their expressions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from hvproto.images.expressions import ESCAPES, Expression, ExpressionError, Naming, parse, told
from hvproto.images.source import split_arguments

Value = Callable[[Expression], int]

MAX_SPACE = 256 << 20
"""Bytes that one directive, and a whole image, may take up."""

WIDTHS = {".byte": 1, ".word": 2, ".long": 4, ".int": 4, ".quad": 8}
_TEXTS = {".ascii": b"", ".asciz": b"\0", ".string": b"\0"}
_SPACES = (".space", ".skip", ".zero")
_STRING = re.compile(r'"((?:\\.|[^"\\])*)"')
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Emitted:
    """``data``, then ``zeros`` zero bytes."""

    data: bytes = b""
    zeros: int = 0

    @property
    def size(self) -> int:
        return len(self.data) + self.zeros


@dataclass(frozen=True, slots=True)
class Data:
    """Numbers of ``width`` bytes each, little endian."""

    width: int
    items: tuple[tuple[Expression, str], ...]

    def emit(self, value: Value, address: int, strict: bool) -> Emitted:
        bits = 8 * self.width
        low, high = -(1 << (bits - 1)), 1 << bits
        parts = []
        for expression, text in self.items:
            number = value(expression)
            if strict and not (-high if "~" in text else low) <= number < high:
                raise ExpressionError(f"{told(text, number)} doesn't fit in {bits} bits")
            parts.append((number % high).to_bytes(self.width, "little"))
        return Emitted(b"".join(parts))


@dataclass(frozen=True, slots=True)
class Text:
    """Bytes of string literals."""

    data: bytes

    def emit(self, value: Value, address: int, strict: bool) -> Emitted:
        return Emitted(self.data)


@dataclass(frozen=True, slots=True)
class Space:
    """``count`` times ``number`` in ``size`` bytes each."""

    directive: str
    count: Expression
    size: Expression
    number: Expression

    def emit(self, value: Value, address: int, strict: bool) -> Emitted:
        count, size, number = value(self.count), value(self.size), value(self.number)
        if count < 0 or count > MAX_SPACE or count * size > MAX_SPACE:
            raise ExpressionError(f"{self.directive} of {count:,} elements: 0 to {MAX_SPACE >> 20} MiB are possible")
        if not 1 <= size <= 8:
            raise ExpressionError(f"elements of {size} bytes: 1 to 8 are possible")
        limit = 1 << (8 * size)
        if not -limit // 2 <= number < limit:
            raise ExpressionError(f"{number:#x} doesn't fit in {8 * size} bits")
        if number == 0 or not strict:
            return Emitted(zeros=count * size)
        return Emitted((number % limit).to_bytes(size, "little") * count)


@dataclass(frozen=True, slots=True)
class Align:
    """Up to a multiple of ``boundary``, a power of two: with NOPs behind an instruction, else with zeros."""

    boundary: Expression
    code: bool = False

    def emit(self, value: Value, address: int, strict: bool) -> Emitted:
        boundary = value(self.boundary)
        if boundary < 1 or boundary & (boundary - 1) or boundary > MAX_SPACE:
            raise ExpressionError(f"alignment {boundary}: a power of two up to {MAX_SPACE:,} is possible")
        padding = -address % boundary
        return Emitted(b"\x90" * padding) if self.code else Emitted(zeros=padding)


@dataclass(frozen=True, slots=True)
class Org:
    """Zeros up to an absolute address."""

    target: Expression

    def emit(self, value: Value, address: int, strict: bool) -> Emitted:
        target = value(self.target)
        if not strict and not 0 <= target - address <= MAX_SPACE:
            return Emitted()
        if target < address:
            raise ExpressionError(f".org {target:#x} would go backwards: this is {address:#x} already")
        if target - address > MAX_SPACE:
            raise ExpressionError(f".org {target:#x} is more than {MAX_SPACE >> 20} MiB ahead of {address:#x}")
        return Emitted(zeros=target - address)


Directive = Data | Text | Space | Align | Org


def parse_directive(word: str, rest: str, naming: Naming, after_code: bool) -> Directive | None:
    """A directive that emits, None if ``word`` is none; ``ExpressionError`` for bad arguments.

    ``after_code`` says that the statement before was an instruction: alignment then pads with NOPs.
    """
    if word in _TEXTS:
        return Text(strings(rest, _TEXTS[word]))
    if word not in (*WIDTHS, *_SPACES, ".fill", ".align", ".balign", ".org"):
        return None
    pieces = split_arguments(rest)
    if word in WIDTHS:
        if not pieces:
            raise ExpressionError(f"{word} needs a value")
        return Data(WIDTHS[word], tuple((parse(piece, naming), piece) for piece in pieces))
    most = {".fill": 3, ".align": 1, ".balign": 1, ".org": 1, ".zero": 1}.get(word, 2)
    if not 1 <= len(pieces) <= most:
        raise ExpressionError(f"{word} takes 1{f' to {most}' if most > 1 else ''} arguments, {len(pieces)} given")
    parsed = [parse(piece, naming) for piece in pieces]
    one, zero = parse("1"), parse("0")
    if word in (".align", ".balign"):
        return Align(parsed[0], after_code)
    if word == ".org":
        return Org(parsed[0])
    if word == ".fill":
        return Space(word, parsed[0], parsed[1] if len(parsed) > 1 else one, parsed[2] if len(parsed) > 2 else zero)
    return Space(word, parsed[0], one, parsed[1] if len(parsed) > 1 else zero)


def strings(text: str, terminator: bytes = b"") -> bytes:
    """The bytes of comma-separated string literals, each followed by ``terminator``.

    >>> strings(r'"a\\n", "b"', b"\\0")
    b'a\\n\\x00b\\x00'
    """
    result = b""
    pieces = split_arguments(text)
    if not pieces:
        raise ExpressionError('a "string" is missing')
    for piece in pieces:
        match = _STRING.fullmatch(piece)
        if match is None:
            raise ExpressionError(f'not a "string": {piece}')
        result += _unescaped(match.group(1)) + terminator
    return result


def _unescaped(inner: str) -> bytes:
    result, position = b"", 0
    for match in _ESCAPE.finditer(inner):
        code = match.group(1)
        if code[0] == "x" and len(code) > 1:
            byte = int(code[1:], 16)
        elif code[0] in "01234567":
            byte = int(code, 8)
        elif code in ESCAPES:
            byte = ESCAPES[code]
        else:
            raise ExpressionError(f"unknown escape \\{code}")
        if byte > 0xFF:
            raise ExpressionError(f"\\{code} is no byte")
        result += inner[position : match.start()].encode() + bytes([byte])
        position = match.end()
    return result + inner[position:].encode()
