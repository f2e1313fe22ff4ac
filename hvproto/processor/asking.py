"""The machine code that asks Python about an event of ring 3, and carries out what it says (`first_look`).

Python finds all that it needs in the control block and in the processor's state, and leaves there what is to become of
it: so there is no call from it into the engine. Each would take as long as all that it decides.
"""

from __future__ import annotations

from hvproto.processor import private_layout as at
from hvproto.processor.control_block import (
    CTL_ASK,
    CTL_ASK_CYCLES,
    CTL_ASK_INSTRUCTIONS,
    CTL_ASK_TRAP,
    CTL_COUNTING,
    CTL_CPU,
    CTL_DATA_SELECTORS,
    CTL_DEADLINE,
    CTL_DELIVERING,
    CTL_ENV,
    CTL_ERROR,
    CTL_FLAGS,
    CTL_GUEST,
    CTL_INSTRUCTIONS,
    CTL_NOT_CANONICAL,
    CTL_NOW,
    CTL_SIDE,
    CTL_VECTOR,
    NOT_REPEATING,
)
from hvproto.processor.fast_delivery import RESTORE, SAVE, compute_eflags
from hvproto.processor.hidden_faults import show_hidden
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import EFLAGS_TF
from hvproto.processor.state import SEGMENT_CACHE, SUMMARY_CPL, SUMMARY_SHADOW
from hvproto.processor.taken_places import CONTROL_OF_STATE
from hvproto.processor.trap_table import FROM_BLOCK
from hvproto.processor.unasked import (
    ARITHMETIC,
    CLI,
    DECIDES,
    IRET,
    NEXT,
    PASSES,
    POPF,
    PUSHF,
    STI,
    calls,
    flags,
    pop_flags,
    push_flags,
    return_,
    segment_load,
)

SIDE_SIZE = 2 * SEGMENT_CACHE.size + 16
"""What changes with the ring: CS and SS, hidden parts and all, CR3, and the GDT's base."""
SOFTWARE, NOT_ALLOWED = 0x100, 0x200
"""What is asked about, if not an exception by its vector: INT n | n, and a #GP(0) | the instruction's first byte."""
_PROTECTION = 13
_CC_OP_EFLAGS = 1
"""The arithmetic flags are as they stand in the source operand."""
_DIRECTION = 0x400


def _check_ring_3(otherwise: str) -> str:
    """To there unless this is ring 3, with no single step and interrupts not held off. R12 is the processor state."""
    return f"""
    mov ecx, dword ptr [r12 + {at.ENV_SUMMARY}]
    and ecx, {SUMMARY_CPL | SUMMARY_SHADOW}
    cmp ecx, {SUMMARY_CPL}
    jne {otherwise}
    test dword ptr [r12 + {at.ENV_EFLAGS}], {EFLAGS_TF}
    jnz {otherwise}
"""


def _check_asks(otherwise: str) -> str:
    """To there unless somebody is to be asked about an exception now. RBX is the control block, R12 env."""
    return f"""
    cmp qword ptr [rbx + {CTL_ASK}], 0
    je {otherwise}
    {_check_ring_3(otherwise)}
    mov rcx, qword ptr [rbx + {CTL_NOW}]
    cmp rcx, qword ptr [rbx + {CTL_DEADLINE}]
    jae {otherwise}
"""


