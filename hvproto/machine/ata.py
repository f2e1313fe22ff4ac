"""The primary channel with its hard disks, by programmed I/O (ATA-1: ANSI X3.221-1994, and FLUSH CACHE from ATA-4).

The first disk is the master, the second one, if there is one, the slave. Where the sectors come from is the backend's
affair: it may answer at once or much later, and BSY stays set until it does.
"""

from __future__ import annotations

import weakref

from hvproto.machine.ata_drive import AtaDrive
from hvproto.machine.ata_registers import BSY, NO_INTERRUPT, NOTHING_TO_DO, RESET, SLAVE, Command
from hvproto.machine.complaints import Complain, ignore
from hvproto.machine.disk_backend import ImageBackend, SectorBackend
from hvproto.machine.pic import IrqLine

__all__ = ["AtaDisk", "ImageBackend", "SectorBackend"]

DATA_PORT = 0x1F0
CONTROL_PORT = 0x3F6
_COMMANDS = {*Command, *NOTHING_TO_DO}


class AtaDisk:
    """The channel: ports 0x1f0 to 0x1f7 and 0x3f6; ``irq`` is interrupt line 14.

    What is written to the registers reaches both drives; the one that the drive/head register selects acts and answers.
    """

    ports = (*range(DATA_PORT, DATA_PORT + 8), CONTROL_PORT)
    wide_ports = frozenset({DATA_PORT})

    def __init__(self, backend: SectorBackend, irq: IrqLine, second: SectorBackend | None = None) -> None:
        self._irq = irq
        self.complain: Complain = ignore
        self._control = 0
        self._drives: list[AtaDrive] = []
        self._selected: AtaDrive | None = None
        backends = [backend] if second is None else [backend, second]
        me = weakref.proxy(self)  # no circle: the disks go with the board
        self._drives = [AtaDrive(one, f"HV{n:04}", lambda: me._update()) for n, one in enumerate(backends, 1)]
        self._select(0)

    # -- ports ------------------------------------------------------------------------------------------------------

    def read_port(self, port: int, size: int) -> int:
        drive = self._selected
        if port == DATA_PORT:
            data = drive.take(size) if drive else b""
            return int.from_bytes(data.ljust(size, b"\xff" if not data else b"\0"), "little")
        register = 7 if port == CONTROL_PORT else port - DATA_PORT
        if drive is None:
            return 0 if register == 7 else self._drives[0].register(register)  # the master answers for an absent slave
        if register == 7:
            status = drive.status
            if port != CONTROL_PORT:
                drive.signal(False)
            return status
        return drive.register(register)

    def write_port(self, port: int, size: int, value: int) -> None:
        if port == CONTROL_PORT:
            self._write_control(value)
        elif (self._selected or self._drives[0]).status & BSY:
            self.complain(f"a write to port {port:#x} while it is busy")
            return  # the registers belong to the disk now
        elif port == DATA_PORT:
            if self._selected:
                self._selected.give(value.to_bytes(size, "little"))
        elif port == DATA_PORT + 7:
            self._begin(value)
        else:
            for drive in self._drives:
                if not drive.status & BSY:
                    drive.write_register(port - DATA_PORT, value)
            if port == DATA_PORT + 6:
                self._select(value)

    def take(self, size: int) -> bytes:
        """What so many bytes of IN from the data port would give; fewer if the block ends, none if none is offered."""
        return self._selected.take(size) if self._selected else b""

    @property
    def room(self) -> int:
        """How many bytes the block still takes that OUTs to the data port make; 0 if the drive waits for none."""
        return self._selected.room if self._selected else 0

    def give(self, data: bytes) -> None:
        """The same as so many bytes of OUT to the data port; not more than there is `room` for."""
        if self._selected:
            self._selected.give(data)

    def _begin(self, command: int) -> None:
        if command == Command.DIAGNOSE:
            for drive in self._drives:
                drive.begin(command)
            self._select(0)
        elif self._selected:
            if command not in _COMMANDS:
                self.complain(f"it has no command {command:#04x}")
            self._selected.begin(command)

    def _select(self, drive_head: int) -> None:
        number = 1 if drive_head & SLAVE else 0
        self._selected = self._drives[number] if number < len(self._drives) else None
        self._update()

    def _write_control(self, value: int) -> None:
        was_held = self._control & RESET
        self._control = value
        for drive in self._drives:
            if value & RESET:
                drive.hold()
            elif was_held:
                drive.reset()
        if was_held and not value & RESET:
            self._select(0)
        self._update()

    def _update(self) -> None:
        """The interrupt line is the selected drive's."""
        drive = self._selected
        self._irq(drive is not None and drive.interrupt and not self._control & NO_INTERRUPT)
