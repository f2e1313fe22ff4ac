"""Instructions that are done here instead of by the engine, which gets them wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from capstone import x86_const as cs

from hvproto.processor import far_transfers
from hvproto.processor.exceptions import push_all
from hvproto.processor.instruction import Instruction
from hvproto.processor.settings import EFLAGS_IOPL, EFLAGS_RF, EFLAGS_VM

if TYPE_CHECKING:
    from hvproto.processor.processor import Processor


def replacement(processor: Processor, instruction: Instruction) -> Callable[[], None] | None:
    """What to do instead of the instruction at EIP, or None if the engine is to execute it.

    What is done raises `Raised` for the instruction's fault; nothing has changed then, unless it is ``committed``.
    """
    if instruction.id == cs.X86_INS_PUSHFD:
        allowed = processor.eflags & (EFLAGS_VM | EFLAGS_IOPL) == EFLAGS_VM | EFLAGS_IOPL
        return partial(_pushfd, processor, instruction) if allowed else None
    return far_transfers.replacement(processor, instruction)


def _pushfd(processor: Processor, instruction: Instruction) -> None:
    """In virtual-8086 mode at IOPL 3. VM and RF are clear in what is pushed (SDM vol. 2, PUSHF)."""
    target = processor.target()
    flags = target.eflags & ~(EFLAGS_VM | EFLAGS_RF)
    processor.esp = push_all(target, target.stack, target.esp, [flags], 4, user=True)
    processor.eip += instruction.size
