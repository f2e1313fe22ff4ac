"""Kernels of random bytes alone, and as mirrored guests of one machine: what each has come to.

The machine that guests run on is built once, and each guest anew; one that a kernel has for itself is used again as long
as its devices are as they were. To build machines takes longer than what is executed on them. Whatever a guest should
leave behind for the next one to find - in the processor, in its translated code, in the frames - would make the next one
differ from its twin, and every now and then one is executed on new machines.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hvproto.addresses import PAGE_SIZE
from hvproto.errors import NoMemory, RunError, TripleFault, World
from hvproto.events import EventBus
from hvproto.hypervisor import device_state
from hvproto.hypervisor.guest import Leave
from hvproto.hypervisor.hypervisor import Hypervisor
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.stay import ForHost
from hvproto.machine.machine import Machine
from hvproto.machine.ram import MIB
from hvproto.processor.cpu import Cpu
from hvproto.processor.portable import PortableEngine
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import Setting
from tests.hypervisor.random_kernels import RandomKernel
from tests.hypervisor.random_modes import MEMORY, ROOT, ROOT_END
from tests.hypervisor.stage import DISK, PATTERN, POOL_PAGES, shuffled_frames
from tests.hypervisor.whole_state import differences, everything

RAM = MEMORY + POOL_PAGES * PAGE_SIZE + MIB // 4
_BOOKKEEPING = 32
"""Bytes at the beginning of a context of Unicorn's that are about the context."""
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
    rewrote_tables: bool = False
    """Whether it was seen to have changed its page tables: there, the two may notice it at different times."""

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


class Alone:
    """A machine for kernels that have it for themselves, one after the other.

    Before each, memory is empty, and the processor as it was when it was new; a machine whose devices aren't makes way
    for another one. Translated code is forgotten as another kernel is loaded.
    """

    def __init__(self, engine: str | None = None) -> None:
        self._engine = engine
        self._output = bytearray()
        self._renew()

    def _renew(self) -> None:
        emit, self._touched = self._output.append, [False]
        machine = self._machine = Machine(MEMORY, DISK, engine=self._engine, on_serial=emit, on_debug=emit)
        self._pristine = machine.processor.save_context()
        space = machine.platform.space
        for owner, name in ((machine, "read"), (machine, "write"), (space, "read"), (space, "write")):
            setattr(owner, name, _touching(owner, name, self._touched))
        machine.model.write_msr = _touching(machine.model, "write_msr", self._touched)  # type: ignore[method-assign]
        self._devices = _devices(machine)

    def run(self, kernel: RandomKernel, cycles: int) -> Outcome:
        """Let a kernel run, to its end."""
        machine, processor, view = self._machine, self._machine.processor, self._machine.ram.view
        view[:] = _NOTHING
        processor.restore_context(self._pristine)
        processor.engine.now = 0
        self._touched[0] = kernel.mode.width == 64  # CR8 is a register of the APIC's
        self._output.clear()
        machine.load(kernel.image)
        kernel.mode.enter(processor, kernel.image.entry)
        tables = _without_marks(view)
        status, error, at_limit = None, None, False
        try:
            status = machine.run(cycles)
        except RunError as problem:
            at_limit = processor.now >= cycles
            error = problem.with_traceback(None)  # which holds this frame, and the machine
            error.__context__ = None
        rewrote = Setting.CR3 in kernel.mode.settings and bool((_without_marks(view) != tables).any())
        memory = np.frombuffer(bytes(view), np.uint64).reshape(-1, PAGE_SIZE // 8)
        outcome = Outcome(status, error, at_limit, bytes(self._output), registers_of(processor), memory, rewrote)
        if (
            machine.exit_value is not None
            or outcome.output
            or (self._touched[0] and _devices(machine) != self._devices)
        ):
            self._renew()
        return outcome


_NOTHING = bytes(MEMORY)


def _touching(owner: object, name: str, touched: list[bool]) -> Callable[..., Any]:
    """A method that is an access to devices, and says so. It doesn't hold its owner, who holds it."""
    access, weak = getattr(type(owner), name), weakref.proxy(owner)

    def noted(*arguments: int) -> Any:
        touched[0] = True
        return access(weak, *arguments)

    return noted


def _devices(machine: Machine) -> device_state.Devices:
    """The state of all that isn't memory or processor; who has been asked in vain counts for nothing."""
    machine.board.ports.unclaimed.clear()
    machine.platform.space.unclaimed.clear()
    roots = {"board": machine.board, "platform": machine.platform, "model": machine.model}
    return device_state.save(roots, machine.clock)


def _without_marks(memory: memoryview) -> np.ndarray[Any, np.dtype[np.uint32]]:
    return np.frombuffer(memory[ROOT:ROOT_END], np.uint32) & ~MARKS


class Inn:
    """A machine without a kernel, whose memory is a pattern, and one guest at a time in shuffled frames of it."""

    def __init__(self, engine: str | None = None) -> None:
        self.machine = Machine(RAM, DISK, world=World.HOST, engine=engine)
        self.is_portable = isinstance(self.machine.processor.engine, PortableEngine)
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
        self._host, self._host_at_once = everything(self.machine.processor), self._at_once()

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
            del guest.leave  # which holds the guest
        memory = self.rows[self._guest_rows]
        return Outcome(
            stay.status, stay.error, stay.leave is Leave.TIME, bytes(self._printed), registers, memory
        )  # fmt: skip

    def changes_of_host(self) -> list[str]:
        """What isn't as it was before the first guest came: pages outside all guests, the processor, its ports."""
        wrong = (self.rows[self.host_rows] != self._pattern).any(axis=1)
        found = [f"the host's page at {page * PAGE_SIZE:#x}" for page in self.host_rows[wrong]]
        if self._at_once() != self._host_at_once:
            found += differences(self._host, everything(self.machine.processor))
        machine = self.machine
        if machine.serial_output or machine.debug_output or machine.exit_value is not None:
            found.append("a port of the host's")
        return found

    def _at_once(self) -> bytes:
        """The engine's own state, which is the processor's and more: compared in a thirtieth of the time."""
        _, context = self.machine.processor.save_context()
        return bytes(context)[_BOOKKEEPING:]
