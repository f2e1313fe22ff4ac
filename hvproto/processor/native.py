"""The native way: exceptions delivered by the engine's own, unexported-to-Python interrupt code.

**The only file that knows Unicorn's private layout.** It is written for the 2.1.4 wheel on x86-64
Linux; `self_check` refuses anything else, and the portable way takes over.

Unicorn never looks at the IDT, but the wheel exports the function that does
(``x86_cpu_do_interrupt``). Keystone assembles a few thunks at start that Unicorn calls as hooks:
with no Python frame on the stack, a nested fault may longjmp over them safely. An exception from
ring 3 to ring 0 and its IRET cost less than one empty Python hook that way.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
import weakref
from functools import cache
from typing import Any

import keystone
import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import uclib

from hvproto.errors import EngineError
from hvproto.processor.engine import VECTORS_WITH_ERROR_CODE, Callbacks, Engine, Outcome, PendingException
from hvproto.processor.segments import ATTRIBUTE_MASK, Segment, SegmentRegister
from hvproto.processor.settings import EFLAGS_IF, EFLAGS_IOPL, EFLAGS_TF, EFLAGS_VM

VERSION = (2, 1, 4)

# Where things lie in that build: uc_struct -> CPUState -> CPUX86State ("env").
UC_CPU = 0x1B8
CPU_ENV = 0x128
CPU_HALTED = 33176
ENV_REGS = 0x00
ENV_EIP = 0x80
ENV_EFLAGS = 0x88
ENV_HFLAGS = 0xB0
ENV_SEGS = 0xB8
SEGMENT_CACHE = struct.Struct("<IxxxxQII")
ENV_CR0 = 0x1A8
ENV_CR2 = 0x1B8
ENV_ERROR_CODE = 0x1508
ENV_IS_INT = 0x150C
ENV_OLD_EXCEPTION = 0x1578
CONTEXT_HEADER = 0x28
ENV_END_RESET = 0x15C0
HFLAGS_CPL = 3
HFLAGS_FROM_EFLAGS = EFLAGS_TF | EFLAGS_IOPL | EFLAGS_VM

# The block that the thunks share with Python.
CTL_CPU = 0x00
CTL_ENV = 0x08
CTL_NOW = 0x10
CTL_DEADLINE = 0x18
CTL_STOPPED = 0x20  # set by the block thunk when it stops the engine at the deadline
CTL_VECTOR = 0x28  # the exception that is being delivered, or was last ...
CTL_ERROR = 0x2C  # ... its error code
CTL_BLOCK_END = 0x30  # linear address after the last block entered
CTL_CR2 = 0x38  # ... CR2 when it was raised
CTL_LENGTH = 0x40  # ... of INT n, INT3, INTO: the instruction's length in bytes, else 0
CTL_DELIVERING = 0x44  # set while the engine delivers it: an exception now is one of the delivery
CTL_NESTED = 0x48  # set when there was one
CTL_UNTIL_OPEN = 0x4C  # stop at the first block that is entered with IF set
CTL_COUNTS = 0x100  # 256 x u32: exceptions that the engine has delivered, by vector
CTL_SIZE = CTL_COUNTS + 256 * 4

# What goes wrong during a delivery, the engine doesn't report by the book: no EXT bit, #TS for an absent stack.
# It has changed nothing yet but memory below the new stack pointer: the event goes to Python, which delivers it anew.
# (Missing memory makes the exception itself come back, as if it were nested; `failure` is set then.)
_INTERRUPT_THUNK = f"""
    push rbx
    mov rbx, rdx
    cmp dword ptr [rbx + {CTL_DELIVERING}], 0
    jne nested
    mov r8, qword ptr [rbx + {CTL_ENV}]
    mov dword ptr [rbx + {CTL_VECTOR}], esi
    mov eax, dword ptr [r8 + {ENV_ERROR_CODE}]
    mov dword ptr [rbx + {CTL_ERROR}], eax
    mov rax, qword ptr [r8 + {ENV_CR2}]
    mov qword ptr [rbx + {CTL_CR2}], rax
    xor ecx, ecx
    cmp dword ptr [r8 + {ENV_IS_INT}], 0
    je rewind
    mov ecx, 2
    cmp esi, 3
    je short_form
    cmp esi, 4
    jne rewind
short_form:
    push r8
    sub rsp, 8
    mov rdi, r8
    mov rsi, qword ptr [r8 + {ENV_EIP}]
    add rsi, qword ptr [r8 + {ENV_SEGS + 24 + 8}]
    dec rsi
    mov esi, esi
    movabs rax, {{load_code_byte}}
    call rax
    add rsp, 8
    pop r8
    mov ecx, 1
    cmp al, 0xcc
    je rewind
    cmp al, 0xce
    je rewind
    mov ecx, 2
