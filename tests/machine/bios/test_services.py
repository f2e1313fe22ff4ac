"""INT 10h, 11h, 12h, 15h, 18h, 19h, 1Ah, and the device interrupts' handlers."""

from __future__ import annotations

import pytest

from hvproto.machine.clock import CYCLES_PER_SECOND
from hvproto.machine.machine import Machine
from tests.support.boot_sectors import LIMIT, RAM, booted, kept, ram, run, screen


def printing(text: str) -> str:
    return f"""
    mov si, 3f
1:  lodsb
    test al, al
    jz 2f
    mov ah, 0x0e
    mov bx, 7
    int 0x10
    jmp 1b
3:  .asciz "{text}"
2:
"""


def cursor(at: str) -> str:
    row, column = at.split(",")
    return f"mov ah, 2\nmov bh, 0\nmov dx, {int(row) << 8 | int(column)}\nint 0x10\n"


# -- screen ----------------------------------------------------------------------------------


def test_the_screen_is_blank_at_first(engine: str) -> None:
    machine = booted(engine, "")
    assert ram(machine, 0xB8000, 4000) == b" \x07" * 2000


def test_teletype_and_its_control_characters(engine: str) -> None:
    machine = run(engine, printing("one\\r\\ntwo\\bX\\a!\\n#") + "mov ah, 3\nmov bh, 0\nint 0x10\nKEEP results\n")
    assert [screen(machine, row) for row in range(4)] == ["one", "twX!", "    #", ""]
    assert kept(machine)[3] & 0xFFFF == 0x0205
    assert machine.debug_output == machine.serial_output == b""


def test_the_end_of_a_line_and_of_the_screen() -> None:
    machine = run(None, printing("top") + cursor("24,78") + printing("abc"))
    assert screen(machine, 0) == ""
    assert screen(machine, 23) == " " * 78 + "ab" and screen(machine, 24) == "c"


def test_characters_with_attributes() -> None:
    body = cursor("5,10") + "mov ax, 0x0941\nmov bx, 0x1e\nmov cx, 3\nint 0x10\nmov ax, 0x0a42\nmov cx, 1\nint 0x10\n"
    machine = run(None, body + "mov ah, 8\nint 0x10\nKEEP results\n")
    assert ram(machine, 0xB8000 + 160 * 5 + 20, 8) == b"B\x1eA\x1eA\x1e \x07"
    assert kept(machine)[0] & 0xFFFF == 0x1E42


@pytest.mark.parametrize(
    ("ah", "rows"), [(6, ["a", "c  x", "d  x", "   x", "e"]), (7, ["a", "   x", "b  x", "c  x", "e"])]
)
def test_scroll_a_window(ah: int, rows: list[str]) -> None:
    body = "".join(
        cursor(f"{row},0") + f"mov al, '{letter}'\nmov ah, 0x0e\nint 0x10\n" for row, letter in enumerate("abcde")
    )
    body += "".join(cursor(f"{row},3") + "mov ax, 0x0e78\nint 0x10\n" for row in (1, 2, 3))
    machine = run(None, body + f"mov ax, {ah << 8 | 1}\nmov bh, 0x70\nmov cx, 0x0100\nmov dx, 0x0302\nint 0x10\n")
    assert [screen(machine, row) for row in range(5)] == rows
    assert ram(machine, 0xB8000 + 160 * (3 if ah == 6 else 1), 8) == b" \x70 \x70 \x70x\x07"


def test_write_a_string() -> None:
    body = 'mov ax, 0x1301\nmov bx, 0x4f\nmov cx, 5\nmov dx, 0x0203\nmov bp, words\nint 0x10\njmp over\nwords: .ascii "hello"\nover:\n'
    machine = run(None, body)
    assert screen(machine, 2) == "   hello" and ram(machine, 0xB8000 + 320 + 6, 2) == b"h\x4f"
    assert ram(machine, 0x450, 2) == b"\x08\x02"


def test_mode(engine: str) -> None:
    machine = run(engine, printing("gone") + "mov ax, 3\nint 0x10\nmov ah, 0x0f\nint 0x10\nKEEP results\n")
    eax, ebx, *_ = kept(machine)
    assert (eax & 0xFFFF, ebx >> 8 & 0xFF, screen(machine, 0)) == (0x5003, 0, "")


# -- what there is ---------------------------------------------------------------------------


def test_memory(engine: str) -> None:
    body = "int 0x12\nKEEP results\nmov ah, 0x88\nint 0x15\nKEEP 0x7e20\nmov ax, 0xe801\nint 0x15\nKEEP 0x7e40\n"
    machine = run(engine, body + "int 0x11\nKEEP 0x7e60\n")
    assert kept(machine)[0] & 0xFFFF == 639
    assert kept(machine, 0x7E20)[0] & 0xFFFF == (RAM >> 10) - 1024
    eax, ebx, ecx, edx, carry, _ = kept(machine, 0x7E40)
    assert [n & 0xFFFF for n in (eax, ebx, ecx, edx)] == [3072, 0, 3072, 0] and not carry
    assert kept(machine, 0x7E60)[0] & 0x30 == 0x20


