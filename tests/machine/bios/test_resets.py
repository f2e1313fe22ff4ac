"""Ways to begin again: resets, with and without a plan in the CMOS, and what the firmware leaves there."""

from __future__ import annotations

import pytest

from hvproto.machine.acpi_tables import build as acpi_tables
from hvproto.machine.machine import Machine
from hvproto.machine.mp_table import build as mp_table
from tests.support.boot_sectors import LIMIT, WELL, boot_sector, booted, kept, ram, run

RESETS = {
    "0x92": "in al, 0x92\nor al, 1\nout 0x92, al\n",
    "0xcf9": "mov dx, 0xcf9\nmov al, 6\nout dx, al\n",
    "i8042": "mov al, 0xfe\nout 0x64, al\n",
    "Ctrl-Alt-Del's way": "jmp 0xf000:0xfff0\n",
}
ONCE = "inc byte ptr [0x6000]\ncmp byte ptr [0x6000], 2\nje again\n"


@pytest.mark.parametrize("how", RESETS)
def test_the_firmware_starts_again(engine: str, how: str) -> None:
    """Whatever the program has done to vectors, interrupt controllers, timer and keyboard."""
    spoil = """
    mov dword ptr [0x16 * 4], 0
    mov dword ptr [0x08 * 4], 0
    mov al, 0xff
    out 0x21, al
    mov al, 0x34
    out 0x43, al
    mov al, 0xad
    out 0x64, al
    mov al, 0x60
    out 0x64, al
    mov al, 0
    out 0x60, al
"""
    wait = "\nhere: jmp here\nagain: mov ah, 0\nint 0x16\nKEEP results\n.tick: cmp byte ptr [0x46c], 0\nje .tick\n"
    machine = booted(engine, ONCE + spoil + RESETS[how] + wait)
    machine.type("r")
    assert machine.run(LIMIT) == WELL
    assert kept(machine)[0] & 0xFFFF == 0x1372


# Protected mode with paging, no interrupts, and a reset as the way back.
PROTECTED = """
    mov al, 0x0f
    out 0x70, al
    mov al, {code}
    out 0x71, al
    mov word ptr [0x467], {offset}
    mov word ptr [0x469], {segment}
    mov al, 0xbb                    ; a mask that has to stay as it is
    out 0x21, al
    cli
    lgdt [pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp 8:inside
.code32
inside:
    mov eax, 16
    mov ds, eax
    mov ss, eax
    mov dword ptr [0x200000], 0x12345678
    mov al, 0xfe
    out 0x64, al
forever: jmp forever
.code16
pointer: .word 23
    .long gdt
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
back:
    smsw ax
    in al, 0x21
    mov bx, ss
    mov cx, sp
    KEEP results
    mov al, 0x0f
    out 0x70, al
    in al, 0x71
    mov [0x7e20], al
    mov ax, 0xdead
    EXIT
"""


@pytest.mark.parametrize("code", [0x05, 0x0A])
def test_the_way_back_from_protected_mode_of_a_286(engine: str, code: int) -> None:
    machine = run(engine, PROTECTED.format(code=code, segment=0, offset="back"))
    eax, ebx, ecx, *_ = kept(machine)
    assert eax & 0x01FF == 0xBB  # PE is clear, and the interrupt controller is as it was
    assert (ebx & 0xFFFF, ecx & 0xFFFF) == (0, 0x400)
    assert ram(machine, 0x7E20, 1) == b"\0" and ram(machine, 0x200000, 4) == b"\x78\x56\x34\x12"


@pytest.mark.parametrize(("code", "frame"), [(0x0B, "back, 0, 2"), (0x0C, "back, 0")])
def test_with_the_address_on_the_stack(code: int, frame: str) -> None:
    body = PROTECTED.format(code=code, segment=0x0700, offset="frame - 0x7000")
    machine = run(None, body.replace("back:\n", f"frame: .word {frame}\nback:\n", 1))
    _, ebx, ecx, *_ = kept(machine)
    size = 6 if code == 0x0B else 4
    at = machine.images[machine.world].symbols["frame"]
    assert (ebx & 0xFFFF, ecx & 0xFFFF) == (0x0700, at - 0x7000 + size)


def test_what_the_cmos_says() -> None:
    read = "".join(f"mov al, {at}\nout 0x70, al\nin al, 0x71\nmov [{0x9000 + at}], al\n" for at in range(0x10, 0x36))
    machine = Machine(32 << 20, boot_sector(read).disk)
    machine.boot_disk()
    assert machine.run(LIMIT) == WELL
    cmos = ram(machine, 0x9000, 0x80)
    assert (cmos[0x10], cmos[0x12], cmos[0x14], cmos[0x19]) == (0, 0xF0, 0x22, 47)
    words = [int.from_bytes(cmos[at : at + 2], "little") for at in (0x15, 0x17, 0x30, 0x34)]
    assert words == [640, 31 * 1024, 31 * 1024, 16 * 16]
    assert int.from_bytes(cmos[0x2E:0x30], "big") == sum(cmos[0x10:0x2E])


def test_the_cmos_of_a_machine_with_two_fixed_disks() -> None:
    memory = booted(None, "", second=bytes(100 * 512)).platform.rtc.memory
    assert (memory[0x12], memory[0x19], memory[0x1A]) == (0xFF, 47, 47)


def test_the_tables_lie_in_memory_that_the_map_reserves() -> None:
    """ACPI's and MP's tables are in the ROM's range: there is nothing to reclaim."""
    body = "xor ebx, ebx\nmov di, 0x9000\n.n: mov eax, 0xe820\nmov edx, 0x534d4150\nmov ecx, 20\nint 0x15\nadd di, 20\ntest ebx, ebx\njnz .n\n"
    machine = run(None, body)
    data = ram(machine, 0x9000, 80)
    reserved = []
    for at in range(0, 80, 20):
        base, length, kind = (int.from_bytes(data[at + a : at + b], "little") for a, b in ((0, 8), (8, 16), (16, 20)))
        reserved += [range(base, base + length)] if kind == 2 else []
    tables = [(address, len(content)) for address, content in (*acpi_tables(), *mp_table())]
    for address, size in (*tables, (0x9FC00, 1024), (0xFE000, 0x2000)):
        assert any(address in area and address + size - 1 in area for area in reserved), hex(address)
        assert any(machine.ram.view[address : address + size])


def test_a_reset_takes_the_local_apic_back_to_where_the_8259s_reach_the_processor(engine: str) -> None:
    enable = """
    cli
    lgdt [pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 8
    mov fs, bx                      ; all of 4 GiB from now on
    and al, 0xfe
    mov cr0, eax
    mov edi, 0xfee000f0
    mov dword ptr fs:[edi], 0x1ff   ; enabled, with LINT0 masked: no 8259 any more
    mov eax, fs:[edi]
    mov [0x6004], eax
"""
    again = """
here: jmp here
pointer: .word 15
    .long gdt
gdt: .quad 0, 0x00cf93000000ffff
again:
    sti
    mov eax, [0x46c]
.tick: cmp eax, [0x46c]
    je .tick
    mov eax, [0x6004]
    KEEP results
"""
    machine = booted(engine, ONCE + enable + RESETS["0xcf9"] + again)
    assert machine.run(LIMIT) == WELL
    assert kept(machine)[0] == 0x1FF
    assert not machine.board.interrupts.lapic.enabled
