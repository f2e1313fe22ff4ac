"""The way of a key: keyboard, IRQ 1, INT 9, the buffer in segment 0040, INT 16h."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hvproto.errors import LimitReached, MachineError
from hvproto.machine.clock import CYCLES_PER_SECOND
from hvproto.machine.machine import Machine
from tests.support.boot_sectors import LIMIT, WELL, booted, kept, ram, run

SHIFT, RIGHT_SHIFT, CONTROL, ALT, RIGHT_CONTROL, RIGHT_ALT = 0x2A, 0x36, 0x1D, 0x38, 0xE01D, 0xE038
CAPS, NUM, SCROLL = 0x3A, 0x45, 0x46
MOMENT = CYCLES_PER_SECOND // 6
"""Three ticks of the firmware's clock: long enough for any key that is on its way."""
A, DIGIT_1, ENTER, UP, GREY_UP, DELETE, END = 0x1E, 0x02, 0x1C, 0x48, 0xE048, 0xE053, 0x01

# Words from INT 16h to 0x9000, until Escape.
KEYS_UNTIL_ESCAPE = """
    mov di, 0x9000
.next: mov ah, {ah:#x}
    int 0x16
    stosw
    cmp al, 27
    jne .next
"""


def pressing(machine: Machine, *chords: Sequence[int]) -> Machine:
    for chord in (*chords, (END,)):
        machine.platform.keyboard.tap(*chord)
    assert machine.run(LIMIT) == WELL
    return machine


def words(machine: Machine) -> list[int]:
    """What has been read, without the Escape."""
    data = ram(machine, 0x9000, 128)
    found = [int.from_bytes(data[at : at + 2], "little") for at in range(0, 128, 2)]
    return found[: found.index(0x011B)]


def test_text_comes_in_by_the_interrupt(engine: str) -> None:
    machine = booted(engine, "mov ah, 0\nint 0x16\nout 0xe9, al\n" * 3 + "mov ah, 0x11\nint 0x16\nKEEP results\n")
    machine.type("aB\n")
    assert machine.run(LIMIT) == WELL
    assert machine.debug_output == b"aB\r"
    assert kept(machine)[5]  # nothing is left


def test_waiting_for_a_key(engine: str) -> None:
    machine = booted(engine, "mov ah, 0\nint 0x16\nout 0xe9, al\n")
    with pytest.raises(LimitReached):
        machine.run(MOMENT)
    assert ram(machine, 0x46C, 1)[0] >= 2  # the ticks go on meanwhile
    machine.type("k")
    assert machine.run(LIMIT) == WELL
    assert machine.debug_output == b"k"


def test_polling_with_interrupts_off(engine: str) -> None:
    """INT 16h lets the interrupt through that brings the key, as a BIOS does."""
    machine = booted(engine, "cli\n.again: mov ah, 1\nint 0x16\njz .again\nKEEP results\n")
    machine.type("x")
    assert machine.run(LIMIT) == WELL
    eax, *_, zero = kept(machine)
    assert (eax & 0xFFFF, zero) == (0x2D78, False)
    assert ram(machine, 0x41A, 4) == b"\x1e\0\x20\0"  # it is still there


def test_a_program_that_keeps_up_loses_nothing() -> None:
    text = "the quick brown fox jumps over the lazy dog"
    machine = booted(None, f"mov cx, {len(text)}\n.n: mov ah, 0\nint 0x16\nout 0xe9, al\nloop .n\n")
    machine.type(text)
    assert machine.run(LIMIT) == WELL and machine.debug_output.decode() == text
    with pytest.raises(MachineError, match="'ä'"):
        machine.type("ä")


def test_the_buffer_holds_fifteen_keys() -> None:
    wait = "mov ah, 0x86\nmov cx, 1\nmov dx, 0\nint 0x15\n"
    machine = booted(None, wait + KEYS_UNTIL_ESCAPE.format(ah=0))
    machine.type("abcdefghijklmnopqrst")
    with pytest.raises(LimitReached):
        machine.run(MOMENT)  # the others, Escape among them, were lost
    assert ram(machine, 0x9000, 32)[::2] == b"abcdefghijklmno\0"
    pressing(machine)


def test_a_masked_interrupt_and_a_program_that_polls(engine: str) -> None:
    body = """
    in al, 0x21
    or al, 2
    out 0x21, al
.next: in al, 0x64
    test al, 1
    jz .next
    in al, 0x60
    out 0xe9, al
    cmp al, 0x9e
    jne .next
    mov ah, 1
    int 0x16
    KEEP results
"""
    machine = booted(engine, body)
    machine.type("a")
    assert machine.run(LIMIT) == WELL
    assert machine.debug_output == b"\x1e\x9e"
    assert kept(machine)[5]


