"""An external interrupt, delivered between two runs of the engine by the fast path, in assembly.

Python's own delivery takes some 100 us, this one takes one. It raises nothing and asks the engine for nothing that may
fault: where the engine's TLB doesn't hold a page that it needs, nothing has happened, and Python delivers.
"""

from __future__ import annotations

from hvproto.processor.control_block import (
    CTL_ENV,
)
from hvproto.processor.fast_delivery import FAST_DELIVERY, RESTORE, SAVE

# A function: RDI is the control block, with the vector in it; EAX becomes whether it has been delivered.
FROM_OUTSIDE = f"""
    {SAVE}
    mov rbx, rdi
    mov r12, qword ptr [rbx + {CTL_ENV}]
    {FAST_DELIVERY}
slow:
    xor eax, eax
    jmp return
delivered:
    mov eax, 1
return:
    {RESTORE}
    ret
"""
