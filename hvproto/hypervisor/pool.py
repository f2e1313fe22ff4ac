"""Physical memory that the emulation program has lent to its hypervisor, handed out page by page."""

from __future__ import annotations

from collections.abc import Callable

from hvproto.addresses import HPA, PAGE_SIZE
from hvproto.errors import HvprotoError

_ZEROS = bytes(PAGE_SIZE)


class PoolExhausted(HvprotoError):
    """The emulation program gave the hypervisor too little memory."""


class Pool:
    """Frames of host-physical memory. What was released last goes first, then the lowest: so runs repeat exactly."""

    def __init__(self, ram: memoryview, frames: list[HPA]) -> None:
        self._ram = ram
        self._free = sorted(frames, reverse=True)
        self.frames = tuple(frames)
        """All of them, in use or not."""
        self.size = len(frames)
        self.reclaim: Callable[[], bool] | None = None
        """Called when all frames are in use: give some back that can be missed; False if there are none."""

    @property
    def free(self) -> int:
        return len(self._free)

    def allocate(self) -> HPA:
        """A zeroed frame. Raises PoolExhausted."""
        while not self._free:
            if self.reclaim is None or not self.reclaim():
                raise PoolExhausted(f"all {self.size} pages of the hypervisor's pool are in use")
        frame = self._free.pop()
        self._ram[frame : frame + PAGE_SIZE] = _ZEROS
        return frame

    def release(self, frame: HPA) -> None:
        self._free.append(frame)
