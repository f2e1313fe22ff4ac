"""The stub: what each packet of GDB's means for a debugging session.

Worlds are threads: 1 is the host, 2 the guest. A thread that isn't on the processor shows its saved state.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from hvproto.debugger.gdb import packets, state
from hvproto.debugger.gdb.described import Described, Held
from hvproto.debugger.gdb.target_xml import Register
from hvproto.debugger.goal import Breakpoint, Stop, Watched
from hvproto.debugger.repl.console import Console
from hvproto.errors import HvprotoError, World

THREADS = {1: World.HOST, 2: World.GUEST}
_SUPPORTED = (
    f"PacketSize={packets.LARGEST:x};qXfer:features:read+;swbreak+;hwbreak+;vContSupported+;QStartNoAckMode+;"
    "ReverseStep+;ReverseContinue+;exec-events+"
)
_OK, _BAD, _UNKNOWN = b"OK", b"E01", b""
_WATCHES = {"2": "write", "3": "read", "4": "access"}
_MEMORY = re.compile(r"^([0-9a-f]+),([0-9a-f]+)$", re.IGNORECASE)


def _signal(stop: Stop) -> int:
    return 2 if stop.kind == "interrupted" else 5


class Ended(Exception):
    """GDB has killed the run, or has let it go."""

    def __init__(self, *, detached: bool) -> None:
        self.detached = detached


class Stub:
    """One connection's conversation. Every answer is the payload of one packet."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._debug = console.debug
        world, wide = self._debug.call(state.mode_of)
        self._described = Described(wide=wide)
        self._thread = self._current = self._thread_of(World(world))
        self._physical = False
        self._inserted: dict[tuple[str, int, int], int] = {}
        self.acknowledges = True

    # -- threads -----------------------------------------------------------------------------

    def _thread_of(self, world: World) -> int:
        return next((number for number, each in THREADS.items() if each is world), 1)

    def _threads(self) -> list[int]:
        known = self._debug.call(state.known_worlds)
        return [number for number, world in THREADS.items() if str(world) in known]

    @property
    def _world(self) -> World:
        return THREADS[self._thread]

    # -- the switch --------------------------------------------------------------------------

    def answer(self, packet: bytes) -> bytes:
        """The answer to a packet; empty for what isn't supported. Raises Ended."""
        text = packet.decode("latin-1")
        try:
            return self._answer(text, packet)
        except HvprotoError:
            return _BAD
        except (ValueError, IndexError, KeyError):
            return b"E22"

    def _answer(self, text: str, packet: bytes) -> bytes:
        first, rest = text[:1], text[1:]
        simple: dict[str, Callable[[str], bytes]] = {
            "?": lambda _: self.stop_reply(self._debug.stop), "g": self._read_all, "G": self._write_all,
            "p": self._read_one, "P": self._write_one, "m": self._read_memory, "M": self._write_memory,
            "H": self._choose, "T": self._is_alive, "c": self._continue, "s": self._step, "C": self._continue_signal,
            "S": self._step_signal, "Z": self._insert, "z": self._remove, "q": self._query, "Q": self._set,
            "v": self._verbose, "b": self._backwards, "D": self._detach, "k": self._kill,
        }  # fmt: skip
        if first == "X":
            return self._write_binary(packet[1:])
        return simple[first](rest) if first in simple else _UNKNOWN

    def _detach(self, _rest: str) -> bytes:
        raise Ended(detached=True)

    def _kill(self, _rest: str) -> bytes:
        raise Ended(detached=False)

    # -- stops -------------------------------------------------------------------------------

    def stop_reply(self, stop: Stop, *, going: bool = False, backwards: bool = False, stepped: bool = False) -> bytes:
        """A `T` packet; `W` for a run that has just ended; an exec if GDB must first hear of code of another width."""
        world, wide = self._debug.call(state.mode_of)
        self._current = self._thread = self._thread_of(World(world))
        if stop.ended and going:
            return b"W%02x" % ((stop.status or 0) & 0xFF)
        hit = self._debug.breakpoints.get(stop.breakpoint or 0)
        reason = self._reason(hit) if hit is not None and hit.number in self._inserted.values() else ""
        begin = "replaylog:begin;" if backwards and self._is_at_the_beginning(stop) else ""
        rest = f"thread:{self._current:x};{begin}"
        if wide != self._described.wide:
            if self._described.takes_exec and (going or backwards):
                self.forget()  # as GDB does: it sets them again
                changed = hit.address if hit is not None and reason.startswith("watch:") else None
                held = Held(stop, rest if changed is not None else rest + reason, stepped, changed)
                return self._described.announce(held, self._current, wide=wide)
            if wide:
                self._console.say("the processor is in 64-bit code now: reconnect GDB to see all of its registers")
        return f"T{_signal(stop):02x}{rest}{reason}".encode()

    def _is_at_the_beginning(self, stop: Stop) -> bool:
        return stop.position <= self._debug.timeline.checkpoints[0].position

    def _release(self, held: Held) -> bytes:
        """The stop before which an exec has been told.

        GDB has forgotten by now that it was to step, and what watched memory held before: a trap wouldn't stop it there
        if it has no breakpoint. Signal 0 does, with no reason given.
        """
        breaks = any(kind in "01" and address == held.stop.address for kind, address, _ in self._inserted)
        signal = 0 if held.needs_stop and not breaks else _signal(held.stop)
        return f"T{signal:02x}{held.rest}".encode()

    def _reason(self, hit: Breakpoint) -> str:
        if hit.kind is Watched.MEMORY:
            name = {"write": "watch", "read": "rwatch", "access": "awatch"}[hit.access]
            return f"{name}:{hit.address:x};"
        kind = next(kind for (kind, _, _), number in self._inserted.items() if number == hit.number)
        return "swbreak:;" if kind == "0" else "hwbreak:;"

    def _go(self, run: Callable[[], Stop], *, backwards: bool = False, stepped: bool = False) -> bytes:
        held = self._described.release(self._debug.stop)
        if held is not None:
            return self._release(held)
        return self.stop_reply(run(), going=not backwards, backwards=backwards, stepped=stepped)

    def _continue(self, rest: str) -> bytes:
        self._jump(rest)
        return self._go(self._debug.cont)

    def _step(self, rest: str) -> bytes:
        self._jump(rest)
        return self._go(lambda: self._debug.step(skips_interrupts=True), stepped=True)

    def _jump(self, rest: str) -> None:
        if rest:
            self._debug.edit(state.write_register, World(self._debug.call(state.mode_of)[0]), "rip", int(rest, 16))

    def _continue_signal(self, rest: str) -> bytes:
        return self._continue(rest.partition(";")[2])

    def _step_signal(self, rest: str) -> bytes:
        return self._step(rest.partition(";")[2])

    def _backwards(self, rest: str) -> bytes:
        if rest == "s":
            return self._go(self._debug.back_instruction, backwards=True, stepped=True)
        if rest == "c":
            return self._go(self._debug.back_continue, backwards=True)
        return _UNKNOWN

    def _verbose(self, rest: str) -> bytes:
        if rest == "Cont?":
            return b"vCont;c;C;s;S"
        if rest.startswith("Cont;") and rest[5:6] in ("s", "S", "c", "C"):
            return self._step("") if rest[5] in "sS" else self._continue("")
        if rest.startswith("Kill"):
            raise Ended(detached=False)
        return _UNKNOWN

    # -- registers ---------------------------------------------------------------------------

    def _values(self) -> dict[str, int]:
        values = self._debug.call(state.read_registers, self._world)
        assert isinstance(values, dict)
        return values

    @staticmethod
    def _hex(register: Register, value: int | None) -> str:
        size = register.bits // 8
        if value is None:
            return "xx" * size
        return (value & (1 << register.bits) - 1).to_bytes(size, "little").hex()

    def _read_all(self, _rest: str) -> bytes:
        values = self._values()
        return "".join(self._hex(each, values.get(each.name)) for each in self._described.registers).encode()

    def _read_one(self, rest: str) -> bytes:
        number = int(rest, 16)
        found = self._described.registers
        if number >= len(found):
            return _BAD
        return self._hex(found[number], self._values().get(found[number].name)).encode()

    def _write_one(self, rest: str) -> bytes:
        number, _, value = rest.partition("=")
        register = self._described.registers[int(number, 16)]
        return self._write(register, value)

    def _write(self, register: Register, text: str) -> bytes:
        value = int.from_bytes(bytes.fromhex(text), "little")
        return _OK if self._debug.edit(state.write_register, self._world, register.name, value) else _BAD

    def _write_all(self, rest: str) -> bytes:
        at, before = 0, self._values()
        for register in self._described.registers:
            size = register.bits // 4
            text, at = rest[at : at + size], at + size
            if len(text) == size and "x" not in text and text != self._hex(register, before.get(register.name)):
                self._write(register, text)
        return _OK

    # -- memory ------------------------------------------------------------------------------

    def _read_memory(self, rest: str) -> bytes:
        match = _MEMORY.match(rest)
        if match is None:
            return b"E22"
        address, size = int(match[1], 16), min(int(match[2], 16), packets.LARGEST // 2 - 4)
        data = self._debug.call(state.read_memory, self._world, address, size, self._physical)
        return data.hex().encode() if data or not size else _BAD

    def _write_memory(self, rest: str) -> bytes:
        place, _, text = rest.partition(":")
        return self._store(place, bytes.fromhex(text))

    def _write_binary(self, rest: bytes) -> bytes:
        place, _, data = rest.partition(b":")
        return self._store(place.decode("latin-1"), packets.unescape(data))

    def _store(self, place: str, data: bytes) -> bytes:
        match = _MEMORY.match(place)
        if match is None or int(match[2], 16) != len(data):
            return b"E22"
        if not data:
            return _OK
        done = self._debug.edit(state.write_memory, self._world, int(match[1], 16), data, self._physical)
        return _OK if done else _BAD

    # -- breakpoints -------------------------------------------------------------------------

    def _insert(self, rest: str) -> bytes:
        kind, address, size = self._place(rest)
        if kind not in "01234":
            return _UNKNOWN
        if (kind, address, size) in self._inserted:
            return _OK
        if kind in _WATCHES:
            added = self._debug.watch_memory(address, size, access=_WATCHES[kind], world=self._world)
        else:
            added = self._debug.break_at(address)
        self._inserted[kind, address, size] = added.number
        return _OK

    def _remove(self, rest: str) -> bytes:
        number = self._inserted.pop(self._place(rest), None)
        if number is not None and number in self._debug.breakpoints:
            self._debug.delete(number)
        return _OK

    @staticmethod
    def _place(rest: str) -> tuple[str, int, int]:
        kind, address, size = rest.split(";")[0].split(",")
        return kind, int(address, 16), int(size, 16)

    def forget(self) -> None:
        """The connection has ended: its breakpoints go."""
        for number in self._inserted.values():
            self._debug.breakpoints.pop(number, None)
        self._inserted.clear()

    # -- queries -----------------------------------------------------------------------------

    def _choose(self, rest: str) -> bytes:
        number = int(rest[1:], 16) if rest[1:] not in ("-1", "") else 0
        if rest[:1] == "g":
            if number and number not in THREADS:
                return _BAD
            self._thread = number or self._current
        return _OK

    def _is_alive(self, rest: str) -> bytes:
        return _OK if int(rest, 16) in self._threads() else _BAD

    def _query(self, rest: str) -> bytes:
        name, _, argument = rest.partition(":")
        if name == "Supported":
            self._described.takes_exec = "exec-events+" in argument.split(";")
            return _SUPPORTED.encode()
        if name == "Xfer" and argument.startswith("features:read:target.xml:"):
            return self._features(argument.rpartition(":")[2])
        if rest == "C":
            return f"QC{self._current:x}".encode()
        if name == "fThreadInfo":
            return ("m" + ",".join(f"{number:x}" for number in self._threads())).encode()
        if name == "sThreadInfo":
            return b"l"
        if rest.startswith("ThreadExtraInfo,"):
            return self._about(int(rest.partition(",")[2], 16)).encode().hex().encode()
        if rest.startswith("Rcmd,"):
            return self._monitor(bytes.fromhex(rest[5:]).decode("utf-8", "replace"))
        if rest.startswith("Attached"):
            return b"1"
        if rest == "qemu.PhyMemMode":
            return b"1" if self._physical else b"0"
        return _UNKNOWN

    def _features(self, place: str) -> bytes:
        offset, size = (int(part, 16) for part in place.split(","))
        if offset == 0:
            self._described.wide = self._debug.call(state.mode_of)[1]
        text = self._described.text.encode()
        part = text[offset : offset + min(size, packets.LARGEST // 2)]
        return (b"m" if offset + len(part) < len(text) else b"l") + packets.escape(part)

    def _about(self, thread: int) -> str:
        world = THREADS[thread]
        return f"{world}, on the processor" if thread == self._current else f"{world}, state saved"

    def _monitor(self, line: str) -> bytes:
        try:
            text = self._console.execute(line)
        except HvprotoError as error:
            text = str(error)
        self._console.done = False
        # GDB shows what it has cached, also after a command that goes elsewhere: say so.
        return (text + "\n").encode("utf-8", "replace").hex().encode() if text else _OK

    def _set(self, rest: str) -> bytes:
        if rest == "StartNoAckMode":
            self.acknowledges = False
            return _OK
        if rest.startswith("qemu.PhyMemMode:"):
            self._physical = rest.endswith("1")
            return _OK
        return _UNKNOWN
