"""The machine code around a case: it loads the registers and goes there; the signal handler saves the frame and leads
back. No Python runs between the two.

IRETQ loads RIP, CS, RFLAGS, RSP and SS at once, at ring 3 too (SDM vol. 2, IRET): so a single step (TF) begins with
the case's first instruction, and a 32-bit code segment is entered in the same way.
"""

from __future__ import annotations

from hvproto.images.assembly import assemble_text
from tools.real_cpu.case import REGISTERS
from tools.real_cpu.signal_frame import GREG_COUNT, GREGS, offset_of

CONTEXT = 0x1F00_0000
"""A page for what trampoline and handler tell each other; absolute addresses below 2 GiB reach it from anywhere."""
CODE = 0x1F01_0000
HANDLER_STACK = 0x1F10_0000
HANDLER_STACK_SIZE = 0x1_0000

SAVED_RSP, DATA_SELECTOR, OWN_SEGMENTS = CONTEXT, CONTEXT + 0x8, CONTEXT + 0x10
FRAME = CONTEXT + 0x40
"""RIP, CS, RFLAGS, RSP, SS for IRETQ."""
FIRST = CONTEXT + 0x80
"""The general registers to load, in machine encoding."""
SAVED = CONTEXT + 0x200
"""The registers of the signal frame."""

_CALLEE_SAVED = ("rbx", "rbp", "r12", "r13", "r14", "r15")


def assembled() -> tuple[bytes, dict[str, int]]:
    """The code, to lie at `CODE`, and the addresses of ``enter`` and ``handler``."""
    image = assemble_text(_text(), "trampoline", origin=CODE, bits=64)
    return image.segments[0].data, dict(image.symbols)


def _text() -> str:
    loads = [f"mov {name}, [{FIRST + 8 * i}]" for i, name in enumerate(REGISTERS) if name != "rsp"]
    lines = [
        "enter:",
        *(f"push {name}" for name in _CALLEE_SAVED),
        f"mov [{SAVED_RSP}], rsp",
        "fninit",
        *(f"pxor xmm{index}, xmm{index}" for index in range(16)),
        f"mov eax, [{DATA_SELECTOR}]",
        "mov ds, eax",
        "mov es, eax",
        *(f"push qword ptr [{FRAME + 8 * index}]" for index in (4, 3, 2, 1, 0)),
        *loads,
        "iretq",
        # RDX is the third argument, the ucontext_t. Linux has cleared DF, RF and TF.
        "handler:",
        f"lea rsi, [rdx + {GREGS}]",
        f"mov edi, {SAVED}",
        f"mov ecx, {GREG_COUNT}",
        "rep movsq",
        f"mov qword ptr [rdx + {offset_of('rip')}], recovery",
        f"mov rax, [{SAVED_RSP}]",
        f"mov [rdx + {offset_of('rsp')}], rax",
        f"mov rax, [{OWN_SEGMENTS}]",
        f"mov [rdx + {offset_of('segments')}], rax",
        f"mov qword ptr [rdx + {offset_of('rflags')}], 0x202",
        "ret",
        # NT and ID stay as the case left them when Linux returns from a signal (``FIX_EFLAGS``).
        "recovery:",
        "push 2",
        "popfq",
        "xor eax, eax",
        "mov ds, eax",
        "mov es, eax",
        *(f"pop {name}" for name in reversed(_CALLEE_SAVED)),
        "ret",
    ]
    return "\n".join(lines)
