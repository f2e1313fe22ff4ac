"""Plain columns of text."""

from __future__ import annotations

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], *, head: Sequence[str] = (), blanks: int = 2) -> str:
    """Rows in aligned columns, with so many blanks between them.

    >>> print(columns([("a", "bc"), ("def", "g")], head=("x", "y")))
    x    y
    a    bc
    def  g
    """
    every = [tuple(head), *map(tuple, rows)] if head else [tuple(row) for row in rows]
    if not every:
        return ""
    widths = [max(len(row[index]) for row in every if index < len(row)) for index in range(max(map(len, every)))]
    return "\n".join(
        (" " * blanks).join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in every
    )
