"""The guest's descriptors, as the region's two GDTs hold them.

The processor loads segments from the region's GDTs, so that the guest's selectors mean there what
they mean in its own table. In the kernel view every segment has DPL 3, for a kernel at ring 3; in
the user view the DPLs are the guest's. System descriptors are left out: what uses them traps. So is
a segment whose accessed bit is clear: the load faults, the bit is set in the guest's own table, as
the processor would have set it, and the load is done again.
"""

from __future__ import annotations

from hvproto.addresses import GPA, PAGE_MASK, PAGE_SIZE
from hvproto.hypervisor.monitor import Monitor
from hvproto.hypervisor.region import GUEST_GDT_LIMIT, Region
from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.processor.exceptions import Raised, load_descriptor
from hvproto.processor.paging import walk
from hvproto.processor.segments import (
    ACCESSED,
    PRESENT,
    TABLE_INDICATOR,
    decode_descriptor,
    encode_descriptor,
)


class ShadowDescriptors:
    """Keeps the region's GDTs equal to the guest's table, whose pages are watched."""

    def __init__(self, cpu: VirtualCpu, region: Region, monitor: Monitor) -> None:
        self._cpu = cpu
        self._region = region
        self._monitor = monitor
        self._extents: list[tuple[GPA, GPA]] = []
        """The guest-physical pieces [start, end) in which the table lies, one a page."""
        self._entries = 0

    def is_hit(self, gpa: int, size: int) -> bool:
        """Whether a store (within a page) has changed a byte of the guest's table."""
        return any(start < gpa + size and gpa < end for start, end in self._extents)

    def reload(self) -> None:
        """The table is elsewhere, or its contents have changed: copy all of it."""
        table = self._cpu.gdtr
        size = min(table.limit, GUEST_GDT_LIMIT) + 1
        raw = self._cpu.peek(table.base, size).ljust(size, b"\0")
        count = size // 8
        for index in range(max(count, self._entries)):
            descriptor = int.from_bytes(raw[index * 8 : index * 8 + 8], "little") if 0 < index < count else 0
            kernel, user = _in_views(index * 8, descriptor)
            self._region.set_guest_descriptor(index, kernel=kernel, user=user)
        self._entries = count
        self._watch(table.base, size)

    def _watch(self, base: int, size: int) -> None:
        extents: list[tuple[GPA, GPA]] = []
        for page in range(base & ~PAGE_MASK, base + size, PAGE_SIZE):
            found = walk(self._cpu.paging_mode, self._cpu.memory.read_entry, page)
            if found.physical is not None and self._cpu.memory.to_host(found.physical) is not None:
                first, end = max(page, base), min(page + PAGE_SIZE, base + size)
                extents.append((GPA(found.physical + first - page), GPA(found.physical + end - page)))
        for start, _ in extents:
            self._monitor.watch(start)
        for start, _ in self._extents:
            self._monitor.unwatch(start)
        self._extents = extents

    def repair(self, error_code: int) -> bool:
        """After a fault on a data segment's selector: True if it came from a clear accessed bit, which is set now."""
        selector = error_code & 0xFFFC
        if error_code & 2 or selector & TABLE_INDICATOR or not selector:
            return False
        try:
            segment = load_descriptor(self._cpu, selector)
        except Raised:
            return False
        if segment.is_system or not segment.present or segment.attributes & ACCESSED:
            return False
        if not segment.is_conforming and segment.dpl < self._cpu.cpl:
            return False
        if not segment.is_readable:
            return False
        self._cpu.mark_accessed(segment)
        return True


def _in_views(selector: int, descriptor: int) -> tuple[int, int]:
    """(kernel view's, user view's) form of a guest descriptor."""
    segment = decode_descriptor(selector, descriptor)
    if segment.is_system or not segment.attributes & ACCESSED or not segment.attributes & PRESENT:
        return 0, 0
    return encode_descriptor(segment.with_dpl(3)), encode_descriptor(segment)
