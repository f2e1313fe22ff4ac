"""Physical addresses behind RAM: pages at which a device answers, and the rest, where nobody does.

As on a PC, a read that nobody answers gives all ones, and a write goes nowhere; both are counted. Code can't be fetched
from here: it would be all ones, too, and a jump to nowhere is better seen where it happens.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Protocol

from hvproto.addresses import PAGE_SIZE
from hvproto.errors import MachineError
from hvproto.processor.engine import Engine
from hvproto.processor.paging import PHYSICAL_BITS

MOST_PAGES = 1024
"""Of so many pages and directions the accesses are counted one by one: a kernel may probe all of 4 GiB."""


class MemoryDevice(Protocol):
    """What answers at pages of physical memory: accesses of 1, 2 or 4 bytes (longer ones come in pieces)."""

    def read_mmio(self, offset: int, size: int) -> int: ...
    def write_mmio(self, offset: int, size: int, value: int) -> None: ...


class PhysicalSpace:
    """All addresses from ``ram_size`` to the processor's 2^40.

    ``after_access`` is called after each access to a device, which may have planned something.
    """

    def __init__(self, engine: Engine | None, ram_size: int, after_access: Callable[[], None]) -> None:
        """Without an engine it is that of a hosted guest, and answers what is diverted to it."""
        self.unclaimed: dict[tuple[str, int], int] = {}
        """By ("read" or "write", address of the page): how often nobody answered."""
        self.unclaimed_elsewhere = 0
        """The same on all pages that came after the first `MOST_PAGES`."""
        self._ram_size = ram_size
        self._after_access = after_access
        self._pages: dict[int, tuple[MemoryDevice, int]] = {}  # by the page's address: device, offset in it
        self._published: tuple[MemoryDevice, int, int] | None = None
        self._window = 1 << PHYSICAL_BITS
        self._diverted: PhysicalSpace | None = None
        self._engine: Engine | None = None
        if engine is not None:
            self._engine = weakref.proxy(engine)  # it holds us
            engine.map_mmio(ram_size, (1 << PHYSICAL_BITS) - ram_size, self._read_behind, self._write_behind)

    def divert(self, window: int, space: PhysicalSpace | None) -> None:
        """Have another space answer at ``window`` and above, where its own address 0 is; None: nobody any more."""
        self._window, self._diverted = window, space
        self._publish()

    def attach(self, device: MemoryDevice, base: int, size: int = PAGE_SIZE) -> None:
        """Let ``device`` answer at whole pages. Raises MachineError if RAM or a device is there already."""
        pages = range(base, base + size, PAGE_SIZE)
        for page in pages:
            if page < self._ram_size or page in self._pages:
                raise MachineError(f"{type(device).__name__} can't be at {base:#x}: something else is at {page:#x}")
        for page in pages:
            self._pages[page] = device, page - base
        self._publish()

    def detach(self, device: MemoryDevice) -> None:
        """It answers nowhere any more."""
        self._pages = {page: found for page, found in self._pages.items() if found[0] is not device}
        self._publish()

    def publish(self, device: MemoryDevice, offset: int, value: int) -> None:
        """Loads of 4 bytes at this offset need not ask the device, wherever it is: they give ``value`` until told anew.

        There is one such register in all.
        """
        self._published = device, offset, value
        self._publish()

    def _publish(self) -> None:
        if self._engine is None:
            return
        address, value = self._published_at()
        if self._diverted is not None:
            address, value = self._diverted._published_at()
            address = None if address is None else address + self._window
        self._engine.answer_quickly(address, value)

    def _published_at(self) -> tuple[int | None, int]:
        if self._published is None:
            return None, 0
        device, offset, value = self._published
        pages = self._pages.items()
        here = (page + offset - at for page, (one, at) in pages if one is device and 0 <= offset - at < PAGE_SIZE)
        return next(here, None), value

    def _read_behind(self, offset: int, size: int) -> int:
        return self.read(self._ram_size + offset, size)

    def _write_behind(self, offset: int, size: int, value: int) -> None:
        self.write(self._ram_size + offset, size, value)

    def read(self, address: int, size: int) -> int:
        """What a load of 1, 2 or 4 bytes finds at an address behind RAM."""
        if self._diverted is not None and address >= self._window:
            return self._diverted.read(address - self._window, size)
        page = address & ~(PAGE_SIZE - 1)
        found = self._pages.get(page)
        if found is None:
            self._count("read", page)
            return (1 << 8 * size) - 1
        device, at = found
        return device.read_mmio(at + address - page, size)

    def write(self, address: int, size: int, value: int) -> None:
        """A store there."""
        if self._diverted is not None and address >= self._window:
            self._diverted.write(address - self._window, size, value)
            return
        page = address & ~(PAGE_SIZE - 1)
        found = self._pages.get(page)
        if found is None:
            self._count("write", page)
            return
        device, at = found
        device.write_mmio(at + address - page, size, value)
        self._after_access()

    def _count(self, direction: str, page: int) -> None:
        if (direction, page) in self.unclaimed or len(self.unclaimed) < MOST_PAGES:
            self.unclaimed[direction, page] = self.unclaimed.get((direction, page), 0) + 1
        else:
            self.unclaimed_elsewhere += 1
