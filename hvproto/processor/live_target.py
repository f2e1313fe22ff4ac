"""The real processor as a target of delivery: its state read once, its pages translated once.

One delivery reads the IDT, the GDT and the TSS and pushes up to ten words. Nothing it depends on
changes in between, so what has been read is kept for its duration: that makes a delivery in Python
three times as fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvproto.addresses import PAGE_MASK, PAGE_SIZE, page_offset
from hvproto.processor.engine import UnmappedAccess
from hvproto.processor.exceptions import Delivered, Event
from hvproto.processor.linear_memory import linear_mask
from hvproto.processor.once import once
from hvproto.processor.paging import Access, PagingMode
from hvproto.processor.segments import Segment, TableRegister
from hvproto.processor.settings import CR0_PE, EFER_LMA
from hvproto.processor.task_switch import switch_task

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu


class LiveTarget:
    """Implements `hvproto.processor.exceptions.Target` for one delivery on the real processor."""

    def __init__(self, processor: Cpu) -> None:
        self._processor = processor
        self._pages: dict[tuple[int, Access, bool], int] = {}

    @once
    def protected(self) -> bool:
        return bool(self._mode.cr0 & CR0_PE)

    @once
    def long_mode(self) -> bool:
        return bool(self._mode.efer & EFER_LMA)

    @once
    def cpl(self) -> int:
        return self._processor.cpl

    @once
    def eip(self) -> int:
        return self._processor.eip

    @once
    def esp(self) -> int:
        return self._processor.esp

    @once
    def eflags(self) -> int:
        return self._processor.eflags

    @once
    def code(self) -> Segment:
        return self._processor.code

    @once
    def stack(self) -> Segment:
        return self._processor.stack

    @once
    def idtr(self) -> TableRegister:
        return self._processor.idtr

    @once
    def gdtr(self) -> TableRegister:
        return self._processor.gdtr

    @once
    def ldtr(self) -> Segment:
        return self._processor.ldtr

    @once
    def tr(self) -> Segment:
        return self._processor.tr

    @once
    def _mode(self) -> PagingMode:
        return self._processor.paging_mode

    @once
    def _mask(self) -> int:
        return linear_mask(self._mode)

    def switch_task(self, event: Event, selector: int) -> Delivered:
        return switch_task(self._processor, self, event, selector)

    def _place(self, linear: int, access: Access, *, user: bool = False) -> int:
        key = (linear & ~PAGE_MASK, access, user)
        frame = self._pages.get(key)
        if frame is None:
            frame = self._processor.translate(linear, access, mode=self._mode, user=user) & ~PAGE_MASK
            self._pages[key] = frame
        return frame | page_offset(linear)

    def read(self, linear: int, size: int) -> int:
        return int.from_bytes(self.read_bytes(linear, size), "little")

    def read_bytes(self, linear: int, size: int) -> bytes:
        """Bytes of linear memory at supervisor level."""
        ram = self._processor.ram
        try:
            if page_offset(linear) + size <= PAGE_SIZE:
                at = self._place(linear, Access.READ)
                return bytes(ram[at : at + size])
            return bytes(ram[self._place(linear + i & self._mask, Access.READ)] for i in range(size))
        except UnmappedAccess:
            return self._processor.read_bytes(linear, size)  # it may know who answers there

    def write(self, linear: int, size: int, value: int, *, user: bool = False) -> None:
        data = value.to_bytes(size, "little")
        try:
            places = [self._place(linear + i & self._mask, Access.WRITE, user=user) for i in (0, size - 1)]
        except UnmappedAccess:
            self._processor.write_bytes(linear, data, user=user)
            return
        if places[1] == places[0] + size - 1:
            self._processor.ram[places[0] : places[0] + size] = data
            return
        for index, byte in enumerate(data):
            self._processor.ram[self._place(linear + index & self._mask, Access.WRITE, user=user)] = byte