def ask(name: str, *, page_fault: bool = False) -> str:
    """Ask about an exception or INT n that is about to be delivered; return from the hook if Python has done all.

    Else it has done nothing. Where the run is to end at the next block, nobody is asked: the handler would be that
    block. RBX is the control block, R12 env; R13 to R15 are free. ``name`` makes the labels' names. ``page_fault``: it
    is about nothing else.
    """
    return f"""
    {_check_asks(f"{name}_unasked")}
    mov r14d, dword ptr [rbx + {CTL_VECTOR}]
    mov r13, qword ptr [rbx + {CTL_ASK_CYCLES}]
    cmp dword ptr [r12 + {at.ENV_IS_SOFTWARE}], 0
    jne {name}_software
    mov r13, qword ptr [rbx + {CTL_ASK_CYCLES + 8}]
    cmp r14d, {_PROTECTION}
    jne {name}_known
    mov eax, dword ptr [rbx + {CTL_ERROR}]
    or eax, dword ptr [rbx + {CTL_NOT_CANONICAL}]
    or rax, qword ptr [r12 + {at.ENV_CS_BASE}]
    jnz {name}_known
    mov rdi, r12
    mov rsi, qword ptr [r12 + {at.ENV_EIP}]
    movabs rax, {{load_code_byte}}
    call rax
    movzx r14d, al
    or r14d, {NOT_ALLOWED}
    jmp {name}_known
{name}_software:
    or r14d, {SOFTWARE}
    {_tell_flags()}
{name}_known:
    mov rax, qword ptr [rbx + {CTL_ASK_INSTRUCTIONS}]
    cmp dword ptr [r12 + {at.ENV_IS_SOFTWARE}], 0
    jne {name}_counted
    mov rax, qword ptr [rbx + {CTL_ASK_INSTRUCTIONS + 8}]
{name}_counted:
    mov r15d, dword ptr [rbx + {CTL_COUNTING}]
    imul r15, rax
    add qword ptr [rbx + {CTL_NOW}], r13
    add qword ptr [rbx + {CTL_INSTRUCTIONS}], r15
    {_decide(name) if not page_fault else show_hidden(f"{name}_asks", f"{name}_done")}
{name}_asks:
    mov edi, r14d
    mov esi, dword ptr [rbx + {CTL_ERROR}]
    mov rdx, qword ptr [r12 + {at.ENV_EIP}]
    mov rcx, qword ptr [r12 + {at.ENV_ESP}]
    call qword ptr [rbx + {CTL_ASK}]
    test eax, eax
    jz {name}
{name}_done:
    mov qword ptr [r12 + {at.ENV_REPEATING}], {NOT_REPEATING}
    {_go_on(name)}
    mov dword ptr [rbx + {CTL_DELIVERING}], 0
    mov dword ptr [r12 + {at.ENV_OLD_EXCEPTION}], -1
    {RESTORE}
    ret
{name}:
    sub qword ptr [rbx + {CTL_NOW}], r13
    sub qword ptr [rbx + {CTL_INSTRUCTIONS}], r15
    mov esi, dword ptr [rbx + {CTL_VECTOR}]
{name}_unasked:
"""


def _decide(name: str) -> str:
    """What machine code decides about INT n and #GP."""
    return f"""
    test r14d, {SOFTWARE}
    jnz {name}_calls
    {flags(name, NOT_ALLOWED | CLI, NOT_ALLOWED | STI, f"{name}_asks", f"{name}_done")}
{name}_calls:
    {calls(f"{name}_asks", f"{name}_done")}
"""


def _tell_flags() -> str:
    """EFLAGS to the control block."""
    return compute_eflags() + f"mov dword ptr [rbx + {CTL_FLAGS}], r15d\n"


