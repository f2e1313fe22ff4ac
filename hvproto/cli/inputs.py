"""What people type, as values: kernels by path or bundled name, disks, addresses."""

from __future__ import annotations

from pathlib import Path

from hvproto import bundled
from hvproto.addresses import GPA
from hvproto.errors import BadInput, ImageError
from hvproto.images.flat import FLAT_ADDRESS
from hvproto.images.image import Image
from hvproto.images.load import check_fits, load_image
from hvproto.machine.disk_image import read_disk
from hvproto.machine.ram import Ram, parse_size


def open_kernel(name: str, at: str | None = None) -> Image:
    """The image in a file, or the bundled kernel of that name; a file goes first.

    ``at`` is where a flat image goes. Raises ImageError, and BadInput for an address that can't be one.
    """
    image = load_image(_path_of(name), FLAT_ADDRESS if at is None else parse_address(at))
    if at is not None and image.kind != "flat":
        raise BadInput(f"{name}: --at is for flat images; this one is {image.kind} and says itself where it goes")
    return image


def _path_of(name: str) -> Path:
    path = Path(name)
    kernel = None if path.is_file() else bundled.find(name)
    if kernel is not None:
        return kernel.path
    if not path.exists() and not path.suffix and path.name == name:
        raise ImageError(name, f"no such file, and no bundled kernel is called so; there are {bundled.names()}")
    return path


def parse_ram(text: str) -> int:
    """The size of a machine's memory in bytes. Raises MachineError for one that no machine can have."""
    size = parse_size(text)
    Ram(size)  # knows what it can be
    return size


def require_ram(image: Image, ram_size: int) -> None:
    """Raises ImageError, which says how to get more, unless the image fits into ``ram_size`` bytes."""
    try:
        check_fits(image, ram_size)
    except ImageError as error:
        enough = -(-image.end // (1 << 20))
        raise ImageError(error.path, f"{error.reason}; give the machine more, for example --ram {enough}M") from None


def open_disk(name: str | None) -> bytes | None:
    """The contents of a disk image file; None, which means the built-in disk, without a name. Raises ImageError."""
    return None if name is None else read_disk(name)


def parse_address(text: str) -> GPA:
    """A physical address within 4 GiB. Raises BadInput.

    >>> hex(parse_address("0x7c00"))
    '0x7c00'
    """
    try:
        address = int(text, 0)
    except ValueError:
        address = -1
    if not 0 <= address < 1 << 32:
        raise BadInput(f"{text!r} is not an address: write for example 0x7c00, below 0x100000000")
    return GPA(address)
