"""The machine's loop: interrupts at the right moment, HLT, time, the ways to end, and what goes wrong."""

from __future__ import annotations

import hashlib
import signal
import threading
from pathlib import Path

import pytest

from hvproto.errors import Fault, ImageError, LimitReached, MachineError, NoMemory, TripleFault, World
from hvproto.images.assembly import assemble_text
from hvproto.images.load import load_image
from hvproto.machine.clock import CYCLES_PER_PIT_TICK, CYCLES_PER_SECOND
from hvproto.machine.machine import Machine
from hvproto.processor.processor import Stop
from tests.support.kernels import RAM, TICK, booted, kernel, word

GUESTS = Path(__file__).parents[2] / "guests"
EXIT = "mov eax, 0\nout 0xf4, al\njmp $\n"


# -- interrupts ------------------------------------------------------------------------------


def test_the_timer_preempts_a_loop_of_one_instruction(engine: str) -> None:
    machine = booted(
        engine,
        """
        GATE 0x20, enough, 0x8e00
        SET_TIMER 100
        sti
here:   jmp here
enough: inc dword ptr [ticks]
        EOI
        mov eax, [esp]
        mov [seen], eax
        cmp dword ptr [ticks], 5
        je done
        iretd
done:   mov al, 1
        out 0xf4, al
""",
    )
    assert machine.run(10_000_000) == 3
    assert word(machine, "ticks") == 5
    assert word(machine, "seen") == machine.images[World.GUEST].symbols["here"]
    # Five periods of 100 input clocks, and what came before and after: twenty accesses to ports.
    assert 500 <= machine.processor.now / CYCLES_PER_PIT_TICK <= 530


def test_no_tick_is_lost(engine: str) -> None:
    machine = booted(
        engine,
        f"""
        GATE 0x20, tick, 0x8e00
        SET_TIMER 12
again:  sti
        mov ecx, 20
spin:   loop spin
        cli
        mov ecx, 30
spin2:  loop spin2
        cmp dword ptr [ticks], 200
        jb again
        {EXIT}
        {TICK}
""",
    )
    assert machine.run(100_000_000) == 1
    assert word(machine, "ticks") == machine.board.pit.raised == 200


def test_hlt_jumps_to_the_next_event(engine: str) -> None:
    machine = booted(
        engine,
        f"""
        GATE 0x20, tick, 0x8e00
        SET_TIMER 0
again:  sti
        hlt
        cmp dword ptr [ticks], 18
        jb again
        {EXIT}
        {TICK}
""",
    )
    assert machine.run() == 1
    assert word(machine, "ticks") == 18
    # The slowest rate is 18.2 Hz: nearly a second has passed, and hardly any code was executed.
    assert 0.98 < machine.processor.now / CYCLES_PER_SECOND < 1.0


@pytest.mark.parametrize(
    "opening",
    [
        "sti\nhlt\nbehind: nop",
        "sti\nnop\nbehind: cli",
        "sti\nmov ebx, 5\nbehind: cli",
        "push behind\nsti\nret\nbehind: cli",
        "push 0x202\npopfd\nbehind: cli",
        "push 0x202\npush 8\npush behind\niretd\nbehind: cli",
        "sti\npush ss\nbehind: pop ss\ncli",
    ],
)
@pytest.mark.parametrize("filler", ["", "nop\n" * 7, "jmp a\na: jmp b\nb: nop\n"])
def test_a_pending_interrupt_is_taken_where_the_window_opens(engine: str, opening: str, filler: str) -> None:
    """However short the window is, and however long the interrupt has been waiting for it."""
    machine = booted(
        engine,
        f"""
        GATE 0x20, taken, 0x8e00
        SET_TIMER 50
        mov ecx, {60 * CYCLES_PER_PIT_TICK // 2}  ; the interrupt comes after 51 input clocks, we go on after 60
wait:   loop wait
        {filler}
        {opening}
        mov ecx, 100
wait2:  loop wait2
        mov al, 1
        out 0xf4, al
        jmp $
taken:  mov eax, [esp]
        mov [seen], eax
        {EXIT}
""",
    )
    assert machine.run(10_000_000) == 1, "the interrupt was missed"
    assert word(machine, "seen") == machine.images[World.GUEST].symbols["behind"]


def test_a_window_that_never_opens_lets_nothing_in(engine: str) -> None:
    for body in ("sti\ncli", f"mov ecx, {20 * CYCLES_PER_PIT_TICK}\nq: loop q", "push 2\npopfd"):
        machine = booted(
            engine, f"GATE 0x20, taken, 0x8e00\nSET_TIMER 20\n{body}\n{EXIT}\ntaken: mov al, 1\nout 0xf4, al"
        )
        assert machine.run(10_000_000) == 1


