"""64-bit code on what isn't particular to long mode, opcodes that it has taken away, and compatibility-mode code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, at_end
from tools.oracle.families import debug, flags, instructions, ports, segments

_TAKEN_AWAY = {
    "push-es": "0x06", "pop-es": "0x07", "push-cs": "0x0e", "push-ss": "0x16", "pop-ss": "0x17", "push-ds": "0x1e",
    "pop-ds": "0x1f", "daa": "0x27", "das": "0x2f", "aaa": "0x37", "aas": "0x3f", "pusha": "0x60", "popa": "0x61",
    "far-call": "0x9a, 0, 0, 0, 0, 8, 0", "far-jmp": "0xea, 0, 0, 0, 0, 8, 0", "into": "0xce", "aam": "0xd4, 0x0a",
    "aad": "0xd5, 0x0a", "salc": "0xd6", "82": "0x82, 0xc0, 0x01", "ud2": "0x0f, 0x0b", "ud1": "0x0f, 0xb9, 0xc0",
    "lock-nop": "0xf0, 0x90", "lock-register": "0xf0, 0x48, 0x01, 0xc0", "mov-cs": "0x8e, 0xc8",
    "rex-late": "0x48, 0x66, 0x90", "lea-register": "0x48, 0x8d, 0xc0", "group-ff-7": "0xff, 0xff",
    "call-far-register": "0xff, 0xd8", "0f0a": "0x0f, 0x0a", "0f04": "0x0f, 0x04",
    "too-long": ", ".join(["0x2e"] * 15 + ["0x90"]), "long-enough": ", ".join(["0x2e"] * 14 + ["0x90"]),
    "movsxd": "0x48, 0x63, 0xc0", "sysenter-lock": "0xf0, 0x0f, 0x34", "cmpxchg16b-register": "0x48, 0x0f, 0xc7, 0xc8",
    "mov-segment-6": "0x8e, 0xf0", "mov-from-segment-7": "0x8c, 0xf8", "c6-1": "0xc6, 0xc8, 0", "fe-7": "0xfe, 0xf8",
}  # fmt: skip
_STACKED = re.compile(r"\b(push|pop) e(?=[a-ds][xpi]\b)|\b(push|pop)fd\b|\b(inc|dec) e(?=sp)")
_MOVES = re.compile(r"\bmov (cr|dr)(\d), e(\w\w)|\bmov e(\w\w), (cr|dr)(\d)")


def _widened(case: Case) -> Case | None:
    """The case in 64-bit code; None if it's about something that 64-bit code doesn't have or has otherwise."""
    if _UNFIT.search(case.name) or _UNFIT_CODE.search(case.code) or (case.patches and "tss" in case.name):
        return None
    text = _STACKED.sub(lambda m: f"{m[2]}fq" if m[2] else f"{m[1] or m[3]} r", case.code)
    text = _MOVES.sub(lambda m: f"mov {m[1]}{m[2]}, r{m[3]}" if m[1] else f"mov r{m[4]}, {m[5]}{m[6]}", text)
    text = text.replace("push dword ptr", "push qword ptr")
    settings = dict(case.settings)
    if "cr4" in settings:
        settings["cr4"] |= at.CR4_PAE | at.CR4_OSFXSR
    return replace(case, code=text, settings=settings)


_UNFIT = re.compile(
    r"^flags/iret|^step/(iret|int-handler|far|into|pop-ss|fault)|aam|^bound|/into|^port/(limit|base|absent)|/absent|-absent"
    r"|break/on-ss-load|^align/(les|bound)|^(privileged|control|invalid|load)/|opcode|^software/into|movaps/|fxsave/|pending|^dr/detect-write"
)
_UNFIT_CODE = re.compile(r"0xfffff00|push (ss|word)|pop (ss|cx)|pushfw|popfw|push 0x[4-9a-f]\w{7}\b|push 0xfff\w{5}")


def widened() -> Iterator[Case]:
    """Flags, single step, breakpoints, divisions, alignment, ports: as in 32-bit code."""
    for family in (flags.cases, debug.cases, instructions.cases, ports.cases):
        for case in family():
            found = _widened(case)
            if found is not None:
                yield found


def taken_away() -> Iterator[Case]:
    for (name, data), ring in product(_TAKEN_AWAY.items(), (0, 3)):
        yield Case(f"invalid/{name}/ring{ring}", at_end(f".byte {data}"), ring)


def compatibility() -> Iterator[Case]:
    """Ring 3 of 32-bit protected mode, run as compatibility-mode code: a sample of what reads no system descriptors."""
    families = (flags.cases, instructions.cases, ports.cases, segments.cases)
    found = [
        case
        for family in families
        for case in family()
        if case.ring == 3 and not case.settings.keys() & {"cr4", "ldtr"}
    ]
    for case in found[::4]:
        if _SYSTEM.search(case.name):
            continue
        settings = {"bits": 32, "cs": at.COMPAT3, **case.settings}
        yield replace(case, name=f"compat/{case.name}", settings=settings, code=case.code.replace(_OLD, _NEW))


_OLD, _NEW = f"push {at.UCODE}\n", f"push {at.COMPAT3}\n"
_SYSTEM = re.compile(
    r"tss|ldt|gate|reserved-|-286|^port/(limit|base)|cut-off|just-inside|privileged/(write|sys|ltr|lldt|clac|vmcall)|code-"
    r"|conforming|^flags/iret-outward|syscall|beyond|last"
)


def cases() -> Iterator[Case]:
    yield from taken_away()
    yield from widened()
    yield from compatibility()
