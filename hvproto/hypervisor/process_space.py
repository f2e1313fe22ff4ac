"""What a process of the host has mapped for the guest that lives in it (plan `application`).

There is no mirror: the processor walks the host's page table, and a page of the guest gets into it by a system call of
the emulation program. It gets there when the guest first touches it, with the rights that the guest's own tables give,
and leaves when these no longer hold. Pages that a mapping depends on, the guest's page tables, are read-only in the
process: a store to one is let through as a single step, and what it has changed is looked at afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from hvproto.addresses import GPA, GVA, PAGE_MASK, PAGE_SIZE
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.processor.paging import A, Access, D, PagingMode, Walk, accessed_bits, fault_code, walk

NOTHING = 0xFFFF_FFFF
"""Instead of an offset: a range is to be unmapped."""
WRITABLE = 2
_K = TypeVar("_K", bound=int)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A system call that the emulation program is to make: linear address, offset in the guest's memory | WRITABLE or
    NOTHING, size in bytes."""

    address: GVA
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Store:
    """What a single step has changed in a page table: guest-physical address, size in bytes, the new value."""

    gpa: GPA
    size: int
    value: int


@dataclass(slots=True)
class _Page:
    gpa: GPA
    writable: bool
    user: bool
    """Whether programs of the guest have the same rights as its kernel."""
    entries: tuple[int, ...]
    """Guest-physical addresses of the entries that it depends on."""
    large: bool


