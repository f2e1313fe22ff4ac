"""REP INSW and REP INSD from a disk, many steps at once: a call for each word would take a microsecond or two."""

from __future__ import annotations

from typing import Protocol

from hvproto.machine.string_steps import INPUT, steps_at_once
from hvproto.processor.paging import Access, fault_code
from hvproto.processor.processor import Processor


class Source(Protocol):
    """A device that offers a block of data."""

    def take(self, size: int) -> bytes:
        """At most so many bytes; fewer at the block's end, none if there is no block."""


def take_many(processor: Processor, source: Source, size: int) -> int | None:
    """What the IN of ``size`` bytes that is under way gives, all further steps that can be done at once being done.

    None, and nothing is done, unless the instruction is a repeated one that has begun, and there is something to gain.
    """
    # The store of this step has been tried already, so its page, and no other, is known to take it.
    at_once = steps_at_once(processor, INPUT, size)
    data = source.take(at_once.steps * size) if at_once else b""
    if at_once is None or not data:
        return None
    more = -(-len(data) // size) - 1  # steps beside this one
    data = data.ljust((more + 1) * size, b"\0")
    _store(processor, at_once.linear + size, at_once.physical + size, data[size:])
    at_once.skip(processor, more)
    return int.from_bytes(data[:size], "little")


def _store(processor: Processor, linear: int, physical: int, data: bytes) -> None:
    """Put data into RAM, and have the engine forget what it has translated of the old contents."""
    processor.ram[physical : physical + len(data)] = data
    mode = processor.paging_mode
    if data and fault_code(mode, processor.walk(linear), Access.FETCH, user=processor.cpl == 3) is None:
        processor.engine.forget_code(linear, len(data))
    else:
        processor.engine.flush_code_wanted = True
        processor.request_stop()
