"""The processor that this process runs on: pages mapped as the layout has them, and cases run one after the other.

For a process of its own: it takes over the signals that exceptions lead to. See `run`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

from tools.real_cpu import trampoline
from tools.real_cpu.case import EFLAGS, REGISTERS, Case
from tools.real_cpu.layout import LDT_ENTRIES, PAGE, PAGES, USER_CODE32, USER_CODE64, USER_DATA, LdtEntry, Rights
from tools.real_cpu.report import Report, changes, first_contents
from tools.real_cpu.signal_frame import GREG_COUNT, install_handler, libc, parse_gregs

_PROT = {Rights.READ: 1, Rights.WRITE: 2, Rights.EXECUTE: 4}
_MAP_PRIVATE, _MAP_ANONYMOUS, _MAP_POPULATE, _MAP_FIXED_NOREPLACE = 0x02, 0x20, 0x8000, 0x10_0000
_SYS_MODIFY_LDT, _WRITE_LDT = 154, 0x11

libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def unavailable() -> str | None:
    """Why there is no real processor to be asked here; None if there is."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return "needs 64-bit Linux on x86-64"
    return None


class RealProcessor:
    """Ring 3 of the real processor."""

    def __init__(self) -> None:
        reason = unavailable()
        if reason:
            raise OSError(reason)
        code, symbols = trampoline.assembled()
        for address, size in (
            (trampoline.CONTEXT, PAGE),
            (trampoline.CODE, PAGE),
            (trampoline.HANDLER_STACK, trampoline.HANDLER_STACK_SIZE),
        ):
            _map(address, size)
        ctypes.memmove(trampoline.CODE, code, len(code))
        _protect(trampoline.CODE, Rights.READ | Rights.EXECUTE)
        install_handler(symbols["handler"], trampoline.HANDLER_STACK, trampoline.HANDLER_STACK_SIZE)
        # CS, GS, FS and SS as the signal frame has them.
        _write(trampoline.OWN_SEGMENTS, struct.pack("<4H", USER_CODE64, 0, 0, USER_DATA))
        self._enter = ctypes.CFUNCTYPE(None)(symbols["enter"])
        for address in PAGES:
            _map(address, PAGE)
        for index, entry in enumerate(LDT_ENTRIES.values()):
            _set_ldt(index, entry)

    def run(self, case: Case) -> Report:
        """Run a case until an exception ends it."""
        contents = first_contents(case)
        for address, data in contents.items():
            _protect(address, Rights.READ | Rights.WRITE)
            _write(address, data)
            _protect(address, PAGES[address])
        first = case.first_registers
        narrow = case.bits == 32
        _write(trampoline.DATA_SELECTOR, struct.pack("<Q", USER_DATA if narrow else 0))
        selector = USER_CODE32 if narrow else USER_CODE64
        rsp = first[REGISTERS.index("rsp")]
        _write(trampoline.FRAME, struct.pack("<5Q", case.origin, selector, EFLAGS | case.eflags, rsp, USER_DATA))
        _write(trampoline.FIRST, struct.pack("<16Q", *first))
        self._enter()
        return _report(contents)


def _report(contents: dict[int, bytes]) -> Report:
    found = parse_gregs(ctypes.string_at(trampoline.SAVED, 8 * GREG_COUNT))
    memory = changes(contents, lambda page: ctypes.string_at(page, PAGE))
    segments = found["segments"]
    frame = (found["rip"], segments & 0xFFFF, segments >> 48, found["rflags"])
    registers = [found[name] for name in REGISTERS]
    return Report.of(found["vector"], found["error"], found["cr2"], frame, registers, memory)


def _map(address: int, size: int) -> None:
    """Fresh memory at exactly this address, present at once.

    A write to a read-only page that isn't there yet would have another error code.
    """
    flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_POPULATE | _MAP_FIXED_NOREPLACE
    if libc.mmap(address, size, 3, flags, -1, 0) != address:
        raise OSError(ctypes.get_errno(), f"{os.strerror(ctypes.get_errno())}: no memory at {address:#x}")


def _protect(address: int, rights: Rights) -> None:
    if libc.mprotect(address, PAGE, sum(bit for right, bit in _PROT.items() if right in rights)):
        raise OSError(ctypes.get_errno(), f"mprotect of {address:#x}")


def _write(address: int, data: bytes) -> None:
    ctypes.memmove(address, data, len(data))


def _set_ldt(index: int, entry: LdtEntry) -> None:
    """An entry of the local descriptor table by modify_ldt(2)."""
    flags = entry.wide | entry.contents << 1 | entry.restricted << 3 | entry.pages << 4 | (not entry.present) << 5
    description = struct.pack("<4I", index, entry.base, entry.limit, flags)
    if libc.syscall(_SYS_MODIFY_LDT, _WRITE_LDT, description, len(description)):
        raise OSError(ctypes.get_errno(), "no modify_ldt(2) in this kernel")
