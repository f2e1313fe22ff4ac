"""Where a saved context keeps what no public call tells, found by experiments whose outcome is known.

A context is Unicorn's own copy of the processor's state: opaque bytes that one may save, keep and restore. Exceptions
are provoked, registers written, and the bytes searched for what must be there. Nothing is assumed of a version.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import uclib

from hvproto.errors import EngineError
from hvproto.processor.state import (
    SUMMARY_CODE_32,
    SUMMARY_CODE_64,
    SUMMARY_CPL,
    SUMMARY_LONG,
    SUMMARY_PROTECTED,
    SUMMARY_STACK_32,
    StateLayout,
)

_SELECTORS = {
    x86_const.UC_X86_REG_ES: 0x5A10,
    x86_const.UC_X86_REG_CS: 0x5A28,
    x86_const.UC_X86_REG_SS: 0x5A30,
    x86_const.UC_X86_REG_DS: 0x5A48,
}
_BASES = {x86_const.UC_X86_REG_FS_BASE: 0x0123_4567_89AB_C000, x86_const.UC_X86_REG_GS_BASE: 0x0123_4567_89AB_D000}
"""What is written to segment registers, in the order of their machine encoding."""


@cache
def layout() -> StateLayout:
    """The layout of this Unicorn's contexts. Raises EngineError if an experiment has no single answer."""
    bad_selector = (0x1238, 0x1350)
    # mov eax, 0x7777vvvv; mov ds, ax: the upper half keeps EAX itself from matching.
    faults = [b"\xb8" + (0x7777_0000 | value).to_bytes(4, "little") + b"\x8e\xd8" for value in bad_selector]
    divide = b"\x31\xc9\xf7\xf1"  # xor ecx, ecx; div ecx
    images = [_after(uc_const.UC_MODE_32, code) for code in (*faults, divide, b"\xcd\x30", b"\xcd\x31", b"\xcc")]
    segments = _segments()
    return StateLayout(
        summary=_summary(),
        segments=segments,
        error_code=_equal("error code", images, (*bad_selector, None, None, None, None)),
        is_software=_equal("software-interrupt mark", images, (0, 0, 0, 1, 1, 1)),
        old_exception=_equal("last exception", images, (13, 13, 0, -1, -1, -1)),
    )


def _equal(name: str, images: Sequence[bytes], expected: Sequence[int | None]) -> int:
    def fits(at: int) -> bool:
        return all(
            value is None or int.from_bytes(image[at : at + 4], "little", signed=True) == value
            for value, image in zip(expected, images, strict=True)
        )

    return _only(name, range(0, len(images[0]) - 3, 4), fits)


def _only(name: str, places: range, fits: Callable[[int], bool]) -> int:
    hits = [at for at in places if fits(at)]
    if len(hits) != 1:
        raise EngineError(f"the portable engine can't find the {name} in a saved context ({len(hits)} places fit)")
    return hits[0]


def _segments() -> int:
    """Selectors that were written to four of the segment registers, and the bases of the other two."""
    uc = unicorn.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_64)
    for register, value in (_SELECTORS | _BASES).items():
        uc.reg_write(register, value)
    image = _context(uc)
    base_at = 8
    selectors = struct.Struct("<" + "I20x" * len(_SELECTORS))
    bases = struct.Struct("<" + "Q16x" * len(_BASES))

    def fits(at: int) -> bool:
        return selectors.unpack_from(image, at) == tuple(_SELECTORS.values()) and bases.unpack_from(
            image, at + selectors.size + base_at
        ) == tuple(_BASES.values())

    return _only("segment registers", range(0, len(image) - 200, 4), fits)


def _summary() -> int:
    """The engine's summary of the mode, in the three modes that it can be constructed in."""
    mask = SUMMARY_CPL | SUMMARY_CODE_32 | SUMMARY_STACK_32 | SUMMARY_PROTECTED | SUMMARY_LONG | SUMMARY_CODE_64
    flat = SUMMARY_CODE_32 | SUMMARY_STACK_32 | SUMMARY_PROTECTED
    expected = {
        uc_const.UC_MODE_16: 0,
        uc_const.UC_MODE_32: flat,
        uc_const.UC_MODE_64: flat | SUMMARY_LONG | SUMMARY_CODE_64,
    }
    images = {mode: _context(unicorn.Uc(uc_const.UC_ARCH_X86, mode)) for mode in expected}
    size = len(next(iter(images.values())))

    def fits(at: int) -> bool:
        # The second summary follows, which after a reset says only that interrupts are enabled globally.
        return all(
            struct.unpack_from("<I", images[mode], at)[0] & mask == value
            and struct.unpack_from("<I", images[mode], at + 4)[0] == 1
            for mode, value in expected.items()
        )

    return _only("summary of the mode", range(0, size - 8, 4), fits)


def _after(mode: int, code: bytes) -> bytes:
    """The bytes of the context after running ``code`` up to its exception."""
    uc = unicorn.Uc(uc_const.UC_ARCH_X86, mode)
    uc.mem_map(0, 0x2000)
    uc.mem_write(0x1000, code)
    uc.hook_add(uc_const.UC_HOOK_INTR, lambda engine, _vector, _data: engine.emu_stop())
    uc.emu_start(0x1000, 0x1FFF)
    return _context(uc)


def _context(uc: Any) -> bytes:
    context = uc.context_save()
    address = ctypes.cast(context.context, ctypes.c_void_p).value or 0
    return ctypes.string_at(address, uclib.uc_context_size(uc._uch))
