"""The beginning of a basic block in the engine's own translated code: time is charged there without a call.

A hook on blocks is a call in each of them, and the engine makes another one by itself, to look for a request to stop:
a short loop takes twice the time for it. Here, as a block is translated, both calls are replaced by ten instructions
that charge the block and compare the time with a *limit*; `run_thunks.BLOCK` is called only where that is reached, or a
stop was asked for. Measured against plain Unicorn: 0.5 of its speed with the hook, 1.0 so. Behind each access to memory
the engine looks for such a request, too: not here, which is a fifth of a small system's time.

The engine's translator calls `tcg_gen_callN` for each call that it translates, through the library's table of its own
functions, and machine code of ours takes the place of that entry. It does nothing for instances that aren't ours.
Where the table isn't found, the hook is called for each block, as ever, and does the same.
"""

from __future__ import annotations

from functools import cache

from hvproto.processor import private_layout as at
from hvproto.processor import store_helpers
from hvproto.processor.asking import RAISE
from hvproto.processor.control_block import (
    CTL_BLOCK_HOOK,
    CTL_BLOCK_SIZE,
    CTL_BLOCK_START,
    CTL_IN_ACCESS,
    CTL_IS_BEGUN,
    CTL_LIMIT,
    CTL_NOW,
    IN_BLOCK,
)
from hvproto.processor.taken_places import CONTROL_OF_TRANSLATOR, keep, take
from hvproto.processor.trap_table import TRACE

_FUNCTIONS = (
    "tcg_const_i32", "tcg_const_i64", "tcg_temp_new_internal", "tcg_temp_free_internal", "tcg_gen_op1", "tcg_gen_op2",
    "tcg_gen_op3", "tcg_gen_brcond_i64", "tcg_gen_callN", "gen_new_label", "helper_check_exit_request",
    "helper_iret_protected", "helper_iret_real", "helper_raise_exception",
)  # fmt: skip
_LOADS, _STORES = ([f"tcg_gen_qemu_{what}_{size}" for size in ("i32", "i64")] for what in ("ld", "st"))


def _operation(code: int, first: str, second: str, third: str) -> str:
    """An operation of the translator's intermediate code, with three operands."""
    return f"""
    mov rdi, rbx
    mov esi, {code}
    mov rdx, {first}
    mov rcx, {second}
    mov r8, {third}
    movabs rax, {{tcg_gen_op3}}
    call rax
"""


def _constant(value: str, into: str, *, wide: bool = True) -> str:
    """A temporary with a constant."""
    return f"""
    mov rdi, rbx
    mov rsi, {value}
    movabs rax, {{tcg_const_i{64 if wide else 32}}}
    call rax
    lea {into}, [rbx + rax]
"""


def _temporary(into: str) -> str:
    return f"""
    mov rdi, rbx
    mov esi, 1
    xor edx, edx
    movabs rax, {{tcg_temp_new_internal}}
    call rax
    mov {into}, rax
"""


def _free(*temporaries: str) -> str:
    return "\n".join(
        f"""
    mov rdi, rbx
    mov rsi, {one}
    movabs rax, {{tcg_temp_free_internal}}
    call rax
"""
        for one in temporaries
    )


def _call_instead(name: str, function: str, place: int, ours: str) -> str:
    """Translate a call as the engine does, and have translated code call machine code of ours in its place."""
    return f"""
{name}:
    push rbx
    mov rbx, rdi
    movabs rax, {{tcg_gen_callN}}
    call rax
    mov rax, qword ptr [rbx + {at.TRANSLATOR_LAST_OPERATION}]
    mov rax, qword ptr [rax + {at.OPERATION_LINK}]
    mov rax, qword ptr [rax]
    movabs rcx, {{{function}}}
    cmp rcx, qword ptr [rax + {place}]
    jne {name}_translated
    movabs rcx, {{{ours}}}
    mov qword ptr [rax + {place}], rcx
{name}_translated:
    pop rbx
    ret
"""


