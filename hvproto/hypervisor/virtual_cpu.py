"""A deprivileged guest's own idea of its processor: the supervisor state that it set and may read back.

The guest kernel runs at ring 3 of the real processor and believes to be at ring 0. Its general
registers and arithmetic flags are the real ones; control registers, descriptor tables, privilege
level, IF and IOPL are kept here. While the guest is stopped in a stub of the region, EIP, CS,
EFLAGS, ESP and SS are those of the stub's frame, which `load_frame` and `store_frame` exchange.
"""

from __future__ import annotations

from collections.abc import Callable

from hvproto.addresses import PAGE_SIZE, page_offset
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.not_built import NotBuilt
from hvproto.hypervisor.region import STAND_IN_CODE, STAND_IN_STACK, Region
from hvproto.processor.delivery import deliver
from hvproto.processor.exceptions import Delivered, Event, Raised
from hvproto.processor.paging import Access, PagingMode, accessed_bits, fault_code, walk
from hvproto.processor.processor import Processor
from hvproto.processor.segments import (
    ACCESSED,
    NULL_SEGMENT,
    RPL_MASK,
    TABLE_INDICATOR,
    Segment,
    SegmentRegister,
    TableRegister,
)
from hvproto.processor.settings import CR0_ET, CR0_PE, EFER_LMA, EFLAGS_IF, EFLAGS_IOPL, EFLAGS_RF, Setting

ESP_INDEX = 4
DATA_REGISTERS = (SegmentRegister.ES, SegmentRegister.DS, SegmentRegister.FS, SegmentRegister.GS)


class OutOfMemory(Exception):
    """The guest mapped a page to a guest-physical address where it has no memory, and used it."""

    def __init__(self, access: Access, gpa: int) -> None:
        super().__init__(access, gpa)
        self.access = access
        self.gpa = gpa


