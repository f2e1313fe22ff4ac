"""What is seen of an exception that ended a case, the same for all processors; one line of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache

from tools.real_cpu.case import REGISTERS, Case
from tools.real_cpu.layout import CODE_PAGES, PAGE, PAGES, WRITABLE_PAGES

WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17})


@dataclass(frozen=True)
class Report:
    """An exception, as its handler finds it."""

    vector: int
    error: int | None
    cr2: int | None
    rip: int
    cs: int
    ss: int
    rflags: int
    registers: dict[str, int]
    memory: dict[str, str]
    """What has changed in pages that can be written: bytes in hexadecimal by the address of the first."""

    def line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of(
        cls, vector: int, error: int, cr2: int, frame: tuple[int, int, int, int], registers: list[int],
        memory: dict[str, str],
    ) -> Report:  # fmt: skip
        """``frame`` is RIP, CS, SS and RFLAGS. An error code and CR2 are left out where the vector has none."""
        rip, cs, ss, rflags = frame
        return cls(
            vector,
            error if vector in WITH_ERROR_CODE else None,
            cr2 if vector == 14 else None,
            rip,
            cs,
            ss,
            rflags,
            dict(zip(REGISTERS, registers, strict=True)),
            memory,
        )


def parsed(line: str) -> Report:
    return Report(**json.loads(line))


@cache
def _blank() -> dict[int, bytes]:
    """All pages as they are but for a case's code: INT3 where code may be; a pattern elsewhere."""
    return {
        address: b"\xcc" * PAGE
        if address in CODE_PAGES
        else bytes((address >> 16) + index & 0x7F for index in range(PAGE))
        for address in PAGES
    }


def first_contents(case: Case) -> dict[int, bytes]:
    """The contents of all pages before a case, by the page's address.

    Code that is cut off by the end of its page is what some cases are about: the rest is nowhere.
    """
    pages = dict(_blank())
    at, rest = case.origin, case.image
    while rest:
        offset = at % PAGE
        piece, rest = rest[: PAGE - offset], rest[PAGE - offset :]
        old = pages.get(at - offset)
        if old is not None:
            pages[at - offset] = old[:offset] + piece + old[offset + len(piece) :]
        at += len(piece)
    return pages


def changes(before: dict[int, bytes], read: Callable[[int], bytes]) -> dict[str, str]:
    """What differs from the first contents in pages that can be written; ``read`` gives a page."""
    found = {}
    for page in WRITABLE_PAGES:
        old, new = before[page], read(page)
        if old == new:
            continue
        at = 0
        while at < PAGE:
            end = at
            while end < PAGE and old[end] != new[end]:
                end += 1
            if end > at:
                found[f"{page + at:#x}"] = new[at:end].hex()
            at = end + 1
    return found
