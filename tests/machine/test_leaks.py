"""Machines that nobody has any more are gone: at once, without the help of the garbage collector."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MACHINES = 200
ALLOWED_MIB = 200
EXPECTED_MIB = 20
"""What such a process really grows by is below one; a single machine costs several."""

SCRIPT = """
import gc, sys, weakref
from hvproto.errors import RunError
from hvproto.machine.machine import Machine
from tests.support.kernels import TICK, kernel

gc.disable()
engine, count = sys.argv[1], int(sys.argv[2])
good = kernel("GATE 0x20, tick, 0x8e00\\nSET_TIMER 50\\nagain: sti\\nhlt\\ncmp dword ptr [ticks], 5\\njb again\\n"
              "PUTC 'x'\\nmov al, 0\\nout 0xf4, al\\n" + TICK)
bad = kernel("mov eax, 0xd0000000\\njmp eax")

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

def one(number):
    machine = Machine(8 << 20, engine=engine)
    machine.ram.view[0x200000:] = bytes(6 << 20)
    machine.load(bad if number % 10 == 9 else good)
    machine.processor.engine.protect(0x7000, 0x1000, on=True)
    machine.processor.engine.plant(0x100000)
    machine.processor.is_trap = lambda address: False
    context = machine.processor.save_context()
    try:
        assert machine.run() == 1
    except RunError:
        assert number % 10 == 9
    machine.processor.restore_context(context)
    return weakref.ref(machine), weakref.ref(machine.processor), weakref.ref(machine.processor.engine)

for number in range(5):
    one(number)
before = resident()
peak = before
for number in range(count):
    assert [ref() for ref in one(number)] == [None] * 3, "a machine outlives its last reference"
    peak = max(peak, resident())
print(round(peak - before, 1))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to measure itself")
def test_machines_leave_nothing_behind(engine: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, engine, str(MACHINES)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    growth = float(done.stdout)
    assert growth < ALLOWED_MIB
    assert growth < EXPECTED_MIB
