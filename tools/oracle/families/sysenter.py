"""SYSENTER and SYSEXIT of 32-bit protected mode (SDM vol. 2)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, at_end

_CS, _ESP, _EIP = 0x174, 0x175, 0x176


def _msrs(selector: int) -> tuple[tuple[int, int], ...]:
    return ((_CS, selector), (_ESP, at.ENTRY_STACK2), (_EIP, at.LANDING))


def cases() -> Iterator[Case]:
    for ring, flags in product((0, 1, 3), (2, 0x202, 0x3202, 0xCD7, 0x40002, 0x200002)):
        yield Case(f"sysenter/flags-{flags:x}/ring{ring}", at_end("sysenter"), ring, flags, msrs=_msrs(at.KCODE))
    leave = {"edx": at.LANDING, "ecx": at.USER_STACK}
    for selector, ring in product((0, 3, 8, 0x0B, 0x10, 0xFFFF), (0, 3)):
        yield Case(f"sysenter/cs-{selector:x}/ring{ring}", at_end("sysenter"), ring, msrs=_msrs(selector))
        yield Case(f"sysexit/cs-{selector:x}/ring{ring}", at_end("sysexit"), ring, settings=leave, msrs=_msrs(selector))
    for flags in (0x202, 0x3202, 0xCD7):
        yield Case(f"sysexit/flags-{flags:x}", at_end("sysexit"), 0, flags, settings=leave, msrs=_msrs(8))
