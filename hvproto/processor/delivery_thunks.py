"""The machine code that delivers exceptions, in assembly: hooks of the native engine that Unicorn calls in a run.

With no Python frame on the stack, a nested fault may longjmp over them safely; and an exception from ring 3 to ring 0
and its IRET cost about an empty Python hook's time: 1.2 with the engine's own delivery, 0.6 where `fast_delivery` takes
its place. What the engine doesn't do by the book, and what needs a look at the instruction, a thunk *leaves*: it stops
the engine before anything has changed, and Python delivers.
"""

from __future__ import annotations

from hvproto.processor import private_layout as at
from hvproto.processor.asking import ask
from hvproto.processor.code_hooks import end_translation
from hvproto.processor.control_block import (
    CTL_COUNTS,
    CTL_CPU,
    CTL_CR2,
    CTL_DELIVERING,
    CTL_ENV,
    CTL_ERROR,
    CTL_LEFT,
    CTL_LENGTH,
    CTL_NOT_CANONICAL,
    CTL_PREFIXES,
    CTL_SEEN_CODE,
    CTL_SEEN_STACK,
    CTL_UC,
    CTL_UPDATES,
    CTL_UPDATES_0F,
    CTL_VECTOR,
    CTL_WALK,
    CTL_WAS_SHADOW,
    WALK_MARK,
    WALK_MARKS,
)
from hvproto.processor.fast_delivery import FAST_DELIVERY, RESTORE, SAVE
from hvproto.processor.segments import PRESENT
from hvproto.processor.settings import (
    CR0_EM,
    CR4_OSFXSR,
    EFLAGS_RF,
    EFLAGS_VM,
)
from hvproto.processor.state import SUMMARY_LONG, SUMMARY_SHADOW


def _plain_gate(control: str, vector: int) -> str:
    """To ``deliver`` if the engine's own delivery through this vector's gate is by the book, else to ``leave``.

    It knows no 16-bit gates (it takes the high word of their offsets for good), ends the process where the task
    register holds nothing, and lets virtual-8086 mode into rings 1 and 2. R12 is the processor state.
    """
    return f"""
    test dword ptr [r12 + {at.ENV_CR0}], 1
    jz deliver
    test dword ptr [r12 + {at.ENV_EFLAGS}], {EFLAGS_VM}
    jnz leave
    test dword ptr [r12 + {at.ENV_TR_FLAGS}], {PRESENT}
    jz leave
    test dword ptr [r12 + {at.ENV_SUMMARY}], {SUMMARY_LONG}
    jnz deliver
    mov eax, dword ptr [{control} + {vector}]
    shl eax, 3
    lea ecx, [rax + 7]
    cmp ecx, dword ptr [r12 + {at.ENV_IDT_LIMIT}]
    ja leave
    add eax, dword ptr [r12 + {at.ENV_IDT_BASE}]
    {_load("load_byte", "rax + 5")}
    and eax, 0x1f
    cmp eax, 0x0e
    jb leave
    cmp eax, 0x0f
    ja leave
"""


def _mark_segments() -> str:
    """Set the accessed bits of the descriptors that CS and SS were loaded from, which the engine's delivery doesn't.

    A selector that has been seen to is remembered until the next page walk, so that a stream of exceptions doesn't pay.
    """
    return f"""
    test dword ptr [r12 + {at.ENV_CR0}], 1
    jz marked
    {_mark("code", at.ENV_CS_SELECTOR, CTL_SEEN_CODE)}
    {_mark("stack", at.ENV_SS_SELECTOR, CTL_SEEN_STACK)}
marked:
"""


def _mark(name: str, selector: int, seen: int) -> str:
    return f"""
    mov eax, dword ptr [r12 + {selector}]
    cmp eax, dword ptr [rbx + {seen}]
    je {name}_marked
    mov dword ptr [rbx + {seen}], eax
    mov r13, qword ptr [r12 + {at.ENV_GDT_BASE}]
    test eax, 4
    jz {name}_table
    mov r13, qword ptr [r12 + {at.ENV_LDT_BASE}]
{name}_table:
    and eax, 0xfff8
    jz {name}_marked
    add r13, rax
    test dword ptr [r12 + {at.ENV_SUMMARY}], {SUMMARY_LONG}
    jnz {name}_found
    mov r13d, r13d
{name}_found:
    {_load("load_byte", "r13 + 5")}
    test al, 1
    jnz {name}_marked
    movzx edx, al
    or edx, 1
    mov rdi, r12
    lea rsi, [r13 + 5]
    mov ecx, {at.SUPERVISOR_WALK}
    xor r8d, r8d
    movabs rax, {{store_byte}}
    call rax
{name}_marked:
"""


