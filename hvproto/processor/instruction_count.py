"""Instructions are counted by the engine's own translated code, one by one and without a call.

What counts, and once: each instruction that the processor **begins**. Whether it then completes, faults, or is
performed by somebody else for it (a hypervisor, `stand_ins`), makes no difference. One that is begun anew after a
handler has run, because it faulted or was interrupted, counts again. A string instruction with REP is one
instruction, however many rounds it takes between two handlers. (SDM vol. 3, 20.2, counts those that *retire*: not
those that fault, and hence none of a guest's that hypervisors perform.)

Each instruction leaves its number in its basic block, one store; each block adds that of the block before to the
count as it begins. So no matter how a block is left - fault, stop, code that overwrites itself - nothing has to be
taken back. What is translated while no count is wanted, has nothing of this. Loops in registers reach 0.85 to 0.97 of
the speed that they have without the count, hosted guests 0.98 to 1.02 (`tools/bench_instruction_count.py`).

The engine makes host code of its translator's operations in `tcg_gen_code`, which it calls through the library's
table of its own functions. Machine code of ours takes the place of that entry and adds the operations: behind the
translator, so that blocks are the same with them and without.
"""

from __future__ import annotations

from functools import cache

from hvproto.processor import private_layout as at
from hvproto.processor.control_block import CTL_COUNTING, CTL_ENV, CTL_INSTRUCTIONS, CTL_PREFIXES, NOT_REPEATING
from hvproto.processor.taken_places import CONTROL_OF_TRANSLATOR, take

_FUNCTIONS = ("tcg_op_insert_before", "tcg_temp_new_internal", "cpu_ldub_code")
_I32, _I64 = 0, 1
"""Types of temporaries."""
_FIRST_INPUT = at.OPERATION_ARGUMENTS
REP, REPNE = 0xF3, 0xF2
STRING_OPCODES = (*range(0x6C, 0x70), *range(0xA4, 0xA8), *range(0xAA, 0xB0))
"""INS, OUTS, MOVS, CMPS, STOS, LODS, SCAS: each is the last byte of its instruction (SDM vol. 2, REP)."""


def _temporary(kind: int, into: str) -> str:
    return f"""
    mov rdi, rbx
    mov esi, {kind}
    xor edx, edx
    movabs rax, {{tcg_temp_new_internal}}
    call rax
    mov {into}, rax
"""


def _put(code: int, first: str, second: str, third: str = "0", fourth: str | None = None) -> str:
    """An operation before the one at RBP."""
    more = "" if fourth is None else f"mov qword ptr [rax + {_FIRST_INPUT + 24}], {fourth}"
    return f"""
    mov rcx, {first}
    mov r8, {second}
    mov r9, {third}
    mov edx, {code}
    call put
    {more}
"""


_COUNT, _OTHER, _ADDRESS = (f"qword ptr [rsp + {place}]" for place in (0, 8, 16))
"""Temporaries of 64 bits; in R14 is one of 32."""
_PC, _REPEATS = "qword ptr [rsp + 24]", "dword ptr [rsp + 32]"
"""The instruction's linear address, and whether it has REP."""
_ENV = "r13"

