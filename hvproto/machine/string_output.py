"""REP OUTSW and REP OUTSD to a disk, many steps at once: a call for each word would take some microseconds."""

from __future__ import annotations

from typing import Protocol

from hvproto.machine.string_steps import OUTPUT, steps_at_once
from hvproto.processor.processor import Processor


class Sink(Protocol):
    """A device that waits for a block of data."""

    @property
    def room(self) -> int:
        """How many bytes of the block are still to come; 0 if it waits for none."""

    def give(self, data: bytes) -> None:
        """Some of them."""


def give_many(processor: Processor, sink: Sink, size: int, value: int) -> bool:
    """Do the OUT of ``size`` bytes that is under way, and all further steps that can be done at once.

    False, and nothing is done, unless the instruction is a repeated one that has begun, and there is something to gain.
    """
    room = sink.room // size
    if room < 2:
        return False
    at_once = steps_at_once(processor, OUTPUT, size)
    if at_once is None:
        return False
    more = min(at_once.steps, room) - 1  # steps beside this one
    start = at_once.physical + size
    data = bytes(processor.ram[start : start + more * size])
    at_once.skip(processor, more)
    sink.give(value.to_bytes(size, "little") + data)
    return True
