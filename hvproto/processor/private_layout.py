"""Where things lie inside Unicorn 2.1.4's x86-64 Linux wheel: **the only file that knows that build's private layout.**

`self_check` refuses any other build; the portable way then takes over.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from functools import cache
from typing import Any

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import uclib

from hvproto.processor.settings import EFER_MSR, EFLAGS_DF
from hvproto.processor.state import StateLayout

VERSION = "2.1.4"

# uc_struct -> CPUState -> CPUX86State ("env").
UC_CPU = 0x1B8
UC_TRANSLATOR = 0x300
UC_STOP_REQUEST = 0x56D
UC_STORE_HOOKS = 0x448
"""The first hook on all stores, or 0."""
UC_NO_STOP = 0x7F2
"""Of Unicorn's instance: set while no access to memory is to be followed by a look for a request to stop."""
CODE_HOOKS = 2
HOOK_IS_DELETED, HOOK_BEGIN, HOOK_CALLBACK, HOOK_DATA = 0x14, 0x18, 0x28, 0x30
UC_CODE_HOOKS = 0x370
"""The head of its list of them, and behind it the tail."""
"""The engine's number for hooks on code."""
CPU_ENV = 0x128
CPU_HALTED = 33176
CPU_TLB_FILL = (0xA758, 0xA760)
"""The class's pointer to the page walk, and the engine's own copy of it for a change of its TLB mode."""
STATE_IN_CPU = 0x8A50
"""Where the state lies in CPUState, which is found from it ..."""
ENV_TLB_FILL = CPU_TLB_FILL[0] - STATE_IN_CPU
ENV_UC = 0x1B58
"""... as is the uc_struct."""
ENV_STOP_REQUEST = -0x10
"""Of the state: negative if somebody has asked the engine to stop at the next block."""
TRANSLATOR_LAST_OPERATION, OPERATION_LINK = 0x7390, 0x08
"""Where the translator's context has the last operation (by way of its link)."""
CALLED_WITH_2, CALLED_WITH_4 = 0x28, 0x38
"""Where a call of a function with so many arguments and no result has the function."""
TRANSLATOR_UC, TRANSLATOR_ENV, TRANSLATOR_OPERATIONS = 0x9970, 0x388, 0x38
"""Of the translator's context: the instance, the temporary that stands for the state, the number of operations."""
TRANSLATOR_FIRST_OPERATION, OPERATION_ARGUMENTS = 0x7388, 0x18
"""... and where it has the first one, and an operation its arguments."""
TCG_SET_LABEL, TCG_MOVI_I32, TCG_ST_I32 = 0x01, 0x06, 0x10
TCG_MOVI_I64, TCG_SETCOND_I64, TCG_LD32U_I64, TCG_LD32S_I64, TCG_LD_I64, TCG_ST_I64 = 0x40, 0x41, 0x47, 0x48, 0x49, 0x4D
TCG_ADD_I64, TCG_SUB_I64, TCG_OR_I64, TCG_EXTU_I32_I64 = 0x4E, 0x4F, 0x58, 0x64
"""Operations of the translator's intermediate code."""
TCG_INSN_START = 0x81
"""... and the mark where an instruction's operations begin: its first argument is the linear address."""
TCG_LESS, TCG_EQUAL = 2, 8
"""... and its comparisons, of which the first is signed."""
BLOCK_BYTES, BLOCK_OPTIONS, BLOCK_LENGTH_MASK = 0x14, 0x18, 0x7FFF
"""Of a translated block: its size; and among its options, how many instructions it was to have, 0 if as many as there
are. One that is to have one is the instruction that has overwritten its own block, once more."""
ENV_NUMBER, ENV_REPEATING = -0x0C, -0x08
"""Before the state, 4 and 8 bytes that align it and that the engine has no use for: ours, see `instruction_count`."""
ENV_REGS = 0x00
ENV_EIP = 0x80
ENV_EFLAGS = 0x88
ENV_ESP = 4 * 8
ENV_CC_DST = 144
ENV_CC_SRC = 152
ENV_CC_SRC2 = 160
ENV_CC_OP = 168
ENV_DF = 172
ENV_SUMMARY = 0xB0
ENV_SEGMENTS = 0xB8
ENV_ES_BASE = ENV_SEGMENTS + 8
ENV_CS_SELECTOR = ENV_SEGMENTS + 24
ENV_CS_BASE = ENV_CS_SELECTOR + 8
ENV_CS_LIMIT = ENV_CS_SELECTOR + 16
ENV_CS_FLAGS = ENV_CS_SELECTOR + 20
ENV_SS_SELECTOR = ENV_SEGMENTS + 2 * 24
ENV_SS_BASE = ENV_SS_SELECTOR + 8
ENV_SS_LIMIT = ENV_SS_SELECTOR + 16
ENV_SS_FLAGS = ENV_SS_SELECTOR + 20
ENV_DS_BASE = ENV_SEGMENTS + 3 * 24 + 8
ENV_LDT_BASE = 328 + 8
ENV_TR_BASE = 352 + 8
ENV_TR_LIMIT = 352 + 16
ENV_TR_FLAGS = 352 + 20
ENV_GDT_BASE = 376 + 8
ENV_GDT_LIMIT = 376 + 16
ENV_IDT_BASE = 400 + 8
ENV_IDT_LIMIT = 400 + 16
ENV_CR0 = 0x1A8
ENV_CR2 = 0x1B8
ENV_CR3 = 0x1C0
ENV_CR4 = 0x1C8
ENV_EFER = 592
ENV_ERROR_CODE = 0x1508
ENV_DR7 = 5400 + 7 * 8
ENV_IS_SOFTWARE = 0x150C
ENV_OLD_EXCEPTION = 0x1578
ENV_END_RESET = 0x15C0
CONTEXT_HEADER = 0x28
SUPERVISOR_WALK, USER_WALK = 2, 1
"""The engine's index of supervisor accesses that SMAP doesn't restrict, and of a program's."""

