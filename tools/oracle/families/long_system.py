"""System registers of long mode: segment loads, LTR, LLDT, control and debug registers, MSRs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, at_end, described
from tools.oracle.descriptors import LDT_TYPE, TSS386, long_system
from tools.oracle.families.long_canonical import ADDRESSES
from tools.oracle.families.long_kinds import ALL

_CR4 = at.CR4_PAE | at.CR4_OSFXSR
_EFER = at.EFER_NXE | at.EFER_LME | at.EFER_SCE | 0x400
_CONTROL = {
    "cr0-pg": "mov eax, 0x31\nmov cr0, rax",
    "cr0-pe": "mov eax, 0x80000030\nmov cr0, rax",
    "cr0-nw": "mov eax, 0xa0000031\nmov cr0, rax",
    "cr0-high": "mov rax, 0x180000031\nmov cr0, rax",
    "cr0-wp": "mov eax, 0x80010031\nmov cr0, rax\nmov rcx, cr0",
    "cr0-et": "mov eax, 0x80000021\nmov cr0, rax\nmov rcx, cr0",
    "cr3-51": f"mov rax, {at.PML4 | 1 << 51:#x}\nmov cr3, rax",
    "cr3-62": f"mov rax, {at.PML4 | 1 << 62:#x}\nmov cr3, rax",
    "cr3-low": f"mov eax, {at.PML4 | 0x18:#x}\nmov cr3, rax\nmov rcx, cr3",
    "cr4-pae": f"mov eax, {_CR4 & ~at.CR4_PAE:#x}\nmov cr4, rax",
    "cr4-31": f"mov eax, {_CR4 | 1 << 31:#x}\nmov cr4, rax",
    "cr4-15": f"mov eax, {_CR4 | 1 << 15:#x}\nmov cr4, rax",
    "cr4-high": f"mov rax, {_CR4 | 1 << 32:#x}\nmov cr4, rax",
    "cr4-pge": f"mov eax, {_CR4 | at.CR4_PGE:#x}\nmov cr4, rax\nmov rcx, cr4",
    "cr8-15": "mov eax, 15\nmov cr8, rax\nmov rcx, cr8\nxor eax, eax\nmov cr8, rax",
    "cr8-16": "mov eax, 16\nmov cr8, rax",
    "cr8-high": "mov rax, 0x100000001\nmov cr8, rax",
    "cr8-read": "xor eax, eax\nmov cr8, rax\nmov rax, cr8",
    "cr1": ".byte 0x0f, 0x20, 0xc8",
    "cr9": ".byte 0x44, 0x0f, 0x20, 0xc8",
    "cr15": ".byte 0x44, 0x0f, 0x22, 0xf8",
    "dr7-high": "mov rax, 0x100000400\nmov dr7, rax",
    "dr6-high": "mov rax, 0x100000ff0\nmov dr6, rax",
    "dr8": ".byte 0x44, 0x0f, 0x21, 0xc0",
    "dr0-any": "mov rax, 0x123456789abcdef0\nmov dr0, rax\nmov rcx, dr0\nxor eax, eax\nmov dr0, rax",
    "lmsw": "mov eax, 9\nlmsw ax\nsmsw rcx",
    "clts": "clts",
    "hlt": "hlt",
    "invlpg": "invlpg [rdi]",
    "wbinvd": "wbinvd",
    "rsm": "rsm",
}
_LOSING = ("cr0-pg", "cr0-pe", "cr3-51", "cr3-62", "cr4-pae", "cr4-31", "cr4-15", "cr4-high")
"""QEMU does these, and is lost."""
_MSRS = {
    "unknown": (0x12345, 0), "efer-lme": (0xC0000080, _EFER & ~at.EFER_LME),
    "efer-reserved": (0xC0000080, _EFER | 1 << 1), "efer-high": (0xC0000080, _EFER | 1 << 32),
    "efer-sce": (0xC0000080, _EFER & ~at.EFER_SCE), "apic-reserved": (0x1B, 0xFEE00900 | 0xFF),
    "efer-reserved-16": (0xC0000080, _EFER | 1 << 16),
}  # fmt: skip


def control() -> Iterator[Case]:
    for (name, code), ring in product(_CONTROL.items(), (0, 1, 3)):
        if (name, ring) == ("hlt", 0):
            continue  # It would halt for good.
        lost_on = frozenset({"qemu"} if name in _LOSING and ring == 0 else ())
        yield Case(f"control/{name}/ring{ring}", at_end(code), ring, lost_on=lost_on)
    for (name, (number, value)), ring in product(_MSRS.items(), (0, 3)):
        text = f"mov ecx, {number:#x}\nmov eax, {value & 0xFFFFFFFF:#x}\nmov edx, {value >> 32:#x}\nwrmsr"
        if name != "apic-reserved" or ring:
            yield Case(f"msr/write-{name}/ring{ring}", at_end(text), ring)
    for number, ring in product((0x12345, 0xC0000080, 0xC0000081, 0xC0000100, 0x174, 0xC0001234, 0x40000000), (0, 3)):
        yield Case(f"msr/read-{number:x}/ring{ring}", at_end(f"mov ecx, {number:#x}\nrdmsr"), ring)


def tables() -> Iterator[Case]:
    """LTR and LLDT with every kind, and with what only 16-byte descriptors have."""
    for kind, word, ring in product(ALL, ("ltr", "lldt"), (0, 3)):
        if ring and kind.name not in ("null", "ldt", "tss-available"):
            continue
        code = at_end(f"mov eax, {kind.selector:#x}\n{word} ax\nxor ecx, ecx\nstr cx\nxor edx, edx\nsldt dx")
        yield Case(f"load/{word}/{kind.name}/ring{ring}", code, ring, 2, kind.patches, kind.watches, kind.settings)
    system = {"ltr": (TSS386, at.TSS, at.TSS_LIMIT), "lldt": (LDT_TYPE, at.LDT, at.LDT_LIMIT)}
    for word, (kind_code, base, limit) in system.items():
        text = at_end(f"mov eax, {at.T0}\n{word} ax")
        for name, address in ADDRESSES.items():
            words = long_system(kind_code, address, limit, dpl=3)
            yield Case(f"load/{word}/base-{name}", text, 0, 2, described(at.T0, words), (at.GDT + at.T0 + 4,))
        for upper in (0x100, 0x1000, 0x1F00):
            words = (*long_system(kind_code, base, limit)[:3], upper)
            yield Case(f"load/{word}/upper-{upper:x}", text, 0, 2, described(at.T0, words), (at.GDT + at.T0 + 4,))
        # The second half must lie inside the GDT, too.
        words = long_system(kind_code, base, limit)
        last = at.GDT_LIMIT - 7
        patches = described(last, words[:2])
        yield Case(f"load/{word}/second-half-outside", at_end(f"mov eax, {last}\n{word} ax"), 0, 2, patches)


def segments() -> Iterator[Case]:
    """Loads of DS and SS, and the questions about selectors."""
    for kind, ring, rpl, register in product(ALL, (0, 3), (0, 3), ("ds", "ss")):
        code = at_end(f"mov eax, {kind.selector | rpl:#x}\nmov {register}, ax")
        name = f"load/{register}/mov/{kind.name}/ring{ring}/rpl{rpl}"
        yield Case(name, code, ring, 2, kind.patches, kind.watches, kind.settings)
    for ring, rpl in product(range(4), range(4)):
        code = at_end(f"mov eax, {rpl}\nmov ss, ax\nmov [{at.DATA:#x}], rax")
        yield Case(f"load/ss/null/ring{ring}/rpl{rpl}", code, ring)
    for register, kind in product(("fs", "gs"), (kind for kind in ALL if kind.name in _SOME)):
        code = at_end(f"mov eax, {kind.selector | 3:#x}\nmov {register}, ax\nmov rax, {register}:[0x10]")
        based = kind.name == "data-based-3"
        if not based and kind.name != "null":
            yield Case(f"load/{register}/mov/{kind.name}", code, 3, 2, kind.patches, kind.watches)
    questions = {
        "lar": "lar ecx, eax\npushfq\nand ecx, 0xfff0ffff\npopfq",
        "lsl": "lsl ecx, eax",
        "verr": "verr ax",
        "verw": "verw ax",
    }
    for (word, code), kind, ring in product(questions.items(), ALL, (0, 3)):
        text = at_end(f"mov eax, {kind.selector | ring:#x}\n{code}")
        yield Case(f"ask/{word}/{kind.name}/ring{ring}", text, ring, 2, kind.patches, kind.watches, kind.settings)


_SOME = frozenset({"beyond", "data-rw-0", "code64-0", "absent-data-3", "call-gate", "code64-x-3"})


def cases() -> Iterator[Case]:
    for family in (control, tables, segments):
        yield from family()
