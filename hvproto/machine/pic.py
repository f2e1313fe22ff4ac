"""The pair of programmable interrupt controllers of a PC (Intel 8259A, order no. 231468).

The master takes lines 0 to 7, the slave 8 to 15; the slave's output is the master's input 2. Each chip keeps three
registers: requests that wait (IRR), requests in service (ISR), and the mask (IMR).

A request counts as long as its line stays high: one that is withdrawn before the processor acknowledges it is gone,
and an acknowledgement that finds nothing gets the vector of input 7 without anything being in service (a spurious
interrupt). The register in the chipset that makes single inputs level triggered is here too (ELCR, ports 0x4d0 and
0x4d1; Intel 82371SB data sheet, order no. 290550).
"""

from __future__ import annotations

from collections.abc import Callable

IrqLine = Callable[[bool], None]
"""Sets the level of one interrupt line; a device calls it as often as it likes, also without a change."""

CASCADE = 2
_ALL = 0xFF
_BY_PRIORITY = tuple(tuple((top + rank) % 8 for rank in range(8)) for top in range(8))
"""The levels in order of priority, by which one has the highest."""


class Pic8259:
    """One chip. Levels are its inputs, 0 to 7; the bit of level n in every register is ``1 << n``."""

    def __init__(self, cascade: int, level_selectable: int) -> None:
        """``cascade`` is the bit of the input with a slave behind it, or 0; the other mask is what ELCR can change."""
        self.mask = _ALL
        self.in_service = 0
        self.vector_base = 0
        self.ready = False  # until the initialization sequence is complete, there is no interrupt
        self._level_select = 0
        self._cascade = cascade
        self._level_selectable = level_selectable
        self._lines = 0
        self._edges = 0  # inputs that rose, and neither fell nor were acknowledged since
        self._top = 0  # the level that has the highest priority
        self._expected_icw = 0  # 2, 3 or 4 within the initialization sequence, else 0
        self._icw1 = 0
        self._auto_eoi = self._rotate_auto = self._special_mask = self._special_nesting = False
        self._read_in_service = self._poll = False

    # -- inputs and output ------------------------------------------------------------------------------------------

    @property
    def requests(self) -> int:
        """The request register (IRR)."""
        level_triggered = _ALL if self._icw1 & 0x08 else self._level_select
        return (self._edges | self._lines & level_triggered) & _ALL

    def set_line(self, level: int, high: bool) -> None:
        bit = 1 << level
        if not high:
            self._lines &= ~bit
            self._edges &= ~bit
        elif not self._lines & bit:
            self._lines |= bit
            self._edges |= bit

    def candidate(self) -> int | None:
        """The level whose request drives the output (INT): unmasked, and above everything in service."""
        if not self.ready:
            return None
        asking = self.requests & ~self.mask
        if not asking:
            return None
        # In special mask mode, a level that is both in service and masked holds nobody back.
        blocking = self.in_service & (~self.mask if self._special_mask else _ALL)
        # In special fully nested mode, the slave may interrupt the service of its own, less urgent request.
        nestable = self._cascade if self._special_nesting else 0
        for level in self._by_priority():
            bit = 1 << level
            if asking & bit and not blocking & bit & ~nestable:
                return level
            if blocking & bit:
                return None
        return None

    def acknowledge(self) -> int | None:
        """What the chip does at INTA: the level that goes into service, None if there is no request any more."""
        level = self.candidate()
        if level is None:
            return None
        self._edges &= ~(1 << level)
        if not self._auto_eoi:
            self.in_service |= 1 << level
        elif self._rotate_auto:
            self._make_lowest(level)
        return level

    def _by_priority(self) -> tuple[int, ...]:
        return _BY_PRIORITY[self._top]

    def _make_lowest(self, level: int) -> None:
        self._top = (level + 1) % 8

    # -- registers --------------------------------------------------------------------------------------------------

    def read(self, second: bool) -> int:
        """Read the first port (A0 = 0) or the ``second`` one."""
        if self._poll:
            self._poll = False
            level = self.acknowledge()
            return 0 if level is None else 0x80 | level
        if second:
            return self.mask
        return self.in_service if self._read_in_service else self.requests

    def write(self, second: bool, value: int) -> None:
        if second:
            self._write_icw(value) if self._expected_icw else self._write_mask(value)
        elif value & 0x10:
            self._initialize(value)
        elif value & 0x08:
            self._write_ocw3(value)
        else:
            self._write_ocw2(value)

    @property
    def level_select(self) -> int:
        """The chip's byte of ELCR: inputs with bit 1 are level triggered."""
        return self._level_select

    @level_select.setter
    def level_select(self, value: int) -> None:
        self._level_select = value & self._level_selectable

    def _initialize(self, icw1: int) -> None:
        self._icw1 = icw1
        self._expected_icw = 2
        self.ready = False
        # An input that is high already must fall and rise again to count.
        self._edges = self.mask = self.in_service = self._top = 0
        self._auto_eoi = self._rotate_auto = self._special_mask = self._special_nesting = False
        self._read_in_service = self._poll = False

    def _write_icw(self, value: int) -> None:
        number = self._expected_icw
        if number == 2:
            self.vector_base = value & 0xF8
        elif number == 4:
            self._auto_eoi = bool(value & 0x02)
            self._special_nesting = bool(value & 0x10)
        # ICW3 names the cascaded input; on a PC that is soldered. ICW3 and ICW4 come only if ICW1 announced them.
        follows = {2: 3, 3: 4}.get(number, 0)
        if follows == 3 and self._icw1 & 0x02:
            follows = 4
        if follows == 4 and not self._icw1 & 0x01:
            follows = 0
        self._expected_icw = follows
        self.ready = follows == 0

    def _write_mask(self, value: int) -> None:
        self.mask = value

    def _write_ocw2(self, value: int) -> None:
        """End of interrupt and rotation, after the eight rows of the data sheet's table for R, SL and EOI."""
        level = value & 7
        match value >> 5:
            case 0b001:
                self._end_of_interrupt()
            case 0b011:
                self.in_service &= ~(1 << level)
            case 0b101:
                ended = self._end_of_interrupt()
                if ended is not None:
                    self._make_lowest(ended)
            case 0b111:
                self.in_service &= ~(1 << level)
                self._make_lowest(level)
            case 0b110:
                self._make_lowest(level)
            case 0b100 | 0b000:
                self._rotate_auto = bool(value & 0x80)

    def _end_of_interrupt(self) -> int | None:
        """The non-specific kind: for the most urgent level in service; special mask mode passes over masked ones."""
        eligible = self.in_service & (~self.mask if self._special_mask else _ALL)
        for level in self._by_priority():
            if eligible & 1 << level:
                self.in_service &= ~(1 << level)
                return level
        return None

    def _write_ocw3(self, value: int) -> None:
        if value & 0x40:
            self._special_mask = bool(value & 0x20)
        if value & 0x04:
            self._poll = True
        elif value & 0x02:
            self._read_in_service = bool(value & 0x01)


