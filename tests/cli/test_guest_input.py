"""What a guest is given from outside: standard input at its COM1, a command line, modules. As on the bare machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import hvproto

POLLS = """
.origin 0x100000
.entry start
start:  mov esp, 0x90000
next:   mov dx, 0x3fd
1:      in al, dx
        test al, 1
        jz 1b
        mov dx, 0x3f8
        in al, dx
        cmp al, 0x0a
        je done
        xor al, 0x20                    ; the other case
        out dx, al
        jmp next
done:   mov al, 5
        out 0xf4, al
        hlt
"""
SLEEPS = """
.origin 0x100000
.entry start
start:  mov esp, 0x90000
        lgdt [gdtr]
        lidt [idtr]
        mov eax, offset received
        mov [idt + 0x24 * 8], ax
        shr eax, 16
        mov [idt + 0x24 * 8 + 6], ax
        mov al, 0x11
        out 0x20, al
        mov al, 0x20
        out 0x21, al
        mov al, 4
        out 0x21, al
        mov al, 1
        out 0x21, al
        mov al, 0xef                    ; COM1 alone
        out 0x21, al
        mov dx, 0x3f9
        mov al, 1
        out dx, al
        mov dx, 0x3fc
        mov al, 0x08
        out dx, al
        sti
1:      hlt
        jmp 1b
received:
        mov dx, 0x3f8
        in al, dx
        cmp al, 0x0a
        je done
        out dx, al
        mov al, 0x20
        out 0x20, al
        iretd
done:   mov al, 6
        out 0xf4, al
        hlt
.align 8
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:   .word 23
        .long gdt
idtr:   .word 0x25 * 8 - 1
        .long idt
.align 8
idt:    .space 0x24 * 8
        .word 0, 8, 0x8e00, 0
"""
TOLD = """
.origin 0x100000
.entry start
start:  mov esp, 0x90000
        mov esi, [ebx + 16]             ; the command line
        call say
        mov ecx, [ebx + 20]
        mov edi, [ebx + 24]             ; modules
1:      mov esi, [edi + 8]
        call say
        mov esi, [edi]
        mov al, [esi]
        out 0xe9, al
        add edi, 16
        dec ecx
        jnz 1b
        mov al, 7
        out 0xf4, al
        hlt
say:    lodsb
        test al, al
        jz 2f
        out 0xe9, al
        jmp say
2:      mov al, '|'
        out 0xe9, al
        ret
"""
PLANS = ["mirrored", "direct", "application"]


def guest(folder: Path, text: str) -> str:
    path = folder / "guest.asm"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(("text", "printed", "status"), [(POLLS, b"LOOK At ME", 11), (SLEEPS, b"look aT me", 13)])
def test_standard_input_at_the_guests_serial_port(
    plan: str, text: str, printed: bytes, status: int, tmp_path: Path
) -> None:
    kernel = guest(tmp_path, text)
    typed = b"look aT me\n"
    alone = hvproto("boot", kernel, typed=typed, cwd=tmp_path)
    hosted = hvproto("run", "--quiet", "--plan", plan, "--guest", kernel, typed=typed, cwd=tmp_path)
    assert (alone.status, hosted.status, hosted.stderr) == (status, status, "")
    assert alone.stdout == hosted.stdout
    assert alone.stdout.replace(b"\0", b" ") == printed


def test_a_guest_that_waits_for_input_that_never_comes(tmp_path: Path) -> None:
    ended = hvproto("run", "--quiet", "--guest", guest(tmp_path, SLEEPS), typed=b"x", cwd=tmp_path)
    assert (ended.status, ended.stdout) == (0, b"x")


@pytest.mark.parametrize("plan", PLANS)
def test_a_command_line_and_modules(plan: str, tmp_path: Path) -> None:
    kernel = guest(tmp_path, TOLD)
    for name in ("one", "two"):
        (tmp_path / name).write_text(name.upper(), encoding="ascii")
    options = ("--append", "root=one two", "--module", "one", "--module", "two=as three")
    alone = hvproto("boot", kernel, *options, cwd=tmp_path)
    hosted = hvproto("run", "--quiet", "--plan", plan, "--guest", kernel, *options, cwd=tmp_path)
    assert (alone.status, hosted.status, hosted.stderr) == (15, 15, "")
    assert alone.stdout == hosted.stdout == b"root=one two|one|Oas three|T"


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    ended = hvproto("run", "--module", "nowhere", cwd=tmp_path)
    assert ended.status == 2 and "nowhere" in ended.stderr and "Traceback" not in ended.stderr
