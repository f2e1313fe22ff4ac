"""SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS and the FSGSBASE instructions in long mode (SDM vol. 2)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, at_end
from tools.oracle.case import at as put
from tools.oracle.families.long_canonical import ADDRESSES

_STAR, _LSTAR, _CSTAR, _SFMASK = 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084
_SYSENTER_CS = 0x174
_GOOD_STAR = (at.UCODE & ~3) << 48 | at.KCODE << 32
_COMPAT = {"bits": 32, "cs": at.COMPAT3}
_BASES = {"rdfsbase": 0xC0, "rdgsbase": 0xC8, "wrfsbase": 0xD0, "wrgsbase": 0xD8}
CR4_FSGSBASE = 1 << 16


def syscalls() -> Iterator[Case]:
    for ring, flags in product((0, 1, 2, 3), (2, 0x202, 0xCD7, 0x3202, 0x40002, 0x200002)):
        yield Case(f"syscall/flags-{flags:x}/ring{ring}", at_end("syscall"), ring, flags)
    for mask in (0, 0xFFFFFFFF, 0x40300, 0x2, 0xCD5, 0x10000):
        yield Case(f"syscall/mask-{mask:x}", at_end("syscall"), 3, 0x40AD7, msrs=((_SFMASK, mask),))
    for star in (0x1B << 48 | 0x0B << 32, 0x18 << 48 | 0x10 << 32, 0x18 << 48, 0x18 << 48 | 0xFF << 32):
        yield Case(f"syscall/star-{star >> 32:x}", at_end("syscall"), 3, msrs=((_STAR, star),))
    for ring in (0, 3):
        settings = {"efer": at.EFER_NXE | at.EFER_LME}
        yield Case(f"syscall/off/ring{ring}", at_end("syscall"), ring, settings=settings)
        yield Case(f"sysret/off/ring{ring}", at_end("sysretq"), ring, settings=settings)
        yield Case(f"syscall/lock/ring{ring}", at_end(".byte 0xf0\nsyscall"), ring)
    high = 0xFFFFFF8000000000 + at.LANDING
    patches = put(at.PML4 + 0xFF8, (at.PDPT | 7, 0))
    yield Case("syscall/high", at_end("syscall"), 3, 2, patches, msrs=((_LSTAR, high),))


def sysrets() -> Iterator[Case]:
    flags = (0, 2, 0x202, 0xCD7, 0x3202, 0x40002, 0x200002, 0x10002, 0x20002, 0x24002, 0x180002, 0xFFFFFFFFFFFFFEFF)
    for word, value in product(("sysret", "sysretq"), flags):
        settings = {"ecx": at.LANDING, "r11": value}
        yield Case(f"sysret/{word}/flags-{value & 0xFFFFFFFF:x}", at_end(word), 0, 2, settings=settings)
    for word, ring in product(("sysret", "sysretq"), (1, 2, 3)):
        yield Case(f"sysret/{word}/ring{ring}", at_end(word), ring, settings={"ecx": at.LANDING, "r11": 2})
    for star in (0x1B << 48, 0x13 << 48, 0xF0 << 48, 0xE8 << 48):
        for word in ("sysret", "sysretq"):
            settings = {"ecx": at.LANDING, "r11": 2}
            yield Case(f"sysret/{word}/star-{star >> 48:x}", at_end(word), 0, settings=settings, msrs=((_STAR, star),))
    for name, address in ADDRESSES.items():
        yield Case(f"sysret/sysretq/{name}", at_end("sysretq"), 0, settings={"ecx": address, "r11": 2})
        settings = {"ecx": (address | at.LANDING) & ~(1 << 31), "r11": 2}
        yield Case(f"sysret/sysret/{name}", at_end("sysret"), 0, settings=settings)


def sysenters() -> Iterator[Case]:
    for ring, flags in product((0, 1, 3), (2, 0xAD7, 0x3202, 0x10002)):
        yield Case(f"sysenter/flags-{flags:x}/ring{ring}", at_end("sysenter"), ring, flags)
        if ring == 3:
            yield Case(f"sysenter/compat/flags-{flags:x}", at_end("sysenter"), 3, flags, settings=_COMPAT)
    for selector in (0, 3, 0x0B, 0x10, 0x8, 0xF8, 0xFFFF):
        msrs = ((_SYSENTER_CS, selector),)
        yield Case(f"sysenter/cs-{selector:x}", at_end("sysenter"), 3, msrs=msrs)
        yield Case(f"sysexit/cs-{selector:x}", at_end("sysexit"), 0, settings=_landing(), msrs=msrs)
        yield Case(f"sysexit/cs-{selector:x}/q", at_end("sysexitq"), 0, settings=_landing(), msrs=msrs)
    for ring in (1, 2, 3):
        yield Case(f"sysexit/ring{ring}", at_end("sysexit"), ring, settings=_landing())
        yield Case(f"sysexit/q/ring{ring}", at_end("sysexitq"), ring, settings=_landing())
    for name, address in ADDRESSES.items():
        yield Case(f"sysexit/q/rdx-{name}", at_end("sysexitq"), 0, settings=_landing() | {"edx": address})
        yield Case(f"sysexit/q/rcx-{name}", at_end("sysexitq"), 0, settings=_landing() | {"ecx": address})
        settings = _landing() | {
            "edx": address & ~0xFFFFFFFF | at.LANDING,
            "ecx": address & ~0xFFFFFFFF | at.USER_STACK,
        }
        yield Case(f"sysexit/high-{name}", at_end("sysexit"), 0, settings=settings)


def _landing() -> dict[str, int]:
    return {"edx": at.LANDING, "ecx": at.USER_STACK}


def bases() -> Iterator[Case]:
    swap = ".byte 0x0f, 0x01, 0xf8"
    for ring in range(4):
        yield Case(f"bases/swapgs/ring{ring}", at_end(swap), ring)
        yield Case(f"bases/swapgs-twice/ring{ring}", at_end(f"{swap}\nmov rax, gs:[8]\n{swap}"), ring)
        yield Case(f"bases/swapgs-lock/ring{ring}", at_end(f".byte 0xf0\n{swap}"), ring)
    yield Case("bases/swapgs-compat", at_end(swap), 3, settings=_COMPAT)
    for (word, member), ring, cr4 in product(_BASES.items(), (0, 3), (0, CR4_FSGSBASE)):
        settings = {"cr4": at.CR4_PAE | at.CR4_OSFXSR | cr4, "eax": 0x00007FFF12345678}
        for width, prefix in (("64", "0xf3, 0x48"), ("32", "0xf3")):
            code = at_end(f".byte {prefix}, 0x0f, 0xae, {member:#x}")
            yield Case(f"bases/{word}{width}/cr4-{cr4:x}/ring{ring}", code, ring, settings=settings)
        if cr4:
            compat = settings | _COMPAT
            yield Case(
                f"bases/{word}-compat/ring{ring}", at_end(f".byte 0xf3, 0x0f, 0xae, {member:#x}"), 3, settings=compat
            )
    for word, (name, address) in product(("wrfsbase", "wrgsbase"), ADDRESSES.items()):
        settings = {"cr4": at.CR4_PAE | at.CR4_OSFXSR | CR4_FSGSBASE, "eax": address}
        code = at_end(f".byte 0xf3, 0x48, 0x0f, 0xae, {_BASES[word]:#x}")
        yield Case(f"bases/{word}/{name}", code, 3, settings=settings)
    for register, selector, ring in product(("fs", "gs", "ds", "es"), (at.KDATA, at.UDATA), (0, 3)):
        if selector == at.KDATA and ring:
            continue
        # A descriptor brings its base, whatever the MSR held.
        yield Case(
            f"bases/mov-{register}/{selector:x}/ring{ring}", at_end(f"mov eax, {selector}\nmov {register}, ax"), ring
        )


def cases() -> Iterator[Case]:
    for family in (syscalls, sysrets, sysenters, bases):
        yield from family()
