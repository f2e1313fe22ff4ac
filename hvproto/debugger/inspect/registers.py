"""Registers of a world: those on the processor, or those that are saved for it."""

from __future__ import annotations

from typing import Any

from unicorn import x86_const

from hvproto.debugger.debuggee import View
from hvproto.debugger.inspect.table import columns
from hvproto.debugger.subject import Subject
from hvproto.errors import BadInput, World
from hvproto.processor.engine import EFLAGS_ID, EIP_ID, GPR_IDS, GPR_NAMES, WIDE_GPR_NAMES
from hvproto.processor.segments import SegmentRegister

_FLAGS = (
    ("CF", 0), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9), ("DF", 10), ("OF", 11), ("NT", 14),
    ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19), ("VIP", 20), ("ID", 21),
)  # fmt: skip


def registers_of(subject: Subject, world: World) -> dict[str, int] | None:
    """General registers, instruction pointer, flags and selectors by name; None for a world that has no state yet."""
    on_processor = subject.machine.world
    if world is on_processor or world is World.HYPERVISOR:
        processor = subject.processor
        values = processor.registers()
        guest = subject.mirrored
        if world is World.GUEST and guest is not None and not guest.cpu.long_mode and "rip" in values:
            # It runs in compatibility mode, and knows nothing of it.
            values = {name: values[wide] & 0xFFFF_FFFF for name, wide in zip(GPR_NAMES, WIDE_GPR_NAMES, strict=False)}
            values |= {"eip": processor.eip, "eflags": processor.eflags}
        if world is World.GUEST and guest is not None and guest._stopped:
            # In an exit: what the guest is to find is with its virtual processor.
            names = ("rip", "rflags", "rsp") if "rip" in values else ("eip", "eflags", "esp")
            values.update(zip(names, (guest.cpu.eip, guest.cpu.eflags, guest.cpu.esp), strict=True))
        return values | {register.name.lower(): processor.segment(register).selector for register in SegmentRegister}
    context = _saved(subject, world)
    return None if context is None else _from_context(context)


def _saved(subject: Subject, world: World) -> Any:
    if world is World.HOST:
        return subject.host_context
    guest = subject.guest
    return guest._context if guest is not None else None


def _from_context(context: Any) -> dict[str, int]:
    _, saved = context
    values = {name: saved.reg_read(number) for name, number in zip(WIDE_GPR_NAMES, GPR_IDS, strict=True)}
    values |= {"rip": saved.reg_read(EIP_ID), "rflags": saved.reg_read(EFLAGS_ID)}
    if not any(value >> 32 for value in values.values()) and not any(values[f"r{n}"] for n in range(8, 16)):
        values = {name: values[wide] for name, wide in zip(GPR_NAMES, WIDE_GPR_NAMES, strict=False)} | {
            "eip": values["rip"],
            "eflags": values["rflags"],
        }
    selectors = {
        register.name.lower(): saved.reg_read(getattr(x86_const, f"UC_X86_REG_{register.name}"))
        for register in SegmentRegister
    }
    return values | selectors


def flag_names(eflags: int) -> str:
    """The flags that are set.

    >>> flag_names(0x246)
    'PF ZF IF'
    """
    names = [name for name, bit in _FLAGS if eflags >> bit & 1]
    level = eflags >> 12 & 3
    return " ".join([*names, f"IOPL={level}"] if level else names)


def parse_world(text: str) -> World:
    """Raises BadInput."""
    try:
        return World(text.lower())
    except ValueError:
        raise BadInput(f"{text!r} is no world: there are {', '.join(World)}") from None


def registers(view: View, whose: str = "") -> str:
    """All registers of a world in columns."""
    subject = view.subject
    world = parse_world(whose) if whose else subject.world
    values = registers_of(subject, world)
    if values is None:
        return f"The {world} has not run yet."
    eip = values.get("eip", values.get("rip", 0))
    flags = values.get("eflags", values.get("rflags", 0))
    width = 16 if "rip" in values else 8
    selectors = {register.name.lower() for register in SegmentRegister}
    wide = [f"{name:6} {value:0{width}x}" for name, value in values.items() if name not in selectors]
    rows = [wide[index : index + 4] for index in range(0, len(wide), 4)]
    symbol = subject.symbol_at(eip, world)
    state = "on the processor" if world is subject.machine.world or world is World.HYPERVISOR else "saved"
    lines = [f"registers of the {world} ({state})", columns(rows)]
    lines.append("  ".join(f"{name} {values[name]:04x}" for name in ("cs", "ss", "ds", "es", "fs", "gs")))
    if state != "saved":
        processor = subject.processor
        lines.append(f"CPL {processor.cpl}, CR2 {processor.cr2:08x}, flags {flag_names(flags)}")
    else:
        lines.append(f"flags {flag_names(flags)}")
    if symbol:
        lines.append(f"at {symbol}")
    return "\n".join(lines)
