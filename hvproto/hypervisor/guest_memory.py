"""A guest's physical memory, wherever in the host's RAM its pages lie."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from hvproto.addresses import GPA, HPA, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from hvproto.hypervisor.ram_arrays import Entries32, Entries64, Numbers, rows32, rows64, runs

HERE = 1 << 0
"""In what `GuestMemory.lookup` answers: something is there."""
DEVICE = 1 << 1
"""In what `GuestMemory.lookup` answers: it is a device's window, not memory."""
CHUNK_SHIFT = 9
"""`GuestMemory.chunks` goes by 512 pages: what one page table of the mirror maps."""
HIGHEST_PAGE = (1 << 52 - PAGE_SHIFT) - 1


class GuestMemory:
    """Guest-physical memory over host frames, which may be scattered, with holes.

    ``frames[n]`` is the HPA of guest-physical page n, None where a hole is. ``on_write`` hears of every store that
    the hypervisor itself makes for the guest, so that table pages are followed there too. What is added (`add_memory`,
    `add_device`) must be added before a mirror is made.
    """

    def __init__(self, ram: memoryview, frames: Sequence[HPA | None]) -> None:
        self._ram = ram
        self._ram_size = len(ram)
        self._rows32, self._rows64 = rows32(ram), rows64(ram)
        self._frames = list(frames)
        self.version = 0
        """Another number whenever there is something at an address where nothing was."""
        self._elsewhere: dict[int, HPA] = {}
        """By page number: memory beyond ``frames``, and the windows of devices."""
        self._pages = {frame: number for number, frame in enumerate(self._frames) if frame is not None}
        here = [0 if frame is None else frame | HERE for frame in self._frames]
        self._low: Entries64 = np.array([*here, 0], np.uint64)
        self._keys: list[int] = []
        self._sparse_pages: Numbers = np.empty(0, np.int64)
        self._sparse: Entries64 = np.empty(0, np.uint64)
        self.on_write: Callable[[GPA, int], None] | None = None
        self.on_bits: Callable[[GPA], None] | None = None
        """Hears of an entry in which A or D was set."""

    def add_memory(self, gpa_page: int, frame: HPA) -> None:
        """One more page of memory, anywhere below 2^52. Raises ValueError where there is something already."""
        if frame + PAGE_SIZE > self._ram_size:
            raise ValueError(f"no host RAM at {frame:#x}")
        self._add(gpa_page, frame)

    def add_device(self, gpa_page: int, hpa: HPA) -> None:
        """A page that a device answers for, behind a window of the host's at an HPA beyond its RAM.

        The mirror maps it, never to be executed; it holds no page table, and Python reads and writes nothing there.
        Raises ValueError if the HPA is in RAM, or where there is something already.
        """
        if hpa < self._ram_size:
            raise ValueError(f"{hpa:#x} is in the host's RAM, no device's window")
        self._add(gpa_page, hpa)

    def _add(self, gpa_page: int, hpa: HPA) -> None:
        number = gpa_page >> PAGE_SHIFT
        if gpa_page & PAGE_MASK or hpa & PAGE_MASK or not 0 <= number <= HIGHEST_PAGE:
            raise ValueError(f"GPA {gpa_page:#x}, HPA {hpa:#x}: not both pages, or beyond 2^52")
        if self.to_host(gpa_page) is not None:
            raise ValueError(f"there is something at GPA {gpa_page:#x} already")
        self._pages[hpa] = number
        self.version += 1
        if number < len(self._frames):
            self._frames[number] = hpa
            self._low[number] = self._marked(hpa)
            return
        self._elsewhere[number] = hpa
        self._keys = sorted(self._elsewhere)
        self._sparse_pages = np.array(self._keys, np.int64)
        self._sparse = np.array([self._marked(self._elsewhere[key]) for key in self._keys], np.uint64)

    def _marked(self, hpa: HPA) -> int:
        return hpa | HERE | (DEVICE if hpa >= self._ram_size else 0)

    @property
    def size(self) -> int:
        """Bytes of guest-physical memory from GPA 0, without what was added beyond them."""
        return len(self._frames) << PAGE_SHIFT

    @property
    def frames(self) -> Sequence[HPA]:
        """The HPAs of the pages from GPA 0, in order, holes left out."""
        return [frame for frame in self._frames if frame is not None]

    @property
    def windows(self) -> tuple[int, ...]:
        """The GPAs of the pages that devices answer for, in order."""
        return tuple(sorted(number << PAGE_SHIFT for frame, number in self._pages.items() if frame >= self._ram_size))

    @property
    def is_identity(self) -> bool:
        """Whether every GPA is the same HPA."""
        pages = (*enumerate(self._frames), *self._elsewhere.items())
        return all(frame == number << PAGE_SHIFT for number, frame in pages if frame is not None)

    # -- where it lies -----------------------------------------------------------------------

    def to_host(self, gpa: int) -> HPA | None:
        """The HPA of a guest-physical address, or None where the guest has neither memory nor a device."""
        number = gpa >> PAGE_SHIFT
        frame = self._frames[number] if 0 <= number < len(self._frames) else self._elsewhere.get(number)
        return None if frame is None else HPA(frame | gpa & PAGE_MASK)

    def to_guest(self, hpa: int) -> GPA | None:
        """The GPA that lies at a host-physical address, or None if that isn't the guest's."""
        number = self._pages.get(HPA(hpa & ~PAGE_MASK))
        return None if number is None else GPA(number << PAGE_SHIFT | hpa & PAGE_MASK)

    def is_ram(self, gpa: int) -> bool:
        """Whether there is memory, rather than a device or nothing."""
        hpa = self.to_host(gpa)
        return hpa is not None and hpa < self._ram_size

    def lookup(self, numbers: Numbers) -> Entries64:
        """For each page number: HPA of its frame | HERE (| DEVICE); 0 where there is nothing."""
        found: Entries64 = self._low.take(numbers, mode="clip")
        if self._keys:
            beyond = numbers >= len(self._frames)
            if beyond.any():
                wanted = numbers[beyond]
                at = np.searchsorted(self._sparse_pages, wanted).clip(max=len(self._keys) - 1)
                found[beyond] = np.where(self._sparse_pages[at] == wanted, self._sparse[at], np.uint64(0))
        return found

    @property
    def low_frames(self) -> tuple[int, int]:
        """The address, in our own memory, of what `lookup` answers for the pages from GPA 0, and how many they are."""
        return self._low.ctypes.data, len(self._frames)

    def chunks(self, first: int, end: int) -> Iterator[int]:
        """The first page numbers of the aligned 512-page pieces of [first, end) in which there is anything."""
        low_end = len(self._frames)
        past = first
        for chunk in range(first >> CHUNK_SHIFT << CHUNK_SHIFT, min(end, low_end), 1 << CHUNK_SHIFT):
            yield chunk
            past = chunk + (1 << CHUNK_SHIFT)
        at = bisect_left(self._keys, past)
        while at < len(self._keys) and self._keys[at] < end:
            chunk = self._keys[at] >> CHUNK_SHIFT << CHUNK_SHIFT
            yield chunk
            at = bisect_left(self._keys, chunk + (1 << CHUNK_SHIFT))

    def runs(self, end: int) -> list[tuple[int, int]]:
        """The (first, end) page numbers of what there is below a page number, in order."""
        found = runs(self._low[: min(end, len(self._frames))] != 0)
        for key in self._keys:
            if key >= end:
                break
            if found and found[-1][1] == key:
                found[-1] = found[-1][0], key + 1
            else:
                found.append((key, key + 1))
        return found

    # -- what it holds -----------------------------------------------------------------------

    def read_entry(self, gpa: int, size: int) -> int | None:
        """An integer that doesn't cross a page; None where there is no memory."""
        number = gpa >> PAGE_SHIFT
        frame = self._frames[number] if 0 <= number < len(self._frames) else self._elsewhere.get(number)
        if frame is None or frame >= self._ram_size:
            return None
        at = frame | gpa & PAGE_MASK
        return int.from_bytes(self._ram[at : at + size], "little")

    def table(self, gpa: int, count: int, entry_size: int) -> Entries32 | Entries64 | None:
        """The ``count`` entries of a page table within one page, as they are in RAM; None where there is no memory."""
        hpa = self.to_host(gpa)
        if hpa is None or hpa >= self._ram_size:
            return None
        at = (hpa & PAGE_MASK) // entry_size
        if entry_size == 8:
            return self._rows64[hpa >> PAGE_SHIFT, at : at + count]
        return self._rows32[hpa >> PAGE_SHIFT, at : at + count]

    def tables(self, gpas: Sequence[int], entry_size: int) -> Entries32 | Entries64:
        """A copy of many page-sized tables, a row each; all of them must be in memory."""
        numbers = np.array([(self.to_host(gpa) or 0) >> PAGE_SHIFT for gpa in gpas], np.int64)
        return self._rows64[numbers] if entry_size == 8 else self._rows32[numbers]

    def read(self, gpa: int, size: int) -> bytes | None:
        """Bytes; None if some of them are nowhere, or a device's."""
        pieces = []
        while size > 0:
            hpa = self.to_host(gpa)
            if hpa is None or hpa >= self._ram_size:
                return None
            n = min(size, PAGE_SIZE - (gpa & PAGE_MASK))
            pieces.append(self._ram[hpa : hpa + n])
            gpa, size = gpa + n, size - n
        return b"".join(pieces)

    def write(self, gpa: int, data: bytes) -> bool:
        """Store bytes as the guest would; False if some would be nowhere or a device's (nothing is stored)."""
        if not all(self.is_ram(page) for page in range(gpa & ~PAGE_MASK, gpa + len(data), PAGE_SIZE)):
            return False
        while data:
            hpa = self.to_host(gpa)
            assert hpa is not None
            n = min(len(data), PAGE_SIZE - (gpa & PAGE_MASK))
            self._ram[hpa : hpa + n] = data[:n]
            if self.on_write is not None:
                self.on_write(GPA(gpa), n)
            gpa, data = gpa + n, data[n:]
        return True

    def set_bits(self, gpa: int, bits: int) -> None:
        """OR bits into the low byte of an entry: the processor's A and D updates."""
        hpa = self.to_host(gpa)
        assert hpa is not None
        self._ram[hpa] |= bits
        if self.on_bits is not None:
            self.on_bits(GPA(gpa))
