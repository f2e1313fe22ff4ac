"""What GDB is told of the processor's registers: the standard core, and the system's in a feature of our own.

The order here is the order of the registers in a `g` packet (GDB manual, appendix G, "Standard Target Features").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from hvproto.processor.engine import GPR_NAMES


@dataclass(frozen=True, slots=True)
class Register:
    """``bits`` wide; ``kind`` is its type in the description, empty for a plain integer."""

    name: str
    bits: int
    kind: str = ""
    group: str = ""


_FLAGS = (
    ("CF", 0), ("", 1), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9), ("DF", 10), ("OF", 11),
    ("NT", 14), ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19), ("VIP", 20), ("ID", 21),
)  # fmt: skip
_GDB_ORDER = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
_SELECTORS = ("cs", "ss", "ds", "es", "fs", "gs")
_FLOATING = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_CORE, _SYSTEM = "org.gnu.gdb.i386.core", "org.hvproto.system"


@cache
def core_registers(*, wide: bool) -> tuple[Register, ...]:
    """The core feature: of 32 or 64 bits."""
    pointer = "data_ptr"
    if wide:
        general = [Register(name, 64, pointer if name in ("rbp", "rsp") else "int64") for name in _GDB_ORDER]
        general.append(Register("rip", 64, "code_ptr"))
    else:
        general = [Register(name, 32, pointer if name in ("esp", "ebp") else "int32") for name in GPR_NAMES]
        general.append(Register("eip", 32, "code_ptr"))
    return (
        *general,
        Register("eflags", 32, "i386_eflags"),
        *(Register(name, 32, "int32") for name in _SELECTORS),
        *(Register(f"st{number}", 80, "i387_ext") for number in range(8)),
        *(Register(name, 32, "int", "float") for name in _FLOATING),
    )


@cache
def system_registers(*, wide: bool) -> tuple[Register, ...]:
    """Segments' bases, control registers, EFER, descriptor tables."""
    bits = 64 if wide else 32
    bases = [Register(f"{name}_base", bits) for name in ("fs", "gs")]
    controls = [Register(name, bits) for name in ("cr0", "cr2", "cr3", "cr4")]
    tables = [Register(f"{table}_{part}", bits if part == "base" else 32) for table in ("idtr", "gdtr")
              for part in ("base", "limit")]  # fmt: skip
    segments = [Register(f"{name}{part}", bits if part == "_base" else 32) for name in ("tr", "ldtr")
                for part in ("", "_base", "_limit")]  # fmt: skip
    return (*bases, *controls, Register("efer", bits), *tables, *segments, Register("cpl", 32))


def registers(*, wide: bool) -> tuple[Register, ...]:
    """All, in the order of their numbers."""
    return core_registers(wide=wide) + system_registers(wide=wide)


@cache
def description(*, wide: bool) -> str:
    """target.xml."""
    flags = "".join(f'<field name="{name}" start="{bit}" end="{bit}"/>' for name, bit in _FLAGS)
    number = 0
    features = []
    for name, found in ((_CORE, core_registers(wide=wide)), (_SYSTEM, system_registers(wide=wide))):
        lines = [f'<feature name="{name}">']
        if name == _CORE:
            lines.append(f'<flags id="i386_eflags" size="4">{flags}</flags>')
        for register in found:
            kind = f' type="{register.kind}"' if register.kind else ""
            group = f' group="{register.group or "system"}"' if name == _SYSTEM or register.group else ""
            lines.append(f'<reg name="{register.name}" bitsize="{register.bits}" regnum="{number}"{kind}{group}/>')
            number += 1
        features.append("\n".join([*lines, "</feature>"]))
    architecture = "i386:x86-64" if wide else "i386"
    return "\n".join(
        ['<?xml version="1.0"?>', '<!DOCTYPE target SYSTEM "gdb-target.dtd">', "<target>",
         f"<architecture>{architecture}</architecture>", *features, "</target>"]
    )  # fmt: skip
