"""IRET done in Python against the engine's own, on the same code in each mode; every case of the oracles does more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hvproto.processor.processor import Stop
from hvproto.processor.segments import Segment, SegmentRegister, TableRegister
from hvproto.processor.settings import CR0_ET, EFLAGS_FIXED, EFLAGS_IF, EFLAGS_IOPL, EFLAGS_TF, EFLAGS_VM, Setting
from tests.support import long_mode as wide
from tests.support.bench import (
    CODE0,
    CODE3,
    DATA0,
    DATA3,
    KERNEL_STACK,
    NEVER,
    ORIGIN,
    SEGMENTS,
    STUBS,
    USER_STACK,
    Bench,
)

NMI = 2
REAL_CODE, REAL_STACK = 0x2000, 0x0800
V86_CODE, V86_STACK = 0x2000, 0x0D00


def state(bench: Bench) -> dict[str, object]:
    cpu = bench.cpu
    found: dict[str, object] = {f"r{index}": cpu.gpr(index) for index in range(8)}
    found |= {"eip": cpu.eip, "eflags": cpu.eflags, "cpl": cpu.cpl, "nmi_blocked": cpu.nmi_blocked, "cr2": cpu.cr2}
    for register in SegmentRegister:
        segment = cpu.segment(register)  # what is hidden of a null one means nothing, but for the level
        found[register.name] = segment if segment.selector else segment.dpl
    return found | {"memory": bytes(bench.view[:0x10000])}


def on_both_ways(engine: str, prepare: Callable[[Bench], None], words: int = 0) -> Bench:
    """Run until HLT with the engine's IRET and with ours; all that can be seen is the same. Gives the latter."""
    benches = []
    for replaced in (False, True):
        bench = Bench(engine)
        if replaced:
            bench.cpu.replace_returns()
        prepare(bench)
        assert bench.cpu.run(NEVER) is Stop.HALT
        benches.append(bench)
    first, second = (state(bench) for bench in benches)
    assert {name: second[name] for name in second if second[name] != first[name]} == {}
    assert benches[1].cpu.now >= benches[0].cpu.now - 64
    return benches[1]


@pytest.mark.parametrize("flags", [EFLAGS_FIXED, 0x4DD7 & ~EFLAGS_TF, 0x24_3A97, 0x20_0202])
@pytest.mark.parametrize("level", [0, 3])
def test_protected_mode(engine: str, level: int, flags: int) -> None:
    def prepare(bench: Bench) -> None:
        frame = f"push {DATA3}\npush {USER_STACK}\n" if level else ""
        code = CODE3 if level else CODE0
        after = "int 0x40" if level else "hlt"
        bench.ring(0)
        bench.code(f"{frame}push {flags:#x}\npush {code}\npush there\niretd\nhlt\nthere: pushfd\npop ebx\n{after}")

    bench = on_both_ways(engine, prepare)
    assert bench.cpu.gpr(3) == flags & 0x24_7FD7


@pytest.mark.parametrize("level", [0, 3])
def test_sixteen_bits_leave_the_upper_halves(engine: str, level: int) -> None:
    def prepare(bench: Bench) -> None:
        stack = f"push word ptr {DATA3}\npush word ptr 0x7000\n" if level else ""
        after = "int 0x40" if level else "hlt"
        bench.ring(0)
        bench.code(
            f"push 0x240002\npopfd\n{stack}push word ptr 0x93\npush word ptr {CODE3 if level else CODE0}\n"
            f"push word ptr there\niretw\nhlt\nthere: pushfd\npop ebx\n{after}",
            origin=0x5000,
        )

    bench = on_both_ways(engine, prepare)
    assert bench.cpu.gpr(3) == 0x24_0093


def test_a_program_returns_within_its_ring(engine: str) -> None:
    def prepare(bench: Bench) -> None:
        bench.ring(3)
        bench.code(f"push 0x3203\npush {CODE3}\npush there\niretd\nhlt\nthere: int 0x40")

    on_both_ways(engine, prepare)


def real_mode(bench: Bench, text: str) -> None:
    cpu = bench.cpu
    bench.code(f".code16\n{text}", origin=ORIGIN)
    cpu.write_setting(Setting.CR0, CR0_ET)
    cpu.write_setting(Setting.IDTR, TableRegister(0, 0x3FF))
    attributes = SEGMENTS[DATA0].attributes & ~(1 << 22)
    segments = {register: Segment(0, 0, 0xFFFF, attributes) for register in SegmentRegister}
    segments[SegmentRegister.CS] = Segment(REAL_CODE, REAL_CODE << 4, 0xFFFF, SEGMENTS[CODE0].attributes & ~(1 << 22))
    segments[SegmentRegister.SS] = Segment(REAL_STACK, REAL_STACK << 4, 0xFFFF, attributes)
    cpu.set_segments(segments)
    bench.set(eip=0, esp=0xABCD_1000)


@pytest.mark.parametrize("flags", [2, 0x7CD7, 0x3202])
def test_real_mode(engine: str, flags: int) -> None:
    def prepare(bench: Bench) -> None:
        real_mode(
            bench,
            f"mov ax, {flags:#x}\npush ax\nmov ax, {REAL_CODE + 1:#x}\npush ax\nmov ax, there - {ORIGIN + 16}\npush ax\niret\n"
            "hlt\nnop\nnop\nnop\nnop\nnop\nthere: pushf\npop bx\nhlt",
        )

    bench = on_both_ways(engine, prepare)
    assert bench.cpu.gpr(3) & 0xFFFF == flags
    assert (bench.cpu.code.selector, bench.cpu.code.base, bench.cpu.esp) == (
        REAL_CODE + 1,
        ORIGIN + 16,
        0xABCD_1000,
    )


