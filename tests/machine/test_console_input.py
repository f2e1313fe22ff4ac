"""Bytes from outside and virtual time: what a kernel gets when, wherever the bytes come from."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hvproto.cli.console import StandardInput
from hvproto.errors import LimitReached, World
from hvproto.machine.clock import CYCLES_PER_SECOND
from hvproto.machine.console_input import SerialSink
from hvproto.machine.machine import Machine
from tests.support.kernels import booted, word

TEXT = bytes(range(1, 200))

LISTENER = """
        GATE 0x20, tick, 0x8e00
        GATE 0x24, on_serial, 0x8e00
        SET_TIMER 1000
        mov al, 0xee
        out 0x21, al
        mov dx, 0x3fb
        mov al, 0x80
        out dx, al
        mov dx, 0x3f8
        mov al, {divisor}
        out dx, al
        mov dx, 0x3fb
        mov al, 3
        out dx, al
        mov dx, 0x3fc
        mov al, 0x0b
        out dx, al
        mov dx, 0x3f9
        mov al, 1
        out dx, al
        sti
again:  {idle}
        jmp again
on_serial:
        push eax
        push edx
        mov dx, 0x3f8
        in al, dx
        mov edx, [count]
        mov [text + edx], al
        mov eax, [ticks]
        mov [when + 4 * edx], eax
        inc dword ptr [count]
        cmp byte ptr [text + edx], 199
        je done
        EOI
        pop edx
        pop eax
        iretd
done:   mov al, 0
        out 0xf4, al
tick:   inc dword ptr [ticks]
        EOI
        iretd
count:  .long 0
text:   .space 256
when:   .space 1024
"""
"""Notes each byte that interrupts, and the tick of a timer of some 1,193 Hz at which it came."""


def contents(machine: Machine, name: str, size: int) -> bytes:
    at = machine.images[World.GUEST].symbols[name]
    return bytes(machine.ram.view[at : at + size])


@contextmanager
def pipe_of(pieces: list[bytes], pause: float) -> Iterator[int]:
    """A pipe into which somebody writes so, with a pause before each piece."""
    reader, writer = os.pipe()

    def write() -> None:
        for piece in pieces:
            time.sleep(pause)
            os.write(writer, piece)
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield reader
    finally:
        thread.join()
        os.close(reader)


def listen(engine: str, descriptor: int, *, divisor: int = 1, idle: str = "hlt") -> tuple[int, bytes]:
    """Have the kernel listen until the last byte: virtual time, and the whole RAM."""
    machine = booted(engine, LISTENER.format(divisor=divisor, idle=idle))
    machine.connect(StandardInput(descriptor), SerialSink(machine.board.uart))
    assert machine.run(CYCLES_PER_SECOND) == 1
    assert contents(machine, "text", len(TEXT)) == TEXT
    return machine.processor.now, bytes(machine.ram.view)


@pytest.mark.parametrize("idle", ["hlt", "nop"])
def test_a_run_is_the_same_whatever_the_bytes_come_from(engine: str, idle: str, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(TEXT)
    with path.open("rb") as file:
        expected = listen(engine, file.fileno(), idle=idle)
    with pipe_of([TEXT], 0) as pipe:
        assert listen(engine, pipe, idle=idle) == expected
    with pipe_of([TEXT[at : at + 20] for at in range(0, len(TEXT), 20)], 0.03) as pipe:
        assert listen(engine, pipe, idle=idle) == expected


@pytest.mark.parametrize("divisor", [1, 12])
def test_bytes_come_at_the_speed_that_is_programmed(engine: str, divisor: int) -> None:
    with pipe_of([TEXT], 0) as pipe:
        now, _ = listen(engine, pipe, divisor=divisor)
    at_least = (len(TEXT) - 1) * 10 * CYCLES_PER_SECOND * divisor // 115_200
    assert at_least <= now <= 1.1 * at_least


def test_bytes_that_are_fed_wait_for_the_guest(engine: str) -> None:
    machine = booted(engine, LISTENER.format(divisor=1, idle="hlt"))
    machine.feed(TEXT)
    assert machine.run(CYCLES_PER_SECOND) == 1
    assert word(machine, "count") == len(TEXT) and contents(machine, "text", len(TEXT)) == TEXT


def test_feeding_while_it_runs(engine: str) -> None:
    machine = booted(engine, LISTENER.format(divisor=1, idle="hlt"))
    with pytest.raises(LimitReached):
        machine.run(100_000)
    assert word(machine, "count") == 0
    machine.feed(TEXT)
    assert machine.run(CYCLES_PER_SECOND) == 1 and contents(machine, "text", len(TEXT)) == TEXT


def test_a_driver_that_empties_its_port_as_it_starts_loses_nothing(engine: str, tmp_path: Path) -> None:
    """It enables the interrupt first, reads away what may have been there, and never sets OUT2."""
    path = tmp_path / "input"
    path.write_bytes(b"ab")
    machine = booted(
        engine,
        """
        mov dx, 0x3f9
        mov al, 1
        out dx, al
        mov ecx, 50
clear:  mov dx, 0x3fa
        in al, dx
        mov dx, 0x3f8
        in al, dx
        loop clear
        GATE 0x24, on_serial, 0x8e00
        mov al, 0xef
        out 0x21, al
        sti
again:  hlt
        jmp again
on_serial:
        mov dx, 0x3f8
        in al, dx
        out 0xe9, al
        cmp al, 'b'
        je done
        EOI
        iretd
done:   mov al, 0
        out 0xf4, al
        hlt
""",
    )
    with path.open("rb") as file:
        machine.connect(StandardInput(file.fileno()), SerialSink(machine.board.uart))
        assert machine.run(CYCLES_PER_SECOND) == 1
    assert machine.debug_output == b"ab"
