"""Kernels of random bytes alone, and as mirrored guests of one machine: what each has come to.

The machine that guests run on is built once, and each guest anew: that costs 2 ms, all of a machine with its host 20. The
machine that a kernel has for itself is built anew each time. So whatever a guest should leave behind for the next one to
find - in the processor, in its translated code, in the frames - would make the next one differ from its twin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hvproto.addresses import PAGE_SIZE
from hvproto.errors import NoMemory, RunError, TripleFault, World
from hvproto.events import EventBus
from hvproto.hypervisor.guest import Leave
from hvproto.hypervisor.hypervisor import Hypervisor
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.stay import ForHost
from hvproto.machine.machine import Machine
from hvproto.machine.ram import MIB
from hvproto.processor.cpu import Cpu
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import Setting
from tests.hypervisor.random_kernels import RandomKernel
from tests.hypervisor.random_modes import MEMORY, ROOT, ROOT_END
from tests.hypervisor.stage import DISK, PATTERN, POOL_PAGES, shuffled_frames
from tests.hypervisor.whole_state import differences, everything

RAM = 3 * MIB
MARKS = np.uint32(0x60)
"""A and D of a page table's entry."""
Rows = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass
class Outcome:
    """What a run has come to."""

    status: int | None
    error: RunError | None
    at_limit: bool
    output: bytes
    registers: dict[str, object]
    memory: Rows
    """Its physical memory, a row for each page."""
    rewrote: str = ""
    """What it has written to that the two may take up at different times, if it was seen to: its code, its tables."""

    @property
    def end(self) -> str:
        """The kind of end, with what is known about it but for the place."""
        if self.at_limit:
            return "runs on"
        match self.error:
            case TripleFault(faults=faults):
                return f"triple fault: {', '.join(map(str, faults))}"
            case NoMemory(access=access, physical=physical):
                return f"no memory for {access} at {physical:#x}"
            case None:
                return f"status {self.status}"
            case error:
                return f"{type(error).__name__}: {error.reason}"


def registers_of(cpu: Cpu) -> dict[str, object]:
    """What code can see of a processor, but for the FPU."""
    found: dict[str, object] = {f"r{n}": cpu.gpr(n) for n in range(16 if cpu.long_mode else 8)}
    found |= {"eip": cpu.eip, "eflags": cpu.eflags, "cr2": cpu.wrapped(cpu.cr2), "cpl": cpu.cpl}
    found |= {setting.name: cpu.read_setting(setting) for setting in Setting}
    return found | {register.name: cpu.segment(register) for register in SegmentRegister}


def alone(kernel: RandomKernel, engine: str | None, cycles: int) -> Outcome:
    """On a machine of its own."""
    output = bytearray()
    machine = Machine(MEMORY, DISK, engine=engine, on_serial=output.append, on_debug=output.append)
    machine.load(kernel.image)
    kernel.mode.enter(machine.processor, kernel.image.entry)
    view, code = machine.ram.view, list[tuple[int, bytes]]()

    def note(address: int, size: int) -> bool:
        code.append((address, bytes(view[address : address + size])))
        return False

    machine.processor.on_new_block = note
    tables = _without_marks(view)
    status, error, at_limit = None, None, False
    try:
        status = machine.run(cycles)
    except RunError as problem:
        at_limit = machine.processor.now >= cycles
        error = problem
    rewrote = ""
    if any(view[at : at + len(content)] != content for at, content in code):
        rewrote = "code"
    elif Setting.CR3 in kernel.mode.settings and (_without_marks(view) != tables).any():
        rewrote = "tables"
    memory = np.frombuffer(view, np.uint64).reshape(-1, PAGE_SIZE // 8)
    return Outcome(status, error, at_limit, bytes(output), registers_of(machine.processor), memory, rewrote)


def _without_marks(memory: memoryview) -> np.ndarray[Any, np.dtype[np.uint32]]:
    return np.frombuffer(memory[ROOT:ROOT_END], np.uint32) & ~MARKS


class Inn:
    """A machine without a kernel, whose memory is a pattern, and one guest at a time in shuffled frames of it."""

    def __init__(self, engine: str | None = None) -> None:
        self.machine = Machine(RAM, DISK, world=World.HOST, engine=engine)
        self.rows = np.frombuffer(self.machine.ram.view, np.uint64).reshape(-1, PAGE_SIZE // 8)
        self._printed = bytearray()
        self._hypervisor = Hypervisor(self.machine, [], Plan.parse("mirrored"), EventBus(), self._printed.append)
        pages = MEMORY // PAGE_SIZE
        frames = shuffled_frames(pages + POOL_PAGES, 1, RAM)
        self._memory_frames, self._pool_frames = frames[:pages], frames[pages:]
        self._guest_rows = np.array(self._memory_frames) // PAGE_SIZE
        self.host_rows = np.setdiff1d(np.arange(RAM // PAGE_SIZE), np.array(frames) // PAGE_SIZE)
        self._pattern = np.frombuffer(PATTERN * (PAGE_SIZE // len(PATTERN)), np.uint64)
        self.rows[:] = self._pattern
        self._host = everything(self.machine.processor)

    def host(self, kernel: RandomKernel, cycles: int) -> Outcome:
        """Let a kernel run as a guest, to its end."""
        self.rows[self._guest_rows] = 0
        self._printed.clear()
        guest = self._hypervisor.add_guest(kernel.image, self._memory_frames, self._pool_frames)
        assert isinstance(guest, MirroredGuest)
        kernel.mode.enter(guest.cpu, kernel.image.entry)
        registers: dict[str, object] = {}
        leave = guest.leave

        def note_and_leave() -> None:
            registers.clear()
            registers.update(registers_of(guest.cpu))
            leave()

        guest.leave = note_and_leave  # type: ignore[method-assign]
        try:
            stay = self._hypervisor.run_guest(guest, cycles, for_host=ForHost.STANDS_STILL)
        finally:
            self._hypervisor.remove_guest(guest)
        memory = self.rows[self._guest_rows]
        return Outcome(
            stay.status, stay.error, stay.leave is Leave.TIME, bytes(self._printed), registers, memory
        )  # fmt: skip

    def changes_of_host(self) -> list[str]:
        """What isn't as it was before the first guest came: pages outside all guests, the processor, its ports."""
        wrong = (self.rows[self.host_rows] != self._pattern).any(axis=1)
        found = [f"the host's page at {page * PAGE_SIZE:#x}" for page in self.host_rows[wrong]]
        found += differences(self._host, everything(self.machine.processor))
        machine = self.machine
        if machine.serial_output or machine.debug_output or machine.exit_value is not None:
            found.append("a port of the host's")
        return found
