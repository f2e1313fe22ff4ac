"""Virtual-8086 mode: what traps by IOPL, what it doesn't have, faults, and the way in and out (SDM vol. 3, 21.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, Patch, at_end, gated
from tools.oracle.case import at as put
from tools.oracle.descriptors import INT386, TRAP386, gate

_VM = 0x20000
_CODE, _STACK, _DATA, _ABSENT = 0x50000, 0x52000, 0x54000, 0x58000
"""Linear addresses in the first MiB where a case's pages appear, too."""
_FRAME = tuple(at.ENTRY_STACK0 - 4 * n for n in range(1, 11))
_TRAPPING = {
    "cli": "cli", "sti": "sti", "pushf": "pushf\npop cx", "pushfd": "pushfd\npop ecx",
    "popf": "push 0x7ed7\npopf\npushf\npop cx",
    "popfd": ".byte 0x66, 0x68, 0xd7, 0x7e, 0x3c, 0\n.byte 0x66, 0x9d\npushfd\npop ecx", "int": "int 0x40",
    "int3": "int3", "into": "into", "int1": "int1", "hlt": "hlt",
    "iret": "push 0x7ed7\npush 0x5000\npush 0x80\n.byte 0xcf",
    "iretd": ".byte 0x66, 0x68, 0xd7, 0x7e, 0x3c, 0\n.byte 0x66, 0x6a, 0, 0x66, 0x68, 0x80, 0, 0, 0\n.byte 0x66, 0xcf",
    "out": "out 0x88, al", "in": "in al, 0x88\nmov al, 0", "nop": "nop",
}  # fmt: skip
_OTHERS = {
    "lldt": "lldt ax", "ltr": "ltr ax", "str": "str ax", "sldt": "sldt ax", "lar": "lar cx, ax", "lsl": "lsl cx, ax",
    "verr": "verr ax", "verw": "verw ax", "arpl": "arpl ax, cx", "clts": "clts", "lmsw": "lmsw ax", "smsw": "smsw ax",
    "lgdt": "lgdt [0]", "lidt": "lidt [0]", "sgdt": "sgdt [0]\nmov ax, [0]", "sidt": "sidt [0]\nmov ax, [0]",
    "read-cr0": "mov eax, cr0", "write-cr0": "mov cr0, eax", "read-dr7": "mov eax, dr7", "invlpg": "invlpg [0]",
    "wbinvd": "wbinvd", "invd": "invd", "rdmsr": "rdmsr", "wrmsr": "wrmsr", "rsm": "rsm", "ud2": "ud2",
    "sysexit": "sysexit", "divide": "mov cl, 0\ndiv cl", "aam": ".byte 0xd4, 0", "bound": "bound ax, [0x10]",
    "load-ds": "mov ax, 0x5123\nmov ds, ax", "load-es-null": "mov ax, 0\nmov es, ax", "lds": "lds ax, [0x10]",
    "push-pop-fs": "push 0x1234\npop fs", "far-jmp": ".byte 0xea, 0x80, 0, 0, 0x50",
    "far-call": ".byte 0x9a, 0x80, 0, 0, 0x50", "retf": "push 0x5000\npush 0x80\nretf", "read": "mov ax, [0x20]",
    "write": "mov [0x20], ax", "absent-read": "mov ax, 0x5800\nmov ds, ax\nmov ax, [0x24]",
    "absent-write": "mov ax, 0x5800\nmov ds, ax\nmov [0x24], ax",
    "absent-update": "mov ax, 0x5800\nmov ds, ax\nadd word ptr [0x24], 1", "absent-code": ".byte 0xea, 0, 0, 0, 0x58",
    "kernel-read": "mov ax, 0x2000\nmov ds, ax\nmov ax, [0]", "lock-nop": ".byte 0xf0, 0x90",
}  # fmt: skip


