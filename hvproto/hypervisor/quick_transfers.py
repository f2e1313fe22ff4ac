"""INT n of a guest reflected, and the IRET that ends its handler, without taking the guest's state over and back.

Between a program and its kernel in flat 32-bit segments nothing changes but CS, SS, the stack pointer, EIP, flags and
the view. What the processor holds on either side is known from the last time that a guest was set down there in full
(`resuming`), until a descriptor changes. What isn't exactly that - another gate, another stack segment, a page not at
hand, NT or TF, data segments that the return would close - is left to `Exits`, with nothing done.

A transfer that was made is a *known* one: machine code makes it again (`unasked`) as long as the guest's words that it
depends on - gate, stack in the TSS - are what they were, and lie where they did.
"""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING

import capstone

from hvproto.addresses import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from hvproto.hypervisor.quick_places import LastPage
from hvproto.hypervisor.sensitive import CodeKind
from hvproto.hypervisor.virtual_cpu import VIRTUAL_FLAGS, VirtualCpu
from hvproto.processor.engine import UnmappedAccess
from hvproto.processor.exceptions import Raised
from hvproto.processor.first_look import FirstLook, Side
from hvproto.processor.known_transfers import KnownCall, KnownTransfers
from hvproto.processor.paging import Access
from hvproto.processor.segments import RPL_MASK, TABLE_INDICATOR, Segment, SegmentRegister
from hvproto.processor.settings import EFER_LMA, EFLAGS_FIXED, EFLAGS_IF, EFLAGS_RF, Setting
from hvproto.processor.unasked import ELSEWHERE, ODD_FLAGS, REFUSED, RETURNED

if TYPE_CHECKING:
    from hvproto.hypervisor.mirrored import MirroredGuest
    from hvproto.hypervisor.view import View
    from hvproto.processor.native import NativeEngine

_GATE_SIZE = 8
_PRESENT_386_GATE, _GATE_BITS, _TRAP_GATE, _GATE_DPL_SHIFT = 0x8E, 0x9E, 1, 5
_STACK_IN_TSS = 4
_INNER, _OUTER = struct.Struct("<3I"), struct.Struct("<5I")
_WHOLE = 0xFFFF_FFFF
_VIRTUAL, _REAL = VIRTUAL_FLAGS & ~EFLAGS_RF, ~VIRTUAL_FLAGS
USER, KERNEL = 3, 0


class _Level:
    """What the processor holds while the guest is at one level."""

    __slots__ = ("address", "code", "held", "is_kernel", "kind", "side", "stack")

    def __init__(self, cpu: VirtualCpu, kind: CodeKind, raw: bytes) -> None:
        registers = SegmentRegister.CS, SegmentRegister.SS
        self.code, self.stack = (cpu.segment(register) for register in registers)
        real_code, real_stack = (cpu.loaded(register) for register in registers)
        self.held = self.code, self.stack, real_code, real_stack
        self.kind, self.is_kernel = kind, kind.guards_loads
        self.side = Side(raw)
        self.address = self.side.address


