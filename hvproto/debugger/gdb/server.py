"""The GDB server: one client at a time, on the loopback unless told otherwise.

A client that goes without a word, or sends rubbish, changes nothing: the run stays where it is, and the next client
finds it there. A second client at the same time is refused.
"""

from __future__ import annotations

import select
import socket

from hvproto.debugger.gdb.packets import INTERRUPT, Reader, frame
from hvproto.debugger.gdb.stub import Ended, Stub
from hvproto.debugger.repl.console import Console
from hvproto.errors import BadInput

LOOPBACK = "127.0.0.1"


def parse_endpoint(text: str) -> tuple[str, int]:
    """``PORT`` or ``HOST:PORT``. Raises BadInput.

    >>> parse_endpoint("1234"), parse_endpoint("0.0.0.0:99")
    (('127.0.0.1', 1234), ('0.0.0.0', 99))
    """
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdecimal() or int(port) > 0xFFFF:
        raise BadInput(f"{text!r} is no place to listen at: write PORT or HOST:PORT")
    return host.strip("[]") or LOOPBACK, int(port)


class GdbServer:
    """Serves one session; ``address`` is where it listens, known from the beginning."""

    def __init__(self, console: Console, endpoint: tuple[str, int]) -> None:
        """Raises BadInput if nobody can listen there."""
        self._console = console
        try:
            family = socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET
            self._listener = socket.create_server(endpoint, family=family)
        except OSError as error:
            raise BadInput(f"can't listen at {endpoint[0]}:{endpoint[1]}: {error.strerror}") from None
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._client: socket.socket | None = None
        self._reader = Reader()
        self._packets: list[bytes | None] = []
        self._gone = False

    def close(self) -> None:
        self._listener.close()
        if self._client is not None:
            self._client.close()

    def serve(self) -> None:
        """Client after client, until one kills the run or lets it go; then it has come to its end, or stands still."""
        timeline = self._console.debug.timeline
        while True:
            self._client, _ = self._listener.accept()
            self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._reader, self._packets, self._gone = Reader(), [], False
            timeline.visitors = {self._client.fileno(): self._while_running, self._listener.fileno(): self._refuse}
            stub = Stub(self._console)
            try:
                self._converse(stub)
            except Ended as end:
                self._send(stub, b"OK")
                if end.detached:
                    timeline.visitors = {}
                    stub.forget()
                    self._console.debug.breakpoints.clear()
                    self._console.debug.cont()
                return
            finally:
                timeline.visitors = {}
                stub.forget()
                self._client.close()
                self._client = None

    # -- the line ----------------------------------------------------------------------------

    def _converse(self, stub: Stub) -> None:
        """Answer packet after packet until the client has gone."""
        while not self._gone:
            while not self._packets and not self._gone:
                self._listen(None)
            if not self._packets:
                return
            packet = self._packets.pop(0)
            if packet == INTERRUPT:
                continue  # nothing runs
            if stub.acknowledges:
                self._write(b"-" if packet is None else b"+")
            if packet is None:
                continue
            self._write(frame(stub.answer(packet)))

    def _send(self, stub: Stub, payload: bytes) -> None:
        self._write(frame(payload))

    def _write(self, data: bytes) -> None:
        assert self._client is not None
        try:
            self._client.sendall(data)
        except OSError:
            self._gone = True

    def _listen(self, timeout: float | None) -> None:
        """Take what the client has sent; refuse others."""
        assert self._client is not None
        ready, _, _ = select.select([self._client, self._listener], [], [], timeout)
        if self._client in ready or self._listener in ready:
            self._take()
        if self._listener in ready:
            self._refuse()

    def _take(self) -> None:
        """All that has come from the client, to the end of the line if it is there."""
        assert self._client is not None
        while not self._gone:
            try:
                data = self._client.recv(0x10000, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self._gone = not data
            self._packets += self._reader.feed(data)

    def _refuse(self) -> None:
        """Somebody else wants to connect: not while there is a client."""
        if not self._gone:
            self._listener.accept()[0].close()

    def _while_running(self) -> None:
        """The client has something to say while the run goes on: Ctrl-C, or that it isn't there any more."""
        self._listen(0)
        if self._gone or INTERRUPT in self._packets:
            self._packets = [packet for packet in self._packets if packet != INTERRUPT]
            self._console.debug.timeline.interrupt()
