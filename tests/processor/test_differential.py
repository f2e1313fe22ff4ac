"""The two engines against each other: the same program, the same RAM, registers and virtual time - at every stop."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hvproto.processor.engine import UnmappedAccess
from hvproto.processor.exceptions import Shutdown
from hvproto.processor.paging import A
from hvproto.processor.processor import Stop
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import EFLAGS_IF, Setting
from tests.support.bench import STUBS, Bench
from tests.support.page_tables import TABLES
from tests.support.random_programs import END_VECTOR, events_of, prepare, programs

ALLOWANCE = 8_000
STOPS = 60


class Bus:
    """Ports with a memory of their own: what is read depends on what was written."""

    def __init__(self) -> None:
        self.log: list[tuple[object, ...]] = []

    def read(self, port: int, size: int) -> int:
        self.log.append(("read", port, size))
        return len(self.log) * 0x01010101

    def write(self, port: int, size: int, value: int) -> None:
        self.log.append(("write", port, size, value))


def _observe(bench: Bench) -> tuple[object, ...]:
    cpu = bench.cpu
    return (
        cpu.now,
        cpu.instructions,
        cpu.registers(),
        cpu.cpl,
        cpu.cr2,
        tuple(cpu.segment(register) for register in SegmentRegister),
        tuple(cpu.read_setting(setting) for setting in Setting),
    )


def history(
    engine: str,
    slots: list[bytes],
    slices: list[int],
    interrupts: bool,
    changed: Callable[[Bench], None] = lambda _bench: None,
) -> tuple[list[object], Bench]:
    """Everything that can be seen of a run, slice by slice. ``changed``: something to be done before it."""
    bench = prepare(engine, slots)
    changed(bench)
    bus = Bus()
    bench.cpu.ports = bus
    bench.cpu.eflags = 2 | EFLAGS_IF
    seen: list[object] = []
    turn = 0
    try:
        while bench.cpu.now < ALLOWANCE:
            length = slices[turn % len(slices)] if turn < STOPS else ALLOWANCE
            turn += 1
            stop = bench.cpu.run(bench.cpu.now + length)
            seen.append((stop, *_observe(bench)))
            if stop is Stop.HALT:
                break
            if interrupts and bench.cpu.eflags & EFLAGS_IF and not bench.cpu.in_interrupt_shadow:
                bench.cpu.interrupt(0x50)
                seen.append(_observe(bench))
    except Shutdown as shutdown:
        seen.append(("shutdown", shutdown.faults))
    except UnmappedAccess as missing:
        seen.append(("missing", missing.kind, missing.physical))
    seen.append(bus.log)
    seen.append(hashlib.sha256(_memory(bench)).hexdigest())
    return seen, bench


def _memory(bench: Bench) -> bytes:
    """All of it, but for the accessed flags: the portable engine can't take back those of a walk that faults."""
    tables = slice(TABLES.start, TABLES.stop)
    content = bytearray(bench.view)
    entries = array("I", content[tables])
    content[tables] = array("I", (entry & ~A for entry in entries)).tobytes()
    return bytes(content)


# Its last byte is that of INS: the fault is the load's nevertheless.
@example(slots=[b"\x67\xa0\x00\x6d"], slices=[1], interrupts=False)
# SBB leaves ZF, a hook on LAR has the engine write it to its EFLAGS, and LAR clears it: an old value must not be pushed.
@example(slots=[b"\x0f\x0b"] * 12 + [b"\x18\xc0", b"\x0f\x02\xc0"], slices=[1], interrupts=False)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(programs, st.lists(st.sampled_from((1, 2, 7, 50, 1000, ALLOWANCE)), min_size=1, max_size=4), st.booleans())
def test_both_engines_agree(
    both_engines: tuple[str, str], slots: list[bytes], slices: list[int], interrupts: bool
) -> None:
    native, bench = history(both_engines[0], slots, slices, interrupts)
    portable, other = history(both_engines[1], slots, slices, interrupts)
    assert events_of(bench) == events_of(other)
    for number, (mine, theirs) in enumerate(zip(native, portable, strict=False)):
        assert mine == theirs, f"at stop {number}"
    assert len(native) == len(portable)
    assert _memory(bench) == _memory(other)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(programs)
def test_the_kernel_survives_and_the_program_ends(engine: str, slots: list[bytes]) -> None:
    seen, bench = history(engine, slots, [ALLOWANCE], False)
    assert len(seen) == 3
    if bench.cpu.now < ALLOWANCE:
        assert bench.cpu.eip == STUBS + 16 * END_VECTOR + 1 or len(events_of(bench)) == 512