def _load(function: str, address: str) -> str:
    return f"""
    lea rsi, [{address}]
    mov rdi, r12
    mov edx, {at.SUPERVISOR_WALK}
    xor ecx, ecx
    movabs rax, {{{function}}}
    call rax
"""


# What goes wrong during a delivery, the engine doesn't report by the book: no EXT bit, #TS for an absent stack.
# It has changed nothing yet but memory below the new stack pointer: the event goes to Python, which delivers it anew.
# (Missing memory makes the exception itself come back, as if it were nested; `failure` is set then.)
INTERRUPT = f"""
    {SAVE}
    mov rbx, rdx
    {end_translation("translation")}
    cmp dword ptr [rbx + {CTL_DELIVERING}], 0
    jne leave
    mov r12, qword ptr [rbx + {CTL_ENV}]
    mov dword ptr [rbx + {CTL_VECTOR}], esi
    mov eax, dword ptr [r12 + {at.ENV_SUMMARY}]
    and eax, {SUMMARY_SHADOW}
    mov dword ptr [rbx + {CTL_WAS_SHADOW}], eax
    mov eax, dword ptr [r12 + {at.ENV_ERROR_CODE}]
    mov dword ptr [rbx + {CTL_ERROR}], eax
    mov rax, qword ptr [r12 + {at.ENV_CR2}]
    mov qword ptr [rbx + {CTL_CR2}], rax
    mov dword ptr [rbx + {CTL_LENGTH}], 0
    cmp esi, 14
    jne ask
    cmp dword ptr [r12 + {at.ENV_IS_SOFTWARE}], 0
    je ask_later
ask:
    {ask("refused")}
ask_later:
    mov dword ptr [rbx + {CTL_DELIVERING}], 1
    mov r13, qword ptr [r12 + {at.ENV_EIP}]
    add r13, qword ptr [r12 + {at.ENV_CS_BASE}]
    test dword ptr [r12 + {at.ENV_SUMMARY}], {SUMMARY_LONG}
    jnz has_address
    mov r13d, r13d
has_address:
    cmp dword ptr [r12 + {at.ENV_IS_SOFTWARE}], 0
    jne software
    cmp esi, 14
    je page_fault
    cmp esi, 1
    je leave
    cmp esi, 7
    je no_device
    lea eax, [rsi - 10]
    cmp eax, 3
    ja fault
    cmp dword ptr [rbx + {CTL_ERROR}], 0
    jne leave
    cmp dword ptr [rbx + {CTL_NOT_CANONICAL}], 0
    jne leave
fault:
    or dword ptr [r12 + {at.ENV_EFLAGS}], {EFLAGS_RF}
    jmp look_at_gate

no_device:
    test dword ptr [r12 + {at.ENV_CR0}], {CR0_EM}
    jnz leave
    test dword ptr [r12 + {at.ENV_CR4}], {CR4_OSFXSR}
    jz leave
    jmp fault

page_fault:
    mov rdx, qword ptr [rbx + {CTL_WALK}]
    mov ecx, dword ptr [rdx + {WALK_MARKS}]
    mov dword ptr [rdx + {WALK_MARKS}], 0
unmark:
    test ecx, ecx
    jz unmarked
    dec ecx
    mov rax, qword ptr [rdx + rcx*8 + {WALK_MARK}]
    and byte ptr [rax], 0xdf
    jmp unmark
unmarked:
    mov rax, r13
    and rax, -4096
    add rax, 4096
    cmp rax, qword ptr [rbx + {CTL_CR2}]
    je leave
    test dword ptr [rbx + {CTL_ERROR}], 0x10
    jnz explained
scan:
    mov rdi, r12
    mov rsi, r13
    movabs rax, {{load_code_byte}}
    call rax
    inc r13
    movzx eax, al
    bt dword ptr [rbx + {CTL_PREFIXES}], eax
    jc scan
    lea ecx, [rax - 0x6c]
    cmp ecx, 3
    jbe leave
    cmp eax, 0x0f
    je two_bytes
    bt dword ptr [rbx + {CTL_UPDATES}], eax
    jc leave
    jmp explained
two_bytes:
    mov rdi, r12
    mov rsi, r13
    movabs rax, {{load_code_byte}}
    call rax
    movzx eax, al
    bt dword ptr [rbx + {CTL_UPDATES_0F}], eax
    jc leave
explained:
    {ask("fault_refused", page_fault=True)}
    jmp fault

software:
    mov ecx, 2
    cmp esi, 3
    je short_form
    cmp esi, 4
    jne rewind
short_form:
    mov rdi, r12
    lea rsi, [r13 - 1]
    movabs rax, {{load_code_byte}}
    call rax
    mov ecx, 1
    cmp al, 0xcc
    je rewind
    cmp al, 0xce
    je rewind
    mov ecx, 2
rewind:
    mov dword ptr [rbx + {CTL_LENGTH}], ecx
    sub qword ptr [r12 + {at.ENV_EIP}], rcx

look_at_gate:
    {FAST_DELIVERY}
slow:
    {_plain_gate("rbx", CTL_VECTOR)}
deliver:
    mov rdi, qword ptr [rbx + {CTL_CPU}]
    movabs rax, {{do_interrupt}}
    call rax
    {_mark_segments()}
delivered:
    mov dword ptr [rbx + {CTL_DELIVERING}], 0
    movzx eax, byte ptr [rbx + {CTL_VECTOR}]
    inc dword ptr [rbx + rax*4 + {CTL_COUNTS}]
    {RESTORE}
    ret
leave:
    mov dword ptr [rbx + {CTL_LEFT}], 1
    mov rdi, qword ptr [rbx + {CTL_UC}]
    {RESTORE}
    movabs rax, {{stop}}
    jmp rax
"""

