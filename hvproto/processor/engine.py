"""The seam between our processor and Unicorn: what a way of driving the engine must offer.

Everything here uses Unicorn's public interface only. Two subclasses complete it: `native`, which
knows the private layout of one pinned version, and `portable`, which knows nothing private.
"""

from __future__ import annotations

import ctypes
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import uclib

from hvproto.addresses import PAGE_SIZE
from hvproto.errors import EngineError
from hvproto.processor import mode_change
from hvproto.processor.c_types import CALLBACKS, MMIO_READ, MMIO_WRITE, Mmr, Msr
from hvproto.processor.deferred_stores import DeferredStores
from hvproto.processor.segments import (
    PRESENT,
    TSS32_AVAILABLE,
    TYPE_SHIFT,
    Segment,
    SegmentRegister,
    TableRegister,
    flat,
)
from hvproto.processor.settings import (
    CR0_ET,
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    DR7_ENABLED,
    EFER_MSR,
    EFLAGS_FIXED,
    MXCSR_RESET,
    Setting,
    SettingValue,
)
from hvproto.processor.state import StateView

if TYPE_CHECKING:
    from hvproto.processor.hidden_faults import HiddenFaults
    from hvproto.processor.settings_in_bulk import SettingsInBulk
    from hvproto.processor.simple_tables import SimpleTables


class Outcome(Enum):
    """Why the engine came back."""

    STOPPED = auto()  # the deadline, or somebody asked for it
    HALTED = auto()  # HLT at ring 0; EIP is after it
    EXCEPTION = auto()  # an exception that the engine left to us; EIP is precise
    RESUMING = auto()  # at a block's beginning: only one instruction of it may be executed with RF set
    SYSTEM_CALL = auto()  # a SYSCALL or SYSENTER, of which the engine has done nothing; EIP is after it
    URGENT_STORE = auto()  # the instruction at EIP, which isn't done yet, has to be the only one of its run


class SystemCall(Enum):
    """The instructions that the engine only announces."""

    SYSCALL = x86_const.UC_X86_INS_SYSCALL
    SYSENTER = x86_const.UC_X86_INS_SYSENTER


@dataclass(frozen=True, slots=True)
class PendingException:
    """An exception or software interrupt that has been raised but not delivered."""

    vector: int
    error_code: int | None = None
    software: bool = False
    """INT n, INT3 or INTO: the gate's DPL counts, and the return address is after the instruction."""
    length: int = 0
    """Of a software interrupt: the instruction's length in bytes. EIP still points at it."""


class Callbacks(Protocol):
    """What the engine asks its owner for in the middle of a run. None of these may decide anything lasting."""

    def port_in(self, port: int, size: int) -> int: ...
    def port_out(self, port: int, size: int, value: int) -> None: ...
    def new_block(self, address: int, size: int) -> bool: ...
    def watched(self, address: int) -> bool: ...
    def protected_store(self, physical: int, size: int, value: int) -> bool: ...
    def trap(self, address: int) -> bool: ...


VECTORS_WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17})

GPR_NAMES = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
"""The general registers of 32-bit code in their machine encoding."""
SHORT_GPR_NAMES = tuple(name[1:] for name in GPR_NAMES)
WIDE_GPR_NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
"""All sixteen, 64 bits wide."""

GPR_IDS = tuple(getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in WIDE_GPR_NAMES)
EIP_ID = x86_const.UC_X86_REG_RIP
EFLAGS_ID = x86_const.UC_X86_REG_EFLAGS
CR2_ID = x86_const.UC_X86_REG_CR2
DEBUG_IDS = tuple(getattr(x86_const, f"UC_X86_REG_DR{n}") for n in range(8))
CONTROL_IDS = {
    Setting.CR0: x86_const.UC_X86_REG_CR0,
    Setting.CR3: x86_const.UC_X86_REG_CR3,
    Setting.CR4: x86_const.UC_X86_REG_CR4,
}
TABLE_IDS = {
    Setting.IDTR: x86_const.UC_X86_REG_IDTR,
    Setting.GDTR: x86_const.UC_X86_REG_GDTR,
    Setting.LDTR: x86_const.UC_X86_REG_LDTR,
    Setting.TR: x86_const.UC_X86_REG_TR,
}

