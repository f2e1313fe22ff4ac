"""What a process of a host can't be to a guest: the limits of figure 1's layering, by name."""

from __future__ import annotations

from hvproto.hypervisor.process_cpu import ProcessCpu
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import (
    DR7_ENABLED,
    EFER_LME,
    EFER_NXE,
    EFLAGS_VM,
    Setting,
)

RPL_MASK = 3


def what_is_missing(cpu: ProcessCpu) -> str | None:
    """What this state of a guest's processor needs and a 32-bit program has not; None if it can go on."""
    if not cpu.is_protected:
        return "the guest can't be in real mode: a process of the host is in protected mode"
    if cpu.eflags & EFLAGS_VM:
        return "the guest can't be in virtual-8086 mode: the host gives its processes none"
    efer = cpu.control(Setting.EFER)
    if efer & EFER_LME:
        return "the guest can't be in long mode: the host is a 32-bit system"
    if efer & EFER_NXE:
        return "the guest can't have pages that aren't to be executed: the host's page tables have no such bit"
    if cpu.debug_register(7) & DR7_ENABLED:
        return "the guest can't have breakpoints: debug registers are the host's"
    return _segment_missing(cpu)


def _segment_missing(cpu: ProcessCpu) -> str | None:
    """A process has flat segments. One that the guest has loaded with a null selector is taken for flat, too."""
    if not cpu.code.is_32bit:
        return "the guest can't execute 16-bit code: the host's code segment for programs has 32 bits"
    for register in SegmentRegister:
        segment = cpu.segment(register)
        if segment.selector & ~RPL_MASK and segment.base:
            return f"the guest's {register.name} can't begin at {segment.base:#x}: segments of a process begin at 0"
    return None
