"""Loads of data and stack segment registers, and the instructions that ask about selectors."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, at_end
from tools.oracle.case import at as put
from tools.oracle.families.kinds import ALL, MEMORY, SPECIAL, Kind

_FAR_LOADS = {"es": "les", "ds": "lds", "ss": "lss", "fs": "lfs", "gs": "lgs"}


def loads() -> Iterator[Case]:
    """MOV, POP and LxS of DS and SS with every kind, and of the other registers with some."""
    for kind, ring, rpl in product(ALL, (0, 3), (0, 3)):
        for register in ("ds", "ss"):
            yield _load(kind, ring, rpl, register, "mov")
    some = [kind for kind in ALL if kind.name in _SOME]
    for kind, ring, register in product(some, (0, 3), ("es", "fs", "gs")):
        yield _load(kind, ring, ring, register, "mov")
    for kind, ring, register, way in product(some, (0, 3), ("ds", "ss"), ("pop", "far")):
        yield _load(kind, ring, ring, register, way)
    for kind in MEMORY:
        yield _load(kind, 1, 1, "ss", "mov")
        yield _load(kind, 1, 1, "ds", "mov")


_SOME = frozenset(
    {"null", "beyond", "data-rw-0", "data-rw-3", "code-x-0", "code-xr-3", "absent-data-3", "absent-data-0", "call-gate"}
)


def _load(kind: Kind, ring: int, rpl: int, register: str, way: str) -> Case:
    selector = kind.selector | rpl
    code = {
        "mov": f"mov eax, {selector:#x}\nmov {register}, ax",
        "pop": f"push {selector:#x}\npop {register}",
        "far": f"{_FAR_LOADS[register]} eax, [{at.DATA:#x}]",
    }[way]
    pointer = put(at.DATA, (at.USER_STACK if ring == 3 else at.STACK0, selector)) if way == "far" else ()
    name = f"load/{register}/{way}/{kind.name}/ring{ring}/rpl{rpl}"
    return Case(name, at_end(code), ring, 2, kind.patches + pointer, kind.watches, kind.settings)


_DEFINED = "pushfd\nand ecx, 0xfff0ffff\npopfd"
"""LAR leaves bits 16 to 19 of what it loads undefined; ZF has to survive."""


def questions() -> Iterator[Case]:
    """LAR, LSL, VERR and VERW: ZF and the answer."""
    codes = {"lar": f"lar ecx, eax\n{_DEFINED}", "lsl": "lsl ecx, eax", "verr": "verr ax", "verw": "verw ax"}
    for (word, code), kind, ring, rpl in product(codes.items(), ALL, (0, 3), (0, 3)):
        if rpl and not ring and kind in MEMORY and word in ("lar", "lsl"):
            continue  # The same as at ring 3 with RPL 3.
        text = at_end(f"mov eax, {kind.selector | rpl:#x}\n{code}")
        yield Case(
            f"ask/{word}/{kind.name}/ring{ring}/rpl{rpl}", text, ring, 2, kind.patches, kind.watches, kind.settings
        )
    for destination, source, zf in product((0x10, 0x11, 0x13), (0x10, 0x12, 0x13), (0, 0x40)):
        code = at_end(f"mov eax, {destination:#x}\nmov ecx, {source:#x}\narpl ax, cx")
        yield Case(f"ask/arpl/{destination:x}-{source:x}-{zf:x}", code, 3, 2 | zf)


def use() -> Iterator[Case]:
    """Memory accesses through segment registers that forbid them."""
    accesses = {
        "read": "mov eax, {}:[0x404000]",
        "write": "mov {}:[0x404000], eax",
        "update": "add dword ptr {}:[0x404000], 1",
        "compare": "cmp dword ptr {}:[0x404000], 1",
    }
    for (what, access), name, ring in product(accesses.items(), ("null", "data-ro", "code-x", "code-xr"), (0, 3)):
        kind = next(k for k in MEMORY + SPECIAL if k.name in (name, f"{name}-{ring}"))
        code = at_end(f"mov eax, {kind.selector | ring:#x}\nmov es, ax\n{access.format('es')}")
        yield Case(f"use/{what}/{kind.name}/ring{ring}", code, ring, 2, kind.patches)
    for ring in (0, 3):
        code = at_end("mov cs:[0x404000], eax")
        yield Case(f"use/write/cs/ring{ring}", code, ring)
        for register in ("ds", "es", "fs", "gs"):
            case = at_end(f"mov eax, {register}:[0x404000]")
            yield Case(f"use/read/null-{register}/ring{ring}", case, ring, settings={register: 0})


def cases() -> Iterator[Case]:
    yield from loads()
    yield from questions()
    yield from use()
