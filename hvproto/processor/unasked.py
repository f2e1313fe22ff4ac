"""What machine code decides about a deprivileged guest with nobody asked: its flags, its INT n and IRET, its segments.

A kernel has more of them than of all other exits together, and a call into Python takes ten times what they do. Python
says beforehand what they are to do (CTL_GUEST, and `known_transfers`): that holds until anything else calls Python.
What isn't exactly so - an interrupt that waits, another gate, a page that isn't in the engine's TLB - Python is asked
about, with nothing done (`asking`).

There, RBX is the control block, R12 env, R15D EFLAGS; R8 to R10 are free, as are the registers of a call.
"""

from __future__ import annotations

from hvproto.processor import known_transfers as known
from hvproto.processor import private_layout as at
from hvproto.processor.control_block import (
    CTL_DATA_SELECTORS,
    CTL_FLAGS,
    CTL_GUEST,
    CTL_KNOWN,
    CTL_REAL_FLAGS,
    CTL_SIDE,
    CTL_UNASKED,
    CTL_WAITING,
)
from hvproto.processor.fast_delivery import find_in_tlb
from hvproto.processor.settings import (
    EFLAGS_AC,
    EFLAGS_DF,
    EFLAGS_FIXED,
    EFLAGS_ID,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_NT,
    EFLAGS_RF,
    EFLAGS_TF,
    EFLAGS_VIF,
    EFLAGS_VIP,
    EFLAGS_VM,
)
from hvproto.processor.state import SUMMARY_SHADOW

PUSHF, POPF, IRET, CLI, STI = 0x9C, 0x9D, 0xCF, 0xFA, 0xFB
"""The instructions of one byte that are answered."""

REFUSED, NEXT, ELSEWHERE, PASSES = range(4)
"""What is answered: nothing is done; or all, and the guest goes on behind its instruction of one byte, or at EIP; or,
of a planted trap, that the instruction is the processor's."""

# The guest's flags that aren't the processor's, in the control block (CTL_GUEST), and above them:
_DECIDES, _OPENS, _CHANGED, _IN_PROGRAM = 32, 33, 34, 35
"""... machine code decides; no interrupt waits for the guest to be open; it has decided something; in a program."""
DECIDES, OPENS, CHANGED, IN_PROGRAM = (1 << bit for bit in (_DECIDES, _OPENS, _CHANGED, _IN_PROGRAM))
FOLLOWS, FOLLOWED = 1 << 36, 1 << 37
"""... instead of that, it follows stores to page tables (`simple_tables`); it has followed some."""
TO_BE_TOLD = CHANGED | FOLLOWS | FOLLOWED
"""With any of these, Python is told first."""

ODD_FLAGS = EFLAGS_TF | EFLAGS_NT | EFLAGS_VM | EFLAGS_RF | EFLAGS_VIF | EFLAGS_VIP
"""Flags with which a transfer isn't the plain one."""
ARITHMETIC = 0x8D5
"""CF, PF, AF, ZF, SF, OF."""
POPPED = ARITHMETIC | EFLAGS_TF | EFLAGS_DF | EFLAGS_NT | EFLAGS_AC | EFLAGS_ID
"""What POPF changes at any level, but for IF."""
RETURNED = (POPPED | EFLAGS_IF | EFLAGS_IOPL) & ~ODD_FLAGS
"""What IRET at ring 0 takes from the stack."""
_POPPED_AT_0 = POPPED | EFLAGS_IF | EFLAGS_IOPL
_VIRTUAL = EFLAGS_IF | EFLAGS_IOPL | EFLAGS_VIF | EFLAGS_VIP

MOV_SEGMENT, POP_ES, POP_DS, TWO_BYTES, POP_FS, POP_GS = 0x8E, 0x07, 0x1F, 0x0F, 0xA1, 0xA9
_DATA_REGISTERS = 0b111001
"""GS, FS, DS and ES by their numbers in MOV."""


def _decides(otherwise: str) -> str:
    """R8: the guest's flags, if machine code decides."""
    return f"""
    mov r8, qword ptr [rbx + {CTL_GUEST}]
    bt r8, {_DECIDES}
    jnc {otherwise}
"""


