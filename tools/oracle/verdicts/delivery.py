"""Verdicts on the delivery of exceptions and interrupts: pushed flags, error codes, gates, stacks."""

from __future__ import annotations

from tools.oracle import layout as at
from tools.oracle.difference import OUTCOME, Difference
from tools.oracle.verdicts.verdict import (
    DB,
    END,
    GP,
    NP,
    PF,
    RF,
    SS,
    UD,
    Says,
    Verdict,
    is_code,
    is_outcome,
    is_watch,
    only_flips,
    watched,
)


def _resume_flag(d: Difference) -> bool:
    return only_flips(d, RF) and (d.field in ("eflags", "beyond", "stack_esp", "ecx", "cs") or is_watch(d))


def _external(d: Difference) -> bool:
    stack = at.STACK0 - 0x100 <= watched(d) < at.ENTRY_STACK2
    return only_flips(d, 1) and ((d.field == "error" and d.vectors[0] != PF) or stack) and bool((d.first or 0) & 1)


def _descriptor_accessed(d: Difference) -> bool:
    table = at.GDT <= watched(d) < at.IDT
    return table and d.flipped == 0x100 and bool((d.first or 0) & 0x100)


def _conforming_rpl(d: Difference) -> bool:
    return d.case.ring > 0 and only_flips(d, 3) and "call-gate" in d.case.name and (d.first or 0) & 3 == d.case.ring


def _sixteen_bit(d: Difference) -> bool:
    return "286" in d.case.name and d.case.family != "random"


def _task(d: Difference) -> bool:
    return d.case.name.startswith("task/bad-") and d.field in (OUTCOME, "eip")


VERDICTS = (
    Verdict(
        "resume-flag",
        Says.BOCHS,
        _resume_flag,
        "QEMU pushes RF as it is. A fault's image has RF=1, PUSHF's has 0, and RF is 0 after an instruction has "
        "completed (SDM vol. 3, 18.3.1.1; vol. 2, PUSHF).",
    ),
    Verdict(
        "external-bit",
        Says.BOCHS,
        _external,
        "QEMU never sets EXT. It is 1 for an exception on the way to an exception's handler, 0 on that of an INT n "
        "(SDM vol. 3, 6.13).",
    ),
    Verdict(
        "descriptor-accessed",
        Says.BOCHS,
        _descriptor_accessed,
        "QEMU doesn't set the accessed bit of some code and stack segments. Whoever loads the selector sets it "
        "(SDM vol. 3, 3.4.5.1).",
    ),
    Verdict(
        "16-bit-gates-and-tasks",
        Says.BOCHS,
        _sixteen_bit,
        "QEMU takes 32 bits of offset from 16-bit call gates and reads 16-bit task state segments at wrong places "
        "(SDM vol. 3, 22.2 and 8.6).",
    ),
    Verdict(
        "conforming-through-gate",
        Says.BOCHS,
        _conforming_rpl,
        "QEMU loads CS with the code segment's DPL as RPL. A conforming segment leaves CPL, and with it the RPL, "
        "as it was (SDM vol. 3, 5.8.4; vol. 2, CALL).",
    ),
    Verdict(
        "jmp-through-gate-absent",
        Says.BOCHS,
        lambda d: is_outcome(d, NP, GP) and "call-gate" in d.case.name and "/jmp" in d.case.name,
        "QEMU raises #GP for an absent code segment behind a call gate. It is #NP (SDM vol. 2, JMP).",
    ),
    Verdict(
        "outward-absent-stack",
        Says.BOCHS,
        lambda d: is_outcome(d, SS, NP) and is_code(d, "retf", "iret"),
        "QEMU raises #NP for an absent stack segment of the outer ring. It is #SS (SDM vol. 2, RET and IRET).",
    ),
    Verdict(
        "int1",
        Says.BOCHS,
        lambda d: d.vectors[1] == UD and d.field == OUTCOME and is_code(d, "int1"),
        "QEMU has no INT1. It raises #DB by the gate, whose DPL doesn't count (SDM vol. 2, INT1).",
    ),
    Verdict(
        "virtual-8086-handler-ring",
        Says.BOCHS,
        lambda d: is_outcome(d, GP, END) and d.case.name.startswith("v86/gate/ring1/"),
        "QEMU delivers from virtual-8086 mode to ring 1: #GP for every code segment but those of DPL 0 "
        "(SDM vol. 2, INT n).",
    ),
    Verdict(
        "virtual-8086-entry-ring",
        Says.BOCHS,
        lambda d: d.case.name.startswith("v86/entry/") and d.case.ring > 0,
        "QEMU's IRET enters virtual-8086 mode from every ring. VM counts at CPL 0 only (SDM vol. 2, IRET).",
    ),
    Verdict(
        "task-trap-bit",
        Says.BOCHS,
        lambda d: is_outcome(d, DB) and d.case.name == "task/bad-trap",
        "QEMU ignores T of the new TSS: #DB after the switch (SDM vol. 3, 18.3.1.5).",
    ),
    Verdict(
        "task-switch-faults",
        Says.BOCHS,
        _task,
        "QEMU loses itself when the new task's segments can't be loaded: #TS is raised in the new task, before its "
        "first instruction (SDM vol. 3, 8.3, table 8-1).",
    ),
)
