"""The native way: exceptions delivered by the engine's own, unexported-to-Python interrupt code.

Unicorn never looks at the IDT, but the wheel exports the function that does. Machine code of ours, which Unicorn calls
as hooks (`delivery_thunks`), decides whether it may: what it does by the book, it does at once; all else comes to
Python.
"""

from __future__ import annotations

import ctypes
import struct
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import uclib

from hvproto.addresses import PAGE_SIZE, page_offset
from hvproto.errors import EngineError
from hvproto.processor import block_beginnings, delivery_thunks, instruction_count, run_thunks, store_helpers
from hvproto.processor import control_block as block
from hvproto.processor import private_layout as at
from hvproto.processor.asking import ASK_TRAP
from hvproto.processor.code_hooks import CodeHooks
from hvproto.processor.deferred_stores import DEFER_STORE
from hvproto.processor.engine import (
    CONTROL_IDS,
    CR2_ID,
    DEBUG_IDS,
    EFLAGS_ID,
    EIP_ID,
    GPR_IDS,
    VECTORS_WITH_ERROR_CODE,
    Callbacks,
    Engine,
    Outcome,
    PendingException,
)
from hvproto.processor.executable_memory import ExecutableMemory
from hvproto.processor.from_outside_thunk import FROM_OUTSIDE
from hvproto.processor.hidden_faults import HiddenFaults
from hvproto.processor.opcodes import PREFIXES, UPDATES, UPDATES_0F
from hvproto.processor.page_walk_thunk import PAGE_WALK
from hvproto.processor.paging import A
from hvproto.processor.private_layout import self_check
from hvproto.processor.segments import Segment, SegmentRegister
from hvproto.processor.settings import DR7_ENABLED, Setting, SettingValue
from hvproto.processor.settings_in_bulk import SettingsInBulk
from hvproto.processor.simple_tables import SimpleTables
from hvproto.processor.state import SEGMENT_CACHE, SUMMARY_FROM_EFLAGS, StateView
from hvproto.processor.trap_table import TrapTable
from hvproto.processor.unasked import CHANGED, FOLLOWED, FOLLOWS

_IN = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p)
_OUT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)
_FROM_OUTSIDE = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p)
_WALK = struct.Struct("<QQI")
"""The beginning of a page walk's record: linear address, where it was called from, number of marks."""
_ENTER = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_uint64)
"""With the interpreter's lock held: to let go of it costs a quarter of a run, and nobody else is there to take it."""
_ON_CPU = ctypes.PYFUNCTYPE(None, ctypes.c_uint64)
_ON_PAGE = ctypes.PYFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint64)
_ON_RANGE = ctypes.PYFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)
HALTED = 0x10000
_NOWHERE = _MASK = (1 << 64) - 1
_LATEST, AT_ONCE = (1 << 63) - 1, -1
"""Of virtual times; and the limit that has the next block look at deadline, interrupts and RF."""
RING_3 = 3
FIRST_EXTERNAL = 32
"""Of the vectors that are no exceptions'."""