def _in_kernel(otherwise: str) -> str:
    """That the guest is at level 0, and no store waits to be followed."""
    return f"""
    bt r8, {_IN_PROGRAM}
    jc {otherwise}
    mov rcx, qword ptr [rbx + {CTL_WAITING}]
    cmp dword ptr [rcx], 0
    jne {otherwise}
"""


def _stack_place(name: str, last: int, field: int, otherwise: str) -> str:
    """RSI: where the stack's top lies in our memory, up to its byte ``last``, if the engine's TLB holds that page, or
    Python has said where it is. ESI is its linear address, R10 the guest's flags; R8 and R9 are lost.
    """
    shift = at.USER_WALK << at.TLB_DESCRIPTION_SHIFT
    is_free = f"""
    mov rax, qword ptr [r9 + {known.PAGE_PROTECTED}]
    cmp byte ptr [rax], 0
    jne {otherwise}
"""
    return f"""
    mov r8, qword ptr [r12 + {at.ENV_TLB_MASKS + shift}]
    mov r9, qword ptr [r12 + {at.ENV_TLB_TABLES + shift}]
    {find_in_tlb(field, f"rsi + {last}")}
    cmp rax, rcx
    je {name}_in_tlb
    bt r10, {_IN_PROGRAM}
    jc {otherwise}
    mov r9, qword ptr [rbx + {CTL_KNOWN}]
    mov eax, esi
    shr eax, 12
    cmp rax, qword ptr [r9 + {known.PAGE}]
    jne {otherwise}
    shr ecx, 12
    cmp eax, ecx
    jne {otherwise}
    {is_free if field == at.TLB_WRITE else ""}
    and esi, 0xfff
    add rsi, qword ptr [r9 + {known.PAGE_ADDRESS}]
    jmp {name}_found
{name}_in_tlb:
    add rsi, qword ptr [r9 + rdx + {at.TLB_ADDEND}]
{name}_found:
"""


def flags(name: str, close: int, open_: int, otherwise: str, done: str) -> str:
    """CLI or STI, by what R14D says; to ``done`` with the answer in EAX. ``name`` makes the labels' names."""
    return f"""
    {_decides(otherwise)}
    cmp r14d, {close}
    je {name}_close
    cmp r14d, {open_}
    jne {otherwise}
    {_in_kernel(otherwise)}
    test r8d, {EFLAGS_IF}
    jnz {name}_next
    bt r8, {_OPENS}
    jnc {otherwise}
    or r8, {EFLAGS_IF}
    or dword ptr [r12 + {at.ENV_SUMMARY}], {SUMMARY_SHADOW}
    jmp {name}_changed
{name}_close:
    {_in_kernel(otherwise)}
    and r8, {~EFLAGS_IF}
{name}_changed:
    bts r8, {_CHANGED}
    mov qword ptr [rbx + {CTL_GUEST}], r8
{name}_next:
    inc qword ptr [rbx + {CTL_UNASKED}]
    mov eax, {NEXT}
    jmp {done}
"""


def calls(otherwise: str, done: str) -> str:
    """INT n, of which R14B is the number; to ``done`` with the answer in EAX."""
    return f"""
    {_decides(otherwise)}
    bt r8, {_IN_PROGRAM}
    jnc {otherwise}
    movzx ecx, r14b
    mov r9, qword ptr [rbx + {CTL_KNOWN}]
    mov r9, qword ptr [r9 + 8*rcx]
    test r9, r9
    jz {otherwise}
    mov rax, qword ptr [r9 + {known.GATE}]
    mov rax, qword ptr [rax]
    cmp rax, qword ptr [r9 + {known.GATE_VALUE}]
    jne {otherwise}
    mov rax, qword ptr [r9 + {known.TSS}]
    mov rax, qword ptr [rax]
    cmp rax, qword ptr [r9 + {known.TSS_VALUE}]
    jne {otherwise}
    mov rax, qword ptr [r9 + {known.PROTECTED}]
    cmp byte ptr [rax], 0
    jne {otherwise}
    mov eax, dword ptr [rbx + {CTL_FLAGS}]
    and eax, dword ptr [rbx + {CTL_REAL_FLAGS}]
    or eax, r8d
    test eax, {ODD_FLAGS}
    jnz {otherwise}
    mov rdx, qword ptr [r9 + {known.FRAME}]
    mov ecx, dword ptr [r12 + {at.ENV_EIP}]
    mov dword ptr [rdx], ecx
    mov ecx, dword ptr [r9 + {known.USER_CODE}]
    mov dword ptr [rdx + 4], ecx
    mov dword ptr [rdx + 8], eax
    mov ecx, dword ptr [r12 + {at.ENV_ESP}]
    mov dword ptr [rdx + 12], ecx
    mov ecx, dword ptr [r9 + {known.USER_STACK}]
    mov dword ptr [rdx + 16], ecx
    mov rcx, qword ptr [r9 + {known.STACK}]
    mov qword ptr [r12 + {at.ENV_ESP}], rcx
    mov rcx, qword ptr [r9 + {known.EIP}]
    mov qword ptr [r12 + {at.ENV_EIP}], rcx
    mov rcx, qword ptr [r9 + {known.SIDE}]
    mov qword ptr [rbx + {CTL_SIDE}], rcx
    and r8, qword ptr [r9 + {known.KEPT}]
    btr r8, {_IN_PROGRAM}
    bts r8, {_CHANGED}
    mov qword ptr [rbx + {CTL_GUEST}], r8
    inc qword ptr [rbx + {CTL_UNASKED}]
    mov eax, {ELSEWHERE}
    jmp {done}
"""


