"""What GDB reads and writes, in the process of the run: registers and memory of a world."""

from __future__ import annotations

from unicorn import x86_const

from hvproto.debugger.debuggee import View
from hvproto.debugger.inspect.registers import registers_of
from hvproto.debugger.places import places_of, world_settings
from hvproto.debugger.subject import Subject
from hvproto.errors import World
from hvproto.processor.engine import GPR_NAMES, WIDE_GPR_NAMES
from hvproto.processor.segments import Segment, SegmentRegister, TableRegister

_FLOATING = {"fctrl": "UC_X86_REG_FPCW", "fstat": "UC_X86_REG_FPSW", "ftag": "UC_X86_REG_FPTAG"}
_TOP_SHIFT = 11


def read_registers(view: View, world: World) -> dict[str, int]:
    """All registers by GDB's names, those of 32 bits and of 64; what there is no state of is left out."""
    subject = view.subject
    found = registers_of(subject, world)
    if found is None:
        return {}
    values = dict(found)
    for narrow, wide in zip((*GPR_NAMES, "eip"), (*WIDE_GPR_NAMES[:8], "rip"), strict=True):
        value = found.get(wide, found.get(narrow, 0))
        values[narrow], values[wide] = value & 0xFFFF_FFFF, value
    values["eflags"] = found.get("eflags", found.get("rflags", 0))
    settings = world_settings(subject, world)
    for setting, content in settings.items():
        name = setting.name.lower()
        match content:
            case int():
                values[name] = content
            case TableRegister():
                values[f"{name}_base"], values[f"{name}_limit"] = content.base, content.limit
            case Segment():
                values |= {name: content.selector, f"{name}_base": content.base, f"{name}_limit": content.limit}
    if world is subject.machine.world or world is World.HYPERVISOR:
        processor = subject.processor
        for register in (SegmentRegister.FS, SegmentRegister.GS):
            values[f"{register.name.lower()}_base"] = processor.segment(register).base
        values |= {"cr2": processor.cr2, "cpl": processor.cpl} | _floating(subject)
        if world is World.GUEST and subject.mirrored is not None:
            values["cr2"], values["cpl"] = subject.mirrored.cpu.cr2, subject.mirrored.cpu.cpl
    return values


def _floating(subject: Subject) -> dict[str, int]:
    uc = subject.processor.engine.uc
    values = {name: int(uc.reg_read(getattr(x86_const, constant))) for name, constant in _FLOATING.items()}
    top = values["fstat"] >> _TOP_SHIFT & 7
    for number in range(8):
        mantissa, exponent = uc.reg_read(x86_const.UC_X86_REG_FP0 + (top + number & 7))
        values[f"st{number}"] = mantissa | (exponent & 0xFFFF) << 64
    return values


def write_register(view: View, world: World, name: str, value: int) -> bool:
    """Write a general register, EIP or EFLAGS of the world that has the processor; False for any other."""
    subject = view.subject
    if world is not subject.machine.world or view.stop.position.in_event:
        return False
    processor = subject.processor
    if name in ("eip", "rip"):
        processor.eip = value
    elif name == "eflags":
        processor.eflags = value
    elif name in GPR_NAMES:
        processor.set_gpr(GPR_NAMES.index(name), value)
    elif name in WIDE_GPR_NAMES:
        processor.set_gpr(WIDE_GPR_NAMES.index(name), value)
    else:
        return False
    return True


def read_memory(view: View, world: World, address: int, size: int, physical: bool = False) -> bytes:
    """As many of these bytes as are mapped."""
    ram = view.subject.machine.ram.view
    return b"".join(
        bytes(ram[at : at + count]) for at, count in places_of(view, world, address, size, physical=physical)
    )


def write_memory(view: View, world: World, address: int, data: bytes, physical: bool = False) -> bool:
    """Write bytes, whatever the page tables permit; nothing, and False, if some of them aren't mapped to RAM."""
    places = places_of(view, world, address, len(data), physical=physical)
    if sum(count for _, count in places) != len(data):
        return False
    done = 0
    for at, count in places:
        view.subject.machine.ram.view[at : at + count] = data[done : done + count]
        done += count
    view.subject.processor.forget_code()
    return True


def known_worlds(view: View) -> list[str]:
    """The worlds that have code, those that have run already first marked by a true state."""
    return [str(world) for world in (World.HOST, World.GUEST) if view.subject.image(world) is not None]


def mode_of(view: View) -> tuple[str, bool]:
    """Whose the processor is (of the worlds that are threads), and whether it is in 64-bit code."""
    return str(view.subject.machine.world), view.subject.processor.code64
