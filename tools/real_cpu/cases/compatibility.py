"""32-bit code: what 64-bit code no longer has (SDM vol. 3, 5.2.1, compatibility mode)."""

from __future__ import annotations

from tools.real_cpu.case import TF, Case, named
from tools.real_cpu.layout import ADDRESSES as AT
from tools.real_cpu.layout import STACK

_ROWS: list[tuple[str, str, dict[str, int]]] = [
    ("read", "mov eax, [ABSENT + 3]", {}),
    ("write", "mov [RO], ax", {}),
    ("update", "lock dec dword ptr [ABSENT]", {}),
    ("across", "mov [DATA + 0xffe], eax", {}),
    ("fetch", "jmp DATA", {}),
    ("fetch absent", "mov eax, ABSENT\ncall eax", {}),
    ("kernel of 32-bit Linux", "mov eax, [0xc0000000]", {}),
    ("wraps", "mov eax, [eax + DATA]", {"rax": 0xFFFF_FFF8}),
    ("wraps to absent", "mov eax, [eax - 1]", {"rax": 0}),
    ("into", "mov al, 127\nadd al, 1\ninto", {}),
    ("into without overflow", "xor eax, eax\ninto", {}),
    ("bound", "mov dword ptr [DATA], 1\nmov dword ptr [DATA + 4], 2\nbound eax, [DATA]", {"rax": 3}),
    ("bound negative", "mov dword ptr [DATA], -2\nmov dword ptr [DATA + 4], 2\nbound eax, [DATA]", {"rax": -3}),
    ("bound fits", "mov dword ptr [DATA], -2\nmov dword ptr [DATA + 4], 2\nbound eax, [DATA]", {"rax": -2}),
    ("bound across", "bound eax, [DATA + 0xffc]", {"rax": 0}),
    ("bound of a register", ".byte 0x62, 0xc0", {}),
    ("aam 0", ".byte 0xd4, 0", {}),
    ("div", "div ecx", {"rcx": 0}),
    ("pushad at the bottom", "pushad", {"rsp": STACK + 8}),
    ("popad at the top", "popad", {"rsp": STACK + 0xFF0}),
    ("pushad", "pushad", {}),
    ("push es", "push es", {}),
    ("pop es, bad", "push 0x1238\npop es", {}),
    ("pop ss, null", "push 0\npop ss", {}),
    ("pop ds, absent", "push ABSENT_DATA\npop ds", {}),
    ("lds", "mov dword ptr [DATA + 4], 0x1238\nlds eax, [DATA]", {}),
    ("les across", "les eax, [DATA + 0xffd]", {}),
    ("push at the bottom", "push eax", {"rsp": STACK}),
    ("call at the bottom", "call CODE + 0x40", {"rsp": STACK + 2}),
    ("enter", "enter 0x1000, 0", {}),
    ("jmp far to 64 bits", "jmp 0x33:CODE + 0x40", {}),
    ("jmp far to ring 0", "jmp 0x10:CODE + 0x40", {}),
    ("jmp far to data", "jmp 0x2b:CODE + 0x40", {}),
    ("jmp far to absent", "jmp ABSENT_CODE:CODE + 0x40", {}),
    ("call far to null", "call 0:CODE", {}),
    ("call far without a stack", "call 0x23:CODE + 0x40", {"rsp": STACK + 4}),
    ("retf to ring 0", "push 0x10\npush CODE + 0x40\nretf", {}),
    ("iretd", "push 0x202\npush 0x23\npush CODE + 0x40\niretd", {}),
    ("iretd to 64 bits", "push 0x202\npush 0x33\npush CODE + 0x40\niretd", {}),
    ("iretd bad", "push 0x202\npush 0x1238\npush CODE + 0x40\niretd", {}),
    ("closed gate", "int 0x21", {}),
    ("int 4", ".byte 0xcd, 4", {}),
    ("cli", "cli", {}),
    ("in", "in al, dx", {"rdx": 0x60}),
    ("mov cr0", "mov eax, cr0", {}),
    ("lock", ".byte 0xf0, 0x89, 0x03", {}),
    ("salc", "stc\n.byte 0xd6", {}),
    ("arpl", "arpl ax, cx", {"rax": 0x10, "rcx": 3}),
    ("arpl to read only", "arpl [RO], cx", {"rcx": 3}),
    ("mov cs", ".byte 0x8e, 0xc8", {}),
    ("movaps", "movaps xmm0, [DATA + 8]", {}),
    ("movsb", "rep movsb", {"rsi": AT["DATA"] + 0xFFA, "rdi": AT["TWO"], "rcx": 20}),
    ("xchg", "xchg [NO_RIGHTS], eax", {}),
    ("inc short", "inc eax\ndec ecx", {}),
    ("jcxz", "jcxz $ + 2\nud2", {"rcx": 0}),
    ("16-bit address", ".byte 0x67\n.byte 0x8b, 0x07", {"rbx": 0x1234_0010}),
    ("16-bit branch", ".byte 0x66, 0xeb, 0", {}),
]


def cases() -> list[Case]:
    found = named("compat", 32, _ROWS)
    found.append(Case("compat/step", "inc eax\nnop", eflags=TF, bits=32))
    found.append(Case("compat/step far jmp", "jmp 0x33:CODE + 0x40", eflags=TF, bits=32))
    return found
