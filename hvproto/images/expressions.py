"""Expressions of the assembly dialect: integers, characters, symbols and C's integer operators.

An expression is parsed once and evaluated in every pass of the assembler. Precedence, tightest first:
``~ - +`` (unary), ``* / %``, ``+ -``, ``<< >>``, ``&``, ``^``, ``|``. Division truncates toward zero, as in C.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_DEPTH = 48
"""Parentheses and unary operators that may be nested."""

MAX_TOKENS = 512
"""Numbers, names and operators in one expression."""

VALUE_LIMIT = 1 << 64
"""Values lie strictly between minus this and plus this."""

Lookup = Callable[[str], int]
"""From a symbol's full name (``$`` for the statement's address) to its value."""

Naming = Callable[[str], str]
"""From a name as written (``.local``, ``1f``) to the symbol's full name."""


class ExpressionError(ValueError):
    """An expression that can't be read or has no value; the assembler adds file and line."""


NAME = r"[A-Za-z_.?@][A-Za-z0-9_.?@$]*"
_TOKEN = re.compile(
    rf"""\s*(?:
    (?P<char>'(?:\\x[0-9A-Fa-f]{{2}}|\\.|[^\\'])')
  | (?P<number>0[xX][0-9A-Fa-f]+|0[bB][01]+|[0-9]+)(?![\w.])
  | (?P<numeric>[0-9]+[bf])(?![\w.])
  | (?P<name>{NAME}|\$)
  | (?P<operator><<|>>|[-+*/%&|^~()])
    )""",
    re.VERBOSE,
)

ESCAPES = {"n": 10, "t": 9, "r": 13, "0": 0, "\\": 92, "'": 39, '"': 34, "a": 7, "b": 8, "e": 27, "f": 12, "v": 11}

_LEVELS: tuple[tuple[str, ...], ...] = (("|",), ("^",), ("&",), ("<<", ">>"), ("+", "-"), ("*", "/", "%"))


@dataclass(frozen=True, slots=True)
class Number:
    """A literal."""

    value: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """A full name; ``written`` is what the source says."""

    name: str
    written: str


@dataclass(frozen=True, slots=True)
class Unary:
    operator: str
    operand: Expression


@dataclass(frozen=True, slots=True)
class Binary:
    operator: str
    left: Expression
    right: Expression


Expression = Number | Symbol | Unary | Binary


def _as_written(name: str) -> str:
    return name


def parse(text: str, naming: Naming = _as_written) -> Expression:
    """The expression that ``text`` is, all of it; ``ExpressionError`` otherwise."""
    return _Parser(list(_tokens(text)), text.strip(), naming).whole()


def evaluate(expression: Expression, lookup: Lookup) -> int:
    """The value; ``ExpressionError`` on division by zero, absurd shifts and values of more than 64 bits.

    >>> evaluate(parse("2 + 3 * (0x10 >> 2) - 'A'"), lambda name: 0)
    -51
    """
    match expression:
        case Number(value):
            return value
        case Symbol(name):
            return lookup(name)
        case Unary(operator, operand):
            value = evaluate(operand, lookup)
            return -value if operator == "-" else ~value if operator == "~" else value
        case Binary(operator, left, right):
            return _limited(_apply(operator, evaluate(left, lookup), evaluate(right, lookup)))


def symbols_in(expression: Expression) -> set[str]:
    """The full names of all symbols in an expression."""
    match expression:
        case Symbol(name):
            return {name}
        case Unary(_, operand):
            return symbols_in(operand)
        case Binary(_, left, right):
            return symbols_in(left) | symbols_in(right)
    return set()


def told(text: str, value: int) -> str:
    """An expression and its value, for messages.

    >>> told("300", 300), told("end - 1", 0x1234)
    ('300', 'end - 1 = 0x1234')
    """
    try:
        literal = int(text, 0) == value
    except ValueError:
        literal = False
    return text if literal else f"{text} = {value:#x}"


def _limited(value: int) -> int:
    if not -VALUE_LIMIT < value < VALUE_LIMIT:
        raise ExpressionError("the value needs more than 64 bits")
    return value


def _apply(operator: str, left: int, right: int) -> int:
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/" | "%":
            if right == 0:
                raise ExpressionError("division by zero")
            quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
            return quotient if operator == "/" else left - quotient * right
        case "<<" | ">>":
            if not 0 <= right < 64:
                raise ExpressionError(f"shift by {right}: 0 to 63 are possible")
            return left << right if operator == "<<" else left >> right
        case "&":
            return left & right
        case "^":
            return left ^ right
        case _:
            return left | right


def character(literal: str) -> int:
    """The code point of a quoted character, escapes included."""
    inner = literal[1:-1]
    if not inner.startswith("\\"):
        return ord(inner)
    if inner[1] == "x" and len(inner) == 4:
        return int(inner[2:], 16)
    if inner[1] not in ESCAPES:
        raise ExpressionError(f"unknown escape {inner} in {literal}")
    return ESCAPES[inner[1]]


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"can't read {text[position:].strip()!r}")
        kind = match.lastgroup or ""
        yield kind, match.group(kind)
        position = match.end()


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]], text: str, naming: Naming) -> None:
        self.tokens = tokens
        self.text = text
        self.naming = naming
        self.position = 0
        self.depth = 0

    def whole(self) -> Expression:
        if not self.tokens:
            raise ExpressionError("an expression is missing")
        if len(self.tokens) > MAX_TOKENS:
            raise ExpressionError(f"the expression has more than {MAX_TOKENS} parts")
        result = self._binary(0)
        if self.position < len(self.tokens):
            raise ExpressionError(f"unexpected {self.tokens[self.position][1]!r} in {self.text!r}")
        return result

    def _peek_operator(self) -> str:
        if self.position < len(self.tokens) and self.tokens[self.position][0] == "operator":
            return self.tokens[self.position][1]
        return ""

    def _binary(self, level: int) -> Expression:
        if level == len(_LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while (operator := self._peek_operator()) in _LEVELS[level]:
            self.position += 1
            left = Binary(operator, left, self._binary(level + 1))
        return left

    def _unary(self) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionError("the expression is nested too deeply")
        try:
            return self._operand()
        finally:
            self.depth -= 1

    def _operand(self) -> Expression:
        if self.position == len(self.tokens):
            raise ExpressionError(f"{self.text!r} ends where an operand is missing")
        kind, text = self.tokens[self.position]
        self.position += 1
        match kind, text:
            case "operator", "-" | "+" | "~":
                return Unary(text, self._unary())
            case "operator", "(":
                inner = self._binary(0)
                if self._peek_operator() != ")":
                    raise ExpressionError(f"a ) is missing in {self.text!r}")
                self.position += 1
                return inner
            case "char", _:
                return Number(character(text))
            case "number", _:
                return Number(_limited(int(text, 0 if text[:2].lower() in ("0x", "0b") else 10)))
            case "name", "$":
                return Symbol("$", "$")
            case ("name", "offset") | ("name", "OFFSET"):
                return self._unary()
            case (("name" | "numeric"), _):
                return Symbol(self.naming(text), text)
        raise ExpressionError(f"unexpected {text!r} in {self.text!r}")
