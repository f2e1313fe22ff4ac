"""The keyboard controller of a PC, i8042, at ports 0x60 and 0x64, with a PS/2 keyboard at its first port.

Sources: IBM PC AT Technical Reference (no. 1502243, section 1, keyboard controller); for the second port and the
commands from 0xa4 on, IBM PS/2 Hardware Interface Technical Reference, Keyboard and Auxiliary Device Controller, 1990.
The second port is there and passes its test, but no mouse is connected to it. Answers to commands come at once; the
codes of keys take a millisecond each, as they do on the wire.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hvproto.machine.a20 import A20Gate
from hvproto.machine.clock import CYCLES_PER_SECOND, Clock, Event
from hvproto.machine.pic import IrqLine
from hvproto.machine.ps2_keyboard import Ps2Keyboard
from hvproto.machine.us_keys import SET_1_OF_SET_2, keys_for

DATA_PORT, COMMAND_PORT = 0x60, 0x64
CODE_CYCLES = CYCLES_PER_SECOND // 1000
"""At least so long after the guest has taken a byte, the next byte of a key is there."""
REMINDER_CYCLES = 20 * CODE_CYCLES
"""How often the interrupt is raised anew for a key that the guest doesn't fetch."""

# Status.
_FULL, _SYSTEM, _COMMAND, _UNLOCKED, _FROM_AUX, _TIMED_OUT = 0x01, 0x04, 0x08, 0x10, 0x20, 0x40
# The command byte.
_INTERRUPT, _AUX_INTERRUPT, _SYSTEM_FLAG, _DISABLE, _DISABLE_AUX, _TRANSLATE = 0x01, 0x02, 0x04, 0x10, 0x20, 0x40
_BIOS_LEAVES = _INTERRUPT | _SYSTEM_FLAG | _DISABLE_AUX | _TRANSLATE
# The output port; a low bit 0 resets the processor.
_NO_RESET, _A20, _OUTPUT_IRQ, _OUTPUT_AUX_IRQ, _OUTPUT_LINES = 0x01, 0x02, 0x10, 0x20, 0xC0
_INPUT_PORT = 0xB0  # not locked, colour display, no manufacturing jumper
_TEST_PASSED, _LINE_GOOD, _NO_PASSWORD, _NO_ANSWER = 0x55, 0x00, 0xF1, 0xFE
_RELEASE = 0xF0  # in scan code set 2


