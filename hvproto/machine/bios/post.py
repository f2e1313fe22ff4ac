"""From reset to the firmware's services: the processor's registers, the devices, and low memory."""

from __future__ import annotations

from collections.abc import Mapping

from hvproto.machine.bios import data_area as area
from hvproto.machine.bios.call import Call
from hvproto.machine.bios.cmos import SHUTDOWN, Cmos
from hvproto.machine.bios.disk_parameters import fixed_disk_table
from hvproto.machine.bios.drive import FIRST_FIXED_DISK, Drive
from hvproto.machine.bios.rom import ROM_SEGMENT, rom
from hvproto.machine.bios.serial import COM1
from hvproto.machine.bios.time import ticks_since_midnight
from hvproto.machine.ports import PortBus
from hvproto.processor.cpu import Cpu
from hvproto.processor.segments import (
    ACCESSED,
    CODE,
    PRESENT,
    READABLE,
    S_BIT,
    WRITABLE,
    Segment,
    SegmentRegister,
    TableRegister,
)
from hvproto.processor.settings import CR0_PE, EFLAGS_IF, Setting

BOOT_ADDRESS = 0x7C00
RESUME_STACK = 0x400
"""Where the stack begins, growing down, when a reset comes back from protected mode: 0030:0100 on an AT."""
_RING0_DATA = PRESENT | S_BIT | WRITABLE | ACCESSED
_RING0_CODE = PRESENT | S_BIT | CODE | READABLE | ACCESSED
_CR0_PG = 0x8000_0000
_KEYBOARD_DATA, _KEYBOARD_STATUS, _FULL = 0x60, 0x64, 0x01
_MOST_ANSWERS = 4

_DEVICES = (
    # The interrupt controllers: cascaded, vectors 08h and 70h; the interrupts that somebody handles are let through.
    (0x20, 0x11), (0xA0, 0x11), (0x21, 0x08), (0xA1, 0x70), (0x21, 0x04), (0xA1, 0x02), (0x21, 0x01), (0xA1, 0x01),
    (0x21, 0xB8), (0xA1, 0x8E),
    # The timer: counter 0 in mode 3 with the longest period, 18.2 times a second.
    (0x43, 0x36), (0x40, 0x00), (0x40, 0x00),
    # The clock: 24 hours, BCD, no interrupts, 1,024 Hz.
    (0x70, 0x0B), (0x71, 0x02), (0x70, 0x0A), (0x71, 0x26),
    # COM1: no interrupts. The disks: reset, with their interrupt.
    (COM1 + 1, 0x00), (0x3F6, 0x04), (0x3F6, 0x00),
    # The keyboard: scan code set 1 for programs, with its interrupt; the keyboard as after power-on, and scanning.
    (0x64, 0x60), (_KEYBOARD_DATA, 0x65), (_KEYBOARD_DATA, 0xF6),
)  # fmt: skip

# What is to be done after a reset that a program has planned: byte 0Fh of the CMOS, and a label of the ROM.
_PLANNED = {0x05: "end_of_interrupt", 0x0A: "resume", 0x0B: "return_from_interrupt", 0x0C: "return_far"}
_BY_STACK = frozenset((0x0B, 0x0C))


def planned_resumption(call: Call, cmos: Cmos) -> bool:
    """After a reset: go on as a program wanted that comes back from protected mode; False if none did.

    The devices and the memory stay as they are, interrupts are off.
    """
    code = cmos[SHUTDOWN]
    cmos[SHUTDOWN] = 0
    label = _PLANNED.get(code)
    if label is None:
        return False
    offset, segment = (int.from_bytes(call.read(area.RESUME_AT + at, 2), "little") for at in (0, 2))
    stack = (segment, offset) if code in _BY_STACK else (0, RESUME_STACK)
    enter_real_mode(call.processor, ROM_SEGMENT, rom().labels[label], stack=stack, interrupts=False)
    return True


def prepare_devices(ports: PortBus) -> None:
    """What a BIOS writes to the ports before anything boots."""
    for port, value in _DEVICES:
        ports.write(port, 1, value)
    for _ in range(_MOST_ANSWERS):  # the acknowledgement, and what a program has left unread
        if not ports.read(_KEYBOARD_STATUS, 1) & _FULL:
            break
        ports.read(_KEYBOARD_DATA, 1)


def prepare_memory(call: Call, cmos: Cmos, drives: Mapping[int, Drive]) -> None:
    """The ROM with the drives' tables, the interrupt vectors, the data areas; and the CMOS, which agrees with them."""
    the_rom = rom()
    call.write_code(the_rom.address, the_rom.data)
    fixed = [drive for number, drive in sorted(drives.items()) if number >= FIRST_FIXED_DISK]
    diskettes = [drive.diskette for number, drive in sorted(drives.items()) if drive.diskette]
    tables = {f"disk_table_{n}": fixed_disk_table(drive.geometry) for n, drive in enumerate(fixed[:2])}
    tables |= {f"diskette_table_{n}": kind.parameters for n, kind in enumerate(diskettes)}
    for label, table in tables.items():
        call.write((ROM_SEGMENT << 4) + the_rom.labels[label], table)
    call.write(0, area.vector_table(the_rom))
    ticks = ticks_since_midnight(cmos)
    call.write(area.DATA_AREA, area.data_area(len(fixed), COM1, diskettes=len(diskettes), ticks=ticks))
    call.write(area.EXTENDED_AREA, b"\x01".ljust(1024, b"\0"))  # it begins with its size in KiB
    types = bytes(kind.drive_type for kind in diskettes).ljust(2, b"\0")
    cmos.set_disks(len(fixed), types, area.equipment(len(diskettes)) & 0xFF)


def enter_real_mode(
    processor: Cpu, segment: int, offset: int, *, stack: tuple[int, int] = (0, BOOT_ADDRESS), interrupts: bool
) -> None:
    """Go on in real mode with all registers 0 but ``stack``, which is SS and SP, and the processor as after a reset."""
    processor.write_setting(Setting.CR0, processor.control(Setting.CR0) & ~(_CR0_PG | CR0_PE))
    processor.write_setting(Setting.CR4, 0)
    processor.write_setting(Setting.EFER, 0)
    processor.write_setting(Setting.CR3, 0)
    processor.write_setting(Setting.IDTR, TableRegister(0, 0x3FF))
    processor.write_setting(Setting.GDTR, TableRegister(0, 0xFFFF))
    segments = dict.fromkeys(SegmentRegister, Segment(0, 0, 0xFFFF, _RING0_DATA))
    segments[SegmentRegister.CS] = Segment(segment, segment << 4, 0xFFFF, _RING0_CODE)
    segments[SegmentRegister.SS] = Segment(stack[0], stack[0] << 4, 0xFFFF, _RING0_DATA)
    processor.set_segments(segments)
    for index in range(8):
        processor.set_gpr(index, 0)
    processor.esp = stack[1]
    processor.eflags = 2 | (EFLAGS_IF if interrupts else 0)
    processor.eip = offset
