"""Far transfers of 64-bit code: memory-indirect JMP and CALL, RETF, IRETQ, call gates of 16 bytes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, Patch, at_end, described
from tools.oracle.case import at as put
from tools.oracle.descriptors import CALL386, CODE_XR, DATA_RW, Words, long_gate, segment
from tools.oracle.families.kinds import Kind
from tools.oracle.families.long_canonical import ADDRESSES
from tools.oracle.families.long_kinds import ALL, MEMORY, SPECIAL, L

_JMP, _CALL = ".byte 0x48, 0xff, 0x2f", ".byte 0x48, 0xff, 0x1f"
_JMP32, _CALL32 = ".byte 0xff, 0x2f", ".byte 0xff, 0x1f"
"""JMP and CALL by the far pointer at RDI, m16:64 and m16:32."""
_POINTER = {"edi": at.DATA}
_ENTRY = tuple(at.ENTRY_STACK0 - 8 * n for n in range(1, 5))


def _pointer(selector: int, offset: int = at.LANDING, *, wide: bool = True) -> tuple[Patch, ...]:
    return put(at.DATA, (offset, offset >> 32, selector) if wide else (offset, selector))


def _stack_watches(ring: int) -> tuple[int, ...]:
    own = (at.USER_STACK if ring else at.STACK0,)
    return tuple(top - 8 * n for top in own for n in range(1, 5)) + (_ENTRY if ring else ())


def direct() -> Iterator[Case]:
    for kind, ring, rpl, word in product(ALL, (0, 3), (0, 3), ("jmp", "call", "retf", "iret")):
        selector = kind.selector | rpl
        code = {"jmp": _JMP, "call": _CALL}.get(word) or _returning(word, selector)
        watches = kind.watches + _stack_watches(ring)
        name = f"far/{word}/{kind.name}/ring{ring}/rpl{rpl}"
        patches = kind.patches + _pointer(selector)
        yield Case(name, at_end(code), ring, 2, patches, watches, {**kind.settings, **_POINTER})
    narrow = [
        kind for kind in ALL if kind.name in ("code64-0", "code64-3", "code32-3", "call-gate", "null", "data-rw-0")
    ]
    for kind, ring, (word, code) in product(narrow, (0, 3), {"jmp32": _JMP32, "call32": _CALL32}.items()):
        patches = kind.patches + _pointer(kind.selector | ring, wide=False)
        name = f"far/{word}/{kind.name}/ring{ring}"
        yield Case(name, at_end(code), ring, 2, patches, _stack_watches(ring), _POINTER)


def _returning(word: str, selector: int) -> str:
    if word == "retf":
        return f"push {at.UDATA}\npush {at.USER_STACK:#x}\npush {selector:#x}\npush {at.LANDING:#x}\nretfq"
    stack = f"push {at.UDATA}\npush {at.USER_STACK:#x}\n" if selector & 3 else f"push {at.KDATA}\npush {at.STACK0:#x}\n"
    return f"{stack}push 2\npush {selector:#x}\npush {at.LANDING:#x}\niretq"


def call_gates() -> Iterator[Case]:
    for dpl, rpl, ring, word, present in product((0, 1, 3), (0, 3), (0, 3), ("call", "jmp"), (True, False)):
        words = long_gate(CALL386, at.KCODE, at.LANDING, dpl=dpl, present=present)
        yield _through(f"dpl{dpl}/rpl{rpl}/{word}/{'p' if present else 'np'}/ring{ring}", words, word, ring, rpl)
    for kind, ring, word in product(MEMORY + SPECIAL, (0, 3), ("call", "jmp")):
        if kind.settings:
            continue
        moved = kind if kind.selector != at.T0 else Kind(kind.name, at.T1, kind.words)
        words = long_gate(CALL386, moved.selector, at.LANDING, dpl=3)
        yield _through(f"to-{kind.name}/{word}/ring{ring}", words, word, ring, 3, moved)
    for code, word in product((at.CODE1, at.CODE2), ("call", "jmp")):
        yield _through(f"inner{code & 3}/{word}", long_gate(CALL386, code, at.LANDING, dpl=3), word, 3, 3)
    for (name, address), ring, word in product(ADDRESSES.items(), (0, 3), ("call", "jmp")):
        words = long_gate(CALL386, at.KCODE, address, dpl=3)
        yield _through(f"offset-{name}/{word}/ring{ring}", words, word, ring, 3)
    for upper, ring in product((1, 0xC, 0x10, 0x1F), (0, 3)):
        words = (*long_gate(CALL386, at.KCODE, at.LANDING, dpl=3)[:3], upper << 8)
        yield _through(f"upper-type{upper:x}/ring{ring}", words, "call", ring, 3)
    for count in (1, 31):
        words = long_gate(CALL386, at.KCODE, at.LANDING, dpl=3, ist=count)
        yield _through(f"ignored-count{count}", words, "call", 3, 3)


def _through(name: str, words: Words, word: str, ring: int, rpl: int, target: Kind | None = None) -> Case:
    patches = described(at.T0, words) + (target.patches if target else ()) + _pointer(at.T0 | rpl, 0x1234567812345678)
    watches = (target.watches if target else ()) + _stack_watches(ring)
    code = _JMP if word == "jmp" else _CALL
    return Case(f"call-gate/{name}", at_end(code), ring, 2, patches, watches, _POINTER)


_STACKS = {
    "null": 0, "null3": 3, "null1": 1, "beyond": at.BEYOND, "code": at.KCODE, "good3": at.UDATA, "good0": at.KDATA,
    "rpl": at.UDATA & ~3, "data1": at.DATA1, "absent": at.T1 | 3, "read-only": at.T2 | 3,
}  # fmt: skip


def outward() -> Iterator[Case]:
    """RETFQ and IRETQ with every stack selector, to 64-bit and compatibility code."""
    absent = described(at.T1, segment(DATA_RW, dpl=3, present=False)) + described(at.T2, segment(0x10, dpl=3))
    codes = {"64": at.UCODE, "32": at.COMPAT3, "ring1": at.CODE1, "same": at.KCODE}
    for word, (name, stack), (to, code_selector) in product(("retfq", "iretq"), _STACKS.items(), codes.items()):
        if word == "retfq" and to == "same":
            continue
        flags = "push 0x246\n" if word == "iretq" else ""
        top = at.STACK0 - 0x40 if to == "same" else at.USER_STACK - 0x40
        code = f"push {stack:#x}\npush {top:#x}\n{flags}push {code_selector:#x}\npush {at.LANDING:#x}\n{word}"
        yield Case(f"outward/{word}/{name}/to-{to}", at_end(code), 0, 2, absent, (at.GDT + at.T1 + 4,))
    for register, selector in product(("ds", "es"), (at.KDATA, at.UDATA, at.CONFORMING, at.DATA1, at.KCODE)):
        code = f"push {at.UDATA}\npush {at.USER_STACK:#x}\npush 2\npush {at.UCODE}\npush {at.LANDING:#x}\niretq"
        yield Case(f"outward/closing/{register}/{selector:x}", at_end(code), 0, settings={register: selector})
    for word, (name, address), ring in product(("retfq", "iretq"), ADDRESSES.items(), (0, 3)):
        outer = f"push {at.UDATA if ring else at.KDATA}\npush {at.USER_STACK if ring else at.STACK0:#x}\n"
        flags = "push 2\n" if word == "iretq" else ""
        code = f"{outer}{flags}push {at.UCODE if ring else at.KCODE}\nmov rax, {address:#x}\npush rax\n{word}"
        yield Case(f"outward/{word}/rip-{name}/ring{ring}", at_end(code), ring)
    for value, ring in product((0x4002, 0x20002, 0x24002), (0, 3)):
        # NT in the flags that run: no task to return to. VM in the image: no virtual-8086 mode in long mode.
        outer = f"push {at.UDATA if ring else at.KDATA}\npush {at.USER_STACK if ring else at.STACK0:#x}\n"
        code = f"{outer}push {value & 0x20002:#x}\npush {at.UCODE if ring else at.KCODE}\npush {at.LANDING:#x}\niretq"
        yield Case(f"outward/flags-{value:x}/ring{ring}", at_end(code), ring, value & 0x4002)


def operand_sizes() -> Iterator[Case]:
    """IRET and RETF with 32-bit operands in 64-bit code."""
    low = described(at.T0, segment(CODE_XR, dpl=3, flags=L)) + described(at.T1, segment(CODE_XR, flags=L))
    for ring, word in product((0, 3), ("iretd", "retf")):
        selector, data = (at.T0 | 3, at.UDATA) if ring else (at.T1, at.KDATA)
        frame = (at.LANDING, selector, *((2,) if word == "iretd" else ()), at.DATA + 0x80, data)
        yield Case(
            f"far/{word}32/ring{ring}", at_end(f"mov esp, {at.DATA:#x}\n{word}"), ring, 2, low + put(at.DATA, frame)
        )


def cases() -> Iterator[Case]:
    for family in (direct, call_gates, outward, operand_sizes):
        yield from family()
