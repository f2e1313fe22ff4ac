from __future__ import annotations

from pathlib import Path

import pytest

from hvproto.machine.disk_image import SECTOR_SIZE
from tests.support.command import hvproto, kernel, write

READ_FIRST_BYTE_OF_DISK = """
    mov dx, 0x1f6
    mov al, 0xe0
    out dx, al
    mov dx, 0x1f2
    mov al, 1
    out dx, al
    inc dx
    mov al, 0
    out dx, al
    inc dx
    out dx, al
    inc dx
    out dx, al
    mov dx, 0x1f7
    mov al, 0x20
    out dx, al
.wait:
    in al, dx
    test al, 8
    jz .wait
    mov dx, 0x1f0
    in ax, dx
    out 0xe9, al
    cli
    hlt
"""


@pytest.mark.parametrize(
    ("name", "printed", "status"),
    [
        ("hello", b"hello: here I am\n", 0),
        ("hello.asm", b"hello: here I am\n", 0),
        ("spin", b"spin: spinning\nspin: five ticks\n", 0),
        ("exit", b"", 2 * 3 + 1),
    ],
)
def test_stdout_is_what_the_kernel_prints_and_nothing_else(name: str, printed: bytes, status: int) -> None:
    ended = hvproto("boot", name)
    assert (ended.stdout, ended.stderr, ended.status) == (printed, "", status)


@pytest.mark.parametrize("name", ["selfmap", "ptwrites"])
def test_a_kernel_that_checks_its_page_tables_finds_them_right(name: str) -> None:
    ended = hvproto("boot", name)
    *checks, last = ended.text.splitlines()
    assert ended.status == 0 and last == f"{name}: done"
    assert len(checks) > 5 and all(line.startswith(f"{name}: ") and line.endswith(" ok") for line in checks)


def test_the_bundled_guest_alone_on_the_machine() -> None:
    ended = hvproto("boot", "guest")
    assert ended.status == 0 and ended.text.endswith("guest: done\n")
    assert "WRONG" not in ended.text and "block 7 of my disk begins 'hvproto disk, block 7'" in ended.text


def test_the_host_alone_finds_nobody_behind_the_door() -> None:
    ended = hvproto("boot", "host", "--ram", "64M")
    assert ended.status == 1 and "nobody behind the hypervisor's door" in ended.text


def test_both_streams_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    letters = "".join(f"mov dx, {port}\nmov al, '{letter}'\nout dx, al\n" for letter, port in zip(
        "abcd", (0x3F8, 0xE9, 0x3F8, 0xE9), strict=True))  # fmt: skip
    image = write(tmp_path, "both.asm", kernel(letters + "cli\nhlt"))
    assert hvproto("boot", image).stdout == b"abcd"


def test_bytes_come_out_as_they_are(tmp_path: Path) -> None:
    every = ".b:\nmov al, cl\nout 0xe9, al\ninc cl\njnz .b\ncli\nhlt"
    image = write(tmp_path, "bytes.asm", kernel("xor ecx, ecx\n" + every))
    assert hvproto("boot", image).stdout == bytes(range(256))


@pytest.mark.parametrize(("value", "status"), [(0, 1), (1, 3), (16, 33), (255, 255)])
def test_exit_status_of_the_debug_exit_port(tmp_path: Path, value: int, status: int) -> None:
    image = write(tmp_path, "end.asm", kernel(f"mov al, {value}\nout 0xf4, al\n.on: jmp .on"))
    assert hvproto("boot", image).status == status


def test_a_flat_image_where_it_is_wanted(tmp_path: Path) -> None:
    # call next / next: pop eax / mov al, ah / out 0xe9, al / cli / hlt: prints bits 8-15 of its own address
    code = bytes.fromhex("e800000000 58 88e0 e6e9 fa f4")  # at 0x7c00 with ESP undefined: set it
    code = bytes.fromhex("bc00700000") + code
    image = write(tmp_path, "loader.bin", code)
    assert hvproto("boot", image, "--at", "0x7c00").stdout == b"\x7c"
    assert hvproto("boot", image).stdout == b"\x00"


def test_a_disk_of_ones_own(tmp_path: Path) -> None:
    image = write(tmp_path, "disk.asm", kernel(READ_FIRST_BYTE_OF_DISK))
    disk = write(tmp_path, "disk.img", b"Z" * SECTOR_SIZE)
    assert hvproto("boot", image, "--disk", disk).stdout == b"Z"
    assert hvproto("boot", image).stdout == b"h"


def test_more_memory_on_request(tmp_path: Path) -> None:
    image = write(tmp_path, "big.asm", kernel("mov al, 'y'\nout 0xe9, al\ncli\nhlt\n.space 0x1100000"))
    refused = hvproto("boot", image)
    assert refused.status == 2 and "--ram 19M" in refused.stderr and refused.stdout == b""
    assert hvproto("boot", image, "--ram", "19M").stdout == b"y"


def test_a_file_goes_before_a_bundled_name(tmp_path: Path) -> None:
    write(tmp_path, "hello", b"\xb0\x21\xe6\xe9\xfa\xf4")
    assert hvproto("boot", "hello", cwd=tmp_path).stdout == b"!"
    (tmp_path / "spin").mkdir()
    assert hvproto("boot", "spin", cwd=tmp_path).stdout.startswith(b"spin")
