"""Interrupt delivery in long mode: gates, the IST, aligned stacks, double faults (SDM vol. 3, 6.14)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, Patch, at_end, described, gated
from tools.oracle.case import at as put
from tools.oracle.descriptors import DATA_RW, INT386, TRAP386, long_gate, long_system, segment
from tools.oracle.families.long_kinds import ALL

INT = f"int {at.GATE:#x}"
_ABSENT = described(at.T3, segment(DATA_RW, dpl=3, present=False))
_RAISERS = {"int": (at.GATE, INT), "ud2": (6, "ud2"), "np": (11, f"mov eax, {at.T3:#x}\nmov ds, ax")}


def _watch(ring: int) -> tuple[int, ...]:
    top = at.ENTRY_STACK0 if ring else at.STACK0
    return tuple(top - 8 * n for n in range(1, 7))


def on_other_stack(*vectors: int) -> tuple[Patch, ...]:
    """Patches that let faults find a stack when the case's own is no good: their gates use the IST."""
    return tuple(patch for vector in vectors or (8, 11, 12, 13, 14) for patch in gated(vector, _reporting(vector)))


def _reporting(vector: int) -> tuple[int, ...]:
    """A gate to the reporting handler on the first stack of the IST."""
    from tools.oracle.image import kernel
    from tools.oracle.tables import Mode

    return long_gate(INT386, at.KCODE, kernel(Mode.LONG).symbols["stubs"] + 10 * vector, ist=1)


def types() -> Iterator[Case]:
    """All 32 values of S and type."""
    for kind, ring, present in product(range(32), (0, 3), (True, False)):
        words = long_gate(kind, at.KCODE, at.LANDING, dpl=3, present=present)
        name = f"gate/type{kind:02x}/{'p' if present else 'np'}/ring{ring}"
        yield Case(name, at_end(INT), ring, 0x246, gated(at.GATE, words), _watch(ring))


def levels() -> Iterator[Case]:
    ways = {
        "int": (at.GATE, INT, 2), "int3": (3, "int3", 2), "int-3": (3, "int 3", 2), "int1": (1, "int1", 2),
        "int-14": (14, "int 14", 2), "ud2": (6, "ud2", 2),
    }  # fmt: skip
    for (name, (vector, code, flags)), dpl, ring in product(ways.items(), range(4), (0, 1, 2, 3)):
        words = long_gate(INT386, at.KCODE, at.LANDING, dpl=dpl)
        yield Case(f"level/{name}/dpl{dpl}/ring{ring}", at_end(code), ring, flags, gated(vector, words), _watch(ring))
    for kind, ring, flags in product((INT386, TRAP386), (0, 3), (0x202, 0x2, 0x3202, 0x40CD7, 0x4202, 0x200002)):
        words = long_gate(kind, at.KCODE, at.LANDING, dpl=3)
        name = f"level/flags-{flags:x}/type{kind:x}/ring{ring}"
        yield Case(name, at_end(INT), ring, flags, gated(at.GATE, words), _watch(ring))


def targets() -> Iterator[Case]:
    """Gates to every kind of selector: only 64-bit code will do."""
    for kind, ring, (way, (vector, code)) in product(ALL, (0, 3), _RAISERS.items()):
        words = long_gate(INT386, kind.selector | (kind.selector != 0) * 3, at.LANDING, dpl=3)
        patches = gated(vector, words) + kind.patches + _ABSENT
        watches = kind.watches + _watch(ring)
        yield Case(f"target/{kind.name}/{way}/ring{ring}", at_end(code), ring, 2, patches, watches, kind.settings)
    for code_selector, ring in product((at.CODE1, at.CODE2, at.CONFORMING), (0, 1, 2, 3)):
        words = long_gate(TRAP386, code_selector, at.LANDING, dpl=3)
        top = at.ENTRY_STACK1 if code_selector == at.CODE1 else at.ENTRY_STACK2
        watches = tuple(top - 8 * n for n in range(1, 6))
        yield Case(
            f"target/inner-{code_selector:x}/ring{ring}", at_end(INT), ring, 0x202, gated(at.GATE, words), watches
        )
    for (way, (vector, code)), ring in product(_RAISERS.items(), (0, 3)):
        words = long_gate(INT386, at.KCODE, 0xFFFFFF8000000000 + at.LANDING, dpl=3)
        patches = gated(vector, words) + put(at.PML4 + 0xFF8, (at.PDPT | 7, 0)) + _ABSENT
        yield Case(f"target/high/{way}/ring{ring}", at_end(code), ring, 2, patches, _watch(ring))


def limits() -> Iterator[Case]:
    for vector, ring, less in product((0x31, at.GATE, 0x80, 0xFF), (0, 3), (0, 1, 8, 15, 16)):
        settings = {"idt_limit": 16 * vector + 15 - less}
        name = f"idt-limit/int-{vector:x}/less{less}/ring{ring}"
        yield Case(name, at_end(f"int {vector:#x}"), ring, settings=settings)


