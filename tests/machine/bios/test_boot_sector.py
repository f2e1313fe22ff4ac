"""The bundled boot sector: the same words on our machine and on QEMU's, with its firmware."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hvproto.images.load import load_image
from hvproto.machine.machine import Machine
from tests.modes.machines import QEMU, SECONDS, available

SOURCE = Path(__file__).parents[3] / "guests" / "boot" / "bootsector.asm"
ALL_WELL = 2 * 0 + 1
CHECKS = 17


def check(printed: str) -> None:
    *checks, last = printed.splitlines()
    assert last == "done" and len(checks) == CHECKS and all(line.endswith(": ok") for line in checks), printed


def test_on_our_machine(engine: str) -> None:
    image = load_image(SOURCE)
    machine = Machine(16 << 20, image.disk, engine=engine)
    machine.boot_disk(image)
    try:
        status = machine.run(50_000_000)
    finally:
        print(machine.debug_output.decode("latin-1"))
    check(machine.debug_output.decode("latin-1"))
    assert status == ALL_WELL
    assert bytes(machine.ram.view[0xB8000:0xB8016:2]) == b"boot sector"


@pytest.mark.skipif(not available(QEMU), reason="QEMU is not installed")
def test_on_qemu(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(load_image(SOURCE).disk)
    command = [QEMU, "-drive", f"file={disk},format=raw", "-debugcon", "stdio", "-accel", "tcg", "-no-reboot"]
    command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-net", "none"]
    command += ["-display", "none", "-monitor", "none", "-serial", "none"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    check(ended.stdout)
    assert ended.returncode == ALL_WELL, ended.stderr
