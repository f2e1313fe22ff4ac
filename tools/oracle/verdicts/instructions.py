"""Verdicts on single instructions and their checks."""

from __future__ import annotations

from tools.oracle import layout as at
from tools.oracle.difference import OUTCOME, Difference
from tools.oracle.verdicts.verdict import (
    AC,
    BR,
    END,
    GP,
    MF,
    NM,
    PF,
    RF,
    UD,
    VIF,
    VIP,
    Says,
    Verdict,
    is_code,
    is_outcome,
    only_flips,
)

_MMX = ("emms", "movq")


def _segment_use(d: Difference) -> bool:
    return is_outcome(d, GP, END) and "use/" in d.case.name


def _virtual_flags(d: Difference) -> bool:
    return only_flips(d, VIF | VIP | RF) and d.field in ("eflags", "ecx", "beyond")


def _control_hang(d: Difference) -> bool:
    return is_outcome(d, GP, None) and d.case.family == "control"


VERDICTS = (
    Verdict(
        "segment-limits",
        Says.BOCHS,
        lambda d: d.case.family == "limits",
        "QEMU doesn't check segment limits: #GP(0), by SS #SS(0) (SDM vol. 3, 5.3).",
    ),
    Verdict(
        "segment-rights-on-use",
        Says.BOCHS,
        _segment_use,
        "QEMU doesn't look at a segment's rights when memory is accessed by it: #GP(0) for null selectors, writes to "
        "read-only and code segments, reads of execute-only ones (SDM vol. 3, 5.4 and 5.4.1).",
    ),
    Verdict(
        "alignment-before-page",
        Says.EITHER,
        lambda d: is_outcome(d, AC, PF),
        "Which of two faults of one access comes first is up to the model (SDM vol. 3, 6.9, table 6-2).",
    ),
    Verdict(
        "alignment-check",
        Says.BOCHS,
        lambda d: is_outcome(d, AC, END, BR),
        "QEMU never raises #AC (SDM vol. 3, 6.15, interrupt 17).",
    ),
    Verdict(
        "iret-virtual-interrupt-flags",
        Says.BOCHS,
        _virtual_flags,
        "QEMU's IRET leaves VIF and VIP out. At CPL 0 it loads them (SDM vol. 2, IRET).",
    ),
    Verdict(
        "virtual-interrupts",
        Says.BOCHS,
        lambda d: d.field == OUTCOME and bool(d.case.settings.get("cr4", 0) & (at.CR4_PVI | at.CR4_VME)),
        "QEMU has neither protected-mode virtual interrupts nor those of virtual-8086 mode (SDM vol. 3, 21.3, 21.4).",
    ),
    Verdict(
        "mmx-switches",
        Says.BOCHS,
        lambda d: d.field == OUTCOME and d.vectors[0] in (UD, NM) and is_code(d, *_MMX),
        "QEMU lets MMX instructions pass with CR0.EM or TS set: #UD by EM, which comes before #NM by TS "
        "(SDM vol. 3, 13.1, table 13-1).",
    ),
    Verdict(
        "sse-switches",
        Says.BOCHS,
        lambda d: is_outcome(d, UD, NM) and "float/movaps" in d.case.name,
        "QEMU lets #NM by TS come before #UD by EM (SDM vol. 3, 2.5, table 2-2; 14.1.3).",
    ),
    Verdict(
        "lock-ignored",
        Says.BOCHS,
        lambda d: is_outcome(d, UD) and is_code(d, ".byte 0xf0"),
        "QEMU ignores LOCK before instructions that can't have it: #UD (SDM vol. 2, LOCK).",
    ),
    Verdict(
        "reserved-group-members",
        Says.BOCHS,
        lambda d: is_outcome(d, UD, END) and d.case.name.startswith("invalid/"),
        "QEMU executes opcodes that are reserved, such as 8F /1: #UD (SDM vol. 2, A.4).",
    ),
    Verdict(
        "pending-x87-exception",
        Says.BOCHS,
        lambda d: is_outcome(d, MF),
        "QEMU raises a pending #MF only with some of the waiting instructions (SDM vol. 3, 6.15, interrupt 16).",
    ),
    Verdict(
        "no-such-control-register",
        Says.EITHER,
        lambda d: is_outcome(d, UD, GP) and is_code(d, ".byte 0x0f, 0x2", ".byte 0x44, 0x0f, 0x2") and d.case.ring > 0,
        "#UD because there is no such register, or #GP because of the ring: no order is given (SDM vol. 2, MOV).",
    ),
    Verdict(
        "cr0-combinations",
        Says.BOCHS,
        lambda d: is_outcome(d, GP, END) and d.case.name.startswith("control/cr0-"),
        "QEMU takes NW without CD: #GP (SDM vol. 3, 2.5 and 6.15, interrupt 13).",
    ),
    Verdict(
        "control-registers-unchecked",
        Says.BOCHS,
        _control_hang,
        "QEMU takes PG without PE and reserved bits of CR4, and loses itself: #GP (SDM vol. 3, 2.5).",
    ),
    Verdict(
        "system-registers-unchecked",
        Says.BOCHS,
        lambda d: is_outcome(d, GP, END) and d.case.name.startswith(("msr/write-efer", "control/cr8")),
        "QEMU takes reserved bits of EFER, a change of LME, and CR8 above 15: #GP (SDM vol. 3, 2.2.1 and 11.8.6).",
    ),
    Verdict(
        "descriptors-not-of-long-mode",
        Says.BOCHS,
        lambda d: d.case.name.startswith(("ask/lar/", "ask/lsl/")) and d.field in ("ecx", "eflags"),
        "QEMU's LAR and LSL know task gates and 16-bit task state segments in long mode, where there are none "
        "(SDM vol. 2, LAR and LSL).",
    ),
    Verdict(
        "system-descriptors-unchecked",
        Says.BOCHS,
        lambda d: is_outcome(d, GP, END) and d.case.name.startswith(("load/ltr/", "load/lldt/")),
        "QEMU's LTR and LLDT take null selectors (LTR), bases that aren't canonical and upper halves whose type isn't "
        "0: #GP (SDM vol. 2, LTR and LLDT; vol. 3, 8.2.3).",
    ),
    Verdict(
        "null-stack-selector",
        Says.BOCHS,
        lambda d: is_outcome(d, GP, END) and (d.case.name.startswith("load/ss/null") or is_code(d, "mov ss")),
        "QEMU takes a null SS in 64-bit mode whatever its RPL. It has to be CPL (SDM vol. 2, MOV).",
    ),
    Verdict(
        "rdpmc",
        Says.BOCHS,
        lambda d: (is_outcome(d, GP, UD) and is_code(d, "rdpmc")) or (is_outcome(d, END, UD) and is_code(d, "rdpmc")),
        "QEMU has no RDPMC (SDM vol. 2, RDPMC).",
    ),
)
