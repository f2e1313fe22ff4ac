"""Single step and the debug registers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, at_end, gated
from tools.oracle.descriptors import TRAP386, gate

_STEPPED = {
    "nop": "nop", "mov": "mov eax, 1", "ud2": "ud2", "int3": "int3", "int": f"int {at.END:#x}", "into": "into",
    "int1": "int1", "pushf": "pushfd", "pop-ss": "push ss\npop ss\nnop\nnop", "jmp": "jmp 1f\nnop\n1: nop",
    "call": "call 1f\nnop\n1: nop", "load": f"mov eax, [{at.DATA:#x}]", "movs": "mov ecx, ecx\nrep movsb",
    "loop": "1: loop 1b", "far": None, "sti": "sti\nnop", "hlt": "hlt", "cpuid": "xor eax, eax",
    "fault": "mov eax, [0xfffff000]", "div": "div dword ptr [0x404000]", "lock": "lock inc dword ptr [0x404000]",
    "fninit": "fninit", "cmpxchg": "cmpxchg [0x404000], ecx",
}  # fmt: skip


def stepping() -> Iterator[Case]:
    for (name, code), ring in product(_STEPPED.items(), (0, 3)):
        if (name, ring) == ("hlt", 0):
            continue  # It would halt for good.
        selector = at.UCODE if ring else at.KCODE
        text = code or f"jmp {selector:#x}:{at.CODE + 0x20:#x}\n.org {at.CODE + 0x20:#x}\nnop"
        flags = 0x3102 if name == "sti" else 0x102
        settings = {"ecx": 3, "esi": at.DATA, "edi": at.DATA + 0x40}
        yield Case(f"step/{name}/ring{ring}", at_end(text), ring, flags, settings=settings)
    for ring, value, first in product((0, 3), (0x102, 0x2), (0, 0x100)):
        code = at_end(f"push {value:#x}\npopfd\nnop\nnop\nnop")
        yield Case(f"step/popf-{value:x}/tf{first >> 8}/ring{ring}", code, ring, 2 | first)
        selector = at.UCODE if ring else at.KCODE
        code = f"push {value:#x}\npush {selector}\npush {at.CODE + 0x40:#x}\niret\n.org {at.CODE + 0x40:#x}\nnop\nnop"
        yield Case(f"step/iret-{value:x}/ring{ring}", at_end(code), ring, 2)
    for ring, register in product((0, 3), ("ss", "ds")):
        code = at_end(f"mov eax, {register}\npush 0x102\npopfd\nmov {register}, ax\nnop\nnop")
        yield Case(f"step/mov-{register}/ring{ring}", code, ring)
    code = at_end("push 0x102\npopfd\npush ss\npop ss\nnop\nnop")
    # TF is set by the frame, the first instruction is a load of SS: one more runs before the trap.
    for register in ("ss", "ds"):
        for ring in (0, 3):
            selector = at.UDATA if ring else at.KDATA
            yield Case(
                f"step/first-mov-{register}/ring{ring}",
                at_end(f"mov {register}, ax\nnop\nnop"),
                ring,
                0x102,
                settings={"eax": selector},
            )
    yield Case("step/pop-ss-later", code, 0)
    for ring in (0, 3):
        # Through a trap gate: TF is off in the handler, the pushed image has it.
        words = gate(TRAP386, at.KCODE, at.LANDING, dpl=3)
        yield Case(
            f"step/int-handler/ring{ring}",
            at_end(f"int {at.GATE:#x}"),
            ring,
            0x102,
            gated(at.GATE, words),
            (at.ENTRY_STACK0 - 12, at.STACK0 - 4),
        )
    for count in (0, 1, 2):
        yield Case(f"step/rep-{count}", at_end("rep stosb"), 3, 0x102, settings={"ecx": count, "edi": at.DATA})


_EXECUTE, _WRITE, _IO, _ACCESS = 0, 1, 2, 3


def _dr7(index: int, kind: int, length: int, scope: int = 2) -> int:
    return scope << 2 * index | (kind | (length - 1 if length != 8 else 2) << 2) << (16 + 4 * index) | 0x700


def breakpoints() -> Iterator[Case]:
    body = at_end("nop\nnop\nmov eax, [0x404010]\nmov [0x404010], eax\nadd dword ptr [0x404020], 1")
    for ring, index, address in product((0, 3), range(4), (0, 1, 2)):
        settings = {f"dr{index}": at.CODE + address, "dr7": _dr7(index, _EXECUTE, 1)}
        yield Case(f"break/execute-{address}/dr{index}/ring{ring}", body, ring, settings=settings)
    for ring, flags in product((0, 3), (0x10002, 0x10102)):
        for address in (0, 1):
            settings = {"dr0": at.CODE + address, "dr7": _dr7(0, _EXECUTE, 1)}
            yield Case(f"break/resume-{address}/{flags:x}/ring{ring}", body, ring, flags, settings=settings)
    for ring, kind, (offset, length) in product(
        (0, 3), (_WRITE, _ACCESS), ((0x10, 4), (0x10, 1), (0x13, 1), (0x12, 2), (0x14, 4), (0x20, 4), (0xF, 1))
    ):
        settings = {"dr1": at.DATA + offset, "dr7": _dr7(1, kind, length)}
        name = f"break/{'write' if kind == _WRITE else 'access'}-{offset:x}-{length}/ring{ring}"
        yield Case(name, body, ring, settings=settings)
    for scope in (0, 1, 3):
        settings = {"dr0": at.DATA + 0x10, "dr7": _dr7(0, _ACCESS, 4, scope)}
        yield Case(f"break/scope{scope}", body, 3, settings=settings)
    settings = {"dr0": at.DATA + 0x10, "dr1": at.DATA + 0x10, "dr7": _dr7(0, _ACCESS, 4) | _dr7(1, _ACCESS, 1)}
    yield Case("break/two-at-once", body, 3, settings=settings)
    settings = {"dr0": at.DATA + 0x10, "dr7": _dr7(0, _ACCESS, 4)}
    yield Case("break/with-step", at_end("mov eax, [0x404010]"), 3, 0x102, settings=settings)
    for code, name in (
        ("rep movsb", "movs"),
        ("push dword ptr [0x404010]", "push"),
        ("xchg [0x404010], eax", "xchg"),
        ("cmp dword ptr [0x404010], 0", "cmp"),
        ("rep stosd", "stos"),
        ("mov al, [0x404012]", "inside"),
        ("mov eax, [0x40400e]", "overlap"),
        ("mov ax, [0x40400e]", "before"),
        ("bts dword ptr [0x404010], 1", "bts"),
    ):
        registers = {"ecx": 8, "esi": at.DATA + 0xC, "edi": at.DATA + 0x80}
        if name == "stos":
            registers["edi"] = at.DATA
        yield Case(f"break/by-{name}", at_end(f"{code}\nnop"), 3, settings=settings | registers)
    # The breakpoint belongs to an instruction that faults: the fault comes first.
    text = at_end("mov eax, [0x404010]\nud2")
    yield Case("break/before-ud2", text, 3, settings=settings)
    yield Case("break/at-ud2", at_end("nop\nud2"), 3, settings={"dr0": at.CODE + 1, "dr7": _dr7(0, _EXECUTE, 1)})
    yield Case("break/at-int3", at_end("nop\nint3"), 3, settings={"dr0": at.CODE + 1, "dr7": _dr7(0, _EXECUTE, 1)})
    yield Case("break/after-ss", at_end("mov ecx, ss\nmov ss, cx\nmov eax, [0x404010]\nnop\nnop"), 0, settings=settings)
    yield Case(
        "break/on-ss-load",
        at_end("mov ss, word ptr [0x404010]\nnop\nnop"),
        0,
        2,
        ((at.DATA + 0x10, at.KDATA),),
        settings=settings,
    )


def registers() -> Iterator[Case]:
    for number, ring in product(range(8), (0, 3)):
        yield Case(
            f"dr/read{number}/ring{ring}", at_end(f"mov eax, dr{number}"), ring, settings={"dr0": 0x11, "dr1": 0x22}
        )
        yield Case(
            f"dr/write{number}/ring{ring}", at_end(f"mov eax, 0x400\nmov dr{number}, eax\nmov ecx, dr{number}"), ring
        )
    for number in (4, 5):
        yield Case(f"dr/read{number}-de", at_end(f"mov eax, dr{number}"), 0, settings={"cr4": at.CR4_DE})
    for value in (0xFFFFFFFF, 0x2000, 0xFFFF0FF0, 0xE00F):
        yield Case(f"dr/dr6-{value:x}", at_end(f"mov eax, {value:#x}\nmov dr6, eax\nmov ecx, dr6"), 0)
    for value in (0, 0xFFFFDFFF & 0xFFFF0000, 0x4700, 0x100):
        yield Case(
            f"dr/dr7-{value:x}",
            at_end(f"mov eax, {value:#x}\nmov dr7, eax\nmov ecx, dr7\nxor eax, eax\nmov dr7, eax"),
            0,
        )
    for text, name in (("mov eax, dr0", "read"), ("mov dr7, eax", "write"), ("mov eax, dr6", "dr6")):
        for ring in (0, 3):
            yield Case(f"dr/detect-{name}/ring{ring}", at_end(text), ring, settings={"dr7": 0x2400})


def cases() -> Iterator[Case]:
    yield from stepping()
    yield from breakpoints()
    yield from registers()