def test_waiting_for_the_window_costs_the_same_time_on_both_engines(both_engines: tuple[str, str]) -> None:
    body = f"""
        GATE 0x20, tick, 0x8e00
        SET_TIMER 8
again:  cli
        mov ecx, 500
wait:   loop wait
        sti
        nop
        cli
        mov ecx, 77
wait2:  loop wait2
        push 0x202
        popfd
        cmp dword ptr [ticks], 100
        jb again
        {EXIT}
        {TICK}
"""
    results = []
    for name in both_engines:
        machine = booted(name, body)
        status = machine.run(100_000_000)
        results.append(
            (status, machine.processor.now, machine.board.pit.raised, hashlib.sha256(machine.ram.view).digest())
        )
    assert results[0] == results[1]
    assert results[0][0] == 1


def test_nested_interrupts_come_in_the_order_of_their_priority(engine: str) -> None:
    """The disk (line 14) waits until the timer's handler has ended; the timer interrupts the disk's handler."""
    machine = booted(
        engine,
        f"""
        GATE 0x20, tick, 0x8e00
        GATE 0x2e, disk, 0x8e00
        mov al, 0xfa
        out 0x21, al
        mov al, 0xbf
        out 0xa1, al
        mov dx, 0x1f6
        mov al, 0xe0
        out dx, al
        mov dx, 0x1f7
        mov al, 0xec                ; IDENTIFY DEVICE
        out dx, al
        SET_TIMER 50
        mov ecx, {60 * CYCLES_PER_PIT_TICK // 2}  ; 60 input clocks, at two bytes a turn
wait:   loop wait
        sti
        nop
        jmp $
disk:   PUTC 'd'
        sti
        mov ecx, {100 * CYCLES_PER_PIT_TICK // 2}
wait2:  loop wait2
        cli
        PUTC 'D'
        {EXIT}
tick:   PUTC 't'
        EOI
        iretd
""",
    )
    assert machine.run(10_000_000) == 1
    assert machine.debug_output.startswith(b"tdt")
    assert machine.debug_output.endswith(b"D")


def test_the_interrupts_of_a_program_in_ring_3(engine: str) -> None:
    machine = booted(
        engine,
        """
        mov eax, tss
        mov word ptr [gdt_tss], 0x67
        mov word ptr [gdt_tss + 2], ax
        shr eax, 16
        mov byte ptr [gdt_tss + 4], al
        mov byte ptr [gdt_tss + 5], 0x89
        mov byte ptr [gdt_tss + 7], ah
        mov eax, 0x28
        ltr ax
        GATE 0x20, taken, 0x8e00
        SET_TIMER 100
        push 0x23
        push 0x80000
        push 0x202
        push 0x1b
        push program
        iretd
program: inc ebx
        jmp program
taken:  mov eax, [esp + 4]
        mov [seen], eax
        EOI
        inc dword ptr [ticks]
        cmp dword ptr [ticks], 10
        je done
        iretd
done:   mov eax, [esp + 12]
        mov [ticks], eax
        mov al, 2
        out 0xf4, al
.align 4
tss:    .long 0, 0x88000, 0x10
        .space 0x5c
""",
    )
    assert machine.run(10_000_000) == 5
    assert (word(machine, "seen"), word(machine, "ticks")) == (0x1B, 0x80000)


# -- ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "status"), [(0, 1), (1, 3), (3, 7), (16, 33), (0x7F, 0xFF), (0x80, 1), (0xFF, 0xFF)])
def test_the_exit_port_gives_the_status(engine: str, value: int, status: int) -> None:
    machine = booted(engine, f"mov eax, {value}\nout 0xf4, eax\nPUTC 'x'\nhere: jmp here")
    assert machine.run(1_000_000) == status
    assert machine.exit_value == value
    # The block of the OUT goes on to its end, but nothing of that is seen.
    assert machine.debug_output == b""
    assert machine.processor.eip == machine.images[World.GUEST].symbols["here"]


@pytest.mark.parametrize("behind", ["ud2", "mov eax, [0xd0000000]", "out 0xf4, al", "cli\nhlt"])
def test_nothing_behind_the_exit_counts(engine: str, behind: str) -> None:
    machine = booted(engine, f"lidt [ticks]\nmov eax, 5\nout 0xf4, al\nmov al, 6\n{behind}")
    assert machine.run(1_000_000) == 11