def test_memory_map(engine: str) -> None:
    body = """
    xor ebx, ebx
    mov di, 0x9000
.next: mov eax, 0xe820
    mov edx, 0x534d4150
    mov ecx, 24
    int 0x15
    jc .end
    add di, 20
    test ebx, ebx
    jnz .next
.end: KEEP results
"""
    machine = run(engine, body)
    eax, _, ecx, _, carry, _ = kept(machine)
    assert (eax, ecx, carry) == (0x534D4150, 20, False)
    data = ram(machine, 0x9000, 100)
    entries = [
        tuple(int.from_bytes(data[at + a : at + b], "little") for a, b in ((0, 8), (8, 16), (16, 20)))
        for at in range(0, 100, 20)
    ]
    assert entries == [
        (0, 0x9FC00, 1),
        (0x9FC00, 0x400, 2),
        (0xF0000, 0x10000, 2),
        (0x100000, RAM - 0x100000, 1),
        (0, 0, 0),
    ]


@pytest.mark.parametrize("change", ["mov edx, 0", "mov ecx, 19", "mov ebx, 4"])
def test_no_memory_map(change: str) -> None:
    body = f"xor ebx, ebx\nmov eax, 0xe820\nmov edx, 0x534d4150\nmov ecx, 20\nmov di, 0x9000\n{change}\nint 0x15\nKEEP results\n"
    eax, *_, carry, _ = kept(run(None, body))
    assert carry and eax >> 8 & 0xFF == 0x86


def test_a20(engine: str) -> None:
    body = "mov ax, 0x2401\nint 0x15\nKEEP results\nmov ax, 0x2402\nint 0x15\nKEEP 0x7e20\nmov ax, 0x2403\nint 0x15\nKEEP 0x7e40\n"
    machine = run(engine, body)
    assert [kept(machine, at)[4] for at in (0x7E00, 0x7E20, 0x7E40)] == [False] * 3
    assert kept(machine, 0x7E20)[0] & 0xFFFF == 1


def test_move_a_block_above_1_mib(engine: str) -> None:
    body = """
    mov si, table
    mov cx, 4
    mov ah, 0x87
    int 0x15
    KEEP results
    jmp over
table: .quad 0, 0, 0x0000930000000000 + (words << 16) + 0xffff, 0x000093200000ffff + 0x0, 0, 0
words: .ascii "upstairs"
over:
"""
    machine = run(engine, body)
    assert not kept(machine)[4] and ram(machine, 0x200000, 9) == b"upstairs\0"


def test_configuration_and_waiting() -> None:
    body = "mov ah, 0xc0\nint 0x15\nmov ax, es:[bx + 2]\nKEEP results\nmov ah, 0x86\nmov cx, 1\nmov dx, 0\nint 0x15\nmov ax, 0xd800\nint 0x15\nKEEP 0x7e20\n"
    machine = run(None, body)
    assert kept(machine)[0] & 0xFF == 0xFC
    assert kept(machine, 0x7E20)[4]
    assert machine.processor.now > 65536 * CYCLES_PER_SECOND // 1_000_000


# -- time ------------------------------------------------------------------------------------


def test_ticks(engine: str) -> None:
    body = """
    mov word ptr [0x70], hook       ; INT 1Ch
    mov word ptr [0x72], 0
    mov ah, 1
    mov cx, 0x18
    mov dx, 0xae
    int 0x1a
    sti
.again: hlt
    cmp byte ptr [0x7e80], 5
    jb .again
    mov ah, 0
    int 0x1a
    KEEP results
    EXIT
hook: inc byte ptr cs:[0x7e80]
    iret
"""
    machine = run(engine, body)
    eax, _, ecx, edx, *_ = kept(machine)
    assert (eax & 0xFF, ecx & 0xFFFF, edx & 0xFFFF) == (1, 0, 3)  # past midnight


def test_date_and_time() -> None:
    body = "mov ah, 2\nint 0x1a\nKEEP results\nmov ah, 4\nint 0x1a\nKEEP 0x7e20\n"
    machine = run(None, body)
    assert not kept(machine)[4] and not kept(machine, 0x7E20)[4]
    assert kept(machine, 0x7E20)[2] >> 8 & 0xFF == 0x20


# -- beginning and end -----------------------------------------------------------------------


def test_the_state_at_the_boot_sector(engine: str) -> None:
    machine = booted(engine, "")
    processor = machine.processor
    assert (processor.eip, processor.code.selector, processor.gpr(2)) == (0x7C00, 0, 0x80)
    assert ram(machine, 0xFFFF0, 1) == b"\xea"


@pytest.mark.parametrize("how", ["int 0x19", "jmp 0xffff:0"])
def test_boot_again(engine: str, how: str) -> None:
    machine = run(
        engine, f"mov al, [0x6000]\nout 0xe9, al\ncmp al, 'x'\nje .end\nmov byte ptr [0x6000], 'x'\n{how}\n.end:\n"
    )
    assert machine.debug_output == b"\0x"


def test_no_system() -> None:
    machine = booted(None, "int 0x18")
    assert machine.run(LIMIT) == 0
    assert screen(machine, 0) == "No system to boot"


def test_a_disk_that_does_not_boot() -> None:
    machine = Machine(RAM, bytes(512))
    machine.boot_disk()
    assert machine.run(LIMIT) == 0 and screen(machine, 0) == "No bootable disk"


def test_two_runs_are_identical() -> None:
    results = []
    for _ in range(2):
        machine = run(None, printing("hello") + "sti\nmov cx, 3\n.t: hlt\nloop .t\n")
        results.append((machine.processor.now, machine.processor.registers(), bytes(machine.ram.view)))
    assert results[0] == results[1]
