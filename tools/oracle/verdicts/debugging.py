"""Verdicts on single step, breakpoints and the debug registers."""

from __future__ import annotations

from tools.oracle.verdicts.verdict import DB, END, GP, Says, Verdict, is_code, is_outcome

VERDICTS = (
    Verdict(
        "general-detect-below-ring-0",
        Says.EITHER,
        lambda d: is_outcome(d, DB, GP) and d.case.name.startswith("dr/detect") and d.case.ring > 0,
        "#DB because of DR7.GD, or #GP because of the ring: no order is given (SDM vol. 2, MOV to and from debug "
        "registers).",
    ),
    Verdict(
        "general-detect",
        Says.BOCHS,
        lambda d: is_outcome(d, DB, END) and d.case.name.startswith("dr/detect"),
        "QEMU ignores DR7.GD: #DB before the access (SDM vol. 3, 18.2.4).",
    ),
    Verdict(
        "debug-registers-fixed-bits",
        Says.BOCHS,
        lambda d: d.field == "ecx" and d.flipped in (0x1000, 0x4000) and d.case.family == "dr",
        "QEMU keeps bit 12 of DR6 and bit 14 of DR7, which are always 0 (SDM vol. 3, 18.2.3 and 18.2.4).",
    ),
    Verdict(
        "step-after-sti",
        Says.BOCHS,
        lambda d: d.field == "eip" and is_code(d, "sti"),
        "QEMU holds the single-step trap back after STI. Only interrupts are held back (SDM vol. 2, STI).",
    ),
    Verdict(
        "trap-on-stack-load",
        Says.BOCHS,
        lambda d: d.case.name == "break/on-ss-load",
        "QEMU traps right behind the load of SS. Debug exceptions wait for the end of the next instruction "
        "(SDM vol. 3, 6.8.3).",
    ),
    Verdict(
        "conditions-together",
        Says.BOCHS,
        lambda d: d.case.name in ("break/two-at-once", "break/with-step"),
        "QEMU reports one breakpoint of several, and traps a second time for TF. One #DB reports all conditions "
        "(SDM vol. 3, 18.2.3 and 18.3).",
    ),
)