@pytest.mark.parametrize("body", ["cli\nhlt", "hlt", "sti\nhlt"])
def test_a_halt_that_nothing_can_end_is_a_clean_end(engine: str, body: str) -> None:
    machine = booted(engine, f"{body}\nPUTC '!'\nhlt")
    assert machine.run() == 0
    assert machine.debug_output == b""


@pytest.mark.parametrize("body", ["mov al, 0xff\nout 0x21, al", "GATE 0x20, stuck, 0x8e00"])
def test_a_halt_with_a_timer_that_cant_interrupt_is_an_end_too(engine: str, body: str) -> None:
    """The timer is masked, or its first interrupt still in service."""
    machine = booted(engine, f"{body}\nSET_TIMER 50\nsti\nhlt\nhlt\nstuck: sti\nhlt\njmp stuck")
    assert machine.run() == 0
    assert machine.run() == 0


def test_a_limit(engine: str) -> None:
    machine = booted(engine, "here: jmp here")
    with pytest.raises(LimitReached) as caught:
        machine.run(10_000)
    error = caught.value
    assert (error.limit, error.where.world, error.where.symbol) == (10_000, World.GUEST, "here")
    assert "10,000 cycles" in str(error) and "here" in str(error)
    assert 10_000 <= machine.processor.now <= 10_002
    # With a larger one it goes on from there.
    with pytest.raises(LimitReached):
        machine.run(20_000)
    assert 20_000 <= machine.processor.now <= 20_002


def test_a_limit_that_falls_into_a_halt(engine: str) -> None:
    machine = booted(engine, f"GATE 0x20, tick, 0x8e00\nSET_TIMER 0\nagain: sti\nhlt\njmp again\n{TICK}")
    period = 65536 * CYCLES_PER_PIT_TICK
    with pytest.raises(LimitReached):
        machine.run(period // 6)
    assert machine.processor.now == period // 6
    limit = 4 * period + period // 2
    with pytest.raises(LimitReached):
        machine.run(limit)
    assert word(machine, "ticks") == 4
    assert machine.processor.now == limit


def test_the_kernel_after_an_end_can_be_another_one(engine: str) -> None:
    machine = booted(engine, "PUTC 'a'\nhlt")
    assert machine.run() == 0
    machine.load(kernel("PUTC 'b'\nhlt"))
    assert machine.run() == 0
    assert machine.debug_output == b"ab"


# -- failures --------------------------------------------------------------------------------


def test_a_triple_fault_says_where_and_why(engine: str) -> None:
    machine = Machine(RAM, engine=engine, world=World.HOST)
    machine.load(assemble_text("start: xor ecx, ecx\nnop\nculprit: div ecx"))
    with pytest.raises(TripleFault) as caught:
        machine.run(1000)
    error = caught.value
    # Without LIDT, IDTR is empty.
    assert error.faults == (Fault(0), Fault(13, 3), Fault(13, 8 * 8 + 3))
    assert (error.where.world, error.where.eip, error.where.symbol) == (World.HOST, 0x100003, "culprit")
    for part in ("host", "0x00100003", "culprit", "#DE", "#DF", "#GP (error code 0x3)", "0x43"):
        assert part in str(error)


def test_a_triple_fault_by_an_interrupt_from_outside(engine: str) -> None:
    machine = booted(engine, "SET_TIMER 50\nsti\nhere: jmp here")
    with pytest.raises(TripleFault) as caught:
        machine.run(1_000_000)
    assert [fault.vector for fault in caught.value.faults] == [13, 13, 13]
    assert caught.value.faults[0].error_code == 0x20 * 8 + 3
    assert caught.value.where.symbol == "here"


def test_code_where_there_is_no_memory(engine: str) -> None:
    machine = booted(engine, "mov eax, 0xd0000000\njmp eax")
    with pytest.raises(NoMemory) as caught:
        machine.run(1_000_000)
    error = caught.value
    assert (error.access, error.physical) == ("instruction fetch", 0xD000_0000)
    assert error.where.eip == 0xD000_0000 and error.where.symbol is None
    assert "0xd0000000" in str(error) and "guest" in str(error)


def test_a_frame_pushed_to_where_no_memory_is_goes_nowhere(engine: str) -> None:
    body = "GATE 0x20, tick, 0x8e00\nSET_TIMER 50\nmov esp, 0xe0000000\nsti\nhere: jmp here\n"
    machine = booted(
        engine, body + "tick: pop eax\nmov [0x150000], eax\nmov [0x150004], esp\nmov al, 3\nout 0xf4, al\nhlt"
    )
    assert machine.run(1_000_000) == 7
    view = machine.ram.view
    assert list(view[0x150000:0x150008].cast("I")) == [0xFFFF_FFFF, 0xDFFF_FFF8]
    assert [(one.direction, one.address) for one in machine.unclaimed if one.direction == "write"] == [
        ("write", 0xDFFF_F000)
    ]


def test_an_image_larger_than_ram(engine: str) -> None:
    with pytest.raises(ImageError, match="RAM ends at"):
        Machine(RAM, engine=engine).load(assemble_text(".origin 0x300000\nstart: hlt"))


@pytest.mark.parametrize("size", [0, 4096, (1 << 20) + 1, 1 << 40])
def test_an_absurd_size_of_ram(engine: str, size: int) -> None:
    with pytest.raises(MachineError, match="MiB"):
        Machine(size, engine=engine)


def test_what_a_listener_raises_comes_out(engine: str) -> None:
    def fail(_byte: int) -> None:
        raise ZeroDivisionError

    machine = booted(engine, "PUTC 'a'\njmp n\nn: PUTC 'b'\njmp h\nh: hlt", on_debug=fail)
    with pytest.raises(ZeroDivisionError):
        machine.run()
    with pytest.raises(ZeroDivisionError):
        machine.run()
    assert machine.run() == 0
    assert machine.debug_output == b"ab"


# -- output ----------------------------------------------------------------------------------


def test_output(engine: str) -> None:
    serial: list[int] = []
    debug: list[int] = []
    machine = booted(
        engine,
        """
        mov esi, text
next:   lodsb
        test al, al
        jz done
        mov ah, al
        mov dx, 0x3fd
poll:   in al, dx
        test al, 0x20
        jz poll
        mov dx, 0x3f8
        mov al, ah
        out dx, al
        jmp next
done:   PUTC 'd'
        in al, 0xe9
        out 0xe9, al
        hlt
text:   .asciz "hello, serial\\n"
""",
        on_serial=serial.append,
        on_debug=debug.append,
    )
    assert machine.run() == 0
    assert machine.serial_output == b"hello, serial\n" == bytes(serial)
    assert machine.debug_output == b"d\xe9" == bytes(debug)


# -- determinism -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spin", "guest", "selfmap"])
def test_two_runs_are_identical(engine: str, name: str) -> None:
    results = []
    for _ in range(2):
        machine = Machine(16 << 20, engine=engine)
        machine.load(load_image(GUESTS / f"{name}.asm"))
        status = machine.run(200_000_000)
        results.append(
            (status, machine.processor.now, machine.processor.registers(), bytes(machine.serial_output),
             machine.board.pit.raised, hashlib.sha256(machine.ram.view).hexdigest())
        )  # fmt: skip
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ["spin", "guest", "selfmap", "hello", "ptwrites"])
def test_the_engines_agree_on_whole_kernels(both_engines: tuple[str, str], name: str) -> None:
    results = []
    for engine in both_engines:
        machine = Machine(16 << 20, engine=engine)
        machine.load(load_image(GUESTS / f"{name}.asm"))
        status = machine.run(200_000_000)
        results.append(
            (status, machine.processor.now, machine.processor.registers(), bytes(machine.serial_output),
             machine.board.pit.raised, hashlib.sha256(machine.ram.view).hexdigest())
        )  # fmt: skip
    assert results[0] == results[1]