def _go_on(name: str) -> str:
    """EIP behind an instruction of one byte, if that is the answer in EAX, and the other side, if it was asked for."""
    lines = [f"cmp eax, {NEXT}", f"jne {name}_elsewhere", f"inc qword ptr [r12 + {at.ENV_EIP}]", f"{name}_elsewhere:"]
    lines += [f"mov rsi, qword ptr [rbx + {CTL_SIDE}]", "test rsi, rsi", f"jz {name}_stays"]
    lines.append(f"mov qword ptr [rbx + {CTL_SIDE}], 0")
    places = [at.ENV_CS_SELECTOR + 8 * word for word in range(2 * SEGMENT_CACHE.size // 8)]
    for word, place in enumerate((*places, at.ENV_CR3, at.ENV_GDT_BASE)):
        lines += [f"mov rax, qword ptr [rsi + {8 * word}]", f"mov qword ptr [r12 + {place}], rax"]
    lines += [f"mov rdi, qword ptr [rbx + {CTL_CPU}]", "movabs rax, {flush_tlb}", "call rax", f"{name}_stays:"]
    return "\n".join(lines) + "\n"


def _tell_data_selectors() -> str:
    registers = SegmentRegister.GS, SegmentRegister.FS, SegmentRegister.DS, SegmentRegister.ES
    lines = ["xor eax, eax"]
    for register in registers:
        place = at.ENV_SEGMENTS + SEGMENT_CACHE.size * register
        lines += ["shl rax, 16", f"movzx ecx, word ptr [r12 + {place}]", "or rax, rcx"]
    return "\n".join(lines) + f"\nmov qword ptr [rbx + {CTL_DATA_SELECTORS}], rax\n"


def _enter_next_block() -> str:
    """Go on where EIP is, from machine code that a block has called and whose stack is as behind `SAVE`. RDI is env.

    As an indirect jump is translated: the block there is looked for, and jumped to. If it isn't translated yet, what is
    found is the engine's own way out of translated code. The way that exceptions take is 80 ns longer.
    """
    return f"""
    {RESTORE}
    add rsp, 8
    movabs rax, {{lookup_block}}
    call rax
    jmp rax
"""


# A hook on an instruction at which a trap is planted: what is done, the engine goes on behind, in the next block, or by
# the way that exceptions take. Through the binding's hook and a write of EIP, it takes 8 us; so, 1, where Python is
# asked. EIP is elsewhere where another hook on the same instruction has done it.
ASK_TRAP = f"""
    {SAVE}
    push rdi
    push rsi
    push rdx
    push rcx
    movabs rbx, {{control}}
    cmp qword ptr [rbx + {CTL_ASK_TRAP}], 0
    je otherwise
    mov r12, qword ptr [rbx + {CTL_ENV}]
    {_check_ring_3("otherwise")}
    cmp rsi, qword ptr [r12 + {at.ENV_EIP}]
    jne otherwise
    mov rdi, r12
    movabs rax, {{load_code_byte}}
    call rax
    movzx r14d, al
    {_tell_flags()}
    cmp r14d, {PUSHF}
    jne not_pushed
    {push_flags("asks", "answered")}
not_pushed:
    cmp r14d, {POPF}
    jne not_popped
    {pop_flags("pops", "asks", "answered")}
not_popped:
    cmp r14d, {IRET}
    je returns_from
    {segment_load("loads", "asks", "passes")}
returns_from:
    {_tell_data_selectors()}
    {return_("returns", "asks", "answered")}
asks:
    mov edi, r14d
    mov rsi, qword ptr [r12 + {at.ENV_EIP}]
    mov rdx, qword ptr [r12 + {at.ENV_ESP}]
    mov ecx, r15d
    call qword ptr [rbx + {CTL_ASK_TRAP}]
    test eax, eax
    jz otherwise
    cmp eax, {PASSES}
    je passes
answered:
    mov r13d, eax
    mov eax, dword ptr [rbx + {CTL_FLAGS}]
    mov dword ptr [r12 + {at.ENV_EFLAGS}], eax
    mov ecx, eax
    and ecx, {ARITHMETIC}
    mov qword ptr [r12 + {at.ENV_CC_SRC}], rcx
    mov dword ptr [r12 + {at.ENV_CC_OP}], {_CC_OP_EFLAGS}
    and eax, {_DIRECTION}
    neg eax
    sbb eax, eax
    or eax, 1
    mov dword ptr [r12 + {at.ENV_DF}], eax
    mov eax, r13d
    {_go_on("trap")}
    cmp dword ptr [rsp], {FROM_BLOCK}
    jne leaves
    mov rdi, r12
    add rsp, 32
    {_enter_next_block()}
leaves:
    mov rdi, qword ptr [rbx + {CTL_CPU}]
    movabs rax, {{leave_block}}
    call rax
passes:
    add rsp, 8
    pop rdx
    pop rsi
    pop rdi
    {RESTORE}
    ret
otherwise:
    add rsp, 8
    pop rdx
    pop rsi
    pop rdi
    {RESTORE}
    xor ecx, ecx
    movabs rax, {{trap_callback}}
    jmp rax
"""

# In place of the engine's `helper_raise_exception`, which translated code calls for an exception that was foreseen when
# it was translated: EDI is env, ESI the vector. CLI and STI of a guest that machine code decides about are done at
# once; with all else, nothing is, and the engine raises it. EIP and what the arithmetic flags are made of are up to
# date.
RAISE = f"""
    cmp esi, {_PROTECTION}
    jne plain
    {CONTROL_OF_STATE}
    bt qword ptr [r9 + {CTL_GUEST}], {DECIDES.bit_length() - 1}
    jnc plain
    {SAVE}
    push rdi
    push rsi
    mov rbx, r9
    mov r12, rdi
    {_check_asks("otherwise")}
    mov eax, dword ptr [rbx + {CTL_NOT_CANONICAL}]
    or rax, qword ptr [r12 + {at.ENV_CS_BASE}]
    jnz otherwise
    mov rsi, qword ptr [r12 + {at.ENV_EIP}]
    movabs rax, {{load_code_byte}}
    call rax
    movzx r14d, al
    {flags("raised", CLI, STI, "otherwise", "done")}
done:
    mov rax, qword ptr [rbx + {CTL_ASK_CYCLES + 8}]
    add qword ptr [rbx + {CTL_NOW}], rax
    mov ecx, dword ptr [rbx + {CTL_COUNTING}]
    imul rcx, qword ptr [rbx + {CTL_ASK_INSTRUCTIONS + 8}]
    add qword ptr [rbx + {CTL_INSTRUCTIONS}], rcx
    mov qword ptr [r12 + {at.ENV_REPEATING}], {NOT_REPEATING}
    inc qword ptr [r12 + {at.ENV_EIP}]
    mov rdi, r12
    add rsp, 16
    {_enter_next_block()}
otherwise:
    pop rsi
    pop rdi
    {RESTORE}
plain:
    movabs rax, {{helper_raise_exception}}
    jmp rax
"""
