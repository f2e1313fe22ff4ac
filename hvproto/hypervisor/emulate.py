"""Emulation of the privileged and sensitive instructions of a deprivileged guest kernel (SDM vol. 3, 2.8).

Each one acts on the guest's virtual processor; a fault that it would have raised there comes out as
`Raised` with nothing changed. Far transfers are in `far`, ports in `port_io`.
"""

from __future__ import annotations

from collections.abc import Callable

import capstone
from capstone import x86_const as cs

from hvproto.hypervisor import far, port_io
from hvproto.hypervisor.code import is_far_through_memory, loads_stack
from hvproto.hypervisor.not_built import NotBuilt
from hvproto.hypervisor.operands import SEGMENTS, Operands
from hvproto.hypervisor.port_io import PortSpace
from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.processor.exceptions import Raised, load_descriptor
from hvproto.processor.segments import (
    NULL_SEGMENT,
    RPL_MASK,
    SYSTEM_LDT,
    TABLE_INDICATOR,
    TSS32_AVAILABLE,
    Segment,
    SegmentRegister,
    TableRegister,
)
from hvproto.processor.settings import CR0_ET, CR0_PE, CR0_PG, CR0_TS, EFER_MSR

ZF = 1 << 6
EAX, ECX, EDX = 0, 1, 2
CR0_DEFINED = 0xE005_003F
CR4_DEFINED = 0x0000_07FF
CR4_DE = 1 << 3
TSC_MSR = 0x10

CONTROL_REGISTERS = {getattr(cs, f"X86_REG_CR{n}"): n for n in (0, 2, 3, 4)}
ABSENT_REGISTERS = frozenset(getattr(cs, f"X86_REG_CR{n}") for n in range(16) if n not in (0, 2, 3, 4))
DEBUG_REGISTERS = {getattr(cs, f"X86_REG_DR{n}"): n for n in range(8)}


