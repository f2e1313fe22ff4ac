"""`hvproto boot` with disks, modules and command lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvproto.images.load import load_image
from tests.support.command import hvproto, kernel, write

# Prints the first byte of sector 1 of drives 80h and 81h, and writes the first one with a '!' there.
BODY = """
.origin 0x7c00
.code16
start:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov bx, 0x9000
.next:
    mov ax, 0x0201
    mov cx, 2
    mov dh, 0
    int 0x13
    mov al, '-'
    jc .none
    mov al, [0x9000]
.none:
    out 0xe9, al
    mov byte ptr [0x9000], '!'
    mov ax, 0x0301
    mov cx, 2
    int 0x13
    inc dl
    cmp dl, 0x82
    jb .next
    mov al, 0
    out 0xf4, al
    hlt
    .org 0x7dfe
    .word 0xaa55
    .ascii "A"
    .space 511
"""


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A disk image with this boot sector."""
    return write(tmp_path, "system.img", load_image(write(tmp_path, "system.asm", BODY)).disk)


@pytest.mark.parametrize("option", [(), ("--disk",)])
def test_a_disk_boots(system: Path, option: tuple[str, ...]) -> None:
    before = system.read_bytes()
    ended = hvproto("boot", *option, system)
    assert (ended.stdout, ended.stderr, ended.status) == (b"A-", "", 1)
    assert system.read_bytes() == before


def test_a_source_of_a_disk_boots(system: Path) -> None:
    assert hvproto("boot", system.with_suffix(".asm")).stdout == b"A-"


def test_two_disks(system: Path, tmp_path: Path) -> None:
    other = write(tmp_path, "other.img", bytes(512) + b"B")
    assert hvproto("boot", system, "--disk", other).stdout == b"AB"
    assert hvproto("boot", "--disk", system, "--disk", other).stdout == b"AB"
    assert other.read_bytes() == bytes(512) + b"B"


def test_disks_that_are_written_to(system: Path, tmp_path: Path) -> None:
    other = write(tmp_path, "other.img", bytes(512) + b"B" + bytes(511))
    assert hvproto("boot", system, "--disk", other, "--write-disk").stdout == b"AB"
    assert hvproto("boot", system, "--disk", other).stdout == b"!!"
    assert other.read_bytes() == bytes(512) + b"!" + bytes(511)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--disk", "D", "--disk", "D"), "3 disks are too many"),
        (("--append", "x"), "--append is for kernels"),
        (("--module", "D"), "--module is for kernels"),
        (("--write-disk", "--disk", "D"), "can't be both disks"),
        (("--disk", "nowhere.img"), "no such disk image"),
    ],
)
def test_disks_that_cannot_be(system: Path, arguments: tuple[str, ...], words: str) -> None:
    ended = hvproto("boot", system, *(str(system) if word == "D" else word for word in arguments))
    assert ended.status == 2 and words in ended.stderr and ended.stderr.startswith("hvproto: ")


def test_an_assembled_disk_cannot_be_written_to(system: Path) -> None:
    ended = hvproto("boot", system.with_suffix(".asm"), "--write-disk")
    assert ended.status == 2 and "--write-disk" in ended.stderr


def test_a_disk_can_be_a_guest(system: Path) -> None:
    """Its firmware, too, is the guest's own."""
    hosted, alone = hvproto("run", "--quiet", "--guest", system), hvproto("boot", system)
    assert (hosted.status, hosted.stdout) == (alone.status, alone.stdout)
    assert alone.stdout


PRINT_LINES = """
    mov esp, 0x90000
    mov esi, [ebx + 16]             ; the command line
    call print
    mov ecx, [ebx + 20]             ; modules
    mov edi, [ebx + 24]
.next:
    mov esi, [edi + 8]
    call print
    mov esi, [edi]
    call print
    add edi, 16
    loop .next
    cli
    hlt
print:
    lodsb
    test al, al
    jz .end
    out 0xe9, al
    jmp print
.end:
    mov al, 10
    out 0xe9, al
    ret
"""


def test_command_line_and_modules(tmp_path: Path) -> None:
    image = write(tmp_path, "k.asm", kernel(PRINT_LINES))
    one, two = write(tmp_path, "one.txt", b"I am one\0"), write(tmp_path, "two.txt", b"I am two\0")
    ended = hvproto("boot", image, "--append", "quiet splash", "--module", f"{one}=size=3 x", "--module", two)
    assert ended.text.splitlines() == ["quiet splash", "size=3 x", "I am one", "two.txt", "I am two"]


@pytest.mark.parametrize(("module", "words"), [("none.txt", "no such file"), (".", "a module is needed")])
def test_modules_that_cannot_be(tmp_path: Path, module: str, words: str) -> None:
    ended = hvproto("boot", "hello", "--module", module, cwd=tmp_path)
    assert ended.status == 2 and words in ended.stderr
