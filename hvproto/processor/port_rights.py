"""Whether a port may be accessed: by IOPL, or by the I/O permission bitmap of the TSS (SDM vol. 1, 19.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvproto.processor.segments import TSS32_AVAILABLE, TSS32_BUSY
from hvproto.processor.settings import CR0_PE, EFLAGS_IOPL, EFLAGS_VM, Setting

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu

_TSS_IO_MAP_BASE = 0x66


def port_allowed(cpu: Cpu, port: int, size: int) -> bool:
    """Whether an access of ``size`` bytes is allowed now. Raises `Raised` if reading the bitmap faults."""
    if not cpu.control(Setting.CR0) & CR0_PE:
        return True
    eflags = cpu.eflags
    if not eflags & EFLAGS_VM and cpu.cpl <= (eflags & EFLAGS_IOPL) >> 12:
        return True
    tr = cpu.tr
    if tr.system_type not in (TSS32_AVAILABLE, TSS32_BUSY) or tr.limit < _TSS_IO_MAP_BASE + 1:
        return False
    at = cpu.read(cpu.wrapped(tr.base + _TSS_IO_MAP_BASE), 2) + port // 8
    if at + 1 > tr.limit:
        return False
    bits = cpu.read(cpu.wrapped(tr.base + at), 2) >> (port & 7)
    return not bits & ((1 << size) - 1)
