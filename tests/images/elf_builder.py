"""ELF32 files made by hand, so that tests can break every field of one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

HEADER = 52
PROGRAM_HEADER = 32


@dataclass
class Load:
    virtual: int
    data: bytes
    physical: int | None = None
    memory_size: int | None = None
    file_size: int | None = None
    offset: int | None = None
    kind: int = 1


@dataclass
class Elf:
    """``bytes(Elf(...))`` is the file: header, program headers, segment data, then sections if there are symbols."""

    loads: Sequence[Load]
    entry: int = 0x100000
    symbols: dict[str, int] = field(default_factory=dict)
    file_class: int = 1
    order: int = 1
    file_type: int = 2
    machine: int = 3
    header_count: int | None = None
    header_offset: int = HEADER
    header_size: int = PROGRAM_HEADER
    section_table: int | None = None

    def __bytes__(self) -> bytes:
        position = HEADER + PROGRAM_HEADER * len(self.loads)
        headers, body = b"", b""
        for load in self.loads:
            headers += struct.pack(
                "<8I",
                load.kind,
                position + len(body) if load.offset is None else load.offset,
                load.virtual,
                load.virtual if load.physical is None else load.physical,
                len(load.data) if load.file_size is None else load.file_size,
                len(load.data) if load.memory_size is None else load.memory_size,
                7,
                0x1000,
            )
            body += load.data
        sections, table, count = self._sections(position + len(body))
        header = struct.pack(
            "<4sBBBB8xHHIIIIIHHHHHH",
            b"\x7fELF", self.file_class, self.order, 1, 0, self.file_type, self.machine, 1, self.entry,
            self.header_offset, table if self.section_table is None else self.section_table, 0, HEADER,
            self.header_size, len(self.loads) if self.header_count is None else self.header_count, 40, count,
            count - 1 if count else 0,
        )  # fmt: skip
        return header + headers + body + sections

    def _sections(self, base: int) -> tuple[bytes, int, int]:
        if not self.symbols:
            return b"", 0, 0
        strings, entries = b"\0", bytes(16)
        for name, value in self.symbols.items():
            entries += struct.pack("<IIIBBH", len(strings), value, 0, 0x10, 0, 1)
            strings += name.encode() + b"\0"
        names = b"\0.symtab\0.strtab\0.shstrtab\0.text\0"
        content = entries + strings + names
        strings_at = base + len(entries)
        names_at = strings_at + len(strings)
        table = b"".join(
            struct.pack("<10I", *row)
            for row in (
                (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
                (27, 1, 6, self.loads[0].virtual, HEADER, 0, 0, 0, 1, 0),
                (1, 2, 0, 0, base, len(entries), 3, 1, 4, 16),
                (9, 3, 0, 0, strings_at, len(strings), 0, 0, 1, 0),
                (17, 3, 0, 0, names_at, len(names), 0, 0, 1, 0),
            )
        )
        return content + table, base + len(content), 5
