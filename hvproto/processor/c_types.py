"""The C types of Unicorn's public interface that the engine uses directly, past the binding."""

from __future__ import annotations

import ctypes
from typing import Any

from unicorn import unicorn_const as uc_const
from unicorn import x86_const


class Mmr(ctypes.Structure):
    """The public ``uc_x86_mmr``."""

    _fields_ = (
        ("selector", ctypes.c_uint16),
        ("base", ctypes.c_uint64),
        ("limit", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


class Block(ctypes.Structure):
    """The public ``uc_tb``."""

    _fields_ = (("pc", ctypes.c_uint64), ("icount", ctypes.c_uint16), ("size", ctypes.c_uint16))


class Msr(ctypes.Structure):
    """The public ``uc_x86_msr``."""

    _fields_ = (("rid", ctypes.c_uint32), ("value", ctypes.c_uint64))


_UC = ctypes.c_void_p
_CODE = ctypes.CFUNCTYPE(None, _UC, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)
_MEMORY = ctypes.CFUNCTYPE(
    ctypes.c_bool, _UC, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
)
MMIO_READ = ctypes.CFUNCTYPE(ctypes.c_uint64, _UC, ctypes.c_uint64, ctypes.c_uint, ctypes.c_void_p)
MMIO_WRITE = ctypes.CFUNCTYPE(None, _UC, ctypes.c_uint64, ctypes.c_uint, ctypes.c_uint64, ctypes.c_void_p)
CALLBACKS: dict[int, Any] = {
    uc_const.UC_HOOK_CODE: _CODE,
    uc_const.UC_HOOK_BLOCK: _CODE,
    uc_const.UC_HOOK_EDGE_GENERATED: ctypes.CFUNCTYPE(
        None, _UC, ctypes.POINTER(Block), ctypes.POINTER(Block), ctypes.c_void_p
    ),
    uc_const.UC_HOOK_INTR: ctypes.CFUNCTYPE(None, _UC, ctypes.c_uint32, ctypes.c_void_p),
    uc_const.UC_HOOK_INSN_INVALID: ctypes.CFUNCTYPE(ctypes.c_bool, _UC, ctypes.c_void_p),
    uc_const.UC_HOOK_MEM_WRITE_PROT: _MEMORY,
    uc_const.UC_HOOK_MEM_READ_UNMAPPED: _MEMORY,
    x86_const.UC_X86_INS_SYSCALL: ctypes.CFUNCTYPE(None, _UC, ctypes.c_void_p),
    x86_const.UC_X86_INS_SYSENTER: ctypes.CFUNCTYPE(None, _UC, ctypes.c_void_p),
    x86_const.UC_X86_INS_IN: ctypes.CFUNCTYPE(ctypes.c_uint32, _UC, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p),
    x86_const.UC_X86_INS_OUT: ctypes.CFUNCTYPE(
        None, _UC, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p
    ),
}
"""The C types of Unicorn's callbacks, by hook or, of instruction hooks, by instruction."""
