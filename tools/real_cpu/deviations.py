"""Every difference between the real processor and ours that is known, with its reason.

Whatever isn't here fails the tests, and so does an entry, or one name in it, that isn't needed any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tools.real_cpu.compare import OUTCOME, Difference

BOTH = ("native", "portable")


class Kind(Enum):
    """Whose deviation it is."""

    OURS = "ours"
    """Our processor does otherwise than the manual."""
    OPEN = "open"
    """The manual leaves it open, or AMD's and Intel's differ. Which way it goes depends on the real processor."""
    MACHINE = "machine"
    """The real processor does otherwise than the manual, or who virtualises it."""


@dataclass(frozen=True)
class Deviation:
    """One reason, and the cases that differ for it."""

    key: str
    kind: Kind
    why: str
    cases: tuple[str, ...]
    fields: frozenset[str] = frozenset()
    """The fields that may differ; all if empty."""
    engines: tuple[str, ...] = BOTH

    def covers(self, difference: Difference, engine: str) -> bool:
        return (
            engine in self.engines
            and (not self.fields or difference.field in self.fields)
            and difference.case.name in self.cases
        )


_WHERE = frozenset({"cr2"})
_MEMORY = frozenset({"memory"})
_OUTCOME = frozenset({OUTCOME})

OURS = (
    Deviation(
        "misaligned-sse", Kind.OURS,
        "Operands of 16 bytes that must be aligned aren't asked for that: #GP(0), before the page tables are looked "
        "at (SDM vol. 1, 10.4.1.1; vol. 2, tables 2-18 and 2-21).",
        ("sse/movaps xmm0, [rdi]", "sse/movaps [rdi], xmm0", "sse/movapd xmm0, [rdi]", "sse/movdqa [rdi], xmm0",
         "sse/movntps [rdi], xmm0", "sse/movntdq [rdi], xmm0", "sse/addps xmm0, [rdi]", "sse/pxor xmm0, [rdi]",
         "sse/pshufd xmm0, [rdi], 0", "sse/movaps xmm0, [rsp + 4]", "sse/absent and misaligned",
         "sse/read only and misaligned", "compat/movaps"),
        _OUTCOME,
    ),
    Deviation(
        "alignment-check", Kind.OURS,
        "There is no #AC, whatever CR0.AM and EFLAGS.AC say (SDM vol. 3, 6.15, interrupt 17).",
        ("ac/read 4", "ac/write 2", "ac/read 8", "ac/update", "ac/string", "ac/push", "ac/float", "ac/absent",
         "ac/across"),
        _OUTCOME,
    ),
    Deviation(
        "mxcsr-reserved", Kind.OURS,
        "LDMXCSR takes reserved bits: #GP(0) (SDM vol. 2, LDMXCSR).",
        ("sse/ldmxcsr reserved bit",),
    ),
    Deviation(
        "segment-limits", Kind.OURS,
        "Limits and rights of segments aren't asked for by accesses to memory: #GP(0), or #SS(0) through SS "
        "(SDM vol. 3, 5.3 and 5.4).",
        ("limit/null ds", "limit/null ds, write", "limit/null es, string", "limit/beyond", "limit/across",
         "limit/beyond, write", "limit/expand down, below", "limit/write to read only", "limit/update of read only",
         "limit/write to code", "limit/write to readable code", "limit/read of execute only",
         "limit/jmp near beyond the code", "limit/run off the code", "limit/pop from a small stack",
         "limit/push to a small stack", "limit/push wraps the stack of 16 bits", "limit/read through ebp",
         "limit/rep movsb beyond"),
        _OUTCOME,
    ),
    Deviation(
        "shift-double-rip-relative", Kind.OURS,
        "SHLD and SHRD with an immediate count address relative to RIP without that byte: one too low (SDM vol. 2, "
        "2.2.1.6).",
        ("immediate/shld [{}], rax, 5", "immediate/shrd [{}], eax, 5", "update/shld [ABSENT + 0x20], eax, 3",
         "update/shld [RO + 0x20], eax, 3"),
        _WHERE,
    ),
    Deviation(
        "enter-final-check", Kind.OURS,
        "ENTER doesn't try whether the stack could be written at its final RSP: #PF (SDM vol. 2, ENTER).",
        ("stack/enter whose room is beyond", "stack/enter whose room is read only", "compat/enter"),
        _OUTCOME,
    ),
    Deviation(
        "call-not-canonical", Kind.OURS,
        "CALL to an address that isn't canonical has pushed its return address before #GP(0) (SDM vol. 2, CALL: the "
        "target is looked at first).",
        ("canonical/call through memory",), _MEMORY,
    ),
    Deviation(
        "pop-order", Kind.OURS,
        "POP to memory reads the stack first: #SS(0) if that isn't canonical, though the operand isn't either "
        "(SDM vol. 2, POP: the operation).",
        ("canonical/pop qword ptr [rdi]",), _OUTCOME,
    ),
    Deviation(
        "clflush", Kind.OURS,
        "CLFLUSH does nothing at all; it faults as a load does (SDM vol. 2, CLFLUSH).",
        ("read/clflush [ABSENT + 0x20]", "canonical/clflush [rdi]"), _OUTCOME,
    ),
    Deviation(
        "absent-control-register", Kind.OURS,
        "MOV of CR1 and CR5 at ring 3: #GP(0). Invalid opcodes are found by decoding, ahead of the privilege "
        "(SDM vol. 2, MOV-Control Registers: #UD; vol. 3, table 6-2, class 7 before 8).",
        ("undefined/cr1", "undefined/cr5"), _OUTCOME,
    ),
)  # fmt: skip

THEIRS = (
    Deviation(
        "call-beyond-limit", Kind.OPEN,
        "A far CALL beyond the code segment's limit faults before or after its return address is on the stack, below "
        "a stack pointer that hasn't moved (SDM vol. 2, CALL, doesn't say).",
        ("limit/call beyond the code",), _MEMORY,
    ),
    Deviation(
        "parts-of-a-store", Kind.OPEN,
        "Stores of more than 8 bytes may be done in parts, some of which stay though another faults (SDM vol. 3, "
        "8.1.1). This goes for PUSHA too, whose order of pushes isn't given for what faults.",
        ("cross/write 16 DATA", "cross/write 16 DATA_THEN_RO", "cross/fxsave", "cross/fstp tbyte", "cross/fnsave",
         "cross/fnstenv", "compat/pushad at the bottom"),
        _MEMORY,
    ),
    Deviation(
        "first-of-many-addresses", Kind.OPEN,
        "Which byte of an operand of many is touched first isn't said: AMD begins with the last of FXSAVE's, "
        "FXRSTOR's, FNSAVE's and FNSTENV's, and with CS of RETF's and RFLAGS of IRET's.",
        ("write/fxsave64 [ABSENT + 0x20]", "write/fxsave64 [RO + 0x20]", "cross/fxsave", "cross/fxrstor",
         "cross/fnsave", "cross/fnstenv", "pop/retfq top", "pop/retfq across", "pop/iretq top", "pop/iretq across",
         "compat/pushad at the bottom"),
        _WHERE,
    ),
    Deviation(
        "lar-limit", Kind.OPEN,
        "Bits 16 to 19 of what LAR gives are undefined; AMD leaves the limit's there (SDM vol. 2, LAR: 00FxFF00H).",
        ("ask/ABSENT_DATA", "ask/ABSENT_CODE", "ask/READ_ONLY", "ask/EXECUTE_ONLY", "ask/READABLE_CODE",
         "ask/ABSENT_CONFORMING", "ask/USER_CODE32", "ask/USER_CODE64", "ask/USER_DATA", "ask/USER_DATA with RPL 0"),
        frozenset({"rbx"}),
    ),
    Deviation(
        "wide-far-pointer", Kind.OPEN,
        "JMP m16:64 is Intel's (SDM vol. 2, JMP); AMD ignores REX.W there (APM vol. 3, JMP (Far)).",
        ("far/jmp of 64 bits",),
    ),
    Deviation(
        "wraps-at-4-gib", Kind.OPEN,
        "An operand around the end of a segment of 4 GiB: #GP or not, as the processor likes (SDM vol. 3, 5.3).",
        ("compat/wraps to absent",),
    ),
    Deviation(
        "ports-of-no-repetition", Kind.OPEN,
        "Whether REP INS that has nothing to do asks for the port: AMD does. The manual's operations put the one into "
        "the other in no order (SDM vol. 2, REP and INS).",
        ("string/39: rep insb",),
    ),
    Deviation(
        "movups-alignment-check", Kind.OPEN,
        "Whether MOVUPS of an address that isn't even a multiple of 4 is checked is up to the processor (SDM vol. 3, "
        "6.15, interrupt 17); and ours has no #AC.",
        ("ac/movups",),
    ),
    Deviation(
        "int1-under-kvm", Kind.MACHINE,
        "INT1 is a trap (SDM vol. 2, INT n): RIP is behind it. Under KVM on AMD, where #DB is intercepted and "
        "delivered anew, it is at it.",
        ("interrupt/int1",), frozenset({"rip"}),
    ),
)  # fmt: skip
"""What is seen on a virtual AMD EPYC of family 25; on other machines these may be needed or not."""

ALL = OURS + THEIRS


def excuses(difference: Difference, engine: str) -> set[tuple[str, str]]:
    """(key, name) of all entries that cover a difference."""
    return {(entry.key, difference.case.name) for entry in ALL if entry.covers(difference, engine)}


def owed(engine: str) -> set[tuple[str, str]]:
    """(key, name) of all entries that must be needed for an engine on this machine."""
    listed = ALL if _as_recorded() else OURS
    return {(entry.key, name) for entry in listed if engine in entry.engines for name in entry.cases}


def _as_recorded() -> bool:
    """Whether this is the kind of machine that `THEIRS` is from."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "AuthenticAMD" in text and "cpu family\t: 25\n" in text and " hypervisor " in text
