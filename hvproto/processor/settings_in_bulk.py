"""All eight settings saved to memory and loaded from it at once, by machine code: the native engine's.

Decoupling and recoupling one by one, through the binding's register numbers and the mode changes between them, takes
150 us; so, 5 to 8, of which two flushes of the TLB, which a change of CR3 needs anyhow, are 0.8 each. In memory they
lie as `hvproto.processor.settings` packs them, in the order of their identification.

Loading is for values that the engine takes as they are, in an environment whose EFER.LMA fits CR0.PG, EFER.LME and
CR4.PAE, and with the bits of CR4 as before that the engine keeps a second account of. For all else it does nothing,
and `Engine.write_setting` is there.
"""

from __future__ import annotations

import ctypes

from hvproto.processor import private_layout as at
from hvproto.processor.executable_memory import ExecutableMemory
from hvproto.processor.settings import (
    CR0_ET,
    CR0_PE,
    CR0_PG,
    CR4_DEFINED,
    CR4_FSGSBASE,
    CR4_PAE,
    EFER_DEFINED,
    EFER_LMA,
    EFER_LME,
    RECORD,
    Setting,
)
from hvproto.processor.state import SUMMARY_FROM_EFLAGS

_ON_RECORDS = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_uint64)
_ON_BYTES = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_char_p)
_TABLES = {
    Setting.IDTR: at.ENV_IDT_BASE, Setting.GDTR: at.ENV_GDT_BASE, Setting.LDTR: at.ENV_LDT_BASE,
    Setting.TR: at.ENV_TR_BASE,
}  # fmt: skip
"""Where the base is: the selector 8 bytes before it, limit and attributes 8 and 12 bytes behind it."""
_WORDS = {
    Setting.CR0: at.ENV_CR0, Setting.CR3: at.ENV_CR3, Setting.CR4: at.ENV_CR4, Setting.EFER: at.ENV_EFER,
}  # fmt: skip
_SELECTOR, _VALUE, _LIMIT, _ATTRIBUTES = 4, 8, 16, 20
_ATTRIBUTE_MASK, _BUSY = 0x00F0_FF00, 1 << 9
_PLAIN_CR4 = CR4_DEFINED & 0xFFFF | CR4_FSGSBASE
"""Without those that the engine's CPUID may take away, or that its summary or the bounds registers depend on."""


def _place(setting: Setting) -> int:
    return (setting - 1) * RECORD.size


def _save() -> str:
    """RSI: the first record."""
    lines = []
    for setting in Setting:
        record = _place(setting)
        lines.append(f"mov dword ptr [rsi + {record}], {int(setting)}")
        if setting in _WORDS:
            lines += [f"mov rax, qword ptr [r12 + {_WORDS[setting]}]", f"mov qword ptr [rsi + {record + _VALUE}], rax"]
            lines.append(f"mov qword ptr [rsi + {record + _LIMIT}], rdx")
            lines.append(f"mov dword ptr [rsi + {record + _SELECTOR}], edx")
            continue
        base = _TABLES[setting]
        lines += [f"mov rax, qword ptr [r12 + {base}]", f"mov qword ptr [rsi + {record + _VALUE}], rax"]
        lines += [f"mov eax, dword ptr [r12 + {base + 8}]", f"mov dword ptr [rsi + {record + _LIMIT}], eax"]
        if setting in (Setting.LDTR, Setting.TR):
            lines += [f"mov eax, dword ptr [r12 + {base - 8}]", "movzx eax, ax"]
            lines += [f"mov dword ptr [rsi + {record + _SELECTOR}], eax"]
            lines += [f"mov eax, dword ptr [r12 + {base + 12}]", f"and eax, {_ATTRIBUTE_MASK}"]
            lines += [f"mov dword ptr [rsi + {record + _ATTRIBUTES}], eax"]
        else:
            lines += [f"mov dword ptr [rsi + {record + _SELECTOR}], edx"]
            lines += [f"mov dword ptr [rsi + {record + _ATTRIBUTES}], edx"]
    return "xor edx, edx\n" + "\n".join(lines)


