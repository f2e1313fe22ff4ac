"""INT 1Ah, INT 70h and the waiting of INT 15h: what the clock chip does for programs in real mode."""

from __future__ import annotations

from datetime import datetime

import pytest

from hvproto.machine.clock import CYCLES_PER_PIT_TICK, CYCLES_PER_SECOND
from tests.support.boot_sectors import LIMIT, WELL, booted, kept, ram, run

MICROSECOND = CYCLES_PER_SECOND // 1_000_000


def test_date_and_time_are_the_chips(engine: str) -> None:
    machine = booted(engine, "mov ah, 2\nint 0x1a\nKEEP results\nmov ah, 4\nint 0x1a\nKEEP 0x7e20\n")
    machine.platform.rtc.set_time(datetime(2031, 12, 24, 18, 45, 59))
    assert machine.run(LIMIT) == WELL
    _, _, ecx, edx, carry, _ = kept(machine)
    assert (ecx & 0xFFFF, edx & 0xFFFF, carry) == (0x1845, 0x5900, False)
    _, _, ecx, edx, carry, _ = kept(machine, 0x7E20)
    assert (ecx & 0xFFFF, edx & 0xFFFF, carry) == (0x2031, 0x1224, False)


def test_the_ticks_begin_with_the_chips_time() -> None:
    machine = booted(None, "mov ah, 0\nint 0x1a\nKEEP results\n")
    machine.platform.rtc.set_time(datetime(2031, 12, 24, 12, 0, 0))
    machine.boot_disk()
    assert machine.run(LIMIT) == WELL
    _, _, ecx, edx, *_ = kept(machine)
    assert (ecx & 0xFFFF) << 16 | edx & 0xFFFF == 0x1800B0 // 2


def test_date_and_time_are_set(engine: str) -> None:
    body = """
    mov ah, 3
    mov cx, 0x2359
    mov dx, 0x5801                  ; with daylight saving
    int 0x1a
    mov ah, 5
    mov cx, 0x1999
    mov dx, 0x1231
    int 0x1a
    mov ah, 0x86                    ; two seconds
    mov cx, 0x1e
    mov dx, 0x8480
    int 0x15
    mov ah, 2
    int 0x1a
    KEEP results
    mov ah, 4
    int 0x1a
    KEEP 0x7e20
"""
    machine = booted(engine, body)
    assert machine.run(5 * CYCLES_PER_SECOND) == WELL
    _, _, ecx, edx, *_ = kept(machine)
    assert (ecx & 0xFFFF, edx & 0xFF) == (0x0000, 1)
    _, _, ecx, edx, *_ = kept(machine, 0x7E20)
    assert (ecx & 0xFFFF, edx & 0xFFFF) == (0x2000, 0x0101)


@pytest.mark.parametrize("microseconds", [0, 1, 1000, 65_536, 250_000])
def test_waiting(engine: str, microseconds: int) -> None:
    """Ticks go on meanwhile, and it takes as long as it should, or up to two periods of the chip longer."""
    body = f"mov ah, 0x86\nmov cx, {microseconds >> 16}\nmov dx, {microseconds & 0xFFFF}\nint 0x15\nKEEP results\n"
    machine = run(engine, body)
    assert not kept(machine)[4]
    took = machine.processor.now / MICROSECOND
    assert microseconds <= took <= microseconds + 3000
    assert ram(machine, 0x46C, 1)[0] == int(machine.processor.now // (65536 * CYCLES_PER_PIT_TICK))
    assert ram(machine, 0x4A0, 1) == b"\0"


def test_waiting_in_the_background(engine: str) -> None:
    body = """
    mov ax, 0x8300
    mov cx, 0
    mov dx, 20000
    mov bx, 0x9000
    int 0x15
    KEEP results
    mov ah, 0x86                    ; not while another one waits
    mov dx, 100
    int 0x15
    KEEP 0x7e20
.work: inc ebx
    test byte ptr [0x9000], 0x80
    jz .work
    KEEP 0x7e40
"""
    machine = run(engine, body)
    assert not kept(machine)[4]
    eax, *_, carry, _ = kept(machine, 0x7E20)
    assert (eax >> 8 & 0xFF, carry) == (0x83, True)
    assert kept(machine, 0x7E40)[1] > 10_000
    assert 20_000 <= machine.processor.now / MICROSECOND <= 23_000


def test_waiting_in_the_background_is_given_up() -> None:
    body = "mov ax, 0x8300\nmov cx, 0\nmov dx, 5000\nmov bx, 0x9000\nint 0x15\nmov ax, 0x8301\nint 0x15\n"
    machine = run(None, body + "mov ah, 0x86\nmov cx, 0\nmov dx, 20000\nint 0x15\nKEEP results\n")
    assert not kept(machine)[4] and ram(machine, 0x9000, 1) == b"\0"


def test_an_alarm(engine: str) -> None:
    body = """
    mov word ptr [0x4a * 4], hook
    mov word ptr [0x4a * 4 + 2], 0
    mov ah, 6
    mov cx, 0x0000
    mov dx, 0x0200
    int 0x1a
    KEEP results
    mov ah, 6
    int 0x1a
    KEEP 0x7e20
.wait: hlt
    cmp byte ptr [0x9000], 0
    je .wait
    mov ah, 7
    int 0x1a
    mov ah, 6
    int 0x1a
    KEEP 0x7e40
    EXIT
hook: inc byte ptr cs:[0x9000]
    iret
"""
    machine = booted(engine, body)
    assert machine.run(3 * CYCLES_PER_SECOND) == WELL
    assert [kept(machine, at)[4] for at in (0x7E00, 0x7E20, 0x7E40)] == [False, True, False]
    assert 2 <= machine.processor.now / CYCLES_PER_SECOND < 2.06


def test_polling_the_ticks_with_interrupts_off(engine: str) -> None:
    fast = "mov al, 0x36\nout 0x43, al\nmov al, 0\nout 0x40, al\nmov al, 1\nout 0x40, al\n"  # 4,661 Hz
    body = (
        fast
        + "cli\nmov ah, 0\nint 0x1a\nmov bx, dx\n.again: mov ah, 0\nint 0x1a\ncmp bx, dx\nje .again\nKEEP results\n"
    )
    machine = run(engine, body)
    assert kept(machine)[3] & 0xFFFF == 1
