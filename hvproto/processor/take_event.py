"""An event taken: delivered, and the processor at the beginning of its handler (SDM vol. 3, 6.12)."""

from __future__ import annotations

from dataclasses import replace

from hvproto.processor import far_code
from hvproto.processor.cpu import Cpu
from hvproto.processor.delivery import deliver
from hvproto.processor.engine import PendingException
from hvproto.processor.exceptions import DEBUG_VECTOR, Delivered, Event, Source, exception_source
from hvproto.processor.segments import NULL_SEGMENT, SegmentRegister
from hvproto.processor.settings import DR7_GD, EFLAGS_VM

_V86_FRAME = (SegmentRegister.GS, SegmentRegister.FS, SegmentRegister.DS, SegmentRegister.ES)
"""What an interrupt of virtual-8086 mode pushes besides, in this order, and makes null."""


def take(cpu: Cpu, event: Event, faulting_eip: int) -> Delivered:
    """Deliver an event through the IDT that the processor has now, and go to its handler.

    ``faulting_eip`` is that of the instruction that was executing: what a fault during delivery reports. Segments of an
    interrupted virtual-8086 program are pushed, the interrupt shadow ends, DR7.GD with the entry of a #DB.
    Raises `Shutdown` for a triple fault.
    """
    target = cpu.target()
    v86 = bool(target.eflags & EFLAGS_VM)
    if v86:
        event = replace(event, v86=tuple(cpu.segment(register).selector for register in _V86_FRAME))
    result = deliver(target, event, faulting_eip, cpu.target)
    if not result.switched:
        segments = {SegmentRegister.CS: far_code.marked(target, result.code)}
        if result.stack is not None:
            segments[SegmentRegister.SS] = far_code.marked(target, result.stack)
        if v86:
            segments.update(dict.fromkeys(_V86_FRAME, NULL_SEGMENT))
        cpu.eflags = result.eflags
        cpu.set_segments(segments)
        cpu.eip = result.eip
    cpu.esp = result.esp
    if result.cr2 is not None:
        cpu.cr2 = result.cr2
    if result.vector == DEBUG_VECTOR and event.source is not Source.SOFTWARE:
        _end_general_detection(cpu)
    if cpu.in_interrupt_shadow:
        cpu.set_shadow(False)
    return result


def take_exception(cpu: Cpu, pending: PendingException) -> Delivered:
    """Take an exception or software interrupt of the instruction at EIP; CR2 has a page fault's address already.

    Raises `Shutdown`.
    """
    eip = cpu.eip
    source = Source.SOFTWARE if pending.software else exception_source(pending.vector)
    cr2 = cpu.cr2 if pending.vector == 14 and not pending.software else None
    return take(cpu, Event(pending.vector, source, eip + pending.length, pending.error_code, cr2), eip)


def take_interrupt(cpu: Cpu, vector: int) -> Delivered:
    """Take an external interrupt before the instruction at EIP. Raises `Shutdown`."""
    eip = cpu.eip
    return take(cpu, Event(vector, Source.EXTERNAL, eip), eip)


def _end_general_detection(cpu: Cpu) -> None:
    """The processor clears DR7.GD as it enters the handler of #DB, so that this may use the debug registers."""
    dr7 = cpu.debug_register(7)
    if dr7 & DR7_GD:
        cpu.set_debug_register(7, dr7 & ~DR7_GD)
