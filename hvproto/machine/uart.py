"""The serial port (National Semiconductor PC16550D, data sheet of June 1995).

The line has no speed: what is sent has arrived at once, so the transmitter is always ready. What is received waits on
the line and enters the receiver when the program looks there; nothing is lost by coming too early. Frame and parity
errors don't happen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hvproto.machine.clock import CYCLES_PER_SECOND
from hvproto.machine.complaints import Complain, ignore
from hvproto.machine.pic import IrqLine

COM1 = 0x3F8
FIFO_SIZE = 16
_CLOCK = 1_843_200
"""Hz, of which the divisor makes sixteen times the line's speed."""
_BITS = 10
"""Of a character on the line: a start bit, eight, a stop bit."""
_POLLS = 2
"""So many reads of the line status, one after the other, without a byte: the program waits for one. (A program that
sends doesn't have to look twice, for the transmitter is always ready.)"""

# Interrupt enable register.
_ENABLE_RECEIVED, _ENABLE_EMPTY, _ENABLE_LINE, _ENABLE_MODEM = 1, 2, 4, 8
# Interrupt identification register; by urgency: line status, received or timed out, transmitter empty, modem status.
_NONE, _MODEM, _EMPTY, _RECEIVED, _LINE, _TIMEOUT = 0x01, 0x00, 0x02, 0x04, 0x06, 0x0C
# Modem control register.
_DTR, _RTS, _OUT1, _OUT2, _LOOPBACK = 1, 2, 4, 8, 16
# Line status register.
_DATA_READY, _OVERRUN, _TRANSMITTER_EMPTY = 0x01, 0x02, 0x60
# Modem status register: a terminal is connected and ready (CTS, DSR, DCD).
_CONNECTED = 0xB0