def test_a_disabled_keyboard_keeps_its_keys(engine: str) -> None:
    wait = "mov ah, 0x86\nmov cx, 0\nmov dx, 20000\nint 0x15\nmov ah, 1\nint 0x16\n"
    body = f"mov al, 0xad\nout 0x64, al\n{wait}KEEP results\nmov al, 0xae\nout 0x64, al\n{wait}KEEP 0x7e20\n"
    machine = booted(engine, body)
    machine.type("q")
    assert machine.run(LIMIT) == WELL
    assert kept(machine)[5] and not kept(machine, 0x7E20)[5]


@pytest.mark.parametrize(
    ("chord", "new", "old"),
    [
        ((A,), 0x1E61, 0x1E61),
        ((SHIFT, A), 0x1E41, 0x1E41),
        ((RIGHT_SHIFT, A), 0x1E41, 0x1E41),
        ((CONTROL, A), 0x1E01, 0x1E01),
        ((RIGHT_CONTROL, A), 0x1E01, 0x1E01),
        ((ALT, A), 0x1E00, 0x1E00),
        ((RIGHT_ALT, A), 0x1E00, 0x1E00),
        ((SHIFT, DIGIT_1), 0x0221, 0x0221),
        ((ALT, DIGIT_1), 0x7800, 0x7800),
        ((CONTROL, DIGIT_1), None, None),
        ((CONTROL, 0x03), 0x0300, 0x0300),
        ((ENTER,), 0x1C0D, 0x1C0D),
        ((CONTROL, ENTER), 0x1C0A, 0x1C0A),
        ((ALT, ENTER), 0x1C00, None),
        ((0xE01C,), 0xE00D, 0x1C0D),
        ((0x0F,), 0x0F09, 0x0F09),
        ((SHIFT, 0x0F), 0x0F00, 0x0F00),
        ((CONTROL, 0x0F), 0x9400, None),
        ((0x0E,), 0x0E08, 0x0E08),
        ((CONTROL, 0x0E), 0x0E7F, 0x0E7F),
        ((UP,), 0x4800, 0x4800),
        ((SHIFT, UP), 0x4838, 0x4838),
        ((CONTROL, UP), 0x8D00, None),
        ((GREY_UP,), 0x48E0, 0x4800),
        ((SHIFT, GREY_UP), 0x48E0, 0x4800),
        ((CONTROL, 0xE04B), 0x73E0, 0x7300),
        ((ALT, GREY_UP), 0x9800, None),
        ((DELETE,), 0x53E0, 0x5300),
        ((0xE052,), 0x52E0, 0x5200),
        ((0xE035,), 0xE02F, 0x352F),
        ((0x35,), 0x352F, 0x352F),
        ((0x37,), 0x372A, 0x372A),
        ((0x4A,), 0x4A2D, 0x4A2D),
        ((0x4C,), 0x4C00, None),
        ((0x3B,), 0x3B00, 0x3B00),
        ((SHIFT, 0x3B), 0x5400, 0x5400),
        ((CONTROL, 0x44), 0x6700, 0x6700),
        ((ALT, 0x44), 0x7100, 0x7100),
        ((0x57,), 0x8500, None),
        ((SHIFT, 0x58), 0x8800, None),
        ((ALT, 0x58), 0x8C00, None),
    ],
)  # fmt: skip
def test_what_a_key_gives(chord: tuple[int, ...], new: int | None, old: int | None) -> None:
    """By the functions for the keyboard of 101 keys, and by those for the old one."""
    for ah, expected in ((0x10, new), (0x00, old)):
        machine = pressing(booted(None, KEYS_UNTIL_ESCAPE.format(ah=ah)), chord)
        assert words(machine) == ([] if expected is None else [expected])


def test_locks_and_their_lights(engine: str) -> None:
    body = KEYS_UNTIL_ESCAPE.format(ah=0x10) + "mov ah, 2\nint 0x16\nKEEP results\n"
    machine = pressing(
        booted(engine, body),
        (CAPS,),
        (A,),
        (SHIFT, A),
        (DIGIT_1,),
        (CAPS,),
        (A,),
        (NUM,),
        (UP,),
        (SHIFT, UP),
        (SCROLL,),
    )
    assert words(machine) == [0x1E41, 0x1E61, 0x0231, 0x1E61, 0x4838, 0x4800]
    assert kept(machine)[0] & 0xFF == 0x30
    assert machine.platform.keyboard.keyboard.leds == 0b011
    assert ram(machine, 0x497, 1)[0] & 7 == 0b011


def test_keys_that_are_held() -> None:
    body = "mov ah, 0\nint 0x16\nmov ah, 0x12\nint 0x16\nKEEP results\nmov ah, 0\nint 0x16\nmov ah, 0x12\nint 0x16\nKEEP 0x7e20\n"
    machine = booted(None, body)
    keyboard = machine.platform.keyboard
    for key in (SHIFT, RIGHT_CONTROL, CONTROL, RIGHT_ALT, A):
        keyboard.press(key)
    with pytest.raises(LimitReached):
        machine.run(MOMENT)
    assert kept(machine)[0] & 0xFFFF == 0b0000_1101_0000_1110
    for key in (CONTROL, RIGHT_ALT):
        keyboard.release(key)
    keyboard.tap(A)
    assert machine.run(LIMIT) == WELL
    assert kept(machine, 0x7E20)[0] & 0xFFFF == 0b0000_0100_0000_0110  # the other Ctrl is still held


