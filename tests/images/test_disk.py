"""Boot sectors and disk images as images."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvproto.errors import ImageError
from hvproto.images.load import load_image
from hvproto.machine.machine import Machine

SECTOR = b"\xf4".ljust(510, b"\0") + b"\x55\xaa"
SOURCE = ".origin {}\n.code16\nstart: hlt\n.org {} + 510\n.word {}\n"


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("rest", [b"", b"x", bytes(5000)])
def test_a_boot_sector_makes_a_disk(tmp_path: Path, rest: bytes) -> None:
    image = load_image(written(tmp_path, "d", SECTOR + rest))
    assert (image.kind, image.entry, image.size, image.disk) == ("disk", 0x7C00, 512, SECTOR + rest)
    assert image.disk_is_file


@pytest.mark.parametrize("data", [SECTOR[:511], SECTOR[:510] + b"\xaa\x55", bytes(511) + SECTOR])
def test_other_files_are_flat(tmp_path: Path, data: bytes) -> None:
    assert load_image(written(tmp_path, "d", data)).kind == "flat"


def test_an_address_makes_it_flat(tmp_path: Path) -> None:
    image = load_image(written(tmp_path, "d", SECTOR), 0x7C00)
    assert (image.kind, image.entry) == ("flat", 0x7C00)


def test_an_assembled_one(tmp_path: Path) -> None:
    image = load_image(written(tmp_path, "d.asm", SOURCE.format(0x7C00, 0x7C00, 0xAA55).encode() + b".byte 1\n"))
    assert (image.kind, len(image.disk), image.disk[512]) == ("disk", 1024, 1)
    assert image.symbols["start"] == 0x7C00 and not image.disk_is_file
    for origin, word in ((0x7E00, 0xAA55), (0x7C00, 0x55AA)):
        assert load_image(written(tmp_path, "e.asm", SOURCE.format(origin, origin, word).encode())).kind == "assembly"


def test_a_disk_is_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="hvproto boot"):
        Machine(1 << 20).load(load_image(written(tmp_path, "d", SECTOR)))
