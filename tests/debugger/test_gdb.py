"""The GDB server, with Debian's gdb on the other side, driven by its machine interface."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hvproto.bundled import folder
from hvproto.debugger.gdb.packets import frame
from hvproto.debugger.gdb.server import GdbServer
from hvproto.debugger.position import Position
from hvproto.debugger.repl.console import Console
from hvproto.debugger.session import DebugSession
from hvproto.debugger.subject import Build
from hvproto.debugger.subjects import machine_subject
from hvproto.images.load import load_image
from tests.debugger.gdb import Gdb, needed
from tests.debugger.runs import kernel, session

pytestmark = needed

COUNTS = """
start:
    mov esp, 0x9000
    xor eax, eax
    mov ecx, 5
again:
    call increment
    loop again
    mov dword [0x5000], eax
    hlt
increment:
    inc eax
    ret
"""


class Server:
    """A server on a thread, and the session behind it; nothing else uses the session meanwhile."""

    def __init__(self, build: Build) -> None:
        self.debug = DebugSession(build)
        self.said: list[str] = []
        self.server = GdbServer(Console(self.debug, self.said.append), ("127.0.0.1", 0))
        self.port = self.server.address[1]
        self.thread = threading.Thread(target=self.server.serve, daemon=True)
        self.thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def end(self) -> None:
        """Kill the run over the line, as GDB does."""
        if self.thread.is_alive():
            with self.connect() as line:
                line.sendall(frame(b"k"))
                self.thread.join(30)
        assert not self.thread.is_alive()
        self.server.close()
        self.debug.close()


@contextmanager
def connected(build: Build, *before: str) -> Iterator[tuple[Server, Gdb]]:
    server = Server(build)
    gdb = Gdb(server.port, *before)
    try:
        yield server, gdb
    finally:
        gdb.close()
        server.end()


def test_registers_memory_steps_and_breakpoints_in_32_bits() -> None:
    with connected(kernel(COUNTS)) as (_, gdb):
        start = gdb.value("$pc")
        gdb.do("stepi")
        assert (gdb.value("$esp"), gdb.value("$pc")) == (0x9000, start + 5)
        gdb.do(f"break *{start + 12}")  # the call
        gdb.do("continue")
        assert (gdb.value("$pc"), gdb.value("$ecx")) == (start + 12, 5)
        gdb.do(f"hbreak *{start + 17}")  # behind it
        gdb.do("continue")
        assert (gdb.value("$eax"), gdb.value("$pc")) == (1, start + 17)
        gdb.do("set var $ecx = 3")
        gdb.do("set var *(int*)0x5000 = 0x11223344")
        assert gdb.value("*(unsigned char*)0x5003") == 0x11
        gdb.do("continue")
        assert (gdb.value("$eax"), gdb.value("$ecx"), gdb.value("$pc")) == (1, 2, start + 12)
        gdb.do("delete")
        assert "exited" in gdb.do("continue")


def test_watchpoints_of_all_three_kinds() -> None:
    source = "mov dword [0x5000], 7\nnop\nmov eax, [0x5000]\nnop\nmov dword [0x5000], 8\nhlt"
    for kind, stops in (("watch", 2), ("rwatch", 1), ("awatch", 3)):
        with connected(kernel(source)) as (_, gdb):
            gdb.do(f"{kind} *(int*)0x5000")
            text = "".join(gdb.do("continue") for _ in range(stops))
            assert text.lower().count("watchpoint-trigger") == stops
            assert "exited" in gdb.do("continue")


def test_time_goes_back_too() -> None:
    with connected(kernel(COUNTS)) as (_, gdb):
        start = gdb.value("$pc")
        for _ in range(6):
            gdb.do("stepi")
        assert gdb.value("$eax") == 1
        gdb.do("reverse-stepi")
        assert gdb.value("$eax") == 1
        gdb.do("reverse-stepi")
        assert gdb.value("$eax") == 0
        gdb.do("reverse-continue")
        assert gdb.value("$pc") == start


def test_a_kernel_of_64_bits_and_its_system_registers() -> None:
    build = machine_subject(load_image(folder() / "modes/long.asm"))
    server = Server(build)
    gdb = Gdb(server.port)
    try:
        assert "$1" in gdb.do("print $cr0")
        gdb.do("monitor watch EFER")
        gdb.do("continue")
        gdb.do("monitor delete")
        gdb.do("monitor goto 60000")
        gdb.do("disconnect")
        gdb.close()
        gdb = Gdb(server.port)  # now it sees the registers of 64 bits
        assert gdb.value("sizeof($rip)") == 8
        assert gdb.value("$cr0") & 0x8000_0001 == 0x8000_0001
        assert gdb.value("$efer") & 0x500 == 0x500
        before = gdb.value("$rip")
        gdb.do("stepi")
        assert gdb.value("$rip") != before
        assert "rip" in gdb.do("info registers")
        assert gdb.value("$idtr_limit") > 0
    finally:
        gdb.close()
        server.end()


def test_the_two_worlds_are_threads_and_monitor_knows_every_command() -> None:
    with connected(session()) as (_, gdb):
        assert gdb.do("info threads").count("Thread") == 1
        gdb.do("monitor break Relocated")
        gdb.do("continue")
        assert "REGION" in gdb.do("monitor map")
        assert "there is no command" in gdb.do("monitor nonsense")
        threads = gdb.do("info threads")
        assert "host, state saved" in threads and "guest, on the processor" in threads
        guests = gdb.value("$cr3")
        assert gdb.value("$cpl") == 0  # as the guest has it
        gdb.do("thread 1")
        assert gdb.value("$cr3") != guests
        assert "cli" in gdb.do("x/i $pc")  # the host's memory is seen through the host's own tables


def test_ctrl_c_stops_a_run_that_would_go_on_for_ever() -> None:
    server = Server(kernel("again: inc eax\njmp again"))
    with server.connect() as line:
        line.sendall(b"+" + frame(b"c"))
        assert line.recv(1) == b"+"
        line.sendall(b"\x03")
        answer = b""
        while b"#" not in answer:
            answer += line.recv(200)
        assert answer.startswith(b"$T02")
    server.end()


def test_a_question_that_came_during_a_run_for_somebody_else_can_be_waited_for() -> None:
    debug = DebugSession(kernel("again: inc eax\njmp again"))
    server = GdbServer(Console(debug, lambda _text: None), ("127.0.0.1", 0))
    with socket.create_connection(server.address, timeout=30) as line:
        line.sendall(b"+")
        while not server.is_connected:
            server.attend()
        line.sendall(frame(b"?"))
        assert debug.cont().kind == "interrupted"  # and the question has been taken from the line
        assert select.select(server.sockets, [], [], 0)[0]
        server.attend()
        assert line.recv(200).startswith(b"+$T02")
        assert not select.select(server.sockets, [], [], 0)[0]
    server.close()
    debug.close()


def test_clients_come_and_go_and_the_run_stays() -> None:
    server = Server(kernel(COUNTS))
    with server.connect() as line:
        line.sendall(b"+" + frame(b"s"))
        answer = b""
        while b"#" not in answer:
            answer += line.recv(200)
        assert b"T05" in answer
        with server.connect() as second:
            assert second.recv(10) == b""  # refused
        line.sendall(b"$g#00")  # a wrong checksum
        assert b"-" in line.recv(200)
        for rubbish in (b"m", b"mzz,1", b"G00", b"Pff=00", b"Z9,0,0", b"vCont;x", b"qXfer:features:read:no:0,1", b"p999",
                        b"M0,2:0", b"X0,1:", b"Hgff", b"!", b"\xff\xfe", b"qRcmd,zz", b"Z0,x"):  # fmt: skip
            line.sendall(frame(rubbish))
            answer = line.recv(400)
            while b"#" not in answer:
                answer += line.recv(400)
        line.sendall(frame(b"c")[:3])  # and away in the middle of a packet
    with server.connect() as line:
        line.sendall(frame(b"?"))
        answer = b""
        while b"#" not in answer:
            answer += line.recv(200)
        assert b"T05thread:2;" in answer
    server.end()
    assert server.debug.stop.position == Position(0, 0, 1)


def test_detaching_lets_the_run_go_on_to_its_end() -> None:
    server = Server(kernel(COUNTS))
    gdb = Gdb(server.port)
    gdb.do("detach")
    server.thread.join(30)
    assert server.debug.stop.ended
    gdb.close()
    server.end()
