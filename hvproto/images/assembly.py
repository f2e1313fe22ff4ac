"""The assembler: kernels in Intel syntax, with labels, macros and data, to an image.

Statement sizes depend on addresses (short and long jumps) and addresses on sizes, so the program is laid out in
passes until nothing moves. Branches begin in their short form and only ever grow, which yields the shortest program;
other statements may also shrink during the first ``FREE_PASSES``, afterwards they too only grow, so the process ends.
A last, strict pass reports what can't be encoded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from hvproto.addresses import GPA
from hvproto.errors import ImageError
from hvproto.images.directives import MAX_SPACE, Data, Emitted, Text
from hvproto.images.encoder import Instruction, encode
from hvproto.images.expressions import Expression, ExpressionError, evaluate
from hvproto.images.image import Image, Segment, SourceLine, Symbols
from hvproto.images.source import read_text, statements
from hvproto.images.statements import DEFAULT_ORIGIN, Builder, Constant, Item, Label, Program

FREE_PASSES = 8
MAX_PASSES = 64
MAX_INSTRUCTION = 15
"""Bytes of the longest instruction (Intel SDM vol. 2, 2.3.11)."""

_LARGE = 0x7FF0_1234
"""Stands for a symbol that isn't known yet, except in a branch: a number that needs a long form."""


def assemble(path: str | os.PathLike[str]) -> Image:
    """The image of an assembly source file.

    Raises ``AssemblyError`` with file, line and text of the statement that is wrong, ``ImageError`` if the file
    can't be read.
    """
    name = os.fspath(path)
    try:
        text = read_text(name)
    except OSError as error:
        raise ImageError(name, error.strerror or str(error)) from None
    except ValueError as error:
        raise ImageError(name, str(error)) from None
    return assemble_text(text, name)


def assemble_text(text: str, name: str = "<text>", origin: int | None = None, bits: int = 32) -> Image:
    """The image of a source given as text.

    ``origin`` is the load address (GPA) where the source has no ``.origin``; ``bits`` the mode it begins in.
    ``.include`` looks in the directory of ``name``. Raises ``AssemblyError``; ``ImageError`` if nothing is emitted.

    >>> image = assemble_text("start: mov eax, value\\nhlt\\nvalue: .long 5")
    >>> image.segments[0].data.hex(" "), hex(image.symbols["value"])
    ('b8 06 00 10 00 f4 05 00 00 00', '0x100006')
    """
    if bits not in (16, 32, 64) or not 0 <= (origin or 0) < 1 << 32:
        raise ValueError(f"no such mode or origin: {bits} bits, {origin}")
    builder = Builder(DEFAULT_ORIGIN if origin is None else origin, bits)
    for statement in statements(text, name, builder.early.count, builder.early.define):
        builder.add(statement)
    return _Assembler(builder.finished(), name).image()


