"""What every loader yields: segments at guest-physical addresses, an entry, symbols and source lines."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from hvproto.addresses import GPA

ImageKind = Literal["assembly", "elf32", "elf64", "multiboot", "flat", "disk"]

NAME_REACH = 0x10000
"""How far behind a symbol an address may lie and still be named after it, in bytes."""


@dataclass(frozen=True, slots=True)
class Segment:
    """``size`` bytes at ``address``: first ``data``, then zeros."""

    address: GPA
    data: bytes
    size: int

    def __post_init__(self) -> None:
        if self.address < 0 or self.size < len(self.data):
            raise ValueError(f"a segment of {self.size} bytes at {self.address:#x} can't hold {len(self.data)} bytes")

    @property
    def end(self) -> int:
        """The first address behind the segment."""
        return self.address + self.size

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and self.address <= address < self.end


class Symbols(Mapping[str, int]):
    """Names of addresses; iteration is in address order, names of one address in the order given.

    ``spans`` are the segments' ``(first, behind)`` addresses: an address and the symbol that names it
    must lie in the same one. Without spans only the distance counts.

    >>> names = Symbols({"start": 0x1000, "main": 0x1010})
    >>> names.name_at(0x1010), names.name_at(0x1012), names.name_at(0xFFF)
    ('main', 'main+0x2', None)
    """

    __slots__ = ("_addresses", "_names", "_spans", "_table")

    def __init__(
        self, table: Mapping[str, int] = MappingProxyType({}), spans: tuple[tuple[int, int], ...] = ()
    ) -> None:
        self._table = dict(sorted(table.items(), key=lambda item: item[1]))
        self._spans = spans
        first_names: dict[int, str] = {}
        for name, address in self._table.items():
            first_names.setdefault(address, name)
        self._addresses = list(first_names)
        self._names = list(first_names.values())

    def __getitem__(self, name: str) -> int:
        return self._table[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        return f"Symbols({len(self._table)} names)"

    def _same_segment(self, symbol: int, address: int) -> bool:
        return not self._spans or any(first <= symbol and address < behind for first, behind in self._spans)

    def name_at(self, address: int) -> str | None:
        """``"name"`` or ``"name+0x12"`` of the nearest symbol at or before ``address``.

        None when there is none in the same segment within ``NAME_REACH`` bytes.
        """
        index = bisect_right(self._addresses, address) - 1
        if index < 0:
            return None
        distance = address - self._addresses[index]
        if distance > NAME_REACH or not self._same_segment(self._addresses[index], address):
            return None
        return f"{self._names[index]}+{distance:#x}" if distance else self._names[index]


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line (from 1) of a source file and the statement on it."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Image:
    """A kernel ready to be put into memory.

    ``entry`` is where execution begins; ``lines`` maps the first address of each assembled statement to
    its source; ``constants`` are the ``.equ`` values of an assembled source, which name no address. ``disk`` is the
    whole contents of an image of kind "disk", whose only segment is its boot sector.
    """

    path: str
    kind: ImageKind
    segments: tuple[Segment, ...]
    entry: GPA
    symbols: Symbols = field(default_factory=Symbols)
    lines: Mapping[int, SourceLine] = field(default_factory=dict)
    constants: Mapping[str, int] = field(default_factory=dict)
    disk: bytes = field(default=b"", repr=False)

    @property
    def disk_is_file(self) -> bool:
        """Whether the contents of the disk are those of the file itself, not assembled from it."""
        return self.kind == "disk" and not self.lines

    def line_at(self, address: int) -> SourceLine | None:
        """The source of the statement that begins at ``address``, None inside statements and outside the image."""
        return self.lines.get(address)

    @property
    def start(self) -> GPA:
        """The lowest address of any segment."""
        return GPA(min(segment.address for segment in self.segments))

    @property
    def end(self) -> GPA:
        """The first address behind all segments."""
        return GPA(max(segment.end for segment in self.segments))

    @property
    def size(self) -> int:
        """Bytes from ``start`` to ``end``, gaps included."""
        return self.end - self.start

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``; ``LookupError`` unless one segment holds them all."""
        for segment in self.segments:
            if segment.address <= address and address + size <= segment.end:
                offset = address - segment.address
                return segment.data[offset : offset + size].ljust(size, b"\0")
        raise LookupError(f"{size} bytes at {address:#x} aren't in {self.path}")
