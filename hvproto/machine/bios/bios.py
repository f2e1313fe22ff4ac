"""The firmware as a whole: it prepares memory and devices, boots from a disk, and serves interrupts."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hvproto.machine.bios import data_area as area
from hvproto.machine.bios import system
from hvproto.machine.bios.call import Call
from hvproto.machine.bios.disk import FIRST_FIXED_DISK, DiskService, Drive, parameter_table
from hvproto.machine.bios.geometry import is_diskette
from hvproto.machine.bios.keyboard import Keyboard
from hvproto.machine.bios.rom import ROM_SEGMENT, rom
from hvproto.machine.bios.system import SystemService
from hvproto.machine.bios.time import TimeService
from hvproto.machine.bios.video import Video
from hvproto.machine.disk_backend import SectorBackend
from hvproto.processor.processor import Processor
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

if TYPE_CHECKING:
    from hvproto.machine.board import Board

BOOT_ADDRESS = 0x7C00
BOOT_SIGNATURE = b"\x55\xaa"
_SIGNATURE_OFFSET = 510
_RING0_DATA = PRESENT | S_BIT | WRITABLE | ACCESSED
_RING0_CODE = PRESENT | S_BIT | CODE | READABLE | ACCESSED
_COM1 = 0x3F8
_CRTC, _A20_GATE = 0x3D4, 0x92
_RESET, _GATE_OPEN = 0x01, 0x02
_CR0_PG = 0x8000_0000
_NO_PRINTER = 0x01
_LINE_STATUS, _DATA_READY = 5, 0x01
_CYCLES_PER_1000_US = 119_318

_DEVICES = (
    # The interrupt controllers: cascaded, vectors 08h and 70h; the interrupts that somebody handles are let through.
    (0x20, 0x11), (0xA0, 0x11), (0x21, 0x08), (0xA1, 0x70), (0x21, 0x04), (0xA1, 0x02), (0x21, 0x01), (0xA1, 0x01),
    (0x21, 0xB8), (0xA1, 0x8E),
    # The timer: counter 0 in mode 3 with the longest period, 18.2 times a second.
    (0x43, 0x36), (0x40, 0x00), (0x40, 0x00),
)  # fmt: skip


class Bios:
    """The firmware of one machine, ``disks`` being its fixed disks in order."""

    def __init__(self, processor: Processor, board: Board, disks: Sequence[SectorBackend]) -> None:
        self._processor = processor
        self._ports = board.ports
        self.keyboard = Keyboard()
        drives = {FIRST_FIXED_DISK + number: Drive(backend) for number, backend in enumerate(disks)}
        self.boot_drive = FIRST_FIXED_DISK
        if is_diskette(disks[0].sectors):
            # An image of a diskette finds itself in drive A, too: its programs expect it there.
            drives[0] = drives[FIRST_FIXED_DISK]
            self.boot_drive = 0
        self._disk = DiskService(drives)
        me = weakref.proxy(self)  # no circle: the RAM goes with the machine
        self._video = Video(lambda index, value: me._write_crtc(index, value))
        self._system = SystemService(len(processor.ram), lambda time: me._wait(time), lambda on: me._a20(on))
        self._time = TimeService(board.clock, board.ports)

    @property
    def bootable(self) -> bool:
        """Whether the first sector of the disk to boot from ends in 55h AAh."""
        sector = self._disk.drives[self.boot_drive].read(0)
        return sector is not None and sector[_SIGNATURE_OFFSET:] == BOOT_SIGNATURE

    def start(self) -> None:
        """What happens from reset to the boot sector's first instruction."""
        call, the_rom = Call(self._processor), rom()
        fixed = [drive for number, drive in sorted(self._disk.drives.items()) if number >= FIRST_FIXED_DISK]
        call.write_code(the_rom.address, the_rom.data)
        for number, drive in enumerate(fixed[:2]):
            table = the_rom.labels[f"disk_table_{number}"]
            call.write((ROM_SEGMENT << 4) + table, parameter_table(drive.geometry))
        call.write(0, area.vector_table(the_rom))
        call.write(area.DATA_AREA, area.data_area(len(fixed), _COM1, diskette=0 in self._disk.drives))
        call.write(area.EXTENDED_AREA, b"\x01".ljust(1024, b"\0"))  # it begins with its size in KiB
        for port, value in _DEVICES:
            self._ports.write(port, 1, value)
        self._video.set_mode(call, 3)
        self._a20(True)
        self._boot(call)

    def _boot(self, call: Call) -> None:
        """Load the boot sector and enter it at 0:7C00, with the drive's number in DL."""
        sector = self._disk.drives[self.boot_drive].read(0)
        if sector is None or sector[_SIGNATURE_OFFSET:] != BOOT_SIGNATURE:
            self._enter(ROM_SEGMENT, rom().labels["stopped"])
            self._say(call, "No bootable disk\r\n")
            return
        call.write_code(BOOT_ADDRESS, sector)
        self._enter(0, BOOT_ADDRESS)
        call.ax, call.dl = 0xAA55, self.boot_drive

    def _enter(self, segment: int, offset: int) -> None:
        """Go on in real mode, with interrupts let through and the stack below the boot sector."""
        processor = self._processor
        processor.write_setting(Setting.CR0, processor.control(Setting.CR0) & ~(_CR0_PG | CR0_PE))
        processor.write_setting(Setting.IDTR, TableRegister(0, 0x3FF))
        processor.write_setting(Setting.GDTR, TableRegister(0, 0xFFFF))
        segments = dict.fromkeys(SegmentRegister, Segment(0, 0, 0xFFFF, _RING0_DATA))
        segments[SegmentRegister.CS] = Segment(segment, segment << 4, 0xFFFF, _RING0_CODE)
        processor.set_segments(segments)
        for index in range(8):
            processor.set_gpr(index, 0)
        processor.esp = BOOT_ADDRESS
        processor.eflags = 2 | EFLAGS_IF
        processor.eip = offset

    # -- services ----------------------------------------------------------------------------

    def serve(self) -> bool:
        """After a HLT: perform the service whose entry it was; False if it was any other HLT."""
        processor = self._processor
        service = rom().services.get(processor.eip)
        if service is None or processor.code.selector != ROM_SEGMENT or processor.control(Setting.CR0) & CR0_PE:
            return False
        call = Call(processor)
        match service:
            case "video":
                self._video.serve(call)
            case "disk":
                self._disk.serve(call)
            case "keyboard":
                self.keyboard.serve(call)
            case "scan_code":
                self.keyboard.scan_code(call)
            case "system":
                self._system.serve(call)
            case "time":
                self._time.serve(call)
            case "equipment":
                system.equipment(call)
            case "memory_size":
                system.memory_size(call)
            case "serial":
                self._serial(call)
            case "printer":
                call.ah = _NO_PRINTER
            case "restart":
                self.start()
            case "boot":
                self._boot(call)
            case "no_system":
                self._say(call, "No system to boot\r\n")
                processor.eip = rom().labels["stopped"]
        return True

    def type(self, text: str) -> None:
        """Press keys for INT 16h. Raises BadInput for characters that no key gives."""
        self.keyboard.type(text)

    def _say(self, call: Call, text: str) -> None:
        for character in text.encode("ascii"):
            self._video.teletype(call, 0, character)

    def _serial(self, call: Call) -> None:
        """INT 14h: COM1 only (Ralf Brown's interrupt list, INT 14)."""
        if call.dx:
            call.ah = 0x80  # timed out
            return
        read, write = self._ports.read, self._ports.write
        if call.ah == 0x01:
            write(_COM1, 1, call.al)
        elif call.ah == 0x02 and read(_COM1 + _LINE_STATUS, 1) & _DATA_READY:
            call.al, call.ah = read(_COM1, 1), 0
            return
        call.ah = read(_COM1 + _LINE_STATUS, 1)

    # -- devices -----------------------------------------------------------------------------

    def _write_crtc(self, index: int, value: int) -> None:
        if self._ports.claimed(_CRTC):
            self._ports.write(_CRTC, 1, index)
            self._ports.write(_CRTC + 1, 1, value)

    def _a20(self, on: bool | None) -> bool:
        """Switch the gate of address line 20, if there is one and ``on`` isn't None; whether it is open then."""
        if not self._ports.claimed(_A20_GATE):
            return True
        if on is not None:
            value = self._ports.read(_A20_GATE, 1) & ~(_GATE_OPEN | _RESET)
            self._ports.write(_A20_GATE, 1, value | (_GATE_OPEN if on else 0))
        return bool(self._ports.read(_A20_GATE, 1) & _GATE_OPEN)

    def _wait(self, microseconds: int) -> None:
        processor = self._processor
        processor.advance_to(processor.now + microseconds * _CYCLES_PER_1000_US // 1000)