def test_real_mode_32_bits_keeps_vm_and_the_virtual_interrupt_flags_out(engine: str) -> None:
    def prepare(bench: Bench) -> None:
        real_mode(
            bench,
            f"push dword 0x243a97\npush dword 0x5555{REAL_CODE:04x}\npush dword there - {ORIGIN}\niretd\n"
            "hlt\nthere: pushfd\npop ebx\nhlt",
        )

    bench = on_both_ways(engine, prepare)
    assert (bench.cpu.gpr(3), bench.cpu.code.selector) == (0x24_3A97, REAL_CODE)


def test_beyond_the_limit_of_real_mode(engine: str) -> None:
    """The engine doesn't look: by the manual it is #GP, with nothing popped."""
    bench = Bench(engine)
    bench.cpu.replace_returns()
    bench.store(4 * 13, 0x0600_0000)  # to STUBS
    real_mode(bench, f"push dword 2\npush dword {REAL_CODE:#x}\npush dword 0x10000\nx: iretd")
    bench.view[0x6000] = 0xF4
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.cpu.code_address == 0x6001
    assert bench.cpu.esp == 0xABCD_1000 - 12 - 6


@pytest.mark.parametrize("iopl", [0, 3])
def test_virtual_8086_mode(engine: str, iopl: int) -> None:
    """Into it from ring 0; there another IRET, which IOPL decides about."""

    def prepare(bench: Bench) -> None:
        at = V86_CODE << 4
        inner = b"\x68\x13\x92" + b"\x68\x00\x20" + b"\x68\x20\x00" + b"\xcf"  # push 0x9213, 0x2000, 0x20; iret
        bench.view[at : at + len(inner)] = inner
        bench.view[at + 0x20 : at + 0x22] = b"\xcd\x40"
        frame = [0, V86_CODE, EFLAGS_FIXED | EFLAGS_VM | iopl << 12 | EFLAGS_IF, 0xF000, V86_STACK, 1, 2, 3, 4]
        bench.ring(0)
        bench.code("iretd", origin=0x30000)
        bench.store(KERNEL_STACK - 36, *frame)
        bench.set(esp=KERNEL_STACK - 36)

    bench = on_both_ways(engine, prepare)
    assert bench.arrival().vector == (0x40 if iopl else 13)
    if iopl:
        assert bench.arrival(9).frame[2:] == (
            EFLAGS_FIXED | EFLAGS_VM | EFLAGS_IOPL | 0x211,
            0xF000,
            V86_STACK,
            1,
            2,
            3,
            4,
        )


@pytest.mark.parametrize("program", ["64-bit", "compatibility", "kernel"])
def test_long_mode(engine: str, program: str) -> None:
    def prepare(bench: Bench) -> None:
        wide.build(bench)
        for setting, value in wide.LONG_SETTINGS.items():
            bench.cpu.write_setting(setting, value)
        code, stack = {
            "64-bit": (wide.WIDE3, DATA3),
            "compatibility": (CODE3, DATA3),
            "kernel": (wide.WIDE0, 0),
        }[program]
        end = "hlt" if program == "kernel" else "int 0x40"
        bench.code(
            f".code64\nmov eax, {stack}\npush rax\nmov eax, {USER_STACK}\npush rax\npush 0x203\nmov eax, {code}\npush rax\n"
            f"lea rax, [there]\npush rax\niretq\nhlt\nthere: {end}"
        )
        bench.cpu.set_segments({SegmentRegister.CS: wide.WIDE_CODE0, SegmentRegister.SS: wide.NULL_STACK})
        bench.cpu.esp = wide.STACK64 - 0x100
        bench.cpu.eip = ORIGIN

    bench = on_both_ways(engine, prepare)
    if program == "kernel":
        assert (bench.cpu.esp, bench.cpu.stack.selector, bench.cpu.cpl) == (USER_STACK, 0, 0)
    else:
        assert bench.cpu.eip == STUBS + 16 * 0x40 + 1


def test_the_next_nmi_may_come(engine: str) -> None:
    def prepare(bench: Bench) -> None:
        bench.ring(0)
        bench.code("start: nop\nhlt\nhandler: iretd")
        bench.gate(NMI, target=bench.symbol("handler"))
        bench.cpu.nmi()
        assert bench.cpu.nmi_blocked

    assert not on_both_ways(engine, prepare).cpu.nmi_blocked


@pytest.mark.parametrize("image", [EFLAGS_FIXED, EFLAGS_FIXED | EFLAGS_TF])
@pytest.mark.parametrize("before", [0, EFLAGS_TF])
def test_single_step(engine: str, before: int, image: int) -> None:
    """TF counts from the instruction behind the one that sets it, and still for the one that clears it."""

    def prepare(bench: Bench) -> None:
        bench.ring(0)
        bench.code(f"push {image}\npush cs\npush there\nx: iretd\nhlt\nthere: nop\nnop\nhlt")
        bench.store(KERNEL_STACK - 12, bench.symbol("there"), CODE0, image)
        bench.set(eip=bench.symbol("x"), esp=KERNEL_STACK - 12, eflags=EFLAGS_FIXED | before)

    bench = on_both_ways(engine, prepare)
    if before:
        assert bench.arrival(3).frame == (bench.symbol("there"), CODE0, image)
    elif image & EFLAGS_TF:
        assert bench.arrival(3).frame == (bench.symbol("there") + 1, CODE0, image)
    else:
        assert bench.cpu.eip == bench.symbol("there") + 3