def _state(flags: int) -> dict[str, int]:
    return {
        "bits": 16, "cs": _CODE >> 4, "eip": 0, "ss": _STACK >> 4, "esp": 0xF00, "ds": _DATA >> 4, "es": _DATA >> 4,
        "fs": 0x1234, "gs": 0xFFFF, "eflags": flags | _VM | 2,
    }  # fmt: skip


def _pages() -> tuple[Patch, ...]:
    """The case's pages where virtual-8086 code can reach them, and INT END at offset 0x80 of the code."""
    places = {_CODE: at.CODE, _STACK: at.USER_STACK & ~0xFFF, _DATA: at.DATA}
    found = put(at.PD, (at.PT_KERNEL | 7,)) + put(at.PT_KERNEL + 4 * (_ABSENT >> 12), (0,))
    for linear, physical in places.items():
        found += put(at.PT_KERNEL + 4 * (linear >> 12), (physical | 7,))
    return found + put(at.CODE + 0x80, (at.END << 8 | 0xCD,))


def _case(
    name: str, code: str, flags: int, patches: tuple[Patch, ...] = (), more: Mapping[str, int] | None = None
) -> Case:
    settings = _state(flags) | dict(more or {})
    return Case(f"v86/{name}", at_end(code), 3, settings["eflags"], _pages() + patches, _FRAME, settings)


def _inside() -> Iterator[Case]:
    for (name, code), iopl, flag in product(_TRAPPING.items(), range(4), (0, 0x200)):
        yield _case(f"{name}/iopl{iopl}/if{flag >> 9}", code, iopl << 12 | flag | (0x800 if name == "into" else 0))
    for (name, code), iopl in product(_OTHERS.items(), (0, 3)):
        yield _case(f"{name}/iopl{iopl}", code, iopl << 12)
    for name in ("nop", "int", "int3", "pushf", "popf", "read"):
        yield _case(f"step/{name}", _TRAPPING.get(name, _OTHERS.get(name, "")), 0x3100)
    for name, iopl in product(("cli", "sti", "pushf", "popf", "pushfd", "popfd"), (0, 3)):
        # Not by INT: with VME it may stay inside, by the redirection bitmap.
        settings = _state(iopl << 12) | {"cr4": at.CR4_VME}
        code = f"{_TRAPPING[name]}\nud2"
        yield Case(f"v86/vme/{name}/iopl{iopl}", code, 3, settings["eflags"], _pages(), _FRAME, settings)


def _delivery() -> Iterator[Case]:
    """Gates that lead out: only code of ring 0 that isn't conforming (SDM vol. 2, INT n)."""
    targets = {
        "ring0": at.KCODE,
        "conforming": at.CONFORMING,
        "ring1": at.CODE1,
        "ring3": at.UCODE,
        "data": at.KDATA,
        "null": 0,
    }
    for (name, selector), kind, dpl in product(targets.items(), (INT386, TRAP386), (0, 3)):
        patches = gated(at.GATE, gate(kind, selector, at.LANDING, dpl=dpl))
        yield _case(f"gate/{name}/type{kind:x}/dpl{dpl}/int", f"int {at.GATE:#x}", 0x3200, patches)
        patches = gated(6, gate(kind, selector, at.LANDING, dpl=dpl))
        yield _case(f"gate/{name}/type{kind:x}/dpl{dpl}/ud2", "ud2", 0x3200, patches)


def _entry() -> Iterator[Case]:
    """IRET from ring 0 into virtual-8086 mode: not from another ring, and EFLAGS as a whole."""
    for flags, ring in product((_VM | 2, _VM | 0x3202, _VM | 0x200CD7, _VM | 0x40002, _VM | 0x10002), (0, 3)):
        values = (0, 0, _DATA >> 4, 0x4321, _STACK >> 4, 0xF00, flags, _CODE >> 4, 0x80)
        code = "\n".join(f"push {value:#x}" for value in values) + "\niret"
        yield Case(f"v86/entry/{flags:x}/ring{ring}", at_end(code), ring, 2, _pages(), _FRAME)


def cases() -> Iterator[Case]:
    for family in (_inside, _delivery, _entry):
        yield from family()
