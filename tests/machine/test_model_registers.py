"""CPUID, MSRs and CR8 of a machine: what they say of the local APIC is so, and what is announced works."""

from __future__ import annotations

import pytest

from hvproto.errors import Unsupported
from hvproto.machine.machine import Machine
from tests.support.kernels import booted, word

END = "\nmov al, 0\nout 0xf4, al\n"
APIC_BASE = 0xFEE0_0900
GP = """
        GATE 13, on_gp, 0x8f00
"""
ON_GP = """
on_gp:  mov eax, [esp]
        mov [error], eax
        mov al, 4
        out 0xf4, al
error:  .long 0xffffffff
"""
MSR = """
        mov ecx, {number:#x}
        rdmsr
        mov [before], eax
        mov [before_high], edx
        mov eax, {low:#x}
        mov edx, {high:#x}
        wrmsr
        rdmsr
        mov [after], eax
        mov [after_high], edx
"""
RESULTS = """
before: .long 0
before_high: .long 0
after:  .long 0
after_high: .long 0
features: .long 0
more:   .long 0
ebx_:   .long 0
value:  .long 0
"""
FEATURES = "mov eax, 1\ncpuid\nmov [features], edx\nmov [more], ecx\nmov [ebx_], ebx\n"


def ran(engine: str, body: str, status: int = 1) -> Machine:
    machine = booted(engine, GP + body + END + ON_GP + RESULTS)
    assert machine.run(10_000_000) == status
    return machine


def msr(machine: Machine, name: str) -> int:
    return word(machine, name + "_high") << 32 | word(machine, name)


def test_the_apic_is_where_its_msr_says(engine: str) -> None:
    machine = ran(
        engine, FEATURES + "mov ecx, 0x1b\nrdmsr\nmov [before], eax\nmov eax, [0xfee00030]\nmov [value], eax\n"
    )
    assert word(machine, "before") == APIC_BASE
    assert word(machine, "features") & 1 << 9 and word(machine, "ebx_") >> 24 == 0
    assert word(machine, "value") == 0x0005_0014


def test_what_is_not_there_is_not_announced(engine: str) -> None:
    machine = ran(engine, FEATURES + "mov eax, 7\nmov ecx, 0\ncpuid\nmov [ebx_], ebx\n")
    x2apic, deadline, rdrand, smep, rdseed, smap = 1 << 21, 1 << 24, 1 << 30, 1 << 7, 1 << 18, 1 << 20
    assert not word(machine, "more") & (x2apic | deadline | rdrand)
    assert not word(machine, "ebx_") & (smep | rdseed | smap)


def test_osxsave_follows_cr4(engine: str) -> None:
    machine = ran(
        engine,
        FEATURES + "mov eax, [more]\nmov [before], eax\nmov eax, cr4\nor eax, 0x40000\nmov cr4, eax\n" + FEATURES,
    )
    assert (word(machine, "before") ^ word(machine, "more")) == 1 << 27 and word(machine, "more") & 1 << 27


def test_without_its_enable_the_apic_is_gone(engine: str) -> None:
    machine = ran(
        engine,
        MSR.format(number=0x1B, low=0xFEE0_0100, high=0) + FEATURES + "mov eax, [0xfee00030]\nmov [value], eax\n"
        "mov ecx, 0x1b\nxor edx, edx\nmov eax, 0xfee00900\nwrmsr\nmov eax, [0xfee00030]\nmov [before], eax\n",
    )
    assert not word(machine, "features") & 1 << 9
    assert word(machine, "value") == 0xFFFF_FFFF and word(machine, "before") == 0x0005_0014


def test_the_page_moves(engine: str) -> None:
    machine = ran(
        engine,
        MSR.format(number=0x1B, low=0xD000_0900, high=0)
        + "mov eax, [0xd0000030]\nmov [value], eax\nmov eax, [0xfee00030]\nmov [before], eax\n",
    )
    assert msr(machine, "after") == 0xD000_0900
    assert (word(machine, "value"), word(machine, "before")) == (0x0005_0014, 0xFFFF_FFFF)


@pytest.mark.parametrize("base", [0x10_0900, 0xFEC0_0900])
def test_it_cannot_move_over_ram_or_another_device(engine: str, base: int) -> None:
    with pytest.raises(Unsupported, match="IA32_APIC_BASE") as caught:
        ran(engine, MSR.format(number=0x1B, low=base, high=0))
    assert "something else is at" in str(caught.value) and caught.value.where.symbol is not None