class NativeEngine(Engine):
    """Unicorn with its own interrupt delivery switched on."""

    name = "native"
    traps_port_io = True
    forgets_in_run = True
    ram_rights = uc_const.UC_PROT_READ | uc_const.UC_PROT_EXEC
    breath = 200_000_000

    def __init__(self, ram: memoryview, callbacks: Callbacks) -> None:
        reason = self_check()
        if reason:
            raise EngineError(f"the native engine can't be used: {reason}")
        super().__init__(ram, callbacks)
        self._cpu, self.state_address = at.places(self.uc)
        self._state = StateView(self.state_address, at.LAYOUT)
        self._halted = ctypes.c_uint32.from_address(self._cpu + at.CPU_HALTED)
        self._eip = ctypes.c_uint64.from_address(self.state_address + at.ENV_EIP)
        self._code_and_stack = self.state_address + at.LAYOUT.segments + SEGMENT_CACHE.size * SegmentRegister.CS
        self.bulk = SettingsInBulk(self._cpu, self.state_address, ctypes.addressof(self._buffer))
        self._flush_tlb = _ON_CPU(at.address_of("tlb_flush_x86_64"))
        self._flush_page = partial(_ON_PAGE(at.address_of("tlb_flush_page_x86_64")), self._cpu)
        self._forget_range = _ON_RANGE(at.address_of("tb_invalidate_phys_page_range_x86_64"))
        self._find_registers()
        self._make_control()
        self._quick: list[tuple[int, int, Any]] = []
        self._install_thunks()
        self.reset()

    def _find_registers(self) -> None:
        """Registers that are just a word of the state: read there in an eighth of the time that a call takes."""
        word = ctypes.c_uint64.from_address
        self._general = {name: word(self.state_address + at.ENV_REGS + 8 * index) for index, name in enumerate(GPR_IDS)}
        places = (at.ENV_CR0, at.ENV_CR3, at.ENV_CR4, at.ENV_EFER)
        self._paging = tuple(word(self.state_address + place) for place in places)
        self._controls = dict(zip((Setting.CR0, Setting.CR3, Setting.CR4, Setting.EFER), self._paging, strict=True))
        controls = {CONTROL_IDS[one]: place for one, place in self._controls.items() if one is not Setting.EFER}
        self._registers = {
            **self._general,
            **controls,
            EIP_ID: self._eip,
            CR2_ID: word(self.state_address + at.ENV_CR2),
        }
        self._rsp, self._cr2 = self._general[GPR_IDS[4]], self._registers[CR2_ID]
        self._tlbs = [
            (word(self.state_address + at.ENV_TLB_MASKS + shift), word(self.state_address + at.ENV_TLB_TABLES + shift))
            for shift in (at.SUPERVISOR_WALK << at.TLB_DESCRIPTION_SHIFT, at.USER_WALK << at.TLB_DESCRIPTION_SHIFT)
        ]

    def _make_control(self) -> None:
        self._control = (ctypes.c_char * block.CTL_SIZE)()
        control = ctypes.addressof(self._control)
        struct.pack_into("<QQ", self._control, 0, self._cpu, self.state_address)
        struct.pack_into("<Q", self._control, block.CTL_UC, self._handle.value)
        struct.pack_into("<QQ", self._control, block.CTL_RAM, ctypes.addressof(self._buffer), len(self._buffer))
        self._code_pages = (ctypes.c_uint8 * -(-len(self._buffer) // PAGE_SIZE))()
        struct.pack_into("<Q", self._control, block.CTL_CODE_PAGES, ctypes.addressof(self._code_pages))
        struct.pack_into("<Q", self._control, block.CTL_PROTECTED, ctypes.addressof(self.deferred.protected))
        struct.pack_into("<Q", self._control, block.CTL_WALK, control + block.CTL_WALKS)
        sets = b"".join(map(block.bits, (PREFIXES, UPDATES, UPDATES_0F)))
        ctypes.memmove(control + block.CTL_PREFIXES, sets, len(sets))
        self._now = ctypes.c_uint64.from_address(control + block.CTL_NOW)
        self._instructions = ctypes.c_uint64.from_address(control + block.CTL_INSTRUCTIONS)
        self._counting = ctypes.c_uint32.from_address(control + block.CTL_COUNTING)
        self._number = ctypes.c_uint32.from_address(self.state_address + at.ENV_NUMBER)
        self._repeating = ctypes.c_int64.from_address(self.state_address + at.ENV_REPEATING)
        self._repeating.value = block.NOT_REPEATING
        self._deadline = ctypes.c_uint64.from_address(control + block.CTL_DEADLINE)
        self._stopped = ctypes.c_uint32.from_address(control + block.CTL_STOPPED)
        self._block_start = ctypes.c_uint64.from_address(control + block.CTL_BLOCK_START)
        self._block_size = ctypes.c_uint32.from_address(control + block.CTL_BLOCK_SIZE)
        self._limit = ctypes.c_int64.from_address(control + block.CTL_LIMIT)
        self._block_hook = ctypes.c_uint64.from_address(control + block.CTL_BLOCK_HOOK)
        self._resuming = ctypes.c_uint32.from_address(control + block.CTL_RESUMING)
        self._vector = ctypes.c_uint32.from_address(control + block.CTL_VECTOR)
        self._vector_error = ctypes.c_uint32.from_address(control + block.CTL_ERROR)
        self._length = ctypes.c_uint32.from_address(control + block.CTL_LENGTH)
        self._first_cr2 = ctypes.c_uint64.from_address(control + block.CTL_CR2)
        self._cr2_before = ctypes.c_uint64.from_address(control + block.CTL_CR2_BEFORE)
        self._guest = ctypes.c_uint64.from_address(control + block.CTL_GUEST)
        self.decided: Callable[[], Callable[[], None] | None] = lambda: None
        """Whom to tell that machine code has decided something by itself (`unasked`), as a weak reference."""
        self._left = ctypes.c_uint32.from_address(control + block.CTL_LEFT)
        self._until_open = ctypes.c_uint32.from_address(control + block.CTL_UNTIL_OPEN)
        self.only_slow = ctypes.c_uint32.from_address(control + block.CTL_ONLY_SLOW)
        self.fast_count = ctypes.c_uint64.from_address(control + block.CTL_FAST_COUNT)
        self.counts = (ctypes.c_uint32 * 256).from_address(control + block.CTL_COUNTS)
        self._stores = ctypes.c_uint64.from_address(control + block.CTL_STORES)
        self._was_shadow = ctypes.c_uint32.from_address(control + block.CTL_WAS_SHADOW)
        self.hidden_faults = HiddenFaults()
        struct.pack_into("<Q", self._control, block.CTL_HIDDEN, self.hidden_faults.address)

    def _install_thunks(self) -> None:
        me = weakref.proxy(self)
        self._in = _IN(lambda _uc, port, size, _data: me.guarded(me.callbacks.port_in, port, size, otherwise=0))
        self._out = _OUT(lambda _uc, port, size, value, _data: me.guarded(me.callbacks.port_out, port, size, value))
        control = ctypes.addressof(self._control)
        names = {
            "control": control,
            "do_interrupt": at.address_of("x86_cpu_do_interrupt_x86_64"),
            "reset_dirty": at.address_of("tlb_reset_dirty_x86_64"),
            "page_walk": at.address_of("x86_cpu_tlb_fill_x86_64"),
            "load_code_byte": at.address_of("cpu_ldub_code_x86_64"),
            "load_byte": at.address_of("cpu_ldub_mmuidx_ra_x86_64"),
            "flush_tlb": at.address_of("tlb_flush_x86_64"),
            "lookup_block": at.address_of("helper_lookup_tb_ptr_x86_64"),
            "leave_block": at.address_of("cpu_loop_exit_noexc_x86_64"),
            "compute_flags": at.address_of("helper_cc_compute_all_x86_64"),
            "sync_bounds": at.address_of("cpu_sync_bndcs_hflags_x86_64"),
            "invalidate": at.address_of("tb_invalidate_phys_page_fast_x86_64"),
            "store_byte": at.address_of("cpu_stb_mmuidx_ra_x86_64"),
            "check_byte": at.address_of("helper_check_iob_x86_64"),
            "check_word": at.address_of("helper_check_iow_x86_64"),
            "check_long": at.address_of("helper_check_iol_x86_64"),
            "stop": at.address_of("uc_emu_stop"),
            "look_for_stop": at.address_of("helper_check_exit_request_x86_64"),
            "in_callback": ctypes.cast(self._in, ctypes.c_void_p).value or 0,
            "out_callback": ctypes.cast(self._out, ctypes.c_void_p).value or 0,
            "trap_callback": ctypes.cast(self._call_trap, ctypes.c_void_p).value or 0,
        }
        port_in = run_thunks.port_thunk(("rdi", "rsi", "rdx", "rcx"), "rcx", "{in_callback}")
        port_out = run_thunks.port_thunk(("rdi", "rsi", "rdx", "rcx", "r8"), "r8", "{out_callback}")
        self._code = ExecutableMemory()
        self._on_block = on_block = self._code.add(run_thunks.BLOCK, names)
        self._block_hook.value = on_block * block_beginnings.install()
        self._trap_hook = ctypes.c_void_p(self._code.add(ASK_TRAP, names))
        self._trap_table = TrapTable(control, self._trap_hook.value or 0)
        self._code_hooks = CodeHooks(control, self._handle.value or 0)
        hooks = (
            (uc_const.UC_HOOK_INTR, self._code.add(delivery_thunks.INTERRUPT, names), None),
            (uc_const.UC_HOOK_INSN_INVALID, self._code.add(delivery_thunks.INVALID, names), None),
            (uc_const.UC_HOOK_BLOCK, on_block, None),
            (uc_const.UC_HOOK_INSN, self._code.add(port_in, names), x86_const.UC_X86_INS_IN),
            (uc_const.UC_HOOK_INSN, self._code.add(port_out, names), x86_const.UC_X86_INS_OUT),
        )
        self._hook_handles = []
        for kind, code, instruction in hooks:
            handle = ctypes.c_size_t()
            more = () if instruction is None else (ctypes.c_int(instruction),)
            status = uclib.uc_hook_add(
                self._handle, ctypes.byref(handle), kind, ctypes.c_void_p(code),
                ctypes.c_void_p(control), ctypes.c_uint64(1), ctypes.c_uint64(0), *more,
            )  # fmt: skip
            if status:
                raise EngineError(f"the engine refused a hook: {unicorn.UcError(status)}")
            self._hook_handles.append(handle)
        self._install_deferral()
        struct.pack_into("<Q", self._control, block.CTL_WAITING, ctypes.addressof(self.deferred.count))
        names["start"] = at.address_of("uc_emu_start")
        self._enter = _ENTER(self._code.add(run_thunks.ENTER, names))
        self.control_address = control
        self._deliver_external = _FROM_OUTSIDE(self._code.add(FROM_OUTSIDE, names))
        walk = self._code.add(PAGE_WALK, names, struct.pack("<QQ", control, block.MARK))
        ctypes.c_uint64.from_address(self._cpu + at.CPU_TLB_FILL[0]).value = walk

    def _install_deferral(self) -> None:
        """Put machine code before the hook on stores to protected pages."""
        # Kept by itself: another hook may get the number of one that is deleted.
        self._otherwise = self._callbacks.pop(self._store_hook)
        self.deferred.ask_otherwise(ctypes.cast(self._otherwise, ctypes.c_void_p).value or 0)
        uclib.uc_hook_del(self._handle, ctypes.c_size_t(self._store_hook))
        handle = ctypes.c_size_t()
        status = uclib.uc_hook_add(
            self._handle, ctypes.byref(handle), uc_const.UC_HOOK_MEM_WRITE_PROT,
            ctypes.c_void_p(self._code.add(DEFER_STORE, {})), self.deferred.block,
            ctypes.c_uint64(1), ctypes.c_uint64(0),
        )  # fmt: skip
        if status:
            raise EngineError(f"the engine refused a hook: {unicorn.UcError(status)}")
        self.simple_tables = SimpleTables(self.deferred, ctypes.addressof(self._guest))
        self.defer_by_hook(False)

    def plant(self, address: int) -> None:
        super().plant(address)
        if address not in self._watches:
            self._trap_table.add(address)

    def _add_code_hook(self, address: int, callback: Any) -> int:
        self._code_hooks.check()
        handle = super()._add_code_hook(address, callback)
        self._code_hooks.add(address, handle)
        return handle

    def _drop_code_hook(self, address: int, handle: int) -> None:
        self._code_hooks.remove(address, handle)
        super()._drop_code_hook(address, handle)

    def unplant(self, address: int) -> None:
        super().unplant(address)
        if not self.is_planted(address):
            self._trap_table.remove(address)

    def watch(self, address: int) -> None:
        super().watch(address)
        self._trap_table.remove(address)

    def unwatch(self, address: int) -> None:
        super().unwatch(address)
        if self.is_planted(address):
            self._trap_table.add(address)

    def hear_code(self, method: Callable[[int, int], None]) -> None:
        self._trap_table.close()
        super().hear_code(method)

    def protect(self, physical: int, size: int, *, on: bool) -> None:
        """... which leaves the engine's map of memory as it is."""
        ctypes.memset(ctypes.addressof(self.deferred.protected) + physical // PAGE_SIZE, on, size // PAGE_SIZE)
        self.flush_tlb()  # it may have plain stores there, or such as drop them

    def charge_by_hook(self, on: bool) -> None:
        """Charge blocks by a call in each of them, for comparing it with `block_beginnings`."""
        self._block_hook.value = self._on_block * (not on and block_beginnings.install())
        self.flush_code()

    def defer_by_hook(self, on: bool) -> None:
        """Have all stores to protected pages go through the engine's list of hooks, for comparing it with
        `store_helpers`."""
        self._stores.value = ctypes.addressof(self.deferred.block) * (not on and store_helpers.install())

    def quick_reader(self, callback: Any, physical: int, size: int) -> tuple[Any, Any]:
        data = (ctypes.c_uint64 * 3)(_NOWHERE, 0, ctypes.cast(callback, ctypes.c_void_p).value or 0)
        self._quick.append((physical, size, data))
        return ctypes.c_void_p(self._code.add(run_thunks.QUICK_READ, {})), data

    def answer_quickly(self, physical: int | None, value: int = 0) -> None:
        for start, size, data in self._quick:
            offset = -1 if physical is None else physical - start
            data[0], data[1] = offset if 0 <= offset < size else _NOWHERE, value

    def flush_tlb(self) -> None:
        self._flush_tlb(self._cpu)

    def flush_page(self, linear: int) -> None:
        self._flush_page(linear)

    def flush_code(self) -> None:
        """... and where it was; through the TLB, code could be fetched without the page walk that notes where it is."""
        super().flush_code()
        ctypes.memset(self._code_pages, 0, len(self._code_pages))
        self.flush_tlb()

    def forget_code_in(self, physical: int, size: int = PAGE_SIZE) -> None:
        self._forget_range(self._handle.value, physical, physical + size)

    def code_at(self, linear: int, size: int) -> bytes | None:
        mask, table = self._tlbs[self._state.cpl == RING_3]
        entry = table.value + (linear >> at.TLB_INDEX_SHIFT & mask.value)
        if ctypes.c_uint64.from_address(entry + at.TLB_CODE).value != linear & -PAGE_SIZE:
            return None
        if page_offset(linear) + size > PAGE_SIZE:
            return None
        return ctypes.string_at(linear + ctypes.c_uint64.from_address(entry + at.TLB_ADDEND).value & _MASK, size)

    def take_quickly(self, vector: int) -> bool:
        if vector < FIRST_EXTERNAL or self._state.shadow:
            return False
        self._vector.value, self._length.value = vector, 0
        return bool(self._deliver_external(self._control))

    # -- state -------------------------------------------------------------------------------

    def read_register(self, register: int) -> int:
        place = self._registers.get(register)
        return super().read_register(register) if place is None else place.value

    def write_register(self, register: int, value: int) -> None:
        place = self._general.get(register)
        if place is None:
            super().write_register(register, value)
        else:
            place.value = value

    def read_setting(self, setting: Setting) -> SettingValue:
        place = self._controls.get(setting)
        return super().read_setting(setting) if place is None else place.value

    def paging_words(self) -> tuple[int, int, int, int]:
        cr0, cr3, cr4, efer = self._paging
        return cr0.value, cr3.value, cr4.value, efer.value

    def state(self) -> StateView:
        return self._state

    def ring_3_segments(self) -> bytes:
        """CS and SS, hidden parts and all, as they are now."""
        return ctypes.string_at(self._code_and_stack, 2 * SEGMENT_CACHE.size)

    def load_ring_3_segments(self, segments: bytes) -> None:
        """Put CS and SS back as `ring_3_segments` gave them, for who knows what is derived from them, or sees to it."""
        ctypes.memmove(self._code_and_stack, segments, 2 * SEGMENT_CACHE.size)

    def back_to_ring_3(self, segments: bytes, eip: int, esp: int, eflags: int) -> None:
        """Undo the way into a handler at ring 0: all else is as it was."""
        self.load_ring_3_segments(segments)
        self._eip.value = eip
        self._rsp.value = esp
        self.set_flags(eflags)
        self.summarize()

    @property
    def cr2(self) -> int:
        return self._cr2.value

    def set_flags(self, eflags: int) -> None:
        super().write_register(EFLAGS_ID, eflags)

    def write_segments(self, segments: dict[SegmentRegister, Segment]) -> None:
        for register, segment in segments.items():
            self._state.set_segment(register, segment)
        self.summarize()

    def summarize(self) -> None:
        uclib.x86_update_hflags_x86_64(ctypes.c_void_p(self.state_address))
        # It copies these from EFLAGS, where the engine looks for them anyway; here they would stay for good.
        self._state.summary.value &= ~SUMMARY_FROM_EFLAGS

    def write_dr7(self, value: int) -> None:
        old = self.read_register(DEBUG_IDS[7])
        uclib.cpu_x86_update_dr7_x86_64(ctypes.c_void_p(self.state_address), ctypes.c_uint32(value))
        if (old | value) & DR7_ENABLED:
            self.flush_code()  # the engine looks only for translations of code that is mapped now

    # -- running -----------------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self._now.value

    @now.setter
    def now(self, value: int) -> None:
        self._now.value = value

    def count_instructions(self, on: bool) -> None:
        if on and not instruction_count.install():
            raise EngineError("the native engine can't count instructions here: set HVPROTO_ENGINE=portable")
        self._counting.value = on
        self.instructions = self.instructions
        self.flush_code()

    @property
    def instructions(self) -> int:
        return self._instructions.value + self._number.value

    @instructions.setter
    def instructions(self, value: int) -> None:
        self._instructions.value, self._number.value = value, 0
        self._repeating.value = block.NOT_REPEATING

    @property
    def last_block(self) -> tuple[int, int]:
        start = self._block_start.value
        return start, start + self._block_size.value

    @property
    def delivered(self) -> bytes:
        return bytes(self.counts)

    @property
    def was_in_shadow(self) -> bool:
        return bool(self._was_shadow.value)

    @was_in_shadow.setter
    def was_in_shadow(self, value: bool) -> None:
        self._was_shadow.value = value

    @property
    def cr2_before(self) -> int:
        return self._cr2_before.value

    def set_deadline(self, when: int) -> None:
        self._deadline.value = when if 0 <= when <= _LATEST else max(0, min(when, _LATEST))
        self._limit.value = AT_ONCE

    def set_until_open(self, on: bool) -> None:
        self._until_open.value = on
        self._limit.value = AT_ONCE

    def run(self) -> Outcome:
        self.raise_failure()  # Ctrl-C may have come since the last run
        self._asked = False
        self.system_call = None
        self._code_hooks.check()
        status = self._enter(self.control_address)
        self._code_hooks.has_run()
        self.decide_again()
        if status == HALTED and self.failure is None and self.system_call is None:
            return Outcome.HALTED
        self.raise_failure()
        if status == uc_const.UC_ERR_WRITE_PROT:
            return Outcome.URGENT_STORE
        if status and status != HALTED:
            raise unicorn.UcError(status)
        if self.system_call is not None:  # also where TF made an exception of it already
            return Outcome.SYSTEM_CALL
        if self._left.value:
            self.pending = self._undelivered()
            return Outcome.EXCEPTION
        if self._halted.value:
            return Outcome.HALTED
        if self._resuming.value:
            return Outcome.RESUMING
        if self._stopped.value or self._asked:
            return Outcome.STOPPED
        raise EngineError("the engine stopped for no reason that it gives")

    def _undelivered(self) -> PendingException:
        """The event whose delivery was left to Python, as it was before."""
        self.write_register(x86_const.UC_X86_REG_CR2, self._first_cr2.value)
        vector, length = self._vector.value, self._length.value
        if length:
            return PendingException(vector, None, True, length)
        return PendingException(vector, self._vector_error.value if vector in VECTORS_WITH_ERROR_CODE else None)

    def unmark_read(self, linear: int) -> None:
        here = self._eip.value
        operation = ctypes.c_uint32.from_address(self.state_address + at.ENV_CC_OP)
        saved = operation.value
        for number in range(block.WALK_COUNT):
            record = ctypes.addressof(self._control) + block.CTL_WALKS + number * block.WALK_SIZE
            walked, came_from, count = _WALK.unpack(ctypes.string_at(record, _WALK.size))
            if walked >> 12 != linear >> 12 or not came_from:
                continue
            # The engine finds the instruction that translated code belongs to, and leaves it in EIP.
            uclib.cpu_restore_state_x86_64(ctypes.c_void_p(self._cpu), ctypes.c_void_p(came_from), ctypes.c_bool(False))
            if self._eip.value == here:
                for index in range(count):
                    entry = ctypes.c_uint64.from_address(record + block.WALK_MARK + 8 * index).value
                    ctypes.c_uint8.from_address(entry).value &= ~A & 0xFF
            self._eip.value, operation.value = here, saved

    def decide_again(self) -> None:
        """Python has a say in what becomes of the guest: machine code asks again, for what it depends on may change."""
        if self._guest.value:
            self.tell_decided()
            self._guest.value = 0

    def tell_decided(self) -> None:
        """Have Python's idea of the guest be what machine code has made of it."""
        if self._guest.value & (FOLLOWS | FOLLOWED) and self.simple_tables is not None:
            self.simple_tables.tell()
        if self._guest.value & CHANGED:
            self._guest.value &= ~CHANGED
            hears = self.decided()
            if hears is not None:
                hears()

    def guarded(self, action: Callable[..., Any], *arguments: Any, otherwise: Any = None) -> Any:
        self.decide_again()
        return super().guarded(action, *arguments, otherwise=otherwise)

    def stop(self) -> None:
        self._asked = True
        uclib.uc_emu_stop(self._handle)
