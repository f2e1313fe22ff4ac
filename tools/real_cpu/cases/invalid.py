"""#DE, #UD, and #GP(0) of what only ring 0 may do."""

from __future__ import annotations

from tools.real_cpu.case import ARITHMETIC, Case, named

_DIVISIONS: list[tuple[str, str, dict[str, int]]] = [
    ("div by 0, 8 bits", "div cl", {"rcx": 0}),
    ("div by 0, 64 bits", "div rcx", {"rcx": 0}),
    ("div overflow, 8 bits", "div cl", {"rax": 0x200, "rcx": 2}),
    ("div overflow, 16 bits", "div cx", {"rdx": 2, "rcx": 2}),
    ("div overflow, 32 bits", "div ecx", {"rdx": 2, "rcx": 2}),
    ("div overflow, 64 bits", "div rcx", {"rdx": 2, "rcx": 2}),
    ("idiv by 0", "idiv ecx", {"rcx": 0}),
    ("idiv overflow, 8 bits", "idiv cl", {"rax": 0x80, "rcx": 1}),
    ("idiv of the least by -1, 16 bits", "idiv cx", {"rax": 0x8000, "rdx": 0xFFFF, "rcx": 0xFFFF}),
    ("idiv of the least by -1, 32 bits", "cdq\nidiv ecx", {"rax": 0x8000_0000, "rcx": 0xFFFF_FFFF}),
    ("idiv of the least by -1, 64 bits", "cqo\nidiv rcx", {"rax": 1 << 63, "rcx": (1 << 64) - 1}),
    ("idiv of the least of all", "idiv rcx", {"rax": 0, "rdx": 1 << 63, "rcx": (1 << 64) - 1}),
    ("div by memory that is 0", "mov dword ptr [DATA], 0\ndiv dword ptr [DATA]", {}),
]
_PRIVILEGED = (
    "cli", "sti", "hlt", "mov rax, cr0", "mov cr0, rax", "mov rax, cr3", "mov cr3, rax", "mov rax, cr4", "mov cr4, rax",
    "mov rax, cr8", "mov cr2, rax", "mov rax, dr0", "mov dr7, rax", "mov rax, dr6", "lgdt [DATA]", "lidt [DATA]",
    "lgdt [ABSENT]", "lldt ax", "lldt [ABSENT]", "ltr ax", "ltr [ABSENT]", "lmsw ax", "lmsw [ABSENT]", "clts", "invd",
    "wbinvd", "invlpg [DATA]", "invlpg [ABSENT]", "rdmsr", "wrmsr", "swapgs", "sysretq", "in al, 0x60", "in eax, dx",
    "out 0x60, al", "out dx, ax", "insb", "outsb", "insd", "in al, dx",
)  # fmt: skip
_UNDEFINED = {
    "ud2": "ud2", "ud1": ".byte 0x0f, 0xb9, 0xc0", "lock nop": ".byte 0xf0, 0x90", "lock mov": ".byte 0xf0, 0x89, 0x03",
    "lock add to a register": ".byte 0xf0, 0x01, 0xc0", "lock cmp": ".byte 0xf0, 0x39, 0x03",
    "lock bt immediate": ".byte 0xf0, 0x0f, 0xba, 0x23, 3", "lock push": ".byte 0xf0, 0x50",
    "lock jmp": ".byte 0xf0, 0xeb, 0", "lock lea": ".byte 0xf0, 0x8d, 0x03", "lock test": ".byte 0xf0, 0x85, 0x03",
    "lock imul": ".byte 0xf0, 0x0f, 0xaf, 0x03", "lock shl": ".byte 0xf0, 0xd1, 0x23", "lock movsb": ".byte 0xf0, 0xa4",
    "lock movups": ".byte 0xf0, 0x0f, 0x10, 0x03", "lock mov immediate": ".byte 0xf0, 0xc6, 0x03, 1",
    "lock cli": ".byte 0xf0, 0xfa", "lock int3": ".byte 0xf0, 0xcc", "lock ret": ".byte 0xf0, 0xc3",
    "lock setz": ".byte 0xf0, 0x0f, 0x94, 0x03", "lock fld": ".byte 0xf0, 0xd9, 0x03",
    "lock shld": ".byte 0xf0, 0x0f, 0xa5, 0x03",
    "lock bt": ".byte 0xf0, 0x0f, 0xa3, 0x03", "lock read": ".byte 0xf0, 0x03, 0x03", "mov cs": ".byte 0x8e, 0xc8",
    "mov segment 6": ".byte 0x8e, 0xf0", "mov from segment 7": ".byte 0x8c, 0xf8",
    "lea of a register": ".byte 0x8d, 0xc0",
    "push es": ".byte 0x06", "pop ds": ".byte 0x1f", "aaa": ".byte 0x37", "daa": ".byte 0x27",
    "aam": ".byte 0xd4, 0x0a",
    "aad": ".byte 0xd5, 0x0a", "into": ".byte 0xce", "pusha": ".byte 0x60", "popa": ".byte 0x61", "salc": ".byte 0xd6",
    "jmp far": ".byte 0xea, 0, 0, 0, 0, 0x33, 0", "call far": ".byte 0x9a, 0, 0, 0, 0, 0x33, 0",
    "group 82": ".byte 0x82, 0xc0, 1", "les": ".byte 0xc4, 0x03, 0, 0, 0, 0", "ff /7": ".byte 0xff, 0xf8",
    "fe /2": ".byte 0xfe, 0xd0", "jmp far register": ".byte 0xff, 0xe8", "8f /1": ".byte 0x8f, 0xc8",
    "c6 /1": ".byte 0xc6, 0xc8, 0", "cr1": ".byte 0x0f, 0x20, 0xc8", "cr5": ".byte 0x0f, 0x22, 0xe8",
    "0f 04": ".byte 0x0f, 0x04", "0f 0a": ".byte 0x0f, 0x0a", "0f ff": ".byte 0x0f, 0xff, 0xc0",
    "rsm": ".byte 0x0f, 0xaa",
    "0f c7 /0": ".byte 0x0f, 0xc7, 0xc0", "lock xchg is fine": "lock xchg [DATA], eax",
    "16 bytes of prefixes": ".fill 15, 1, 0x66\nnop", "14 prefixes": ".fill 14, 1, 0x66\nnop",
    "lss of a register": ".byte 0x0f, 0xb2, 0xc0", "movnti of a register": ".byte 0x0f, 0xc3, 0xc0",
    "cmpxchg8b of a register": ".byte 0x0f, 0xc7, 0xc8",
}  # fmt: skip


def cases() -> list[Case]:
    return [
        Case("division/idiv that just fits", "idiv cl", {"rax": 0xFF80, "rcx": 1}, undefined=ARITHMETIC),
        *named("division", 64, _DIVISIONS),
        *named("privileged", 64, ((code, code, {"rax": 0x28, "rcx": 0x10, "rdx": 0x60}) for code in _PRIVILEGED)),
        *named("undefined", 64, ((what, code, {"rbx": 0x2010_0000}) for what, code in _UNDEFINED.items())),
    ]