# In place of `tcg_gen_callN`: RDI is the translator's context, RSI the function that the translated code is to call, R8
# its arguments. An IRET may set RF, which only BLOCK sees to: the limit is set to "at once" behind it. The translator
# ends a block after so many operations: each call counts as one, as before, so that blocks are the same.
_CALL = f"""
    {CONTROL_OF_TRANSLATOR}
    cmp rsi, qword ptr [r9 + {CTL_BLOCK_HOOK}]
    je block
    movabs rax, {{helper_check_exit_request}}
    cmp rsi, rax
    je look_for_stop
    movabs rax, {{helper_uc_tracecode}}
    cmp rsi, rax
    je hook
    movabs rax, {{helper_raise_exception}}
    cmp rsi, rax
    je raises
    movabs rax, {{helper_iret_protected}}
    cmp rsi, rax
    je return
    movabs rax, {{helper_iret_real}}
    cmp rsi, rax
    je return
plain:
    movabs rax, {{tcg_gen_callN}}
    jmp rax

look_for_stop:
    cmp dword ptr [r9 + {CTL_IS_BEGUN}], 0
    je plain
    mov dword ptr [r9 + {CTL_IS_BEGUN}], 0
    inc dword ptr [rdi + {at.TRANSLATOR_OPERATIONS}]
    ret

{_call_instead("hook", "helper_uc_tracecode", at.CALLED_WITH_4, "trace")}
{_call_instead("raises", "helper_raise_exception", at.CALLED_WITH_2, "raise")}
return:
    push rbx
    push rbp
    push r12
    mov rbx, rdi
    mov r12, r9
    movabs rax, {{tcg_gen_callN}}
    call rax
    {_constant("r12", "rbp")}
    {_constant("-1", "r12")}
    {_operation(at.TCG_ST_I64, "r12", "rbp", str(CTL_LIMIT))}
    {_free("r12", "rbp")}
    pop r12
    pop rbp
    pop rbx
    ret

block:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    sub rsp, 40
    mov rbx, rdi
    mov r12, r9
    mov r13, r8
    mov eax, dword ptr [rbx + {at.TRANSLATOR_OPERATIONS}]
    inc eax
    mov dword ptr [rsp + 32], eax
    {_constant("r12", "rbp")}
    {_temporary("r14")}
    {_operation(at.TCG_LD_I64, "r14", "rbp", str(CTL_NOW))}
    {_temporary("r15")}
    mov rdi, rbx
    mov esi, {at.TCG_EXTU_I32_I64}
    mov rdx, r15
    mov rcx, qword ptr [r13 + 16]
    movabs rax, {{tcg_gen_op2}}
    call rax
    {_operation(at.TCG_ADD_I64, "r15", "r14", "r15")}
    {_operation(at.TCG_ST_I64, "r15", "rbp", str(CTL_NOW))}
    {_operation(at.TCG_ST_I64, "qword ptr [r13 + 8]", "rbp", str(CTL_BLOCK_START))}
    {_operation(at.TCG_ST_I32, "qword ptr [r13 + 16]", "rbp", str(CTL_BLOCK_SIZE))}
    {_operation(at.TCG_LD_I64, "r15", "rbp", str(CTL_LIMIT))}
    lea r13, [rbx + {at.TRANSLATOR_ENV}]
    {_operation(at.TCG_LD32S_I64, "rbp", "r13", str(at.ENV_STOP_REQUEST))}
    {_operation(at.TCG_OR_I64, "r15", "r15", "rbp")}
    mov rdi, rbx
    movabs rax, {{gen_new_label}}
    call rax
    mov r13, rax
    mov rdi, rbx
    mov esi, {at.TCG_LESS}
    mov rdx, r14
    sub rdx, rbx
    mov rcx, r15
    sub rcx, rbx
    mov r8, r13
    movabs rax, {{tcg_gen_brcond_i64}}
    call rax
    {_free("r14", "r15", "rbp")}
    {_constant("0", "r14")}
    {_constant("0", "r15", wide=False)}
    lea rsi, [r12 + {IN_BLOCK}]
    {_constant("rsi", "rbp")}
    mov qword ptr [rsp], r14
    mov qword ptr [rsp + 8], r14
    mov qword ptr [rsp + 16], r15
    mov qword ptr [rsp + 24], rbp
    mov rdi, rbx
    mov rsi, qword ptr [r12 + {CTL_BLOCK_HOOK}]
    xor edx, edx
    mov ecx, 4
    mov r8, rsp
    movabs rax, {{tcg_gen_callN}}
    call rax
    {_free("r14", "r15", "rbp")}
    or word ptr [r13], 1
    mov rdi, rbx
    mov esi, {at.TCG_SET_LABEL}
    mov rdx, r13
    movabs rax, {{tcg_gen_op1}}
    call rax
    mov dword ptr [r12 + {CTL_IS_BEGUN}], 1
    mov eax, dword ptr [rsp + 32]
    mov dword ptr [rbx + {at.TRANSLATOR_OPERATIONS}], eax
    add rsp, 40
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
"""


# In place of the functions that translate an access to memory: RDI is the translator's context.
_ACCESS = f"""
    {CONTROL_OF_TRANSLATOR}
    push rbx
    mov rbx, r9
    mov dword ptr [rbx + {CTL_IN_ACCESS}], 1
    movabs rax, {{own}}
    call rax
    mov dword ptr [rbx + {CTL_IN_ACCESS}], 0
    pop rbx
    ret
plain:
    movabs rax, {{own}}
    jmp rax
"""
# In place of `check_exit_request`, by which the engine looks for a request to stop behind a hook on an instruction, and
# behind each access to memory. A load that can't be done leaves the block by itself; behind a store that isn't a plain
# one, `store_helpers` looks. Else the next block is soon enough. What isn't translated would be three operations.
_LOOK = f"""
    {CONTROL_OF_TRANSLATOR}
    cmp dword ptr [r9 + {CTL_IN_ACCESS}], 0
    je plain
    cmp qword ptr [r9 + {CTL_BLOCK_HOOK}], 0
    je plain
    mov r8, qword ptr [rdi + {at.TRANSLATOR_UC}]
    cmp byte ptr [r8 + {at.UC_NO_STOP}], 0
    jne plain
    add dword ptr [rdi + {at.TRANSLATOR_OPERATIONS}], 3
    ret
plain:
    movabs rax, {{own}}
    jmp rax
"""


@cache
def install() -> bool:
    """Take the entries' places, for the whole process and its life; False if that can't be done here."""
    accesses = _LOADS + (_STORES if store_helpers.install() else [])
    try:
        names = {name: at.address_of(f"{name}_x86_64") for name in _FUNCTIONS}
        names["load_code_byte"] = at.address_of("cpu_ldub_code_x86_64")
        names["lookup_block"] = at.address_of("helper_lookup_tb_ptr_x86_64")
    except AttributeError:
        return False
    names["helper_uc_tracecode"] = at.address_of("helper_uc_tracecode")
    names["trace"] = keep(TRACE, names)
    names["raise"] = keep(RAISE, names)
    return take({"tcg_gen_callN": _CALL, "check_exit_request": _LOOK} | dict.fromkeys(accesses, _ACCESS), names)
