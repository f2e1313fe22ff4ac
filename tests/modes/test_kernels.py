"""The sample kernels, one for each mode of the processor: the same words on every machine, all well at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvproto.images.load import load_image
from hvproto.machine.machine import Machine
from tests.modes.machines import QEMU, available, run_bochs, run_qemu

FOLDER = Path(__file__).parents[2] / "guests" / "modes"
EXPECTED = Path(__file__).with_name("expected")
NAMES = sorted(path.stem for path in FOLDER.glob("*.asm"))
NOT_ON_QEMU = {"debug_more": "QEMU 7 has no DR7.GD, and takes INT1 for its own debugger's breakpoint"}
RAM = 16 << 20
CYCLES = 20_000_000
"""More than any of them needs: one that hangs ends with an error."""
ALL_WELL = 2 * 0 + 1


def expected(name: str) -> str:
    return (EXPECTED / f"{name}.txt").read_text("ascii")


def test_each_kernel_has_its_expected_text() -> None:
    assert [path.stem for path in sorted(EXPECTED.glob("*.txt"))] == NAMES
    for name in NAMES:
        *checks, last = expected(name).splitlines()
        assert checks and last == "done" and all(line.endswith(": ok") for line in checks)


@pytest.mark.parametrize("name", NAMES)
def test_on_our_machine(name: str, engine: str) -> None:
    machine = Machine(RAM, engine=engine)
    machine.load(load_image(FOLDER / f"{name}.asm"))
    try:
        status = machine.run(CYCLES)
    finally:
        # How far it came says more than how it ended.
        printed = machine.debug_output.decode("latin-1")
        print(printed)
    assert (printed, status) == (expected(name), ALL_WELL)


@pytest.mark.skipif(not available(QEMU), reason="QEMU is not installed")
@pytest.mark.parametrize("processor", ["", "max,vendor=GenuineIntel"])
@pytest.mark.parametrize("name", NAMES)
def test_on_qemu(name: str, processor: str) -> None:
    if name in NOT_ON_QEMU:
        pytest.skip(NOT_ON_QEMU[name])
    outcome = run_qemu(FOLDER / f"{name}.asm", processor)
    assert (outcome.output, outcome.status) == (expected(name), ALL_WELL), outcome.log


@pytest.mark.skipif(not available("bochs"), reason="Bochs is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_on_bochs(name: str) -> None:
    outcome = run_bochs(FOLDER / f"{name}.asm")
    assert outcome.output == expected(name), outcome.log[-2000:]
