"""A user's own function or class in a Python file: carried as text, so that a worker anywhere can make it anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvproto.errors import BadInput


@dataclass(frozen=True, slots=True)
class Code:
    """``name`` in the module whose source is ``text``."""

    path: str
    name: str
    text: str

    @classmethod
    def read(cls, place: str, folder: Path = Path()) -> Code:
        """What ``FILE.py:NAME`` says, relative to a folder. Raises BadInput."""
        file, colon, name = place.rpartition(":")
        if not colon or not name.isidentifier() or not file:
            raise BadInput(f"{place!r} is no place in a Python file: write FILE.py:NAME")
        path = folder / file
        try:
            code = cls(str(path.resolve()), name, path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{path}: {getattr(error, 'strerror', None) or error}") from None
        code.make()
        return code

    def make(self) -> Any:
        """Execute the module, and give what has the name: anew each time, with no state of an earlier run.

        Raises BadInput if the module raises, or nothing in it has the name.
        """
        module: dict[str, Any] = {"__name__": Path(self.path).stem, "__file__": self.path}
        try:
            exec(compile(self.text, self.path, "exec"), module)
        except Exception as problem:
            raise BadInput(f"{self.path}: {type(problem).__name__}: {problem}") from problem
        if not callable(module.get(self.name)):
            raise BadInput(f"{self.path} has no function or class {self.name!r}")
        return module[self.name]

    def __str__(self) -> str:
        return f"{self.path}:{self.name}"
