"""Far transfers of a deprivileged guest: IRET, far CALL, far RET, and loads of CS and SS (SDM vol. 3, 5.8).

32-bit protected mode. What isn't built (call gates, task switches, virtual-8086 mode) raises
NotBuilt, which the exits turn into a named error.
"""

from __future__ import annotations

from hvproto.hypervisor.not_built import NotBuilt
from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.processor.exceptions import Raised, load_descriptor
from hvproto.processor.segments import RPL_MASK, TABLE_INDICATOR, TSS32_BUSY, Segment
from hvproto.processor.settings import (
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_NT,
    EFLAGS_RF,
    EFLAGS_VIF,
    EFLAGS_VIP,
    EFLAGS_VM,
)

TSS16_BUSY = 0x3


def checked_code(cpu: VirtualCpu, selector: int, level: int, *, returning: bool) -> Segment:
    """The code segment that a transfer to ``selector`` at privilege ``level`` loads. Raises `Raised`."""
    code = load_descriptor(cpu, selector)
    error = selector & ~RPL_MASK
    if not code.is_code:
        if code.is_system and not returning and code.present:
            raise NotBuilt(f"a far transfer through a system descriptor of type {code.system_type:#x}")
        raise Raised(13, error)
    fits = code.dpl <= level if code.is_conforming else code.dpl == level and (returning or code.rpl <= level)
    if not fits:
        raise Raised(13, error)
    if not code.present:
        raise Raised(11, error)
    return code


def checked_stack(cpu: VirtualCpu, selector: int, level: int) -> Segment:
    """The stack segment for privilege ``level``. Raises `Raised`."""
    stack = load_descriptor(cpu, selector)
    error = selector & ~RPL_MASK
    if stack.rpl != level or stack.dpl != level or not stack.is_writable_data:
        raise Raised(13, error)
    if not stack.present:
        raise Raised(12, error)
    return stack


def load_stack(cpu: VirtualCpu, selector: int) -> None:
    """MOV SS, POP SS, LSS."""
    stack = checked_stack(cpu, selector, cpu.cpl)
    cpu.load_stack(stack)
    cpu.shadow = True


def call(cpu: VirtualCpu, selector: int, offset: int, return_eip: int, size: int) -> None:
    """A far CALL within the privilege level; operands of ``size`` bytes."""
    code = checked_code(cpu, selector, cpu.cpl, returning=False)
    before = cpu.esp
    try:
        cpu.push(cpu.code.selector, size)
        cpu.push(return_eip, size)
    except Raised:
        cpu.esp = before
        raise
    _go(cpu, code, offset)


def jump(cpu: VirtualCpu, selector: int, offset: int) -> None:
    """A far JMP within the privilege level."""
    _go(cpu, checked_code(cpu, selector, cpu.cpl, returning=False), offset)


def _go(cpu: VirtualCpu, code: Segment, offset: int) -> None:
    cpu.load_code(code.with_selector(code.selector & ~RPL_MASK | cpu.cpl))
    cpu.eip = offset & 0xFFFF_FFFF


def far_return(cpu: VirtualCpu, release: int, size: int) -> None:
    """A far RET, to the same or an outer level; ``release`` bytes of parameters go too."""
    before = cpu.esp
    try:
        offset = cpu.pop(size)
        selector = cpu.pop(size) & 0xFFFF
        cpu.esp = cpu.esp + release & 0xFFFF_FFFF
        _return_to(cpu, selector, offset, size, release)
    except Raised:
        cpu.esp = before
        raise


def interrupt_return(cpu: VirtualCpu, size: int) -> None:
    """IRET(D)."""
    if cpu.eflags & EFLAGS_NT:
        _return_from_task(cpu)
    before = cpu.esp
    level = cpu.cpl
    try:
        offset = cpu.pop(size)
        selector = cpu.pop(size) & 0xFFFF
        flags = cpu.pop(size)
        if size == 4 and flags & EFLAGS_VM and level == 0:
            raise NotBuilt("IRET to virtual-8086 mode")
        _return_to(cpu, selector, offset, size, 0)
    except Raised:
        cpu.esp = before
        raise
    load_flags(cpu, flags, size, level)


def _return_from_task(cpu: VirtualCpu) -> None:
    """IRET with NT set: the back link of the current TSS must name a busy one (SDM vol. 3, 8.4)."""
    link = cpu.read(cpu.tr.base, 2)
    if link & TABLE_INDICATOR:
        raise Raised(10, link & ~RPL_MASK)
    task = load_descriptor(cpu, link, vector=10)
    if not task.is_system or task.system_type not in (TSS16_BUSY, TSS32_BUSY):
        raise Raised(10, link & ~RPL_MASK)
    raise NotBuilt("IRET with EFLAGS.NT set (a return from a nested task)")


def _return_to(cpu: VirtualCpu, selector: int, offset: int, size: int, release: int) -> None:
    level = selector & RPL_MASK
    if level < cpu.cpl:
        raise Raised(13, selector & ~RPL_MASK)
    code = checked_code(cpu, selector, level, returning=True)
    if level > cpu.cpl:
        new_esp = cpu.pop(size)
        stack_selector = cpu.pop(size) & 0xFFFF
        stack = checked_stack(cpu, stack_selector, level)
        cpu.mark_accessed(code)
        cpu.load_stack(stack)
        cpu.esp = new_esp + release & 0xFFFF_FFFF
        cpu.cpl = level
        cpu.drop_inner_segments()
    _go(cpu, code, offset)


def load_flags(cpu: VirtualCpu, value: int, size: int, level: int) -> None:
    """What POPF or IRET at privilege ``level`` makes of EFLAGS (SDM vol. 2, POPF)."""
    if size == 2:
        value = cpu.eflags & 0xFFFF_0000 | value & 0xFFFF
    keep = EFLAGS_VM | EFLAGS_VIF | EFLAGS_VIP
    if level > 0:
        keep |= EFLAGS_IOPL
    if level > cpu.iopl:
        keep |= EFLAGS_IF
    new = cpu.eflags & keep | value & ~keep
    cpu.eflags = new & ~EFLAGS_RF & 0x003F_7FD7 | 2
