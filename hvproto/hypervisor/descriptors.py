"""The guest's descriptors, as the region's two GDTs hold them.

The processor loads data segments from the region's GDTs, so that the guest's selectors mean there what
they mean in its own table. In the kernel view every segment has DPL 3, for a kernel at ring 3; in
the user view the DPLs are the guest's. What isn't there - system descriptors, segments of an LDT or beyond
the region's table, and those whose accessed bit is clear - faults when it is loaded, and is loaded by emulation.
"""

from __future__ import annotations

from hvproto.addresses import GPA, PAGE_MASK, PAGE_SIZE
from hvproto.hypervisor.monitor import Monitor
from hvproto.hypervisor.region import Region
from hvproto.hypervisor.view import ADDRESS, MIRRORED, View
from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.processor.paging import PagingMode, walk
from hvproto.processor.segments import ACCESSED, PRESENT, Segment, decode_descriptor, encode_descriptor


class ShadowDescriptors:
    """Keeps the region's GDTs equal to the guest's table, whose pages are watched."""

    def __init__(self, cpu: VirtualCpu, region: Region, monitor: Monitor) -> None:
        self._cpu = cpu
        self.region = region
        self._monitor = monitor
        self.extents: list[tuple[GPA, GPA]] = []
        """The guest-physical pieces [start, end) in which the table lies, one a page."""
        self._known: list[int] = []
        """The guest's descriptors as they were copied last."""
        self._levels: list[int] = []
        self.version = 0
        """Another number whenever the region's tables have changed: not for a TSS, which they don't have."""

    def is_hit(self, gpa: int, size: int) -> bool:
        """Whether a store (within a page) has changed a byte of the guest's table."""
        return any(start < gpa + size and gpa < end for start, end in self.extents)

    def pieces_in(self, page: GPA) -> int:
        """How many pieces of the guest's table lie in a page: as many as watch it."""
        return sum(start & ~PAGE_MASK == page for start, _ in self.extents)

    def reload(self, *, anew: bool = False, only_stored: bool = False) -> None:
        """The table is elsewhere, or its contents have changed: copy what has changed; ``anew``: everything.

        ``only_stored``: it is where it was.
        """
        base, size = self._place()
        raw = b"" if self._cpu.by_paragraphs else self._cpu.peek_some(base, size)
        raw = raw[: len(raw) & ~7]
        descriptors = [int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8)]
        known, count = self._known, max(len(descriptors), len(self._known))
        self._levels += [-1] * (count - len(self._levels))
        for index in range(1, count):
            descriptor = descriptors[index] if index < len(descriptors) else 0
            before = known[index] if index < len(known) else 0
            if anew or before != descriptor:
                selector = index * 8
                views = kernel, user = _in_views(selector, descriptor)
                self.region.set_guest_descriptor(index, kernel=kernel, user=user)
                self._levels[index] = _level(selector, descriptor)
                if anew or views != _in_views(selector, before):
                    self.version += 1
        self._known = descriptors
        if not only_stored:
            self._watch(base, size)

    def level_of(self, index: int) -> int:
        """The highest privilege level, CPL or RPL, from which this descriptor can be loaded as data.

        -1 if from none, or if the region's tables don't have it.
        """
        return self._levels[index] if index < len(self._levels) else -1

    def gives(self, segment: Segment) -> bool:
        """Whether a load of its selector, which is one of the GDT, would give this segment now: it may have changed."""
        index = segment.selector >> 3
        descriptor = self._known[index] if index < len(self._known) else 0
        return bool(_in_views(index * 8, descriptor)[0]) and decode_descriptor(segment.selector, descriptor) == segment

    def is_elsewhere(self, mode: PagingMode, view: View) -> bool:
        """Whether another place is mapped where the table is than when it was copied: by these tables of the guest's,
        of which this is a view."""
        base, size = self._place()
        pages = range(base & ~PAGE_MASK, base + size, PAGE_SIZE)
        if len(pages) == len(self.extents):
            to_host = self._cpu.memory.to_host
            frames = (to_host(start & ~PAGE_MASK) for start, _ in self.extents)
            entries = (view.get(page) for page in pages)
            if all(entry & MIRRORED and entry & ADDRESS == frame for entry, frame in zip(entries, frames, strict=True)):
                return False
        return self._pieces(base, size, mode) != self.extents

    def covers(self, linear: int) -> bool:
        """Whether some of the table is in the page of this GVA."""
        base, size = self._place()
        return base & ~PAGE_MASK <= linear < base + size

    def _place(self) -> tuple[int, int]:
        """GVA and size, as far as it is followed."""
        table = self._cpu.gdtr
        return table.base, min(table.limit, self.region.layout.guest_gdt_limit) + 1

    def _pieces(self, base: int, size: int, mode: PagingMode) -> list[tuple[GPA, GPA]]:
        extents: list[tuple[GPA, GPA]] = []
        memory = self._cpu.memory
        for page in range(base & ~PAGE_MASK, base + size, PAGE_SIZE):
            found = walk(mode, memory.read_entry, page)
            if found.physical is not None and memory.read_entry(found.physical, 8) is not None:
                first, end = max(page, base), min(page + PAGE_SIZE, base + size)
                extents.append((GPA(found.physical + first - page), GPA(found.physical + end - page)))
        return extents

    def _watch(self, base: int, size: int) -> None:
        extents = self._pieces(base, size, self._cpu.paging_mode)
        if extents == self.extents:
            return
        for start, _ in extents:
            self._monitor.watch(start)
        for start, _ in self.extents:
            self._monitor.unwatch(start)
        self.extents = extents


def _level(selector: int, descriptor: int) -> int:
    kernel, _ = _in_views(selector, descriptor)
    segment = decode_descriptor(selector, descriptor)
    if not kernel or not segment.is_readable:
        return -1
    return 3 if segment.is_conforming else segment.dpl


def _in_views(selector: int, descriptor: int) -> tuple[int, int]:
    """(kernel view's, user view's) form of a guest descriptor."""
    segment = decode_descriptor(selector, descriptor)
    if segment.is_system or not segment.attributes & ACCESSED or not segment.attributes & PRESENT:
        return 0, 0
    return encode_descriptor(segment.with_dpl(3)), encode_descriptor(segment)
