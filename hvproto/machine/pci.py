"""PCI configuration space by mechanism #1 (PCI Local Bus Specification 2.1, 3.7.4.1): bus 0 of an i440FX board.

A dword written to port 0xcf8 names a function and one of its 64 dwords, which is then at ports 0xcfc to 0xcff, in
accesses of any size. There is configuration space only: nothing that a kernel writes here moves a port or maps memory.
The functions themselves are in `pci_functions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

ADDRESS_PORT, DATA_PORT = 0xCF8, 0xCFC
_ENABLE = 1 << 31
_ADDRESS_BITS = 0x80FF_FFFC  # enable, bus, device, function, dword: the others read as 0
_SPACE = 256


class Field(NamedTuple):
    """A register of configuration space, little-endian. A mask has its bits where the value has them."""

    size: int
    """Bytes, 1 to 4."""
    value: int
    """After reset, or as the firmware leaves it."""
    writable: int = 0
    """Bits that take what is written."""
    clearable: int = 0
    """Bits that are cleared by writing 1."""


class PciFunction:
    """The 256 bytes of one function. What ``fields`` doesn't have, by offset, reads as 0 and can't be written."""

    def __init__(self, fields: Mapping[int, Field]) -> None:
        self._bytes = bytearray(_SPACE)
        self._writable = bytearray(_SPACE)
        self._clearable = bytearray(_SPACE)
        for offset, field in fields.items():
            place = slice(offset, offset + field.size)
            self._bytes[place] = field.value.to_bytes(field.size, "little")
            self._writable[place] = field.writable.to_bytes(field.size, "little")
            self._clearable[place] = field.clearable.to_bytes(field.size, "little")

    def read(self, offset: int, size: int) -> int:
        """``size`` bytes from ``offset`` on."""
        return int.from_bytes(self._bytes[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Change the bits that can be."""
        for place, byte in enumerate(value.to_bytes(size, "little"), offset):
            kept = self._bytes[place] & ~self._writable[place] & ~(byte & self._clearable[place])
            self._bytes[place] = kept | byte & self._writable[place]


class PciBus:
    """Bus 0 at its ports. Functions are told by (device 0 to 31, function 0 to 7).

    A function that is absent reads as all ones and ignores writes, and so does the data port while the address isn't
    enabled (bit 31). Only dword accesses reach the address port: smaller ones at 0xcf8 to 0xcfb are other devices'
    (reset control at 0xcf9, `power.ResetControl`).
    """

    ports = (ADDRESS_PORT, *range(DATA_PORT, DATA_PORT + 4))
    wide_ports = frozenset(ports)

    def __init__(self, functions: Mapping[tuple[int, int], PciFunction]) -> None:
        self.functions = dict(functions)
        self._address = 0

    def read_port(self, port: int, size: int) -> int:
        if port < DATA_PORT:
            return self._address if size == 4 else (1 << 8 * size) - 1
        function = self._addressed()
        answered = self._answered(port, size)
        value = (1 << 8 * answered) - 1
        if function is not None:
            value = function.read((self._address & 0xFC) + port - DATA_PORT, answered)
        return value | (1 << 8 * size) - (1 << 8 * answered)

    def write_port(self, port: int, size: int, value: int) -> None:
        if port < DATA_PORT:
            if size == 4:
                self._address = value & _ADDRESS_BITS
            return
        function = self._addressed()
        if function is not None:
            answered = self._answered(port, size)
            function.write((self._address & 0xFC) + port - DATA_PORT, answered, value & (1 << 8 * answered) - 1)

    def _answered(self, port: int, size: int) -> int:
        """How many bytes of an access are within the dword: nobody answers behind port 0xcff."""
        return min(size, DATA_PORT + 4 - port)

    def _addressed(self) -> PciFunction | None:
        if not self._address & _ENABLE or self._address >> 16 & 0xFF:
            return None
        return self.functions.get((self._address >> 11 & 31, self._address >> 8 & 7))


def identity(vendor: int, device: int, class_code: int, *, revision: int = 0, header: int = 0) -> dict[int, Field]:
    """The fields by which every function is known; ``class_code`` is base class, subclass, interface (24 bits)."""
    return {
        0x00: Field(2, vendor),
        0x02: Field(2, device),
        0x08: Field(1, revision),
        0x09: Field(3, class_code),
        0x0E: Field(1, header),
    }


def repeated(offsets: Iterable[int], field: Field) -> dict[int, Field]:
    """The same kind of register at several places."""
    return dict.fromkeys(offsets, field)