class Uart16550A:
    """One serial port at ``base`` to ``base + 7``.

    ``transmit`` gets each byte that is sent, at once. Bytes always have eight bits, whatever the line control register
    says. OUT2 of the modem control register leads nowhere: the chip's interrupt reaches the controller whatever it is.
    (On the PC's first adapters a gate that OUT2 opens was between them. Kernels that have only seen ports without that
    gate, QEMU's for one, clear OUT2 and wait for interrupts. Who knows the gate sets it, and sees no difference.)
    """

    def __init__(self, transmit: Callable[[int], None], irq: IrqLine, base: int = COM1) -> None:
        self.ports = tuple(range(base, base + 8))
        self._base = base
        self._transmit = transmit
        self._irq = irq
        self._line: deque[int] = deque()  # has come, but not in yet
        self._fifo: deque[int] = deque()
        self._fifo_on = False
        self._trigger = 1
        self._enabled = 0  # IER
        self._line_control = 0
        self._modem_control = 0
        self._modem_delta = 0
        self._overrun = False
        self._empty_pending = False  # the transmitter's interrupt
        self._scratch = 0
        self._divisor = 1
        self.complain: Complain = ignore
        self._empty_polls = 0
        self._was_wanted = False
        self.on_wanted: Callable[[], None] = lambda: None
        """Called when `wanted` has become true."""

    @property
    def wanted(self) -> bool:
        """Whether the program looks for bytes, by interrupt or in a loop, there is room for one, and none on the line.

        What `receive` gets waits anyhow; this is for who has bytes that needn't go to somebody who never looks.
        """
        if not (self._enabled & _ENABLE_RECEIVED or self._empty_polls >= _POLLS):
            return False
        return not self._line and len(self._fifo) < self._capacity() and not self._modem_control & _LOOPBACK

    @property
    def receive_interrupt(self) -> bool:
        """Whether a byte that comes in makes an interrupt."""
        return bool(self._enabled & _ENABLE_RECEIVED)

    @property
    def character_cycles(self) -> int:
        """How long a character takes on a line of the programmed speed, in cycles."""
        return CYCLES_PER_SECOND * _BITS * 16 * (self._divisor or 1 << 16) // _CLOCK

    def receive(self, data: bytes) -> None:
        """Let bytes arrive on the line, as many as you like."""
        self._line.extend(data)
        self._update()

    def read_port(self, port: int, size: int) -> int:
        value = self._read(port - self._base)
        self._empty_polls = self._empty_polls + 1 if self._finds_nothing(port - self._base, value) else 0
        self._update()
        return value

    def write_port(self, port: int, size: int, value: int) -> None:
        self._empty_polls = 0
        self._write(port - self._base, value)
        self._update()

    # -- registers --------------------------------------------------------------------------------------------------

    def _read(self, register: int) -> int:
        if self._line_control & 0x80 and register < 2:
            return self._divisor >> 8 * register & 0xFF
        match register:
            case 0:
                self._fill()
                value = self._fifo.popleft() if self._fifo else 0
                # Bytes don't really come at once: between two of them the interrupt goes away and comes again, which
                # makes an edge. A program that reads one byte per interrupt needs it.
                self._irq(False)
                return value
            case 1:
                return self._enabled
            case 2:
                cause = self._cause()
                if cause == _EMPTY:
                    self._empty_pending = False
                return cause | (0xC0 if self._fifo_on else 0)
            case 3:
                return self._line_control
            case 4:
                return self._modem_control
            case 5:
                self._fill()
                status = _TRANSMITTER_EMPTY | (_OVERRUN if self._overrun else 0) | (_DATA_READY if self._fifo else 0)
                self._overrun = False
                return status
            case 6:
                status = self._modem_lines() | self._modem_delta
                self._modem_delta = 0
                return status
        return self._scratch

    def _write(self, register: int, value: int) -> None:
        if self._line_control & 0x80 and register < 2:
            kept = 0xFF00 if register == 0 else 0x00FF
            self._divisor = self._divisor & kept | value << 8 * register
            return
        match register:
            case 0:
                self._send(value)
            case 1:
                newly = value & ~self._enabled
                self._enabled = value & 0x0F
                # Enabling the transmitter's interrupt while it is empty, as it always is, raises it at once.
                self._empty_pending = bool(value & _ENABLE_EMPTY and (self._empty_pending or newly & _ENABLE_EMPTY))
            case 2:
                self._control_fifo(value)
            case 3:
                if self._line_control & 0x80 and not value & 0x80 and not self._divisor:
                    self.complain("the divisor of its speed is 0")
                self._line_control = value
            case 4:
                self._control_modem(value & 0x1F)
            case 7:
                self._scratch = value
            # The two status registers are for factory tests when written.

    def _control_fifo(self, value: int) -> None:
        on = bool(value & 0x01)
        if on != self._fifo_on or (on and value & 0x02):
            self._fifo.clear()
        self._fifo_on = on
        self._trigger = (1, 4, 8, 14)[value >> 6] if on else 1

    def _control_modem(self, value: int) -> None:
        before = self._modem_lines()
        self._modem_control = value
        after = self._modem_lines()
        # Bits 0, 1 and 3 tell a change of CTS, DSR and DCD; bit 2 tells the end of a ring only.
        self._modem_delta |= (before ^ after) >> 4 & 0x0B | (before & ~after) >> 4 & 0x04

    def _modem_lines(self) -> int:
        control = self._modem_control
        if not control & _LOOPBACK:
            return _CONNECTED
        looped = ((_RTS, 0x10), (_DTR, 0x20), (_OUT1, 0x40), (_OUT2, 0x80))
        return sum(line for output, line in looped if control & output)

    @staticmethod
    def _finds_nothing(register: int, value: int) -> bool:
        return register == 5 and not value & _DATA_READY

    # -- data -------------------------------------------------------------------------------------------------------

    def _send(self, value: int) -> None:
        # The byte fills the transmitter for an instant: the interrupt goes away and comes again, which makes an edge.
        self._empty_pending = False
        self._update()
        if self._modem_control & _LOOPBACK:
            self._loop_back(value)
        else:
            self._transmit(value)
        self._empty_pending = bool(self._enabled & _ENABLE_EMPTY)

    def _loop_back(self, value: int) -> None:
        if len(self._fifo) < self._capacity():
            self._fifo.append(value)
            return
        self._overrun = True
        if not self._fifo_on:
            self._fifo[0] = value  # without a FIFO, the newer byte stays; with it, the older ones

    def _fill(self) -> None:
        """Take in what waits on the line; in loopback, the line is cut off."""
        while self._line and len(self._fifo) < self._capacity() and not self._modem_control & _LOOPBACK:
            self._fifo.append(self._line.popleft())

    def _capacity(self) -> int:
        return FIFO_SIZE if self._fifo_on else 1

    # -- interrupts -------------------------------------------------------------------------------------------------

    def _cause(self) -> int:
        """The most urgent interrupt, as the identification register says it."""
        if self._enabled & _ENABLE_LINE and self._overrun:
            return _LINE
        if self._enabled & _ENABLE_RECEIVED:
            self._fill()
            if self._fifo:
                # Fewer than the trigger level would wait for a time-out; no more are coming, so it is over at once.
                return _RECEIVED if len(self._fifo) >= self._trigger else _TIMEOUT
        if self._enabled & _ENABLE_EMPTY and self._empty_pending:
            return _EMPTY
        if self._enabled & _ENABLE_MODEM and self._modem_delta:
            return _MODEM
        return _NONE

    def _update(self) -> None:
        self._irq(self._cause() != _NONE)
        was_wanted, self._was_wanted = self._was_wanted, self.wanted
        if self._was_wanted and not was_wanted:
            self.on_wanted()
