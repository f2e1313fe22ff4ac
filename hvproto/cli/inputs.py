"""What people type, as values: kernels by path or bundled name, disks, addresses."""

from __future__ import annotations

from pathlib import Path

from hvproto import bundled, project
from hvproto.addresses import GPA
from hvproto.errors import BadInput, ImageError
from hvproto.images.image import Image
from hvproto.images.load import check_fits, load_image, read_file
from hvproto.images.multiboot_info import BootOptions, Module
from hvproto.machine.disk_backend import FileBackend, ImageBackend, SectorBackend
from hvproto.machine.disk_image import read_disk
from hvproto.machine.ram import Ram, parse_size

MOST_DISKS = 2


def open_kernel(name: str, at: str | None = None) -> Image:
    """The image in a file, or the project's or the bundled kernel of that name, in this order.

    ``at`` is where a flat image goes. Raises ImageError, and BadInput for an address that can't be one.
    """
    image = load_image(_path_of(name), None if at is None else parse_address(at))
    if at is not None and image.kind != "flat":
        raise BadInput(f"{name}: --at is for flat images; this one is {image.kind} and says itself where it goes")
    return image


def _path_of(name: str) -> Path:
    path = Path(name)
    kernel = None if path.is_file() else project.find(name) or bundled.find(name)
    if kernel is not None:
        return kernel.path
    if not path.exists() and not path.suffix and path.name == name:
        names = ", ".join(kernel.name for kernel in project.named())
        raise ImageError(name, f"no such file, and no kernel is called so; there are {names}")
    return path


def parse_ram(text: str) -> int:
    """The size of a machine's memory in bytes. Raises MachineError for one that no machine can have."""
    size = parse_size(text)
    Ram(size)  # knows what it can be
    return size


def require_ram(image: Image, ram_size: int, option: str = "--ram", whose: str = "the machine") -> None:
    """Raises ImageError, which says by what option to get more, unless the image fits into ``ram_size`` bytes."""
    try:
        check_fits(image, ram_size)
    except ImageError as error:
        enough = -(-image.end // (1 << 20))
        raise ImageError(error.path, f"{error.reason}; give {whose} more, for example {option} {enough}M") from None


def open_disk(name: str | None) -> bytes | None:
    """The contents of a disk image file; None, which means the built-in disk, without a name. Raises ImageError."""
    return None if name is None else read_disk(name)


def open_disks(kernel: Image | None, names: list[str], *, write: bool) -> list[SectorBackend]:
    """The disks of a machine: the one that it boots from if ``kernel`` is that, then those named; two at most.

    ``write``: what is written goes to their files. Raises ImageError, and BadInput for disks that can't be together.
    """
    names = list(names)
    disks: list[SectorBackend] = []
    if kernel is not None and kernel.kind == "disk":
        if not write:
            disks.append(ImageBackend(kernel.disk))
        elif kernel.disk_is_file:
            names.insert(0, kernel.path)
        else:
            raise BadInput(f"{kernel.path}: --write-disk is for disk images; this one is assembled each time anew")
    if len(disks) + len(names) > MOST_DISKS:
        raise BadInput(f"{len(disks) + len(names)} disks are too many: there are a master and a slave")
    if write and len({Path(name).resolve() for name in names}) < len(names):
        raise BadInput(f"{names[0]}: the same file can't be both disks when they are written to")
    return disks + [FileBackend(name) if write else ImageBackend(read_disk(name)) for name in names]


def boot_options(append: str, modules: list[str]) -> BootOptions:
    """The command line, and the modules from ``FILE`` or ``FILE=command line``. Raises BadInput and ImageError."""
    return BootOptions(append, tuple(_module(text) for text in modules))


def require_use(image: Image | None, options: BootOptions, at: str | None) -> None:
    """Raises BadInput for options that nobody would look at: a disk boots itself, and gets no command line."""
    if image is None or image.kind == "disk":
        for name, given in (("--append", options.command_line), ("--module", options.modules), ("--at", at)):
            if given:
                raise BadInput(f"{name} is for kernels; a disk boots by itself")


def _module(text: str) -> Module:
    name, equals, line = text.partition("=")
    return Module(name, read_file(name, "a module"), line if equals else Path(name).name)


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
