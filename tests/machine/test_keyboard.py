"""The keyboard controller with its keyboard, at the ports and in a kernel."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.errors import MachineError
from hvproto.machine.a20 import A20Gate
from hvproto.machine.clock import Clock
from hvproto.machine.keyboard import CODE_CYCLES, REMINDER_CYCLES, KeyboardController
from hvproto.machine.ports import PortBus
from hvproto.machine.us_keys import SET_1_OF_SET_2, SET_2_OF_SET_1, keys_for
from tests.support.kernels import booted

UPPER_ARROW = 0xE048


class Bench:
    def __init__(self) -> None:
        self.cycle = 0
        self.irq = self.aux_irq = False
        self.edges = 0
        self.resets = 0
        self.gates: list[bool] = []
        self.clock = Clock(lambda: self.cycle)
        self.controller = KeyboardController(
            self.clock, self._set_irq, A20Gate(self.gates.append), self._reset, self._set_aux_irq
        )
        self.bus = PortBus()
        self.bus.attach(self.controller, self.controller.ports)

    def _set_irq(self, level: bool) -> None:
        self.edges += level and not self.irq
        self.irq = level

    def _set_aux_irq(self, level: bool) -> None:
        self.aux_irq = level

    def _reset(self) -> None:
        self.resets += 1

    def run(self, cycles: int) -> None:
        end = self.cycle + cycles
        while (when := self.clock.next_event()) is not None and when <= end:
            self.cycle = max(self.cycle, when)
            self.clock.run_due()
        self.cycle = end

    @property
    def status(self) -> int:
        return self.bus.read(0x64, 1)

    def command(self, value: int, *arguments: int) -> None:
        self.bus.write(0x64, 1, value)
        for argument in arguments:
            self.bus.write(0x60, 1, argument)

    def send(self, value: int) -> list[int]:
        """A byte to the keyboard, and all its answers."""
        self.bus.write(0x60, 1, value)
        return self.read_ready()

    def read_ready(self) -> list[int]:
        """All that can be read now."""
        got = []
        while self.status & 1:
            got.append(self.bus.read(0x60, 1))
        return got

    def read_all(self, limit: int = 1000) -> list[int]:
        """All that comes with time."""
        got = []
        for _ in range(limit):
            got += self.read_ready()
            self.run(CODE_CYCLES)
        return got + self.read_ready()


# -- the controller --------------------------------------------------------------------------


def test_at_the_beginning() -> None:
    bench = Bench()
    assert bench.status == 0x14
    assert (bench.irq, bench.clock.next_event()) == (False, None)
    bench.command(0x20)
    assert bench.read_ready() == [0x65]


@pytest.mark.parametrize(
    ("command", "answer"), [(0xAA, 0x55), (0xAB, 0x00), (0xA9, 0x00), (0xC0, 0xB0), (0xA4, 0xF1), (0xD0, 0xC3)]
)
def test_commands_with_an_answer(command: int, answer: int) -> None:
    bench = Bench()
    bench.command(command)
    assert bench.irq
    assert bench.status == 0x1D  # the last byte written was a command
    assert bench.bus.read(0x60, 1) == answer
    assert (bench.irq, bench.status & 1) == (False, 0)
    assert bench.bus.read(0x60, 1) == answer  # an empty buffer keeps its last byte


def test_the_command_byte_and_the_memory() -> None:
    bench = Bench()
    bench.command(0x60, 0x30)
    assert bench.status == 0x10  # the system flag is a bit of it
    bench.command(0x20)
    assert bench.read_ready() == [0x30]
    assert bench.edges == 0  # the interrupt is off
    bench.command(0x7F, 0xA5)
    bench.command(0x3F)
    assert bench.read_ready() == [0xA5]
    for command, byte in ((0xAE, 0x20), (0xA8, 0x00), (0xAD, 0x10), (0xA7, 0x30)):
        bench.command(command)
        bench.command(0x20)
        assert bench.read_ready() == [byte]


def test_enabling_the_interrupt_while_a_byte_waits() -> None:
    bench = Bench()
    bench.command(0x60, 0x44)
    bench.controller.press(0x1E)
    assert bench.status & 1
    assert not bench.irq
    bench.command(0x60, 0x45)
    assert bench.irq


def test_output_port_and_resets() -> None:
    bench = Bench()
    bench.command(0xD1, 0xDD)
    bench.command(0xD0)
    assert bench.read_ready() == [0xC1]
    bench.command(0xD1, 0xDF)
    assert bench.gates == [False, True]
    assert bench.resets == 0
    bench.command(0xFE)
    assert bench.resets == 1
    bench.command(0xFF)
    assert bench.resets == 1
    bench.command(0xF0)
    bench.command(0xD1, 0x02)
    assert bench.resets == 3


def test_writing_the_output_buffer() -> None:
    bench = Bench()
    bench.command(0xD2, 0x76)  # not translated
    assert bench.read_ready() == [0x76]


def test_no_mouse() -> None:
    bench = Bench()
    bench.command(0x60, 0x47)
    bench.command(0xD4, 0xFF)
    assert bench.status & 0x61 == 0x61
    assert (bench.aux_irq, bench.irq) == (True, False)
    assert bench.bus.read(0x60, 1) == 0xFE
    assert (bench.aux_irq, bench.status & 0x61) == (False, 0)
    bench.command(0xD3, 0x42)
    assert bench.status & 0x61 == 0x21
    bench.command(0xD0)
    assert bench.read_ready() == [0x42, 0xE3]


# -- the keyboard ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "answers"),
    [
        (0xFF, [0xFA, 0xAA]),
        (0xF2, [0xFA, 0xAB, 0x41]),  # 0x83, translated
        (0xEE, [0xEE]),
        (0xF4, [0xFA]),
        (0xF5, [0xFA]),
        (0xF6, [0xFA]),
        (0x05, [0xFE]),
    ],
)
def test_keyboard_commands(command: int, answers: list[int]) -> None:
    bench = Bench()
    assert bench.send(command) == answers
    assert bench.edges == len(answers)
    assert bench.status == 0x14


def test_without_translation() -> None:
    bench = Bench()
    bench.command(0x60, 0x05)
    assert bench.send(0xF2) == [0xFA, 0xAB, 0x83]
    bench.controller.tap(0x1E)
    bench.controller.tap(UPPER_ARROW)
    assert bench.read_all(10) == [0x1C, 0xF0, 0x1C, 0xE0, 0x75, 0xE0, 0xF0, 0x75]


def test_commands_with_an_argument() -> None:
    bench = Bench()
    assert bench.send(0xED) == [0xFA]
    assert bench.send(0x05) == [0xFA]
    assert bench.controller.keyboard.leds == 5
    assert bench.send(0xF3) == [0xFA]
    assert bench.send(0x7F) == [0xFA]
    assert bench.send(0xED) == [0xFA]
    assert bench.send(0xFF) == [0xFA, 0xAA]  # no argument: the next command
    assert bench.controller.keyboard.leds == 0


def test_scan_code_sets() -> None:
    bench = Bench()
    bench.command(0x60, 0x05)
    assert bench.send(0xF0) + bench.send(0) == [0xFA, 0xFA, 2]
    assert bench.send(0xF0) + bench.send(1) == [0xFA, 0xFA]
    assert bench.send(0xF0) + bench.send(0) == [0xFA, 0xFA, 1]
    bench.controller.tap(UPPER_ARROW)
    assert bench.read_all(5) == [0xE0, 0x48, 0xE0, 0xC8]
    assert bench.send(0xF0) + bench.send(3) == [0xFA, 0xFE]
    bench.command(0x60, 0x45)
    assert bench.send(0xFF) == [0xFA, 0xAA]
    assert bench.send(0xF0) + bench.send(0) == [0xFA, 0xFA, 0x41]  # how drivers know of the translation


@pytest.mark.parametrize("command", [0xF7, 0xF8, 0xF9, 0xFA])
def test_commands_about_set_3_are_acknowledged(command: int) -> None:
    assert Bench().send(command) == [0xFA]


@pytest.mark.parametrize(("command", "left"), [(0xF4, 1), (0xF5, 2), (0xF6, 2), (0xFF, 2)])
def test_which_commands_restore_the_defaults(command: int, left: int) -> None:
    bench = Bench()
    bench.command(0x60, 0x05)
    bench.send(0xF0)
    bench.send(1)
    bench.send(command)
    assert bench.controller.keyboard.scan_code_set == left


def test_resend() -> None:
    bench = Bench()
    assert bench.send(0xEE) == [0xEE]
    assert bench.send(0xFE) == [0xEE]


def test_the_tables() -> None:
    assert sorted(SET_2_OF_SET_1) == list(range(1, 0x80))
    assert len(set(SET_2_OF_SET_1.values())) == 127
    assert set(SET_1_OF_SET_2) == {*range(0x80), 0x83, 0x84}
    # Escape, A, Enter, F7, F11, and the menu key behind 0xe0.
    assert [SET_2_OF_SET_1[code] for code in (0x01, 0x1E, 0x1C, 0x41, 0x57, 0x5D)] == [
        0x76,
        0x1C,
        0x5A,
        0x83,
        0x78,
        0x2F,
    ]


# -- keys ------------------------------------------------------------------------------------


@given(st.integers(1, 0x7F), st.booleans())
def test_every_key_arrives_as_its_code_of_set_1(code: int, extended: bool) -> None:
    bench = Bench()
    bench.controller.tap(code | (0xE000 if extended else 0))
    prefix = [0xE0] if extended else []
    assert bench.read_all(6) == [*prefix, code, *prefix, code | 0x80]


@pytest.mark.parametrize("key", [0, 0x80, 0x9E, 0xE000, 0xE0C8, 0xE11D, -1])
def test_what_is_no_key(key: int) -> None:
    with pytest.raises(MachineError, match="make code"):
        Bench().controller.press(key)


def test_keys_come_one_at_a_time() -> None:
    bench = Bench()
    bench.controller.type("ab")
    assert bench.irq
    bench.run(10 * CODE_CYCLES)
    assert bench.edges == 1  # it waits for the guest
    assert bench.bus.read(0x60, 1) == 0x1E
    assert not bench.irq
    bench.run(CODE_CYCLES - 1)
    assert (bench.edges, bench.status & 1) == (1, 0)
    bench.run(1)
    assert (bench.edges, bench.status & 1) == (2, 1)
    assert bench.read_all(5) == [0x9E, 0x30, 0xB0]
    assert bench.edges == 4
    assert bench.controller.keyboard.waiting_keys == 0


def test_the_guest_is_reminded_of_a_key() -> None:
    bench = Bench()
    bench.controller.type("a")
    bench.run(3 * REMINDER_CYCLES)
    assert (bench.edges, bench.irq) == (4, True)
    bench.command(0x60, 0x44)
    assert bench.clock.next_event() is None
    bench.command(0x60, 0x45)
    bench.run(CODE_CYCLES)
    assert bench.read_all(3) == [0x1E, 0x9E]


def test_a_code_is_there_for_polling_before_its_event_has_run() -> None:
    bench = Bench()
    bench.controller.type("a")
    bench.bus.read(0x60, 1)
    bench.cycle += CODE_CYCLES
    assert bench.status & 1


def test_what_is_typed_ahead_outlives_the_initialization() -> None:
    bench = Bench()
    bench.controller.type("hi")
    assert bench.irq
    bench.command(0xAD)
    bench.command(0xAA)
    assert bench.read_ready() == [0x55]
    bench.run(100 * CODE_CYCLES)
    assert (bench.status & 1, bench.clock.next_event()) == (0, None)
    bench.command(0x60, 0x45)
    bench.command(0x20)
    assert bench.read_ready() == [0x45]
    assert bench.send(0xFF) == [0xFA, 0xAA]
    assert bench.send(0xF5) == [0xFA]
    bench.run(100 * CODE_CYCLES)
    assert bench.read_ready() == []
    assert bench.send(0xF4) == [0xFA]
    assert bench.read_all(5) == [0x23, 0xA3, 0x17, 0x97]


def test_a_handler_may_close_the_interface_before_it_reads() -> None:
    bench = Bench()
    bench.controller.type("h")
    bench.command(0xAD)
    assert bench.bus.read(0x60, 1) == 0x23
    bench.command(0xAE)
    assert bench.read_all(2) == [0xA3]


def test_an_answer_goes_before_the_keys() -> None:
    bench = Bench()
    bench.controller.tap(UPPER_ARROW)
    assert bench.bus.read(0x60, 1) == 0xE0
    assert bench.send(0xEE) == [0xEE]
    bench.run(CODE_CYCLES)
    assert bench.irq  # the next code has come already, but the answer is what the program waits for
    assert bench.send(0xEE)[0] == 0xEE
    assert bench.read_all(5) == [0x48, 0xE0, 0xC8]


def test_a_reset_amid_a_key_sends_it_again() -> None:
    bench = Bench()
    bench.controller.tap(UPPER_ARROW)
    assert bench.bus.read(0x60, 1) == 0xE0
    assert bench.send(0xFF) == [0xFA, 0xAA]
    assert bench.read_all(6) == [0xE0, 0x48, 0xE0, 0xC8]


# -- typing ----------------------------------------------------------------------------------


def typed(codes: list[int]) -> str:
    """What a driver makes of scan codes, by a table of its own."""
    plain = dict(zip(range(2, 14), "1234567890-=", strict=True)) | dict(zip(range(16, 28), "qwertyuiop[]", strict=True))
    plain |= dict(zip(range(30, 42), "asdfghjkl;'`", strict=True)) | dict(
        zip(range(43, 54), "\\zxcvbnm,./", strict=True)
    )
    plain |= {1: "\x1b", 14: "\b", 15: "\t", 28: "\n", 57: " "}
    upper = dict(zip("1234567890-=[];'`\\,./", '!@#$%^&*()_+{}:"~|<>?', strict=True))
    text, shift, control = "", False, False
    for code in codes:
        if code & 0x7F == 0x2A:
            shift = code < 0x80
        elif code & 0x7F == 0x1D:
            control = code < 0x80
        elif code < 0x80:
            character = plain[code]
            if shift:
                character = upper.get(character, character.upper())
            text += chr(ord(character) & 0x1F) if control else character
    assert not shift and not control
    return text


@given(st.text(string.ascii_letters + string.digits + string.punctuation + " \n\t\b\x1b\x03\x04", max_size=30))
def test_typing(text: str) -> None:
    bench = Bench()
    bench.controller.type(text)
    assert typed(bench.read_all(4 * len(text) + 1)) == text


def test_what_cant_be_typed() -> None:
    bench = Bench()
    with pytest.raises(MachineError, match="'é'"):
        bench.controller.type("café")
    assert bench.read_all(3) == []
    assert keys_for("\x7f") == (0x0E,)


def test_a_combination() -> None:
    bench = Bench()
    bench.controller.tap(0x1D, 0x38, 0xE053)  # Ctrl-Alt-Del
    assert bench.read_all(10) == [0x1D, 0x38, 0xE0, 0x53, 0xE0, 0xD3, 0xB8, 0x9D]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([(0x60, True), (0x60, False), (0x64, True), (0x64, False), None]),
            st.integers(0, 255),
            st.integers(0, 2 * CODE_CYCLES),
        ),
        max_size=60,
    )
)
def test_no_sequence_of_accesses_breaks_it(accesses: list[tuple[tuple[int, bool] | None, int, int]]) -> None:
    bench = Bench()
    for access, value, cycles in accesses:
        if access is None:
            bench.controller.type(chr(32 + value % 90))
        elif access[1]:
            assert 0 <= bench.bus.read(access[0], 1) <= 255
        else:
            bench.bus.write(access[0], 1, value)
        next_event = bench.clock.next_event()
        assert next_event is None or next_event > bench.cycle
        bench.run(cycles)


# -- in a kernel -----------------------------------------------------------------------------


def test_a_kernel_reads_keys_by_interrupt(engine: str) -> None:
    machine = booted(
        engine,
        """
        GATE 0x21, key, 0x8e00
        mov al, 0xfd
        out 0x21, al
