"""What our engines do wrong, known and listed. Whatever isn't here fails the tests; what has been mended must go."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tools.oracle.difference import OUTCOME, Difference
from tools.oracle.verdicts import VERDICTS

BOTH = ("native", "portable")
VIF_VIP = 0x18_0000
DESCRIPTOR_ACCESSED = 0x100
ENTRY_ACCESSED = 0x20


@dataclass(frozen=True)
class Deviation:
    """One thing that an engine does otherwise than the manual. In a difference, ``first`` is what is right."""

    key: str
    what: str
    """One line: what is wrong."""
    why: str
    """Why the engine can't, and what shows it."""
    applies: Callable[[Difference], bool]
    engines: tuple[str, ...] = BOTH


def _uses(word: str, *fields: str, outcomes: bool = False) -> Callable[[Difference], bool]:
    """Cases whose code has an instruction, in these fields, or also in what becomes of them."""
    pattern = re.compile(rf"\b{word}")

    def applies(difference: Difference) -> bool:
        wanted = difference.field in fields or (outcomes and difference.field == OUTCOME)
        return wanted and pattern.search(difference.case.code) is not None

    return applies


def _virtual_interrupts(difference: Difference) -> bool:
    name = difference.case.name
    if difference.field == OUTCOME:
        return "/vme/" in name or "/pvi-" in name
    # Where both VIF and VIP are asked for and other bits of the flags are right.
    return difference.first is not None and difference.second is not None and difference.flipped & ~VIF_VIP == 0


def _accessed_by_iret(difference: Difference) -> bool:
    return difference.flipped == DESCRIPTOR_ACCESSED and _uses("iret", "w0")(difference)


def _short_tss(difference: Difference) -> bool:
    return difference.case.name == "stack/inner1-limit-11"


OWN: tuple[Deviation, ...] = (
    Deviation(
        "no-virtual-interrupts",
        "CR4.VME and CR4.PVI do nothing; VIF and VIP are not kept by POPF, IRET and SYSRET.",
        "The engine has no virtual interrupts, and CPUID.1:EDX.VME says so. SDM vol. 3, 20.3 and 20.4.",
        _virtual_interrupts,
    ),
    Deviation(
        "iret-accessed",
        "IRET doesn't set the accessed bit of the code segment's descriptor.",
        "IRET is the engine's own: every handler ends with one, and a look at each would cost more than the exception.",
        _accessed_by_iret,
    ),
    Deviation(
        "iret-closes-bases",
        "IRET to an outer ring that empties FS or GS clears the base, too.",
        "The engine's own IRET, as above.",
        _uses("iret", "fs_base", "gs_base"),
    ),
    Deviation(
        "iret-not-canonical",
        "IRET to an address that isn't canonical faults at that address, after the return.",
        "The engine's own IRET, as above; what it has popped can't be put back.",
        lambda difference: (
            _uses("iret", "eip", "esp", "stack_esp", "stack_ss", "cs", "ss")(difference)
            and "/rip-" in difference.case.name
        ),
    ),
    Deviation(
        "iret-code-of-both-sizes",
        "IRET takes a code segment with L and D set, which is reserved.",
        "The engine's own IRET, as above.",
        lambda difference: "code-both" in difference.case.name and _uses("iret", outcomes=True)(difference),
    ),
    Deviation(
        "sse-alignment",
        "MOVAPS and its like don't fault on an operand that isn't aligned to 16 bytes.",
        "The engine checks no alignment, and these are too frequent to be looked at. SDM vol. 2, MOVAPS.",
        lambda difference: "misaligned" in difference.case.name,
    ),
    Deviation(
        "no-performance-counters",
        "RDPMC is an invalid opcode.",
        "The engine has no counters. SDM vol. 2, RDPMC.",
        _uses("rdpmc", outcomes=True),
    ),
    Deviation(
        "smsw-upper-half",
        "SMSW to a 32-bit register leaves its upper half as it is.",
        "The engine stores 16 bits; the manual leaves the upper half undefined. SDM vol. 2, SMSW.",
        _uses("smsw", "ecx"),
    ),
    Deviation(
        "tss-just-long-enough",
        "A 32-bit TSS that ends with the inner ring's SS is long enough; the emulators want two bytes more.",
        "SDM vol. 2, INT n: #TS if the stack's address in the TSS + 5 is beyond the limit. The emulators err.",
        _short_tss,
    ),
    Deviation(
        "portable-read-marks-accessed",
        "A read-modify-write instruction whose write faults leaves A set in the page's entry.",
        "The engine walks the tables for the read first, and no public call tells what they held before.",
        lambda difference: difference.flipped == ENTRY_ACCESSED and re.fullmatch(r"w\d", difference.field) is not None,
        ("portable",),
    ),
)

SHARED: frozenset[str] = frozenset(
    {
        "alignment-check",
        "clflush-not-canonical",
        "pending-x87-exception",
        "rip-relative-shld",
        "segment-limits",
        "segment-rights-on-use",
    }
)
"""Keys of verdicts against QEMU: the engine is made from QEMU's code and errs in the same way."""


def excuse(difference: Difference, engine: str) -> str | None:
    """The key of the entry that covers what an engine does wrong; None if there is none."""
    for entry in OWN:
        if engine.removesuffix("+iret") in entry.engines and entry.applies(difference):
            return entry.key
    return next((key for key in sorted(SHARED) if _verdict(key)(difference)), None)


def _verdict(key: str) -> Callable[[Difference], bool]:
    return next(verdict for verdict in VERDICTS if verdict.key == key).applies
