"""What a hosted guest's devices ask of the host: the requests that a temporary recoupling serves (claims 12, 20).

The guest's serial port and disk are devices of its own board. What they would do to the outside
world becomes a request here; the hypervisor recouples the host, the emulation program has the host
kernel's own driver do it, and the answer goes back to the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum


class Stream(IntEnum):
    """Where a guest prints: COM1 or the debug console."""

    SERIAL = 1
    DEBUG = 2


@dataclass(frozen=True, slots=True)
class Write:
    """Print these bytes."""

    name = "write"
    stream: Stream
    data: bytes


@dataclass(frozen=True, slots=True)
class ReadBlock:
    """Read one sector; ``done`` gets its 512 bytes, or None after an error."""

    name = "read_block"
    lba: int
    done: Callable[[bytes | None], None]


Request = Write | ReadBlock

FIFO = 16
"""As many characters go to the host at once as a 16550's transmitter holds."""


class HostFunctions:
    """The queue of requests of one guest, in the order in which its devices made them."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._stream = Stream.SERIAL
        self._queue: list[Request] = []
        self.drain = False
        """Set when characters have waited long enough, or when the guest is about to wait itself."""

    def write(self, stream: Stream, byte: int) -> None:
        """One character leaves the guest's serial port or debug console."""
        if stream != self._stream:
            self._close_text()
            self._stream = stream
        self._text.append(byte)
        if byte == 0x0A or len(self._text) >= FIFO:
            self._close_text()

    def take_text(self) -> bytes:
        """What has been printed and isn't with the host yet; nothing of it is, any more."""
        self._close_text()
        text = b"".join(request.data for request in self._queue if isinstance(request, Write))
        self._queue = [request for request in self._queue if not isinstance(request, Write)]
        return text

    def read_block(self, lba: int, done: Callable[[bytes | None], None]) -> None:
        self._close_text()
        self._queue.append(ReadBlock(lba, done))

    def _close_text(self) -> None:
        if self._text:
            self._queue.append(Write(self._stream, bytes(self._text)))
            self._text.clear()

    @property
    def has_text(self) -> bool:
        """Whether characters wait that aren't a request yet."""
        return bool(self._text)

    @property
    def waiting(self) -> bool:
        """Whether there is something that the host has to do now."""
        return bool(self._queue) or (self.drain and bool(self._text))

    def take(self) -> Request | None:
        """The next request, if there is one."""
        if self.drain:
            self._close_text()
            self.drain = False
        return self._queue.pop(0) if self._queue else None
