"""The BIOS data area, segment 0040, and the interrupt vector table: what the firmware prepares in low memory.

The layout is that of the IBM PC/AT Technical Reference (6280070), section "ROM BIOS data areas".
"""

from __future__ import annotations

import struct

from hvproto.machine.bios.rom import Rom

DATA_AREA = 0x400
COM_PORTS = 0x400
EXTENDED_SEGMENT = 0x40E
EQUIPMENT = 0x410
MEMORY_KIB = 0x413
SHIFT_FLAGS = 0x417
KEY_HEAD, KEY_TAIL = 0x41A, 0x41C
KEY_BUFFER = 0x41E
VIDEO_MODE, COLUMNS, PAGE_SIZE, PAGE_START = 0x449, 0x44A, 0x44C, 0x44E
CURSORS, CURSOR_SHAPE, ACTIVE_PAGE, CRTC_PORT = 0x450, 0x460, 0x462, 0x463
TICKS, MIDNIGHT = 0x46C, 0x470
DISKETTE_STATUS = 0x441
RESET_FLAG, RESUME_AT = 0x472, 0x467
BREAK_FLAG = 0x471
DISK_STATUS, DISK_COUNT = 0x474, 0x475
KEY_BUFFER_START, KEY_BUFFER_END = 0x480, 0x482
LAST_ROW, CHARACTER_HEIGHT = 0x484, 0x485
KEYBOARD_KIND = 0x496
WAIT_FLAG, WAIT_TIME, WAIT_STATE = 0x498, 0x49C, 0x4A0

LOW_MEMORY_KIB = 639
"""Conventional memory: the last of its 640 KiB is the extended data area."""
EXTENDED_AREA = LOW_MEMORY_KIB << 10

_EQUIPMENT_WORD = 1 << 9 | 2 << 4 | 1 << 1
"""One serial port, 80x25 colour text, a coprocessor; bits 0, 6 and 7 are for diskette drives."""
_ENHANCED_KEYBOARD = 0x10

_DEVICE_VECTORS = {0x08: "timer", 0x09: "key", 0x70: "real_time_clock", 0x76: "disk"}
_SERVICE_VECTORS = {
    0x10: "video", 0x11: "equipment", 0x12: "memory_size", 0x13: "disk", 0x14: "serial", 0x15: "system",
    0x16: "keyboard", 0x17: "printer", 0x18: "no_system", 0x19: "boot", 0x1A: "time",
}  # fmt: skip
_TABLE_VECTORS = {0x1E: "diskette_table_0", 0x41: "disk_table_0", 0x46: "disk_table_1"}


def vector_table(rom: Rom) -> bytes:
    """The 256 entries of 4 bytes, offset before segment."""
    entries = [rom.vector("nothing")] * 0x100
    for vector in range(0x0A, 0x10):
        entries[vector] = rom.vector("master_irq")
    for vector in range(0x70, 0x78):
        entries[vector] = rom.vector("slave_irq")
    for vector, name in {**_DEVICE_VECTORS, **_TABLE_VECTORS}.items():
        entries[vector] = rom.vector(name)
    for vector, name in _SERVICE_VECTORS.items():
        entry = f"entry_{name}"
        entries[vector] = rom.vector(entry if entry in rom.labels else f"service_{name}")
    # Programs of the user's, and tables that aren't there: zeros say so.
    for vector in (0x1D, 0x1F, 0x43, 0x44, *range(0x60, 0x68), *range(0x78, 0x100)):
        entries[vector] = 0
    return struct.pack("<256I", *entries)


def equipment(diskettes: int) -> int:
    """The word of INT 11h with so many diskette drives, 0 to 2."""
    return _EQUIPMENT_WORD | (1 | diskettes - 1 << 6 if diskettes else 0)


def data_area(disks: int, com_port: int, *, diskettes: int = 0, ticks: int = 0) -> bytes:
    """The 256 bytes at 0040:0000 as they are before the first boot sector runs; ``ticks`` have gone since midnight."""
    area = bytearray(0x100)

    def put(layout: str, address: int, *values: int) -> None:
        struct.pack_into("<" + layout, area, address - DATA_AREA, *values)

    put("4H", COM_PORTS, com_port, 0, 0, 0)
    put("H", EXTENDED_SEGMENT, EXTENDED_AREA >> 4)
    put("H", EQUIPMENT, equipment(diskettes))
    put("H", MEMORY_KIB, LOW_MEMORY_KIB)
    put("2H", KEY_HEAD, KEY_BUFFER - DATA_AREA, KEY_BUFFER - DATA_AREA)
    put("2H", KEY_BUFFER_START, KEY_BUFFER - DATA_AREA, KEY_BUFFER - DATA_AREA + 32)
    put("B", VIDEO_MODE, 3)
    put("H", COLUMNS, 80)
    put("H", PAGE_SIZE, 0x1000)
    put("H", CURSOR_SHAPE, 0x0607)
    put("H", CRTC_PORT, 0x3D4)
    put("I", TICKS, ticks)
    put("B", DISK_COUNT, disks)
    put("B", LAST_ROW, 24)
    put("H", CHARACTER_HEIGHT, 16)
    put("B", KEYBOARD_KIND, _ENHANCED_KEYBOARD)
    return bytes(area)
