"""A project's own kernels, by name: what `[tool.hvproto.guests]` and `[tool.hvproto.hosts]` of its pyproject.toml say.

    [tool.hvproto.guests]
    mine = "kernels/mine.asm"

The file is the nearest one from the current folder upwards. Paths are relative to it.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from hvproto import bundled
from hvproto.bundled import Kernel
from hvproto.errors import BadInput

_FILE = "pyproject.toml"
_TABLES: tuple[tuple[str, Literal["host", "guest"]], ...] = (("hosts", "host"), ("guests", "guest"))


def kernels(start: Path | None = None) -> list[Kernel]:
    """The kernels that the project around a folder (the current one) names: hosts first, each kind by name.

    Raises BadInput for a file that isn't TOML, or a table that isn't one of names and files; whether a file is there is
    found when it is opened.
    """
    path = _find((start or Path.cwd()).resolve())
    if path is None:
        return []
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise BadInput(f"{path}: {problem}") from None
    table = _table(path, content.get("tool", {}), "tool").get("hvproto", {})
    found = []
    for name, kind in _TABLES:
        entries = _table(path, _table(path, table, "tool.hvproto").get(name, {}), f"tool.hvproto.{name}")
        for key in sorted(entries):
            if not isinstance(entries[key], str):
                raise BadInput(f"{path}: tool.hvproto.{name}.{key} must be a kernel's file, not {entries[key]!r}")
            found.append(Kernel(key, path.parent / entries[key], f"of {path.parent.name}", kind))
    return found


def named() -> list[Kernel]:
    """All kernels that have a name: the project's own, then the bundled ones. Raises BadInput, as `kernels` does."""
    return [*kernels(), *bundled.kernels()]


def find(name: str) -> Kernel | None:
    """The project's kernel of that name; None if there is none. Raises BadInput, as `kernels` does."""
    return next((kernel for kernel in kernels() if kernel.name == name), None)


def _find(folder: Path) -> Path | None:
    return next((path for each in (folder, *folder.parents) if (path := each / _FILE).is_file()), None)


def _table(path: Path, value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{path}: {name} must be a table of names and files, not {value!r}")
    return value
