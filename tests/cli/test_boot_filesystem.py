"""The file system kernel of `guests/boot`: APICs, paging, and a disk that is read here by other means afterwards."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from hvproto.machine.clock import CYCLES_PER_SECOND
from hvproto.machine.machine import Machine
from hvproto.processor.settings import Setting
from tests.modes.machines import QEMU, available
from tests.support.command import ROOT, hvproto, write
from tests.support.kernels import word
from tests.support.samples import ALL_WELL, CYCLES, FAILED, FILESYSTEM, RAM, qemu, sample
from tools.make_filesystem import build, checksum

FILES = {"motd.txt": b"Welcome to the disk.\n", "empty": b"", "large.bin": bytes(range(256)) * 16}
NEW_SIZE = 1500


def new_file(mount: int) -> bytes:
    """What the kernel writes at its nth mount of a disk."""
    lines = "".join(f"written at mount and line {mount}.{line}\n" for line in range(1, 100))
    return lines.encode()[: NEW_SIZE - 1] + b"\n"


def read_image(image: bytes) -> tuple[int, set[int], dict[str, bytes]]:
    """How often the file system was mounted, its free blocks, and its files; whatever isn't sound fails."""
    blocks, bitmap, bitmap_blocks, directory, directory_blocks, data, mounts, _check = struct.unpack_from(
        "<8I", image, 8
    )
    assert image[:8] == b"SMALLFS1" and bitmap_blocks == 1 and len(image) == blocks * 512
    assert sum(struct.unpack_from("<128I", image)) % (1 << 32) == 0
    bits = int.from_bytes(image[bitmap * 512 : bitmap * 512 + 512], "little")
    used = set(range(data))
    files = {}
    for at in range(directory * 512, (directory + directory_blocks) * 512, 64):
        name, size, wanted, *numbers = struct.unpack_from("<24s10I", image, at)
        if not name[0]:
            continue
        count = (size + 511) // 512
        mine = numbers[:count]
        assert not any(numbers[count:]) and len(set(mine)) == count and not used & set(mine)
        used |= set(mine)
        content = b"".join(image[number * 512 : number * 512 + 512] for number in mine)
        assert not any(content[size:])
        files[name.rstrip(b"\0").decode()] = content[:size]
        total = 0
        for byte in content[:size]:
            total = (total * 2 + (total >> 31) + byte) % (1 << 32)
        assert total == wanted
    assert {n for n in range(blocks) if bits >> n & 1} == used
    return mounts, set(range(blocks)) - used, files


def printed_by(files: Mapping[str, bytes], mount: int, free: int, blocks: int = 256) -> list[str]:
    """The kernel's lines between the disk's size and the statistics."""
    told = f"boot-{mount}.txt, {NEW_SIZE} bytes, checksum {checksum(new_file(mount)):#010x}"
    return [
        f"filesystem: mounted, time {mount}, {free} of {blocks} blocks free",
        *(f"filesystem:   {name}, {len(content)} bytes" for name, content in files.items()),
        f"filesystem: files checked: {len(files)}",
        "Welcome to the disk.",
        f"filesystem: wrote {told}",
        "filesystem: cache dropped",
        f"filesystem: read again {told}",
    ]


def filesystem(engine: str, image: bytes) -> Machine:
    machine = Machine(RAM, image, engine=engine)
    machine.load(sample(FILESYSTEM))
    return machine


def test_a_file_is_written_and_read_again(engine: str) -> None:
    machine = filesystem(engine, build(FILES))
    machine.type("a")
    machine.feed(b"bc")
    assert machine.run(CYCLES) == ALL_WELL
    table, paging, timer, disk, *story, interrupts, ok = machine.serial_output.decode().splitlines()
    assert table == ("filesystem: MP table: local APIC at 0xfee00000, I/O APIC at 0xfec00000, the disk at input 14")
    assert (paging, disk) == ("filesystem: paging is on", "filesystem: disk 0 has 256 sectors")
    counts = int(timer.removeprefix("filesystem: the local APIC's timer counts ").removesuffix(" in 10 ms"))
    assert abs(counts / (CYCLES_PER_SECOND / 100) - 1) < 0.001
    assert story == printed_by(FILES, 1, 243)
    assert interrupts.endswith(", keys 2, characters 2")
    *_, read, _, written = ok.replace(",", "").split()
    assert interrupts.startswith(f"filesystem: interrupts: disk {int(read) + int(written) + 2},")
    assert machine.processor.read_setting(Setting.CR0) >> 31 and word(machine, "ticks") >= 2


