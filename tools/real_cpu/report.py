"""What is seen of an exception that ended a case, the same for all processors; one line of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

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


def first_contents(case: Case) -> dict[int, bytes]:
    """The contents of all pages before a case, by the page's address."""
    pages = {}
    for address in PAGES:
        if address in CODE_PAGES:
            pages[address] = bytearray(b"\xcc" * PAGE)
        else:
            pages[address] = bytearray((address >> 16) + index & 0x7F for index in range(PAGE))
    for offset, byte in enumerate(case.image):
        page = case.origin + offset & ~(PAGE - 1)
        if page in pages:  # code that is cut off by the end of its page is what some cases are about
            pages[page][case.origin + offset - page] = byte
    return {address: bytes(page) for address, page in pages.items()}


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
