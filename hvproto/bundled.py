"""The kernels that come with the package: in `hvproto/_guests` when installed, in `guests/` in a source tree.

Files in sub-folders are parts of kernels. The first line of each kernel is a comment that says what it shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hvproto.errors import BadInput

_PACKAGE = Path(__file__).resolve().parent
SUFFIX = ".asm"

DEFAULT_HOST = "host"
DEFAULT_GUEST = "guest"


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that has a name. Of those that are bundled, a host's begins with "host"."""

    name: str
    path: Path
    description: str
    kind: Literal["host", "guest"]


def folder() -> Path:
    """Where the bundled kernels are. Raises BadInput if they were left out of the installation."""
    for candidate in (_PACKAGE / "_guests", _PACKAGE.parent / "guests"):
        if candidate.is_dir():
            return candidate
    raise BadInput(f"the bundled kernels are missing: there is no folder _guests in {_PACKAGE}; install hvproto again")


def kernels() -> list[Kernel]:
    """All bundled kernels: hosts first, then guests, each by name.

    >>> [kernel.name for kernel in kernels() if kernel.kind == "host"]
    ['host']
    """
    found = [
        Kernel(path.stem, path, _description(path), "host" if path.stem.startswith(DEFAULT_HOST) else "guest")
        for path in folder().glob(f"*{SUFFIX}")
        if path.is_file()
    ]
    return sorted(found, key=lambda kernel: (kernel.kind != "host", kernel.name))


def find(name: str) -> Kernel | None:
    """The bundled kernel of that name, with or without its ending; None if there is none."""
    wanted = name.removesuffix(SUFFIX)
    return next((kernel for kernel in kernels() if kernel.name == wanted), None)


def kernel_path(name: str) -> Path:
    """The file of a bundled kernel. Raises BadInput, naming those that there are."""
    kernel = find(name)
    if kernel is None:
        raise BadInput(f"no bundled kernel is called {name!r}: there are {names()}")
    return kernel.path


def names() -> str:
    """The names of all bundled kernels, for a message."""
    return ", ".join(kernel.name for kernel in kernels())


def _description(path: Path) -> str:
    with path.open(encoding="utf-8") as source:
        first = source.readline().strip()
    return first.lstrip("; ").rstrip(".") if first.startswith(";") else ""