def push_flags(otherwise: str, done: str) -> str:
    """PUSHFD, if it is a plain store."""
    return f"""
    {_decides(otherwise)}
    mov rcx, qword ptr [rbx + {CTL_WAITING}]
    cmp dword ptr [rcx], 0
    jne {otherwise}
    mov r10, r8
    mov esi, dword ptr [r12 + {at.ENV_ESP}]
    sub esi, 4
    mov edi, esi
    {_stack_place("pushes", 3, at.TLB_WRITE, otherwise)}
    mov eax, r15d
    and eax, dword ptr [rbx + {CTL_REAL_FLAGS}]
    or eax, r10d
    mov dword ptr [rsi], eax
    mov qword ptr [r12 + {at.ENV_ESP}], rdi
    inc qword ptr [rbx + {CTL_UNASKED}]
    mov eax, {NEXT}
    jmp {done}
"""


def pop_flags(name: str, otherwise: str, done: str) -> str:
    """POPFD in the guest's kernel. TF isn't for us."""
    return f"""
    {_decides(otherwise)}
    {_in_kernel(otherwise)}
    mov r10, r8
    mov esi, dword ptr [r12 + {at.ENV_ESP}]
    {_stack_place(name, 3, at.TLB_READ, otherwise)}
    mov edi, dword ptr [rsi]
    test edi, {EFLAGS_TF}
    jnz {otherwise}
    {_may_open(name, otherwise)}
    mov eax, edi
    and eax, {_POPPED_AT_0}
    mov ecx, r15d
    and ecx, dword ptr [rbx + {CTL_REAL_FLAGS}]
    or ecx, r10d
    and ecx, {~(_POPPED_AT_0 | EFLAGS_RF)}
    or eax, ecx
    mov edi, eax
    add qword ptr [r12 + {at.ENV_ESP}], 4
    mov ecx, dword ptr [r12 + {at.ENV_ESP}]
    mov qword ptr [r12 + {at.ENV_ESP}], rcx
    {_take_flags()}
    mov eax, {NEXT}
    jmp {done}
"""


def _may_open(name: str, otherwise: str) -> str:
    """That flags in EDI don't open the guest, whose flags are in R10, to an interrupt that waits."""
    return f"""
    test edi, {EFLAGS_IF}
    jz {name}_may
    test r10d, {EFLAGS_IF}
    jnz {name}_may
    bt r10, {_OPENS}
    jnc {otherwise}
{name}_may:
"""


def _take_flags() -> str:
    """The guest's flags are those in EDI now; R10 is what it was, with `_IN_PROGRAM` as it is to be."""
    return f"""
    or edi, {EFLAGS_FIXED}
    shr r10, 32
    shl r10, 32
    mov ecx, edi
    and ecx, {_VIRTUAL}
    or r10, rcx
    bts r10, {_CHANGED}
    mov qword ptr [rbx + {CTL_GUEST}], r10
    and edi, dword ptr [rbx + {CTL_REAL_FLAGS}]
    or edi, {EFLAGS_IF}
    mov dword ptr [rbx + {CTL_FLAGS}], edi
    inc qword ptr [rbx + {CTL_UNASKED}]
"""