# How the engine keeps a busy TSS: as available. A busy type would abort the process at the next stack switch.
_TSS_BUSY_BIT = 1 << 9


_FIRST_BLOCK = b"\xeb\x00\xf4"
"""JMP to the next instruction, HLT."""


class UnmappedAccess(Exception):
    """An access to physical memory that isn't there; carried out of a run by the engine."""

    def __init__(self, kind: str, physical: int) -> None:
        super().__init__(kind, physical)
        self.kind = kind
        self.physical = physical


class Engine(ABC):
    """One Unicorn instance in system mode over a RAM buffer that Python owns. All modes of the processor."""

    name: str
    traps_port_io: bool
    """Whether IN and OUT check IOPL and the I/O bitmap by themselves."""
    ram_rights = uc_const.UC_PROT_ALL
    """What Unicorn is told of RAM."""
    bulk: SettingsInBulk | None = None
    """How it saves and loads all settings at once, if it can."""
    forgets_in_run = False
    was_in_shadow = False
    """Whether interrupts were held off for the instruction whose exception was delivered last."""
    simple_tables: SimpleTables | None = None
    hidden_faults: HiddenFaults | None = None
    """Who follows stores with nobody asked, if it can."""
    breath: int
    """How many cycles may pass before Python must get a chance to see a signal: some tenths of a second."""

    def __init__(self, ram: memoryview, callbacks: Callbacks) -> None:
        # Nothing that an engine holds holds the engine: it goes, with the megabytes below it, when its owner goes.
        self.callbacks = weakref.proxy(callbacks)
        self.failure: BaseException | None = None
        self._ram = ram
        self._buffer = (ctypes.c_char * len(ram)).from_buffer(ram)
        # The constructor's mode is that of the interface only: with 64 it has all registers at their full width.
        self.uc = unicorn.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_64)
        self.uc.mem_map_ptr(0, len(ram), self.ram_rights, ctypes.addressof(self._buffer))
        # No "until" address: Unicorn would translate it and clobber CR2.
        self.uc.ctl_exits_enabled(True)
        self.uc.ctl_set_exits([])
        self._handle = self.uc._uch
        self._cell = ctypes.c_uint64()
        self._cell_ref = ctypes.byref(self._cell)
        self._mmr = Mmr()
        self._mmr_ref = ctypes.byref(self._mmr)
        self.system_call: SystemCall | None = None
        """After Outcome.SYSTEM_CALL: which."""
        self.system_call_at = 0
        """... and the EIP of the instruction."""
        self._is_tried_out = False
        self._mmio: list[Any] = []
        self._watches: dict[int, int] = {}
        self._traps: dict[int, int] = {}
        self._planters: dict[int, int] = {}
        self.flush_code_wanted = False
        self._callbacks: dict[int, Any] = {}
        # One for all addresses: translated code may call it directly, also when the hook is long gone.
        self._call_watched = self._callback(uc_const.UC_HOOK_CODE, self._on_watched)
        self._call_trap = self._callback(uc_const.UC_HOOK_CODE, self._on_trap)
        self._trap_hook: Any = self._call_trap
        self.deferred = DeferredStores(ram, ctypes.addressof(self._buffer))
        self._store_hook = self.hook(uc_const.UC_HOOK_MEM_WRITE_PROT, self._on_protected_store)
        self.hook(
            uc_const.UC_HOOK_MEM_READ_UNMAPPED
            | uc_const.UC_HOOK_MEM_WRITE_UNMAPPED
            | uc_const.UC_HOOK_MEM_FETCH_UNMAPPED
            | uc_const.UC_HOOK_MEM_FETCH_PROT,
            self._on_unmapped,
        )
        self.hook(uc_const.UC_HOOK_EDGE_GENERATED, self._on_new_block)
        self.hook(uc_const.UC_HOOK_INSN, self._on_syscall, instruction=SystemCall.SYSCALL.value)
        self.hook(uc_const.UC_HOOK_INSN, self._on_sysenter, instruction=SystemCall.SYSENTER.value)

    def reset(self) -> None:
        """To 32-bit protected mode, flat, ring 0, no paging; everything else as after RESET (SDM vol. 3, table 9-1)."""
        # The constructor has set EFER.LMA, which only the end of paging in long mode clears.
        self.write_register(CONTROL_IDS[Setting.CR4], CR4_PAE)
        self.write_register(CONTROL_IDS[Setting.CR0], CR0_PE | CR0_ET | CR0_PG)
        self.write_register(CONTROL_IDS[Setting.CR0], CR0_PE | CR0_ET)
        self.write_register(CONTROL_IDS[Setting.CR4], 0)
        self.write_msr(EFER_MSR, 0)
        self.write_register(x86_const.UC_X86_REG_MXCSR, MXCSR_RESET)
        self.write_register(EFLAGS_ID, EFLAGS_FIXED)
        segments = dict.fromkeys(SegmentRegister, flat(0x10, code=False, dpl=0))
        segments[SegmentRegister.CS] = flat(0x08, code=True, dpl=0)
        self.write_segments(segments)
        # Unicorn leaves it absent, and aborts the process when an exception at ring 3 needs it.
        self.write_setting(Setting.TR, Segment(0, 0, 0xFFFF, PRESENT | TSS32_AVAILABLE << TYPE_SHIFT))
        self.write_setting(Setting.IDTR, TableRegister(0, 0x3FF))
        self.forget_exception()
        self.try_out(_FIRST_BLOCK)  # of the first block that the engine ever translates, it doesn't tell

    def try_out(self, code: bytes, at: int = 0) -> Outcome:
        """Execute code of ours at a physical address that is the linear one, too; memory and time are put back."""
        saved, now, instructions = bytes(self._ram[at : at + len(code)]), self.now, self.instructions
        self._ram[at : at + len(code)] = code
        self.flush_code()
        self.write_register(EIP_ID, at)
        self._is_tried_out = True
        self.set_deadline(now + len(code) + 1)
        outcome = self.run()
        self._is_tried_out = False
        self.now, self.instructions = now, instructions
        self._ram[at : at + len(code)] = saved
        self.flush_code()
        self.write_register(EIP_ID, 0)
        return outcome

    def hook(
        self, kind: int, method: Callable[..., Any], *, begin: int = 1, end: int = 0, instruction: int | None = None
    ) -> int:
        """Have Unicorn call a method of ours, without holding us; returns the hook's handle."""
        return self._add_hook(kind, self._callback(instruction or kind & -kind, method), begin, end, instruction)

    def _callback(self, kind: int, method: Callable[..., Any]) -> Any:
        """What C calls for a method of ours.

        The binding's own way makes reference cycles, which keep all memory until the collector comes round.
        """
        owner = weakref.ref(self)
        function = method.__func__  # type: ignore[attr-defined]

        def call(_uc: Any, *arguments: Any) -> Any:
            engine = owner()
            try:
                return function(engine, *arguments[:-1])
            except BaseException as error:  # raised by a signal's handler, at any place
                if engine is not None:
                    engine.fail(error)
                return 0

        return CALLBACKS[kind](call)

    def _add_hook(self, kind: int, callback: Any, begin: int, end: int, instruction: int | None = None) -> int:
        handle = ctypes.c_size_t()
        more = () if instruction is None else (ctypes.c_int(instruction),)
        status = uclib.uc_hook_add(
            self._handle,
            ctypes.byref(handle),
            kind,
            callback,
            None,
            ctypes.c_uint64(begin),
            ctypes.c_uint64(end),
            *more,
        )
        if status:
            raise EngineError(f"the engine refused a hook: {unicorn.UcError(status)}")
        self._callbacks[handle.value] = callback
        return handle.value

    @property
    def ram_address(self) -> int:
        """Where RAM lies in our own memory."""
        return ctypes.addressof(self._buffer)

    # -- registers ---------------------------------------------------------------------------

    def read_register(self, register: int) -> int:
        """A general or control register by Unicorn's number."""
        self._cell.value = 0
        uclib.uc_reg_read(self._handle, register, self._cell_ref)
        return self._cell.value

    def paging_words(self) -> tuple[int, int, int, int]:
        """CR0, CR3, CR4 and EFER, which together make the paging mode."""
        cr0, cr3, cr4 = (self.read_register(CONTROL_IDS[one]) for one in (Setting.CR0, Setting.CR3, Setting.CR4))
        return cr0, cr3, cr4, self.read_msr(EFER_MSR)

    def code_at(self, linear: int, size: int) -> bytes | None:
        """The bytes of code that the engine has just fetched from a linear address, if it can tell at once."""
        return None

    def take_quickly(self, vector: int) -> bool:
        """Deliver an external interrupt between two runs, if that is a simple case; False, and nothing done, if not."""
        return False

    def write_register(self, register: int, value: int) -> None:
        self._cell.value = value
        _check(uclib.uc_reg_write(self._handle, register, self._cell_ref))

    def read_setting(self, setting: Setting) -> SettingValue:
        if setting in CONTROL_IDS:
            return self.read_register(CONTROL_IDS[setting])
        if setting is Setting.EFER:
            return self.read_msr(EFER_MSR)
        uclib.uc_reg_read(self._handle, TABLE_IDS[setting], self._mmr_ref)
        if setting.kind is TableRegister:
            return TableRegister(self._mmr.base, self._mmr.limit)
        return Segment(self._mmr.selector, self._mmr.base, self._mmr.limit, self._mmr.flags & 0x00F0_FF00)

    def write_setting(self, setting: Setting, value: SettingValue) -> None:
        """Write a setting as it is to read, in any order with others.

        EFER.LMA is the one bit that depends on others: long mode is entered or left by a write of EFER, whatever the
        order of CR0, CR4 and EFER, or by one of CR0 as by the processor. EIP keeps its upper half on both ways.
        """
        match value:
            case int() if setting is Setting.EFER:
                mode_change.write_efer(self, value)
            case int() if setting is Setting.CR0:
                mode_change.write_cr0(self, value)
            case int():
                self.write_register(CONTROL_IDS[setting], value)
            case TableRegister(base, limit):
                self._write_mmr(setting, 0, base, limit, 0)
            case Segment(selector, base, limit, attributes):
                if setting is Setting.TR:
                    attributes &= ~_TSS_BUSY_BIT
                self._write_mmr(setting, selector, base, limit, attributes)

    def _write_mmr(self, setting: Setting, selector: int, base: int, limit: int, flags: int) -> None:
        mmr = self._mmr
        mmr.selector, mmr.base, mmr.limit, mmr.flags = selector, base, limit, flags
        _check(uclib.uc_reg_write(self._handle, TABLE_IDS[setting], self._mmr_ref))

    def read_msr(self, number: int) -> int:
        msr = Msr(number, 0)
        uclib.uc_reg_read(self._handle, x86_const.UC_X86_REG_MSR, ctypes.byref(msr))
        return int(msr.value)

    def write_msr(self, number: int, value: int) -> None:
        msr = Msr(number, value)
        _check(uclib.uc_reg_write(self._handle, x86_const.UC_X86_REG_MSR, ctypes.byref(msr)))

    @property
    def cpl(self) -> int:
        """Current privilege level, 0-3."""
        return self.state().cpl

    @abstractmethod
    def state(self) -> StateView:
        """A view on the state, good until the engine runs or a register is written."""

    def read_segment(self, register: SegmentRegister) -> Segment:
        """A segment register with its hidden part."""
        return self.state().segment(register)

    @abstractmethod
    def write_segments(self, segments: dict[SegmentRegister, Segment]) -> None:
        """Load segment registers, hidden part and all; SS brings the CPL with its DPL."""

    def summarize(self) -> None:
        """To be called after the segment registers, or EFLAGS.VM with them, have changed."""
        cr0, cr4 = (self.read_register(CONTROL_IDS[setting]) for setting in (Setting.CR0, Setting.CR4))
        self.state().summarize(cr0, cr4, self.read_msr(EFER_MSR), self.read_register(EFLAGS_ID))

    def set_shadow(self, on: bool) -> None:
        """Hold interrupts off for one instruction, as STI and a load of SS do, or no longer.

        The engine makes a basic block of an instruction in the shadow: so this is also the way to execute just one.
        """
        self.state().set_shadow(on)

    def block_nmi(self) -> None:
        """An NMI is being delivered: no other before the next IRET (SDM vol. 3, 6.7.1)."""
        self.state().block_nmi()

    def unblock_nmi(self) -> None:
        """An IRET: others may come."""
        self.state().unblock_nmi()

    @abstractmethod
    def write_dr7(self, value: int) -> None:
        """Write DR7 between two runs, and have its instruction breakpoints take effect."""

    # -- whole states ------------------------------------------------------------------------

    def save_context(self) -> Any:
        """Everything the engine keeps of the processor, not memory or TLB; opaque.

        The engine's own context points to the breakpoints that it has then: it is saved while there are none.
        """
        dr7 = self.read_register(DEBUG_IDS[7])
        if not dr7 & DR7_ENABLED:
            return dr7, self.uc.context_save()
        self.write_dr7(dr7 & ~DR7_ENABLED)
        context = self.uc.context_save()
        self.write_dr7(dr7)
        return dr7, context

    def restore_context(self, context: Any) -> None:
        """Put a saved state back and flush the TLB, which a restore alone does not."""
        dr7, saved = context
        present = self.read_register(DEBUG_IDS[7])
        if present & DR7_ENABLED:
            self.write_dr7(present & ~DR7_ENABLED)
        self.restore_at_once(saved)
        if dr7 & DR7_ENABLED:
            self.write_dr7(dr7)

    def restore_at_once(self, saved: Any) -> None:
        """Put back a state of Unicorn's own that was saved with the breakpoints that there are now, or with none."""
        self.uc.context_restore(saved)
        self.flush_tlb()

    # -- memory ------------------------------------------------------------------------------

    def flush_tlb(self) -> None:
        self.uc.ctl(uc_const.UC_CTL_TLB_FLUSH, uc_const.UC_CTL_IO_WRITE)

    def flush_page(self, _linear: int) -> None:
        """Forget what is cached of a linear page. Safe in a hook on a store to a protected page."""
        self.flush_tlb()

    def flush_code(self) -> None:
        """Forget all translated code: needed after code bytes change behind the engine's back."""
        self.uc.ctl_flush_tb()

    def forget_code(self, linear: int, size: int) -> None:
        """Forget the translations of code in a *mapped* linear range, after its bytes were changed from outside."""
        self.uc.ctl_remove_cache(linear, linear + size)

    def forget_code_in(self, physical: int, size: int = PAGE_SIZE) -> None:
        """Forget the translations of code that lies, whole or in part, in so many bytes within a page of RAM, wherever
        it is mapped. In a run only where `forgets_in_run` is set, and not the block that is being executed.
        """
        self.flush_code()

    def protect(self, physical: int, size: int, *, on: bool) -> None:
        """Trap (or stop trapping) stores to whole pages of physical memory.

        A store to such a page isn't performed by the engine; `Callbacks.protected_store` gets it. Where that says no,
        the run ends before the instruction.
        """
        rights = uc_const.UC_PROT_READ | uc_const.UC_PROT_EXEC if on else uc_const.UC_PROT_ALL
        # The engine flushes the page by translating its address as if it were linear, and an
        # unmapped one leaves the traces of a page fault.
        cr2 = self.read_register(x86_const.UC_X86_REG_CR2)
        self.uc.mem_protect(physical, size, rights)
        self.write_register(x86_const.UC_X86_REG_CR2, cr2)
        self.forget_exception()

    def map_mmio(
        self, physical: int, size: int, read: Callable[[int, int], int], write: Callable[[int, int, int], None]
    ) -> None:
        """Let functions answer at whole pages of physical memory: (offset, bytes) and (offset, bytes, value)."""
        owner = weakref.ref(self)

        def on_read(_uc: Any, offset: int, count: int, _data: Any) -> int:
            engine = owner()
            return 0 if engine is None else int(engine.guarded(read, offset, count, otherwise=0))

        def on_write(_uc: Any, offset: int, count: int, value: int, _data: Any) -> None:
            engine = owner()
            if engine is not None:
                engine.guarded(write, offset, count, value)

        callbacks = MMIO_READ(on_read), MMIO_WRITE(on_write)
        self._mmio.append(callbacks)
        reader, data = self.quick_reader(callbacks[0], physical, size)
        _check(uclib.uc_mmio_map(self._handle, ctypes.c_uint64(physical), ctypes.c_size_t(size), reader, data,
                                 callbacks[1], None))  # fmt: skip

    def quick_reader(self, callback: Any, _physical: int, _size: int) -> tuple[Any, Any]:
        """What the engine calls for loads from such a range instead of this callback, and what it gives it."""
        return callback, None

    def answer_quickly(self, physical: int | None, value: int = 0) -> None:  # noqa: B027 - it may ask nevertheless
        """Loads of four bytes at this one address of `map_mmio` give ``value`` without asking; None: all ask again."""

    def plant(self, address: int) -> None:
        """Have `Callbacks.trap` called when an instruction *starts* at this linear address.

        Costs nothing elsewhere. Takes effect after `flush_code`, for code that was run before. Who plants at the same
        address - there are two views of a guest, and other guests - shares the trap.
        """
        if address not in self._traps:
            self._traps[address] = self._add_code_hook(address, self._trap_hook)
        self._planters[address] = self._planters.get(address, 0) + 1

    def _add_code_hook(self, address: int, callback: Any) -> int:
        """A hook on the instruction at a linear address."""
        return self._add_hook(uc_const.UC_HOOK_CODE, callback, address, address)

    def _drop_code_hook(self, address: int, handle: int) -> None:
        _check(uclib.uc_hook_del(self._handle, ctypes.c_size_t(handle)))
        del self._callbacks[handle]

    def is_planted(self, address: int) -> bool:
        """Whether somebody has planted a trap at this linear address."""
        return address in self._traps

    def unplant(self, address: int) -> None:
        """Take back one `plant`; the last one takes the trap out."""
        left = self._planters.pop(address, 0) - 1
        if left > 0:
            self._planters[address] = left
        elif left == 0:
            self._drop_code_hook(address, self._traps.pop(address))

    def forget_exception(self) -> None:
        """Have the engine forget the last exception, so that the next one isn't taken for a double fault."""
        self.state().old_exception.value = -1

    # -- running -----------------------------------------------------------------------------

    @property
    @abstractmethod
    def now(self) -> int:
        """Virtual time in cycles: bytes of code in all basic blocks entered so far."""

    @now.setter
    @abstractmethod
    def now(self, value: int) -> None: ...

    @abstractmethod
    def count_instructions(self, on: bool) -> None:
        """Count instructions from now on, or no longer; between two runs. Drops all translations. Raises EngineError
        where it can't be done."""

    @property
    @abstractmethod
    def instructions(self) -> int:
        """Instructions begun while they were counted, see `instruction_count`. What is written counts from then on: the
        next instruction is begun, also if it goes on with a REP."""

    @instructions.setter
    @abstractmethod
    def instructions(self, value: int) -> None: ...

    @property
    @abstractmethod
    def last_block(self) -> tuple[int, int]:
        """Linear addresses of the first byte of the last basic block that was entered, and after it: for who is called
        in a run. After a run that time has ended, they may be those of an earlier one, but not from before the run."""

    @property
    @abstractmethod
    def cr2_before(self) -> int:
        """CR2 before the last page fault."""

    @abstractmethod
    def set_deadline(self, when: int) -> None:
        """Stop at the first basic block that would start at or after this time. Callable in a run."""

    @property
    def delivered(self) -> bytes:
        """Something that changes with each exception that the engine delivers by itself."""
        return b""

    def unmark_read(self, linear: int) -> None:  # noqa: B027 - not every engine can
        """Clear the A bits that the read of an operand of the instruction at EIP has set: its write has faulted."""

    def note_return(self, block: int) -> None:  # noqa: B027 - not every engine cares
        """The basic block that begins at this linear address ends with an IRET."""

    def watch(self, address: int) -> None:
        """Have `Callbacks.watched` called when an instruction *starts* at this linear address.

        The engine has wrong arithmetic flags where an instruction with a hook on it faults: what is watched must have
        its faults found by the callback.
        """
        self._watches[address] = self._add_code_hook(address, self._call_watched)

    def unwatch(self, address: int) -> None:
        """No longer, between two runs. What has been translated with the hook may go on calling, or not."""
        self._drop_code_hook(address, self._watches.pop(address))

    def hear_code(self, method: Callable[[int, int], None]) -> None:
        """Have a method called with the linear address and the size of each instruction, for good, which takes time."""
        self.uc.hook_add(uc_const.UC_HOOK_CODE, lambda _uc, address, size, _data: method(address, size))

    @abstractmethod
    def set_until_open(self, on: bool) -> None:
        """Whether to stop also at the first basic block before which an external interrupt could be taken."""

    @abstractmethod
    def run(self) -> Outcome:
        """Run from the current CS:EIP until something ends it."""

    @abstractmethod
    def stop(self) -> None:
        """Ask the running engine to stop; precise only where the caller's hook is."""

    counts: Any
    """How often each vector was raised inside runs (a refused INT n counts, and so does its #GP): 256 numbers."""

    pending: PendingException | None = None
    """After Outcome.EXCEPTION: what to deliver."""

    def raise_failure(self) -> None:
        """Raise what a hook has raised in the run that has ended, if any."""
        failure, self.failure = self.failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # an exception holds the frames that it came through, and they hold us

    # -- hooks -------------------------------------------------------------------------------

    def fail(self, problem: BaseException) -> None:
        """Something was raised in a hook: end the run with it, unless there is something already."""
        if self.failure is None:
            self.failure = problem
        self.set_deadline(0)

    def decide_again(self) -> None:  # noqa: B027 - there is nothing to do here
        """Python has a say in what becomes of a guest: whoever decides for it asks again. Here, nobody does."""

    def guarded(self, action: Callable[..., Any], *arguments: Any, otherwise: Any = None) -> Any:
        """Call back; keep the first exception, instead of letting the engine swallow it, and end the run.

        It ends with the basic block: a stop in the middle of an instruction would execute that anew on resumption.
        """
        try:
            return action(*arguments)
        except BaseException as error:  # also KeyboardInterrupt: it must not vanish in a C frame
            self.fail(error)
            return otherwise

    def _on_protected_store(self, _access: int, physical: int, size: int, value: int) -> bool:
        # A store that crosses pages arrives once in full and then byte by byte; only the bytes know
        # where the second page lies.
        if (physical & 0xFFF) + size <= 0x1000 and not self.deferred.offer(physical, size, value):
            value &= (1 << 8 * size) - 1
            return bool(self.guarded(self.callbacks.protected_store, physical, size, value, otherwise=True))
        return True

    def _on_unmapped(self, access: int, physical: int, _size: int, _value: int) -> bool:
        kind = {
            uc_const.UC_MEM_READ_UNMAPPED: "read",
            uc_const.UC_MEM_WRITE_UNMAPPED: "write",
            uc_const.UC_MEM_FETCH_UNMAPPED: "instruction fetch",
            uc_const.UC_MEM_FETCH_PROT: "instruction fetch",  # from a page at which functions answer
        }[access]
        if self.failure is None:
            self.failure = UnmappedAccess(kind, physical)
        return False

    def _on_new_block(self, block: Any, _before: Any) -> None:
        if self._is_tried_out:
            return
        found = block.contents
        if self.guarded(self.callbacks.new_block, found.pc, found.size):
            self.set_deadline(0)  # it must not run before it has been translated anew

    def _on_watched(self, address: int, _size: int) -> None:
        if not self._is_tried_out and self.guarded(self.callbacks.watched, address, otherwise=True):
            self._stop_at(address)

    def _on_syscall(self) -> None:
        self._announce(SystemCall.SYSCALL)

    def _on_sysenter(self) -> None:
        self._announce(SystemCall.SYSENTER)

    def _announce(self, call: SystemCall) -> None:
        self.system_call = call
        self.system_call_at = self.read_register(EIP_ID)
        self.stop()

    def _on_trap(self, address: int, _size: int) -> None:
        if not self._is_tried_out and self.guarded(self.callbacks.trap, address, otherwise=True):
            self._stop_at(address)

    def _stop_at(self, _address: int) -> None:
        """Stop before the instruction at this linear address, whose hook asks for it."""
        self.stop()


def _check(status: int) -> None:
    if status:
        raise EngineError(f"the engine refused a register write: {unicorn.UcError(status)}")