class Pic8259Pair:
    """Both chips as a PC wires them.

    ``on_change`` is called whenever ``pending`` has changed. Before a kernel has initialized the chips, all lines are
    masked and nothing is pending.
    """

    ports = (0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1)

    def __init__(self, on_change: Callable[[], None] | None = None) -> None:
        # The timer, the keyboard, the cascade, the real time clock and the coprocessor stay edge triggered.
        self.master = Pic8259(cascade=1 << CASCADE, level_selectable=0xF8)
        self.slave = Pic8259(cascade=0, level_selectable=0xDE)
        self._on_change = on_change
        self._pending = False

    @property
    def pending(self) -> bool:
        """The master's output, which is the processor's INTR."""
        return self._pending

    def line(self, number: int) -> IrqLine:
        """Interrupt line 0 to 15, except 2 (the cascade). Raises ValueError for any other number."""
        if not 0 <= number < 16 or number == CASCADE:
            raise ValueError(f"no device can have interrupt line {number}")
        chip = self.master if number < 8 else self.slave

        def set_level(high: bool) -> None:
            chip.set_line(number % 8, high)
            self._settle()

        return set_level

    def acknowledge(self) -> int:
        """The processor's INTA: the vector. What was requested is in service from now on."""
        level = self.master.acknowledge()
        vector = self.master.vector_base + (7 if level is None else level)
        if level == CASCADE:
            inner = self.slave.acknowledge()
            vector = self.slave.vector_base + (7 if inner is None else inner)
            self.master.set_line(CASCADE, False)  # the slave's output ends, so that its next request is an edge again
        self._settle()
        return vector

    def read_port(self, port: int, size: int) -> int:
        chip = self._chip(port)
        if port >= 0x4D0:
            return chip.level_select
        value = chip.read(bool(port & 1))
        self._settle()  # a poll acknowledges
        return value

    def write_port(self, port: int, size: int, value: int) -> None:
        chip = self._chip(port)
        if port >= 0x4D0:
            chip.level_select = value
        else:
            chip.write(bool(port & 1), value)
        self._settle()

    def _chip(self, port: int) -> Pic8259:
        return self.slave if port in (0xA0, 0xA1, 0x4D1) else self.master

    def _settle(self) -> None:
        self.master.set_line(CASCADE, self.slave.candidate() is not None)
        pending = self.master.candidate() is not None
        if pending != self._pending:
            self._pending = pending
            if self._on_change is not None:
                self._on_change()
