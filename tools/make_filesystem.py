"""Make a disk image with the small file system of `guests/boot/filesystem.asm`, whose first lines describe it.

    python tools/make_filesystem.py disk.img [FILE ...] [--blocks N] [--directory N]

Without files, there is one that says what this is.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Mapping
from pathlib import Path

BLOCK_SIZE = 512
MAGIC = b"SMALLFS1"
NAME_SIZE = 24
MOST_FILE_BLOCKS = 8
MOST_BLOCKS = BLOCK_SIZE * 8
"""As many as one block of bitmap has bits."""
DEFAULT_BLOCKS = 256
DEFAULT_DIRECTORY = 2

_BITMAP, _DIRECTORY = 1, 2  # first blocks
_ENTRY = struct.Struct(f"<{NAME_SIZE}s2I{MOST_FILE_BLOCKS}I")
_GREETING = {"readme.txt": b"A small file system: one directory, files of up to 4096 bytes.\n"}


def checksum(data: bytes) -> int:
    """A file's: for each byte, rotate 32 bits to the left by one and add the byte.

    >>> hex(checksum(b"\\x80\\x01"))
    '0x101'
    """
    total = 0
    for byte in data:
        total = ((total << 1 | total >> 31) + byte) & 0xFFFF_FFFF
    return total


def build(files: Mapping[str, bytes], blocks: int = DEFAULT_BLOCKS, directory: int = DEFAULT_DIRECTORY) -> bytes:
    """An image of ``blocks`` blocks, ``directory`` of them for the directory of 8 entries each.

    Raises ValueError for sizes that can't be, for bad names, and for files that are too large or too many.
    """
    first_data = _DIRECTORY + directory
    if directory < 1 or not first_data <= blocks <= MOST_BLOCKS:
        raise ValueError(f"{blocks} blocks, {directory} of them for the directory: that can't be")
    entries: list[bytes] = []
    data: list[bytes] = []
    for name, content in files.items():
        entries.append(_entry(name, content, first_data + len(data)))
        data += [content[at : at + BLOCK_SIZE].ljust(BLOCK_SIZE, b"\0") for at in range(0, len(content), BLOCK_SIZE)]
    used = first_data + len(data)
    if used > blocks:
        raise ValueError(f"the files need {used} blocks; there are {blocks}")
    table = b"".join(entries)
    if len(table) > directory * BLOCK_SIZE:
        raise ValueError(f"{len(entries)} files are too many for a directory of {directory} blocks")
    bitmap = ((1 << used) - 1).to_bytes(BLOCK_SIZE, "little")
    image = _super_block(blocks, directory, first_data) + bitmap + table.ljust(directory * BLOCK_SIZE, b"\0")
    return (image + b"".join(data)).ljust(blocks * BLOCK_SIZE, b"\0")


def _entry(name: str, content: bytes, first: int) -> bytes:
    encoded = name.encode("ascii", "replace")
    if not 0 < len(encoded) < NAME_SIZE:
        raise ValueError(f"{name!r} is no name of 1 to {NAME_SIZE - 1} characters")
    count = -(-len(content) // BLOCK_SIZE)
    if count > MOST_FILE_BLOCKS:
        raise ValueError(f"{name} is larger than {MOST_FILE_BLOCKS * BLOCK_SIZE} bytes")
    numbers = [first + n for n in range(count)] + [0] * (MOST_FILE_BLOCKS - count)
    return _ENTRY.pack(encoded, len(content), checksum(content), *numbers)


def _super_block(blocks: int, directory: int, first_data: int) -> bytes:
    words = (blocks, _BITMAP, _DIRECTORY - _BITMAP, _DIRECTORY, directory, first_data, 0)
    fields = MAGIC + struct.pack("<7I", *words)
    check = -sum(struct.unpack(f"<{len(fields) // 4}I", fields)) & 0xFFFF_FFFF
    return (fields + struct.pack("<I", check)).ljust(BLOCK_SIZE, b"\0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--blocks", type=int, default=DEFAULT_BLOCKS, help="of 512 bytes (default: %(default)s)")
    parser.add_argument("--directory", type=int, default=DEFAULT_DIRECTORY, help="blocks for it (default: %(default)s)")
    given = parser.parse_args()
    try:
        files = {path.name: path.read_bytes() for path in given.files} or _GREETING
        given.image.write_bytes(build(files, given.blocks, given.directory))
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
