"""The code of a mirrored guest: traps in what its address spaces execute, and what becomes of stores to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hvproto.addresses import GPA, GVA, HPA, PAGE_MASK, PAGE_SIZE
from hvproto.hypervisor.code import CodeWatch, Place
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.monitor import TableStore
from hvproto.hypervisor.sensitive import Decoder
from hvproto.hypervisor.view import ADDRESS
from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.processor.engine import UnmappedAccess
from hvproto.processor.exceptions import Raised
from hvproto.processor.paging import NX, Access, P
from hvproto.processor.processor import Processor

if TYPE_CHECKING:
    from hvproto.hypervisor.address_space import AddressSpace


class ExecutedCode:
    """Of one guest."""

    def __init__(
        self, space: AddressSpace, processor: Processor, memory: GuestMemory, cpu: VirtualCpu, decoder: Decoder
    ) -> None:
        self._space = space
        self._processor = processor
        self._memory = memory
        self._cpu = cpu
        self.watch = CodeWatch(processor, decoder, memory)
        self._at: dict[GVA, GPA | None] = {}
        """What has been executed at a linear address, if it was always the same: a kernel's code, in all spaces."""
        self.marked: list[TableStore] = []
        """A and D bits set in pages that are executed, too, which has to be followed."""

    def is_trap(self, address: int) -> bool:
        """Whether the guest is to stop before the instruction at this linear address."""
        assert self._space.kind is not None
        return self.watch.is_trap(address, self._cpu.peek_some, self._space.kind, kernel=self._space.in_kernel_view)

    def show(self, linear: int, *, user: bool) -> bool:
        """Open a page to fetches that the guest's tables allow, in the midst of a run: False, and nothing done, unless
        it holds what was executed there before, traps and all. Each address space comes to know each page of code."""
        page = GVA(linear & ~PAGE_MASK)
        if self._space.region.contains(page):
            return False
        try:
            at = self._cpu.translate(linear, Access.FETCH, user=user)
        except (Raised, UnmappedAccess):
            return False
        gpa = GPA(at & ~PAGE_MASK)
        content = self._memory.read(gpa, PAGE_SIZE)
        if content is None or not self.watch.is_known(page, gpa, content, kernel=self._space.in_kernel_view):
            return False
        self.look_at(page)
        self._space.mirror.sync_page(page)
        return True

    def look_at(self, linear: GVA) -> None:
        """Find the sensitive instructions of a page of memory that is being executed."""
        page = self._space.mirror.guest_page(linear)
        content = None if page is None else self._memory.read(page.gpa & ~PAGE_MASK, PAGE_SIZE)
        if page is None or content is None:
            return
        gpa = GPA(page.gpa & ~PAGE_MASK)
        if self._at.setdefault(linear, gpa) != gpa:
            self._at[linear] = None
            for mirror in self._space.tables.mirrors:
                # Other code at the same place in another address space must be looked at anew there.
                if mirror.forbid_fetches(linear, except_from=gpa):
                    mirror.sync_page(linear)
        kernel = self._cpu.in_kernel
        if self.watch.look_at(linear, gpa, content, kernel=kernel):
            self._space.monitor.watch(gpa)
            self._space.forget_last_tables()
        self._space.mirror.allow_fetches(linear, gpa, kernel=kernel)

    def follow(self, records: Sequence[TableStore]) -> None:
        """Code that was changed: forget its translation, and find what is sensitive in it now."""
        ranges: dict[GPA, tuple[int, int]] = {}
        for store in records:
            page, offset = GPA(store.gpa & ~PAGE_MASK), store.gpa & PAGE_MASK
            first, end = ranges.get(page, (PAGE_SIZE, 0))
            ranges[page] = min(first, offset), max(end, offset + store.size)
        for page, (first, end) in ranges.items():
            places = self.watch.places(page)
            if places and not any(self._executes(linear, page) for linear, _ in places):
                self._drop(page, places)
                continue
            for linear, kernel in places:
                content = self._memory.read(page, PAGE_SIZE) or b""
                self.watch.look_again(linear, page, content, first, end, kernel=kernel)
                if self._executes(linear, page):
                    self._processor.engine.forget_code(linear + first, end - first)
                else:
                    self._processor.engine.flush_code_wanted = True

    def follow_at_once(self, gpa: GPA, size: int) -> bool:
        """A store in the midst of a run to a page of code, but not to the block that is executed: if no trap changes
        for it, as where programs have their data beside their code, all that is to do is forget translations."""
        page, engine = GPA(gpa & ~PAGE_MASK), self._processor.engine
        if not engine.forgets_in_run or page not in self.watch.pages or self._space.monitor.users(page) != 1:
            return False
        if not any(self._executes(linear, page) for linear, _ in self.watch.pages[page]):
            return False
        frame, content = self._memory.to_host(page), self._memory.read(page, PAGE_SIZE)
        offset = gpa & PAGE_MASK
        if frame is None or content is None or self.is_in_block(gpa, size):
            return False
        if not self.watch.take(page, content, offset, offset + size):
            return False
        engine.forget_code_in(frame + offset, size)
        return True

    def _drop(self, page: GPA, places: Sequence[Place]) -> None:
        """Code of another address space is stored to: as a rule a page that its kernel gives to somebody else.

        To follow each of the stores would take a millisecond and all translations, a thousand times for one page.
        """
        for linear, kernel in places:
            for mirror in self._space.tables.mirrors:
                mirror.close_page(linear, page, kernel=kernel)
        self.watch.drop(page)
        self._space.monitor.unwatch(page)

    def is_in_block(self, gpa: GPA, size: int) -> bool:
        """Whether some of the bytes are code of the basic block that is being executed."""
        first, end = self._processor.engine.last_block
        for page in {first & ~PAGE_MASK, end - 1 & ~PAGE_MASK}:
            entry = self._space.present_view.get(page)
            if entry & P and self._memory.to_guest(HPA(entry & ADDRESS)) == gpa & ~PAGE_MASK:
                linear = page | gpa & PAGE_MASK
                if linear < end and linear + size > first:
                    return True
        return False

    def on_bits(self, gpa: GPA) -> None:
        page = GPA(gpa & ~PAGE_MASK)
        if page in self._space.writes.of_page:
            self._space.writes.mark(gpa)
        if page in self.watch.pages:  # a table that is executed, too
            self.marked.append(TableStore(gpa, 1))

    def _executes(self, linear: GVA, gpa: GPA) -> bool:
        """Whether the address space that is loaded now has this page there, open to fetches.

        To forget the translation of another leaves the traces of a page fault in the engine.
        """
        view = self._space.mirror.kernel if self._space.in_kernel_view else self._space.mirror.user
        entry = view.get(linear)
        return bool(entry & P) and not entry & NX and self._memory.to_host(gpa) == entry & ADDRESS
