"""The I/O APIC of a PC (Intel 82093AA, order no. 290566): 24 inputs, each with an entry that says where it goes.

Registers are reached through two words at 0xfec00000: IOREGSEL (offset 0) names one, IOWIN (0x10) is it. Version 0x11
has no EOI register: the end of a level triggered interrupt comes from the local APIC, or software makes the entry
edge triggered for a moment, which clears its remote IRR as well.

Inputs carry True for "asserted", whatever voltage that is: the polarity bits are kept, and do nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from hvproto.machine.lapic import LocalApic
from hvproto.machine.lapic_lvt import EXT_INT, FIXED, LEVEL, LOWEST, MASKED, NMI, REMOTE_IRR
from hvproto.machine.pic import IrqLine

DEFAULT_BASE = 0xFEC0_0000
SIZE = 0x1000
"""Bytes that it answers in, from its base on; all but two words of them read as 0."""
INPUTS = 24
VERSION = 0x11
_SELECT, _WINDOW = 0x00, 0x10
_ID, _VERSION, _ARBITRATION, _TABLE = 0x00, 0x01, 0x02, 0x10
_LOGICAL = 1 << 11
_WRITABLE_LOW = 0x1_AFFF  # not the delivery status (bit 12), which is idle whenever one can look, nor the remote IRR


class IoApic:
    """The redirection of 24 interrupt lines to one local APIC.

    ``on_ext_int`` is called whenever `ext_int` may have changed.
    """

    def __init__(self, lapic: LocalApic, on_ext_int: Callable[[], None] = lambda: None, *, apic_id: int = 1) -> None:
        self._lapic = lapic
        self._on_ext_int = on_ext_int
        self._id = apic_id
        self._selected = 0
        self._asserted = 0  # bit n is input n
        self._entries = [MASKED] * INPUTS

    def reset(self) -> None:
        """Back to the state after power-up: every entry masked. The lines stay as their devices hold them."""
        self._selected = 0
        self._entries = [MASKED] * INPUTS
        self._on_ext_int()

    # -- lines and messages -----------------------------------------------------------------------------------------

    def line(self, number: int) -> IrqLine:
        """Input 0 to 23. Raises ValueError for any other number."""
        if not 0 <= number < INPUTS:
            raise ValueError(f"the IOAPIC has no input {number}")
        bit = 1 << number

        def set_level(asserted: bool) -> None:
            rose = asserted and not self._asserted & bit
            self._asserted = self._asserted | bit if asserted else self._asserted & ~bit
            if rose:
                # An edge at a masked input is lost: the data sheet has it neither delivered nor held.
                self._deliver(number)

        return set_level

    def end_of_interrupt(self, vector: int) -> None:
        """The local APIC's broadcast: entries that wait for this vector are done, and ask again if still asserted."""
        for number, entry in enumerate(self._entries):
            if entry & REMOTE_IRR and entry & 0xFF == vector:
                self._entries[number] &= ~REMOTE_IRR
                self._deliver_level(number)

    @property
    def ext_int(self) -> bool:
        """Whether an asserted, unmasked input says that the 8259 has an interrupt for the processor (ExtINT)."""
        return any(
            self._asserted >> number & 1 and entry & (MASKED | 0x700) == EXT_INT << 8 and self._is_for_us(entry)
            for number, entry in enumerate(self._entries)
        )

    def _deliver(self, number: int) -> None:
        entry = self._entries[number]
        if entry & LEVEL and entry >> 8 & 7 in (FIXED, LOWEST):
            self._deliver_level(number)
        elif not entry & MASKED and self._is_for_us(entry):
            if entry >> 8 & 7 in (FIXED, LOWEST):
                self._lapic.accept(entry & 0xFF, False)
            elif entry >> 8 & 7 == NMI:
                self._lapic.on_nmi()

    def _deliver_level(self, number: int) -> None:
        """A level is sent once, and remote IRR is set from then until the EOI; a local APIC that refuses leaves it."""
        entry = self._entries[number]
        if not self._asserted >> number & 1 or entry & (MASKED | REMOTE_IRR) or not entry & LEVEL:
            return
        if entry >> 8 & 7 in (FIXED, LOWEST) and self._is_for_us(entry) and self._lapic.accept(entry & 0xFF, True):
            self._entries[number] |= REMOTE_IRR

    def _is_for_us(self, entry: int) -> bool:
        return self._lapic.matches(entry >> 56, bool(entry & _LOGICAL))

    # -- registers --------------------------------------------------------------------------------------------------

    def read_mmio(self, offset: int, size: int) -> int:
        """A load of 1, 2, 4 or 8 bytes at 0 to 0xfff: the lower bytes of the two words, 0 anywhere else."""
        value = {_SELECT: self._selected, _WINDOW: self._read(self._selected)}.get(offset, 0)
        return value & (1 << 8 * size) - 1

    def write_mmio(self, offset: int, size: int, value: int) -> None:
        """A store. IOWIN takes 4 bytes only, as the data sheet demands; IOREGSEL has 8 bits, any size will do."""
        if offset == _SELECT:
            self._selected = value & 0xFF
        elif offset == _WINDOW and size == 4:
            self._write(self._selected, value & 0xFFFF_FFFF)

    def _read(self, register: int) -> int:
        if register in (_ID, _ARBITRATION):
            return self._id << 24  # the arbitration ID is loaded with the ID
        if register == _VERSION:
            return INPUTS - 1 << 16 | VERSION
        number = register - _TABLE
        if 0 <= number < 2 * INPUTS:
            return self._entries[number // 2] >> 32 * (number & 1) & 0xFFFF_FFFF
        return 0

    def _write(self, register: int, value: int) -> None:
        if register == _ID:
            self._id = value >> 24 & 0xF
            return
        number, high = divmod(register - _TABLE, 2)
        if not 0 <= number < INPUTS:
            return
        entry = self._entries[number]
        if high:
            entry = (value & 0xFF00_0000) << 32 | entry & 0xFFFF_FFFF
        else:
            kept = entry & REMOTE_IRR if value & LEVEL else 0
            entry = entry >> 32 << 32 | value & _WRITABLE_LOW | kept
        self._entries[number] = entry
        self._deliver_level(number)
        self._on_ext_int()
