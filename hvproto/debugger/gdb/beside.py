"""GDB beside a prompt: it gets its turn while the next line is waited for; whoever moves the run, the other is told."""

from __future__ import annotations

import select
from collections.abc import Callable

from hvproto.debugger.gdb.server import GdbServer
from hvproto.debugger.gdb.stub import Ended
from hvproto.debugger.repl.present import told
from hvproto.debugger.session import DebugSession
from hvproto.errors import HvprotoError

_PAUSE = 0.1
"""Seconds of silence after which GDB is taken to have done what somebody told it: it says that in many packets."""


class Beside:
    """``say`` gets what a person at the prompt should know."""

    def __init__(self, server: GdbServer, debug: DebugSession, say: Callable[[str], None]) -> None:
        self._server, self._debug, self._say = server, debug, say

    @property
    def sockets(self) -> list[int]:
        """The descriptors that can be read when there is something to do."""
        return self._server.sockets

    def attend(self) -> None:
        """Do what GDB wants, until it is silent. To kill the run or to let it go is only to leave, here."""
        server, before = self._server, self._debug.position
        connected = server.is_connected
        while True:
            try:
                server.attend()
            except Ended:
                break
            except HvprotoError as error:
                self._say(str(error))
                break
            if not server.is_connected or not select.select(server.sockets, [], [], _PAUSE)[0]:
                break
        if server.is_connected and not connected:
            self._say("gdb is connected")
        if self._debug.position != before:
            self._say("gdb: " + told(self._debug, self._debug.stop))
        if connected and not server.is_connected:
            self._say("gdb has gone")
