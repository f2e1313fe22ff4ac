from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvproto.errors import AssemblyError, ImageError
from hvproto.images.assembly import assemble_text
from hvproto.images.load import check_fits, load_image
from tests.images.elf_builder import Elf, Load

MAGIC = 0x1BADB002


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["k.asm", "k.s", "k.S", "K.ASM"])
def test_assembly_by_name(tmp_path: Path, name: str) -> None:
    assert load_image(written(tmp_path, name, b"nop\n")).kind == "assembly"


def test_elf_and_multiboot_elf(tmp_path: Path) -> None:
    boot = struct.pack("<III", MAGIC, 0, -MAGIC & 0xFFFFFFFF)
    plain = Elf([Load(0x100000, b"\xf4")])
    multiboot = Elf([Load(0x100000, boot + b"\xf4")], entry=0x10000C)
    assert load_image(written(tmp_path, "k", bytes(plain))).kind == "elf32"
    assert load_image(written(tmp_path, "k", bytes(multiboot))).kind == "multiboot"
    wide = Elf([Load(0x100000, boot + b"\xf4")], entry=0x10000C, file_class=2)
    image = load_image(written(tmp_path, "k", bytes(wide)))
    assert (image.kind, image.entry) == ("multiboot", 0x10000C)
    assert load_image(written(tmp_path, "k", bytes(Elf([Load(0x100000, b"\xf4")], file_class=2)))).kind == "elf64"


def test_multiboot_with_addresses(tmp_path: Path) -> None:
    flags = 1 << 16
    data = struct.pack("<8I", MAGIC, flags, -(MAGIC + flags) & 0xFFFFFFFF, 0x200000, 0x200000, 0, 0, 0x200020) + b"\xf4"
    image = load_image(written(tmp_path, "k", data))
    assert (image.kind, image.start, image.entry) == ("multiboot", 0x200000, 0x200020)


def test_anything_else_is_flat(tmp_path: Path) -> None:
    path = written(tmp_path, "k.bin", b"\x90\xf4")
    assert load_image(path).entry == 0x100000
    image = load_image(path, flat_address=0x7C00)
    assert (image.kind, image.entry, image.segments[0].data) == ("flat", 0x7C00, b"\x90\xf4")
    with pytest.raises(ImageError, match="aren't within 4 GiB"):
        load_image(path, flat_address=0xFFFFFFFF)


def test_files_that_arent_there(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "none", "no such file"),
        (tmp_path / "none.asm", "no such file"),
        (tmp_path, "this is a directory"),
        (written(tmp_path, "empty", b""), "the file is empty"),
        (written(tmp_path, "empty.asm", b""), "the file is empty"),
        (Path("/dev/null"), "not a regular file"),
    ):
        with pytest.raises(ImageError, match=reason) as caught:
            load_image(path)
        assert caught.value.path == str(path)
    with pytest.raises(ImageError, match="can't be read"):
        load_image("a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is readable for root")
def test_unreadable_file(tmp_path: Path) -> None:
    path = written(tmp_path, "secret", b"\xf4")
    path.chmod(0)
    with pytest.raises(ImageError, match="permission denied"):
        load_image(path)


def test_assembly_errors_come_through(tmp_path: Path) -> None:
    with pytest.raises(AssemblyError) as caught:
        load_image(written(tmp_path, "k.asm", b"nop\nbogus 5\n"))
    assert (caught.value.line, caught.value.text) == (2, "bogus 5")


def test_image_and_ram_size() -> None:
    image = assemble_text("nop\n.space 0x100000")
    check_fits(image, 0x200001)
    with pytest.raises(ImageError, match=r"up to 0x200001 \(2 MiB\), but RAM ends at 0x200000 \(2 MiB\)"):
        check_fits(image, 0x200000)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_file_loads_or_is_refused(tmp_path: Path, data: bytes) -> None:
    for start in (b"", b"\x7fELF", struct.pack("<III", MAGIC, 1 << 16, -(MAGIC + (1 << 16)) & 0xFFFFFFFF)):
        try:
            load_image(written(tmp_path, "k", start + data))
        except ImageError:
            pass