def test_a_character_by_its_code_on_the_keypad() -> None:
    machine = booted(None, KEYS_UNTIL_ESCAPE.format(ah=0x10))
    keyboard = machine.platform.keyboard
    keyboard.press(ALT)
    for key in (0x4F, 0x4D, 0x4C):  # 165
        keyboard.tap(key)
    keyboard.release(ALT)
    assert words(pressing(machine)) == [0x00A5]


def test_a_program_puts_a_key_in_itself() -> None:
    body = "mov ah, 5\nmov cx, 0x3b00\nint 0x16\nKEEP results\nmov ah, 0\nint 0x16\nKEEP 0x7e20\n"
    body += "mov si, 16\n.n: mov ah, 5\nint 0x16\ndec si\njnz .n\nKEEP 0x7e40\n"
    machine = run(None, body)
    assert [kept(machine, at)[0] & 0xFFFF for at in (0x7E00, 0x7E20)] == [0x0500, 0x3B00]
    assert kept(machine, 0x7E40)[0] & 0xFF == 1  # there is no room for the sixteenth


HOOK = """
    mov word ptr [{vector:#x} * 4], hook
    mov word ptr [{vector:#x} * 4 + 2], 0
    mov ah, 0
    int 0x16
    KEEP results
    EXIT
hook:
"""


def test_a_program_intercepts_scan_codes(engine: str) -> None:
    """INT 15h, AH=4Fh: it throws A away and makes X of B."""
    hook = "cmp al, 0x1e\nje .away\ncmp al, 0x30\njne .on\nmov al, 0x2d\n.on: stc\nretf 2\n.away: clc\nretf 2\n"
    machine = booted(engine, HOOK.format(vector=0x15) + hook)
    machine.type("ab")
    assert machine.run(LIMIT) == WELL
    assert kept(machine)[0] & 0xFFFF == 0x2D78


def test_a_program_in_front_of_the_interrupt(engine: str) -> None:
    """It sees each code, and passes the interrupt on."""
    hook = "push ax\nin al, 0x64\nout 0xe9, al\npop ax\njmp far cs:[old]\nold: .long 0\n"
    save = "mov eax, [9 * 4]\nmov [old], eax\n"
    machine = booted(engine, save + HOOK.format(vector=9) + hook)
    machine.type("z")
    assert machine.run(LIMIT) == WELL
    assert kept(machine)[0] & 0xFFFF == 0x2C7A
    assert machine.debug_output and machine.debug_output[0] & 1  # the buffer was full


@pytest.mark.parametrize(("chord", "vector"), [((CONTROL, 0xE046), 0x1B), ((0xE037,), 0x05)])
def test_break_and_print_screen(engine: str, chord: tuple[int, ...], vector: int) -> None:
    hook = "mov al, '!'\nout 0xe9, al\niret\n"
    machine = booted(engine, HOOK.format(vector=vector) + hook)
    machine.platform.keyboard.tap(*chord)
    machine.platform.keyboard.tap(A)
    assert machine.run(LIMIT) == WELL
    assert machine.debug_output == b"!"
    broken = vector == 0x1B
    assert kept(machine)[0] & 0xFFFF == (0 if broken else 0x1E61)  # Break gives a zero word itself
    assert ram(machine, 0x471, 1)[0] == (0x80 if broken else 0)


def test_pause_ends_with_a_key(engine: str) -> None:
    count = "mov ebx, 0\n.n: hlt\ninc ebx\nmov ah, 1\nint 0x16\njz .n\nKEEP results\n"
    machine = booted(engine, count)
    machine.platform.keyboard.tap(CONTROL, NUM)
    with pytest.raises(LimitReached):
        machine.run(MOMENT)
    before = machine.processor.gpr(3)
    with pytest.raises(LimitReached):
        machine.run(2 * MOMENT)
    assert machine.processor.gpr(3) == before and ram(machine, 0x418, 1)[0] & 8
    machine.type("a")  # this one only ends it
    with pytest.raises(LimitReached):
        machine.run(3 * MOMENT)
    assert machine.processor.gpr(3) > before
    machine.type("b")
    assert machine.run(2 * LIMIT) == WELL
    assert kept(machine)[0] & 0xFFFF == 0x3062


def test_ctrl_alt_del(engine: str) -> None:
    body = "inc byte ptr [0x6000]\nmov ax, [0x472]\nmov [0x6002], ax\ncmp byte ptr [0x6000], 2\nje .end\nsti\n.w: hlt\njmp .w\n.end:\n"
    machine = booted(engine, body)
    machine.platform.keyboard.tap(CONTROL, ALT, DELETE)
    assert machine.run(LIMIT) == WELL
    assert ram(machine, 0x6000, 1) == b"\2"
