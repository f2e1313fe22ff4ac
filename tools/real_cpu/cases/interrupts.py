"""Software interrupts, single step and the flags that are pushed (SDM vol. 2, INT n; vol. 3, 6.12, 17.3)."""

from __future__ import annotations

from tools.real_cpu.case import CF, DF, TF, Case

_CLOSED = (0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 0x1F, 0x20, 0x21, 0x7F, 0xEC, 0xFF)
_RETURN = (
    "push 0x2b\nlea rax, [rsp + 8]\npush rax\npush {flags}\npush 0x33\nlea rax, [there]\npush rax\niretq\nthere: {code}"
)


def cases() -> list[Case]:
    found = [Case(f"closed/int {vector}", f".byte 0xcd, {vector}") for vector in _CLOSED]
    rows: list[tuple[str, str, int]] = [
        ("int3", "nop\n.byte 0xcc", 0),
        ("int 3", ".byte 0xcd, 3", CF),
        ("int 4", ".byte 0xcd, 4", DF),
        ("int3 with a prefix", ".byte 0x66, 0xcc", 0),
        ("int1", ".byte 0xf1", 0),
        ("step nop", "nop\nnop", TF),
        ("step jump", "jmp next\nnop\nnext: nop", TF),
        ("step load", "mov eax, [DATA]\nnop", TF),
        ("step fault", "mov eax, [ABSENT]", TF),
        ("step store fault", "inc dword ptr [RO]", TF),
        ("step ud2", "ud2", TF),
        ("step int3", ".byte 0xcc", TF),
        ("step closed int", "int 0x20", TF),
        ("step div", "xor ecx, ecx\ndiv ecx", TF),
        ("step call", "call next\nnop\nnext: nop", TF),
        ("step load of ss", "mov eax, 0x2b\nnop", TF),
        ("step pushfq", "pushfq\npop rax", TF),
        ("step popfq that clears TF", "popfq\nnop\nnop", TF),
        ("step to nowhere", "jmp ABSENT", TF),
        ("tf by popfq", "push 0x100\npopfq\nnop\nnop\nnop", 0),
        ("tf by popfq, then a fault", "push 0x100\npopfq\nud2", 0),
        ("tf by popfq, then int3", "push 0x100\npopfq\nint3", 0),
        ("mov ss with tf", "mov eax, 0x2b\npush 0x102\npopfq\nmov ss, eax\nnop\nnop", 0),
        ("pop ss is no instruction", ".byte 0x17", 0),
    ]
    found += [Case(f"interrupt/{what}", code, eflags=flags) for what, code, flags in rows]
    found += [
        Case("interrupt/mov ss holds a step off", "mov ss, eax\nnop\nnop", {"rax": 0x2B}, eflags=TF),
        Case("interrupt/step ends a loop", "loop $\nnop", {"rcx": 3}, eflags=TF),
    ]
    for what, flags, code in (
        ("rf, then int3", 0x10002, "int3"),
        ("rf, then nop", 0x10002, "nop"),
        ("rf, then a fault", 0x10002, "ud2"),
        ("rf and tf", 0x10102, "nop\nnop"),
        ("rf, then pushfq", 0x10002, "pushfq\npop rax"),
        ("tf by iretq", 0x102, "nop\nnop\nnop"),
        ("rf, then a repeated string", 0x10102, "mov ecx, 3\nrep lodsb"),
        ("nt", 0x4002, "nop"),
    ):
        found.append(Case(f"return/{what}", _RETURN.format(flags=flags, code=code)))
    return found
