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
CHANGING = (b"c", b"C", b"s", b"S", b"b", b"vCont;", b"G", b"P", b"M", b"X", b"qRcmd,")
"""How packets begin that may move the run, or change something in it."""


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
    """Serves one session; ``address`` is where it listens, known from the beginning.

    `serve` has the session to itself. Where somebody else drives it as well, that one calls `attend` whenever one of
    the `sockets` has something; a client that wants something while the run is under way for somebody else stops it.
    """

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
        self._stub: Stub | None = None
        self._reader = Reader()
        self._packets: list[bytes | None] = []
        self._bell, self._hammer = socket.socketpair()
        self._hammer.send(b"!")  # never taken: the bell rings whenever somebody listens to it
        self._gone = False
        self._answers = False
        """Whether a packet is being answered: the run, if it is under way, is so for the client."""
        self._visits(self._listener)

    def _visits(self, line: socket.socket) -> None:
        self._console.debug.timeline.visitors[line.fileno()] = self._while_running

    def close(self) -> None:
        """No client any more, and no others."""
        self._leave()
        if self._listener.fileno() >= 0:
            self._console.debug.timeline.visitors.pop(self._listener.fileno(), None)
            self._listener.close()
            self._bell.close()
            self._hammer.close()

    @property
    def sockets(self) -> list[int]:
        """The descriptors that have something to read when there is something to do, to be asked for anew each time.

        What has come from the client while the run went on for somebody else isn't on its line any more.
        """
        lines = (self._listener, self._client, self._bell if self._packets else None)
        return [line.fileno() for line in lines if line is not None and line.fileno() >= 0]

    @property
    def is_connected(self) -> bool:
        """Whether there is a client."""
        return self._client is not None

    def serve(self) -> None:
        """Client after client, until one kills the run or lets it go; then it has come to its end, or stands still."""
        try:
            while True:
                select.select(self.sockets, [], [])
                self.attend()
        except Ended as end:
            if end.detached:
                self._console.debug.timeline.visitors.pop(self._listener.fileno(), None)
                self._console.debug.breakpoints.clear()
                self._console.debug.cont()

    def attend(self) -> bool:
        """Let a client in, answer what it has said; whether the run may be elsewhere now, or something in it changed.

        Raises Ended when it kills the run or lets it go; it has gone then, and the run is as it was.
        """
        changes = False
        try:
            self._listen()
            while self._packets and not self._gone:
                changes |= self._answer(self._packets.pop(0))
                self._listen()
        except Ended:
            self._write(frame(b"OK"))
            self._gone = True
            raise
        finally:
            if self._gone:
                self._leave()
        return changes

    # -- the line ----------------------------------------------------------------------------

    def _answer(self, packet: bytes | None) -> bool:
        """Whether something may have changed by it."""
        if packet == INTERRUPT:
            return False  # nothing runs
        if self._stub is None:
            self._stub = Stub(self._console)
        if self._stub.acknowledges:
            self._write(b"-" if packet is None else b"+")
        if packet is None:
            return False
        self._answers = True
        try:
            self._write(frame(self._stub.answer(packet)))
        finally:
            self._answers = False
        return packet.startswith(CHANGING)

    def _write(self, data: bytes) -> None:
        assert self._client is not None
        try:
            self._client.sendall(data)
        except OSError:
            self._gone = True

    def _listen(self) -> None:
        """Take what the client has sent; let one in, or refuse another."""
        ready = select.select(self.sockets, [], [], 0)[0]
        if self._client is not None and ready:
            self._take()
        if self._listener.fileno() in ready:
            if self._client is None:
                self._admit()
            elif not self._gone:
                self._listener.accept()[0].close()

    def _admit(self) -> None:
        self._client, _ = self._listener.accept()
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stub, self._reader, self._packets, self._gone = None, Reader(), [], False
        self._visits(self._client)

    def _leave(self) -> None:
        """The client goes, and its breakpoints with it."""
        if self._client is not None:
            self._console.debug.timeline.visitors.pop(self._client.fileno(), None)
            self._client.close()
        if self._stub is not None:
            self._stub.forget()
        self._client = self._stub = None
        self._packets, self._gone = [], False

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

    def _while_running(self) -> None:
        """Something has come while the run goes on: Ctrl-C, an end, or a question, which a run for the client isn't
        answered by."""
        self._listen()
        asks = INTERRUPT in self._packets or (self._packets and not self._answers)
        self._packets = [packet for packet in self._packets if packet != INTERRUPT]
        if self._gone or asks:
            self._console.debug.timeline.interrupt()