def test_running_in_slices_changes_nothing(engine: str) -> None:
    """A slice more or less, anywhere, can't be seen from inside the machine."""
    body = f"""
        GATE 0x20, tick, 0x8e00
        SET_TIMER 10
        sti
again:  mov ecx, 10
spin:   loop spin
        cmp dword ptr [ticks], 20
        jb again
        {EXIT}
        {TICK}
"""
    whole = booted(engine, body)
    assert whole.run(10_000_000) == 1
    sliced = booted(engine, body)
    while sliced.exit_value is None:
        stop = sliced.slice(sliced.processor.now + 13)
        assert stop is Stop.DEADLINE
    assert sliced.processor.now == whole.processor.now
    assert bytes(sliced.ram.view) == bytes(whole.ram.view)


# -- Ctrl-C ----------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to one thread")
@pytest.mark.parametrize("body", ["here: jmp here", "here: in al, 0x60\nout 0x80, al\njmp here"])
def test_ctrl_c_ends_any_loop(engine: str, body: str) -> None:
    for _ in range(3):
        machine = booted(engine, body)
        main = threading.get_ident()
        key = threading.Timer(0.2, lambda thread=main: signal.pthread_kill(thread, signal.SIGINT))
        key.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                machine.run()
        finally:
            key.join()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        # It can go on afterwards.
        with pytest.raises(LimitReached):
            machine.run(machine.processor.now + 1000)
