"""A guest's physical memory, wherever in the host's RAM its pages lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hvproto.addresses import GPA, HPA, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE


class GuestMemory:
    """Guest-physical memory over host frames, which may be scattered.

    ``frames[n]`` is the HPA of guest-physical page n. ``on_write`` hears of every store that the
    hypervisor itself makes for the guest, so that table pages are followed there too.
    """

    def __init__(self, ram: memoryview, frames: Sequence[HPA]) -> None:
        self._ram = ram
        self._frames = list(frames)
        self._pages = {frame: number for number, frame in enumerate(self._frames)}
        self.on_write: Callable[[GPA, int], None] | None = None
        self.on_bits: Callable[[GPA], None] | None = None
        """Hears of an entry in which A or D was set."""

    @property
    def size(self) -> int:
        """Bytes of guest-physical memory, from GPA 0."""
        return len(self._frames) << PAGE_SHIFT

    @property
    def frames(self) -> Sequence[HPA]:
        return self._frames

    @property
    def is_identity(self) -> bool:
        """Whether every GPA is the same HPA."""
        return all(frame == number << PAGE_SHIFT for number, frame in enumerate(self._frames))

    def to_host(self, gpa: int) -> HPA | None:
        """The HPA of a guest-physical address, or None where the guest has no memory."""
        number = gpa >> PAGE_SHIFT
        if 0 <= number < len(self._frames):
            return HPA(self._frames[number] | gpa & PAGE_MASK)
        return None

    def to_guest(self, hpa: int) -> GPA | None:
        """The GPA that lies at a host-physical address, or None if that isn't the guest's."""
        number = self._pages.get(HPA(hpa & ~PAGE_MASK))
        return None if number is None else GPA(number << PAGE_SHIFT | hpa & PAGE_MASK)

    def read_entry(self, gpa: int, size: int) -> int | None:
        """An integer that doesn't cross a page; None where there is no memory."""
        hpa = self.to_host(gpa)
        return None if hpa is None else int.from_bytes(self._ram[hpa : hpa + size], "little")

    def read(self, gpa: int, size: int) -> bytes | None:
        """Bytes; None if some of them are nowhere."""
        pieces = []
        while size > 0:
            hpa = self.to_host(gpa)
            if hpa is None:
                return None
            n = min(size, PAGE_SIZE - (gpa & PAGE_MASK))
            pieces.append(self._ram[hpa : hpa + n])
            gpa, size = gpa + n, size - n
        return b"".join(pieces)

    def write(self, gpa: int, data: bytes) -> bool:
        """Store bytes as the guest would; False if some of them would be nowhere (nothing is stored)."""
        if self.to_host(gpa) is None or self.to_host(gpa + len(data) - 1) is None:
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