class VirtualCpu:
    """The virtual supervisor state of one guest. Implements `hvproto.processor.delivery.Target`."""

    def __init__(self, processor: Processor, memory: GuestMemory, region: Region) -> None:
        self._processor = processor
        self.memory = memory
        self._region = region
        self.cr0 = CR0_PE | CR0_ET
        self.cr2 = 0
        self.cr3 = 0
        self.cr4 = 0
        self.efer = 0
        self.debug_registers = [0, 0, 0, 0, 0, 0, 0xFFFF0FF0, 0x400]
        self.msrs: dict[int, int] = {}
        self.idtr = TableRegister(0, 0x3FF)
        self.gdtr = TableRegister(0, 0xFFFF)
        self.ldtr = NULL_SEGMENT
        self.tr = NULL_SEGMENT
        self.cpl = 0
        self.interrupts = False
        self.iopl = 0
        self.shadow = False
        """An STI or a load of SS was the last instruction: no interrupt yet."""
        self.vector = 0
        self.error_code = 0
        self.eip = 0
        self.esp = 0
        self.real_eflags = EFLAGS_IF
        self.code = NULL_SEGMENT
        self.stack = NULL_SEGMENT
        """CS and SS with their hidden parts: what the guest's table said when they were loaded."""
        self._frame_selectors = (0, 0)
        self.on_bits_set: Callable[[int], None] = lambda _linear: None
        """Called with a linear address after A or D bits were set in the tables that map it."""

    # -- the frame ---------------------------------------------------------------------------

    def load_frame(self) -> None:
        """Take over what the stub's frame holds: the guest has just stopped."""
        frame = self._region.read_frame()
        self.vector, self.error_code, self.eip, cs, flags, self.esp, ss = frame
        # The processor reports its faults with RF set. Of the guest's own flags it is part only in what a fault that is
        # reflected reports, and there delivery sets it.
        self.real_eflags = flags & ~EFLAGS_RF
        if cs != self._frame_selectors[0]:
            self.code = self._loaded(cs)
        if ss != self._frame_selectors[1]:
            self.stack = self._loaded(ss)

    def _loaded(self, selector: int) -> Segment:
        """CS or SS as the guest has loaded it without our help."""
        selector = selector & ~RPL_MASK | self.cpl
        return self._region.guest_descriptor(selector) or Segment(selector)

    def store_frame(self) -> None:
        """Write the frame that the stub's IRET returns by: ring 3, interrupts on, IOPL 0."""
        kernel = self.in_kernel
        cs = self._region.selector_for(self.code, STAND_IN_CODE, kernel=kernel)
        ss = self._region.selector_for(self.stack, STAND_IN_STACK, kernel=kernel)
        self._frame_selectors = cs, ss
        self._region.write_frame(self.eip, cs, self.real_eflags & ~EFLAGS_IOPL | EFLAGS_IF, self.esp, ss)

    @property
    def in_kernel(self) -> bool:
        """Whether the guest is at a level that paging calls supervisor: 0, 1 or 2."""
        return self.cpl != 3

    # -- registers ---------------------------------------------------------------------------

    def gpr(self, index: int) -> int:
        return self.esp if index == ESP_INDEX else self._processor.gpr(index)

    def set_gpr(self, index: int, value: int) -> None:
        if index == ESP_INDEX:
            self.esp = value & 0xFFFF_FFFF
        else:
            self._processor.set_gpr(index, value)

    @property
    def eflags(self) -> int:
        """EFLAGS as the guest sees it: real arithmetic flags, virtual IF and IOPL."""
        flags = self.real_eflags & ~(EFLAGS_IF | EFLAGS_IOPL)
        return flags | self.iopl << 12 | (EFLAGS_IF if self.interrupts else 0)

    @eflags.setter
    def eflags(self, value: int) -> None:
        self.interrupts = bool(value & EFLAGS_IF)
        self.iopl = (value & EFLAGS_IOPL) >> 12
        self.real_eflags = value & ~EFLAGS_IOPL | EFLAGS_IF

    def load_code(self, segment: Segment) -> None:
        """Load CS; the selector's RPL is the privilege level from now on."""
        self.mark_accessed(segment)
        self.code = segment.accessed()
        self.cpl = segment.rpl

    def load_stack(self, segment: Segment) -> None:
        self.mark_accessed(segment)
        self.stack = segment.accessed()

    def segment_base(self, register: SegmentRegister) -> int:
        """Linear base of a segment register."""
        if register is SegmentRegister.CS:
            return self.code.base
        if register is SegmentRegister.SS:
            return self.stack.base
        return self._processor.segment(register).base

    def can_read(self, register: SegmentRegister) -> bool:
        """Whether memory may be read through a segment register."""
        special = {SegmentRegister.CS: self.code, SegmentRegister.SS: self.stack}
        segment = special.get(register) or self._processor.segment(register)
        return segment.present and segment.is_readable

    def data_selector(self, register: SegmentRegister) -> int:
        """The selector in ES, DS, FS or GS: the processor holds what the guest loaded."""
        return self._processor.segment(register).selector

    def drop_inner_segments(self) -> None:
        """On a return to an outer level: empty data-segment registers that belong to an inner one (SDM, IRET)."""
        emptied = {}
        for register in DATA_REGISTERS:
            selector = self.data_selector(register)
            if selector & ~RPL_MASK:
                segment = self._region.guest_descriptor(selector)
                if segment is not None and not segment.is_conforming and segment.dpl < self.cpl:
                    emptied[register] = NULL_SEGMENT
        if emptied:
            self._processor.set_segments(emptied)

    @property
    def protected(self) -> bool:
        return bool(self.cr0 & CR0_PE)

    @property
    def long_mode(self) -> bool:
        return bool(self.efer & EFER_LMA)

    def switch_task(self, event: Event, selector: int) -> Delivered:
        """A task gate in the guest's IDT. Raises NotBuilt."""
        raise NotBuilt("task switches of a deprivileged guest (a task gate in its IDT)")

    @property
    def paging_mode(self) -> PagingMode:
        return PagingMode(self.cr0, self.cr3, self.cr4, self.efer)

    def setting(self, setting: Setting) -> int | TableRegister | Segment:
        """A setting as the guest believes it to be."""
        value = getattr(self, setting.name.lower())
        assert isinstance(value, int | TableRegister | Segment)
        return value

    # -- linear memory -----------------------------------------------------------------------

    def translate(self, linear: int, access: Access, *, user: bool = False) -> int:
        """GVA to GPA through the guest's own tables, A and D set as by its processor.

        Raises `Raised` (the guest's page fault) or `OutOfMemory`.
        """
        mode = self.paging_mode
        found = walk(mode, self.memory.read_entry, linear)
        error = fault_code(mode, found, access, user=user)
        if error is not None or found.physical is None:
            raise Raised(14, error, linear)
        updates = accessed_bits(mode, found, access)
        for address, bits in updates:
            self.memory.set_bits(address, bits)
        if updates:
            self.on_bits_set(linear)
        if self.memory.to_host(found.physical) is None:
            raise OutOfMemory(access, found.physical)
        return found.physical

    def read(self, linear: int, size: int, *, user: bool = False) -> int:
        """An integer from linear memory, at supervisor level unless ``user``."""
        return int.from_bytes(self.read_bytes(linear, size, user=user), "little")

    def read_bytes(self, linear: int, size: int, *, user: bool = False) -> bytes:
        out = b""
        for at, n in _pieces(linear, size):
            piece = self.memory.read(self.translate(at, Access.READ, user=user), n)
            assert piece is not None  # translate has looked
            out += piece
        return out

    def write(self, linear: int, size: int, value: int, *, user: bool = False) -> None:
        """Store an integer, at supervisor level unless ``user``; nothing is stored if any page faults."""
        data = value.to_bytes(size, "little")
        targets = [(self.translate(at, Access.WRITE, user=user), n) for at, n in _pieces(linear, size)]
        for gpa, n in targets:
            self.memory.write(gpa, data[:n])
            data = data[n:]

    def peek(self, linear: int, size: int) -> bytes:
        """As much of ``size`` bytes as is mapped from here on, without any effect."""
        out = b""
        for at, n in _pieces(linear, size):
            found = walk(self.paging_mode, self.memory.read_entry, at)
            piece = None if found.physical is None else self.memory.read(found.physical, n)
            if piece is None:
                break
            out += piece
        return out

    # -- stack and segments ------------------------------------------------------------------

    def push(self, value: int, size: int = 4) -> None:
        stack = self.stack
        mask = 0xFFFF_FFFF if stack.is_32bit else 0xFFFF
        top = (self.esp - size) & mask
        value &= (1 << 8 * size) - 1
        self.write(stack.base + top & 0xFFFF_FFFF, size, value, user=self.cpl == 3)
        self.esp = self.esp & ~mask & 0xFFFF_FFFF | top

    def pop(self, size: int = 4) -> int:
        stack = self.stack
        mask = 0xFFFF_FFFF if stack.is_32bit else 0xFFFF
        value = self.read(stack.base + (self.esp & mask) & 0xFFFF_FFFF, size, user=self.cpl == 3)
        self.esp = self.esp & ~mask & 0xFFFF_FFFF | self.esp + size & mask
        return value

    def descriptor_place(self, selector: int) -> int:
        """GVA of a selector's descriptor; the caller has checked it against the limit."""
        table = self.ldtr.base if selector & TABLE_INDICATOR else self.gdtr.base
        return table + (selector & ~(RPL_MASK | TABLE_INDICATOR)) & 0xFFFF_FFFF

    def mark_accessed(self, segment: Segment) -> None:
        """Set the accessed bit of a loaded descriptor in the guest's own table, as the processor does."""
        if not segment.attributes & ACCESSED:
            place = self.descriptor_place(segment.selector) + 5
            self.write(place, 1, self.read(place, 1) | 1)

    def deliver(self, event: Event, faulting_eip: int) -> Delivered:
        """Deliver an event through the guest's own IDT; raises `Shutdown` for its triple fault."""
        result = deliver(self, event, faulting_eip)
        self.load_code(result.code)
        if result.stack is not None:
            self.load_stack(result.stack)
        self.eip, self.esp, self.eflags = result.eip, result.esp, result.eflags
        if result.cr2 is not None:
            self.cr2 = result.cr2
        return result


def _pieces(linear: int, size: int) -> list[tuple[int, int]]:
    pieces = []
    while size > 0:
        n = min(size, PAGE_SIZE - page_offset(linear))
        pieces.append((linear, n))
        linear, size = linear + n & 0xFFFF_FFFF, size - n
    return pieces
