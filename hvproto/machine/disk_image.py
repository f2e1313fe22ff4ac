"""Where the bytes of a disk come from: a file of the user's, or the disk that is built in."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hvproto.errors import ImageError

SECTOR_SIZE = 512
BUNDLED_SECTORS = 64


def bundled_disk() -> bytes:
    r"""The built-in disk: 64 sectors of 512 bytes, each of which says its own number.

    After the text come bytes that differ from sector to sector, so that a mix-up shows anywhere in the sector.

    >>> bundled_disk()[3 * 512 :][:24]
    b'hvproto disk, block 3\n()'
    """
    return b"".join(_sector(number) for number in range(BUNDLED_SECTORS))


def _sector(number: int) -> bytes:
    text = f"hvproto disk, block {number}\n".encode("ascii")
    return text + bytes((number * 6 + offset) % 251 for offset in range(len(text), SECTOR_SIZE))


def check_disk_file(name: str) -> None:
    """Raises ImageError unless there is a plain file of that name."""
    try:
        # A device or a pipe might never end.
        if not stat.S_ISREG(Path(name).stat().st_mode):
            raise ImageError(name, "a disk image must be a regular file")
    except FileNotFoundError:
        raise ImageError(name, "no such disk image") from None
    except (OSError, ValueError) as error:
        raise disk_error(name, error, "read") from None


def disk_error(name: str, error: OSError | ValueError, done: str) -> ImageError:
    """The error that says why a disk image can't be read, or written."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ImageError(name, f"the disk image can't be {done}: {reason}")


def read_disk(path: str | os.PathLike[str]) -> bytes:
    """The contents of a disk image file. Raises ImageError if it is missing, empty, unreadable or not a plain file."""
    name = os.fspath(path)
    check_disk_file(name)
    try:
        data = Path(name).read_bytes()
    except (OSError, ValueError) as error:
        raise disk_error(name, error, "read") from None
    if not data:
        raise ImageError(name, "the disk image is empty")
    return data
