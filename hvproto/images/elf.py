"""ELF executables for i386 (ELF32) and x86-64 (ELF64), by the System V ABI's supplements, checked here.

Sections and symbols are read by pyelftools. Nothing in the file is trusted: whatever is broken, in whatever way, ends
in an ``ImageError`` that says what and where.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise

from elftools.common.exceptions import ELFError
from elftools.construct.core import ConstructError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from hvproto.addresses import GPA
from hvproto.errors import ImageError
from hvproto.images.image import Image, ImageKind, Segment, Symbols

ELF_MAGIC = b"\x7fELF"

MAX_MEMORY_SIZE = 1 << 30
"""Bytes of memory that one segment may ask for: more is taken for a broken file."""

MAX_SYMBOLS = 200_000

_IDENTIFICATION_SIZE = 16
_ET_EXEC, _PT_LOAD = 2, 1
_ORDERS = {1: "little-endian", 2: "big-endian"}
_TYPES = {0: "ET_NONE", 1: "ET_REL (an object file)", 3: "ET_DYN (position-independent)", 4: "ET_CORE"}


@dataclass(frozen=True, slots=True)
class _Class:
    """One of the two formats: the layouts of a header behind the identification, and of a program header.

    The fields of a program header come in another order in each; ``load_fields`` says where offset, virtual and
    physical address and both sizes are.
    """

    kind: ImageKind
    machine: int
    machine_name: str
    header: struct.Struct
    program_header: struct.Struct
    load_fields: tuple[int, int, int, int, int]

    @property
    def header_size(self) -> int:
        return _IDENTIFICATION_SIZE + self.header.size


_CLASSES = {
    1: _Class("elf32", 3, "i386", struct.Struct("<HHIIIIIHHHHHH"), struct.Struct("<8I"), (1, 2, 3, 4, 5)),
    2: _Class("elf64", 62, "x86-64", struct.Struct("<HHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ"), (2, 3, 4, 5, 6)),
}

# What pyelftools lets through when the sections of a file are nonsense.
_READING_ERRORS = (
    ELFError, ConstructError, struct.error, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
    AssertionError, RecursionError, MemoryError, EOFError, OSError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Load:
    """A PT_LOAD program header."""

    index: int
    offset: int
    virtual: int
    physical: int
    file_size: int
    memory_size: int

    @property
    def end(self) -> int:
        return self.physical + self.memory_size


def parse_elf(data: bytes, path: str, kind: ImageKind | None = None) -> Image:
    """The image of an executable, its segments at their *physical* addresses (``p_paddr``).

    ``kind`` is what the image is called if not by its class. The entry is made physical too where it lies in a segment
    whose virtual address differs. Symbols keep the values of the file, which are virtual addresses: those that running
    code has once it has set up paging. A 64-bit file is entered as any other, in 32-bit protected mode.
    Raises ``ImageError``.
    """
    layout = _layout(data, path)
    entry, table, count, entry_size = _header(data, path, layout)
    headers = _program_headers(data, path, layout, table, count, entry_size)
    loads = [load for load in headers if load.memory_size]
    if not loads:
        raise ImageError(path, "no PT_LOAD segment: there is nothing to load")
    _refuse_overlaps(path, loads)
    segments = tuple(
        Segment(GPA(load.physical), data[load.offset : load.offset + load.file_size], load.memory_size)
        for load in sorted(loads, key=lambda load: load.physical)
    )
    spans = tuple((load.virtual, load.virtual + load.memory_size) for load in loads)
    symbols = Symbols(_symbols(data, path), spans)
    return Image(path, kind or layout.kind, segments, _physical_entry(path, entry, loads), symbols)


def _layout(data: bytes, path: str) -> _Class:
    if len(data) < _IDENTIFICATION_SIZE:
        raise ImageError(
            path, f"truncated ELF header: {len(data)} bytes, its identification has {_IDENTIFICATION_SIZE}"
        )
    if data[:4] != ELF_MAGIC:
        raise ImageError(path, "not an ELF file: the magic number is missing at offset 0")
    if data[4] not in _CLASSES:
        raise ImageError(path, f"ELF class {data[4]} at offset 4: 1 (32-bit) or 2 (64-bit) is needed")
    return _CLASSES[data[4]]


def _header(data: bytes, path: str, layout: _Class) -> tuple[int, int, int, int]:
    """Entry, and offset, count and entry size of the program header table."""
    if len(data) < layout.header_size:
        raise ImageError(path, f"truncated ELF header: {len(data)} bytes, it has {layout.header_size}")
    if data[5] != 1:
        raise ImageError(path, f"ELF byte order {_ORDERS.get(data[5], data[5])} at offset 5: little-endian is needed")
    fields = layout.header.unpack_from(data, _IDENTIFICATION_SIZE)
    file_type, machine, _, entry, table, _, _, _, entry_size, count, *_ = fields
    if file_type != _ET_EXEC:
        raise ImageError(path, f"ELF type {_TYPES.get(file_type, file_type)} at offset 16: ET_EXEC is needed")
    if machine != layout.machine:
        needed = f"{layout.machine} ({layout.machine_name})"
        raise ImageError(path, f"ELF machine {machine} at offset 18: {needed} is needed in this class")
    try:
        ELFFile(BytesIO(data))
    except _READING_ERRORS as error:
        raise ImageError(path, f"broken ELF header: {_told(error)}") from None
    return entry, table, count, entry_size


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _program_headers(data: bytes, path: str, layout: _Class, table: int, count: int, entry_size: int) -> list[_Load]:
    if count and entry_size < layout.program_header.size:
        raise ImageError(path, f"program headers of {entry_size} bytes each: they have {layout.program_header.size}")
    if count and table + count * entry_size > len(data):
        raise ImageError(
            path,
            f"the program header table ({count} x {entry_size} bytes at offset {table:#x}) "
            f"goes beyond the end of the file ({len(data)} bytes)",
        )
    loads = []
    for index in range(count):
        fields = layout.program_header.unpack_from(data, table + index * entry_size)
        if fields[0] == _PT_LOAD:
            load = _Load(index, *(fields[place] for place in layout.load_fields))
            _check(data, path, load)
            loads.append(load)
    return loads


def _check(data: bytes, path: str, load: _Load) -> None:
    name = f"segment {load.index}"
    if load.memory_size < load.file_size:
        raise ImageError(
            path, f"{name}: size in memory {load.memory_size:#x} is less than size in the file {load.file_size:#x}"
        )
    if load.memory_size > MAX_MEMORY_SIZE:
        raise ImageError(
            path, f"{name}: size in memory {load.memory_size:#x} is absurd (more than {MAX_MEMORY_SIZE >> 20} MiB)"
        )
    if load.file_size and load.offset + load.file_size > len(data):
        raise ImageError(
            path,
            f"{name}: its data ({load.file_size:#x} bytes at offset {load.offset:#x}) "
            f"goes beyond the end of the file ({len(data):#x} bytes)",
        )
    if load.end > 1 << 32:
        raise ImageError(path, f"{name}: {load.memory_size:#x} bytes at {load.physical:#x} go beyond 4 GiB")


def _refuse_overlaps(path: str, loads: list[_Load]) -> None:
    ordered = sorted(loads, key=lambda load: load.physical)
    for first, second in pairwise(ordered):
        if first.end > second.physical:
            raise ImageError(
                path,
                f"segments {first.index} and {second.index} overlap at physical address {second.physical:#x} "
                f"(the first ends at {first.end:#x})",
            )


def _physical_entry(path: str, entry: int, loads: list[_Load]) -> GPA:
    # The entry is a virtual address by the ABI; boot loaders also meet kernels that put the physical one there.
    for load in loads:
        if load.virtual <= entry < load.virtual + load.memory_size:
            return GPA(load.physical + entry - load.virtual)
    if any(load.physical <= entry < load.end for load in loads):
        return GPA(entry)
    raise ImageError(path, f"the entry {entry:#x} lies in no segment")


def _symbols(data: bytes, path: str) -> dict[str, int]:
    """Functions, objects and plain labels of ``.symtab``; a file without one (stripped) has none."""
    table: dict[str, int] = {}
    try:
        for section in ELFFile(BytesIO(data)).iter_sections():
            if not isinstance(section, SymbolTableSection) or section["sh_type"] != "SHT_SYMTAB":
                continue
            if section.num_symbols() > MAX_SYMBOLS:
                raise ImageError(path, f"symbol table with {section.num_symbols()} entries is absurd")
            for symbol in section.iter_symbols():
                kind, place = symbol["st_info"]["type"], symbol["st_shndx"]
                if symbol.name and kind in ("STT_NOTYPE", "STT_FUNC", "STT_OBJECT") and isinstance(place, int):
                    table.setdefault(symbol.name, symbol["st_value"])
    except _READING_ERRORS as error:
        raise ImageError(path, f"broken section headers or symbol table: {_told(error)}") from None
    return table