def interrupt_stacks() -> Iterator[Case]:
    """Each entry of the IST (good, good, not aligned, odd, not canonical, on a test page, null), from each ring."""
    faults = on_other_stack()
    for ist, ring, (way, (vector, code)) in product(range(8), (0, 3), _RAISERS.items()):
        words = long_gate(INT386, at.KCODE, at.LANDING, dpl=3, ist=ist)
        patches = faults + gated(vector, words) + _ABSENT
        watches = tuple(at.STACK_DF - 8 * n for n in range(1, 9))
        yield Case(f"ist/{ist}/{way}/ring{ring}", at_end(code), ring, 2, patches, watches)
    for rights, ring, (way, (vector, code)) in product((0, 5, 3), (0, 3), _RAISERS.items()):
        words = long_gate(INT386, at.KCODE, at.LANDING, dpl=3, ist=6)
        patches = faults + gated(vector, words) + _ABSENT + put(at.PT_TEST, (at.TEST_FRAMES | rights, 0))
        settings = {"cr0": at.BASE_CR0 | at.CR0_WP}
        name = f"ist/page-{rights}/{way}/ring{ring}"
        yield Case(name, at_end(code), ring, 2, patches, (at.PT_TEST, at.TEST_FRAMES + 0xFE0), settings)
    for low, ring in product(range(16), (0, 3)):
        # The processor aligns the stack pointer before it pushes, whichever it is (6.14.2).
        words = long_gate(INT386, at.KCODE, at.LANDING, dpl=3)
        patches = gated(at.GATE, words) + put(at.TSS + 4, (at.ENTRY_STACK0 - low,))
        settings = {} if ring else {"esp": at.STACK0 - low}
        yield Case(f"aligned/minus{low}/ring{ring}", at_end(INT), ring, 2, patches, settings=settings)


def stacks() -> Iterator[Case]:
    """RSP0 of the TSS, and the TSS's limit."""
    faults = on_other_stack(8, 10, 11, 12, 13, 14)
    values = {
        "not-canonical": 1 << 47,
        "absent": at.TEST + 0x8000_0000,
        "read-only": at.TEST + 0x1000,
        "null": 0,
        "edge": 1 << 47 | 8,
    }
    for (name, value), (way, (vector, code)) in product(values.items(), _RAISERS.items()):
        patches = faults + put(at.TSS + 4, (value & 0xFFFFFFFF, value >> 32)) + put(at.PT_TEST, (at.TEST_FRAMES | 5, 0))
        patches += _ABSENT + (gated(vector, long_gate(INT386, at.KCODE, at.LANDING, dpl=3)) if vector != 11 else ())
        settings = {"cr0": at.BASE_CR0 | at.CR0_WP}
        yield Case(f"stack/rsp0-{name}/{way}", at_end(code), 3, 2, patches, (at.PT_TEST,), settings)
    for limit, (way, (_, code)) in product((3, 4, 0xA, 0xB, 0x22, 0x67), _RAISERS.items()):
        if limit < 0xB:
            continue  # No way to a handler that uses RSP0, and the IST is further back.
        tss = long_system(9, at.TSS, limit)
        yield Case(f"stack/tss-limit-{limit:x}/{way}", at_end(code), 3, 2, described(at.LONG_TSS, tss) + _ABSENT)
    for limit in (0x12, 0x13, 0x22, 0x23):
        tss = long_system(9, at.TSS, limit)
        for selector in (at.CODE1, at.CODE2):
            words = long_gate(INT386, selector, at.LANDING, dpl=3)
            patches = described(at.LONG_TSS, tss) + gated(at.GATE, words)
            yield Case(f"stack/inner-{selector & 3}-limit-{limit:x}", at_end(INT), 3, 2, patches)
        words = long_gate(INT386, at.KCODE, at.LANDING, dpl=3, ist=1)
        patches = described(at.LONG_TSS, long_system(9, at.TSS, limit + 8)) + gated(at.GATE, words)
        yield Case(f"stack/ist1-limit-{limit + 8:x}", at_end(INT), 3, 2, patches)


def double_faults() -> Iterator[Case]:
    first = {
        "ud": (6, "ud2"), "de": (0, "xor ecx, ecx\ndiv ecx"), "np": (11, f"mov eax, {at.T3 | 3:#x}\nmov ds, ax"),
        "gp": (13, f"mov eax, {at.KCODE}\nmov ss, ax"), "pf": (14, "mov eax, [0x801000]"), "int": (at.GATE, INT),
        "bp": (3, "int3"), "db": (1, "int1"), "ss": (12, "mov rbp, [rdi]\nmov rax, [rbp]"),
    }  # fmt: skip
    second = {
        "np": long_gate(INT386, at.KCODE, at.LANDING, dpl=3, present=False),
        "gp": long_gate(0, at.KCODE, at.LANDING, dpl=3),
        "gp-null": long_gate(INT386, 0, at.LANDING, dpl=3),
        "gp-compat": long_gate(INT386, at.COMPAT0, at.LANDING, dpl=3),
        "pf": long_gate(INT386, at.KCODE, at.LANDING, dpl=3, ist=6),
        "ss": long_gate(INT386, at.KCODE, at.LANDING, dpl=3, ist=5),
    }  # fmt: skip
    absent = _ABSENT + put(at.PT_TEST, (0, 0, 0, 0)) + put(at.DATA, (0, 0x8000))
    for (one, (vector, code)), (two, words), ring in product(first.items(), second.items(), (0, 3)):
        patches = absent + gated(vector, words)
        yield Case(f"double/{one}-{two}/ring{ring}", at_end(code), ring, 2, patches, settings={"edi": at.DATA})


def cases() -> Iterator[Case]:
    for family in (types, levels, targets, limits, interrupt_stacks, stacks, double_faults):
        yield from family()