INVALID = f"""
    {SAVE}
    mov rbx, rsi
    {end_translation("translation")}
    cmp dword ptr [rbx + {CTL_DELIVERING}], 0
    jne leave
    mov r12, qword ptr [rbx + {CTL_ENV}]
    mov rax, qword ptr [r12 + {at.ENV_CR2}]
    mov qword ptr [rbx + {CTL_CR2}], rax
    mov dword ptr [rbx + {CTL_VECTOR}], 6
    mov dword ptr [rbx + {CTL_LENGTH}], 0
    mov dword ptr [rbx + {CTL_DELIVERING}], 1
    cmp dword ptr [r12 + {at.ENV_IS_SOFTWARE}], 0
    jne software
    mov r13, qword ptr [r12 + {at.ENV_EIP}]
    add r13, qword ptr [r12 + {at.ENV_CS_BASE}]
    test dword ptr [r12 + {at.ENV_SUMMARY}], {SUMMARY_LONG}
    jnz scan
    mov r13d, r13d
scan:
    mov rdi, r12
    mov rsi, r13
    movabs rax, {{load_code_byte}}
    call rax
    inc r13
    movzx eax, al
    bt dword ptr [rbx + {CTL_PREFIXES}], eax
    jc scan
    cmp eax, 0xf1
    je leave
    or dword ptr [r12 + {at.ENV_EFLAGS}], {EFLAGS_RF}
    {FAST_DELIVERY}
slow:
    {_plain_gate("rbx", CTL_VECTOR)}
deliver:
    mov rdi, qword ptr [rbx + {CTL_CPU}]
    movabs rax, {{do_interrupt}}
    call rax
    {_mark_segments()}
delivered:
    mov dword ptr [rbx + {CTL_DELIVERING}], 0
    inc dword ptr [rbx + {CTL_COUNTS + 6 * 4}]
    jmp done
software:
    mov dword ptr [rbx + {CTL_LENGTH}], 2
leave:
    mov dword ptr [rbx + {CTL_LEFT}], 1
    mov rdi, qword ptr [rbx + {CTL_UC}]
    movabs rax, {{stop}}
    call rax
done:
    mov eax, 1
    {RESTORE}
    ret
"""
