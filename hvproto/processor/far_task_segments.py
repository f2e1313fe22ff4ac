"""The LDT and the segments of a task that is being entered, checked (SDM vol. 3, 7.3, table 7-1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvproto.processor.exceptions import Raised, descriptor_place
from hvproto.processor.far_code import error_of, marked
from hvproto.processor.segments import (
    NULL_SEGMENT,
    RPL_MASK,
    SYSTEM_LDT,
    TABLE_INDICATOR,
    Segment,
    SegmentRegister,
    decode_descriptor,
)
from hvproto.processor.settings import Setting

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu
    from hvproto.processor.live_target import LiveTarget

INVALID_TSS, NOT_PRESENT, STACK_FAULT = 10, 11, 12
TSS_ORDER = tuple(SegmentRegister)
"""ES, CS, SS, DS, FS, GS: in a TSS as in their machine encoding."""


def load_task_segments(processor: Cpu, ldt: int, selectors: tuple[int, ...], *, v86: bool, external: int) -> None:
    """LDTR and the segment registers; ``external`` goes into the error codes. Raises `Raised`."""
    try:
        _load_ldt(processor, ldt)
        if not v86:
            _load_stack(processor, selectors[2], selectors[1] & RPL_MASK)
            _load_code(processor, selectors[1])
            _load_data(processor, selectors)
    except Raised as fault:
        error = fault.error_code if fault.cr2 is not None else (fault.error_code or 0) | external
        raise Raised(fault.vector, error, fault.cr2) from None


def _load_ldt(processor: Cpu, selector: int) -> None:
    if not selector & ~RPL_MASK:
        return
    target = processor.target()
    found = _found(target, selector) if not selector & TABLE_INDICATOR else None
    if found is None or not found.is_system or found.system_type != SYSTEM_LDT or not found.present:
        raise Raised(INVALID_TSS, error_of(selector))
    processor.write_setting(Setting.LDTR, found)


def _load_stack(processor: Cpu, selector: int, level: int) -> None:
    """SS comes first: what fails behind it has a stack to be reported on."""
    target = processor.target()
    stack = _found(target, selector)
    if not stack.is_writable_data or stack.dpl != level or stack.rpl != level:
        raise Raised(INVALID_TSS, error_of(selector))
    if not stack.present:
        raise Raised(STACK_FAULT, error_of(selector))
    processor.set_segments({SegmentRegister.SS: marked(target, stack)})


def _load_code(processor: Cpu, selector: int) -> None:
    target = processor.target()
    code = _found(target, selector)
    if not code.is_code or (code.dpl > code.rpl if code.is_conforming else code.dpl != code.rpl):
        raise Raised(INVALID_TSS, error_of(selector))
    if not code.present:
        raise Raised(NOT_PRESENT, error_of(selector))
    processor.set_segments({SegmentRegister.CS: marked(target, code)})


def _load_data(processor: Cpu, selectors: tuple[int, ...]) -> None:
    target = processor.target()
    level = selectors[1] & RPL_MASK
    for register, selector in zip(TSS_ORDER, selectors, strict=False):
        if register in (SegmentRegister.CS, SegmentRegister.SS):
            continue
        if not selector & ~RPL_MASK:
            processor.set_segments({register: NULL_SEGMENT.with_selector(selector)})
            continue
        data = _found(target, selector)
        closed = not data.is_conforming and (data.rpl > data.dpl or level > data.dpl)
        if not data.is_readable or closed:
            raise Raised(INVALID_TSS, error_of(selector))
        if not data.present:
            raise Raised(NOT_PRESENT, error_of(selector))
        processor.set_segments({register: marked(target, data)})


def _found(target: LiveTarget, selector: int) -> Segment:
    if not selector & ~RPL_MASK:
        raise Raised(INVALID_TSS, 0)
    return decode_descriptor(selector, target.read(descriptor_place(target, selector, vector=INVALID_TSS), 8))
