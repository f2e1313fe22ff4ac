"""How a kernel is started: the state that a multiboot 1 loader leaves (Multiboot Specification 0.6.96, 3.2)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from hvproto.addresses import GPA
from hvproto.errors import ImageError
from hvproto.images.image import Image
from hvproto.images.load import check_fits
from hvproto.images.multiboot_info import BootOptions, build_info, place_modules
from hvproto.machine.firmware_memory import left_behind
from hvproto.processor.segments import Segment, TableRegister, encode_descriptor, flat

BOOT_MAGIC = 0x2BADB002
BOOT_GDT = GPA(0x8000)
"""Where the loader's own GDT lies; a kernel that loads segments must first bring its own."""
BOOT_CODE = flat(0x08, code=True, dpl=0)
BOOT_DATA = flat(0x10, code=False, dpl=0)


@dataclass(frozen=True, slots=True)
class BootState:
    """Registers at the kernel's first instruction: 32-bit protected mode, flat, no paging, IF clear."""

    eip: int
    eax: int
    ebx: int
    code: Segment
    data: Segment
    gdtr: TableRegister


def load_kernel(
    image: Image,
    memory_size: int,
    write: Callable[[GPA, bytes], None],
    options: BootOptions = BootOptions(),  # noqa: B008 - it can't change
    disks: int = 1,
) -> BootState:
    """Put what the firmware leaves, an image, its multiboot information and the loader's GDT into memory by ``write``.

    ``options`` are what the kernel is to be told, and the modules, which go behind it; ``disks`` is how many fixed
    disks the firmware has found. Raises ImageError if the image and they don't fit into ``memory_size`` bytes, or if
    it is a disk, which needs a firmware to boot it.
    """
    if image.kind == "disk":
        raise ImageError(image.path, "a disk image is no kernel: only the bare machine boots it, with hvproto boot")
    check_fits(image, memory_size)
    for address, content in left_behind(memory_size, disks):
        write(address, content)  # first: an image that lies there wants the place
    for segment in image.segments:
        write(GPA(segment.address), segment.data + bytes(segment.size - len(segment.data)))
    modules = place_modules(image, options.modules, memory_size)
    info = build_info(memory_size, options.command_line, modules=modules)
    for segment in (*(module.segment for module in modules), *info.segments):
        write(GPA(segment.address), segment.data)
    gdt = struct.pack("<QQQ", 0, encode_descriptor(BOOT_CODE), encode_descriptor(BOOT_DATA))
    write(BOOT_GDT, gdt)
    return BootState(image.entry, BOOT_MAGIC, info.ebx, BOOT_CODE, BOOT_DATA, TableRegister(BOOT_GDT, len(gdt) - 1))