def return_(name: str, otherwise: str, done: str) -> str:
    """IRETD in the guest's kernel, to itself or to its program. The selectors of the data segments are known."""
    return f"""
    {_decides(otherwise)}
    {_in_kernel(otherwise)}
    mov eax, r15d
    and eax, dword ptr [rbx + {CTL_REAL_FLAGS}]
    or eax, r8d
    test eax, {ODD_FLAGS}
    jnz {otherwise}
    mov r10, r8
    mov esi, dword ptr [r12 + {at.ENV_ESP}]
    {_stack_place(name, 19, at.TLB_READ, otherwise)}
    mov edi, dword ptr [rsi + 8]
    test edi, {ODD_FLAGS}
    jnz {otherwise}
    {_may_open(name, otherwise)}
    mov r9, qword ptr [rbx + {CTL_KNOWN}]
    movzx ecx, word ptr [rsi + 4]
    cmp rcx, qword ptr [r9 + {known.OUT_KERNEL}]
    je {name}_inner
    cmp rcx, qword ptr [r9 + {known.OUT_CODE}]
    jne {otherwise}
    movzx ecx, word ptr [rsi + 16]
    cmp rcx, qword ptr [r9 + {known.OUT_STACK}]
    jne {otherwise}
    mov rcx, qword ptr [rbx + {CTL_DATA_SELECTORS}]
    cmp rcx, qword ptr [r9 + {known.OUT_OPEN}]
    jne {otherwise}
    mov rcx, qword ptr [r9 + {known.OUT_SIDE}]
    mov qword ptr [rbx + {CTL_SIDE}], rcx
    bts r10, {_IN_PROGRAM}
    mov ecx, dword ptr [rsi + 12]
    jmp {name}_returns
{name}_inner:
    mov ecx, dword ptr [r12 + {at.ENV_ESP}]
    add ecx, 12
{name}_returns:
    mov qword ptr [r12 + {at.ENV_ESP}], rcx
    mov ecx, dword ptr [rsi]
    mov qword ptr [r12 + {at.ENV_EIP}], rcx
    and edi, {RETURNED}
    {_take_flags()}
    mov eax, {ELSEWHERE}
    jmp {done}
"""


def segment_load(name: str, otherwise: str, done: str) -> str:
    """MOV from a register, or POP, to ES, DS, FS or GS in the guest's kernel, the first byte in R14D: the processor may
    do it by itself where Python has said so of the selector."""
    return f"""
    {_decides(otherwise)}
    {_in_kernel(otherwise)}
    mov r10, r8
    cmp r14d, {MOV_SEGMENT}
    je {name}_mov
    cmp r14d, {POP_ES}
    je {name}_pop
    cmp r14d, {POP_DS}
    je {name}_pop
    cmp r14d, {TWO_BYTES}
    jne {otherwise}
    mov rdi, r12
    mov rsi, qword ptr [r12 + {at.ENV_EIP}]
    inc rsi
    movabs rax, {{load_code_byte}}
    call rax
    and eax, {~(POP_FS ^ POP_GS)}
    cmp al, {POP_FS & POP_GS}
    jne {otherwise}
{name}_pop:
    mov r10, qword ptr [rbx + {CTL_GUEST}]
    mov esi, dword ptr [r12 + {at.ENV_ESP}]
    {_stack_place(name, 7, at.TLB_READ, otherwise)}
    movzx ecx, word ptr [rsi]
    jmp {name}_selector
{name}_mov:
    mov rdi, r12
    mov rsi, qword ptr [r12 + {at.ENV_EIP}]
    inc rsi
    movabs rax, {{load_code_byte}}
    call rax
    cmp al, 0xc0
    jb {otherwise}
    mov ecx, eax
    shr ecx, 3
    and ecx, 7
    mov edx, {_DATA_REGISTERS}
    bt edx, ecx
    jnc {otherwise}
    and eax, 7
    movzx ecx, word ptr [r12 + 8*rax + {at.ENV_REGS}]
{name}_selector:
    test ecx, 4
    jnz {otherwise}
    mov r9, qword ptr [rbx + {CTL_KNOWN}]
    mov eax, {PASSES}
{
        "".join(
            f'''
    cmp cx, word ptr [r9 + {known.OPEN + 2 * number}]
    je {done}
'''
            for number in range(known.OPEN_COUNT)
        )
    }
    jmp {otherwise}
"""