class Emulator:
    """Executes single guest instructions on the virtual processor.

    ``on_paging_change`` is called after a control register that the page walk depends on has been
    written, ``on_invalidate`` with a GVA after INVLPG; ``on_halt`` for HLT.
    """

    def __init__(self, cpu: VirtualCpu, ports: PortSpace, now: Callable[[], int]) -> None:
        self.cpu = cpu
        self._ports = ports
        self._now = now
        self.on_paging_change: Callable[[], None] = lambda: None
        self.on_invalidate: Callable[[int], None] = lambda _linear: None
        self.on_descriptors_change: Callable[[], None] = lambda: None
        self.on_halt: Callable[[], None] = lambda: None
        self._actions: dict[int, Callable[[Operands], bool | None]] = {
            cs.X86_INS_CLI: self._cli,
            cs.X86_INS_STI: self._sti,
            cs.X86_INS_HLT: self._hlt,
            cs.X86_INS_PUSHF: self._pushf,
            cs.X86_INS_PUSHFD: self._pushf,
            cs.X86_INS_POPF: self._popf,
            cs.X86_INS_POPFD: self._popf,
            cs.X86_INS_IRET: self._iret,
            cs.X86_INS_IRETD: self._iret,
            cs.X86_INS_LGDT: self._lgdt,
            cs.X86_INS_LIDT: self._lidt,
            cs.X86_INS_SGDT: lambda o: self._store_table(o, self.cpu.gdtr),
            cs.X86_INS_SIDT: lambda o: self._store_table(o, self.cpu.idtr),
            cs.X86_INS_LLDT: self._lldt,
            cs.X86_INS_LTR: self._ltr,
            cs.X86_INS_SLDT: lambda o: o.write(0, self.cpu.ldtr.selector, 2),
            cs.X86_INS_STR: lambda o: o.write(0, self.cpu.tr.selector, 2),
            cs.X86_INS_SMSW: self._smsw,
            cs.X86_INS_LMSW: self._lmsw,
            cs.X86_INS_CLTS: self._clts,
            cs.X86_INS_INVLPG: self._invlpg,
            cs.X86_INS_WBINVD: lambda _o: None,
            cs.X86_INS_WBNOINVD: lambda _o: None,
            cs.X86_INS_INVD: lambda _o: None,
            cs.X86_INS_RDMSR: self._rdmsr,
            cs.X86_INS_WRMSR: self._wrmsr,
            cs.X86_INS_RDTSC: self._rdtsc,
            cs.X86_INS_MOV: self._mov,
            cs.X86_INS_PUSH: self._push,
            cs.X86_INS_POP: self._pop_stack_segment,
            cs.X86_INS_LSS: self._lss,
            cs.X86_INS_LCALL: self._far_call,
            cs.X86_INS_LJMP: self._far_jump,
            cs.X86_INS_CALL: lambda o: self._through_memory(o, self._far_call),
            cs.X86_INS_JMP: lambda o: self._through_memory(o, self._far_jump),
            cs.X86_INS_RETF: self._far_return,
            cs.X86_INS_LAR: self._lar,
            cs.X86_INS_LSL: self._lsl,
            cs.X86_INS_VERR: lambda o: self._verify(o, write=False),
            cs.X86_INS_VERW: lambda o: self._verify(o, write=True),
            cs.X86_INS_IN: lambda o: port_io.port_in(o, self._ports),
            cs.X86_INS_OUT: lambda o: port_io.port_out(o, self._ports),
            **dict.fromkeys(port_io.STRING_SIZES, self._string),
        }

    def execute(self, instruction: capstone.CsInsn) -> bool:
        """Execute one instruction for the guest's current privilege level and move EIP past it.

        False if it isn't one that this level may execute: the fault that brought it here is the
        guest's own. Raises `Raised`, `NotBuilt` and OutOfMemory.
        """
        action = self._actions.get(instruction.id)
        operands = Operands(self.cpu, instruction)
        if action is None or not self._may(instruction, operands):
            return False
        before = self.cpu.eip
        if action(operands) is False:
            return False
        if self.cpu.eip == before and instruction.id not in _TRANSFERS:
            self.cpu.eip = before + instruction.size & 0xFFFF_FFFF
        return True

    def _may(self, instruction: capstone.CsInsn, operands: Operands) -> bool:
        cpu = self.cpu
        if cpu.cpl == 0 or instruction.id in _ANY_LEVEL or loads_stack(instruction):
            return True
        if instruction.id in (cs.X86_INS_CLI, cs.X86_INS_STI):
            return cpu.cpl <= cpu.iopl
        if instruction.id in _PORT_INSTRUCTIONS:
            return port_io.port_allowed(cpu, *port_io.port_of(operands))
        return False

    # -- flags -------------------------------------------------------------------------------

    def _cli(self, _operands: Operands) -> None:
        self.cpu.interrupts = False

    def _sti(self, _operands: Operands) -> None:
        self.cpu.shadow = not self.cpu.interrupts
        self.cpu.interrupts = True

    def _hlt(self, operands: Operands) -> None:
        self.cpu.eip = self.cpu.eip + operands.instruction.size & 0xFFFF_FFFF
        self.on_halt()

    def _pushf(self, operands: Operands) -> None:
        self.cpu.push(self.cpu.eflags & 0x00FC_FFFF, _operand_size(operands))

    def _popf(self, operands: Operands) -> None:
        size = _operand_size(operands)
        far.load_flags(self.cpu, self.cpu.pop(size), size, self.cpu.cpl)

    def _iret(self, operands: Operands) -> None:
        far.interrupt_return(self.cpu, _operand_size(operands))

    # -- tables ------------------------------------------------------------------------------

    def _table_operand(self, operands: Operands) -> TableRegister:
        address = operands.address(0)
        limit = self.cpu.read(address, 2)
        base = self.cpu.read(address + 2 & 0xFFFF_FFFF, 4)
        return TableRegister(base if _operand_size(operands) == 4 else base & 0xFF_FFFF, limit)

    def _lgdt(self, operands: Operands) -> None:
        self.cpu.gdtr = self._table_operand(operands)
        self.on_descriptors_change()

    def _lidt(self, operands: Operands) -> None:
        self.cpu.idtr = self._table_operand(operands)

    def _store_table(self, operands: Operands, table: TableRegister) -> None:
        value = table.limit & 0xFFFF | table.base << 16
        self.cpu.write(operands.address(0), 6, value, user=self.cpu.cpl == 3)

    def _system_descriptor(self, selector: int, kinds: tuple[int, ...]) -> Segment:
        error = selector & ~RPL_MASK
        if selector & TABLE_INDICATOR:
            raise Raised(13, error)
        segment = load_descriptor(self.cpu, selector)
        if not segment.is_system or segment.system_type not in kinds:
            raise Raised(13, error)
        if not segment.present:
            raise Raised(11, error)
        return segment

    def _lldt(self, operands: Operands) -> None:
        selector = operands.read(0, 2) & 0xFFFF
        if selector & ~RPL_MASK:
            self.cpu.ldtr = self._system_descriptor(selector, (SYSTEM_LDT,))
            raise NotBuilt("LLDT with a local descriptor table")
        self.cpu.ldtr = NULL_SEGMENT.with_selector(selector)

    def _ltr(self, operands: Operands) -> None:
        selector = operands.read(0, 2) & 0xFFFF
        if not selector & ~RPL_MASK:
            raise Raised(13, 0)
        segment = self._system_descriptor(selector, (1, TSS32_AVAILABLE))
        place = self.cpu.descriptor_place(selector) + 5
        self.cpu.write(place, 1, self.cpu.read(place, 1) | 2)  # busy
        self.cpu.tr = Segment(selector, segment.base, segment.limit, segment.attributes | 2 << 8)

    # -- control registers -------------------------------------------------------------------

    def _set_cr0(self, value: int) -> None:
        cpu = self.cpu
        value = value & CR0_DEFINED | CR0_ET
        if value & CR0_PG and not value & CR0_PE:
            raise Raised(13, 0)
        if not value & CR0_PE:
            raise NotBuilt("a guest that leaves protected mode")
        changed = cpu.cr0 ^ value
        cpu.cr0 = value
        if changed & (CR0_PG | 1 << 16):
            self.on_paging_change()

    def _smsw(self, operands: Operands) -> None:
        # Of a 32-bit register only the lower half is defined; the engine leaves the upper one alone.
        upper = 0 if operands.is_memory(0) else operands.read(0) & 0xFFFF_0000
        operands.write(0, upper | self.cpu.cr0 & 0xFFFF, 2)

    def _lmsw(self, operands: Operands) -> None:
        value = operands.read(0, 2)
        self._set_cr0(self.cpu.cr0 & ~0xE | value & 0xF | self.cpu.cr0 & CR0_PE)

    def _clts(self, _operands: Operands) -> None:
        self.cpu.cr0 &= ~CR0_TS

    def _mov(self, operands: Operands) -> bool | None:
        target, source = operands.register(0), operands.register(1)
        if source in ABSENT_REGISTERS or target in ABSENT_REGISTERS:
            raise Raised(6)
        if source in CONTROL_REGISTERS:
            number = CONTROL_REGISTERS[source]
            operands.write(0, (self.cpu.cr0, 0, self.cpu.cr2, self.cpu.cr3, self.cpu.cr4)[number])
        elif target in CONTROL_REGISTERS:
            self._write_control(CONTROL_REGISTERS[target], operands.read(1))
        elif source in DEBUG_REGISTERS:
            operands.write(0, self.cpu.debug_registers[self._debug_number(DEBUG_REGISTERS[source])])
        elif target in DEBUG_REGISTERS:
            self._write_debug(self._debug_number(DEBUG_REGISTERS[target]), operands.read(1))
        elif target in SEGMENTS and SEGMENTS[target] is SegmentRegister.SS:
            far.load_stack(self.cpu, operands.read(1, 2) & 0xFFFF)
        elif source in SEGMENTS:
            operands.write(0, operands.read(1), 2)
        else:
            return False
        return None

    def _write_control(self, number: int, value: int) -> None:
        cpu = self.cpu
        if number == 0:
            self._set_cr0(value)
        elif number == 2:
            cpu.cr2 = value
        elif number == 3:
            cpu.cr3 = value
            self.on_paging_change()
        else:
            if value & ~CR4_DEFINED:
                raise Raised(13, 0)
            cpu.cr4 = value
            self.on_paging_change()

    def _debug_number(self, number: int) -> int:
        """DR4 and DR5 are other names of DR6 and DR7 unless CR4.DE is set (SDM vol. 3, 17.2.2)."""
        if number not in (4, 5):
            return number
        if self.cpu.cr4 & CR4_DE:
            raise Raised(6)
        return number + 2

    def _write_debug(self, number: int, value: int) -> None:
        if number == 7 and value & 0xFF:
            raise NotBuilt("debug registers of a deprivileged guest (breakpoints enabled in DR7)")
        self.cpu.debug_registers[number] = value

    def _invlpg(self, operands: Operands) -> None:
        self.on_invalidate(operands.address(0))

    # -- model-specific registers and time ---------------------------------------------------

    def _rdmsr(self, _operands: Operands) -> None:
        number = self.cpu.gpr(ECX)
        if number == EFER_MSR:
            value = self.cpu.efer
        elif number == TSC_MSR:
            value = self._now()
        else:
            value = self.cpu.msrs.get(number, 0)
        self._set_pair(value)

    def _wrmsr(self, _operands: Operands) -> None:
        number = self.cpu.gpr(ECX)
        value = self.cpu.gpr(EAX) | self.cpu.gpr(EDX) << 32
        if number != EFER_MSR:
            self.cpu.msrs[number] = value
            return
        if value & 1 << 8:
            raise NotBuilt("long mode in a deprivileged guest (EFER.LME)")
        self.cpu.efer = value
        self.on_paging_change()

    def _rdtsc(self, _operands: Operands) -> None:
        self._set_pair(self._now())

    def _set_pair(self, value: int) -> None:
        self.cpu.set_gpr(EAX, value)
        self.cpu.set_gpr(EDX, value >> 32)

    # -- segments ----------------------------------------------------------------------------

    def _push(self, operands: Operands) -> bool | None:
        if operands.register(0) not in SEGMENTS:
            return False
        self.cpu.push(operands.read(0), _operand_size(operands))
        return None

    def _pop_stack_segment(self, operands: Operands) -> bool | None:
        if operands.register(0) != cs.X86_REG_SS:
            return False
        before = self.cpu.esp
        selector = self.cpu.pop(_operand_size(operands)) & 0xFFFF
        try:
            far.load_stack(self.cpu, selector)
        except Raised:
            self.cpu.esp = before
            raise
        return None

    def _far_pointer(self, operands: Operands, index: int) -> tuple[int, int]:
        """(selector, offset) of a far pointer in memory."""
        size = _operand_size(operands)
        address = operands.address(index)
        user = self.cpu.cpl == 3
        return self.cpu.read(address + size & 0xFFFF_FFFF, 2, user=user), self.cpu.read(address, size, user=user)

    def _far_target(self, operands: Operands) -> tuple[int, int]:
        if operands.is_memory(0):
            return self._far_pointer(operands, 0)
        return operands.read(0) & 0xFFFF, operands.read(1)

    def _lss(self, operands: Operands) -> None:
        selector, offset = self._far_pointer(operands, 1)
        far.load_stack(self.cpu, selector)
        operands.write(0, offset)

    def _through_memory(self, operands: Operands, transfer: Callable[[Operands], None]) -> bool:
        if not is_far_through_memory(operands.instruction):
            return False
        register = operands.segment(0)
        if not self.cpu.can_read(register):
            raise Raised(12 if register is SegmentRegister.SS else 13, 0)
        transfer(operands)
        return True

    def _far_call(self, operands: Operands) -> None:
        selector, offset = self._far_target(operands)
        far.call(self.cpu, selector, offset, self.cpu.eip + operands.instruction.size, _operand_size(operands))

    def _far_jump(self, operands: Operands) -> None:
        far.jump(self.cpu, *self._far_target(operands))

    def _far_return(self, operands: Operands) -> None:
        release = operands.read(0) if len(operands) else 0
        far.far_return(self.cpu, release, _operand_size(operands))

    # -- what a program may ask of descriptors -----------------------------------------------

    def _visible(self, selector: int) -> Segment | None:
        """The descriptor if the current privilege level may see it (SDM vol. 2, LAR)."""
        try:
            segment = load_descriptor(self.cpu, selector)
        except Raised:
            return None
        if not segment.is_conforming and segment.dpl < max(self.cpu.cpl, selector & RPL_MASK):
            return None
        return segment

    def _set_zf(self, on: bool) -> None:
        self.cpu.real_eflags = self.cpu.real_eflags & ~ZF | (ZF if on else 0)

    def _lar(self, operands: Operands) -> None:
        segment = self._visible(operands.read(1, 2) & 0xFFFF)
        valid = segment is not None and (not segment.is_system or segment.system_type in _LAR_SYSTEM_TYPES)
        if segment is not None and valid:
            mask = 0xFFFF_FFFF if operands.size(0) == 4 else 0xFFFF
            operands.write(0, segment.attributes & 0x00F0_FF00 & mask)
        self._set_zf(valid)

    def _lsl(self, operands: Operands) -> None:
        segment = self._visible(operands.read(1, 2) & 0xFFFF)
        valid = segment is not None and (not segment.is_system or segment.system_type in _LSL_SYSTEM_TYPES)
        if segment is not None and valid:
            operands.write(0, segment.limit)
        self._set_zf(valid)

    def _verify(self, operands: Operands, *, write: bool) -> None:
        segment = self._visible(operands.read(0, 2) & 0xFFFF)
        if segment is None or segment.is_system:
            self._set_zf(False)
        else:
            self._set_zf(segment.is_writable_data if write else segment.is_readable)

    # -- ports -------------------------------------------------------------------------------

    def _string(self, operands: Operands) -> None:
        port_io.string(self.cpu, operands, self._ports)


