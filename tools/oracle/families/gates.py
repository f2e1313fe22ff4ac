"""Interrupt delivery: gates of every type, target and DPL, the IDT's limit, the TSS's stacks, double faults."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, at_end, described, gated
from tools.oracle.case import at as put
from tools.oracle.descriptors import (
    CODE_XR,
    DATA_RO,
    DATA_RW,
    INT286,
    INT386,
    TASK_GATE,
    TRAP286,
    TRAP386,
    gate,
    segment,
)
from tools.oracle.families.kinds import MEMORY, SPECIAL, Kind

INT = f"int {at.GATE:#x}"
_FRAME0 = tuple(at.STACK0 - 4 * n for n in range(1, 5))
_FRAME3 = tuple(at.ENTRY_STACK0 - 4 * n for n in range(1, 7))
RAISERS = {"int": (at.GATE, INT), "ud2": (6, "ud2"), "np": (11, f"mov eax, {at.T3:#x}\nmov ds, ax")}


def _absent_data() -> tuple[tuple[int, int], ...]:
    return described(at.T3, segment(DATA_RW, dpl=3, present=False))


def _watch(ring: int) -> tuple[int, ...]:
    return _FRAME3 if ring else _FRAME0


def types() -> Iterator[Case]:
    """All 32 values of S and type, by INT n and by a fault."""
    for kind, ring, present in product(range(32), (0, 3), (True, False)):
        if kind & 31 == 5:
            continue  # Task gates are among the tasks.
        words = gate(kind, at.KCODE, at.LANDING, dpl=3, present=present)
        name = f"gate/type{kind:02x}/{'p' if present else 'np'}/ring{ring}"
        if kind in (INT286, TRAP286) and present:
            words = gate(kind, at.T0, at.LANDING - at.CODE, dpl=3)
            patches = gated(at.GATE, words) + described(at.T0, segment(CODE_XR, base=at.CODE))
            for way, (vector, code) in RAISERS.items():
                patches = gated(vector, words) + described(at.T0, segment(CODE_XR, base=at.CODE)) + _absent_data()
                yield Case(f"{name}/{way}", at_end(code), ring, 0x246, patches, _watch(ring))
            continue
        yield Case(name, at_end(INT), ring, 0x246, gated(at.GATE, words), _watch(ring))


def levels() -> Iterator[Case]:
    """INT n, INT3, INTO and faults against the gate's DPL."""
    ways = {
        "int": (at.GATE, INT, 2), "int3": (3, "int3", 2), "int-3": (3, "int 3", 2), "into": (4, "into", 0x802),
        "int1": (1, "int1", 2), "int-14": (14, "int 14", 2), "ud2": (6, "ud2", 2), "int-8": (9, "int 9", 2),
        "int-17": (17, "int 17", 2),
    }  # fmt: skip
    for (name, (vector, code, flags)), dpl, ring in product(ways.items(), range(4), (0, 1, 3)):
        words = gate(INT386, at.KCODE, at.LANDING, dpl=dpl)
        yield Case(f"level/{name}/dpl{dpl}/ring{ring}", at_end(code), ring, flags, gated(vector, words), _watch(ring))
    for kind, ring, flags in product((INT386, TRAP386), (0, 3), (0x202, 0x2, 0x3202, 0x40CD7, 0x4202, 0x200002)):
        words = gate(kind, at.KCODE, at.LANDING, dpl=3)
        yield Case(
            f"level/flags-{flags:x}/type{kind:x}/ring{ring}",
            at_end(INT),
            ring,
            flags,
            gated(at.GATE, words),
            _watch(ring),
        )


def targets() -> Iterator[Case]:
    """Gates to every kind of selector; EXT in the error code tells faults from INT n."""
    for kind, ring, (way, (vector, code)) in product(MEMORY + SPECIAL, (0, 3), RAISERS.items()):
        if kind.name == "cut-off":
            continue
        words = gate(INT386, kind.selector | (kind.selector != 0) * 3, at.LANDING, dpl=3)
        patches = gated(vector, words) + kind.patches + _absent_data()
        settings = kind.settings if kind.name != "just-inside" else {}
        yield Case(
            f"target/{kind.name}/{way}/ring{ring}",
            at_end(code),
            ring,
            2,
            patches,
            kind.watches + _watch(ring),
            settings,
        )
    for code_selector, ring in product((at.CODE1, at.CODE2, at.CONFORMING), (0, 1, 2, 3)):
        words = gate(TRAP386, code_selector, at.LANDING, dpl=3)
        stack = at.ENTRY_STACK1 if code_selector == at.CODE1 else at.ENTRY_STACK2
        watches = tuple(stack - 4 * n for n in range(1, 6))
        yield Case(
            f"target/inner-{code_selector:x}/ring{ring}", at_end(INT), ring, 0x202, gated(at.GATE, words), watches
        )


def limits() -> Iterator[Case]:
    """The IDT's last byte against the gate's; END and the handlers must stay inside."""
    for vector, ring, less in product((0x31, at.GATE, 0x80, 0xFF), (0, 3), (0, 1, 4, 7, 8)):
        settings = {"idt_limit": 8 * vector + 7 - less}
        yield Case(
            f"idt-limit/int-{vector:x}/less{less}/ring{ring}", at_end(f"int {vector:#x}"), ring, settings=settings
        )


