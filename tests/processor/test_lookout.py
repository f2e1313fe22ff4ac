"""Instructions that are looked at, and others at the same linear address in another address space.

A hook of the engine has a linear address. Who has another instruction there is not to notice, in time either; and the
instruction that the hook is for is looked at as ever when its address space is back.
"""

from __future__ import annotations

from hvproto.processor.processor import Stop
from hvproto.processor.settings import CR0_ET, CR0_PE, CR0_PG, CR0_WP, Setting
from tests.support.bench import DATA, KERNEL_STACK, NEVER, STUBS, Bench

DIRECTORY, TABLE = 0x40000, 0x41000
WATCHED, PLAIN, FAULTING = DATA, DATA + 0x1000, DATA + 0x2000
"""Where the code lies that can be had at `DATA`."""
ENTRY = TABLE + 4 * (DATA >> 12)
CODE = {
    WATCHED: b"\x90\x0f\x31\xc3",  # nop; rdtsc; ret
    PLAIN: b"\x90\x01\xc1\xc3",  # nop; add ecx, eax; ret
    FAULTING: b"\x90\x03\x0b\xc3",  # nop; add ecx, [ebx]; ret
}


def paged(engine: str) -> Bench:
    """A page table with what is at `DATA` still to choose, and an RDTSC elsewhere: its hook isn't the only one."""
    bench = Bench(engine)
    bench.store(DIRECTORY, *([0] * 1024))
    bench.store(DIRECTORY, TABLE | 7)
    bench.store(TABLE, *(page << 12 | 7 for page in range(256)))
    for place, code in CODE.items():
        bench.view[place : place + len(code)] = code
    bench.cpu.write_setting(Setting.CR3, DIRECTORY)
    bench.cpu.write_setting(Setting.CR0, CR0_PE | CR0_ET | CR0_PG | CR0_WP)
    bench.go("rdtsc\nhlt")
    return bench


def call(place: int) -> str:
    """Code that calls, at `DATA`, what lies there; EAX, EBX, ECX and EDX are its results."""
    return f"""
    mov dword ptr [{ENTRY}], {place | 7}
    mov esi, cr3
    mov cr3, esi
    mov esi, {DATA}
    call esi
"""


def test_a_watched_instruction_is_looked_at_again_after_another_at_its_address(engine: str) -> None:
    bench = paged(engine)
    bench.go(call(WATCHED) + call(PLAIN) + call(WATCHED) + "hlt")
    assert bench.cpu.gpr(2) == 0 and bench.cpu.gpr(0) < 1000, "virtual time, not the computer's time-stamp counter"


def test_another_instruction_at_a_watched_address_takes_its_time_and_no_more(engine: str) -> None:
    times = []
    for first in (WATCHED, FAULTING):
        bench = paged(engine)
        bench.go(call(first) + "hlt", ebx=DATA)
        bench.code(call(PLAIN) * 3 + call(WATCHED) + call(PLAIN) + "hlt")
        began = bench.cpu.engine.now
        bench.set(eax=5, ecx=0)
        bench.cpu.run(began + 10_000)
        assert bench.cpu.gpr(1) > 15
        times.append(bench.cpu.engine.now - began)
    assert times[0] == times[1]


def test_a_run_that_ends_before_the_other_instruction_leaves_the_hook_in_its_place(engine: str) -> None:
    bench = paged(engine)
    bench.go(call(WATCHED) + call(PLAIN).replace("call esi", "hlt"))
    cpu = bench.cpu
    cpu.eip = DATA
    assert cpu.run(cpu.engine.now) is Stop.DEADLINE and cpu.eip == DATA, "translated and no more"
    bench.store(ENTRY, WATCHED | 7)
    cpu.engine.flush_tlb()
    bench.store(KERNEL_STACK - 4, STUBS)
    bench.set(esp=KERNEL_STACK - 4, eax=-1, edx=-1)
    assert cpu.run(NEVER) is Stop.HALT
    assert cpu.gpr(2) == 0 and cpu.gpr(0) < 1000


def test_flags_are_right_where_another_instruction_faults(engine: str) -> None:
    """An instruction with a hook on it would have wrong flags in its fault's frame."""
    bench = paged(engine)
    arrived = bench.provoke(
        call(WATCHED) + call(FAULTING).replace("call esi", "mov edi, 0x80000000\nadd edi, edi\njmp esi"),
        ebx=0x7F000000,
    )
    assert (arrived.vector, arrived.frame[1]) == (14, DATA + 1)
    assert arrived.frame[3] & 0x8D5 == 0x845, "overflow, carry, zero and parity of the addition"
