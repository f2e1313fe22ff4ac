"""From statements to a program: what each one is, with its names resolved, ready for the assembler's passes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from hvproto.images.directives import Directive, parse_directive
from hvproto.images.encoder import Instruction, parse_instruction
from hvproto.images.expressions import NAME, Expression, ExpressionError, evaluate, parse, symbols_in
from hvproto.images.operands import REGISTERS
from hvproto.images.source import Place, Statement, split_arguments

DEFAULT_ORIGIN = 0x100000
"""Load address of a source without ``.origin``: 1 MiB, where kernels of the PC begin."""

_ASSIGNMENT = re.compile(rf"({NAME})\s*=(?!=)(.*)", re.DOTALL)
_EQU = re.compile(rf"({NAME})\s*,(.*)", re.DOTALL)
_MODES = {".code16": 16, ".code32": 32, ".code64": 64}


@dataclass(frozen=True, slots=True)
class Label:
    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    name: str
    value: Expression


@dataclass(frozen=True, slots=True)
class Item:
    """One step of a pass, and the statement it comes from."""

    source: Statement
    what: Label | Constant | Instruction | Directive


@dataclass
class Program:
    """Everything the passes need; ``names`` are all labels and constants with the place of their definition."""

    items: list[Item] = field(default_factory=list)
    names: dict[str, Place] = field(default_factory=dict)
    origin: int = DEFAULT_ORIGIN
    entry: tuple[str, Statement] | None = None


def assignment(body: str) -> tuple[str, str] | None:
    """Name and expression if ``body`` is ``.equ NAME, expr`` or ``NAME = expr``."""
    if body[:4].lower() == ".equ" and body[4:5].isspace():
        match = _EQU.fullmatch(body[4:].strip())
        if match is None:
            raise ExpressionError("write .equ NAME, expression")
        return match.group(1), match.group(2)
    match = _ASSIGNMENT.fullmatch(body)
    return (match.group(1), match.group(2)) if match else None


class EarlyConstants:
    """The constants whose values are known while the source is still being expanded (for ``.rept``)."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}

    def _lookup(self, name: str) -> int:
        if name not in self.values:
            raise ExpressionError(f"{name} isn't known yet: only constants defined above can be used here")
        return self.values[name]

    def define(self, statement: Statement) -> None:
        try:
            pair = assignment(statement.body)
            if pair:
                self.values.setdefault(pair[0], evaluate(parse(pair[1]), self._lookup))
        except ExpressionError:
            return  # Whatever is wrong with it is reported where it is assembled.

    def count(self, text: str, place: Place) -> int:
        try:
            return evaluate(parse(text), self._lookup)
        except ExpressionError as error:
            raise place.error(str(error)) from None


class Builder:
    """Turns statements, in order, into a program."""

    def __init__(self, origin: int, bits: int) -> None:
        self.program = Program(origin=origin)
        self.bits = bits
        self.scope = ""
        self.counters: dict[str, int] = {}
        self.origin_given = False
        self.after_code = False
        self.early = EarlyConstants()

    def add(self, statement: Statement) -> None:
        try:
            for label in statement.labels:
                self._label(statement, label)
            if statement.body:
                self._body(statement)
        except ExpressionError as error:
            raise statement.error(str(error)) from None

    def finished(self) -> Program:
        """The program; ``AssemblyError`` if a constant is defined by itself, over however many others."""
        constants = {item.what.name: item for item in self.program.items if isinstance(item.what, Constant)}
        needs = {
            name: sorted(symbols_in(item.what.value) & constants.keys())
            for name, item in constants.items()
            if isinstance(item.what, Constant)
        }
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as error:
            name = error.args[1][-1]
            raise constants[name].source.error(f"{name} is defined by itself") from None
        return self.program

    def _name(self, written: str) -> str:
        """The full name of a symbol as written in an expression."""
        if written[0].isdigit():
            number, direction = written[:-1], written[-1]
            index = self.counters.get(number, 0) + (direction == "f")
            if index == 0:
                raise ExpressionError(f"there is no label {number}: before this")
            return f"{number}:{index}"
        if written.startswith("."):
            return f"{self.scope}{written}"
        return written

    def _define(self, statement: Statement, name: str, what: Label | Constant) -> None:
        if name.lower() in REGISTERS:
            raise ExpressionError(f"{name} is a register")
        if name in self.program.names:
            before = self.program.names[name]
            raise ExpressionError(f"{name} is already defined at {before.file}:{before.line}")
        self.program.names[name] = statement.place
        self.program.items.append(Item(statement, what))

    def _label(self, statement: Statement, written: str) -> None:
        if written[0].isdigit():
            self.counters[written] = self.counters.get(written, 0) + 1
            name = f"{written}:{self.counters[written]}"
        elif written.startswith("."):
            name = f"{self.scope}{written}"
        else:
            name = self.scope = written
        self._define(statement, name, Label(name))

    def _body(self, statement: Statement) -> None:
        body = statement.body
        if pair := assignment(body):
            name = self._name(pair[0])
            self._define(statement, name, Constant(name, parse(pair[1], self._name)))
            self.early.define(statement)
            return
        if not body.startswith("."):
            self.program.items.append(Item(statement, parse_instruction(body, self.bits, self._name)))
            self.after_code = True
            return
        word, rest = [*body.split(None, 1), ""][:2]
        word = word.lower()
        if word in _MODES:
            if rest:
                raise ExpressionError(f"{word} takes no argument")
            self.bits = _MODES[word]
        elif word == ".origin":
            self._origin(statement, rest)
        elif word == ".entry":
            self._entry(statement, rest)
        else:
            directive = parse_directive(word, rest, self._name, self.after_code)
            if directive is None:
                raise ExpressionError(f"unknown directive {word}")
            self.program.items.append(Item(statement, directive))
            self.after_code = False

    def _origin(self, statement: Statement, rest: str) -> None:
        if self.origin_given or any(not isinstance(item.what, Constant) for item in self.program.items):
            raise ExpressionError(".origin comes once, before all labels, code and data")
        self.program.origin = self.early.count(rest, statement.place)
        if not 0 <= self.program.origin < 1 << 32:
            raise ExpressionError(f".origin {self.program.origin:#x}: 0 to 0xffffffff are possible")
        self.origin_given = True

    def _entry(self, statement: Statement, rest: str) -> None:
        pieces = split_arguments(rest)
        if len(pieces) != 1 or not re.fullmatch(NAME, pieces[0]):
            raise ExpressionError("write .entry SYMBOL")
        if self.program.entry:
            raise ExpressionError(".entry comes once")
        self.program.entry = (self._name(pieces[0]), statement)