rewind:
    mov dword ptr [rbx + {CTL_LENGTH}], ecx
    sub qword ptr [r8 + {ENV_EIP}], rcx
    mov dword ptr [rbx + {CTL_DELIVERING}], 1
    mov rdi, qword ptr [rbx + {CTL_CPU}]
    movabs rax, {{do_interrupt}}
    call rax
    mov dword ptr [rbx + {CTL_DELIVERING}], 0
    movzx eax, byte ptr [rbx + {CTL_VECTOR}]
    inc dword ptr [rbx + rax*4 + {CTL_COUNTS}]
    pop rbx
    ret
nested:
    mov dword ptr [rbx + {CTL_NESTED}], 1
    pop rbx
    movabs rax, {{stop}}
    jmp rax
"""

_INVALID_THUNK = f"""
    push rbx
    mov rbx, rsi
    cmp dword ptr [rbx + {CTL_DELIVERING}], 0
    jne nested
    mov rax, qword ptr [rbx + {CTL_ENV}]
    mov rax, qword ptr [rax + {ENV_CR2}]
    mov qword ptr [rbx + {CTL_CR2}], rax
    mov dword ptr [rbx + {CTL_VECTOR}], 6
    mov dword ptr [rbx + {CTL_LENGTH}], 0
    mov dword ptr [rbx + {CTL_DELIVERING}], 1
    mov rdi, qword ptr [rbx + {CTL_CPU}]
    movabs rax, {{do_interrupt}}
    call rax
    mov dword ptr [rbx + {CTL_DELIVERING}], 0
    inc dword ptr [rbx + {CTL_COUNTS + 6 * 4}]
    jmp done
nested:
    sub rsp, 16
    movabs rax, {{stop}}
    call rax
    add rsp, 16
done:
    mov eax, 1
    pop rbx
    ret
"""

_BLOCK_THUNK = f"""
    mov rax, qword ptr [rcx + {CTL_NOW}]
    cmp rax, qword ptr [rcx + {CTL_DEADLINE}]
    jae expired
    cmp dword ptr [rcx + {CTL_UNTIL_OPEN}], 0
    jne closed_so_far
charge:
    mov edx, edx
    add rax, rdx
    mov qword ptr [rcx + {CTL_NOW}], rax
    add rsi, rdx
    mov qword ptr [rcx + {CTL_BLOCK_END}], rsi
    ret
closed_so_far:
    mov r8, qword ptr [rcx + {CTL_ENV}]
    test dword ptr [r8 + {ENV_EFLAGS}], {EFLAGS_IF}
    jz charge
expired:
    mov dword ptr [rcx + {CTL_STOPPED}], 1
    movabs rax, {{stop}}
    jmp rax
"""


def _port_thunk(arguments: tuple[str, ...], control: str, callback: str) -> str:
    """IN/OUT: the IOPL and I/O-bitmap check that Unicorn leaves out, then Python's callback."""
    saves = "\n".join(f"    push {name}" for name in arguments)
    restores = "\n".join(f"    pop {name}" for name in reversed(arguments))
    pad = 8 if len(arguments) % 2 == 0 else 0
    return f"""
    mov r9, {control}
    mov r10, qword ptr [r9 + {CTL_ENV}]
    test dword ptr [r10 + {ENV_CR0}], 1
    jz allowed
    mov eax, dword ptr [r10 + {ENV_HFLAGS}]
    and eax, 3
    mov r11d, dword ptr [r10 + {ENV_EFLAGS}]
    test r11d, 0x20000
    jnz check
    shr r11d, 12
    and r11d, 3
    cmp eax, r11d
    jbe allowed
check:
{saves}
    sub rsp, {pad}
    mov rdi, r10
    movabs rax, {{check_byte}}
    cmp edx, 1
    je call_check
    movabs rax, {{check_word}}
    cmp edx, 2
    je call_check
    movabs rax, {{check_long}}
call_check:
    call rax
    add rsp, {pad}
{restores}
allowed:
    movabs rax, {callback}
    jmp rax
"""


def _address(name: str) -> int:
    return ctypes.cast(getattr(uclib, name), ctypes.c_void_p).value or 0


