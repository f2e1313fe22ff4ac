"""Linear and physical memory of a processor whose RAM Python owns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol, overload

from hvproto.addresses import PAGE_SIZE, page_offset
from hvproto.processor.engine import UnmappedAccess
from hvproto.processor.exceptions import Raised
from hvproto.processor.long_mode import is_canonical
from hvproto.processor.paging import Access, PagingMode, Walk, accessed_bits, fault_code, walk
from hvproto.processor.settings import EFER_LMA

_LINEAR_32 = 0xFFFF_FFFF
_LINEAR_64 = 0xFFFF_FFFF_FFFF_FFFF


class PhysicalMemory(Protocol):
    """Bytes by physical address: a memoryview, or something that puts a guest's scattered memory together.

    What slices and indices beyond the length do is undefined: `LinearMemory` asks for none.
    """

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, place: int, /) -> int: ...
    @overload
    def __getitem__(self, place: slice, /) -> Any: ...
    @overload
    def __setitem__(self, place: slice, value: bytes, /) -> None: ...
    @overload
    def __setitem__(self, place: int, value: int, /) -> None: ...


class Behind(Protocol):
    """What answers, in accesses of 1, 2 or 4 bytes, at the physical addresses that are no RAM's."""

    def read(self, address: int, size: int) -> int: ...
    def write(self, address: int, size: int, value: int) -> None: ...


