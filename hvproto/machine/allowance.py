"""How many instructions a machine may still execute, whoever's they are: a limit that costs no virtual time."""

from __future__ import annotations

from collections.abc import Callable

from hvproto.processor.processor import Processor


class Allowance:
    """So many instructions (`Processor.instructions`); used up at the first block boundary at or after them.

    Each takes a cycle at least: a run of as many cycles as there are instructions left begins no block too many, and
    ends at the right one after some such runs. While a processor is halted, none is used.
    """

    def __init__(self, processor: Processor, instructions: int, since: int, then: Callable[[], None]) -> None:
        """``since``: the count from which on they are counted. ``then`` is called once they are used up."""
        self.instructions = instructions
        self.then = then
        self._processor = processor
        self._end = since + instructions

    @property
    def left(self) -> int:
        return self._end - self._processor.instructions

    def bound(self, deadline: int) -> int:
        """The earliest time, in cycles, at which they can be used up, if that is before a deadline."""
        return min(deadline, self._processor.now + max(self.left, 1))