again:  sti
        hlt
        cmp byte ptr [seen], 0x9c   ; Enter has been released
        jne again
        mov al, 0
        out 0xf4, al
        jmp $
key:    push eax
        in al, 0x60
        mov [seen], al
        out 0xe9, al
        mov al, 0x20
        out 0x20, al
        pop eax
        iretd
""",
    )
    machine.type("Echo 1!\n")
    assert machine.run() == 1
    assert typed(list(machine.debug_output)) == "Echo 1!\n"
    assert machine.processor.now >= (len(machine.debug_output) - 1) * CODE_CYCLES


def test_a_kernel_initializes_and_polls(engine: str) -> None:
    machine = booted(
        engine,
        """
        mov al, 0xad
        out 0x64, al
        in al, 0x60
        mov al, 0xaa
        call command
        call get                    ; 0x55
        mov al, 0x60
        call command
        mov al, 0x44
        out 0x60, al
        mov al, 0xae
        call command
        mov al, 0xff
        out 0x60, al
        call get                    ; 0xfa
        call get                    ; 0xaa
        mov al, 0xf4
        out 0x60, al
        call get                    ; 0xfa
        mov ecx, 3
keys:   call get
        loop keys
        mov al, 0xfe
        call command
        cli
        hlt
command: out 0x64, al
wait:   in al, 0x64
        test al, 2
        jnz wait
        ret
get:    in al, 0x64
        test al, 1
        jz get
        in al, 0x60
        out 0xe9, al
        ret
""",
    )
    machine.type("ab")  # before anything runs
    assert machine.run(100_000_000) == 0
    # The program has thrown one code away; the next one has waited for the answers.
    assert machine.debug_output == bytes((0x55, 0xFA, 0xAA, 0xFA, 0x9E, 0x30, 0xB0))