@cache
def self_check() -> str | None:
    """Why the native way can't be used here, or None if it can."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return f"it needs x86-64 Linux, this is {platform.machine()} {sys.platform}"
    if tuple(unicorn.uc_version()[:2]) != VERSION[:2] or unicorn.__version__ != "2.1.4":
        return f"it is written for Unicorn 2.1.4, this is {unicorn.__version__}"
    try:
        _address("x86_cpu_do_interrupt_x86_64")
    except AttributeError:
        return "this build of Unicorn does not export its interrupt delivery"
    uc = unicorn.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_32)
    uc.mem_map(0, 0x1000)
    size = uclib.uc_context_size(uc._uch)
    if size != CONTEXT_HEADER + ENV_END_RESET:
        return f"the processor state is {size} bytes long, not {CONTEXT_HEADER + ENV_END_RESET}"
    magic = 0x1BADCAFE
    uc.reg_write(x86_const.UC_X86_REG_ESI, magic)
    uc.reg_write(x86_const.UC_X86_REG_EIP, magic ^ 0xFFFF)
    env = _environment(uc)[1]
    if ctypes.c_uint32.from_address(env + ENV_REGS + 6 * 8).value != magic:
        return "a magic value written to ESI isn't where it should be"
    if ctypes.c_uint32.from_address(env + ENV_EIP).value != magic ^ 0xFFFF:
        return "a magic value written to EIP isn't where it should be"
    return None


def _environment(uc: Any) -> tuple[int, int]:
    cpu = ctypes.c_uint64.from_address(uc._uch.value + UC_CPU).value
    return cpu, ctypes.c_uint64.from_address(cpu + CPU_ENV).value


_IN = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p)
_OUT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)


class NativeEngine(Engine):
    """Unicorn with its own interrupt delivery switched on."""

    name = "native"
    traps_port_io = True
    breath = 200_000_000

    def __init__(self, ram: memoryview, callbacks: Callbacks) -> None:
        reason = self_check()
        if reason:
            raise EngineError(f"the native engine can't be used: {reason}")
        super().__init__(ram, callbacks)
        self._cpu, self._env = _environment(self.uc)
        self._error_code = ctypes.c_int32.from_address(self._env + ENV_ERROR_CODE)
        self._old_exception = ctypes.c_int32.from_address(self._env + ENV_OLD_EXCEPTION)
        self._halted = ctypes.c_uint32.from_address(self._cpu + CPU_HALTED)
        self._hflags = ctypes.c_uint32.from_address(self._env + ENV_HFLAGS)
        self._eip = ctypes.c_uint64.from_address(self._env + ENV_EIP)
        self._install_thunks()

    def _install_thunks(self) -> None:
        self._control = (ctypes.c_char * CTL_SIZE)()
        control = ctypes.addressof(self._control)
        struct.pack_into("<QQ", self._control, 0, self._cpu, self._env)
        self._now = ctypes.c_uint64.from_address(control + CTL_NOW)
        self._deadline = ctypes.c_uint64.from_address(control + CTL_DEADLINE)
        self._stopped = ctypes.c_uint32.from_address(control + CTL_STOPPED)
        self._block_end = ctypes.c_uint64.from_address(control + CTL_BLOCK_END)
        self._vector = ctypes.c_uint32.from_address(control + CTL_VECTOR)
        self._vector_error = ctypes.c_uint32.from_address(control + CTL_ERROR)
        self._length = ctypes.c_uint32.from_address(control + CTL_LENGTH)
        self._first_cr2 = ctypes.c_uint64.from_address(control + CTL_CR2)
        self._delivering = ctypes.c_uint32.from_address(control + CTL_DELIVERING)
        self._nested = ctypes.c_uint32.from_address(control + CTL_NESTED)
        self._until_open = ctypes.c_uint32.from_address(control + CTL_UNTIL_OPEN)
        self.counts = (ctypes.c_uint32 * 256).from_address(control + CTL_COUNTS)
        me = weakref.proxy(self)
        self._in = _IN(lambda _uc, port, size, _data: me.guarded(me.callbacks.port_in, port, size, otherwise=0))
        self._out = _OUT(lambda _uc, port, size, value, _data: me.guarded(me.callbacks.port_out, port, size, value))
        names = {
            "do_interrupt": _address("x86_cpu_do_interrupt_x86_64"),
            "load_code_byte": _address("cpu_ldub_code_x86_64"),
            "check_byte": _address("helper_check_iob_x86_64"),
            "check_word": _address("helper_check_iow_x86_64"),
            "check_long": _address("helper_check_iol_x86_64"),
            "stop": _address("uc_emu_stop"),
            "in_callback": ctypes.cast(self._in, ctypes.c_void_p).value,
            "out_callback": ctypes.cast(self._out, ctypes.c_void_p).value,
        }
        port_in = _port_thunk(("rdi", "rsi", "rdx", "rcx"), "rcx", "{in_callback}")
        port_out = _port_thunk(("rdi", "rsi", "rdx", "rcx", "r8"), "r8", "{out_callback}")
        self._code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        hooks = (
            (uc_const.UC_HOOK_INTR, _INTERRUPT_THUNK, None),
            (uc_const.UC_HOOK_INSN_INVALID, _INVALID_THUNK, None),
            (uc_const.UC_HOOK_BLOCK, _BLOCK_THUNK, None),
            (uc_const.UC_HOOK_INSN, port_in, x86_const.UC_X86_INS_IN),
            (uc_const.UC_HOOK_INSN, port_out, x86_const.UC_X86_INS_OUT),
        )
        self._hook_handles = []
        at = 0
        for kind, source, instruction in hooks:
            code = _assemble(source.format_map(names))
            self._code[at : at + len(code)] = code
            handle = ctypes.c_size_t()
            more = () if instruction is None else (ctypes.c_int(instruction),)
            status = uclib.uc_hook_add(
                self._handle, ctypes.byref(handle), kind, ctypes.c_void_p(base + at), ctypes.c_void_p(control),
                ctypes.c_uint64(1), ctypes.c_uint64(0), *more,
            )  # fmt: skip
            if status:
                raise EngineError(f"the engine refused a hook: {unicorn.UcError(status)}")
            self._hook_handles.append(handle)
            at += len(code) + 15 & ~15

    # -- state -------------------------------------------------------------------------------

    @property
    def cpl(self) -> int:
        return self._hflags.value & HFLAGS_CPL

    def read_segment(self, register: SegmentRegister) -> Segment:
        raw = ctypes.string_at(self._env + ENV_SEGS + SEGMENT_CACHE.size * register, SEGMENT_CACHE.size)
        selector, base, limit, flags = SEGMENT_CACHE.unpack(raw)
        return Segment(selector, base, limit, flags & ATTRIBUTE_MASK)

    def write_segments(self, segments: dict[SegmentRegister, Segment]) -> None:
        for register, segment in segments.items():
            raw = SEGMENT_CACHE.pack(segment.selector, segment.base, segment.limit, segment.attributes)
            ctypes.memmove(self._env + ENV_SEGS + SEGMENT_CACHE.size * register, raw, SEGMENT_CACHE.size)
        uclib.x86_update_hflags_x86_64(ctypes.c_void_p(self._env))
        # It copies these from EFLAGS, where the engine looks for them anyway; here they would stay for good.
        self._hflags.value &= ~HFLAGS_FROM_EFLAGS

    def forget_exception(self) -> None:
        self._old_exception.value = -1

    # -- running -----------------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self._now.value

    @now.setter
    def now(self, value: int) -> None:
        self._now.value = value

    @property
    def block_end(self) -> int:
        return self._block_end.value

    def set_deadline(self, when: int) -> None:
        self._deadline.value = max(0, min(when, (1 << 64) - 1))

    def set_until_open(self, on: bool) -> None:
        self._until_open.value = on

    def run(self) -> Outcome:
        self._stopped.value = 0
        self._asked = False
        self._halted.value = 0
        self._delivering.value = 0
        self._nested.value = 0
        self.forget_exception()
        self.failure = None
        status = uclib.uc_emu_start(self._handle, ctypes.c_uint64(self._eip.value & 0xFFFF_FFFF), ctypes.c_uint64(0),
                                    ctypes.c_uint64(0), ctypes.c_size_t(0))  # fmt: skip
        self.raise_failure()
        if status:
            raise unicorn.UcError(status)
        if self._nested.value:
            self.pending = self._undelivered()
            return Outcome.EXCEPTION
        if self._halted.value:
            return Outcome.HALTED
        if self._stopped.value or self._asked:
            return Outcome.STOPPED
        raise EngineError("the engine stopped for no reason that it gives")

    def _undelivered(self) -> PendingException:
        """The event whose delivery failed, as it was before."""
        self.write_register(x86_const.UC_X86_REG_CR2, self._first_cr2.value)
        vector, length = self._vector.value, self._length.value
        if length:
            return PendingException(vector, None, True, length)
        return PendingException(vector, self._vector_error.value if vector in VECTORS_WITH_ERROR_CODE else None)

    def stop(self) -> None:
        self._asked = True
        uclib.uc_emu_stop(self._handle)


@cache
def _assemble(source: str) -> bytes:
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64).asm(source, as_bytes=True)
    return bytes(code)
