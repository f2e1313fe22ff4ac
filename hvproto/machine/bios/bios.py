"""The firmware as a whole: it prepares memory and devices, boots from a disk, and serves interrupts."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hvproto.machine.bios import keyboard, post, serial, system, time
from hvproto.machine.bios.call import Call
from hvproto.machine.bios.cmos import Cmos
from hvproto.machine.bios.disk import DiskService
from hvproto.machine.bios.drive import numbered
from hvproto.machine.bios.key_interrupt import KeyInterrupt
from hvproto.machine.bios.pci import PciService
from hvproto.machine.bios.rom import ROM_SEGMENT, rom
from hvproto.machine.bios.system import SystemService
from hvproto.machine.bios.video import Video
from hvproto.machine.disk_backend import SectorBackend
from hvproto.processor.cpu import Cpu
from hvproto.processor.settings import CR0_PE, Setting

if TYPE_CHECKING:
    from hvproto.machine.board import Board

BOOT_SIGNATURE = b"\x55\xaa"
_SIGNATURE_OFFSET = 510
_A20_GATE, _RESET, _GATE_OPEN = 0x92, 0x01, 0x02
_NO_PRINTER = 0x01
_PCI_BIOS = 0xB1


class Bios:
    """The firmware of one machine; its first disk is the one to boot from. The clock chip and the VGA must be there."""

    def __init__(self, processor: Cpu, board: Board, disks: Sequence[SectorBackend]) -> None:
        self._processor = processor
        self._ports = board.ports
        drives = numbered(disks)
        self.boot_drive = next(iter(drives))
        self._disk = DiskService(drives)
        self._cmos = Cmos(board.ports)
        self._video = Video(board.ports)
        self._pci = PciService(board.ports)
        me = weakref.proxy(self)  # no circle: the RAM goes with the machine
        self._system = SystemService(len(processor.ram), self._cmos, lambda on: me._a20(on))

    @property
    def bootable(self) -> bool:
        """Whether the first sector of the disk to boot from ends in 55h AAh."""
        return self._boot_sector() is not None

    def _boot_sector(self) -> bytes | None:
        sector = self._disk.drives[self.boot_drive].read(0)
        return sector if sector is not None and sector[_SIGNATURE_OFFSET:] == BOOT_SIGNATURE else None

    def start(self) -> None:
        """What happens from reset to the boot sector's first instruction, or to where a program wanted to go on."""
        call = Call(self._processor)
        if post.planned_resumption(call, self._cmos):
            return
        post.prepare_devices(self._ports)
        post.prepare_memory(call, self._cmos, self._disk.drives)
        self._video.set_mode(call, 3)
        self._a20(True)
        self._boot(call)

    def _boot(self, call: Call) -> None:
        """Load the boot sector and enter it at 0:7C00, with the drive's number in DL."""
        sector = self._boot_sector()
        if sector is None:
            post.enter_real_mode(self._processor, ROM_SEGMENT, rom().labels["stopped"], interrupts=True)
            self._say(call, "No bootable disk\r\n")
            return
        call.write_code(post.BOOT_ADDRESS, sector)
        post.enter_real_mode(self._processor, 0, post.BOOT_ADDRESS, interrupts=True)
        call.ax, call.dl = 0xAA55, self.boot_drive

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
                keyboard.serve(call)
            case "scan_code":
                KeyInterrupt(call, self._ports).serve()
            case "system":
                self._system.serve(call)
            case "time":
                if call.ah == _PCI_BIOS:
                    self._pci.serve(call)
                else:
                    time.serve(call, self._cmos)
            case "equipment":
                system.equipment(call)
            case "memory_size":
                system.memory_size(call)
            case "serial":
                serial.serve(call, self._ports)
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

    def _say(self, call: Call, text: str) -> None:
        for character in text.encode("ascii"):
            self._video.teletype(call, character)

    def _a20(self, on: bool | None) -> bool:
        """Switch the gate of address line 20, if ``on`` isn't None; whether it is open then."""
        if on is not None:
            value = self._ports.read(_A20_GATE, 1) & ~(_GATE_OPEN | _RESET)
            self._ports.write(_A20_GATE, 1, value | (_GATE_OPEN if on else 0))
        return bool(self._ports.read(_A20_GATE, 1) & _GATE_OPEN)