_LAR_SYSTEM_TYPES = frozenset({1, 2, 3, 4, 5, 9, 11, 12})
_LSL_SYSTEM_TYPES = frozenset({1, 2, 3, 9, 11})
_TRANSFERS = frozenset(
    {
        cs.X86_INS_IRET, cs.X86_INS_IRETD, cs.X86_INS_LCALL, cs.X86_INS_LJMP, cs.X86_INS_RETF, cs.X86_INS_HLT,
        cs.X86_INS_CALL, cs.X86_INS_JMP,
        *port_io.STRING_SIZES,
    }
)  # fmt: skip
_PORT_INSTRUCTIONS = frozenset({cs.X86_INS_IN, cs.X86_INS_OUT, *port_io.STRING_SIZES})
_ANY_LEVEL = frozenset(
    {
        cs.X86_INS_SGDT, cs.X86_INS_SIDT, cs.X86_INS_SLDT, cs.X86_INS_STR, cs.X86_INS_SMSW,
        cs.X86_INS_LAR, cs.X86_INS_LSL, cs.X86_INS_VERR, cs.X86_INS_VERW,
        cs.X86_INS_PUSHF, cs.X86_INS_PUSHFD, cs.X86_INS_POPF, cs.X86_INS_POPFD,
        cs.X86_INS_IRET, cs.X86_INS_IRETD, cs.X86_INS_LCALL, cs.X86_INS_RETF, cs.X86_INS_CALL,
        cs.X86_INS_LJMP, cs.X86_INS_JMP,
    }
)  # fmt: skip


def _operand_size(operands: Operands) -> int:
    """2 with an operand-size prefix, else 4 (the code segment's default)."""
    return 2 if operands.instruction.prefix[2] == 0x66 else 4
