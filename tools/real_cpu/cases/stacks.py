"""The stack's end: what has been changed when PUSH, POP, CALL, RET, ENTER and LEAVE fault, which is nothing."""

from __future__ import annotations

from tools.real_cpu.case import Case
from tools.real_cpu.layout import ADDRESSES as AT
from tools.real_cpu.layout import STACK

_BOTTOM, _TOP, _RO = STACK, STACK + 0x1000, AT["RO"] + 0x100
_PUSHES = (
    "push rax", "push 5", "pushw 5", "push qword ptr [DATA]", "pushfq", "call CODE + 0x40", "call qword ptr [DATA]",
    "enter 16, 0", "push rsp", "push fs", "call rax",
)  # fmt: skip
_POPS = ("pop rax", "pop rsp", "popw ax", "pop qword ptr [DATA]", "popfq", "ret", "ret 8", "retfq", "iretq", "pop gs")


def cases() -> list[Case]:
    found = []
    for what, rsp in (("bottom", _BOTTOM), ("across", _BOTTOM + 4), ("read only", _RO)):
        for code in _PUSHES:
            text = code if not code.startswith("pushw") else ".byte 0x66, 0x6a, 5"
            found.append(Case(f"push/{code} {what}", text, {"rsp": rsp, "rax": AT["CODE"] + 0x40}))
    for what, rsp in (("top", _TOP), ("across", _TOP - 4)):
        for code in _POPS:
            text = code if not code.startswith("popw") else "pop ax"
            if (code, what) != ("popw ax", "across"):
                found.append(Case(f"pop/{code} {what}", text, {"rsp": rsp}))
    rows: list[tuple[str, str, dict[str, int]]] = [
        ("push of absent, no stack", "push qword ptr [ABSENT]", {"rsp": _BOTTOM}),
        ("call through absent, no stack", "call qword ptr [ABSENT]", {"rsp": _BOTTOM}),
        ("pop to absent", "pop qword ptr [ABSENT]", {}),
        ("pop to absent, no stack", "pop qword ptr [ABSENT]", {"rsp": _TOP}),
        ("pop to read only by rsp", "pop qword ptr [rsp]", {"rsp": _RO}),
        ("pop through rsp", "pop qword ptr [rsp + 8]", {}),
        ("pop through rsp to absent", "pop qword ptr [rsp]", {"rsp": _TOP - 8}),
        ("push through rsp", "push qword ptr [rsp + 8]", {"rsp": _TOP - 8}),
        ("call to absent", "call ABSENT", {}),
        ("call to data", "mov rax, DATA\ncall rax", {}),
        ("ret to absent", "push ABSENT + 3\nret", {}),
        ("ret to data", "push DATA + 3\nret 16", {}),
        ("leave", "leave", {"rbp": AT["ABSENT"]}),
        ("leave across", "leave", {"rbp": _TOP - 4}),
        ("leave ok", "leave", {"rbp": STACK + 0x700}),
        ("enter level 1", "enter 16, 1", {"rbp": AT["ABSENT"] + 0x20}),
        ("enter level 2, absent frame", "enter 16, 2", {"rbp": AT["ABSENT"] + 8}),
        ("enter level 3", "enter 32, 3", {"rbp": STACK + 0x700}),
        ("enter whose room is beyond", "enter 0x2000, 0", {"rbp": 1}),
        ("enter whose room is read only", "enter 0x100, 0", {"rsp": AT["RO"] + 0x1080}),
        ("push rsp", "push rsp", {}),
        ("pop to absent with rsp not canonical", "pop qword ptr [ABSENT]", {"rsp": 1 << 48}),
        ("pop rsp", "push DATA + 8\npop rsp", {}),
        ("push 16 bits", "push ax", {"rsp": STACK + 1}),
        ("iretq in the ring", "push 0x2b\npush rsp\npush 0x8d7\npush 0x33\npush CODE + 0x40\niretq", {}),
        ("popfq can't change IF and IOPL", "push 0x3000\npopfq", {}),
        ("popfq of all", "push 0x3f4fd7 & ~0x100\npopfq", {}),
        ("popfq 16 bits", "push 0xcd5\npopfw", {}),
        ("AC and ID by popfq", "pushfq\nxor dword ptr [rsp], 0x240000\npopfq\npushfq\npop rax", {}),
    ]
    return found + [Case(f"stack/{what}", code, registers) for what, code, registers in rows]
