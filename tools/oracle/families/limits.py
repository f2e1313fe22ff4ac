"""Segment limits: a small family, for only one of the oracles checks them (SDM vol. 3, 5.3)."""

from __future__ import annotations

from collections.abc import Iterator

from tools.oracle import layout as at
from tools.oracle.case import Case, at_end, described
from tools.oracle.descriptors import CODE_XR, DATA_RW, DATA_RW_DOWN, segment


def cases() -> Iterator[Case]:
    up = described(at.T0, segment(DATA_RW, base=at.DATA, limit=0x7F, dpl=3))
    down = described(at.T0, segment(DATA_RW_DOWN, base=at.DATA, limit=0x7F, dpl=3))
    accesses = {
        "last": "mov al, es:[0x7f]", "beyond": "mov al, es:[0x80]", "across": "mov eax, es:[0x7d]",
        "write": "mov es:[0x80], eax", "update": "inc dword ptr es:[0x7e]", "far": "mov al, es:[0x1000]",
        "string": "mov edi, 0x80\nstosb",
    }  # fmt: skip
    load = f"mov ecx, {at.T0 | 3:#x}\nmov es, cx\n"
    for name, code in accesses.items():
        yield Case(f"limits/up/{name}", at_end(load + code), 3, 2, up)
        yield Case(f"limits/down/{name}", at_end(load + code), 3, 2, down)
    yield Case(
        "limits/stack",
        at_end(f"mov ecx, {at.T0 | 3:#x}\nmov ss, cx\nmov esp, 0x84\npush eax\npop eax\npop eax"),
        3,
        2,
        up,
    )
    short = described(at.T0, segment(CODE_XR, base=at.CODE, limit=0xFF, dpl=3))
    yield Case("limits/jmp", at_end(f"jmp {at.T0 | 3:#x}:0x100"), 3, 2, short)
    yield Case(
        "limits/run", f"jmp {at.T0 | 3:#x}:0xfe\n.org {at.CODE + 0xFE:#x}\nnop\nnop\nint {at.END:#x}", 3, 2, short
    )
