"""Where things lie inside Unicorn 2.1.4's x86-64 Linux wheel: **the only file that knows that build's private layout.**

`self_check` refuses any other build; the portable way then takes over.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache
from typing import Any

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import uclib

from hvproto.processor.state import StateLayout

VERSION = "2.1.4"

# uc_struct -> CPUState -> CPUX86State ("env").
UC_CPU = 0x1B8
CPU_ENV = 0x128
CPU_HALTED = 33176
CPU_TLB_FILL = (0xA758, 0xA760)
"""The class's pointer to the page walk, and the engine's own copy of it for a change of its TLB mode."""
ENV_REGS = 0x00
ENV_EIP = 0x80
ENV_EFLAGS = 0x88
ENV_CC_OP = 168
ENV_SUMMARY = 0xB0
ENV_SEGMENTS = 0xB8
ENV_CS_SELECTOR = ENV_SEGMENTS + 24
ENV_SS_SELECTOR = ENV_SEGMENTS + 2 * 24
ENV_CS_BASE = ENV_SEGMENTS + 24 + 8
ENV_LDT_BASE = 328 + 8
ENV_TR_FLAGS = 352 + 20
ENV_GDT_BASE = 376 + 8
ENV_IDT_BASE = 400 + 8
ENV_IDT_LIMIT = 400 + 16
ENV_CR0 = 0x1A8
ENV_CR2 = 0x1B8
ENV_CR3 = 0x1C0
ENV_CR4 = 0x1C8
ENV_ERROR_CODE = 0x1508
ENV_DR7 = 5400 + 7 * 8
ENV_IS_SOFTWARE = 0x150C
ENV_OLD_EXCEPTION = 0x1578
ENV_END_RESET = 0x15C0
CONTEXT_HEADER = 0x28
SUPERVISOR_WALK = 2
"""The engine's index of supervisor accesses that SMAP doesn't restrict."""

LAYOUT = StateLayout(
    summary=ENV_SUMMARY,
    segments=ENV_SEGMENTS,
    error_code=ENV_ERROR_CODE,
    is_software=ENV_IS_SOFTWARE,
    old_exception=ENV_OLD_EXCEPTION,
)


def address_of(name: str) -> int:
    """The address of a function that the wheel exports. Raises AttributeError."""
    return ctypes.cast(getattr(uclib, name), ctypes.c_void_p).value or 0


def places(uc: Any) -> tuple[int, int]:
    """The addresses of an instance's CPUState and of its processor state."""
    cpu = ctypes.c_uint64.from_address(uc._uch.value + UC_CPU).value
    return cpu, ctypes.c_uint64.from_address(cpu + CPU_ENV).value


@cache
def self_check() -> str | None:
    """Why the native way can't be used here, or None if it can."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return f"it needs x86-64 Linux, this is {platform.machine()} {sys.platform}"
    if unicorn.__version__ != VERSION:
        return f"it is written for Unicorn {VERSION}, this is {unicorn.__version__}"
    try:
        walk = address_of("x86_cpu_tlb_fill_x86_64")
        address_of("x86_cpu_do_interrupt_x86_64")
    except AttributeError:
        return "this build of Unicorn does not export its interrupt delivery"
    uc = unicorn.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_64)
    uc.mem_map(0, 0x1000)
    size = uclib.uc_context_size(uc._uch)
    if size != CONTEXT_HEADER + ENV_END_RESET:
        return f"the processor state is {size} bytes long, not {CONTEXT_HEADER + ENV_END_RESET}"
    magic = 0x1BADCAFE_0DDBA115
    uc.reg_write(x86_const.UC_X86_REG_RSI, magic)
    uc.reg_write(x86_const.UC_X86_REG_RIP, magic ^ 0xFFFF)
    cpu, env = places(uc)
    if ctypes.c_uint64.from_address(env + ENV_REGS + 6 * 8).value != magic:
        return "a magic value written to RSI isn't where it should be"
    if ctypes.c_uint64.from_address(env + ENV_EIP).value != magic ^ 0xFFFF:
        return "a magic value written to RIP isn't where it should be"
    if ctypes.c_uint64.from_address(cpu + CPU_TLB_FILL[0]).value != walk:
        return "the engine's page walk isn't where it should be"
    return None
