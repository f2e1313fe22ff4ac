"""Machine code of ours in the place of functions of the engine's library, which all instances in the process share.

What isn't of an engine of ours it leaves to the function: such an engine has a mark before its page walk (MARK).
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cache

from hvproto.processor import private_layout as at
from hvproto.processor.control_block import MARK
from hvproto.processor.executable_memory import ExecutableMemory
from hvproto.processor.library_table import slot_of


def _find_control(page_walk: str) -> str:
    return f"""
    {page_walk}
    movabs r10, {MARK}
    cmp qword ptr [r9 - 8], r10
    jne plain
    mov r9, qword ptr [r9 - 16]
"""


CONTROL_OF_CPU = _find_control(f"mov r9, qword ptr [rdi + {at.CPU_TLB_FILL[0]}]")
"""R9: the control block of the engine whose CPUState RDI is, or to ``plain`` if it isn't one of ours; R10 is lost."""
CONTROL_OF_STATE = _find_control(f"mov r9, qword ptr [rdi + {at.ENV_TLB_FILL}]")
"""... whose processor state RDI is."""
CONTROL_OF_TRANSLATOR = _find_control(f"""
    mov r9, qword ptr [rdi + {at.TRANSLATOR_UC}]
    mov r9, qword ptr [r9 + {at.UC_CPU}]
    mov r9, qword ptr [r9 + {at.CPU_TLB_FILL[0]}]
""")
"""... whose translator's context RDI is."""


@cache
def _memory() -> ExecutableMemory:
    """It is never given back: the places stay taken."""
    return ExecutableMemory()


def keep(source: str, names: Mapping[str, int | str]) -> int:
    """Assemble machine code for the life of the process; returns its address."""
    return _memory().add(source, names)


def take(sources: Mapping[str, str], names: Mapping[str, int]) -> bool:
    """Take the places of functions, by their names without the target's, for the whole process and its life.

    ``names`` are the numbers in the sources; ``{own}`` is the function itself. False, and nothing done, if one of them
    isn't called through the library's table.
    """
    slots = {name: slot_of(f"{name}_x86_64") for name in sources}
    if None in slots.values():
        return False
    for name, slot in slots.items():
        place = keep(sources[name], {**names, "own": at.address_of(f"{name}_x86_64")})
        ctypes.c_uint64.from_address(slot or 0).value = place
    return True
