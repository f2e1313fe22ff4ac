"""INT 10h: modes, pages, colours, and what there is not."""

from __future__ import annotations

import pytest

from tests.support.boot_sectors import booted, kept, ram, run

SAY = 'mov si, {n}f\n{m}: lodsb\ntest al, al\njz {k}f\nmov ah, 0x0e\nint 0x10\njmp {m}b\n{n}: .asciz "{text}"\n{k}:\n'


def say(text: str, first: int = 1) -> str:
    return SAY.format(text=text, m=first, n=first + 1, k=first + 2)


def set_mode(mode: int) -> str:
    return f"mov ax, {mode:#x}\nint 0x10\n"


MODE = "mov ah, 0x0f\nint 0x10\n"


@pytest.mark.parametrize(
    ("mode", "columns", "memory", "port"),
    [(0, 40, 0xB8000, 0x3D4), (1, 40, 0xB8000, 0x3D4), (2, 80, 0xB8000, 0x3D4), (7, 80, 0xB0000, 0x3B4)],
)
def test_text_modes(engine: str, mode: int, columns: int, memory: int, port: int) -> None:
    text = "a line of forty-two characters, or forty-4"
    machine = run(engine, set_mode(mode) + say(text) + MODE + "KEEP results\n")
    eax, ebx, *_ = kept(machine)
    assert (eax & 0xFFFF, ebx >> 8 & 0xFF) == (columns << 8 | mode, 0)
    assert machine.screen.columns == columns
    assert "".join(machine.screen.lines) == text and machine.screen.lines[0] == text[:columns].rstrip()
    assert ram(machine, memory, 2) == b"a\x07"
    assert machine.screen.cursor == divmod(len(text), columns)
    assert ram(machine, 0x463, 2) == port.to_bytes(2, "little") and ram(machine, 0x44A, 1)[0] == columns


@pytest.mark.parametrize("mode", [0x04, 0x06, 0x0D, 0x12, 0x13])
def test_a_graphics_mode_leaves_the_mode(mode: int) -> None:
    machine = run(None, say("still here") + set_mode(mode) + MODE + "KEEP results\n")
    assert kept(machine)[0] & 0xFFFF == 0x5003 and machine.screen.lines[0] == "still here"


def test_bit_7_keeps_the_text() -> None:
    machine = run(None, say("kept") + set_mode(0x83))
    assert machine.screen.lines[0] == "kept" and machine.screen.cursor == (0, 0)


def test_back_from_monochrome() -> None:
    machine = run(None, set_mode(7) + set_mode(3) + say("colour"))
    assert machine.screen.lines[0] == "colour" and machine.screen.columns == 80


def test_pages(engine: str) -> None:
    body = say("zero") + "mov ax, 0x0501\nint 0x10\n" + say("one", 4) + MODE + "KEEP results\n"
    machine = run(engine, body)
    assert machine.screen.lines[0] == "one" and kept(machine)[1] >> 8 & 0xFF == 1
    assert ram(machine, 0xB8000, 8)[::2] == b"zero" and ram(machine, 0xB9000, 6)[::2] == b"one"
    assert ram(machine, 0x44E, 2) == b"\x00\x10" and machine.screen.cursor == (0, 3)


def test_the_cursor_is_switched_off() -> None:
    machine = run(None, "mov ah, 1\nmov cx, 0x2000\nint 0x10\nmov ah, 3\nmov bh, 0\nint 0x10\nKEEP results\n")
    assert machine.screen.cursor is None and kept(machine)[2] & 0xFFFF == 0x2000


def test_no_light_pen_and_no_vesa() -> None:
    body = "mov ax, 0x0400\nint 0x10\nKEEP results\nmov ax, 0x4f00\nmov di, 0x9000\nint 0x10\nKEEP 0x7e20\n"
    machine = run(None, body)
    assert kept(machine)[0] & 0xFF00 == 0 and kept(machine, 0x7E20)[0] & 0xFFFF != 0x004F


def test_what_there_is() -> None:
    body = "mov ah, 0x12\nmov bl, 0x10\nint 0x10\nKEEP results\nmov ax, 0x1a00\nint 0x10\nKEEP 0x7e20\n"
    machine = run(None, body + "mov ax, 0x1130\nmov bh, 6\nint 0x10\nKEEP 0x7e40\n")
    assert kept(machine)[1] & 0xFFFF == 0x0003
    eax, ebx, *_ = kept(machine, 0x7E20)
    assert (eax & 0xFF, ebx & 0xFFFF) == (0x1A, 0x0008)
    _, _, ecx, edx, *_ = kept(machine, 0x7E40)
    assert (ecx & 0xFFFF, edx & 0xFF) == (16, 24)


def test_colours(engine: str) -> None:
    body = """
    mov ax, 0x1000                  ; attribute 1 is colour 2Ah
    mov bx, 0x2a01
    int 0x10
    mov ax, 0x1007
    mov bl, 1
    int 0x10
    KEEP results
    mov ax, 0x1010                  ; and that is 3F, 15, 0A
    mov bx, 0x2a
    mov dh, 0x3f
    mov cx, 0x150a
    int 0x10
    mov ax, 0x1015
    mov dh, 0
    mov cx, 0
    int 0x10
    KEEP 0x7e20
"""
    machine = run(engine, body)
    assert kept(machine)[1] >> 8 & 0xFF == 0x2A
    _, _, ecx, edx, *_ = kept(machine, 0x7E20)
    assert (edx >> 8 & 0xFF, ecx & 0xFFFF) == (0x3F, 0x150A)
    assert machine.platform.crtc.palette[3 * 0x2A : 3 * 0x2B] == b"\x3f\x15\x0a"


def test_a_string_with_attributes_that_leaves_the_cursor() -> None:
    words = 'jmp over\nwords: .ascii "h"\n.byte 0x1e\n.ascii "i"\n.byte 0x2f\nover:\n'
    body = words + "mov ax, 0x1302\nmov bx, 0\nmov cx, 2\nmov dx, 0x0305\nmov bp, words\nint 0x10\n"
    machine = run(None, body)
    assert ram(machine, 0xB8000 + 3 * 160 + 10, 4) == b"h\x1ei\x2f" and machine.screen.cursor == (0, 0)


def test_the_screen_before_the_first_instruction() -> None:
    machine = booted(None, "")
    assert machine.screen.lines == [""] * 25 and machine.screen.cursor == (0, 0)
