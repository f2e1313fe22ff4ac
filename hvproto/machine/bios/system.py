"""INT 11h, 12h and 15h: what the machine has, and a few things that only the firmware can do.

Sources: Ralf Brown's interrupt list (INT 15), Advanced Configuration and Power Interface 6.5, 15.1 (E820h).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from hvproto.images.memory_map import HIGH_MEMORY, memory_map
from hvproto.machine.bios import cmos as c
from hvproto.machine.bios import data_area as area
from hvproto.machine.bios.call import CARRY, Call
from hvproto.machine.bios.cmos import Cmos
from hvproto.machine.bios.rom import ROM_SEGMENT, rom
from hvproto.processor.segments import SegmentRegister

_SMAP = 0x534D4150
_RANGE_SIZE = 20
_UNSUPPORTED = 0x86
_SIXTEEN_MIB = 16 << 20
_BUSY, _POST = 0x90, 0x91
_SYSTEM_REQUEST = 0x85
_BOTH_GATES = 0x0003  # of address line 20: the keyboard controller's and that of port 92h

_WAITING, _WAITS_ALREADY = 0x01, 0x83
_PERIOD_1024_HZ = 0x26  # register A of the clock
_PERIOD_US = 976


class SystemService:
    """``a20`` switches the gate of address line 20 if it gets a value, and tells in which state it is then.

    Waiting is done by the clock chip's periodic interrupt, so that it takes up to 2 ms longer than wanted.
    """

    def __init__(self, ram_size: int, cmos: Cmos, a20: Callable[[bool | None], bool]) -> None:
        self._ram_size = ram_size
        self._cmos = cmos
        self._a20 = a20

    def serve(self, call: Call) -> None:
        """INT 15h. Carry is set, and AH is 86h, for a function that isn't here."""
        call.set_flag(CARRY, False)
        match call.ax:
            case 0xE820:
                self._next_range(call)
            case 0xE801:
                below = min(self._ram_size, _SIXTEEN_MIB) - HIGH_MEMORY
                call.ax = call.cx = max(below, 0) >> 10
                call.bx = call.dx = max(self._ram_size - _SIXTEEN_MIB, 0) >> 16
            case 0x2400 | 0x2401:
                self._a20(call.al == 1)
                call.ah = 0
            case 0x2402:
                call.ax = int(self._a20(None))
            case 0x2403:
                call.ah, call.bx = 0, _BOTH_GATES
            case _:
                self._by_ah(call)

    def _by_ah(self, call: Call) -> None:
        match call.ah:
            case 0x4F:
                call.set_flag(CARRY, True)  # the scan code in AL is to be processed
            case 0x83:
                self._wait_in_background(call)
            case 0x86:
                self._wait(call)
            case 0x87:
                self._move_block(call)
            case 0x88:
                call.ax = min(max(self._ram_size - HIGH_MEMORY, 0) >> 10, 0xFFFF)
            case 0xC0:
                call.es, call.bx = ROM_SEGMENT, rom().labels["configuration"]
                call.ah = 0
            case 0xC1:
                call.es = area.EXTENDED_AREA >> 4
            case _ if call.ah in (_BUSY, _POST, _SYSTEM_REQUEST):
                call.ah = 0
            case _:
                self._fail(call, _UNSUPPORTED)

    @staticmethod
    def _fail(call: Call, status: int) -> None:
        call.ah = status
        call.set_flag(CARRY, True)

    # -- waiting -----------------------------------------------------------------------------

    def _wait(self, call: Call) -> None:
        """AH=86h: CX:DX microseconds. The ROM waits, with interrupts let through."""
        if self._start_waiting(call, area.WAIT_STATE - area.DATA_AREA, area.DATA_AREA >> 4):
            call.processor.eip = rom().labels["wait_for_clock"]

    def _wait_in_background(self, call: Call) -> None:
        """AH=83h: bit 7 of the byte at ES:BX is set after CX:DX microseconds (AL=0); AL=1 says that it needn't be."""
        if call.al == 0:
            self._start_waiting(call, call.bx, call.es)
        elif call.al == 1:
            self._cmos.disable(c.PERIODIC)
            call.write(area.WAIT_STATE, b"\0")

    def _start_waiting(self, call: Call, offset: int, segment: int) -> bool:
        if call.read(area.WAIT_STATE, 1)[0] & _WAITING:
            self._fail(call, _WAITS_ALREADY)
            return False
        # The first period may be shorter than the others, so there is one more.
        microseconds = min((call.cx << 16 | call.dx) + _PERIOD_US, 0xFFFF_FFFF)
        call.write(area.WAIT_FLAG, struct.pack("<HHIB", offset, segment, microseconds, _WAITING))
        self._cmos[c.STATUS_A] = _PERIOD_1024_HZ
        self._cmos.enable(c.PERIODIC)
        return True

    # -- memory ------------------------------------------------------------------------------

    def _next_range(self, call: Call) -> None:
        """EBX numbers the ranges; 0 comes back with the last one."""
        ranges, number = memory_map(self._ram_size), call.ebx
        if call.edx != _SMAP or call.ecx < _RANGE_SIZE or number >= len(ranges):
            self._fail(call, _UNSUPPORTED)
            return
        found = ranges[number]
        packed = struct.pack("<QQI", found.base, found.length, found.kind)
        call.write(call.base(SegmentRegister.ES) + call.di, packed)
        call.eax, call.ecx = _SMAP, _RANGE_SIZE
        call.ebx = number + 1 if number + 1 < len(ranges) else 0

    def _move_block(self, call: Call) -> None:
        """CX words, from and to where the third and fourth descriptor of the table at ES:SI say."""
        table = call.read(call.base(SegmentRegister.ES) + call.si, 32)
        source, target = (int.from_bytes(table[at + 2 : at + 5] + table[at + 7 : at + 8], "little") for at in (16, 24))
        call.write_code(target, call.read(source, 2 * call.cx))
        call.ah = 0


def equipment(call: Call) -> None:
    """INT 11h."""
    call.ax = int.from_bytes(call.read(area.EQUIPMENT, 2), "little")


def memory_size(call: Call) -> None:
    """INT 12h: conventional memory in KiB."""
    call.ax = int.from_bytes(call.read(area.MEMORY_KIB, 2), "little")