@dataclass
class _Assembler:
    program: Program
    path: str
    values: dict[str, int] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    current: dict[str, int] = field(default_factory=dict)
    address: int = 0
    unknown: int = _LARGE
    drift: int = 0
    labels: frozenset[str] = frozenset()
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def image(self) -> Image:
        self._settle()
        emitted = self._strict()
        data = self._joined(emitted)
        if not any(piece.size for _, _, piece in emitted):
            raise ImageError(self.path, "the source has no code or data")
        size = self.address - self.program.origin
        segment = Segment(GPA(self.program.origin), data, size)
        labels = {
            item.what.name: self.values[item.what.name]
            for item in self.program.items
            if isinstance(item.what, Label) and not item.what.name[0].isdigit()
        }
        constants = {i.what.name: self.values[i.what.name] for i in self.program.items if isinstance(i.what, Constant)}
        lines = {}
        for item, address, piece in emitted:
            if piece.data and isinstance(item.what, Instruction | Data | Text):
                lines[address] = SourceLine(item.source.place.file, item.source.place.line, item.source.body)
        # A label may stand at the very end, where the segment has no byte any more.
        symbols = Symbols(labels, ((segment.address, segment.end),))
        return Image(self.path, "assembly", (segment,), GPA(self._entry()), symbols, lines, constants)

    def _entry(self) -> int:
        if self.program.entry:
            name, statement = self.program.entry
            if name not in self.values:
                raise statement.error(f"undefined symbol {name}")
            return self.values[name]
        for name in ("_start", "start"):
            if name in self.values:
                return self.values[name]
        return self.program.origin

    def _settle(self) -> None:
        """Lays the program out until no size changes any more."""
        self.labels = frozenset(item.what.name for item in self.program.items if isinstance(item.what, Label))
        for number in range(MAX_PASSES):
            sizes = self._pass(number)
            previous = self.sizes
            stable = sizes == previous and self.current == self.values
            self.sizes, self.values = sizes, self.current
            if stable:
                return
        moving = next((i for i, size in enumerate(sizes) if size != previous[i]), len(sizes) - 1)
        raise self.program.items[moving].source.error("its size depends on itself and doesn't settle")

    def _pass(self, number: int) -> list[int]:
        self.address = self.program.origin
        self.current = {}
        sizes: list[int] = []
        old_address = self.address
        for index, item in enumerate(self.program.items):
            before = self.sizes[index] if self.sizes else 0
            # Labels further on will move at least as far as this statement has moved since the last pass.
            self.drift = self.address - old_address
            old_address += before
            instruction = isinstance(item.what, Instruction)
            branch = isinstance(item.what, Instruction) and item.what.is_branch
            self.unknown = self.address if branch else _LARGE
            growing = branch or number > FREE_PASSES
            try:
                if number and self._same_shape(index, item):
                    size = before
                else:
                    size = self._emit(item, before if growing else 0, strict=False).size
            except ExpressionError:
                # Maybe only a number that isn't settled yet; if not, the strict pass will report it.
                size = before or (MAX_INSTRUCTION if instruction and not branch else 0)
            if growing and instruction:
                size = max(size, before)
            sizes.append(size)
            self.address += size
        return sizes

    def _same_shape(self, index: int, item: Item) -> bool:
        """Whether the numbers of an instruction need just as many bytes as when it was last encoded."""
        if not isinstance(item.what, Instruction) or item.what.is_branch:
            return False
        shape = tuple(_shape(self._value(expression)) for expression in item.what.expressions())
        same = self.shapes.get(index) == shape
        self.shapes[index] = shape
        return same

    def _strict(self) -> list[tuple[Item, int, Emitted]]:
        self.address = self.program.origin
        self.drift = 0
        self.current = {}
        result = []
        for index, item in enumerate(self.program.items):
            try:
                piece = self._emit(item, self.sizes[index], strict=True)
            except ExpressionError as error:
                raise item.source.error(str(error)) from None
            missing = self.sizes[index] - piece.size
            if missing < 0:
                raise item.source.error("its size depends on itself and doesn't settle")
            if missing:
                piece = Emitted(piece.data + b"\x90" * missing)
            if piece.size:
                result.append((item, self.address, piece))
            self.address += piece.size
            if self.address - self.program.origin > MAX_SPACE:
                raise item.source.error(f"the image grows larger than {MAX_SPACE >> 20} MiB")
            if self.address > 1 << 32:
                raise item.source.error("the image goes beyond 4 GiB")
        return result

    def _emit(self, item: Item, size: int, strict: bool) -> Emitted:
        what = item.what
        if isinstance(what, Label):
            self.current[what.name] = self.address
            return Emitted()
        if isinstance(what, Constant):
            self.current[what.name] = self._value(what.value)
            return Emitted()
        if not isinstance(what, Instruction):
            return what.emit(self._value, self.address, strict)
        code = encode(what, self.address, self._value)
        if len(code) < size:
            # The layout has given it room for a longer form; take that form if there is one.
            longer = encode(what, self.address, self._value, prefer_long=True)
            code = longer if len(longer) <= size else code
        return Emitted(code)

    def _value(self, expression: Expression) -> int:
        return evaluate(expression, self._lookup)

    def _lookup(self, name: str) -> int:
        if name == "$":
            return self.address
        if name in self.current:
            return self.current[name]
        if name in self.values:
            return self.values[name] + (self.drift if name in self.labels else 0)
        if name in self.program.names:
            return self.unknown
        if ":" in name:
            raise ExpressionError(f"there is no label {name.split(':')[0]}: after this")
        raise ExpressionError(f"undefined symbol {name}")

    @staticmethod
    def _joined(emitted: list[tuple[Item, int, Emitted]]) -> bytes:
        """All bytes, without the zeros at the end that need no data."""
        pieces = list(emitted)
        while pieces and not pieces[-1][2].data:
            pieces.pop()
        parts: list[bytes] = []
        for index, (_, _, piece) in enumerate(pieces):
            last = index == len(pieces) - 1
            parts.append(piece.data if last else piece.data + bytes(piece.zeros))
        return b"".join(parts)


def _shape(value: int) -> int:
    """Numbers of one shape need equally long encodings: one byte, one byte when cut to 16, 32 or 64 bits, or more."""
    for width in (256, 16, 32, 64):
        half = 1 << (width - 1)
        if -128 <= (value + half) % (2 * half) - half <= 127:
            return -width
    return sum(value.bit_length() > bits for bits in (15, 16, 31, 32)) + (10 if value < 0 else 0)
