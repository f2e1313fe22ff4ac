"""Exits of a guest inside a process: what signals bring, decided as for a mirrored guest but for what a process is.

A fault has come through the host's IDT and its kernel to the emulation program by then; the way to the guest's own
handler leads back through both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capstone import x86_const as cs

from hvproto.errors import Unsupported
from hvproto.hypervisor.emulate import Emulator
from hvproto.hypervisor.exits import PAGE_FAULT, Exits
from hvproto.hypervisor.process_code import floating_point_fault, is_sse
from hvproto.hypervisor.sensitive import SEGMENT_NUMBERS
from hvproto.processor.exceptions import Raised
from hvproto.processor.instruction import Instruction
from hvproto.processor.paging import Access
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import CR4_OSFXSR, DR6_BREAKPOINTS, DR6_BS, EFLAGS_TF, Setting

if TYPE_CHECKING:
    from hvproto.hypervisor.application import ApplicationGuest

DEBUG, INVALID_OPCODE = 1, 6
WRITE_BIT = 2
ADVICE = "Use plan mirrored or direct."


class ApplicationExits(Exits):
    """Handles the signals of one guest, whose state its virtual processor has taken over."""

    def __init__(self, guest: ApplicationGuest) -> None:
        super().__init__(guest)  # type: ignore[arg-type]  # what it asks of a guest, this one has
        self._inside = guest

    def handle(self, vector: int, error_code: int) -> None:
        """The switch. Raises what ends the guest: Shutdown, UnmappedAccess, Unsupported."""
        if vector == INVALID_OPCODE:
            instruction = self.instruction()
            self._check_sse(instruction)
            if instruction is not None and instruction.id == cs.X86_INS_SYSCALL:
                self.trapped()  # the host has no SYSCALL; the guest may
                return
        super().handle(vector, error_code)

    def _tell(self, vector: int, error_code: int | None, route: str, detail: str, cr2: int | None = None) -> None:
        super()._tell(vector, error_code, "host" if route == "reflect" else route, detail, cr2)

    def _page_fault(self, error_code: int) -> None:
        guest, cpu = self._inside, self._cpu
        linear = guest.fault_address
        access = Access.WRITE if error_code & WRITE_BIT else Access.READ
        # The guest's own tables decide; if they refuse, this raises the guest's own page fault.
        cpu.translate(linear, access, user=cpu.cpl == 3)
        guest.space.admit(linear, access)
        self._tell(PAGE_FAULT, error_code, "handle", "not in the process yet", linear)

    def _debug_exception(self) -> None:
        """A program isn't told DR6; with a host whose debug registers are nobody's it is a single step, or ICEBP."""
        cpu = self._cpu
        if cpu.eflags & EFLAGS_TF:
            cpu.set_debug_register(6, cpu.debug_register(6) & ~DR6_BREAKPOINTS | DR6_BS)
        self._reflect(DEBUG, None)

    def _check_sse(self, instruction: Instruction | None) -> None:
        if instruction is None or not self._cpu.control(Setting.CR4) & CR4_OSFXSR:
            return
        if not self._cpu.real.control(Setting.CR4) & CR4_OSFXSR and is_sse(instruction.decoded):
            raise Unsupported(
                self._inside.where(),
                f"{instruction.mnemonic}: under plan application a guest has what the host's processes have, and this "
                "host gives them no SSE (its CR4.OSFXSR is 0)",
                ADVICE,
            )


class ProcessEmulator(Emulator):
    """Executes what is sensitive in a process besides: reads of segment registers, the guest's own CR0.TS."""

    def execute(self, instruction: Instruction) -> bool:
        fault = floating_point_fault(instruction.decoded, self.cpu.control(Setting.CR0), self.cpu.control(Setting.CR4))
        if fault is not None:
            raise Raised(fault)
        if instruction.id == cs.X86_INS_MOV:
            source = instruction.operands[1]
            if source.type == cs.X86_OP_REG and source.reg in SEGMENT_NUMBERS:
                self._store_selector(instruction)
                return True
        return super().execute(instruction)

    def _store_selector(self, instruction: Instruction) -> None:
        """MOV from a segment register: 16 bits in memory, zero-extended in a register (SDM vol. 2, MOV)."""
        target, source = instruction.operands
        name = instruction.name_of(source.reg).upper()
        selector = self.cpu.segment(SegmentRegister[name]).selector
        size = 2 if target.type == cs.X86_OP_MEM else int(target.size)
        instruction.write(target, size, selector)
        self.cpu.eip += instruction.size
