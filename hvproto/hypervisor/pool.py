"""Physical memory that the emulation program has lent to its hypervisor, handed out page by page."""

from __future__ import annotations

from hvproto.addresses import HPA, PAGE_SIZE
from hvproto.errors import HvprotoError


class PoolExhausted(HvprotoError):
    """The emulation program gave the hypervisor too little memory."""


class Pool:
    """Frames of host-physical memory. The lowest free frame goes first, so runs repeat exactly."""

    def __init__(self, ram: memoryview, frames: list[HPA]) -> None:
        self._ram = ram
        self._free = sorted(frames, reverse=True)
        self.size = len(frames)

    @property
    def free(self) -> int:
        return len(self._free)

    def allocate(self) -> HPA:
        """A zeroed frame. Raises PoolExhausted."""
        if not self._free:
            raise PoolExhausted(f"all {self.size} pages of the hypervisor's pool are in use")
        frame = self._free.pop()
        self._ram[frame : frame + PAGE_SIZE] = bytes(PAGE_SIZE)
        return frame

    def release(self, frame: HPA) -> None:
        self._free.append(frame)
