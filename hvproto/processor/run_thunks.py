"""The machine code of a run, in assembly: how it is entered, where a basic block begins, ports and mapped registers.

Hooks of the native engine that Unicorn calls instead of Python: they are called too often for that.
"""

from __future__ import annotations

from hvproto.processor import private_layout as at
from hvproto.processor.code_hooks import end_translation
from hvproto.processor.control_block import (
    CTL_BLOCK_SIZE,
    CTL_BLOCK_START,
    CTL_CPU,
    CTL_DEADLINE,
    CTL_DELIVERING,
    CTL_ENV,
    CTL_GUEST,
    CTL_LEFT,
    CTL_LIMIT,
    CTL_LOOKED_SIZE,
    CTL_LOOKED_START,
    CTL_NOW,
    CTL_RESUMING,
    CTL_STOPPED,
    CTL_UC,
    CTL_UNTIL_OPEN,
    IN_BLOCK,
)
from hvproto.processor.settings import DR7_ENABLED, EFLAGS_IF, EFLAGS_RF
from hvproto.processor.state import SUMMARY_SHADOW


def _look(name: str, expired: str) -> str:
    """To ``expired`` if the run is to end before the block: RCX is the control block, RAX the time."""
    return f"""
    cmp rax, qword ptr [rcx + {CTL_DEADLINE}]
    jae {expired}
    mov r8, qword ptr [rcx + {CTL_ENV}]
    cmp dword ptr [rcx + {CTL_UNTIL_OPEN}], 0
    je {name}_in_time
    test dword ptr [r8 + {at.ENV_EFLAGS}], {EFLAGS_IF}
    jz {name}_in_time
    test dword ptr [r8 + {at.ENV_SUMMARY}], {SUMMARY_SHADOW}
    jz {expired}
{name}_in_time:
    test dword ptr [r8 + {at.ENV_EFLAGS}], {EFLAGS_RF}
    jz {name}_looked
    test dword ptr [r8 + {at.ENV_DR7}], {DR7_ENABLED}
    jz {name}_clear
    test dword ptr [r8 + {at.ENV_SUMMARY}], {SUMMARY_SHADOW}
    jnz {name}_clear
    mov dword ptr [rcx + {CTL_RESUMING}], 1
    jmp {expired}
{name}_clear:
    and dword ptr [r8 + {at.ENV_EFLAGS}], {~EFLAGS_RF}
{name}_looked:
"""


# RF suppresses instruction breakpoints for one instruction. The engine keeps it for a block, and shows it to PUSHF: it
# is cleared as the block begins, and with breakpoints set, that block is made to hold one instruction.
# A block whose beginning `block_beginnings` has made calls it only if the limit is reached: with IN_BLOCK, when it has
# charged its time already. Then the engine's own look for a request to stop follows from here.
BLOCK = f"""
    test ecx, {IN_BLOCK}
    jnz in_block
    mov rax, qword ptr [rcx + {CTL_NOW}]
    {_look("first", "expired")}
    mov edx, edx
    add rax, rdx
    mov qword ptr [rcx + {CTL_NOW}], rax
    mov qword ptr [rcx + {CTL_BLOCK_START}], rsi
    mov dword ptr [rcx + {CTL_BLOCK_SIZE}], edx
    ret
expired:
    mov dword ptr [rcx + {CTL_STOPPED}], 1
    movabs rax, {{stop}}
    jmp rax

in_block:
    sub rcx, {IN_BLOCK}
    mov rdi, qword ptr [rcx + {CTL_UC}]
    mov edx, dword ptr [rcx + {CTL_BLOCK_SIZE}]
    mov rax, qword ptr [rcx + {CTL_NOW}]
    sub rax, rdx
    {_look("again", "over")}
    xor eax, eax
    cmp dword ptr [rcx + {CTL_UNTIL_OPEN}], 0
    jne limited
    mov rax, qword ptr [rcx + {CTL_DEADLINE}]
limited:
    mov qword ptr [rcx + {CTL_LIMIT}], rax
    mov dword ptr [rcx + {CTL_LOOKED_SIZE}], edx
    mov rax, qword ptr [rcx + {CTL_BLOCK_START}]
    mov qword ptr [rcx + {CTL_LOOKED_START}], rax
    xor esi, esi
    movabs rax, {{look_for_stop}}
    jmp rax
over:
    mov qword ptr [rcx + {CTL_NOW}], rax
    mov eax, dword ptr [rcx + {CTL_LOOKED_SIZE}]
    mov dword ptr [rcx + {CTL_BLOCK_SIZE}], eax
    mov rax, qword ptr [rcx + {CTL_LOOKED_START}]
    mov qword ptr [rcx + {CTL_BLOCK_START}], rax
    mov dword ptr [rcx + {CTL_STOPPED}], 1
    push rdi
    movabs rax, {{stop}}
    call rax
    pop rdi
    xor esi, esi
    movabs rax, {{look_for_stop}}
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
    mov qword ptr [rbx + {CTL_LIMIT}], -1
    mov qword ptr [rbx + {CTL_GUEST}], rax
    mov rdi, qword ptr [rbx + {CTL_UC}]
    xor edx, edx
    xor ecx, ecx
    xor r8d, r8d
    movabs rax, {{start}}
    call rax
    mov edx, eax
    {end_translation("run")}
    mov eax, edx
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
