"""Multiboot 1 (Multiboot Specification 0.6.96, 3.3): the information handed to a kernel, and its modules."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hvproto.addresses import GPA, PAGE_SIZE
from hvproto.errors import BadInput, ImageError
from hvproto.images.image import Image, Segment
from hvproto.images.memory_map import HIGH_MEMORY, LOW_MEMORY_END, memory_map

BOOT_MAGIC = 0x2BADB002
"""What EAX holds at the kernel's entry."""
INFO_ADDRESS = GPA(0x9000)
"""Where the information is put unless asked otherwise: below the BIOS area, above the interrupt vectors."""

_MEMORY, _COMMAND_LINE, _MODULES, _MEMORY_MAP, _LOADER_NAME = 1 << 0, 1 << 2, 1 << 3, 1 << 6, 1 << 9
_INFO_SIZE = 88
_MAX_COMMAND_LINE = 4096
_MAX_MODULES = 64


@dataclass(frozen=True, slots=True)
class Module:
    """A file handed to the kernel, with its command line."""

    path: str
    data: bytes
    command_line: str = ""


@dataclass(frozen=True, slots=True)
class BootOptions:
    """What a person can give a multiboot kernel. Raises BadInput for text that can't be handed over."""

    command_line: str = ""
    modules: tuple[Module, ...] = ()

    def __post_init__(self) -> None:
        for line in (self.command_line, *(module.command_line for module in self.modules)):
            if len(line.encode()) > _MAX_COMMAND_LINE or "\0" in line:
                raise BadInput(f"a kernel's or module's command line has at most {_MAX_COMMAND_LINE} bytes and no NUL")
        if len(self.modules) > _MAX_MODULES:
            raise BadInput(f"{len(self.modules)} modules are too many: {_MAX_MODULES} are possible")


@dataclass(frozen=True, slots=True)
class PlacedModule:
    """A module and where it lies in memory."""

    segment: Segment
    command_line: str


@dataclass(frozen=True, slots=True)
class BootInfo:
    """``segments`` to put into memory, and the registers at the kernel's entry."""

    segments: tuple[Segment, ...]
    ebx: GPA
    eax: int = BOOT_MAGIC


def place_modules(image: Image, modules: Sequence[Module], ram_size: int) -> tuple[PlacedModule, ...]:
    """The modules one after the other from the first page behind the kernel on, and behind 1 MiB.

    Raises ImageError if RAM of ``ram_size`` bytes ends before they do.
    """
    placed = []
    address = max(image.end, HIGH_MEMORY)
    for module in modules:
        address = -(-address // PAGE_SIZE) * PAGE_SIZE
        segment = Segment(GPA(address), module.data, len(module.data))
        if segment.end > ram_size:
            raise ImageError(
                module.path, f"the module needs memory up to {segment.end:#x}, but RAM ends at {ram_size:#x}"
            )
        placed.append(PlacedModule(segment, module.command_line))
        address = segment.end
    return tuple(placed)


def build_info(
    ram_size: int,
    command_line: str = "",
    loader_name: str = "hvproto",
    address: GPA = INFO_ADDRESS,
    modules: Sequence[PlacedModule] = (),
) -> BootInfo:
    """The information structure (3.3) for a machine of ``ram_size`` bytes, put at ``address``.

    It holds mem_lower and mem_upper, the memory map, the command line, the modules and the loader's name. Raises
    ``ValueError`` if RAM ends before the structure does, or the command line is too long or holds a NUL.
    """
    line, name = command_line.encode(), loader_name.encode()
    if len(line) > _MAX_COMMAND_LINE or b"\0" in line + name:
        raise ValueError(f"the command line has at most {_MAX_COMMAND_LINE} bytes and no NUL")
    ranges = [struct.pack("<IQQI", 20, r.base, r.length, r.kind) for r in memory_map(ram_size)]
    tail = bytearray()

    def put(data: bytes) -> int:
        at = address + _INFO_SIZE + len(tail)
        tail.extend(data)
        return at

    map_at = put(b"".join(ranges))
    strings = [put(module.command_line.encode() + b"\0") for module in modules]
    line_at, name_at = put(line + b"\0"), put(name + b"\0")
    put(bytes(-len(tail) % 4))
    entries = [
        struct.pack("<4I", module.segment.address, module.segment.end, string, 0)
        for module, string in zip(modules, strings, strict=True)
    ]
    modules_at = put(b"".join(entries)) if entries else 0
    flags = _MEMORY | _COMMAND_LINE | _MEMORY_MAP | _LOADER_NAME | (_MODULES if modules else 0)
    low, high = min(ram_size, LOW_MEMORY_END) >> 10, max(ram_size - HIGH_MEMORY, 0) >> 10
    info = struct.pack("<8I", flags, low, high, 0, line_at, len(modules), modules_at, 0)
    info += struct.pack("<8I", 0, 0, 0, 24 * len(ranges), map_at, 0, 0, 0) + struct.pack("<I", name_at)
    data = info.ljust(_INFO_SIZE, b"\0") + tail
    if address % 4 or address < 0 or address + len(data) > ram_size:
        raise ValueError(f"no room for {len(data)} bytes at {address:#x} in {ram_size:#x} bytes of RAM")
    return BootInfo((Segment(address, data, len(data)),), address)