# In place of `tcg_gen_code`: RDI is the translator's context, RSI the block. R15D numbers its instructions.
_COUNT_CODE = f"""
    {CONTROL_OF_TRANSLATOR}
    cmp dword ptr [r9 + {CTL_COUNTING}], 0
    jne counted
plain:
    movabs rax, {{own}}
    jmp rax

counted:
    push rdi
    push rsi
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    sub rsp, 72
    mov qword ptr [rsp + 40], r9
    mov rax, qword ptr [r9 + {CTL_ENV}]
    mov qword ptr [rsp + 48], rax
    mov rbx, rdi
    mov r12, rsi
    lea r13, [rbx + {at.TRANSLATOR_ENV}]
    xor r15d, r15d
    {_temporary(_I32, "r14")}
    {_temporary(_I64, _COUNT)}
    {_temporary(_I64, _OTHER)}
    {_temporary(_I64, _ADDRESS)}
    mov rbp, qword ptr [rbx + {at.TRANSLATOR_FIRST_OPERATION}]
each:
    test rbp, rbp
    jz done
    mov al, byte ptr [rbp]
    mov rdx, qword ptr [rbp + {_FIRST_INPUT}]
    mov rbp, qword ptr [rbp + {at.OPERATION_LINK}]
    cmp al, {at.TCG_INSN_START}
    jne each
    mov {_PC}, rdx
    inc r15d
    call repeats
    mov {_REPEATS}, eax
    cmp r15d, 1
    jne begun
    {_put(at.TCG_MOVI_I64, _ADDRESS, "qword ptr [rsp + 40]")}
    {_put(at.TCG_LD_I64, _COUNT, _ADDRESS, str(CTL_INSTRUCTIONS))}
    {_put(at.TCG_LD32U_I64, _OTHER, _ENV, str(at.ENV_NUMBER))}
    {_put(at.TCG_ADD_I64, _COUNT, _COUNT, _OTHER)}
    cmp {_REPEATS}, 0
    je no_rounds
    {_put(at.TCG_LD_I64, _OTHER, _ENV, str(at.ENV_REPEATING))}
    {_put(at.TCG_ST_I64, _COUNT, _ADDRESS, str(CTL_INSTRUCTIONS))}
    {_put(at.TCG_MOVI_I64, _COUNT, _PC)}
    {_put(at.TCG_SETCOND_I64, _OTHER, _OTHER, _COUNT, str(at.TCG_EQUAL))}
    {_put(at.TCG_LD_I64, _COUNT, _ADDRESS, str(CTL_INSTRUCTIONS))}
    {_put(at.TCG_SUB_I64, _COUNT, _COUNT, _OTHER)}
    jmp known
no_rounds:
    mov eax, dword ptr [r12 + {at.BLOCK_OPTIONS}]
    and eax, {at.BLOCK_LENGTH_MASK}
    cmp eax, 1
    jne known
    {_put(at.TCG_MOVI_I64, _OTHER, "1")}
    {_put(at.TCG_SUB_I64, _COUNT, _COUNT, _OTHER)}
known:
    {_put(at.TCG_ST_I64, _COUNT, _ADDRESS, str(CTL_INSTRUCTIONS))}
    {_put(at.TCG_MOVI_I64, _OTHER, str(NOT_REPEATING))}
    {_put(at.TCG_ST_I64, _OTHER, _ENV, str(at.ENV_REPEATING))}
begun:
    {_put(at.TCG_MOVI_I32, "r14", "r15")}
    {_put(at.TCG_ST_I32, "r14", _ENV, str(at.ENV_NUMBER))}
    cmp {_REPEATS}, 0
    je each
    {_put(at.TCG_MOVI_I64, _OTHER, _PC)}
    {_put(at.TCG_ST_I64, _OTHER, _ENV, str(at.ENV_REPEATING))}
    jmp each
done:
    add rsp, 72
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    pop rsi
    pop rdi
    jmp plain

put:
    push rcx
    push r8
    push r9
    mov rdi, rbx
    mov rsi, rbp
    movabs rax, {{tcg_op_insert_before}}
    call rax
    pop r9
    pop r8
    pop rcx
    mov qword ptr [rax + {_FIRST_INPUT}], rcx
    mov qword ptr [rax + {_FIRST_INPUT + 8}], r8
    mov qword ptr [rax + {_FIRST_INPUT + 16}], r9
    ret

repeats:
    push rbp
    push r14
    push r15
    mov rbp, rdx
    mov r14, qword ptr [r12]
    movzx eax, word ptr [r12 + {at.BLOCK_BYTES}]
    add r14, rax
    xor r15d, r15d
code_byte:
    cmp rbp, r14
    jae once
    mov rdi, qword ptr [rsp + 32 + 48]
    mov rsi, rbp
    movabs rax, {{cpu_ldub_code}}
    call rax
    inc rbp
    movzx eax, al
    cmp eax, {REP}
    je prefixed
    cmp eax, {REPNE}
    je prefixed
    mov rcx, qword ptr [rsp + 32 + 40]
    bt dword ptr [rcx + {CTL_PREFIXES}], eax
    jc code_byte
    test r15d, r15d
    jz once
    cmp rbp, r14
    jne once
    lea ecx, [eax - {STRING_OPCODES[0]}]
    cmp ecx, {0x6F - 0x6C}
    jbe found
    lea ecx, [eax - 0xA4]
    cmp ecx, {0xAF - 0xA4}
    ja once
    and eax, 0xFE
    cmp eax, 0xA8
    je once
found:
    mov eax, 1
    jmp looked
prefixed:
    inc r15d
    jmp code_byte
once:
    xor eax, eax
looked:
    pop r15
    pop r14
    pop rbp
    ret
"""


@cache
def install() -> bool:
    """Take the entry's place, for the whole process and its life; False if that can't be done here."""
    try:
        names = {name: at.address_of(f"{name}_x86_64") for name in _FUNCTIONS}
    except AttributeError:
        return False
    return take({"tcg_gen_code": _COUNT_CODE}, names)