def stacks() -> Iterator[Case]:
    """SS0 and ESP0 of the TSS, and the TSS's limit."""
    bad = {
        "null": (0, None), "beyond": (at.BEYOND, None), "rpl3": (at.KDATA | 3, None), "rpl1": (at.KDATA | 1, None),
        "user": (at.UDATA, None), "code": (at.KCODE, None), "absent": (at.T1, segment(DATA_RW, present=False)),
        "dpl1": (at.T1, segment(DATA_RW, dpl=1)), "read-only": (at.T1, segment(DATA_RO)),
        "tss": (at.TSS_SELECTOR, None), "ldt": (at.L0, segment(DATA_RW)), "ldt-beyond": (at.LDT_LIMIT + 1 | 4, None),
        "good": (at.T1, segment(DATA_RW)), "absent-user": (at.T1, segment(DATA_RW, dpl=3, present=False)),
    }  # fmt: skip
    gates = described(at.T0, gate(12, at.KCODE, at.LANDING, dpl=3))
    for (name, (selector, words)), (way, code) in product(
        bad.items(), (("int", INT), ("ud2", "ud2"), ("call", f"call {at.T0 | 3}:0"))
    ):
        patches = put(at.TSS + 8, (selector,)) + gates + (described(selector, words) if words else ())
        yield _switching(f"stack/ss0-{name}/{way}", code, patches)
    # A limit that leaves no room for SS0:ESP0 leaves no way to a handler at ring 0 either: levels 1 and 2 it is, below.
    for limit, (way, code) in product(
        (0xB, 0xC, 0x66), (("int", INT), ("ud2", "ud2"), ("call", f"call {at.T0 | 3}:0"))
    ):
        tss = segment(9, base=at.TSS, limit=limit, flags=0)
        yield Case(f"stack/tss-limit-{limit:x}/{way}", at_end(code), 3, 2, described(at.TSS_SELECTOR, tss) + gates)
    for limit, inner in product((0x0F, 0x11, 0x13, 0x14), (at.CODE1,)):
        tss = segment(9, base=at.TSS, limit=limit, flags=0)
        patches = described(at.TSS_SELECTOR, tss) + gated(at.GATE, gate(INT386, inner, at.LANDING, dpl=3))
        yield Case(f"stack/inner1-limit-{limit:x}", at_end(INT), 3, 2, patches)
    for esp0 in (at.TEST + 0x1004, at.TEST + 0x1010, at.TEST + 0x1014, at.TEST + 0x2000):
        for absent in (0, 1):
            patches = put(at.TSS + 4, (esp0,)) + put(at.PT_TEST + 4 * absent, (at.TEST_FRAMES + 0x1000 * absent,))
            yield _switching(f"stack/esp0-{esp0:x}-absent{absent}", INT, patches)
    kind = Kind("286", at.TSS_286_SELECTOR, segment(1, base=at.TSS_286, limit=0x2B, flags=0))
    for way, code in (("int", INT), ("ud2", "ud2"), ("call", f"call {at.T0 | 3}:0")):
        watches = tuple(at.LOW_STACK - 4 * n for n in range(1, 6))
        yield Case(
            f"stack/tss286/{way}", at_end(code), 3, 2, kind.patches + gates, watches, {"tr": at.TSS_286_SELECTOR}
        )


def _switching(name: str, code: str, patches: tuple[tuple[int, int], ...]) -> Case:
    # What is wrong with the stack is wrong for the handlers of #TS, #SS, #NP and #GP as well: they run as tasks.
    task = gate(TASK_GATE, at.TSS_DF_SELECTOR, 0)
    gates = tuple(patch for vector in (8, 10, 11, 12, 13, 14) for patch in gated(vector, task))
    watches = (
        at.TSS_DF,
        at.TSS + 0x20,
        at.TSS + 0x24,
        at.TSS + 0x38,
        at.TSS + 0x4C,
        at.ENTRY_STACK0 - 4,
        at.ENTRY_STACK0 - 8,
        at.GDT + at.T1 + 4,
    )
    return Case(name, at_end(code), 3, 2, patches + gates, watches)


def double_faults() -> Iterator[Case]:
    """A second exception while the first is being delivered, for each pair of classes."""
    first = {
        "ud": (6, "ud2"), "de": (0, "xor ecx, ecx\ndiv ecx"), "np": (11, f"mov eax, {at.T3 | 3:#x}\nmov ds, ax"),
        "gp": (13, f"mov eax, {at.KCODE}\nmov ss, ax"), "pf": (14, "mov eax, [0x801000]"), "int": (at.GATE, INT),
        "ss": (12, f"mov eax, {at.T2:#x}\nmov ss, ax"), "bp": (3, "int3"), "db": (1, "int1"), "of": (4, "into"),
        "ts": (10, "ts"),
    }  # fmt: skip
    second = {
        "np": gate(INT386, at.KCODE, at.LANDING, dpl=3, present=False),
        "gp": gate(0, at.KCODE, at.LANDING, dpl=3),
        "gp-null": gate(INT386, 0, at.LANDING, dpl=3),
        "pf": None,
    }  # fmt: skip
    absent = _absent_data() + described(at.T2, segment(DATA_RW, present=False)) + put(at.PT_TEST + 4, (0,))
    for (one, (vector, code)), (two, words), ring in product(first.items(), second.items(), (0, 3)):
        if one == "ts" or (one == "ss" and ring):
            continue
        flags = 0x802 if one == "of" else 2
        if words is not None:
            yield Case(f"double/{one}-{two}/ring{ring}", at_end(code), ring, flags, absent + gated(vector, words))
        elif ring == 3:
            task = gate(TASK_GATE, at.TSS_DF_SELECTOR, 0)
            patches = absent + put(at.TSS + 4, (at.TEST + 0x1800,)) + gated(14, task) + gated(8, task)
            watches = (at.TSS_DF, at.TSS + 0x20, at.TSS + 0x24, at.PT_TEST + 4)
            yield Case(f"double/{one}-{two}/ring{ring}", at_end(code), ring, flags, patches, watches)


def cases() -> Iterator[Case]:
    yield from types()
    yield from levels()
    yield from targets()
    yield from limits()
    yield from stacks()
    yield from double_faults()
