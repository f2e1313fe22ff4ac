"""The machine code of a run, in assembly: how it is entered, where a basic block begins, ports and mapped registers.

Hooks of the native engine that Unicorn calls instead of Python: they are called too often for that.
"""

from __future__ import annotations

from hvproto.processor import private_layout as at
from hvproto.processor.control_block import (
    CTL_BLOCK_END,
    CTL_BLOCK_START,
    CTL_CPU,
    CTL_DEADLINE,
    CTL_DELIVERING,
    CTL_ENV,
    CTL_LEFT,
    CTL_NOW,
    CTL_RESUMING,
    CTL_STOPPED,
    CTL_UC,
    CTL_UNTIL_OPEN,
)
from hvproto.processor.settings import DR7_ENABLED, EFLAGS_IF, EFLAGS_RF
from hvproto.processor.state import SUMMARY_SHADOW

# RF suppresses instruction breakpoints for one instruction. The engine keeps it for a block, and shows it to PUSHF: it
# is cleared as the block begins, and with breakpoints set, that block is made to hold one instruction.
BLOCK = f"""
    mov rax, qword ptr [rcx + {CTL_NOW}]
    cmp rax, qword ptr [rcx + {CTL_DEADLINE}]
    jae expired
    mov r8, qword ptr [rcx + {CTL_ENV}]
    cmp dword ptr [rcx + {CTL_UNTIL_OPEN}], 0
    jne closed_so_far
charge:
    test dword ptr [r8 + {at.ENV_EFLAGS}], {EFLAGS_RF}
    jnz resume
resumed:
    mov edx, edx
    add rax, rdx
    mov qword ptr [rcx + {CTL_NOW}], rax
    mov qword ptr [rcx + {CTL_BLOCK_START}], rsi
    add rsi, rdx
    mov qword ptr [rcx + {CTL_BLOCK_END}], rsi
    ret
resume:
    test dword ptr [r8 + {at.ENV_DR7}], {DR7_ENABLED}
    jz clear
    test dword ptr [r8 + {at.ENV_SUMMARY}], {SUMMARY_SHADOW}
    jnz clear
    mov dword ptr [rcx + {CTL_RESUMING}], 1
    jmp expired
clear:
    and dword ptr [r8 + {at.ENV_EFLAGS}], {~EFLAGS_RF}
    jmp resumed
closed_so_far:
    test dword ptr [r8 + {at.ENV_EFLAGS}], {EFLAGS_IF}
    jz charge
    test dword ptr [r8 + {at.ENV_SUMMARY}], {SUMMARY_SHADOW}
    jnz charge
expired:
    mov dword ptr [rcx + {CTL_STOPPED}], 1
    movabs rax, {{stop}}
    jmp rax
"""


# A run of the engine: RDI is the control block. EAX becomes the engine's status, or 0x10000 if all went well, HLT was
# executed, and nothing else has to be looked at.
ENTER = f"""
    push rbx
    mov rbx, rdi
    mov rax, qword ptr [rbx + {CTL_CPU}]
    mov dword ptr [rax + {at.CPU_HALTED}], 0
    mov rax, qword ptr [rbx + {CTL_ENV}]
    mov dword ptr [rax + {at.ENV_OLD_EXCEPTION}], -1
    mov rsi, qword ptr [rax + {at.ENV_EIP}]
    xor eax, eax
    mov dword ptr [rbx + {CTL_STOPPED}], eax
    mov dword ptr [rbx + {CTL_DELIVERING}], eax
    mov dword ptr [rbx + {CTL_LEFT}], eax
    mov dword ptr [rbx + {CTL_RESUMING}], eax
    mov rdi, qword ptr [rbx + {CTL_UC}]
    xor edx, edx
    xor ecx, ecx
    xor r8d, r8d
    movabs rax, {{start}}
    call rax
    test eax, eax
    jnz entered
    mov rcx, qword ptr [rbx + {CTL_CPU}]
    cmp dword ptr [rcx + {at.CPU_HALTED}], 0
    je entered
    cmp dword ptr [rbx + {CTL_LEFT}], 0
    jne entered
    mov eax, 0x10000
entered:
    pop rbx
    ret
"""


def port_thunk(arguments: tuple[str, ...], control: str, callback: str) -> str:
    """IN/OUT: the IOPL and I/O-bitmap check that Unicorn leaves out, then Python's callback."""
    saves = "\n".join(f"    push {name}" for name in arguments)
    restores = "\n".join(f"    pop {name}" for name in reversed(arguments))
    pad = 8 if len(arguments) % 2 == 0 else 0
    return f"""
    mov r9, {control}
    mov r10, qword ptr [r9 + {CTL_ENV}]
    test dword ptr [r10 + {at.ENV_CR0}], 1
    jz allowed
    mov eax, dword ptr [r10 + {at.ENV_SUMMARY}]
    and eax, 3
    mov r11d, dword ptr [r10 + {at.ENV_EFLAGS}]
    test r11d, 0x20000
    jnz check
    shr r11d, 12
    and r11d, 3
    cmp eax, r11d
    jbe allowed
check:
{saves}
    sub rsp, {pad}
    mov rdi, r10
    movabs rax, {{check_byte}}
    cmp edx, 1
    je call_check
    movabs rax, {{check_word}}
    cmp edx, 2
    je call_check
    movabs rax, {{check_long}}
call_check:
    call rax
    add rsp, {pad}
{restores}
allowed:
    movabs rax, {callback}
    jmp rax
"""


# A load where functions answer: at RCX are the one offset that is known, what it gives, and whom to ask for others.
QUICK_READ = """
    cmp rsi, qword ptr [rcx]
    jne ask
    cmp edx, 4
    jne ask
    mov eax, dword ptr [rcx + 8]
    ret
ask:
    jmp qword ptr [rcx + 16]
"""
