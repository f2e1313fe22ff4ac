"""The whole PC from the guest's side: APIC timer, keyboard, screen, power, time stamps, NMI."""

from __future__ import annotations

import pytest

from hvproto.errors import LimitReached, MachineError
from tests.support.kernels import booted

EXIT = "mov al, 0\nout 0xf4, al\n"


def test_the_local_apics_timer_interrupts(engine: str) -> None:
    machine = booted(
        engine,
        """
        GATE 0x40, on_apic, 0x8e00
        mov dword ptr [0xfee000f0], 0x1ff       ; enabled, spurious vector 0xff
        mov dword ptr [0xfee003e0], 0xb         ; divide by 1
        mov dword ptr [0xfee00320], 0x20040     ; periodic, vector 0x40
        mov dword ptr [0xfee00380], 10000
        sti
again:  hlt
        cmp dword ptr [count], 3
        jb again
        """
        + EXIT
        + """
on_apic: inc dword ptr [count]
        mov dword ptr [0xfee000b0], 0           ; EOI
        iretd
count:   .long 0
        """,
    )
    before = machine.processor.now
    assert machine.run(10_000_000) == 1
    assert 30_000 <= machine.processor.now - before < 60_000


def test_an_interrupt_by_way_of_the_io_apic(engine: str) -> None:
    machine = booted(
        engine,
        """
        GATE 0x41, on_pit, 0x8e00
        mov al, 0xff                            ; not by the 8259s
        out 0x21, al
        out 0xa1, al
        mov dword ptr [0xfee000f0], 0x1ff
        mov dword ptr [0xfec00000], 0x14        ; input 2, where line 0 of a PC comes in
        mov dword ptr [0xfec00010], 0x41
        mov al, 0x34
        out 0x43, al
        mov al, 100
        out 0x40, al
        mov al, 0
        out 0x40, al
        sti
again:  hlt
        cmp dword ptr [count], 2
        jb again
        """
        + EXIT
        + """
on_pit: inc dword ptr [count]
        mov dword ptr [0xfee000b0], 0
        iretd
count:   .long 0
        """,
    )
    assert machine.run(10_000_000) == 1


def test_what_is_typed_arrives_key_by_key(engine: str) -> None:
    machine = booted(
        engine,
        """
again:  in al, 0x64
        test al, 1
        jz again
        in al, 0x60
        out 0xe9, al
        cmp al, 0x9c                            ; Enter is released
        jne again
        """
        + EXIT,
    )
    machine.type("aB\n")
    assert machine.run(50_000_000) == 1
    assert machine.debug_output == bytes.fromhex("1e9e 2a30 b0aa 1c9c")


def test_the_screen_is_read_as_text(engine: str) -> None:
    machine = booted(engine, "mov dword ptr [0xb8000], 0x07690748\nhere: jmp here")
    machine.run_until("Hi", 1_000_000)
    assert machine.screen.lines[0] == "Hi"
    with pytest.raises(LimitReached):
        machine.run_until("never", 1_000_000)


def test_a_machine_that_ends_before_the_text_says_so(engine: str) -> None:
    machine = booted(engine, "mov al, 'x'\nout 0xe9, al\ncli\nhlt")
    with pytest.raises(MachineError, match="without 'y'"):
        machine.run_until("y", 1_000_000)


@pytest.mark.parametrize("port", [0x604, 0xB004])
def test_power_off_is_a_clean_end(engine: str, port: int) -> None:
    machine = booted(engine, f"mov dx, {port:#x}\nmov ax, 0x2000\nout dx, ax\nhere: jmp here")
    assert machine.run(1_000_000) == 0


@pytest.mark.parametrize(
    "text", ["mov al, 6\nmov dx, 0xcf9\nout dx, al", "mov al, 0xfe\nout 0x64, al", "mov al, 1\nout 0x92, al"]
)
def test_a_reset_without_firmware_is_an_end(engine: str, text: str) -> None:
    assert booted(engine, f"{text}\nhere: jmp here").run(1_000_000) == 0


def test_time_stamps_are_virtual_time(engine: str) -> None:
    text = (
        "rdtsc\nmov esi, eax\nmov ecx, 100\nagain: loop again\nrdtsc\njmp over\nover: sub eax, esi\nmov [0x180000], eax\n"
        + EXIT
    )
    counts = []
    for _ in range(2):
        machine = booted(engine, text)
        assert machine.run(1_000_000) == 1
        counts.append(int.from_bytes(machine.ram.view[0x180000:0x180004], "little"))
    assert counts[0] == counts[1] and 200 <= counts[0] < 300


def test_an_nmi_reaches_a_kernel_that_takes_no_interrupts(engine: str) -> None:
    machine = booted(
        engine,
        "GATE 2, on_nmi, 0x8e00\ncli\nmov al, 'r'\nout 0xe9, al\nagain: cmp dword ptr [count], 0\nje again\n"
        + EXIT
        + "on_nmi: mov dword ptr [count], 1\niretd\ncount: .long 0",
    )
    machine.run_until("r", 1_000_000)
    machine.nmi()
    assert machine.run(machine.processor.now + 1_000_000) == 1


def test_pci_has_a_host_bridge(engine: str) -> None:
    text = "mov eax, 0x80000000\nmov dx, 0xcf8\nout dx, eax\nmov dx, 0xcfc\nin eax, dx\nmov [0x180000], eax\n" + EXIT
    machine = booted(engine, text)
    assert machine.run(1_000_000) == 1
    assert bytes(machine.ram.view[0x180000:0x180004]) == bytes.fromhex("86803712")
