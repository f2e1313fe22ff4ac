"""The fixture `assemble`: from assembly, as text in a test or as a file, to an image."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.testing.kernels import surround


class Assembler:
    """Assembles; errors and reports name the line of the test's own file where the text stands, if it is found there.

    ``bits`` and ``paging`` are the mode that `kernel` gives its code. A file's name is relative to ``folder``.
    """

    def __init__(self, folder: Path, bits: int = 32, paging: str | None = None) -> None:
        self.folder = folder
        self.bits = bits
        self.paging = paging

    def __call__(self, source: str | os.PathLike[str], *, origin: int | None = None, bits: int = 32) -> Image:
        """The image of a text, or of a file (a path, or a name without newline and blank that ends like a file's).

        ``origin`` (GPA) and ``bits`` are for text, as in `assemble_text`. Raises AssemblyError with file and line.
        """
        if isinstance(source, os.PathLike) or (isinstance(source, str) and _is_file_name(source)):
            return load_image(self.folder / source)
        name, text = self._placed(source, sys._getframe(1).f_code.co_filename)
        return assemble_text(text, name, origin, bits)

    def kernel(self, body: str) -> Image:
        """The image of a kernel that enters this assembler's mode, with paging if it says so, and then does ``body``.

        ``body`` begins at ring 0 with flat segments, interrupts off, a stack below 0x180000 and the first 4 MiB mapped
        one to one (page tables at 0x180000). It must not run on behind its end: DONE of hvproto/assert.asm ends it.
        """
        name, text = self._placed(body, sys._getframe(1).f_code.co_filename)
        blank = len(text) - len(text.lstrip("\n"))
        placed = text[:blank] + "hvproto_body: " + text[blank:]
        return assemble_text(placed + surround(self.bits, self.paging), name, bits=self.bits)

    def _placed(self, text: str, caller: str) -> tuple[str, str]:
        """A name for the text, and the text with as many newlines before it as bring it to its line of that file."""
        try:
            source = Path(caller).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            source = ""
        at = source.find(text) if text.strip() else -1
        if at < 0:
            return str(self.folder / "<text>"), text
        return caller, "\n" * source.count("\n", 0, at) + text


def _is_file_name(text: str) -> bool:
    return "\n" not in text and " " not in text and "." in text and ":" not in text
