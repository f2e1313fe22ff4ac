"""Which interrupt messages concern a local APIC: its addresses, and the command register by which it sends (Intel SDM
vol. 3, 10.6).
"""

from __future__ import annotations

_LOGICAL = 1 << 11
_WRITABLE_COMMAND = 0xC_CFFF  # the delivery status (bit 12) is idle whenever one can look
_NO_SHORTHAND, _SELF, _ALL = range(3)  # 3 is all but self


class Addressing:
    """ID, LDR and DFR, and both halves of ICR, as the registers have them."""

    def __init__(self, apic_id: int) -> None:
        self.identity = apic_id << 24
        self.logical = 0
        self.format = 0xFFFF_FFFF
        self.command = self.command_high = 0

    def write_command(self, value: int) -> None:
        """The lower half of ICR."""
        self.command = value & _WRITABLE_COMMAND

    def matches(self, destination: int, logical: bool) -> bool:
        """Whether a message for ``destination`` (0 to 255) concerns this processor."""
        if destination == 0xFF or not logical:
            return destination in (0xFF, self.identity >> 24)
        own = self.logical >> 24
        if self.format >> 28 == 0xF:  # flat: one bit for each processor
            return bool(own & destination)
        return destination >> 4 in (own >> 4, 0xF) and bool(own & destination & 0xF)  # cluster 15 is all clusters

    def commands_itself(self) -> bool:
        """Whether what ICR sends goes to this processor, too."""
        shorthand = self.command >> 18 & 3
        if shorthand == _NO_SHORTHAND:
            return self.matches(self.command_high >> 24, bool(self.command & _LOGICAL))
        return shorthand in (_SELF, _ALL)
