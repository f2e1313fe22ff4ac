"""A guest's physical memory as a buffer to be indexed, for what was written with the machine's RAM in mind."""

from __future__ import annotations

from typing import overload

from hvproto.hypervisor.guest_memory import GuestMemory


class GuestRam:
    """``ram[gpa]`` and ``ram[gpa:end]`` over scattered frames; stores go through `GuestMemory.write`, so all is heard.

    A slice is never cut short: where there is no memory, IndexError. Without an end it goes to the end of the memory
    that starts at GPA 0, whose size is the length. No steps, nothing counted from the end.
    """

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory

    def __len__(self) -> int:
        return self._memory.size

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> bytes: ...
    def __getitem__(self, at: int | slice) -> int | bytes:
        start, size = self._range(at)
        data = self._memory.read(start, size)
        if data is None:
            raise IndexError(f"no guest memory at {start:#x}, {size} bytes")
        return data if isinstance(at, slice) else data[0]

    @overload
    def __setitem__(self, at: slice, value: bytes | bytearray | memoryview) -> None: ...
    @overload
    def __setitem__(self, at: int, value: int) -> None: ...
    def __setitem__(self, at: int | slice, value: int | bytes | bytearray | memoryview) -> None:
        start, size = self._range(at)
        data = bytes([value]) if isinstance(value, int) else bytes(value)
        if len(data) != size:
            raise ValueError(f"{len(data)} bytes for a place of {size}")
        if not self._memory.write(start, data):
            raise IndexError(f"no guest memory at {start:#x}, {size} bytes")

    def _range(self, at: int | slice) -> tuple[int, int]:
        if not isinstance(at, slice):
            start, end = at, at + 1
        elif at.step not in (None, 1):
            raise ValueError("guest memory is read and written without steps")
        else:
            start = 0 if at.start is None else at.start
            end = len(self) if at.stop is None else at.stop
        if start < 0 or end < 0:
            raise IndexError("guest-physical addresses are not negative")
        return start, max(end - start, 0)