@pytest.mark.parametrize(
    ("number", "low", "high"),
    [(0x1B, 0xFEE0_0D00, 0), (0x1B, 0xFEE0_0901, 0), (0x1B, 0xFEE0_0900, 0x10), (0xFE, 1, 0)],
    ids=["x2apic", "reserved", "beyond", "read-only"],
)
def test_what_cannot_be_written_is_a_fault(engine: str, number: int, low: int, high: int) -> None:
    machine = ran(engine, MSR.format(number=number, low=low, high=high), status=9)
    assert word(machine, "error") == 0


@pytest.mark.parametrize("number", [0x1A0, 0x277, 0x2FF, 0x200, 0x201, 0x250, 0x17A], ids=hex)
def test_what_cpuid_announces_keeps_what_is_written(engine: str, number: int) -> None:
    machine = ran(engine, FEATURES + MSR.format(number=number, low=0x0006, high=0))
    assert word(machine, "features") >> 12 & 1 and word(machine, "features") >> 16 & 1  # MTRR, PAT
    assert msr(machine, "after") == 6


def test_the_time_stamp_counter_by_its_msr(engine: str) -> None:
    machine = ran(engine, MSR.format(number=0x10, low=5, high=1) + "rdtsc\nmov [value], eax\nmov [more], edx\n")
    assert 0 < msr(machine, "before") < 10_000
    assert 1 << 32 < msr(machine, "after") < (1 << 32) + 100
    assert msr(machine, "after") < word(machine, "more") << 32 | word(machine, "value") < (1 << 32) + 200


def test_programs_may_not(engine: str) -> None:
    machine = ran(
        engine,
        """
        GATE 13, on_gp, 0x8f00
        mov ecx, tss
        mov [gdt_tss + 2], cx
        mov word ptr [gdt_tss], 0x67
        shr ecx, 16
        mov [gdt_tss + 4], cl
        mov byte ptr [gdt_tss + 5], 0x89
        mov [gdt_tss + 7], ch
        mov dword ptr [tss + 4], 0x8f000
        mov dword ptr [tss + 8], 0x10
        mov ax, 0x28
        ltr ax
        push 0x23
        push 0x8e000
        push 0x3002                     ; IOPL 3
        push 0x1b
        push program
        iretd
program:
        mov eax, 1
        cpuid                           ; this they may
        mov ecx, 0x1b
        rdmsr
        """
        + END
        + "tss: .space 104\n",
        status=9,
    )
    assert word(machine, "error") == 0


CR8 = """
        GATE 0x40, on_apic, 0x8e00
        mov dword ptr [0xfee000f0], 0x1ff
        mov eax, 0x20
        mov cr4, eax
        mov dword ptr [0x20000], 0x21003
        mov dword ptr [0x21000], 0x22003
        mov dword ptr [0x21018], 0x23003         ; the gigabyte of the APIC
        mov dword ptr [0x22000], 0x83
        mov dword ptr [0x23fb8], 0xfee00083
        mov eax, 0x20000
        mov cr3, eax
        mov ecx, 0xc0000080
        mov eax, 0x100
        xor edx, edx
        wrmsr
        mov eax, 0x80000011
        mov cr0, eax
        lgdt [pointer]
        .byte 0xea
        .long wide
        .word 8
.code64
wide:   mov eax, 9
        mov cr8, rax
        mov rbx, cr8
        mov [value], ebx
        mov esi, 0xfee00080
        mov eax, [rsi]
        mov [before], eax
        mov dword ptr [rsi], 0x35
        mov rbx, cr8
        mov [after], ebx
        mov eax, 8
        mov cr8, rax
        mov dword ptr [rsi + 0x280], 0x44040    ; to ourselves: vector 0x40
        mov eax, [rsi + 0x1a0]                  ; requested, and held off by the priority
        mov [more], eax
        xor eax, eax
        mov cr8, rax
        hlt
pointer: .word 15
        .long table
.align 8
table:  .quad 0, 0x00af9b000000ffff
on_apic:
"""


def test_cr8_is_the_task_priority(engine: str) -> None:
    machine = booted(engine, CR8 + RESULTS)
    machine.run(1_000_000)
    assert (word(machine, "value"), word(machine, "before"), word(machine, "after")) == (9, 0x90, 3)
    assert word(machine, "more") == 1 and machine.board.interrupts.lapic.pending() == 0x40
