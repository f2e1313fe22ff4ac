"""Verdicts on what only long mode has."""

from __future__ import annotations

from tools.oracle.difference import OUTCOME, Difference
from tools.oracle.verdicts.verdict import (
    END,
    GP,
    PF,
    SS,
    Says,
    Verdict,
    is_canonical,
    is_code,
    is_outcome,
    is_watch,
    only_flips,
)

_ARITHMETIC = 0xCD5
_BY_STACK = ("mov rax, [rbp]", "mov [rbp]", "mov rsp, rdi", "leave")


def _doubled_vector(d: Difference) -> bool:
    first, second = d.first or 0, d.second or 0
    return (d.field == "error" or is_watch(d)) and bool(first & 2) and second == (first >> 3 << 4 | 2)


def _went_there(d: Difference) -> bool:
    """QEMU has gone to an address that isn't canonical, Bochs hasn't."""
    first, second = d.reports
    if not first or not second:
        return False
    return is_canonical(first.get("eip", 0)) and not is_canonical(second.get("eip", 0))


def _null_inner_stack(d: Difference) -> bool:
    if d.case.family == "call-gate":
        return "inner" in d.case.name or "code64-1" in d.case.name
    return d.case.name.startswith(("load/ss/null/ring1", "load/ss/null/ring2")) and d.field in ("ss", "esp")


VERDICTS = (
    Verdict(
        "sysret-not-canonical",
        Says.EITHER,
        lambda d: d.case.family == "sysret" and _went_there(d),
        "Whether SYSRET to an address that isn't canonical faults before (SDM vol. 2, SYSRET) or behind the change of "
        "rings (APM vol. 3, SYSRET).",
    ),
    Verdict(
        "branch-not-canonical",
        Says.BOCHS,
        _went_there,
        "QEMU goes to addresses that aren't canonical and faults there. The branch itself raises #GP(0) "
        "(SDM vol. 2, JMP, CALL, RET, IRET).",
    ),
    Verdict(
        "vector-in-error-code",
        Says.BOCHS,
        _doubled_vector,
        "QEMU reports 16 times the vector in long mode. It is 8 times, as everywhere (SDM vol. 3, 6.13).",
    ),
    Verdict(
        "ist-in-the-same-ring",
        Says.EITHER,
        lambda d: only_flips(d, 0x10) and (d.field in ("ss", "stack_ss") or is_watch(d)) and (d.first or 0) == 0x10,
        "Whether SS becomes null when the IST changes the stack and the ring stays: the manual says so (SDM vol. 3, "
        "6.14.5), and says that it does if the ring changes (6.14). QEMU sets it to null, Bochs doesn't.",
    ),
    Verdict(
        "stack-not-canonical-error-code",
        Says.EITHER,
        lambda d: d.field == "error" and d.vectors == (SS, SS),
        "Bochs reports the old stack selector when RSP from the TSS isn't canonical, QEMU 0 without EXT. The manual "
        "has a null selector with EXT (SDM vol. 2, INT n): neither.",
    ),
    Verdict(
        "stack-not-canonical",
        Says.BOCHS,
        lambda d: d.field == OUTCOME and d.vectors[1] == GP and d.vectors[0] != GP and is_code(d, *_BY_STACK),
        "QEMU raises #GP for every address that isn't canonical. By the stack pointer or RBP, it is #SS "
        "(SDM vol. 1, 3.3.7.1).",
    ),
    Verdict(
        "partly-canonical",
        Says.EITHER,
        lambda d: (is_outcome(d, GP, PF) and d.case.name.endswith("across")) or is_outcome(d, SS, PF),
        "An access whose first page is absent and whose second isn't canonical: no order is given.",
    ),
    Verdict(
        "clflush-not-canonical",
        Says.BOCHS,
        lambda d: is_outcome(d, GP, END) and is_code(d, "clflush"),
        "QEMU ignores CLFLUSH altogether: #GP(0) (SDM vol. 2, CLFLUSH).",
    ),
    Verdict(
        "base-not-canonical",
        Says.BOCHS,
        lambda d: is_outcome(d, GP, END, None) and d.case.family in ("canonical", "bases"),
        "QEMU takes any base address, by WRMSR, WRFSBASE, WRGSBASE, LGDT and LIDT: #GP(0) (SDM vol. 2).",
    ),
    Verdict(
        "sysenter-sysexit-unchecked",
        Says.BOCHS,
        lambda d: is_outcome(d, GP, END) and d.case.family in ("sysenter", "sysexit"),
        "QEMU takes an IA32_SYSENTER_CS with bits 2 to 15 clear and not 0, and a new RSP that isn't canonical: #GP(0) "
        "(SDM vol. 2, SYSENTER and SYSEXIT).",
    ),
    Verdict(
        "code-of-both-sizes",
        Says.BOCHS,
        lambda d: d.field == OUTCOME and d.vectors[0] == GP and "code-both" in d.case.name,
        "QEMU runs code segments with both L and D set: #GP (SDM vol. 3, 3.4.5).",
    ),
    Verdict(
        "syscall-arithmetic-flags",
        Says.BOCHS,
        lambda d: d.field == "eflags" and is_code(d, "syscall") and only_flips(d, _ARITHMETIC | 0x10000),
        "QEMU loses the arithmetic flags: SYSCALL clears those of IA32_FMASK (SDM vol. 2, SYSCALL).",
    ),
    Verdict(
        "sysret-flags",
        Says.BOCHS,
        lambda d: d.case.family == "sysret" and (d.field == "eflags" or is_outcome(d, END, GP)),
        "QEMU loads VM and leaves VIF and VIP: R11 and 0x3c7fd7 is loaded (SDM vol. 2, SYSRET).",
    ),
    Verdict(
        "null-stack-of-inner-rings",
        Says.BOCHS,
        _null_inner_stack,
        "QEMU is at ring 0 once SS is null at ring 1 or 2, by a call gate or MOV: CPL is that of the code segment "
        "(SDM vol. 3, 5.8.5.1).",
    ),
    Verdict(
        "iret-pops-the-stack",
        Says.QEMU,
        lambda d: d.case.name.startswith("far/iretd32/"),
        "Bochs leaves RSP and SS where they are at an IRET with 32-bit operands to the same ring. In 64-bit mode they "
        "are popped always (SDM vol. 3, 6.14.3).",
    ),
    Verdict(
        "rip-relative-shld",
        Says.BOCHS,
        lambda d: is_code(d, "shld", "shrd") and "access" in d.case.name,
        "QEMU forgets the immediate of SHLD when it computes a RIP-relative address (SDM vol. 2, 2.2.1.6).",
    ),
)