SUMMARY_SMAP = 1 << 23

# The engine's TLB lies before the state: here, for supervisor accesses. (linear >> shift) & mask is an entry's offset.
ENV_TLB_RAM = -0x50
"""A table of 16 bytes an entry that begin with what makes of a linear address a place in its numbering of RAM."""
ENV_TLB_MASKS, ENV_TLB_TABLES, TLB_DESCRIPTION_SHIFT = -0x40, -0x38, 4
"""The first TLB's, and how far they are from the next one's."""
ENV_TLB_MASK = ENV_TLB_MASKS + (SUPERVISOR_WALK << TLB_DESCRIPTION_SHIFT)
ENV_TLB_TABLE = ENV_TLB_TABLES + (SUPERVISOR_WALK << TLB_DESCRIPTION_SHIFT)
TLB_ENTRY_SHIFT = 6
TLB_INDEX_SHIFT = 12 - TLB_ENTRY_SHIFT
TLB_READ = 0x00
TLB_WRITE = 0x08
"""Of an entry: the linear address of the page, with bits set below it if an access isn't a plain one."""
TLB_CODE = 0x10
"""... the same for fetches: `TLB_ABSENT` if there are none, and stores then have the engine take code for absent."""
TLB_ABSENT, TLB_NEVER = -1, -2
"""... and what is no page's either, but keeps the engine looking for code."""
TLB_PHYSICAL = 0x18
"""... the physical address of the page."""
TLB_ADDEND = 0x20
"""... and what makes of a linear address one in our memory."""
TLB_DISCARD = 1 << 6
"""Of TLB_WRITE: as of a ROM, a store is shown to the hooks and then dropped."""
TLB_NOTDIRTY = 1 << 10
"""Of TLB_WRITE: a plain access, but there may be translated code."""

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
        for name in (
            "x86_cpu_do_interrupt", "tb_invalidate_phys_page_fast", "tlb_reset_dirty", "tlb_flush_page",
            "helper_cc_compute_all",
        ):  # fmt: skip
            address_of(f"{name}_x86_64")
    except AttributeError:
        return "this build of Unicorn does not export its interrupt delivery"
    ram = mmap.mmap(-1, 2 * _PAGE)
    host = ctypes.addressof(ctypes.c_char.from_buffer(ram))
    uc = unicorn.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_64)
    uc.mem_map_ptr(_PAGE, len(ram), uc_const.UC_PROT_ALL, host)
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
    if env != cpu + STATE_IN_CPU or ctypes.c_uint64.from_address(env + ENV_TLB_FILL).value != walk:
        return "the engine's page walk isn't where it should be"
    store_hooks = ctypes.c_uint64.from_address(uc._uch.value + UC_STORE_HOOKS)
    if ctypes.c_uint64.from_address(env + ENV_UC).value != uc._uch.value or store_hooks.value:
        return "the instance isn't where it should be"
    hook = uc.hook_add(uc_const.UC_HOOK_MEM_WRITE, lambda *_: None)
    if not store_hooks.value:
        return "hooks on stores aren't where they should be"
    uc.hook_del(hook)
    names = (x86_const.UC_X86_REG_CR0, x86_const.UC_X86_REG_CR4)
    efer = uc.msr_read(EFER_MSR)  # long mode's, from the constructor
    if [ctypes.c_uint64.from_address(env + place).value for place in (ENV_CR0, ENV_CR4, ENV_EFER)] != [
        *(uc.reg_read(name) for name in names),
        efer,
    ] or not efer:
        return "the control registers aren't where they should be"
    uc.emu_stop()
    if ctypes.c_int32.from_address(env + ENV_STOP_REQUEST).value >= 0:
        return "a request to stop isn't where it should be"
    translator = ctypes.c_uint64.from_address(uc._uch.value + UC_TRANSLATOR).value
    if ctypes.c_uint64.from_address(translator + TRANSLATOR_UC).value != uc._uch.value:
        return "the translator's context isn't where it should be"
    return _check_tlb(uc, host)