def test_a_disk_through_two_runs(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    made = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tools" / "make_filesystem.py"),
            disk,
            write(tmp_path, "motd.txt", FILES["motd.txt"]),
        ],
        check=False,
    )
    assert made.returncode == 0
    before = disk.read_bytes()
    files = {"motd.txt": FILES["motd.txt"]}
    assert read_image(before)[0] == 0 and read_image(before)[2] == files

    ended = hvproto("boot", FILESYSTEM, "--disk", disk)
    assert (ended.status, ended.stderr) == (ALL_WELL, "") and disk.read_bytes() == before

    for mount in (1, 2):
        free = read_image(disk.read_bytes())[1]
        ended = hvproto("boot", FILESYSTEM, "--disk", disk, "--write-disk")
        assert (ended.status, ended.stderr) == (ALL_WELL, "")
        assert ended.text.splitlines()[4:-2] == printed_by(files, mount, len(free))
        files[f"boot-{mount}.txt"] = new_file(mount)
        mounts, still_free, found = read_image(disk.read_bytes())
        assert (mounts, found) == (mount, files)
        assert still_free < free and len(free - still_free) == 3


def test_the_engines_agree(both_engines: tuple[str, str]) -> None:
    machines = [filesystem(engine, build(FILES)) for engine in both_engines]
    assert [machine.run(CYCLES) for machine in machines] == [ALL_WELL] * 2
    one, two = machines
    assert one.serial_output == two.serial_output and one.processor.now == two.processor.now


def damaged(image: bytes, at: int) -> bytes:
    return image[:at] + bytes((image[at] ^ 0x10,)) + image[at + 1 :]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "disk 0 has no file system that I know"),  # the built-in disk
        (damaged(build(FILES), 8), "the super block is damaged"),
        (build(FILES)[: 100 * 512], "the super block is damaged"),  # it says 256 blocks
        (damaged(build(FILES), 4 * 512), "motd.txt, 21 bytes, damaged"),
        (damaged(build(FILES), 2 * 512 + 33), "motd.txt, 21 bytes, damaged"),  # the number of its block
        (build({"f": b""}, blocks=6, directory=2), "the disk is full"),
        (build({f"f{n}": b"" for n in range(8)}, directory=1), "the directory is full"),
        (build({"boot-1.txt": b"x"}), "the file to write is there already"),
    ],
)  # fmt: skip
def test_a_disk_that_is_not_well(image: bytes, words: str) -> None:
    machine = Machine(RAM, image or None)
    machine.load(sample(FILESYSTEM))
    assert machine.run(CYCLES) == FAILED
    printed = machine.serial_output.decode()
    assert printed.endswith(f"{words}\nfilesystem: FAILED\n"), printed


@pytest.mark.parametrize("signature", [b"_MP_", b"PCMP"])
def test_an_mp_table_that_does_not_add_up(engine: str, signature: bytes) -> None:
    machine = filesystem(engine, build(FILES))
    at = bytes(machine.ram.view[: 1 << 20]).index(signature)
    machine.ram.view[at + 6] ^= 1
    assert machine.run(CYCLES) == FAILED
    assert machine.serial_output == b"there is no MP table\nfilesystem: FAILED\n"


@pytest.mark.skipif(not available(QEMU), reason="QEMU is not installed")
def test_the_file_system_on_qemu(tmp_path: Path) -> None:
    disk = write(tmp_path, "disk.img", build(FILES))
    status, printed = qemu(tmp_path, FILESYSTEM, "-drive", f"file={disk},index=0,media=disk,format=raw")
    assert status == ALL_WELL
    assert printed.splitlines()[4:-2] == printed_by(FILES, 1, 243)
    assert read_image(disk.read_bytes())[2] == FILES | {"boot-1.txt": new_file(1)}


@pytest.mark.parametrize(
    ("files", "sizes", "words"),
    [
        ({"f": bytes(4097)}, (), "larger than 4096"),
        ({"x" * 24: b""}, (), "no name"),
        ({"": b""}, (), "no name"),
        ({str(n): b"" for n in range(17)}, (), "too many"),
        ({"f": bytes(4096)}, (11, 2), "need 12 blocks"),
        ({}, (4097, 2), "can't be"),
        ({}, (3, 2), "can't be"),
    ],
)
def test_file_systems_that_cannot_be(files: Mapping[str, bytes], sizes: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(files, *sizes)
