"""Standard input, as kernels get it on COM1 and on the keyboard: from files, pipes, and terminals."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command import COMMAND, environment, write
from tests.support.kernels import POSTLUDE, PRELUDE

POLLING = """
        PUTC '>'
again:  mov dx, 0x3fd
.wait:  in al, dx
        test al, 1
        jz .wait
        mov dx, 0x3f8
        in al, dx
        cmp al, '.'
        je done
        out 0xe9, al
        jmp again
done:   mov al, 2
        out 0xf4, al
"""
"""Echoes until a full stop, looking at the line status in a loop."""

BY_INTERRUPT = """
        GATE 0x24, on_serial, 0x8e00
        mov al, 0xef
        out 0x21, al
        mov dx, 0x3f9
        mov al, 1
        out dx, al
        mov dx, 0x3fc
        mov al, 0x0b
        out dx, al
        PUTC '>'
again:  sti
        hlt
        jmp again
on_serial:
        push eax
        push edx
        mov dx, 0x3f8
        in al, dx
        cmp al, '.'
        je done
        out 0xe9, al
        EOI
        pop edx
        pop eax
        iretd
done:   mov al, 2
        out 0xf4, al
"""
"""The same by IRQ 4, halted in between."""

DEAF = "PUTC 'x'\nsti\nhlt\n"
KEYBOARD = """
        PUTC '>'
again:  in al, 0x64
        test al, 1
        jz again
        in al, 0x60
        out 0xe9, al
        cmp al, 0xb4            ; the full stop's release
        jne again
        mov al, 2
        out 0xf4, al
"""


@pytest.fixture
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path, "kernel.asm", PRELUDE + request.param + POSTLUDE)


def boot(image: Path, given: bytes | int, *options: str, timeout: int = 60) -> subprocess.CompletedProcess[bytes]:
    source = {"input": given} if isinstance(given, bytes) else {"stdin": given}
    return subprocess.run(
        [*COMMAND, "boot", str(image), *options],
        env=environment(), capture_output=True, timeout=timeout, check=False, **source,
    )  # fmt: skip


@pytest.mark.parametrize("image", [POLLING, BY_INTERRUPT], ids=["polling", "interrupt"], indirect=True)
def test_a_pipe_reaches_the_serial_port(image: Path) -> None:
    text = bytes(range(0x80, 0x100)) + b"some words\r\n"
    done = boot(image, text + b".never read")
    assert (done.returncode, done.stdout, done.stderr) == (5, b">" + text, b"")


@pytest.mark.parametrize("image", [POLLING, BY_INTERRUPT], ids=["polling", "interrupt"], indirect=True)
def test_a_conversation_by_pipes(image: Path) -> None:
    """Each answer is out before the next question comes: nothing waits for the end of the input."""
    process = subprocess.Popen(
        [*COMMAND, "boot", str(image)], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.read(1) == b">"
        for word in (b"one", b"two"):
            process.stdin.write(word)
            process.stdin.flush()
            assert process.stdout.read(3) == word
            time.sleep(0.4)  # longer than the machine has patience
        process.stdin.write(b".")
        process.stdin.flush()
        assert process.wait(30) == 5
    finally:
        process.kill()


@pytest.mark.parametrize("image", [BY_INTERRUPT], ids=["interrupt"], indirect=True)
@pytest.mark.parametrize("given", [b"", b"abc"])
def test_at_the_end_of_the_input_a_halted_kernel_has_ended(image: Path, given: bytes) -> None:
    done = boot(image, given)
    assert (done.returncode, done.stdout, done.stderr) == (0, b">" + given, b"")


@pytest.mark.parametrize("image", [POLLING], ids=["polling"], indirect=True)
def test_without_input_a_kernel_that_polls_goes_on(image: Path) -> None:
    done = boot(image, subprocess.DEVNULL, "--limit", "1000000")
    assert (done.returncode, done.stdout) == (1, b">") and b"limit of 1,000,000" in done.stderr


@pytest.mark.parametrize("image", [DEAF, POLLING], ids=["deaf", "polling"], indirect=True)
def test_a_silent_pipe_keeps_nobody_waiting(image: Path) -> None:
    reader, writer = os.pipe()
    try:
        done = boot(image, reader, "--limit", "2000000")
    finally:
        os.close(reader)
        os.close(writer)
    assert (done.returncode, done.stdout) in ((0, b"x"), (1, b">"))


@pytest.mark.parametrize("image", [BY_INTERRUPT], ids=["interrupt"], indirect=True)
def test_closed_standard_input_is_no_input(image: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *COMMAND, "boot", str(image)], env=environment(), capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b">", b"")


@pytest.mark.parametrize("image", [KEYBOARD], ids=["keyboard"], indirect=True)
def test_standard_input_as_keys(image: Path) -> None:
    done = boot(image, b"a\n.", "--keyboard")
    assert (done.returncode, done.stdout) == (5, b">" + bytes((0x1E, 0x9E, 0x1C, 0x9C, 0x34, 0xB4)))


# -- terminals -------------------------------------------------------------------------------


@contextmanager
def at_a_terminal(image: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """The command in the foreground of a terminal of its own: process, our end of the terminal, and its own end."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "boot", str(image), *options],
        env=environment(), stdin=its, stdout=its, stderr=its, start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # makes it the controlling one
    )  # fmt: skip
    try:
        yield process, ours, its
    finally:
        process.kill()
        process.wait()
        os.close(its)
        os.close(ours)


