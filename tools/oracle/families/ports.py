"""IN and OUT against IOPL and the I/O permission bitmap."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, at_end, described
from tools.oracle.case import at as put
from tools.oracle.descriptors import segment

_PORT = 0x88
_FORMS = {
    "out8": ("out dx, al", 1), "out16": ("out dx, ax", 2), "out32": ("out dx, eax", 4), "in8": ("in al, dx", 1),
    "in16": ("in ax, dx", 2), "in32": ("in eax, dx", 4), "out-imm": (f"out {_PORT:#x}, al", 1),
    "outs": ("mov esi, 0x404000\noutsb", 1), "ins": ("mov edi, 0x404000\ninsb", 1),
}  # fmt: skip
_BITMAP = at.TSS + 0x68


def _case(
    name: str,
    form: str,
    ring: int,
    flags: int,
    bits: int,
    settings: dict[str, int] | None = None,
    extra: tuple[tuple[int, int], ...] = (),
) -> Case:
    code, _ = _FORMS[form]
    word = 0xFFFFFFFF & ~(bits << (_PORT & 31))
    patches = put(_BITMAP + _PORT // 32 * 4, (word,)) + extra
    hide = "\nxor eax, eax" if form.startswith("in") else ""
    text = at_end(f"mov edx, {_PORT:#x}\n{code}{hide}")
    return Case(f"port/{name}/{form}/ring{ring}", text, ring, flags, patches, settings=settings or {})


def cases() -> Iterator[Case]:
    for form, ring, iopl, bits in product(_FORMS, (0, 1, 3), (0, 1, 3), (0, 0xF)):
        yield _case(f"iopl{iopl}-bits{bits:x}", form, ring, 2 | iopl << 12, bits)
    for form, bits in product(_FORMS, (0x1, 0x3, 0x7, 0xE, 0x8, 0x5)):
        yield _case(f"some-{bits:x}", form, 3, 2, bits)
    for form, limit in product(
        ("out8", "out32", "in16"), (0x67, 0x68 + _PORT // 8 - 1, 0x68 + _PORT // 8, 0x68 + _PORT // 8 + 1, 0x65, 0x66)
    ):
        extra = described(at.TSS_SELECTOR, segment(9, base=at.TSS, limit=limit, flags=0))
        yield _case(f"limit-{limit:x}", form, 3, 2, 0xF, extra=extra)
    for form, base in product(("out8", "out32", "in16"), (0, 0x60, 0x69, 0xD8, 0xE8, 0xFFFF)):
        yield _case(f"base-{base:x}", form, 3, 2, 0xF, extra=put(at.TSS + 0x64, (base << 16,)))
    for form in ("outs", "ins"):
        code = {"outs": "mov esi, 0x801000\noutsb", "ins": "mov edi, 0x801000\ninsb"}[form]
        for iopl in (0, 3):
            text = at_end(f"mov edx, {_PORT:#x}\n{code}")
            yield Case(f"port/absent/{form}/iopl{iopl}", text, 3, 2 | iopl << 12, put(at.PT_TEST + 4, (0,)))
