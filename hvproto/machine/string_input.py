"""REP INSW and REP INSD from a disk, many steps at once: a call for each word would take a microsecond or two.

In the engine each step of a repeated string instruction is a basic block of its own, from the second one on. In its
port access the present step hasn't stored anything yet, nor counted. So the data of the following steps can be put into
memory there, and the registers moved on: the step that is under way then ends as if it were the last of them.
"""

from __future__ import annotations

from typing import Protocol

from hvproto.addresses import PAGE_SIZE, page_offset
from hvproto.processor.paging import Access, fault_code
from hvproto.processor.processor import Processor
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import EFLAGS_TF

_INS = 0x6D
_REPEATS, _OPERAND_SIZE, _ADDRESS_SIZE = {0xF2, 0xF3}, 0x66, 0x67
_PREFIXES = {*_REPEATS, _OPERAND_SIZE, _ADDRESS_SIZE}
_MOST_BYTES = 4
_EFLAGS_DF = 0x400
_BREAKPOINTS_ON = 0xFF  # in DR7
_COUNT, _POINTER = 1, 7  # CX and DI


class Source(Protocol):
    """A device that offers a block of data."""

    def take(self, size: int) -> bytes:
        """At most so many bytes; fewer at the block's end, none if there is no block."""


def take_many(processor: Processor, source: Source, size: int) -> int | None:
    """What the IN of ``size`` bytes that is under way gives, all further steps that can be done at once being done.

    None, and nothing is done, unless the instruction is a repeated one that has begun, and there is something to gain.
    """
    start, end = processor.engine.last_block
    if not 1 < end - start <= _MOST_BYTES:
        return None
    code = processor.peek(start, end - start)
    if code is None or not _is_repeated_ins(code) or not _plain(processor):
        return None
    bits = _address_bits(processor, code)
    mask = (1 << bits) - 1
    count, pointer = processor.gpr(_COUNT), processor.gpr(_POINTER)
    offset = pointer & mask
    base = 0 if processor.code64 else processor.segment(SegmentRegister.ES).base
    linear = processor.wrapped(base + offset)
    # The store of this step has been tried already, so this page, and no other, is known to take it.
    steps = min(count & mask, (PAGE_SIZE - page_offset(linear)) // size, (mask + 1 - offset) // size)
    if steps < 2:
        return None
    found = processor.walk(linear)
    if found.physical is None or found.physical + steps * size > len(processor.ram):
        return None
    data = source.take(steps * size)
    if not data:
        return None
    more = -(-len(data) // size) - 1  # steps beside this one
    data = data.ljust((more + 1) * size, b"\0")
    _store(processor, linear + size, found.physical + size, data[size:])
    processor.set_gpr(_COUNT, count & ~mask | (count & mask) - more)
    processor.set_gpr(_POINTER, pointer & ~mask | offset + more * size & mask)
    processor.engine.now += more * (end - start)
    return int.from_bytes(data[:size], "little")


def _is_repeated_ins(code: bytes) -> bool:
    *prefixes, last = code
    return last == _INS and bool(_REPEATS & set(prefixes)) and _PREFIXES.issuperset(prefixes)


def _plain(processor: Processor) -> bool:
    """Whether nobody wants to see each step: no single step, no breakpoints, no watched memory; and upwards."""
    return (
        processor.on_protected_store is None
        and not processor.eflags & (EFLAGS_TF | _EFLAGS_DF)
        and not processor.debug_register(7) & _BREAKPOINTS_ON
    )


def _address_bits(processor: Processor, code: bytes) -> int:
    if processor.code64:
        return 32 if _ADDRESS_SIZE in code else 64
    return 32 if processor.code.is_32bit != (_ADDRESS_SIZE in code) else 16


def _store(processor: Processor, linear: int, physical: int, data: bytes) -> None:
    """Put data into RAM, and have the engine forget what it has translated of the old contents."""
    processor.ram[physical : physical + len(data)] = data
    mode = processor.paging_mode
    if data and fault_code(mode, processor.walk(linear), Access.FETCH, user=processor.cpl == 3) is None:
        processor.engine.forget_code(linear, len(data))
    else:
        processor.engine.flush_code_wanted = True
        processor.request_stop()