def read(terminal: int, count: int) -> bytes:
    """So many bytes of what the terminal shows; less if it shows nothing for 20 seconds."""
    shown = b""
    while len(shown) < count and select.select([terminal], [], [], 20)[0]:
        shown += os.read(terminal, count - len(shown))
    return shown


def is_raw(terminal: int) -> bool:
    return not termios.tcgetattr(terminal)[3] & (termios.ICANON | termios.ECHO)


def wait_until_raw(terminal: int) -> None:
    """Until the kernel has looked for input: what is typed before is echoed by the terminal itself."""
    end = time.monotonic() + 20
    while not is_raw(terminal) and time.monotonic() < end:
        time.sleep(0.02)
    assert is_raw(terminal)


@pytest.mark.parametrize("image", [POLLING, BY_INTERRUPT], ids=["polling", "interrupt"], indirect=True)
def test_keys_go_to_the_kernel_one_by_one(image: Path) -> None:
    with at_a_terminal(image) as (process, ours, its):
        before = termios.tcgetattr(its)
        assert read(ours, 1) == b">"
        wait_until_raw(its)
        for key in (b"k", b"\x01", b"\r"):
            os.write(ours, key)
            assert read(ours, 1) == key  # the kernel's echo, without Enter; and there is no other
        os.write(ours, b".")
        assert process.wait(30) == 5
        assert termios.tcgetattr(its) == before


@pytest.mark.parametrize("image", [POLLING, BY_INTERRUPT], ids=["polling", "interrupt"], indirect=True)
@pytest.mark.parametrize(
    ("end", "status"), [("key", 130), (signal.SIGTERM, -15), (signal.SIGHUP, -1)], ids=["ctrl-c", "term", "hup"]
)
def test_the_terminal_is_given_back(image: Path, end: str | int, status: int) -> None:
    with at_a_terminal(image) as (process, ours, its):
        before = termios.tcgetattr(its)
        assert read(ours, 1) == b">"
        wait_until_raw(its)
        os.write(ours, b"k")
        assert read(ours, 1) == b"k"
        if isinstance(end, str):
            os.write(ours, b"\x03")
        else:
            process.send_signal(end)
        assert process.wait(30) == status
        assert termios.tcgetattr(its) == before


@pytest.mark.parametrize("image", [DEAF], ids=["deaf"], indirect=True)
def test_a_kernel_that_looks_for_no_input_ends_as_ever(image: Path) -> None:
    with at_a_terminal(image) as (process, ours, its):
        assert read(ours, 1) == b"x"
        assert process.wait(30) == 0
        assert not is_raw(its)
