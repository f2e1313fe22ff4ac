"""Registers of a world: those on the processor, or those that are saved for it."""

from __future__ import annotations

from dataclasses import dataclass
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
        if world is World.HOST and "rip" in values:
            values = _narrow(values)  # in the middle of a switch, the processor isn't in the host's mode
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
    values = _narrow(values)
    selectors = {
        register.name.lower(): saved.reg_read(getattr(x86_const, f"UC_X86_REG_{register.name}"))
        for register in SegmentRegister
    }
    return values | selectors


def _narrow(values: dict[str, int]) -> dict[str, int]:
    """Registers of 64 bits by their 32-bit names, if nothing is in what those don't name."""
    if any(value >> 32 for value in values.values()) or any(values[f"r{n}"] for n in range(8, 16)):
        return values
    names = {name: values[wide] for name, wide in zip(GPR_NAMES, WIDE_GPR_NAMES, strict=False)}
    return names | {"eip": values["rip"], "eflags": values["rflags"]}


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


@dataclass(frozen=True, slots=True)
class RegisterFile:
    """The registers of a world: by name, with their digits, so that a change of one is seen by its text.

    ``privilege`` and ``cr2`` are the processor's, and empty for a world whose state is saved.
    """

    world: World
    is_saved: bool
    wide: dict[str, str]
    """General registers, instruction pointer and flags."""
    selectors: dict[str, str]
    privilege: str
    cr2: str
    flags: str
    """The names of those that are set."""
    symbol: str
    """Of the instruction pointer."""


def register_file(view: View, world: World) -> RegisterFile | None:
    """All registers of a world; None for one that has not run yet."""
    subject = view.subject
    values = registers_of(subject, world)
    if values is None:
        return None
    width = 16 if "rip" in values else 8
    eip = values.get("eip", values.get("rip", 0))
    flags = values.get("eflags", values.get("rflags", 0))
    selectors = {name: f"{values.pop(name):04x}" for name in ("cs", "ss", "ds", "es", "fs", "gs")}
    is_saved = world not in (subject.machine.world, World.HYPERVISOR)
    processor = subject.processor
    return RegisterFile(
        world, is_saved, {name: f"{value:0{width}x}" for name, value in values.items()}, selectors,
        "" if is_saved else str(processor.cpl), "" if is_saved else f"{processor.cr2:08x}",
        flag_names(flags), subject.symbol_at(eip, world),
    )  # fmt: skip


def registers(view: View, whose: str = "") -> str:
    """All registers of a world in columns."""
    world = parse_world(whose) if whose else view.subject.world
    found = register_file(view, world)
    if found is None:
        return f"The {world} has not run yet."
    wide = [f"{name:6} {value}" for name, value in found.wide.items()]
    rows = [wide[index : index + 4] for index in range(0, len(wide), 4)]
    lines = [f"registers of the {world} ({'saved' if found.is_saved else 'on the processor'})", columns(rows)]
    lines.append("  ".join(f"{name} {value}" for name, value in found.selectors.items()))
    processors = "" if found.is_saved else f"CPL {found.privilege}, CR2 {found.cr2}, "
    lines.append(f"{processors}flags {found.flags}")
    if found.symbol:
        lines.append(f"at {found.symbol}")
    return "\n".join(lines)