class LinearMemory(ABC):
    """Memory as the page tables in CR3 map it. Sizes are in bytes, integers little endian.

    Addresses are *linear* unless the name says physical; they wrap at 4 GiB outside long mode.
    """

    ram: PhysicalMemory
    behind: Behind | None = None
    """Devices, or whoever speaks for nobody; None: accesses behind RAM raise `UnmappedAccess`."""

    @property
    @abstractmethod
    def paging_mode(self) -> PagingMode:
        """The control registers as they are now."""

    # -- physical ----------------------------------------------------------------------------

    def read_physical(self, physical: int, size: int) -> int | None:
        """An integer from RAM, as a page walk reads it; None where there is none, all ones if something is behind."""
        if physical + size > len(self.ram):
            return None if self.behind is None else (1 << 8 * size) - 1
        return int.from_bytes(self.ram[physical : physical + size], "little")

    def write_physical(self, physical: int, size: int, value: int) -> None:
        self.ram[physical : physical + size] = value.to_bytes(size, "little")

    # -- linear ------------------------------------------------------------------------------

    def walk(self, linear: int) -> Walk:
        """What the page tables now in CR3 say of a linear address; changes nothing."""
        return walk(self.paging_mode, self.read_physical, linear)

    def translate(self, linear: int, access: Access, *, user: bool = False, mode: PagingMode | None = None) -> int:
        """The physical address for an access, A and D bits set as by the processor.

        ``mode`` is what `paging_mode` gave, for a caller with many addresses. Raises `Raised` (a
        page fault, or #GP(0) for an address that isn't canonical) or `UnmappedAccess`.
        """
        physical = self.resolve(linear, access, user=user, mode=mode or self.paging_mode)
        if not self.has_ram(physical):
            raise UnmappedAccess("instruction fetch" if access is Access.FETCH else access.name.lower(), physical)
        return physical

    def resolve(self, linear: int, access: Access, *, user: bool, mode: PagingMode) -> int:
        """The same wherever it leads to, whether there is RAM or not. Raises `Raised`."""
        if mode.efer & EFER_LMA and not is_canonical(linear):
            raise Raised(13, 0)
        found = walk(mode, self.read_physical, linear)
        error = fault_code(mode, found, access, user=user)
        if error is not None or found.physical is None:
            raise Raised(14, error, linear)
        updates = accessed_bits(mode, found, access)
        for address, bits in updates:
            self.mark_entry(address, bits)
        if updates:
            self.entries_marked(linear)
        return found.physical

    def has_ram(self, physical: int) -> bool:
        """Whether there is RAM at a physical address."""
        return physical < len(self.ram)

    def mark_entry(self, physical: int, bits: int) -> None:
        """Set A and D bits in a table's entry."""
        self.ram[physical] |= bits

    def entries_marked(self, linear: int) -> None:  # noqa: B027 - for who keeps copies of the tables
        """Called after A or D bits have been set in the tables that map a linear address."""

    def read_bytes(self, linear: int, size: int, *, user: bool = False) -> bytes:
        """Bytes from linear memory, at supervisor level unless ``user``.

        Raises `Raised` (a page fault, or #GP(0) for an address that isn't canonical) and `UnmappedAccess`.
        """
        return b"".join(self._load(at, n) for at, n in self._pieces(linear, size, Access.READ, user))

    def write_bytes(self, linear: int, data: bytes, *, user: bool = False) -> None:
        """Bytes to linear memory, at supervisor level unless ``user``; nothing is written if any page faults."""
        done = 0
        for at, n in self._pieces(linear, len(data), Access.WRITE, user):
            self._store(at, data[done : done + n])
            done += n

    def check_writable(self, linear: int, size: int, *, user: bool = False) -> None:
        """Raises what `write_bytes` would for so many bytes; A and D bits are set as by it."""
        self._pieces(linear, size, Access.WRITE, user)

    def _pieces(self, linear: int, size: int, access: Access, user: bool) -> list[tuple[int, int]]:
        mode = self.paging_mode
        mask = linear_mask(mode)
        pieces = []
        while size > 0:
            n = min(size, PAGE_SIZE - page_offset(linear))
            pieces.append((self._reach(linear, access, user, mode), n))
            linear = linear + n & mask
            size -= n
        return pieces

    def _reach(self, linear: int, access: Access, user: bool, mode: PagingMode) -> int:
        """Where bytes that are read or written lie: in RAM, or behind it if something is there."""
        if self.behind is None:
            return self.translate(linear, access, user=user, mode=mode)
        return self.resolve(linear, access, user=user, mode=mode)

    def _load(self, physical: int, size: int) -> bytes:
        """Bytes within a page of what `_reach` has found."""
        if self.behind is None or self.has_ram(physical):
            return bytes(self.ram[physical : physical + size])
        return b"".join(self.behind.read(at, n).to_bytes(n, "little") for at, n in _transfers(physical, size))

    def _store(self, physical: int, data: bytes) -> None:
        if self.behind is None or self.has_ram(physical):
            self.ram[physical : physical + len(data)] = data
            return
        for at, n in _transfers(physical, len(data)):
            self.behind.write(at, n, int.from_bytes(data[at - physical : at - physical + n], "little"))

    def read(self, linear: int, size: int, *, user: bool = False) -> int:
        """An integer from linear memory, as `read_bytes` reads."""
        return int.from_bytes(self.read_bytes(linear, size, user=user), "little")

    def write(self, linear: int, size: int, value: int, *, user: bool = False) -> None:
        """An integer to linear memory, as `write_bytes` writes."""
        self.write_bytes(linear, value.to_bytes(size, "little"), user=user)

    def peek(self, linear: int, size: int) -> bytes | None:
        """Bytes of linear memory without any effect; None if some of it isn't mapped to RAM."""
        out = b"".join(self._mapped(linear, size))
        return out if len(out) == size else None

    def peek_some(self, linear: int, size: int) -> bytes:
        """As many of these bytes, from the first on, as are mapped to RAM; without any effect."""
        return b"".join(self._mapped(linear, size))

    def _mapped(self, linear: int, size: int) -> list[bytes]:
        mode = self.paging_mode
        pieces: list[bytes] = []
        while size > 0:
            found = walk(mode, self.read_physical, linear)
            n = min(size, PAGE_SIZE - page_offset(linear))
            if found.physical is None or found.physical + n > len(self.ram):
                break
            pieces.append(bytes(self.ram[found.physical : found.physical + n]))
            linear, size = linear + n & linear_mask(mode), size - n
        return pieces


def _transfers(physical: int, size: int) -> Iterator[tuple[int, int]]:
    """(address, size) of the accesses that a device sees: of 4 bytes, then of 2 and 1."""
    while size:
        n = 4 if size >= 4 else 2 if size >= 2 else 1
        yield physical, n
        physical, size = physical + n, size - n


def linear_mask(mode: PagingMode) -> int:
    """Where linear addresses wrap."""
    return _LINEAR_64 if mode.efer & EFER_LMA else _LINEAR_32
