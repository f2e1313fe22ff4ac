"""The way in: a path to an image, whatever the file turns out to be."""

from __future__ import annotations

import os
import stat

from hvproto.errors import ImageError
from hvproto.images.assembly import assemble
from hvproto.images.disk import assembled_disk, disk_image, is_disk
from hvproto.images.elf import ELF_MAGIC, parse_elf
from hvproto.images.flat import FLAT_ADDRESS, flat_image
from hvproto.images.image import Image
from hvproto.images.multiboot import addressed_image, find_header

ASSEMBLY_SUFFIXES = (".asm", ".s")
"""Endings, in either case, of files that are assembled."""

MAX_FILE_SIZE = 1 << 30


def load_image(path: str | os.PathLike[str], flat_address: int | None = None) -> Image:
    """The image in a file: assembly by its name, ELF, multiboot or a bootable disk by its content, else flat.

    ``flat_address`` is where a flat image goes, 1 MiB by default; given, a disk is a flat image, too. A source that is
    assembled to a boot sector at 0x7C00, with whatever follows, is a disk.

    Raises ``ImageError`` (``AssemblyError`` for a statement) saying what is wrong with the file.
    """
    name = os.fspath(path)
    data = read_file(name, "a kernel image")
    if name.lower().endswith(ASSEMBLY_SUFFIXES):
        return assembled_disk(assemble(name))
    if data.startswith(ELF_MAGIC):
        header = find_header(data, name)
        return parse_elf(data, name, "multiboot" if header else None)
    header = find_header(data, name)
    if header and header.addresses:
        return addressed_image(data, name, header)
    if flat_address is None and is_disk(data):
        return disk_image(data, name)
    return flat_image(data, name, FLAT_ADDRESS if flat_address is None else flat_address)


def read_file(path: str, wanted: str) -> bytes:
    """The contents of a file of the user's, for a message called ``wanted``. Raises ``ImageError``."""
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise ImageError(path, f"this is a directory, {wanted} is needed")
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(path, "this is not a regular file")
        if found.st_size > MAX_FILE_SIZE:
            raise ImageError(path, f"{found.st_size:,} bytes are too many for {wanted}")
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise ImageError(path, "no such file") from None
    except PermissionError:
        raise ImageError(path, "may not be read: permission denied") from None
    except (OSError, ValueError) as error:
        raise ImageError(path, f"can't be read: {getattr(error, 'strerror', None) or error}") from None
    if not data:
        raise ImageError(path, "the file is empty")
    return data


def check_fits(image: Image, ram_size: int) -> None:
    """Raises ``ImageError`` unless every segment lies within RAM of ``ram_size`` bytes from address 0."""
    for segment in image.segments:
        if segment.end > ram_size:
            raise ImageError(
                image.path,
                f"needs memory up to {segment.end:#x} ({_mib(segment.end)}), "
                f"but RAM ends at {ram_size:#x} ({_mib(ram_size)})",
            )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.4g} MiB"
