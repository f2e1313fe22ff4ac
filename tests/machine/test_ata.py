"""The disk, by the register sequences that a driver uses; and where its bytes come from."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.errors import ImageError, MachineError
from hvproto.machine.ata import AtaDisk, ImageBackend, SectorBackend
from hvproto.machine.disk_image import bundled_disk, read_disk
from hvproto.machine.ports import PortBus

DATA, ERROR, COUNT, SECTOR, LOW, HIGH, DRIVE, STATUS = range(0x1F0, 0x1F8)
CONTROL = 0x3F6
BSY, READY, DRQ, ERR = 0x80, 0x50, 0x58, 0x51
IMAGE = bundled_disk()


class Later:
    """A backend that answers when it is told to, or refuses."""

    def __init__(self, data: bytes) -> None:
        self.image = ImageBackend(data)
        self.waiting: list[Callable[[], None]] = []
        self.broken = False

    @property
    def sectors(self) -> int:
        return self.image.sectors

    def read(self, lba: int, done: Callable[[bytes | None], None]) -> None:
        self.waiting.append(lambda: done(None) if self.broken else self.image.read(lba, done))

    def write(self, lba: int, data: bytes, done: Callable[[bool], None]) -> None:
        self.waiting.append(lambda: done(False) if self.broken else self.image.write(lba, data, done))

    def answer(self) -> None:
        self.waiting.pop(0)()


class Bench:
    def __init__(self, backend: SectorBackend | None = None) -> None:
        self.irq = False
        self.edges = 0
        self.disk = AtaDisk(backend or ImageBackend(IMAGE), self._set_irq)
        self.bus = PortBus()
        self.bus.attach(self.disk, self.disk.ports)

    def _set_irq(self, level: bool) -> None:
        self.edges += level and not self.irq
        self.irq = level

    def __getitem__(self, port: int) -> int:
        return self.bus.read(port, 1)

    def __setitem__(self, port: int, value: int) -> None:
        self.bus.write(port, 1, value)

    def command(self, command: int, lba: int = 0, count: int = 1) -> None:
        self[DRIVE] = 0xE0 | lba >> 24
        self[COUNT], self[SECTOR], self[LOW], self[HIGH] = count & 0xFF, lba & 0xFF, lba >> 8 & 0xFF, lba >> 16 & 0xFF
        self[STATUS] = command

    def command_chs(self, command: int, cylinder: int, head: int, sector: int, count: int = 1) -> None:
        self[DRIVE] = 0xA0 | head
        self[COUNT], self[SECTOR], self[LOW], self[HIGH] = count, sector, cylinder & 0xFF, cylinder >> 8
        self[STATUS] = command

    def take(self, width: int = 2) -> bytes:
        return b"".join(self.bus.read(DATA, width).to_bytes(width, "little") for _ in range(512 // width))

    def give(self, data: bytes, width: int = 2) -> None:
        for start in range(0, 512, width):
            self.bus.write(DATA, width, int.from_bytes(data[start : start + width], "little"))

    def registers(self) -> tuple[int, ...]:
        return tuple(self[port] for port in range(COUNT, STATUS))

    def read(self, lba: int, width: int = 2) -> bytes:
        self.command(0x20, lba)
        assert self[STATUS] == DRQ
        return self.take(width)


def sector(number: int) -> bytes:
    return IMAGE[number * 512 : (number + 1) * 512]


@pytest.mark.parametrize("width", [1, 2, 4])
def test_read_one_sector(width: int) -> None:
    bench = Bench()
    assert bench.read(5, width) == sector(5)
    assert bench[STATUS] == READY
    assert bench.bus.read(DATA, 2) == 0xFFFF


@given(first=st.integers(0, 63), count=st.integers(1, 64))
def test_read_many(first: int, count: int) -> None:
    count = min(count, 64 - first)
    bench = Bench()
    bench.command(0x20, first, count)
    for number in range(count):
        assert bench.irq
        assert bench[STATUS] == DRQ
        assert not bench.irq
        assert bench[COUNT] == count - number
        assert bench.take() == sector(first + number)
    assert bench[STATUS] == READY
    assert bench.edges == count
    assert bench.registers() == (0, first + count - 1, 0, 0, 0xE0)


@pytest.mark.parametrize("width", [2, 4])
def test_write_many(width: int) -> None:
    backend = ImageBackend(IMAGE)
    bench = Bench(backend)
    new = [bytes([number]) * 512 for number in (1, 2, 3)]
    bench.command(0x30, 10, 3)
    assert not bench.irq  # the first sector is asked for without an interrupt
    for number, data in enumerate(new):
        assert bench[STATUS] == DRQ
        bench.give(data, width)
        assert bench.edges == number + 1
    assert bench[STATUS] == READY
    assert [bench.read(lba) for lba in range(9, 14)] == [sector(9), *new, sector(13)]
    assert backend.sector(11) == new[1]
    assert bundled_disk() == IMAGE


def test_count_0_means_256() -> None:
    bench = Bench(ImageBackend(bytes(300 * 512)))
    bench.command(0x21, 0, 0)
    for _ in range(256):
        assert bench[STATUS] == DRQ
        bench.take(4)
    assert bench[STATUS] == READY


@given(cylinder=st.integers(0, 3), head=st.integers(0, 15), number=st.integers(1, 63))
def test_cylinder_head_sector(cylinder: int, head: int, number: int) -> None:
    lba = (cylinder * 16 + head) * 63 + number - 1
    bench = Bench(ImageBackend(b"".join(lba.to_bytes(4, "little") + bytes(508) for lba in range(4 * 16 * 63))))
    bench.command_chs(0x20, cylinder, head, number)
    assert bench.take()[:4] == lba.to_bytes(4, "little")


def test_another_geometry() -> None:
    bench = Bench()
    bench.command_chs(0x91, 0, 1, 0, count=4)  # two heads, four sectors to a track
    assert bench[STATUS] == READY
    bench.command_chs(0x20, 2, 1, 4, count=2)
    assert bench.take() == sector(23)
    assert bench.take() == sector(24)
    assert bench.registers() == (0, 1, 3, 0, 0xA0)
    for head, number in ((2, 1), (0, 5), (0, 0)):
        bench.command_chs(0x20, 0, head, number)
        assert (bench[STATUS], bench[ERROR]) == (ERR, 0x10)
    bench.command_chs(0x91, 0, 1, 0, count=0)
    assert (bench[STATUS], bench[ERROR]) == (ERR, 0x04)


@pytest.mark.parametrize("command", [0x20, 0x30, 0x40])
@pytest.mark.parametrize("lba", [64, 0x0FFFFFFF])
def test_beyond_the_end(command: int, lba: int) -> None:
    bench = Bench()
    bench.command(command, lba)
    assert bench.irq
    assert (bench[STATUS], bench[ERROR]) == (ERR, 0x10)
    assert bench.read(0) == sector(0)
    assert bench[ERROR] == 0


def test_running_over_the_end_says_where() -> None:
    bench = Bench()
    bench.command(0x20, 62, 4)
    assert bench.take() + bench.take() == IMAGE[-1024:]
    assert (bench[STATUS], bench[ERROR]) == (ERR, 0x10)
    assert bench.registers() == (2, 64, 0, 0, 0xE0)


def test_verify() -> None:
    bench = Bench()
    bench.command(0x40, 60, 4)
    assert (bench[STATUS], bench[SECTOR]) == (READY, 63)
    bench.command(0x41, 60, 5)
    assert (bench[STATUS], bench[ERROR], bench[SECTOR]) == (ERR, 0x10, 64)


@pytest.mark.parametrize("command", [0xE7, 0xEF, 0x10, 0x7F, 0xE1, 0xE5])
def test_commands_with_nothing_to_do(command: int) -> None:
    bench = Bench()
    bench.command(command)
    assert bench.irq
    assert bench[STATUS] == READY


@pytest.mark.parametrize("command", [0x00, 0x08, 0xA1, 0xC4, 0xC5, 0xC8, 0xFF])
def test_unknown_commands_are_aborted(command: int) -> None:
    bench = Bench()
    bench.command(command)
    assert bench.irq
    assert (bench[STATUS], bench[ERROR]) == (ERR, 0x04)


def test_identify() -> None:
    bench = Bench(ImageBackend(bytes(5 * 16 * 63 * 512 + 1)))
    bench.command(0xEC)
    assert bench.irq
    assert bench[STATUS] == DRQ
    data = bench.take()
    words = [int.from_bytes(data[2 * number : 2 * number + 2], "little") for number in range(256)]
    assert bench[STATUS] == READY
    assert (words[1], words[3], words[6]) == (5, 16, 63)
    assert words[49] == 0x0200
    assert words[60] | words[61] << 16 == 5 * 16 * 63 + 1
    assert words[57] | words[58] << 16 == 5 * 16 * 63
    model = b"".join(word.to_bytes(2, "big") for word in words[27:47])
    assert model.strip() == b"hvproto disk"


def test_there_is_no_slave() -> None:
    bench = Bench()
    bench[DRIVE] = 0xB0
    assert bench[STATUS] == bench[CONTROL] == 0
    bench[STATUS] = 0xEC
    assert not bench.irq
    bench[DRIVE] = 0xA0
    assert bench[STATUS] == READY


def test_diagnostic_leaves_the_signature() -> None:
    bench = Bench()
    bench[DRIVE] = 0xB3
    bench[STATUS] = 0x90
    assert bench.irq
    assert (bench[STATUS], bench[ERROR]) == (READY, 1)
    assert bench.registers() == (1, 1, 0, 0, 0xA0)


def test_interrupts_can_be_disabled() -> None:
    bench = Bench()
    bench[CONTROL] = 0x02
    bench.command(0xEC)
    assert not bench.irq
    bench[CONTROL] = 0x00
    assert bench.irq
    assert bench[CONTROL] == DRQ  # the alternate status leaves the interrupt alone
    assert bench.irq
    assert bench[STATUS] == DRQ
    assert not bench.irq


def test_busy_until_the_backend_answers() -> None:
    backend = Later(IMAGE)
    bench = Bench(backend)
    bench.command(0x20, 7, 2)
    assert not bench.irq
    assert bench[STATUS] == bench[COUNT] == BSY
    bench[SECTOR] = 1  # not heard
    bench[STATUS] = 0xEC
    backend.answer()
    assert bench.irq
    assert (bench[STATUS], bench[SECTOR]) == (DRQ, 7)
    assert bench.take() == sector(7)
    assert bench[STATUS] == BSY
    backend.answer()
    assert bench.take() == sector(8)
    assert bench[STATUS] == READY

    bench.command(0x30, 7)
    bench.give(bytes(512))
    assert bench[STATUS] == BSY
    backend.answer()
    assert bench.irq
    assert bench[STATUS] == READY
    assert backend.image.sector(7) == bytes(512)
    assert backend.waiting == []


def test_a_broken_backend() -> None:
    backend = Later(IMAGE)
    backend.broken = True
    bench = Bench(backend)
    bench.command(0x20, 7)
    backend.answer()
    assert bench.irq
    assert (bench[STATUS], bench[ERROR]) == (ERR, 0x40)
    bench.command(0x30, 7, 2)
    bench.give(bytes(512))
    backend.answer()
    assert bench.irq
    assert (bench[STATUS], bench[ERROR]) == (ERR | 0x20, 0x04)
    assert bench[COUNT] == 2


def test_software_reset_forgets_the_command() -> None:
    backend = Later(IMAGE)
    bench = Bench(backend)
    bench.command(0x20, 7)
    bench[CONTROL] = 0x04
    assert bench[STATUS] == BSY
    bench[CONTROL] = 0x00
    assert (bench[STATUS], bench[ERROR]) == (READY, 1)
    backend.answer()  # comes too late
    assert not bench.irq
    assert bench[STATUS] == READY


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*AtaDisk.ports, STATUS, DATA]),
            st.one_of(st.sampled_from([0, 1, 0x20, 0x30, 0x91, 0xE0, 0xEC]), st.integers(0, 255)),
            st.sampled_from([1, 2, 4]),
            st.sampled_from(["read", "write", "write", "answer", "take", "give"]),
        ),
        max_size=60,
    )
)
def test_no_sequence_of_accesses_breaks_it(accesses: list[tuple[int, int, int, str]]) -> None:
    backend = Later(IMAGE)
    bench = Bench(backend)
    for port, value, size, name in accesses:
        match name:
            case "read":
                assert 0 <= bench.bus.read(port, size) < 1 << 8 * size
            case "write":
                bench.bus.write(port, size, value)
            case "take":
                bench.take(size)
            case "give":
                bench.give(bytes([value]) * 512, size)
            case "answer" if backend.waiting:
                backend.answer()


@given(st.binary(min_size=1, max_size=1100))
def test_images_are_filled_up_to_whole_sectors(data: bytes) -> None:
    backend = ImageBackend(bytearray(data))
    whole = b"".join(backend.sector(lba) for lba in range(backend.sectors))
    assert len(whole) == backend.sectors * 512
    assert whole == data + bytes(len(whole) - len(data))
    assert len(whole) - len(data) < 512


def test_an_empty_image_is_no_disk() -> None:
    with pytest.raises(MachineError):
        ImageBackend(b"")


def test_the_bundled_disk() -> None:
    assert len(IMAGE) == 64 * 512
    for number in range(64):
        assert sector(number).startswith(f"hvproto disk, block {number}\n".encode())
    assert len({sector(number)[100:200] for number in range(64)}) == 64


def test_read_disk(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"contents")
    assert read_disk(path) == read_disk(str(path)) == b"contents"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "no such"),
        ("empty", "empty"),
        ("", "regular file"),
        ("file/inside", "can't be read"),
        ("a\0b", "can't be read"),
        ("/dev/zero", "regular file"),
    ],
)
def test_disks_that_cannot_be_read(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ImageError, match=reason):
        read_disk(tmp_path / name)
