"""Far JMP, CALL, RETF and IRET to every kind of selector, and through call gates of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, at_end, described
from tools.oracle.case import at as put
from tools.oracle.descriptors import CALL286, CALL386, CODE_XR, TASK_GATE, Words, gate, segment
from tools.oracle.families.kinds import ALL, MEMORY, SPECIAL, Kind

_NEAR_ENTRY = (at.ENTRY_STACK0 - 4, at.ENTRY_STACK0 - 8, at.ENTRY_STACK0 - 12, at.ENTRY_STACK0 - 16)
_NEAR_USER = (at.USER_STACK - 4, at.USER_STACK - 8)
_TASK_STATE = (at.TSS_OTHER, at.TSS + 0x20, at.TSS + 0x24, at.TSS + 0x38, at.GDT + at.TSS_SELECTOR + 4)


def _stack_watches(ring: int) -> tuple[int, ...]:
    return (*_NEAR_ENTRY, *_NEAR_USER) if ring else (at.STACK0 - 4, at.STACK0 - 8)


def direct() -> Iterator[Case]:
    """Each instruction, each kind, from each ring with each RPL."""
    for kind, ring, rpl, word in product(ALL, (0, 3), (0, 3), ("jmp", "call", "retf", "iret")):
        selector = kind.selector | rpl
        code = at_end(_transfer(word, selector))
        watches = kind.watches + (_TASK_STATE if "t" in kind.name.split("-")[0] else _stack_watches(ring))
        name = f"far/{word}/{kind.name}/ring{ring}/rpl{rpl}"
        yield Case(name, code, ring, 2, kind.patches, watches, kind.settings)


def _transfer(word: str, selector: int) -> str:
    if word in ("jmp", "call"):
        return f"{word} {selector:#x}:{at.LANDING:#x}"
    outer = f"push {at.UDATA}\npush {at.USER_STACK:#x}\n"
    if word == "retf":
        return f"{outer}push {selector:#x}\npush {at.LANDING:#x}\nretf"
    return f"{outer}push 2\npush {selector:#x}\npush {at.LANDING:#x}\niret"


def call_gates() -> Iterator[Case]:
    """Gates with each DPL and RPL, and to each kind of target."""
    for dpl, rpl, ring, word, present in product((0, 1, 3), (0, 3), (0, 3), ("call", "jmp"), (True, False)):
        words = gate(CALL386, at.KCODE, at.LANDING, dpl=dpl, present=present)
        name = f"call-gate/dpl{dpl}/rpl{rpl}/{word}/{'p' if present else 'np'}/ring{ring}"
        yield _through(name, words, word, ring, rpl)
    targets = [kind for kind in MEMORY + SPECIAL if not kind.settings]
    for kind, ring, word in product(targets, (0, 3), ("call", "jmp")):
        moved = kind if kind.selector != at.T0 else Kind(kind.name, at.T1, kind.words)
        words = gate(CALL386, moved.selector, at.LANDING, dpl=3)
        case = _through(f"call-gate/to-{kind.name}/{word}/ring{ring}", words, word, ring, 3, moved)
        yield case
    for count, ring in product((1, 2, 31), (0, 3)):
        words = gate(CALL386, at.KCODE, at.LANDING, dpl=3, count=count)
        yield _through(f"call-gate/count{count}/ring{ring}", words, "call", ring, 3)
    for code, ring in product((at.CODE1, at.CODE2), (3,)):
        words = gate(CALL386, code, at.LANDING, dpl=3, count=1)
        yield _through(f"call-gate/inner{code & 3}/ring{ring}", words, "call", ring, 3)
    low = Kind("low", at.T1, segment(CODE_XR, base=at.CODE))
    for ring, word, count in product((0, 3), ("call", "jmp"), (0, 2)):
        words = gate(CALL286, at.T1, at.LANDING - at.CODE | 0xABCD0000, dpl=3, count=count)
        yield _through(f"call-gate/286/{word}/count{count}/ring{ring}", words, word, ring, 3, low)


def _through(name: str, words: Words, word: str, ring: int, rpl: int, target: Kind | None = None) -> Case:
    patches = described(at.T0, words) + (target.patches if target else ())
    watches = (target.watches if target else ()) + _stack_watches(ring)
    return Case(name, at_end(f"{word} {at.T0 | rpl:#x}:0x12345678"), ring, 2, patches, watches)


_STACKS = {
    "null": 0, "beyond": at.BEYOND, "code": at.KCODE, "good3": at.UDATA, "good0": at.KDATA, "rpl": at.UDATA & ~3,
    "data1": at.DATA1, "absent": at.T1 | 3, "read-only": at.T2 | 3,
}  # fmt: skip


def outward() -> Iterator[Case]:
    """RETF and IRET from ring 0 to ring 3 with every stack selector; RETF n; segment registers that are closed."""
    absent = described(at.T1, (0x0000FFFF, 0x00CF7200)) + described(at.T2, (0x0000FFFF, 0x00CFF000))
    for word, (name, stack), rpl in product(("retf", "retf8", "iret"), _STACKS.items(), (3, 1)):
        code_selector = at.UCODE if rpl == 3 else at.CODE1
        flags = "push 0x246\n" if word == "iret" else ""
        extra = "push 7\npush 8\n" if word == "retf8" else ""
        returning = {"retf8": "retf 8"}.get(word, word)
        outer = f"push {stack:#x}\npush {at.USER_STACK - 0x40:#x}\n{extra}"
        code = f"{outer}{flags}push {code_selector:#x}\npush {at.LANDING:#x}\n{returning}"
        yield Case(f"outward/{word}/{name}/to{rpl}", at_end(code), 0, 2, absent, (at.GDT + at.T1 + 4,))
    for register, kind in product(("ds", "es", "fs", "gs"), (at.KDATA, at.UDATA, at.CONFORMING, at.DATA1, at.KCODE)):
        code = f"push {at.UDATA}\npush {at.USER_STACK:#x}\npush 2\npush {at.UCODE}\npush {at.LANDING:#x}\niret"
        yield Case(f"outward/closing/{register}/{kind:x}", at_end(code), 0, settings={register: kind})


def tasks() -> Iterator[Case]:
    """Task switches by JMP, CALL, INT and IRET, and the faults on the way."""
    other = at.TSS_OTHER_SELECTOR
    landing = (at.TSS_OTHER + 0x24,)
    ways = {
        "jmp": f"jmp {other:#x}:0", "call": f"call {other:#x}:0", "gate-jmp": f"jmp {at.T0 | 3:#x}:0",
        "gate-call": f"call {at.T0 | 3:#x}:0", "int": f"int {at.GATE:#x}",
    }  # fmt: skip
    for (name, code), ring in product(ways.items(), (0, 3)):
        task_gate = gate(TASK_GATE, other, 0, dpl=3)
        patches = described(at.T0, task_gate) + put(at.IDT + 8 * at.GATE, task_gate)
        yield Case(f"task/{name}/ring{ring}", at_end(code), ring, 2, patches, _TASK_STATE + landing)
    broken = {
        "limit": (0x2300 << 16 | 0x66, None), "cs-null": (None, (0x4C, 0)), "cs-data": (None, (0x4C, at.KDATA)),
        "ss-null": (None, (0x50, 0)), "ss-user": (None, (0x50, at.UDATA)), "ds-beyond": (None, (0x54, at.BEYOND)),
        "ldt-data": (None, (0x60, at.KDATA)), "ldt-null": (None, (0x60, 0)), "trap": (None, (0x64, 1)),
    }  # fmt: skip
    for name, (low, field) in broken.items():
        patches = put(at.TSS_OTHER + field[0], (field[1],)) if field else ()
        if low is not None:
            patches += put(at.GDT + other, (at.TSS_OTHER << 16 & 0xFFFFFFFF | low & 0xFFFF,))
        yield Case(f"task/bad-{name}", at_end(f"jmp {other:#x}:0"), 0, 2, patches, _TASK_STATE)
    for link in (other, at.KDATA, 0):
        patches = put(at.TSS, (link,))
        code = at_end("pushfd\nor dword ptr [esp], 0x4000\npopfd\niret")
        yield Case(f"task/return-{link:x}", code, 0, 2, patches, _TASK_STATE)


def cases() -> Iterator[Case]:
    yield from direct()
    yield from call_gates()
    yield from outward()
    yield from tasks()
