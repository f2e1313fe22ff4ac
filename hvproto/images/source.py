"""From source text to plain statements: comments, labels, .include, .macro and .rept are done with here.

A statement keeps where it came from. What a macro wrote counts as written on the line of its (outermost)
invocation; ``context`` then says which line of which macro it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from hvproto.errors import AssemblyError
from hvproto.images.expressions import NAME

MAX_STATEMENTS = 250_000
"""Statements a source may expand to."""

MAX_DEPTH = 64
"""How deep files, macros and repetitions may be nested in one another."""


PACKAGE_PREFIX = '"hvproto/'
PACKAGE_INCLUDES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "include")
"""Where `.include "hvproto/NAME"` is found if there is no such file beside the source."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line (from 1) of a file, its text, and the macro lines that led from there to the statement."""

    file: str
    line: int
    text: str
    context: str = ""

    def error(self, reason: str) -> AssemblyError:
        return AssemblyError(self.file, self.line, self.text, f"{self.context}{reason}")


@dataclass(frozen=True, slots=True)
class Statement:
    """Labels, then a body (maybe empty) without comment or surrounding blanks."""

    place: Place
    labels: tuple[str, ...]
    body: str

    def error(self, reason: str) -> AssemblyError:
        return self.place.error(reason)


@dataclass(frozen=True, slots=True)
class _Line:
    place: Place
    code: str


@dataclass(frozen=True, slots=True)
class _Macro:
    name: str
    parameters: tuple[tuple[str, str | None], ...]
    body: tuple[_Line, ...]


_LABEL = re.compile(rf"\s*({NAME}|[0-9]+)\s*:(?!:)")
_CODE = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?!;|\#|//).)*""")
_WORD = re.compile(r"\S+")
_PARAMETER = re.compile(r"\\(\(\)|@|[A-Za-z_]\w*)")
_PIECE = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])'|[(\[]|[)\]]|,)""")

Evaluate = Callable[[str, Place], int]
"""Gives the value of a repetition count, from the constants defined so far."""

Define = Callable[[Statement], None]
"""Is shown every statement as it is made, so that the constants it defines are known to later counts."""


def split_arguments(text: str) -> list[str]:
    """The comma-separated pieces of ``text``, stripped; commas in quotes, ( ) and [ ] don't separate.

    >>> split_arguments("a, 'x', [b, c], ','")
    ['a', "'x'", '[b, c]', "','"]
    """
    if not text.strip():
        return []
    pieces, depth = [""], 0
    for piece in _PIECE.split(text):
        if piece in ("(", "["):
            depth += 1
        elif piece in (")", "]"):
            depth -= 1
        if piece == "," and depth <= 0:
            pieces.append("")
        else:
            pieces[-1] += piece
    return [piece.strip() for piece in pieces]


