"""The sample kernels of `guests/boot` that a multiboot loader starts, here and on QEMU."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.machine.clock import CYCLES_PER_SECOND
from tests.modes.machines import QEMU, SECONDS, flat
from tests.support.command import ROOT, write

SAMPLES = ROOT / "guests" / "boot"
TERMINAL, FILESYSTEM = SAMPLES / "terminal.asm", SAMPLES / "filesystem.asm"
RAM = 16 << 20
CYCLES = CYCLES_PER_SECOND
"""More than anything that the tests wait for: a second of virtual time."""
ALL_WELL, FAILED = 2 * 0 + 1, 2 * 1 + 1
"""Exit statuses after the kernels' values for the debug exit port."""


@cache
def sample(path: Path) -> Image:
    """A kernel, assembled once for all tests."""
    return load_image(path)


def qemu(directory: Path, path: Path, *options: str) -> tuple[int, str]:
    """Exit status and COM1 of QEMU with this kernel."""
    file = write(directory, "kernel", flat(sample(path)))
    command = [QEMU, "-kernel", str(file), "-serial", "stdio", "-accel", "tcg", "-no-reboot", *options]
    command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-net", "none", "-display", "none"]
    command += ["-monitor", "none"]
    ended = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    return ended.returncode, ended.stdout
