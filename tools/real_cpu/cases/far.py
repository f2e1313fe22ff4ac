"""Far jumps, calls, returns and IRETQ to selectors that they must not go to (SDM vol. 2, JMP, CALL, RET, IRET)."""

from __future__ import annotations

from tools.real_cpu.case import Case
from tools.real_cpu.layout import KERNEL_CODE, KERNEL_DATA, LDT, SELECTORS, TSS, USER_CODE32, USER_CODE64, USER_DATA

_THERE = "CODE + 0x80"
"""There is INT3, in code of either size."""
_NAMED = {
    "null": 0, "KERNEL_CODE": KERNEL_CODE, "KERNEL_CODE with RPL 3": KERNEL_CODE | 3, "KERNEL_DATA": KERNEL_DATA | 3,
    "USER_DATA": USER_DATA, "TSS": TSS | 3, "LDT": LDT | 3, "beyond": 0x1238, "empty": 0x63,
    "USER_CODE64 with RPL 0": USER_CODE64 & ~3, "USER_CODE64": USER_CODE64, "USER_CODE32": USER_CODE32,
    "ABSENT_CODE": SELECTORS["ABSENT_CODE"], "ABSENT_DATA": SELECTORS["ABSENT_DATA"],
    "BEYOND_LDT": SELECTORS["BEYOND_LDT"], "ABSENT_CONFORMING": SELECTORS["ABSENT_CONFORMING"],
    "READABLE_CODE": SELECTORS["READABLE_CODE"], "READ_ONLY": SELECTORS["READ_ONLY"],
}  # fmt: skip
_STACKS = {
    "null": 0, "RPL 0": USER_DATA & ~3, "KERNEL_DATA": KERNEL_DATA | 3, "USER_CODE64": USER_CODE64,
    "beyond": 0x1238 | 3,
    "ABSENT_DATA": SELECTORS["ABSENT_DATA"], "READ_ONLY": SELECTORS["READ_ONLY"], "SMALL": SELECTORS["SMALL"],
}  # fmt: skip
_POINTER = f"mov dword ptr [DATA], {_THERE}\nmov dword ptr [DATA + 4], eax\n"
_FORMS = {
    "jmp": f"{_POINTER}jmp fword ptr [DATA]",
    "call": f"{_POINTER}call fword ptr [DATA]",
    "retfq": f"push rax\npush {_THERE}\nretfq",
    "retfq 16": f"push rax\npush {_THERE}\n.byte 0x48, 0xca, 0x10, 0",
    "iretq": f"push 0x2b\npush rsp\npush 2\npush rax\npush {_THERE}\niretq",
}


def cases() -> list[Case]:
    found = []
    for form, code in _FORMS.items():
        for what, selector in _NAMED.items():
            found.append(Case(f"far/{form} {what}", code, {"rax": selector}))
    for what, selector in _STACKS.items():
        code = f"push rax\npush STACK + 0x700\npush 2\npush 0x33\npush {_THERE}\niretq"
        found.append(Case(f"far/iretq stack {what}", code, {"rax": selector}))
    rows = {
        "jmp through absent memory": "jmp fword ptr [ABSENT]",
        "jmp across into absent memory": "mov dword ptr [DATA + 0xffc], 0\njmp fword ptr [DATA + 0xffc]",
        "call without a stack": f"mov eax, 0x33\nmov rsp, STACK\n{_POINTER}call fword ptr [DATA]",
        "jmp to an absent page": "mov dword ptr [DATA], ABSENT\nmov dword ptr [DATA + 4], 0x33\njmp fword ptr [DATA]",
        "jmp of 64 bits": ".byte 0x48, 0xff, 0x2c, 0x25\n.long DATA",
        "iretq with VM": f"push 0x2b\npush rsp\npush 0x20002\npush 0x33\npush {_THERE}\niretq",
    }
    return found + [Case(f"far/{what}", code) for what, code in rows.items()]
