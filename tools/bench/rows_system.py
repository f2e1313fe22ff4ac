"""Rows of a whole operating system under load, which isn't part of this repository: `hvproto bench --system IMAGE`.

What counts is the time from its prompt on COM1 to the prompt after the last of the commands: bare, as a mirrored guest,
and in QEMU, whose clock runs on in real time.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import yardsticks
from bench.measure import Row, Sizes
from bench.rig import Rig
from hvproto.errors import LimitReached
from hvproto.images.load import load_image
from hvproto.machine.machine import Machine

RAM = 256 << 20
POOL = 16384
"""Pages for mirrors: one of all of RAM, in both views, takes 256."""
SLICE = 200_000
PATIENCE = 120.0
"""Seconds that a prompt may take, after which something is wrong."""


@dataclass(frozen=True, slots=True)
class System:
    """A disk image with a boot sector; what its shell is to do, and what that prints when it waits."""

    image: str
    commands: tuple[str, ...]
    disk: str | None = None
    """The file of its second disk."""
    prompt: bytes = b"$ "


def _after(start: float) -> None:
    if time.perf_counter() - start > PATIENCE:
        raise OSError("the system's prompt didn't come")


def bare(system: System, _sizes: Sizes) -> float:
    disk = None if system.disk is None else Path(system.disk).read_bytes()
    machine = Machine(RAM, Path(system.image).read_bytes(), second_disk=disk)
    machine.boot_disk()

    def wait() -> None:
        start = time.perf_counter()
        while not machine.serial_output.endswith(system.prompt):
            try:
                machine.run(machine.processor.now + SLICE)
            except LimitReached:
                _after(start)

    wait()
    begin = time.perf_counter()
    for command in system.commands:
        machine.serial_output += b"\n"
        machine.feed(command.encode() + b"\n")
        wait()
    return time.perf_counter() - begin


def mirrored(system: System, _sizes: Sizes) -> float:
    disk = b"" if system.disk is None else Path(system.disk).read_bytes()
    rig = Rig(load_image(system.image), RAM, pool=POOL, disk=disk)
    rig.run_until(system.prompt, PATIENCE)
    begin = time.perf_counter()
    for command in system.commands:
        rig.output += b"\n"
        rig.guest.feed(command.encode() + b"\n")
        rig.run_until(system.prompt, PATIENCE)
    return time.perf_counter() - begin


def qemu(system: System, _sizes: Sizes) -> float:
    assert yardsticks.QEMU is not None
    arguments = ["-accel", "tcg", "-nographic", "-snapshot", "-smp", "1", "-m", str(RAM >> 20)]
    for number, path in enumerate(path for path in (system.image, system.disk) if path is not None):
        arguments += ["-drive", f"file={path},index={number},media=disk,format=raw"]
    pipe = subprocess.PIPE
    with subprocess.Popen([yardsticks.QEMU, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0) as running:
        assert running.stdin is not None and running.stdout is not None
        output = b""

        def wait() -> None:
            nonlocal output
            assert running.stdout is not None
            start = time.perf_counter()
            while not output.endswith(system.prompt):
                if not select.select([running.stdout], [], [], 1)[0]:
                    _after(start)
                    continue
                got = os.read(running.stdout.fileno(), 1 << 16)
                if not got:
                    raise OSError("QEMU ended before the system's prompt")
                output += got

        try:
            wait()
            begin = time.perf_counter()
            for command in system.commands:
                output += b"\n"
                running.stdin.write(command.encode() + b"\n")
                wait()
            return time.perf_counter() - begin
        finally:
            running.kill()


def rows(system: System | None) -> list[Row]:
    """Two rows; without a system they say how to give one."""
    given = system or System("", ())
    missing = "" if system else "no system is given: --system IMAGE"
    if system and not yardsticks.QEMU:
        missing = "qemu-system-i386 isn't installed"
    yardstick = partial(qemu, given)
    return [
        Row("system", "a small operating system, bare", "x QEMU's time", 2, partial(bare, given), yardstick,
            missing=missing),
        Row("system-hosted", "... as a mirrored guest", "x QEMU's time", 5, partial(mirrored, given), yardstick,
            missing=missing),
    ]  # fmt: skip