def _check() -> str:
    """To ``refuse`` unless the records are all there, in their order, and nothing is to be said of their values."""
    lines = [f"cmp dword ptr [rsi + {_place(setting)}], {int(setting)}\njne refuse" for setting in Setting]
    cr0, cr4, efer = (_place(one) + _VALUE for one in (Setting.CR0, Setting.CR4, Setting.EFER))
    lines += [f"cmp dword ptr [rsi + {high + 4}], 0\njne refuse" for high in (cr0, cr4, efer)]
    for setting in _TABLES:
        lines.append(f"cmp word ptr [rsi + {_place(setting) + _SELECTOR + 2}], 0\njne refuse")
        if setting in (Setting.IDTR, Setting.GDTR):
            lines.append(f"cmp word ptr [rsi + {_place(setting) + _LIMIT + 2}], 0\njne refuse")
        else:
            lines.append(f"test dword ptr [rsi + {_place(setting) + _ATTRIBUTES}], {~_ATTRIBUTE_MASK & 0xFFFFFFFF}")
            lines.append("jne refuse")
    return (
        "\n".join(lines)
        + f"""
    test dword ptr [rsi + {cr0}], {CR0_ET}
    jz refuse
    mov eax, dword ptr [rsi + {cr4}]
    or eax, dword ptr [r12 + {at.ENV_CR4}]
    test eax, {~_PLAIN_CR4 & 0xFFFFFFFF}
    jnz refuse
    mov eax, dword ptr [rsi + {efer}]
    or eax, dword ptr [r12 + {at.ENV_EFER}]
    test eax, {~EFER_DEFINED & 0xFFFFFFFF}
    jnz refuse
    mov eax, dword ptr [rsi + {efer}]
    mov ecx, dword ptr [rsi + {cr0}]
    test eax, {EFER_LMA}
    jnz long_mode
    test ecx, {CR0_PG}
    jz consistent
    test eax, {EFER_LME}
    jnz refuse
    jmp consistent
long_mode:
    test eax, {EFER_LME}
    jz refuse
    test ecx, {CR0_PE}
    jz refuse
    test ecx, {CR0_PG}
    jz refuse
    test dword ptr [rsi + {cr4}], {CR4_PAE}
    jz refuse
consistent:
"""
    )


def _load() -> str:
    lines = []
    for setting, place in _WORDS.items():
        lines += [f"mov rax, qword ptr [rsi + {_place(setting) + _VALUE}]", f"mov qword ptr [r12 + {place}], rax"]
    for setting, base in _TABLES.items():
        record = _place(setting)
        lines += [f"mov rax, qword ptr [rsi + {record + _VALUE}]", f"mov qword ptr [r12 + {base}], rax"]
        lines += [f"mov eax, dword ptr [rsi + {record + _LIMIT}]", f"mov dword ptr [r12 + {base + 8}], eax"]
        if setting in (Setting.LDTR, Setting.TR):
            lines += [f"mov eax, dword ptr [rsi + {record + _SELECTOR}]", f"mov dword ptr [r12 + {base - 8}], eax"]
            lines += [f"mov eax, dword ptr [rsi + {record + _ATTRIBUTES}]"]
            if setting is Setting.TR:
                lines.append(f"and eax, {~_BUSY & 0xFFFFFFFF}")
            lines.append(f"mov dword ptr [r12 + {base + 12}], eax")
    return "\n".join(lines)


_IN_RAM = """
    movabs rsi, {ram}
    add rdi, rsi
"""
_SAVE = f"""
    push r12
    movabs r12, {{env}}
    mov rsi, rdi
    {_save()}
    pop r12
    ret
"""
_LOAD = f"""
    push r12
    movabs r12, {{env}}
    mov rsi, rdi
    {_check()}
    {_load()}
    mov rdi, r12
    movabs rax, {{summarize}}
    call rax
    and dword ptr [r12 + {at.ENV_SUMMARY}], {~SUMMARY_FROM_EFLAGS & 0xFFFFFFFF}
    movabs rdi, {{cpu}}
    movabs rax, {{flush_tlb}}
    call rax
    mov eax, 1
    pop r12
    ret
refuse:
    xor eax, eax
    pop r12
    ret
"""


class SettingsInBulk:
    """Of one engine."""

    def __init__(self, cpu: int, env: int, ram: int) -> None:
        """The addresses of the engine's CPUState, of its processor state, and of RAM."""
        names = {
            "cpu": cpu, "env": env, "ram": ram, "summarize": at.address_of("x86_update_hflags_x86_64"),
            "flush_tlb": at.address_of("tlb_flush_x86_64"),
        }  # fmt: skip
        self._code = ExecutableMemory()
        self.save = _ON_RECORDS(self._code.add(_IN_RAM + _SAVE, names))
        """Put the eight records at a physical address of RAM."""
        self._records = ctypes.create_string_buffer(RECORD.size * len(Setting))
        self._place = ctypes.addressof(self._records)
        self._pack = _ON_RECORDS(self._code.add(_SAVE, names))
        self.load = _ON_RECORDS(self._code.add(_IN_RAM + _LOAD, names))
        """Load eight records from there, and flush the TLB: 1, or 0 with nothing done."""
        self.load_packed = _ON_BYTES(self._code.add(_LOAD, names))
        """The same from what `settings.pack_all` gives."""

    def packed(self) -> bytes:
        """What `settings.pack_all` would give."""
        self._pack(self._place)
        return self._records.raw
