"""Linear and physical memory of a processor whose RAM Python owns."""

from __future__ import annotations

from abc import ABC, abstractmethod
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


class LinearMemory(ABC):
    """Memory as the page tables in CR3 map it. Sizes are in bytes, integers little endian.

    Addresses are *linear* unless the name says physical; they wrap at 4 GiB outside long mode.
    """

    ram: PhysicalMemory

    @property
    @abstractmethod
    def paging_mode(self) -> PagingMode:
        """The control registers as they are now."""

    # -- physical ----------------------------------------------------------------------------

    def read_physical(self, physical: int, size: int) -> int | None:
        """An integer from RAM, or None where there is none."""
        if physical + size > len(self.ram):
            return None
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
        mode = mode or self.paging_mode
        if mode.efer & EFER_LMA and not is_canonical(linear):
            raise Raised(13, 0)
        found = walk(mode, self.read_physical, linear)
        error = fault_code(mode, found, access, user=user)
        if error is not None or found.physical is None:
            raise Raised(14, error, linear)
        updates = accessed_bits(mode, found, access)
        for address, bits in updates:
            self.ram[address] |= bits
        if updates:
            self.entries_marked(linear)
        if found.physical >= len(self.ram):
            raise UnmappedAccess("instruction fetch" if access is Access.FETCH else access.name.lower(), found.physical)
        return found.physical

    def entries_marked(self, linear: int) -> None:  # noqa: B027 - for who keeps copies of the tables
        """Called after A or D bits have been set in the tables that map a linear address."""

    def read_bytes(self, linear: int, size: int, *, user: bool = False) -> bytes:
        """Bytes from linear memory, at supervisor level unless ``user``.

        Raises `Raised` (a page fault, or #GP(0) for an address that isn't canonical) and `UnmappedAccess`.
        """
        return b"".join(bytes(self.ram[at : at + n]) for at, n in self._pieces(linear, size, Access.READ, user))

    def write_bytes(self, linear: int, data: bytes, *, user: bool = False) -> None:
        """Bytes to linear memory, at supervisor level unless ``user``; nothing is written if any page faults."""
        done = 0
        for at, n in self._pieces(linear, len(data), Access.WRITE, user):
            self.ram[at : at + n] = data[done : done + n]
            done += n

    def _pieces(self, linear: int, size: int, access: Access, user: bool) -> list[tuple[int, int]]:
        mode = self.paging_mode
        mask = linear_mask(mode)
        pieces = []
        while size > 0:
            n = min(size, PAGE_SIZE - page_offset(linear))
            pieces.append((self.translate(linear, access, user=user, mode=mode), n))
            linear = linear + n & mask
            size -= n
        return pieces

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


def linear_mask(mode: PagingMode) -> int:
    """Where linear addresses wrap."""
    return _LINEAR_64 if mode.efer & EFER_LMA else _LINEAR_32
