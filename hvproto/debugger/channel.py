"""Messages between the debugger and its debuggees, which are processes of their own: pickled objects on a socket.

Both ends are this program, forked. A message may carry the descriptor of another socket.
"""

from __future__ import annotations

import pickle
import select
import socket
import struct
from typing import Any

_HEADER = struct.Struct("<I")


class Closed(Exception):
    """The other end has gone."""


class Channel:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """A channel, and the socket that is its other end."""
        one, other = socket.socketpair()
        return cls(one), other

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Any, passing: socket.socket | None = None) -> None:
        """Raises Closed."""
        data = pickle.dumps(message)
        try:
            descriptors = [] if passing is None else [passing.fileno()]
            socket.send_fds(self._socket, [_HEADER.pack(len(data))], descriptors)
            self._socket.sendall(data)
        except OSError as error:
            raise Closed from error

    def receive(self) -> tuple[Any, socket.socket | None]:
        """The next message, and the socket that came with it. Raises Closed."""
        header, passed = self._read(_HEADER.size)
        data, more = self._read(_HEADER.unpack(header)[0])
        descriptors = passed + more
        return pickle.loads(data), socket.socket(fileno=descriptors[0]) if descriptors else None

    def _read(self, size: int) -> tuple[bytes, list[int]]:
        data, descriptors = b"", []
        while len(data) < size:
            try:
                part, found, _, _ = socket.recv_fds(self._socket, size - len(data), 1)
            except OSError as error:
                raise Closed from error
            if not part:
                raise Closed
            data += part
            descriptors += list(found)
        return data, descriptors

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to receive, if only the end."""
        return bool(select.select([self._socket], [], [], 0)[0])