class KeyboardController:
    """The controller; it begins in the state in which a BIOS leaves it: translating, with its interrupt enabled.

    ``line`` is interrupt line 1 and ``aux_line`` line 12 (there, only answers of the controller itself may come).
    ``on_reset`` is called when the guest resets the processor. ``press``, ``release``, ``tap`` and ``type`` are the
    user's; after them, the owner of the clock has to look at its agenda anew.
    """

    ports = (DATA_PORT, COMMAND_PORT)

    def __init__(
        self, clock: Clock, line: IrqLine, gate: A20Gate, on_reset: Callable[[], None], aux_line: IrqLine | None = None
    ) -> None:
        self.keyboard = Ps2Keyboard()
        self._clock = clock
        self._line = line
        self._aux_line = aux_line
        self._gate = gate
        self._on_reset = on_reset
        self._memory = bytearray(32)  # its first byte is the command byte
        self._memory[0] = _BIOS_LEAVES
        self._answers: deque[tuple[int, int]] = deque()  # the controller's own: byte, status bits
        self._output = 0  # the output buffer ...
        self._status = 0  # ... and the status bits that belong to it, with _FULL while it is full
        self._last_was_command = False
        self._argument_of: int | None = None
        self._offered = 0  # how many bytes of a key the output buffer stands for; the keyboard still has them
        self._next_code = 0  # no byte of a key comes before this cycle
        self._reminder = 0  # when to remind the guest of the key in the output buffer
        self._event: Event | None = None

    # -- the user ---------------------------------------------------------------------------------------------------

    def press(self, scancode: int) -> None:
        """Press a key, named by its make code of set 1: 0x1e is A, 0xe048 the upper arrow. Raises MachineError."""
        self.keyboard.key(scancode, True)
        self._settle()

    def release(self, scancode: int) -> None:
        """Release a key."""
        self.keyboard.key(scancode, False)
        self._settle()

    def tap(self, *scancodes: int) -> None:
        """Press keys one after the other and release them in the opposite order: ``tap(0x1d, 0x2e)`` is Ctrl-C."""
        for scancode in scancodes:
            self.press(scancode)
        for scancode in reversed(scancodes):
            self.release(scancode)

    def type(self, text: str) -> None:
        """Type on a US keyboard; newline is Enter. Raises MachineError, with nothing typed, for a missing character."""
        for keys in [keys_for(character) for character in text]:
            self.tap(*keys)

    # -- ports ------------------------------------------------------------------------------------------------------

    def read_port(self, port: int, size: int) -> int:
        self._settle()
        if port == COMMAND_PORT:
            system = _SYSTEM if self._memory[0] & _SYSTEM_FLAG else 0
            return self._status | system | (_COMMAND if self._last_was_command else 0) | _UNLOCKED
        value = self._output
        if self._status & _FULL:
            self._status = 0
            self._next_code = self._clock.now + CODE_CYCLES
            if self._offered:
                self.keyboard.codes_taken(self._offered)
                self._offered = 0
            self._set_lines()  # the interrupt ends, so that the next byte makes an edge
            self._settle()
        return value

    def write_port(self, port: int, size: int, value: int) -> None:
        self._settle()
        self._last_was_command = port == COMMAND_PORT
        command, self._argument_of = self._argument_of, None
        if port == COMMAND_PORT:
            self._command(value)
        elif command is not None:
            self._take_argument(command, value)
        else:
            self._memory[0] &= ~_DISABLE  # sending to the keyboard opens the interface
            self._withdraw_key()
            self.keyboard.receive(value)
        self._settle()

    # -- commands ---------------------------------------------------------------------------------------------------

    def _command(self, command: int) -> None:
        memory = self._memory
        match command:
            case _ if 0x20 <= command < 0x40:
                self._answer(memory[command & 0x1F])
            case _ if 0x60 <= command < 0x80 or command in (0xD1, 0xD2, 0xD3, 0xD4):
                self._argument_of = command
            case 0xA4:
                self._answer(_NO_PASSWORD)
            case 0xA7:
                memory[0] |= _DISABLE_AUX
            case 0xA8:
                memory[0] &= ~_DISABLE_AUX
            case 0xAA:
                memory[0] |= _SYSTEM_FLAG
                self._answer(_TEST_PASSED)
            case 0xA9 | 0xAB:
                self._answer(_LINE_GOOD)
            case 0xAD:
                memory[0] |= _DISABLE
            case 0xAE:
                memory[0] &= ~_DISABLE
            case 0xC0:
                self._answer(_INPUT_PORT)
            case 0xD0:
                self._answer(self._output_port())
            case 0xDD | 0xDF:  # not IBM's, but old: close and open the gate in one command
                self._gate.enabled = command == 0xDF
            case _ if command >= 0xF0 and not command & _NO_RESET:
                self._on_reset()  # pulses the output lines whose bits are 0; of them, reset is the one that matters

    def _take_argument(self, command: int, value: int) -> None:
        match command:
            case 0xD1:
                self._gate.enabled = bool(value & _A20)
                if not value & _NO_RESET:
                    self._on_reset()
            case 0xD2:
                self._answer(value)
            case 0xD3:
                self._answer(value, _FROM_AUX)
            case 0xD4:  # nobody takes the byte, nobody answers
                self._answer(_NO_ANSWER, _FROM_AUX | _TIMED_OUT)
            case _:
                self._memory[command & 0x1F] = value

    def _answer(self, value: int, status: int = 0) -> None:
        """The controller's own answer replaces one that nobody has fetched, but not one in the output buffer."""
        self._withdraw_key()
        self._answers.clear()
        self._answers.append((value, status))

    def _output_port(self) -> int:
        gate = _A20 if self._gate.enabled else 0
        interrupt = _OUTPUT_AUX_IRQ if self._status & _FROM_AUX else _OUTPUT_IRQ if self._status & _FULL else 0
        return _NO_RESET | gate | interrupt | _OUTPUT_LINES

    # -- the output buffer ------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Fill the output buffer if there is something for it, set the lines, and plan the coming of the next code."""
        when = None
        if not self._status & _FULL:
            if self._answers:
                self._output, status = self._answers.popleft()
                self._status = _FULL | status
            elif self._memory[0] & _DISABLE:
                pass
            elif self.keyboard.responds:
                self._output, self._status = self._translated(bytes((self.keyboard.respond(),)))[0], _FULL
            elif codes := self.keyboard.codes():
                if self._clock.now >= self._next_code:
                    self._output, self._offered = self._translated(codes)
                    self._status = _FULL
                    self._reminder = self._clock.now + REMINDER_CYCLES
                else:
                    when = self._next_code
        if self._offered and self._memory[0] & _INTERRUPT:
            when = self._reminder
        self._set_lines()
        self._plan(when)

    def _translated(self, codes: bytes) -> tuple[int, int]:
        """The next byte for the program, in scan code set 1 if that is wanted, and how many of ``codes`` it is."""
        if not self._memory[0] & _TRANSLATE:
            return codes[0], 1
        if codes[0] == _RELEASE and len(codes) > 1:
            return SET_1_OF_SET_2.get(codes[1], codes[1]) | 0x80, 2
        return SET_1_OF_SET_2.get(codes[0], codes[0]), 1

    def _withdraw_key(self) -> None:
        """Make room for an answer: the program that waits for it would mistake a key's code for it.

        (The chip keeps the code, so that programs have to be careful, and keys get lost. Here they come again.)
        """
        if self._offered:
            self._offered = self._status = 0
            self._set_lines()

    def _set_lines(self) -> None:
        full, from_aux = self._status & _FULL, self._status & _FROM_AUX
        self._line(bool(full and not from_aux and self._memory[0] & _INTERRUPT))
        if self._aux_line is not None:
            self._aux_line(bool(full and from_aux and self._memory[0] & _AUX_INTERRUPT))

    def _plan(self, when: int | None) -> None:
        self._event = self._clock.move(self._event, when, self._on_event)

    def _on_event(self) -> None:
        self._event = None
        if self._offered and self._clock.now >= self._reminder:
            # The interrupt controller forgets the edge when it is initialized. On the hardware, a key pressed just
            # before that would block the keyboard of a kernel that doesn't empty the buffer; here, it gets an edge.
            self._line(False)
            self._reminder = self._clock.now + REMINDER_CYCLES
        self._settle()
