"""Behind the engine's page walk: which stores have to look for translated code.

The engine has a store look for translations, at 60 ns instead of 4, on every page that may be executed; with tables
that know no NX, or without paging, that is all of RAM. Here it is only the pages that code was ever fetched from: any
other page gets an entry in the engine's TLB whose stores are plain, and that can't be fetched through. So the first
fetch comes here, marks the page, and has all entries for it look from now on.

And which stores have to be heard of: RAM is mapped without the right to write, which the engine looks at only off its
fast path. The pages that are protected get entries like those of a ROM: whoever hears of a store does it. To change the
rights of single pages would have the engine split its map of memory, at up to 4 ms a piece, and forget the protection
of their neighbours.
"""

from __future__ import annotations

from hvproto.addresses import PAGE_SIZE
from hvproto.processor import private_layout as at
from hvproto.processor.control_block import CTL_CODE_PAGES, CTL_ENV, CTL_PROTECTED, CTL_RAM, CTL_RAM_SIZE

_FETCH = 2
"""The engine's number for an access that fetches code."""

# As the walk, with its arguments: RDI the processor, RSI the linear address, ECX the access, R8D which TLB, one on the
# stack. A walk that faults doesn't come back from the call.
WALK_AND_MARK = f"""
    push rbp
    push r12
    push r13
    push r14
    mov ebp, ecx
    mov r12, rdi
    mov r13, rsi
    mov r14d, r8d
    push qword ptr [rsp + 40]
    movabs rax, {{page_walk}}
    call rax
    add rsp, 8
    test al, al
    jz walked
    movabs r10, {{control}}
    mov r11, qword ptr [r10 + {CTL_ENV}]
    mov ecx, r14d
    shl ecx, {at.TLB_DESCRIPTION_SHIFT}
    mov rdx, r13
    shr rdx, {at.TLB_INDEX_SHIFT}
    and rdx, qword ptr [r11 + rcx + {at.ENV_TLB_MASKS}]
    add rdx, qword ptr [r11 + rcx + {at.ENV_TLB_TABLES}]
    mov rcx, qword ptr [rdx + {at.TLB_PHYSICAL}]
    cmp rcx, qword ptr [r10 + {CTL_RAM_SIZE}]
    jae walked
    shr rcx, 12
    mov rax, qword ptr [r10 + {CTL_PROTECTED}]
    cmp byte ptr [rax + rcx], 0
    je open
    cmp qword ptr [rdx + {at.TLB_WRITE}], {at.TLB_ABSENT}
    je open
    or qword ptr [rdx + {at.TLB_WRITE}], {at.TLB_DISCARD}
open:
    add rcx, qword ptr [r10 + {CTL_CODE_PAGES}]
    cmp ebp, {_FETCH}
    je fetched
    cmp byte ptr [rcx], 0
    jne has_code
    mov qword ptr [rdx + {at.TLB_CODE}], {at.TLB_NEVER}
    mov rcx, qword ptr [rdx + {at.TLB_WRITE}]
    mov eax, ecx
    and eax, {PAGE_SIZE - 1}
    cmp eax, {at.TLB_NOTDIRTY}
    jne done
    xor rcx, {at.TLB_NOTDIRTY}
    mov qword ptr [rdx + {at.TLB_WRITE}], rcx
    jmp done
has_code:
    cmp qword ptr [rdx + {at.TLB_CODE}], {at.TLB_ABSENT}
    jne done
    mov qword ptr [rdx + {at.TLB_CODE}], {at.TLB_NEVER}
    jmp done
fetched:
    cmp byte ptr [rcx], 0
    jne done
    mov byte ptr [rcx], 1
    mov rsi, qword ptr [rdx + {at.TLB_PHYSICAL}]
    add rsi, qword ptr [r10 + {CTL_RAM}]
    mov rdi, r12
    mov edx, {PAGE_SIZE}
    movabs rax, {{reset_dirty}}
    sub rsp, 8
    call rax
    add rsp, 8
done:
    mov eax, 1
walked:
    pop r14
    pop r13
    pop r12
    pop rbp
    ret
"""