class QuickTransfers:
    """Of one guest."""

    def __init__(self, guest: MirroredGuest, engine: NativeEngine, look: FirstLook, known: KnownTransfers) -> None:
        self._cpu = guest.cpu
        self._space = guest.space
        self._interrupts = guest.board.interrupts
        self._ram = guest.machine.ram.view
        self._protected = engine.deferred.protected
        self._engine = engine
        self._look = look
        self.stack = LastPage(guest.space, engine.deferred)
        """What PUSHF, POPF and IRET have accessed last."""
        self._levels: dict[int, _Level] = {}
        self._version = -1
        self.known = known
        self.changes = -1
        """Those of the kernel's view when the first of the known calls was learnt."""
        self._ram_address = engine.ram_address
        self._are_tables_set = False
        self._open: int = -1
        """Data segments' selectors that a return to ring 3 leaves as they are, or -1."""
        self.raw = b""
        """CS and SS, hidden parts and all, after the last transfer to another ring."""

    def resuming(self) -> None:
        """The processor has just been given the guest's state in full, which may be another."""
        cpu, space = self._cpu, self._space
        self.forget()
        self._are_tables_set = False
        self._check_descriptors()
        level = cpu.cpl
        code, stack, kind = cpu.segment(SegmentRegister.CS), cpu.segment(SegmentRegister.SS), space.kind
        known = self._levels.get(level)
        if known is not None and known.code == code and known.stack == stack and known.kind == kind:
            return
        self._levels.pop(level, None)
        if (
            kind is None
            or kind.by_paragraphs
            or kind.mode != capstone.CS_MODE_32
            or cpu.control(Setting.EFER) & EFER_LMA
            or not all(_is_flat(segment, level) and space.descriptors.gives(segment) for segment in (code, stack))
        ):
            return
        self._levels[level] = _Level(cpu, kind, self._engine.ring_3_segments())

    def _check_descriptors(self) -> None:
        """Descriptors may have changed: what was known of the levels is forgotten then."""
        version = self._space.descriptors.version
        if self._version != version:
            self.forget()
            self._levels.clear()
            self._open = -1
            self._version = version

    # -- in ----------------------------------------------------------------------------------

    def reflect(self, vector: int, level: int, back: int, old_esp: int, *, external: bool = False) -> bool:
        """The guest stands behind an INT n at this level, or an ``external`` interrupt has come; True if it now stands
        before its own handler.

        ``back`` and ``old_esp`` are its EIP and ESP.
        """
        cpu, look, ram, space = self._cpu, self._look, self._ram, self._space
        view = space.mirror.kernel
        self._check_descriptors()
        present, kernel = self._levels.get(level), self._levels.get(KERNEL)
        table = cpu.idtr
        if present is None or kernel is None or vector * _GATE_SIZE + _GATE_SIZE - 1 > table.limit:
            return False
        gate = self._shown(table.base + vector * _GATE_SIZE, _GATE_SIZE, view)
        if gate is None:
            return False
        low, high = ram[gate : gate + 4], ram[gate + 4 : gate + 8]
        kind = high[1]
        if kind & _GATE_BITS != _PRESENT_386_GATE or (kind >> _GATE_DPL_SHIFT & 3 < level and not external):
            return False
        if low[2] | low[3] << 8 != kernel.code.selector:
            return False
        flags = cpu.eflags & _VIRTUAL | look.flags.value & _REAL
        if flags & ODD_FLAGS:
            return False
        loaded = (kernel.code,) if level == KERNEL else (kernel.code, kernel.stack)
        if any(self._shown(cpu.gdtr.base + (one.selector & ~7), 8, view) is None for one in loaded):
            return False
        eip = low[0] | low[1] << 8 | high[2] << 16 | high[3] << 24
        kept = -1 if kind & _TRAP_GATE else ~EFLAGS_IF
        if level == KERNEL:
            esp = old_esp - _INNER.size & _WHOLE
            at = space.place(esp, _INNER.size, view, write=True)
            if at is None:
                return False
            _INNER.pack_into(ram, at, back, present.code.selector, flags)
        else:
            tss = space.place(cpu.tr.base + _STACK_IN_TSS, 8, view)
            if tss is None or cpu.tr.limit < _STACK_IN_TSS + 5 or not cpu.tr.system_type & 8:
                return False
            if ram[tss + 4] | ram[tss + 5] << 8 != kernel.stack.selector:
                return False
            esp = int.from_bytes(ram[tss : tss + 4], "little") - _OUTER.size & _WHOLE
            at = space.place(esp, _OUTER.size, view, write=True)
            if at is None:
                at = self.reach(esp, _OUTER.size, view, True)
                if at < 0:
                    return False
            elif not external:
                self._learn(vector, gate, tss, at, esp, eip, kept)
            _OUTER.pack_into(ram, at, back, present.code.selector, flags, old_esp, present.stack.selector)
            self._load(kernel)
        cpu.eflags = flags & kept
        look.eip.value = eip
        look.esp.value = esp
        return True

    def _learn(self, vector: int, gate: int, tss: int, at: int, esp: int, eip: int, kept: int) -> None:
        """Have machine code make this call from ring 3 from now on. ``gate``, ``tss`` and ``at`` are HPAs."""
        self._set_tables()
        self.check()
        ram, user, kernel = self._ram_address, self._levels[USER], self._levels[KERNEL]
        protected = ctypes.addressof(self._protected) + (at >> PAGE_SHIFT)
        selectors = user.code.selector, user.stack.selector
        self.known.add_call(
            vector, KnownCall(ram + gate, ram + tss, protected, ram + at, esp, eip, kept, *selectors, kernel.address)
        )

    def forget(self) -> None:
        """Have machine code ask about all of them."""
        self.known.clear()

    def check(self) -> None:
        """Before machine code goes by what it knows: that, and the kernel's stack, is as it was, or forgotten."""
        view, stack, known = self._space.mirror.kernel, self.stack, self.known
        self._check_descriptors()
        if view.changes != self.changes:
            self.forget()
            self.changes = view.changes
        if stack.is_of(view) and (stack.page, stack.protection) != known.stack:
            known.set_stack(stack.page, self._ram_address + stack.base, stack.protection)

    # -- out ---------------------------------------------------------------------------------

    def iret(self, esp: int, real_eflags: int) -> int:
        """The guest's kernel stands before an IRETD: answers what `FirstLook` asks."""
        cpu, look = self._cpu, self._look
        self._check_descriptors()
        present = self._levels.get(KERNEL)
        eflags = cpu.all_eflags
        if present is None or cpu.nmi_blocked or (real_eflags & _REAL | eflags & _VIRTUAL) & ODD_FLAGS:
            return REFUSED
        at = self.reach(esp, _OUTER.size, self._space.mirror.kernel, False)
        if at < 0:
            return REFUSED
        eip, selector, flags, outer_esp, outer_stack = _OUTER.unpack_from(self._ram, at)
        if flags & ODD_FLAGS or (flags & EFLAGS_IF and not eflags & EFLAGS_IF and self._interrupts.pending):
            return REFUSED
        selector &= 0xFFFF
        if selector == present.code.selector:
            esp = esp + _INNER.size & _WHOLE
            self.known.set_kernel(selector)
        else:
            outer = self._levels.get(USER)
            if outer is None or selector != outer.code.selector or outer_stack & 0xFFFF != outer.stack.selector:
                return REFUSED
            if look.data_selectors.value != self._open and not self._leaves_data_segments():
                return REFUSED
            esp = outer_esp
            self._load(outer)
            self.known.set_return(outer.code.selector, outer.stack.selector, self._open, outer.address)
        flags = flags & RETURNED | EFLAGS_FIXED
        look.flags.value = flags & _REAL | EFLAGS_IF
        cpu.all_eflags = flags
        look.esp.value = esp
        look.eip.value = eip
        return ELSEWHERE

    def _shown(self, linear: int, size: int, view: View) -> int | None:
        """Where so many bytes of the kernel's lie, an HPA, by what the view shows once they have been read."""
        at = self._space.place(linear, size, view)
        if at is not None:
            return at
        try:
            self._cpu.translate(linear, Access.READ, user=False)
        except (Raised, UnmappedAccess):
            return None
        return self._space.place(linear, size, view)

    def reach(self, esp: int, size: int, view: View, write: bool) -> int:
        """Where so many bytes of the stack lie, an HPA; or -1, and the mirror is as it was in any case."""
        at = self.stack.place(esp, size, view, write)
        if at >= 0 or (esp & PAGE_MASK) + size > PAGE_SIZE:
            return at
        cpu, space = self._cpu, self._space
        try:
            gpa = cpu.translate(esp, Access.WRITE if write else Access.READ, user=view is not space.mirror.kernel)
        except (Raised, UnmappedAccess):
            return -1
        hpa = cpu.memory.to_host(gpa)
        return -1 if hpa is None or (write and space.is_watched(hpa)) else hpa

    def _leaves_data_segments(self) -> bool:
        """Whether a return to ring 3 leaves ES, DS, FS and GS alone: each is open there, or null."""
        selectors = self._look.data_selectors.value
        for selector in struct.unpack("<4H", selectors.to_bytes(8, "little")):
            if selector & TABLE_INDICATOR:
                return False
            if selector & ~RPL_MASK and self._space.descriptors.level_of(selector >> 3) != USER:
                return False
        self._open = selectors
        return True

    # -- both --------------------------------------------------------------------------------

    def _load(self, level: _Level) -> None:
        """Have the processor hold what it does at this level."""
        self._set_tables()
        self._look.side.value = level.address
        self._note(level)

    def _set_tables(self) -> None:
        if not self._are_tables_set:
            for one in self._levels.values():
                one.side.set_tables(*self._space.tables_of(kernel=one.is_kernel))
            self._are_tables_set = True

    def reload(self) -> None:
        """The guest's kernel, whose level is known, has loaded another root: have the processor hold its view."""
        self.forget()
        self._are_tables_set = False
        self._load(self._levels[KERNEL])

    def knows(self, level: int) -> bool:
        """Whether it is known what the processor holds at this level."""
        self._check_descriptors()
        return level in self._levels

    def is_at(self, number: int) -> None:
        """The processor has been taken to this level: KERNEL or USER."""
        self._note(self._levels[number])

    def _note(self, level: _Level) -> None:
        self.raw = level.side.segments
        self._cpu.note_loaded(level.held)
        self._space.note_view(level.kind, level.is_kernel)


def _is_flat(segment: Segment, level: int) -> bool:
    """Whether it is a segment of the GDT from 0 to 4 GiB, of 32 bits, as it is loaded at this level."""
    selector = segment.selector
    return (
        not selector & TABLE_INDICATOR
        and selector & RPL_MASK == level == segment.dpl
        and not segment.base
        and segment.limit == _WHOLE
        and bool(segment.is_32bit)
    )
