"""ELF files of both classes made by hand, so that tests can break every field of one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

HEADER = {1: 52, 2: 64}
PROGRAM_HEADER = {1: 32, 2: 56}
MACHINE = {1: 3, 2: 62}


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
    machine: int | None = None
    header_count: int | None = None
    header_offset: int | None = None
    header_size: int | None = None
    section_table: int | None = None

    @property
    def wide(self) -> bool:
        return self.file_class == 2

    @property
    def own_class(self) -> int:
        """The class whose layout the file has, even if it claims to be of none."""
        return 2 if self.wide else 1

    def __bytes__(self) -> bytes:
        own_header, own_program_header = HEADER[self.own_class], PROGRAM_HEADER[self.own_class]
        position = own_header + own_program_header * len(self.loads)
        headers, body = b"", b""
        for load in self.loads:
            addresses = (
                position + len(body) if load.offset is None else load.offset,
                load.virtual,
                load.virtual if load.physical is None else load.physical,
                len(load.data) if load.file_size is None else load.file_size,
                len(load.data) if load.memory_size is None else load.memory_size,
            )
            if self.wide:
                headers += struct.pack("<IIQQQQQQ", load.kind, 7, *addresses, 0x1000)
            else:
                headers += struct.pack("<8I", load.kind, *addresses, 7, 0x1000)
            body += load.data
        sections, table, count = self._sections(position + len(body))
        header = struct.pack(
            "<4sBBBB8xHHIQQQIHHHHHH" if self.wide else "<4sBBBB8xHHIIIIIHHHHHH",
            b"\x7fELF", self.file_class, self.order, 1, 0, self.file_type,
            MACHINE[self.own_class] if self.machine is None else self.machine, 1, self.entry,
            own_header if self.header_offset is None else self.header_offset,
            table if self.section_table is None else self.section_table, 0, own_header,
            own_program_header if self.header_size is None else self.header_size,
            len(self.loads) if self.header_count is None else self.header_count, 64 if self.wide else 40, count,
            count - 1 if count else 0,
        )  # fmt: skip
        return header + headers + body + sections

    def _sections(self, base: int) -> tuple[bytes, int, int]:
        if not self.symbols:
            return b"", 0, 0
        entry_size = 24 if self.wide else 16
        strings, entries = b"\0", bytes(entry_size)
        for name, value in self.symbols.items():
            if self.wide:
                entries += struct.pack("<IBBHQQ", len(strings), 0x10, 0, 1, value, 0)
            else:
                entries += struct.pack("<IIIBBH", len(strings), value, 0, 0x10, 0, 1)
            strings += name.encode() + b"\0"
        names = b"\0.symtab\0.strtab\0.shstrtab\0.text\0"
        content = entries + strings + names
        strings_at = base + len(entries)
        names_at = strings_at + len(strings)
        code_at = HEADER[self.own_class] + PROGRAM_HEADER[self.own_class] * len(self.loads)
        table = b"".join(
            struct.pack("<IIQQQQIIQQ" if self.wide else "<10I", *row)
            for row in (
                (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
                (27, 1, 6, self.loads[0].virtual, code_at, len(self.loads[0].data), 0, 0, 1, 0),
                (1, 2, 0, 0, base, len(entries), 3, 1, 4, entry_size),
                (9, 3, 0, 0, strings_at, len(strings), 0, 0, 1, 0),
                (17, 3, 0, 0, names_at, len(names), 0, 0, 1, 0),
            )
        )
        return content + table, base + len(content), 5
