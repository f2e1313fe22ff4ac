"""The real processor as a target of delivery: its state read once, its pages translated once.

One delivery reads the IDT, the GDT and the TSS and pushes up to six words. Nothing it depends on
changes in between, so what has been read is kept for its duration: that makes a delivery in Python
three times as fast.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from hvproto.addresses import PAGE_MASK, PAGE_SIZE, page_offset
from hvproto.processor.paging import Access, PagingMode
from hvproto.processor.segments import Segment, TableRegister

if TYPE_CHECKING:
    from hvproto.processor.processor import Processor


class LiveTarget:
    """Implements `hvproto.processor.delivery.Target` for one delivery on the real processor."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self._pages: dict[tuple[int, Access], int] = {}

    @cached_property
    def cpl(self) -> int:
        return self._processor.cpl

    @cached_property
    def esp(self) -> int:
        return self._processor.esp

    @cached_property
    def eflags(self) -> int:
        return self._processor.eflags

    @cached_property
    def code(self) -> Segment:
        return self._processor.code

    @cached_property
    def stack(self) -> Segment:
        return self._processor.stack

    @cached_property
    def idtr(self) -> TableRegister:
        return self._processor.idtr

    @cached_property
    def gdtr(self) -> TableRegister:
        return self._processor.gdtr

    @cached_property
    def ldtr(self) -> Segment:
        return self._processor.ldtr

    @cached_property
    def tr(self) -> Segment:
        return self._processor.tr

    @cached_property
    def _mode(self) -> PagingMode:
        return self._processor.paging_mode

    def _place(self, linear: int, access: Access) -> int:
        key = (linear & ~PAGE_MASK, access)
        frame = self._pages.get(key)
        if frame is None:
            frame = self._processor.translate(key[0] | page_offset(linear), access, mode=self._mode) & ~PAGE_MASK
            self._pages[key] = frame
        return frame | page_offset(linear)

    def read(self, linear: int, size: int) -> int:
        ram = self._processor.ram
        if page_offset(linear) + size <= PAGE_SIZE:
            at = self._place(linear, Access.READ)
            return int.from_bytes(ram[at : at + size], "little")
        return int.from_bytes(
            bytes(ram[self._place(linear + i & 0xFFFF_FFFF, Access.READ)] for i in range(size)), "little"
        )

    def write(self, linear: int, size: int, value: int) -> None:
        places = [self._place(linear + i & 0xFFFF_FFFF, Access.WRITE) for i in (0, size - 1)]
        data = value.to_bytes(size, "little")
        if places[1] == places[0] + size - 1:
            self._processor.ram[places[0] : places[0] + size] = data
            return
        for index, byte in enumerate(data):
            self._processor.ram[self._place(linear + index & 0xFFFF_FFFF, Access.WRITE)] = byte