def read_text(path: str) -> str:
    """The text of a source file; ``AssemblyError`` at the line that isn't UTF-8, ``OSError`` if unreadable."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        text = data.split(b"\n")[line - 1].decode("utf-8", "replace")
        raise AssemblyError(path, line, text, f"byte {data[error.start]:#04x} isn't UTF-8") from None


def statements(text: str, path: str, count: Evaluate, define: Define) -> list[Statement]:
    """All statements of a source, in order."""
    expander = _Expander(count, define)
    expander.file(text, path)
    return expander.result


def _lines(text: str, path: str) -> list[_Line]:
    result = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.rstrip("\r")
        place = Place(path, number, line)
        match = _CODE.match(line)
        result.append(_Line(place, (match.group() if match else "").strip()))
    return result


def _substitute(line: _Line, values: dict[str, str], place: Place) -> _Line:
    def value(match: re.Match[str]) -> str:
        if match.group(1) == "()":
            return ""
        return values.get(match.group(1), match.group())

    return _Line(place, _PARAMETER.sub(value, line.code) if "\\" in line.code else line.code)


def _directive(code: str) -> str:
    match = _WORD.match(code)
    return match.group().lower() if match else ""


@dataclass
class _Expander:
    count: Evaluate
    define: Define
    result: list[Statement] = field(default_factory=list)
    macros: dict[str, _Macro] = field(default_factory=dict)
    expansions: int = 0
    depth: int = 0
    files: list[str] = field(default_factory=list)

    def file(self, text: str, path: str) -> None:
        self.files.append(os.path.realpath(path))
        self.block(_lines(text, path), ())
        self.files.pop()

    def block(self, lines: list[_Line], active: tuple[str, ...]) -> None:
        if self.depth >= MAX_DEPTH and lines:
            raise lines[0].place.error(f"files, macros and repetitions nested more than {MAX_DEPTH} deep")
        self.depth += 1
        remaining = iter(lines)
        for line in remaining:
            labels, code = self.labels(line)
            word = _directive(code)
            if word in (".macro", ".rept", ".include") or code.split(" ")[0].split("\t")[0] in self.macros:
                if labels:
                    self.add(Statement(line.place, labels, ""))
                self.expand(line.place, word, code, remaining, active)
            elif word in (".endm", ".endr"):
                raise line.place.error(f"{word} without its .{'macro' if word == '.endm' else 'rept'}")
            elif labels or code:
                self.add(Statement(line.place, labels, code))
        self.depth -= 1

    def add(self, statement: Statement) -> None:
        if len(self.result) >= MAX_STATEMENTS:
            raise statement.error(f"the source expands to more than {MAX_STATEMENTS:,} statements")
        self.result.append(statement)
        self.define(statement)

    @staticmethod
    def labels(line: _Line) -> tuple[tuple[str, ...], str]:
        labels: list[str] = []
        code = line.code
        while match := _LABEL.match(code):
            labels.append(match.group(1))
            code = code[match.end() :]
        return tuple(labels), code.strip()

    def expand(self, place: Place, word: str, code: str, rest: Iterator[_Line], active: tuple[str, ...]) -> None:
        argument = code[len(word) :].strip()
        if word == ".include":
            self.include(place, argument)
        elif word == ".macro":
            self.define_macro(place, argument, self.body(place, rest, ".macro", ".endm"))
        elif word == ".rept":
            self.repeat(place, argument, self.body(place, rest, ".rept", ".endr"), active)
        else:
            self.invoke(place, code, active)

    @staticmethod
    def body(place: Place, rest: Iterator[_Line], opening: str, closing: str) -> list[_Line]:
        lines: list[_Line] = []
        depth = 1
        for line in rest:
            word = _directive(line.code)
            depth += (word == opening) - (word == closing)
            if depth == 0:
                return lines
            lines.append(line)
        raise place.error(f"{opening} without its {closing}")

    def include(self, place: Place, argument: str) -> None:
        if len(argument) < 3 or argument[0] != '"' or argument[-1] != '"' or "\0" in argument:
            raise place.error('write .include "file"')
        path = os.path.join(os.path.dirname(place.file), argument[1:-1])
        if argument.startswith(PACKAGE_PREFIX) and not os.path.exists(path):
            path = os.path.join(PACKAGE_INCLUDES, argument[1:-1])
        if os.path.realpath(path) in self.files:
            raise place.error(f"{path} includes itself")
        try:
            text = read_text(path)
        except OSError as error:
            raise place.error(f"can't include {path}: {error.strerror or error}") from None
        self.file(text, path)

    def define_macro(self, place: Place, argument: str, body: list[_Line]) -> None:
        words = re.split(r"[\s,]+", re.sub(r"\s*=\s*", "=", argument.strip()))
        name, parameters = words[0], [word for word in words[1:] if word]
        if not re.fullmatch(NAME, name):
            raise place.error("write .macro NAME, then its parameters")
        if name in self.macros:
            raise place.error(f"macro {name} is already defined")
        pairs: list[tuple[str, str | None]] = []
        for parameter in parameters:
            key, given, default = parameter.partition("=")
            if not re.fullmatch(r"[A-Za-z_]\w*", key) or any(key == other for other, _ in pairs):
                raise place.error(f"bad macro parameter {parameter!r}")
            pairs.append((key, default if given else None))
        self.macros[name] = _Macro(name, tuple(pairs), tuple(body))

    def invoke(self, place: Place, code: str, active: tuple[str, ...]) -> None:
        words = code.split(None, 1)
        macro = self.macros[words[0]]
        if macro.name in active:
            raise place.error(f"macro {macro.name} invokes itself")
        given = split_arguments(words[1] if len(words) > 1 else "")
        if len(given) > len(macro.parameters):
            raise place.error(f"macro {macro.name} takes {len(macro.parameters)} arguments, {len(given)} given")
        values = {"@": str(self.expansions)}
        self.expansions += 1
        for index, (name, default) in enumerate(macro.parameters):
            value = given[index] if index < len(given) and given[index] else default
            if value is None:
                raise place.error(f"macro {macro.name} needs its argument {name}")
            values[name] = value
        lines = []
        for line in macro.body:
            context = f"{place.context}in macro {macro.name} ({line.place.file}:{line.place.line}): "
            lines.append(_substitute(line, values, replace(place, context=context)))
        self.block(lines, (*active, macro.name))

    def repeat(self, place: Place, argument: str, body: list[_Line], active: tuple[str, ...]) -> None:
        times = self.count(argument, place)
        if not 0 <= times <= MAX_STATEMENTS:
            raise place.error(f".rept {times}: 0 to {MAX_STATEMENTS:,} are possible")
        for index in range(times if body else 0):
            lines: list[_Line] = []
            depth = 0
            for line in body:
                word = _directive(line.code)
                depth -= word == ".endr"
                # The index inside a nested .rept is that one's own.
                code = line.code if depth else line.code.replace("\\+", str(index))
                depth += word == ".rept"
                lines.append(_Line(line.place, code))
            self.block(lines, active)