class ProcessSpace:
    """The guest's pages in its process, by linear address."""

    def __init__(self, memory: GuestMemory, cpu: VirtualCpu) -> None:
        self._memory = memory
        self._cpu = cpu
        self._pages: dict[GVA, _Page] = {}
        self._present: dict[GVA, tuple[GPA, bool]] = {}
        self._to_do: set[GVA] = set()
        self._dependants: dict[int, set[GVA]] = {}
        self._shown: dict[GPA, set[GVA]] = {}
        self._entries_in: dict[GPA, int] = {}
        self._open: dict[GPA, bytes] = {}

    def __contains__(self, linear: int) -> bool:
        """Whether the process has a page of the guest's there now."""
        return linear & ~PAGE_MASK in self._present

    def gpa(self, linear: int) -> GPA | None:
        """The guest-physical page that the process has at a linear address now."""
        present = self._present.get(GVA(linear & ~PAGE_MASK))
        return None if present is None else present[0]

    def is_table(self, gpa: int) -> bool:
        """Whether a mapping depends on this guest-physical page."""
        return gpa & ~PAGE_MASK in self._entries_in

    @property
    def tables_are_open(self) -> bool:
        """Whether the guest is in the middle of a store to a page table."""
        return bool(self._open)

    # -- coming and going --------------------------------------------------------------------

    def admit(self, linear: int, access: Access) -> None:
        """The guest may do this, A and D are set: have the page mapped. A page table that is stored to is opened."""
        page = GVA(linear & ~PAGE_MASK)
        self._drop(page)
        self._put(page, self._walk(page))
        gpa = self._pages[page].gpa
        if access is Access.WRITE and self.is_table(gpa):
            self._open.setdefault(gpa, self._memory.read(gpa, PAGE_SIZE) or b"")
            self._pages[page].writable = True

    def close_tables(self) -> list[Store]:
        """The single step is over: what it has changed in page tables, in order of address."""
        stores = []
        opened, self._open = self._open, {}
        for gpa, before in sorted(opened.items()):
            after = self._memory.read(gpa, PAGE_SIZE) or b""
            size = self._entry_size()
            for at in range(0, PAGE_SIZE, size):
                if before[at : at + size] != after[at : at + size]:
                    stores.append(Store(GPA(gpa + at), size, int.from_bytes(after[at : at + size], "little")))
            self._close(gpa)
        for store in stores:
            self.forget_entries(store.gpa, store.size)
        return stores

    def forget_entries(self, gpa: int, size: int) -> None:
        """Page-table entries have changed: what depends on them goes."""
        if not self.is_table(gpa):
            return
        entry_size = self._entry_size()
        for entry in range(gpa & -entry_size, gpa + size, entry_size):
            for page in sorted(self._dependants.get(entry, ())):
                self._drop(page)

    def note_bits(self, gpa: int) -> None:
        """A or D was set in an entry, by us: that is no store of the guest's."""
        opened = self._open.get(GPA(gpa & ~PAGE_MASK))
        if opened is not None:
            marked = bytearray(opened)
            marked[gpa & PAGE_MASK] |= (self._memory.read_entry(gpa, 1) or 0) & (A | D)
            self._open[GPA(gpa & ~PAGE_MASK)] = bytes(marked)

    def invalidate(self, linear: int) -> None:
        """INVLPG: A and D are to be set anew."""
        page = self._pages.get(GVA(linear & ~PAGE_MASK))
        if page is not None:
            alike = self._dependants[page.entries[-1]] if page.large else {GVA(linear & ~PAGE_MASK)}
            for other in sorted(alike):
                self._drop(other)

    def leave_kernel(self) -> None:
        """The guest goes on as a program: what only its kernel may touch goes."""
        for linear in [linear for linear, page in self._pages.items() if not page.user]:
            self._drop(linear)

    def revalidate(self) -> None:
        """The guest has loaded a register that paging depends on: what no longer holds goes, as from a TLB."""
        pages, self._pages = self._pages, {}
        self._dependants.clear()
        self._shown.clear()
        self._entries_in.clear()
        mode, user = self._cpu.paging_mode, self._cpu.cpl == 3
        for linear, page in pages.items():
            access = Access.WRITE if page.writable else Access.READ
            found = walk(mode, self._memory.read_entry, linear)
            holds = fault_code(mode, found, access, user=user) is None and not accessed_bits(mode, found, access)
            if holds and found.physical is not None and found.physical & ~PAGE_MASK == page.gpa:
                self._put(linear, found)
            else:
                self._to_do.add(linear)

    def mappings(self) -> list[Mapping]:
        """The system calls, in order of address, that bring the process to what is wanted; taken as made."""
        calls: list[Mapping] = []
        for linear in sorted(self._to_do):
            page = self._pages.get(linear)
            wanted = None if page is None else (page.gpa, page.writable)
            if wanted == self._present.get(linear):
                continue
            if wanted is None:
                del self._present[linear]
                offset = NOTHING
            else:
                self._present[linear] = wanted
                offset = wanted[0] | (WRITABLE if wanted[1] else 0)
            last = calls[-1] if calls else None
            if last is not None and last.address + last.size == linear and _continues(last, offset):
                calls[-1] = Mapping(last.address, last.offset, last.size + PAGE_SIZE)
            else:
                calls.append(Mapping(linear, offset, PAGE_SIZE))
        self._to_do.clear()
        return calls

    # -- one page ----------------------------------------------------------------------------

    def _walk(self, linear: GVA) -> Walk:
        return walk(self._cpu.paging_mode, self._memory.read_entry, linear)

    def _entry_size(self) -> int:
        form = self._cpu.paging_mode.format
        return 4 if form is None else form.entry_size

    def _put(self, linear: GVA, found: Walk) -> None:
        assert found.physical is not None
        mode = self._cpu.paging_mode
        gpa = GPA(found.physical & ~PAGE_MASK)
        entries = tuple(dict.fromkeys(step.address for step in found.steps))  # a directory may be its own table
        for entry in entries:
            self._depend(linear, entry)
        # It becomes writable with the first store, which sets D.
        dirty = not accessed_bits(mode, found, Access.WRITE)
        user = self._cpu.cpl == 3
        may = fault_code(mode, found, Access.WRITE, user=user) is None
        writable = dirty and may and not self.is_table(gpa)
        self._pages[linear] = _Page(gpa, writable, _is_for_programs(mode, found, writable), entries,
                                    found.page_size > PAGE_SIZE)  # fmt: skip
        self._shown.setdefault(gpa, set()).add(linear)
        self._to_do.add(linear)

    def _depend(self, linear: GVA, entry: int) -> None:
        dependants = self._dependants.setdefault(entry, set())
        if not dependants:
            table = GPA(entry & ~PAGE_MASK)
            self._entries_in[table] = self._entries_in.get(table, 0) + 1
            if self._entries_in[table] == 1 and table not in self._open:
                self._close(table)
        dependants.add(linear)

    def _close(self, gpa: GPA) -> None:
        """No page of the process shows this guest-physical page writable any more."""
        for linear in self._shown.get(gpa, ()):
            self._pages[linear].writable = False
            self._to_do.add(linear)

    def _drop(self, linear: GVA) -> None:
        page = self._pages.pop(linear, None)
        if page is None:
            return
        self._to_do.add(linear)
        _discard(self._shown, page.gpa, linear)
        for entry in page.entries:
            if _discard(self._dependants, entry, linear):
                table = GPA(entry & ~PAGE_MASK)
                self._entries_in[table] -= 1
                if not self._entries_in[table]:
                    del self._entries_in[table]


def _is_for_programs(mode: PagingMode, found: Walk, writable: bool) -> bool:
    return fault_code(mode, found, Access.WRITE if writable else Access.READ, user=True) is None


def _continues(last: Mapping, offset: int) -> bool:
    """Whether the next page is mapped as one call with the pages before it."""
    return offset == NOTHING if last.offset == NOTHING else offset == last.offset + last.size


def _discard(sets: dict[_K, set[GVA]], key: _K, linear: GVA) -> bool:
    """Take an element from one of the sets; True if that set is empty now, and gone."""
    found = sets[key]
    found.discard(linear)
    if not found:
        del sets[key]
    return not found
