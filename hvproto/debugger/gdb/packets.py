"""Packets of GDB's remote serial protocol: framing, checksums, escapes (GDB manual, appendix E.1)."""

from __future__ import annotations

from collections.abc import Iterator

INTERRUPT = b"\x03"
_ESCAPE, _FLIP = 0x7D, 0x20
_ESCAPED = frozenset(b"#$}*")
LARGEST = 0x4000
"""Bytes of a packet's payload that we take, as we tell GDB."""


def checksum(payload: bytes) -> bytes:
    """Two hexadecimal digits.

    >>> checksum(b"OK")
    b'9a'
    """
    return b"%02x" % (sum(payload) & 0xFF)


def frame(payload: bytes) -> bytes:
    """A packet as it goes over the line.

    >>> frame(b"OK")
    b'$OK#9a'
    """
    return b"$" + payload + b"#" + checksum(payload)


def escape(data: bytes) -> bytes:
    """Binary data within a packet.

    >>> escape(b"a#b")
    b'a}\\x03b'
    """
    out = bytearray()
    for byte in data:
        if byte in _ESCAPED:
            out += bytes((_ESCAPE, byte ^ _FLIP))
        else:
            out.append(byte)
    return bytes(out)


def unescape(data: bytes) -> bytes:
    """The inverse of `escape`."""
    out, flips = bytearray(), False
    for byte in data:
        if flips:
            out.append(byte ^ _FLIP)
            flips = False
        elif byte == _ESCAPE:
            flips = True
        else:
            out.append(byte)
    return bytes(out)


class Reader:
    """Takes bytes as they come, and gives packets.

    >>> list(Reader().feed(b"+$g#67\\x03$bad#00"))
    [b'g', b'\\x03', None]
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """Payloads of whole packets; `INTERRUPT` for a Ctrl-C between them; None for one whose checksum is wrong.

        What is neither, acknowledgements among it, is dropped.
        """
        self._rest += data
        while self._rest:
            first = self._rest[:1]
            if first != b"$":
                self._rest = self._rest[1:]
                if first == INTERRUPT:
                    yield INTERRUPT
                continue
            end = self._rest.find(b"#")
            if end < 0 or len(self._rest) < end + 3:
                if len(self._rest) > 4 * LARGEST:  # nobody who means well
                    self._rest = b""
                    yield None
                return
            payload, given = self._rest[1:end], self._rest[end + 1 : end + 3]
            self._rest = self._rest[end + 3 :]
            yield payload if checksum(payload) == given.lower() else None
