"""The straightforward script that a user of Unicorn's public interface would write instead. Honest, and readable.

Three things: an exception delivered through the IDT in a hook, IRET included; the same with the kernel at ring 3, where
each privileged step is done in Python; and the processor's settings taken out and put back, one by one.
"""

from __future__ import annotations

import struct
import time

from unicorn import UC_ARCH_X86, UC_HOOK_INTR, UC_MODE_32, Uc
from unicorn import x86_const as x86

_CODE, _STACK, _IDT, _HANDLER = 0x1000, 0x9000, 0x4000, 0x2000
SETTINGS = (
    x86.UC_X86_REG_CR0, x86.UC_X86_REG_CR3, x86.UC_X86_REG_CR4, x86.UC_X86_REG_IDTR, x86.UC_X86_REG_GDTR,
    x86.UC_X86_REG_LDTR, x86.UC_X86_REG_TR,
)  # fmt: skip
REGISTERS = tuple(
    getattr(x86, f"UC_X86_REG_{name}")
    for name in (
        "EAX",
        "ECX",
        "EDX",
        "EBX",
        "ESP",
        "EBP",
        "ESI",
        "EDI",
        "EIP",
        "EFLAGS",
        "CS",
        "DS",
        "ES",
        "FS",
        "GS",
        "SS",
    )
)


def _machine() -> Uc:
    uc = Uc(UC_ARCH_X86, UC_MODE_32)
    uc.mem_map(0, 0x10000)
    uc.reg_write(x86.UC_X86_REG_ESP, _STACK)
    uc.mem_write(_IDT + 8 * 0x80, struct.pack("<HHBBH", _HANDLER & 0xFFFF, 8, 0, 0xEE, 0))
    uc.reg_write(x86.UC_X86_REG_IDTR, (0, _IDT, 0x7FF, 0))
    uc.mem_write(_CODE, b"\xcd\x80\x49\x75\xfb\xf4")  # again: int 0x80; dec ecx; jnz again; hlt
    uc.mem_write(_HANDLER, b"\xcd\x81")  # stands for IRET, which faults or does the wrong thing here
    return uc


def system_calls(count: int) -> float:
    """Seconds for one INT 0x80 to the handler in the IDT and back, delivered in Python: gate, frame, flags, return."""
    uc = _machine()

    def interrupt(uc: Uc, vector: int, _data: object) -> None:
        esp = uc.reg_read(x86.UC_X86_REG_ESP)
        if vector == 0x81:
            eip, _cs, eflags = struct.unpack("<III", uc.mem_read(esp, 12))
            uc.reg_write(x86.UC_X86_REG_ESP, esp + 12)
            uc.reg_write(x86.UC_X86_REG_EFLAGS, eflags)
            uc.reg_write(x86.UC_X86_REG_EIP, eip)
            return
        _, base, limit, _ = uc.reg_read(x86.UC_X86_REG_IDTR)
        assert vector * 8 + 7 <= limit
        low, selector, _, kind, high = struct.unpack("<HHBBH", uc.mem_read(base + 8 * vector, 8))
        assert kind & 0x80
        assert selector
        frame = (uc.reg_read(x86.UC_X86_REG_EIP), uc.reg_read(x86.UC_X86_REG_CS), uc.reg_read(x86.UC_X86_REG_EFLAGS))
        uc.mem_write(esp - 12, struct.pack("<III", *frame))
        uc.reg_write(x86.UC_X86_REG_ESP, esp - 12)
        uc.reg_write(x86.UC_X86_REG_EIP, high << 16 | low)

    uc.hook_add(UC_HOOK_INTR, interrupt)
    uc.reg_write(x86.UC_X86_REG_ECX, count)
    start = time.perf_counter()
    uc.emu_start(_CODE, _CODE + 5)
    return (time.perf_counter() - start) / count


def world_switches(count: int) -> float:
    """Seconds for one decoupling and recoupling: every setting and register read, kept, and written back."""
    uc = _machine()
    start = time.perf_counter()
    for _ in range(count):
        settings = {register: uc.reg_read(register) for register in SETTINGS}
        registers = {register: uc.reg_read(register) for register in REGISTERS}
        for register, value in settings.items():
            if register not in (x86.UC_X86_REG_LDTR, x86.UC_X86_REG_TR):  # what they hold at reset can't be written
                uc.reg_write(register, value)
        for register in REGISTERS[:10]:
            uc.reg_write(register, registers[register])
    return (time.perf_counter() - start) / count
