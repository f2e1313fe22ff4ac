"""The one processor: Unicorn plus what Unicorn leaves out of an x86.

Registers, settings, linear memory, delivery through the IDT, virtual time. One class over both
engines; which one is chosen by `HVPROTO_ENGINE` or, by default, by whether the native one passes
its self-check.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from typing import Any, Protocol

from unicorn import x86_const

from hvproto.addresses import PAGE_SIZE, page_offset
from hvproto.errors import BadInput
from hvproto.processor import native
from hvproto.processor.delivery import Delivered, Event, Raised, Source, deliver, load_descriptor
from hvproto.processor.engine import (
    GPR_IDS,
    GPR_NAMES,
    Engine,
    Outcome,
    PendingException,
    UnmappedAccess,
)
from hvproto.processor.live_target import LiveTarget
from hvproto.processor.native import NativeEngine
from hvproto.processor.paging import Access, PagingMode, Walk, accessed_bits, fault_code, walk
from hvproto.processor.portable import PortableEngine
from hvproto.processor.segments import (
    NULL_SEGMENT,
    TSS32_AVAILABLE,
    TSS32_BUSY,
    Segment,
    SegmentRegister,
    TableRegister,
)
from hvproto.processor.settings import CR0_PE, EFLAGS_IF, EFLAGS_IOPL, EFLAGS_VM, Setting, SettingValue

ENGINE_VARIABLE = "HVPROTO_ENGINE"
_EIP = x86_const.UC_X86_REG_EIP
_EFLAGS = x86_const.UC_X86_REG_EFLAGS
_CR2 = x86_const.UC_X86_REG_CR2
_TSS_IO_MAP_BASE = 0x66
_V86_FRAME = (SegmentRegister.GS, SegmentRegister.FS, SegmentRegister.DS, SegmentRegister.ES)
"""What an interrupt of virtual-8086 mode pushes besides, in this order, and makes null."""


class Stop(Enum):
    """Why `Processor.run` came back."""

    DEADLINE = auto()  # at a block boundary, at or after the deadline or a requested stop
    HALT = auto()  # HLT at ring 0; EIP is after it
    TRAP = auto()  # before the instruction at ``trapped_at``, which is planted


class Ports(Protocol):
    """What IN and OUT reach."""

    def read(self, port: int, size: int) -> int: ...
    def write(self, port: int, size: int, value: int) -> None: ...


def choose_engine(name: str | None = None) -> type[Engine]:
    """The engine by name ("native", "portable"), by the environment, or the best that works here.

    Raises BadInput for another name.
    """
    name = name or os.environ.get(ENGINE_VARIABLE) or None
    if name == "native":
        return NativeEngine
    if name == "portable":
        return PortableEngine
    if name is not None:
        raise BadInput(f"unknown engine {name!r}: {ENGINE_VARIABLE} is native or portable")
    return NativeEngine if native.self_check() is None else PortableEngine


class Processor:
    """An x86 processor in 32-bit system mode over ``ram``, which Python owns.

    Addresses of memory methods are *linear* unless the name says physical. All sizes are in bytes,
    all integers little endian.
    """

    def __init__(self, ram: memoryview, engine: str | None = None) -> None:
        self.ram = ram
        self.ports: Ports | None = None
        self.on_protected_store: Callable[[int, int], None] | None = None
        """(physical address, size): called after a store to a protected page, inside the run."""
        self.is_trap: Callable[[int], bool] = lambda _address: True
        """Whether a planted instruction at this address is to stop the processor now."""
        self.on_breath: Callable[[], None] = lambda: None
        """Called now and then in a long run, while the processor is stopped; what it raises ends the run."""
        self.trapped_at = 0
        self._trapped = False
        self._deadline = 0
        self._breath_end = 0
        self._until_open = False
        self.engine = choose_engine(engine)(ram, self)
        if isinstance(self.engine, PortableEngine):
            me = weakref.proxy(self)
            self.engine.load_descriptor = lambda selector: me._descriptor_for_register(selector)
            self.engine.port_refusal = lambda port, size: me._port_refusal(port, size)
            self.engine.code_byte = lambda offset: me._code_byte(offset)

    # -- registers ---------------------------------------------------------------------------

    @property
    def eip(self) -> int:
        return self.engine.read_register(_EIP)

    @eip.setter
    def eip(self, value: int) -> None:
        self.engine.write_register(_EIP, value & 0xFFFF_FFFF)

    @property
    def eflags(self) -> int:
        return self.engine.read_register(_EFLAGS)

    @eflags.setter
    def eflags(self, value: int) -> None:
        self.engine.write_register(_EFLAGS, value)

    @property
    def cr2(self) -> int:
        return self.engine.read_register(_CR2)

    @cr2.setter
    def cr2(self, value: int) -> None:
        self.engine.write_register(_CR2, value)

    @property
    def esp(self) -> int:
        return self.gpr(4)

    @esp.setter
    def esp(self, value: int) -> None:
        self.set_gpr(4, value)

    def gpr(self, index: int) -> int:
        """A general register by its machine encoding, 0 = EAX ... 7 = EDI."""
        return self.engine.read_register(GPR_IDS[index])

    def set_gpr(self, index: int, value: int) -> None:
        self.engine.write_register(GPR_IDS[index], value & 0xFFFF_FFFF)

    def registers(self) -> dict[str, int]:
        """The general registers, EIP and EFLAGS by name."""
        named = {name: self.gpr(index) for index, name in enumerate(GPR_NAMES)}
        return {**named, "eip": self.eip, "eflags": self.eflags}

    @property
    def cpl(self) -> int:
        return self.engine.cpl

    @property
    def code(self) -> Segment:
        return self.segment(SegmentRegister.CS)

    @property
    def stack(self) -> Segment:
        return self.segment(SegmentRegister.SS)

    def segment(self, register: SegmentRegister) -> Segment:
        return self.engine.read_segment(register)

    def set_segments(self, segments: dict[SegmentRegister, Segment]) -> None:
        """Load segment registers; the descriptors must be those in the current tables."""
        self.engine.write_segments(segments)

    # -- settings ----------------------------------------------------------------------------

    def read_setting(self, setting: Setting) -> SettingValue:
        return self.engine.read_setting(setting)

    def write_setting(self, setting: Setting, value: SettingValue) -> None:
        self.engine.write_setting(setting, value)

    def control(self, setting: Setting) -> int:
        """A control register or EFER."""
        value = self.engine.read_setting(setting)
        assert isinstance(value, int)
        return value

    @property
    def idtr(self) -> TableRegister:
        return self._table(Setting.IDTR)

    @property
    def gdtr(self) -> TableRegister:
        return self._table(Setting.GDTR)

    def _table(self, setting: Setting) -> TableRegister:
        value = self.engine.read_setting(setting)
        assert isinstance(value, TableRegister)
        return value

    @property
    def ldtr(self) -> Segment:
        return self._system_segment(Setting.LDTR)

    @property
    def tr(self) -> Segment:
        return self._system_segment(Setting.TR)

    def _system_segment(self, setting: Setting) -> Segment:
        value = self.engine.read_setting(setting)
        assert isinstance(value, Segment)
        return value

    @property
    def paging_mode(self) -> PagingMode:
        return PagingMode(*(self.control(s) for s in (Setting.CR0, Setting.CR3, Setting.CR4, Setting.EFER)))

    # -- memory ------------------------------------------------------------------------------

    def read_physical(self, physical: int, size: int) -> int | None:
        """An integer from RAM, or None where there is none."""
        if physical + size > len(self.ram):
            return None
        return int.from_bytes(self.ram[physical : physical + size], "little")

    def write_physical(self, physical: int, size: int, value: int) -> None:
        self.ram[physical : physical + size] = value.to_bytes(size, "little")

    def walk(self, linear: int) -> Walk:
        """What the page tables now in CR3 say of a linear address; changes nothing."""
        return walk(self.paging_mode, self.read_physical, linear)

    def translate(self, linear: int, access: Access, *, user: bool = False, mode: PagingMode | None = None) -> int:
        """The physical address for an access, A and D bits set as by the processor.

        ``mode`` is what `paging_mode` gave, for a caller with many addresses. Raises `Raised` (a
        page fault) or `UnmappedAccess`.
        """
        mode = mode or self.paging_mode
        found = walk(mode, self.read_physical, linear)
        error = fault_code(mode, found, access, user=user)
        if error is not None or found.physical is None:
            raise Raised(14, error, linear)
        for address, bits in accessed_bits(mode, found, access):
            self.ram[address] |= bits
        if found.physical >= len(self.ram):
            raise UnmappedAccess("instruction fetch" if access is Access.FETCH else access.name.lower(), found.physical)
        return found.physical

    def read_bytes(self, linear: int, size: int) -> bytes:
        """Bytes from linear memory at supervisor level. Raises `Raised` (a page fault) and `UnmappedAccess`."""
        return b"".join(bytes(self.ram[at : at + n]) for at, n in self._pieces(linear, size, Access.READ))

    def write_bytes(self, linear: int, data: bytes) -> None:
        """Bytes to linear memory at supervisor level; nothing is written if any page faults."""
        done = 0
        for at, n in list(self._pieces(linear, len(data), Access.WRITE)):
            self.ram[at : at + n] = data[done : done + n]
            done += n

    def _pieces(self, linear: int, size: int, access: Access) -> list[tuple[int, int]]:
        pieces = []
        while size > 0:
            n = min(size, PAGE_SIZE - page_offset(linear))
            pieces.append((self.translate(linear, access), n))
            linear = linear + n & 0xFFFF_FFFF
            size -= n
        return pieces

    def read(self, linear: int, size: int) -> int:
        return int.from_bytes(self.read_bytes(linear, size), "little")

    def write(self, linear: int, size: int, value: int) -> None:
        self.write_bytes(linear, value.to_bytes(size, "little"))

    def peek(self, linear: int, size: int) -> bytes | None:
        """Bytes of linear memory without any effect; None if some of it isn't mapped to RAM."""
        out = b""
        while size > 0:
            found = self.walk(linear)
            n = min(size, PAGE_SIZE - page_offset(linear))
            if found.physical is None or found.physical + n > len(self.ram):
                return None
            out += bytes(self.ram[found.physical : found.physical + n])
            linear, size = linear + n & 0xFFFF_FFFF, size - n
        return out

    # -- delivery ----------------------------------------------------------------------------

    def interrupt(self, vector: int) -> Delivered:
        """Deliver an external interrupt through the current IDT now. Raises `Shutdown`."""
        eip = self.eip
        return self._deliver(Event(vector, Source.EXTERNAL, eip), eip)

    def raise_exception(self, vector: int, error_code: int | None = None) -> Delivered:
        """Deliver a fault of the instruction at EIP through the current IDT. Raises `Shutdown`."""
        eip = self.eip
        return self._deliver(Event(vector, Source.EXCEPTION, eip, error_code), eip)

    def _deliver_pending(self, pending: PendingException) -> Delivered:
        eip = self.eip
        source = Source.SOFTWARE if pending.software else Source.EXCEPTION
        cr2 = self.cr2 if pending.vector == 14 and not pending.software else None
        return self._deliver(Event(pending.vector, source, eip + pending.length, pending.error_code, cr2), eip)

    def _deliver(self, event: Event, eip: int) -> Delivered:
        target = LiveTarget(self)
        v86 = bool(target.eflags & EFLAGS_VM)
        if v86:
            event = replace(event, v86=tuple(self.segment(register).selector for register in _V86_FRAME))
        result = deliver(target, event, eip)
        if v86:
            self.engine.leave_v86()
        segments = {SegmentRegister.CS: result.code}
        if result.stack is not None:
            segments[SegmentRegister.SS] = result.stack
        if v86:
            segments.update(dict.fromkeys(_V86_FRAME, NULL_SEGMENT))
        self.set_segments(segments)
        self.eflags = result.eflags
        self.esp = result.esp
        self.eip = result.eip
        if result.cr2 is not None:
            self.cr2 = result.cr2
        return result

    @property
    def in_interrupt_shadow(self) -> bool:
        """Whether the last instruction was an STI or a load of SS, which hold interrupts off for one more.

        Both end a basic block, so the last block's end tells whether it was executed last. An STI
        with IF set already counts too: it delays an interrupt by one block.
        """
        linear = self.code.base + self.eip & 0xFFFF_FFFF
        if self.engine.block_end != linear:
            return False
        last = self.peek(linear - 2 & 0xFFFF_FFFF, 2)
        if last is None:
            return False
        return last[1] in (0xFB, 0x17) or (last[0] == 0x8E and last[1] >> 3 & 7 == SegmentRegister.SS)

    def port_allowed(self, port: int, size: int) -> bool:
        """Whether IOPL or the I/O permission bitmap allow an access (SDM vol. 1, 19.5)."""
        if not self.control(Setting.CR0) & CR0_PE:
            return True
        eflags = self.eflags
        if not eflags & EFLAGS_VM and self.cpl <= (eflags & EFLAGS_IOPL) >> 12:
            return True
        tr = self.tr
        if tr.system_type not in (TSS32_AVAILABLE, TSS32_BUSY) or tr.limit < _TSS_IO_MAP_BASE + 1:
            return False
        at = self.read(tr.base + _TSS_IO_MAP_BASE & 0xFFFF_FFFF, 2) + port // 8
        if at + 1 > tr.limit:
            return False
        bits = self.read(tr.base + at & 0xFFFF_FFFF, 2) >> (port & 7)
        return not bits & ((1 << size) - 1)

    def _port_refusal(self, port: int, size: int) -> Raised | None:
        try:
            return None if self.port_allowed(port, size) else Raised(13, 0)
        except Raised as fault:
            return fault

    def _descriptor_for_register(self, selector: int) -> Segment:
        try:
            return load_descriptor(LiveTarget(self), selector)
        except Raised:
            return Segment(selector)

    def _code_byte(self, offset: int) -> int:
        at = self.peek(self.code.base + self.eip + offset & 0xFFFF_FFFF, 1)
        return at[0] if at else 0

    # -- running -----------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """Virtual time in cycles; live, also inside a run."""
        return self.engine.now

    def advance_to(self, when: int) -> None:
        """Let time pass while the processor is halted."""
        self.engine.now = max(self.engine.now, when)

    def request_stop(self) -> None:
        """End the run at the next block boundary; safe from any hook."""
        self.limit_run(0)

    def limit_run(self, deadline: int) -> None:
        """Bring the deadline of the run that is under way forward to this time (cycles)."""
        if deadline < self._deadline and self.engine.failure is None:
            self._deadline = deadline
            self.engine.set_deadline(min(deadline, self._breath_end))

    def stop_when_open(self) -> None:
        """Have the next run end also at the first basic block that would start with IF set.

        For who has an interrupt waiting that IF holds off.
        """
        self._until_open = True

    def run(self, deadline: int) -> Stop:
        """Run until HLT, a planted instruction, or the first block at or after ``deadline`` (cycles).

        Raises `Shutdown` for a triple fault, and whatever a hook raised.
        """
        self._deadline = deadline
        self.engine.set_until_open(self._until_open)
        try:
            return self._run()
        finally:
            self._until_open = False

    def _run(self) -> Stop:
        engine = self.engine
        self._breath_end = engine.now + engine.breath
        while True:
            self._trapped = False
            engine.set_deadline(min(self._deadline, self._breath_end))
            outcome = engine.run()
            if engine.flush_code_wanted:
                engine.flush_code_wanted = False
                engine.flush_code()
            match outcome:
                case Outcome.STOPPED:
                    if self._trapped:
                        return Stop.TRAP
                    if engine.now >= self._deadline or (self._until_open and self.eflags & EFLAGS_IF):
                        return Stop.DEADLINE
                    self.on_breath()
                    self._breath_end = engine.now + engine.breath
                case Outcome.HALTED:
                    return Stop.HALT
                case Outcome.EXCEPTION:
                    assert engine.pending is not None
                    first = engine.pending.vector
                    engine.counts[first] += 1
                    delivered = self._deliver_pending(engine.pending)
                    if delivered.vector != first:
                        engine.counts[delivered.vector] += 1

    # -- what the engine calls back ----------------------------------------------------------

    def port_in(self, port: int, size: int) -> int:
        value = self.ports.read(port, size) if self.ports else -1
        return value & ((1 << 8 * size) - 1)

    def port_out(self, port: int, size: int, value: int) -> None:
        if self.ports:
            self.ports.write(port, size, value & ((1 << 8 * size) - 1))

    def protected_store(self, physical: int, size: int, value: int) -> None:
        self.write_physical(physical, size, value)
        if self.on_protected_store is not None:
            self.on_protected_store(physical, size)

    def trap(self, address: int) -> bool:
        if not self.is_trap(address):
            return False
        self._trapped = True
        self.trapped_at = address
        return True

    def save_context(self) -> Any:
        """The whole processor state (not memory), to be put back by `restore_context`."""
        return self.engine.save_context()

    def restore_context(self, context: Any) -> None:
        self.engine.restore_context(context)

    def restore_user_state(self, context: Any) -> None:
        """Put a saved state back except for the settings: those stay as they are now."""
        settings = {setting: self.read_setting(setting) for setting in Setting}
        self.engine.restore_context(context)
        for setting, value in settings.items():
            self.write_setting(setting, value)
