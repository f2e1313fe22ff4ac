"""PUSHF, POPF, IRET, CLI, STI: what each ring and IOPL may see and change."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, at_end

_VALUES = (0, 0xFFFFFFFF, 0x202, 0x3002, 0x3202, 0x4000, 0x10002, 0x40002, 0x200002, 0x180002, 0xCD5, 0x7000)
_TF, _VM = 0x100, 0x20000
_READ = "\npushfd\npop ecx"


def cases() -> Iterator[Case]:
    for ring, flags in product(
        (0, 3), (2, 0x202, 0x3002, 0x1002, 0xCD7, 0x4002, 0x40002, 0x200002, 0x10002, 0x80002, 0x100002)
    ):
        yield Case(f"flags/pushf/{flags:x}/ring{ring}", at_end("pushfd\npop ecx"), ring, flags)
        yield Case(f"flags/pushfw/{flags:x}/ring{ring}", at_end("xor ecx, ecx\npushfw\npop cx"), ring, flags)
    for ring, iopl, value, size in product((0, 1, 3), (0, 1, 3), _VALUES, ("popfd", "popfw")):
        given = value & ~_TF
        push = f"push {given:#x}" if size == "popfd" else f"push word {given & 0xFFFF:#x}"
        for flag in (0, 0x200):
            if flag and (ring == 1 or size == "popfw"):
                continue
            name = f"flags/{size}/{given:x}/iopl{iopl}/if{flag >> 9}/ring{ring}"
            yield Case(name, at_end(f"{push}\n{size}{_READ}"), ring, 2 | iopl << 12 | flag)
    for ring, iopl, value, size in product((0, 3), (0, 3), _VALUES, ("iret", "iretw")):
        given = value & ~(_TF | _VM | 0x4000)
        selector = at.KCODE if ring == 0 else at.UCODE
        if size == "iret":
            code = f"push {given:#x}\npush {selector}\npush {at.CODE + 0x100:#x}\niret"
            body = at_end(f"{code}\n.org {at.CODE + 0x100:#x}{_READ}")
        else:
            continue
        yield Case(f"flags/{size}/{given:x}/iopl{iopl}/ring{ring}", body, ring, 2 | iopl << 12)
    for value in (*_VALUES, 0x3000, 0x1202):
        given = value & ~(_TF | _VM | 0x4000)
        stack = f"push {at.UDATA}\npush {at.USER_STACK:#x}"
        code = f"{stack}\npush {given:#x}\npush {at.UCODE}\npush {at.CODE + 0x100:#x}\niret"
        yield Case(f"flags/iret-outward/{given:x}", at_end(f"{code}\n.org {at.CODE + 0x100:#x}{_READ}"), 0)
    for word, ring, iopl, flag in product(("cli", "sti"), (0, 1, 3), range(4), (0, 0x200)):
        yield Case(
            f"flags/{word}/iopl{iopl}/if{flag >> 9}/ring{ring}", at_end(f"{word}{_READ}"), ring, 2 | iopl << 12 | flag
        )
    for word, flag in product(("cli", "sti"), (0, 0x200, 0x100200, 0x80000)):
        for cr4 in (at.CR4_PVI,):
            yield Case(f"flags/pvi-{word}/{flag:x}", at_end(f"{word}{_READ}"), 3, 2 | flag, settings={"cr4": cr4})
    for code in ("clc", "cmc", "stc", "cld", "std", "lahf", "mov ah, 0xff\nsahf", "mov ah, 0x02\nsahf"):
        for flags in (2, 0xCD7):
            yield Case(f"flags/{'-'.join(code.split()).replace(',', '')}/{flags:x}", at_end(code + _READ), 3, flags)