_PAGE = 0x1000
_PROBE = b"\x8a\x06\x88\x06\xfd\x38\xe0\xf4"
"""mov al, [rsi]; mov [rsi], al; std; cmp al, ah; hlt"""


def _check_tlb(uc: Any, host: int) -> str | None:
    """Whether what the fast delivery and the fast stores need is where it should be: the TLB, and the parts of EFLAGS.

    The probe's code is on the first page and its data on the second.
    """
    data = 2 * _PAGE
    words = (ctypes.c_uint32 * 3).from_address(places(uc)[1] + ENV_NUMBER)
    words[:] = [1, 2, 3]
    uc.mem_write(_PAGE, _PROBE)
    uc.reg_write(x86_const.UC_X86_REG_RSI, data)
    uc.reg_write(x86_const.UC_X86_REG_RAX, 0x100)  # 0 - 1: CF, PF, AF and SF
    uc.emu_start(_PAGE, 0)
    _, env = places(uc)
    read = ctypes.c_uint64.from_address
    if list(words) != [1, 2, 3]:
        return "the words before the processor state aren't free"
    index = data >> TLB_INDEX_SHIFT & read(env + ENV_TLB_MASK).value
    entry = read(env + ENV_TLB_TABLE).value + index
    in_ram = read(env + ENV_TLB_RAM).value + (index >> TLB_ENTRY_SHIFT - 4)
    fields = (TLB_READ, TLB_WRITE, TLB_CODE, TLB_PHYSICAL, TLB_ADDEND)
    found = [read(entry + field).value for field in fields] + [read(in_ram).value]
    if found != [data, data | TLB_NOTDIRTY, data, data, host - _PAGE, -_PAGE & (1 << 64) - 1]:
        return "the engine's TLB isn't what it should be"
    operands = [read(env + field) for field in (ENV_CC_DST, ENV_CC_SRC, ENV_CC_SRC2)]
    operation = ctypes.c_int.from_address(env + ENV_CC_OP)
    compute = uclib.helper_cc_compute_all_x86_64
    flags = compute(*operands, operation) | ctypes.c_int.from_address(env + ENV_DF).value & EFLAGS_DF
    if flags != 0x95 | EFLAGS_DF:
        return "the engine's flags aren't where they should be"
    return None
