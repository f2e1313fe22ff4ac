"""The gate of address line 20, and port 0x92 that switches it (Intel 82801AA, order no. 290655, register PORT92).

The gate has two switches: bit 1 of port 0x92, and bit 1 of the keyboard controller's output port. Here they move one
and the same gate, so the latest write counts, whoever made it; and both read back the gate as it is. (The chipset
ORs two signals instead: a kernel that closes one of them only would find the gate open there.)
"""

from __future__ import annotations

from collections.abc import Callable

SYSTEM_CONTROL_A = 0x92
_RESET, _GATE = 0x01, 0x02


class A20Gate:
    """The gate. ``enabled``: addresses pass as they are; else bit 20 of each physical address is forced to 0.

    ``on_change`` is called with the new state, when it differs from the old one.
    """

    def __init__(self, on_change: Callable[[bool], None], enabled: bool = True) -> None:
        self._on_change = on_change
        self._enabled = enabled

    @property
    def enabled(self) -> bool:
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        if value != self._enabled:
            self._enabled = value
            self._on_change(value)


class SystemControlPortA:
    """Port 0x92: bit 1 is the gate; bit 0 resets the processor when it rises. The other bits are only stored."""

    ports = (SYSTEM_CONTROL_A,)

    def __init__(self, gate: A20Gate, on_reset: Callable[[], None]) -> None:
        self._gate = gate
        self._on_reset = on_reset
        self._stored = 0

    def read_port(self, port: int, size: int) -> int:
        return self._stored | (_GATE if self._gate.enabled else 0)

    def write_port(self, port: int, size: int, value: int) -> None:
        rises = value & ~self._stored & _RESET
        self._stored = value & ~_GATE
        self._gate.enabled = bool(value & _GATE)
        if rises:
            self._stored &= ~_RESET  # the reset that follows clears it
            self._on_reset()
