"""Two disks on one channel, transfers of several sectors in one block, and disks that are files."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvproto.errors import ImageError
from hvproto.machine.ata import AtaDisk
from hvproto.machine.disk_backend import FileBackend, ImageBackend, SectorBackend
from hvproto.machine.ports import PortBus

DATA, ERROR, COUNT, SECTOR, LOW, HIGH, DRIVE, STATUS = range(0x1F0, 0x1F8)
CONTROL = 0x3F6
READY, DRQ, ERR = 0x50, 0x58, 0x51
MASTER, SLAVE = 0xE0, 0xF0
IMAGE = b"".join(bytes([number + 1]) * 512 for number in range(64))
OTHER = b"".join(bytes([number + 101]) * 512 for number in range(20))


class Channel:
    """A channel with its two disks, used as a driver would."""

    def __init__(self, master: SectorBackend | None = None, slave: SectorBackend | None = None) -> None:
        self.interrupts = 0
        self.level = False
        self.disks = AtaDisk(master or ImageBackend(IMAGE), self._irq, slave or ImageBackend(OTHER))
        self.bus = PortBus()
        self.bus.attach(self.disks, self.disks.ports)

    def _irq(self, level: bool) -> None:
        self.interrupts += level and not self.level
        self.level = level

    def command(self, drive: int, command: int, lba: int = 0, count: int = 1) -> int:
        """Give a command; the status right after it."""
        for port, value in ((DRIVE, drive), (COUNT, count), (SECTOR, lba), (LOW, 0), (HIGH, 0), (STATUS, command)):
            self.bus.write(port, 1, value)
        return self.bus.read(STATUS, 1)

    def take(self, size: int) -> bytes:
        return b"".join(self.bus.read(DATA, 4).to_bytes(4, "little") for _ in range(size // 4))

    def give(self, data: bytes) -> None:
        for at in range(0, len(data), 4):
            self.bus.write(DATA, 4, int.from_bytes(data[at : at + 4], "little"))

    def read(self, drive: int, lba: int) -> bytes:
        assert self.command(drive, 0x20, lba) == DRQ
        return self.take(512)

    def identity(self, drive: int) -> list[int]:
        assert self.command(drive, 0xEC) == DRQ
        data = self.take(512)
        return [int.from_bytes(data[at : at + 2], "little") for at in range(0, 512, 2)]


# -- two disks -------------------------------------------------------------------------------


def test_each_disk_has_its_own_sectors() -> None:
    channel = Channel()
    assert [channel.read(drive, 3)[0] for drive in (MASTER, SLAVE, MASTER)] == [4, 104, 4]
    channel.command(SLAVE, 0x30, 3)
    channel.give(b"\xee" * 512)
    assert [channel.read(drive, 3)[0] for drive in (MASTER, SLAVE)] == [4, 0xEE]


def test_each_disk_says_who_it_is() -> None:
    channel = Channel()
    master, slave = channel.identity(MASTER), channel.identity(SLAVE)
    assert (master[60], slave[60]) == (64, 20)
    assert master[10:20] != slave[10:20] and master[27:47] == slave[27:47]


def test_the_end_of_each_disk() -> None:
    channel = Channel()
    assert channel.command(SLAVE, 0x20, 20) == ERR and channel.bus.read(ERROR, 1) == 0x10
    assert channel.command(MASTER, 0x20, 20) == DRQ


def test_only_the_selected_disk_interrupts() -> None:
    channel = Channel()
    channel.command(MASTER, 0x20, 0)
    channel.bus.write(STATUS, 1, 0x20)  # again, without reading the status
    assert channel.level
    channel.bus.write(DRIVE, 1, SLAVE)
    assert not channel.level
    channel.bus.write(DRIVE, 1, MASTER)
    assert channel.level


def test_a_reset_and_a_diagnostic_are_for_both_and_select_the_master() -> None:
    channel = Channel()
    for reset in (
        lambda: [channel.bus.write(CONTROL, 1, value) for value in (4, 0)],
        lambda: channel.command(SLAVE, 0x90),
    ):
        channel.command(SLAVE, 0x20, 0)
        reset()
        for drive in (0xA0, 0xB0):
            signature = [channel.bus.read(port, 1) for port in (ERROR, COUNT, SECTOR, LOW, HIGH)]
            assert signature == [1, 1, 1, 0, 0] and channel.bus.read(STATUS, 1) == READY
            channel.bus.write(DRIVE, 1, drive ^ 0x10)


def test_without_a_slave_its_status_is_0() -> None:
    disks = AtaDisk(ImageBackend(IMAGE), lambda level: None)
    disks.write_port(DRIVE, 1, SLAVE)
    disks.write_port(STATUS, 1, 0xEC)
    assert disks.read_port(STATUS, 1) == 0 and disks.read_port(DATA, 2) == 0xFFFF


# -- several sectors at once -----------------------------------------------------------------


def test_read_multiple() -> None:
    channel = Channel()
    assert channel.command(MASTER, 0xC6, count=4) == READY
    channel.interrupts = 0
    assert channel.command(MASTER, 0xC4, 10, 10) == DRQ
    taken = b""
    for sectors, left in ((4, 6), (4, 2), (2, 0)):
        taken += channel.take(sectors * 512)
        assert channel.bus.read(COUNT, 1) == left
        assert channel.bus.read(STATUS, 1) == (DRQ if left else READY)
    assert taken == IMAGE[10 * 512 : 20 * 512]
    assert channel.interrupts == 3


def test_write_multiple() -> None:
    channel = Channel()
    channel.command(SLAVE, 0xC6, count=2)
    data = bytes(range(256)) * 6
    assert channel.command(SLAVE, 0xC5, 5, 3) == DRQ
    channel.interrupts = 0
    channel.give(data[:1024])
    assert channel.bus.read(STATUS, 1) == DRQ
    channel.give(data[1024:])
    assert channel.bus.read(STATUS, 1) == READY and channel.interrupts == 2
    assert b"".join(channel.read(SLAVE, lba) for lba in (5, 6, 7)) == data


def test_a_block_that_ends_with_the_disk() -> None:
    channel = Channel()
    channel.command(SLAVE, 0xC6, count=16)
    assert channel.command(SLAVE, 0xC4, 17, 5) == DRQ
    assert channel.take(3 * 512) == OTHER[17 * 512 :]
    assert channel.bus.read(STATUS, 1) == ERR and channel.bus.read(ERROR, 1) == 0x10


@pytest.mark.parametrize("command", [0xC4, 0xC5])
def test_multiple_has_to_be_set_first(command: int) -> None:
    channel = Channel()
    assert channel.command(MASTER, command) == ERR and channel.bus.read(ERROR, 1) == 4
    assert channel.identity(MASTER)[59] == 0
    channel.command(MASTER, 0xC6, count=8)
    identity = channel.identity(MASTER)
    assert (identity[47] & 0xFF, identity[59]) == (16, 0x0108)
    assert channel.command(MASTER, command) == DRQ
    for bad in (3, 32):
        assert channel.command(MASTER, 0xC6, count=bad) == ERR
    assert channel.command(MASTER, command) == ERR


# -- files -----------------------------------------------------------------------------------


def test_a_file_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(IMAGE + b"half a sector")
    channel = Channel(FileBackend(path))
    assert channel.read(MASTER, 2) == IMAGE[1024:1536]
    for lba in (2, 64):
        channel.command(MASTER, 0x30, lba)
        channel.give(b"\xaa" * 512)
    assert channel.read(MASTER, 2) == b"\xaa" * 512
    assert channel.identity(MASTER)[60] == 65
    assert path.read_bytes() == IMAGE[:1024] + b"\xaa" * 512 + IMAGE[1536:] + b"\xaa" * 13


def test_files_that_cannot_be_disks(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name, reason in (("missing", "no such disk image"), ("empty", "is empty"), ("", "regular file")):
        with pytest.raises(ImageError, match=reason):
            FileBackend(tmp_path / name)
