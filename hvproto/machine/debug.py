"""Two ports for kernels under development, as emulators have them (no hardware, so no data sheet).

The debug console at 0xe9 was Bochs' idea: what is written appears, and a read that gives the port's own number back
tells that it is there. The exit port at 0xf4 is QEMU's device ``isa-debug-exit``.
"""

from __future__ import annotations

from collections.abc import Callable

CONSOLE_PORT = 0xE9
EXIT_PORT = 0xF4


class DebugConsole:
    """Port 0xe9: passes each byte written to ``write``."""

    ports = (CONSOLE_PORT,)

    def __init__(self, write: Callable[[int], None]) -> None:
        self._write = write

    def read_port(self, port: int, size: int) -> int:
        return CONSOLE_PORT

    def write_port(self, port: int, size: int, value: int) -> None:
        self._write(value)


class DebugExit:
    """Ports 0xf4 to 0xf7: passes the value written, of 1, 2 or 4 bytes, to ``on_exit``.

    The value is not yet the exit status, which is 2 * value + 1 (an odd number: a clean end of the emulator itself
    can be told from it). Reads give 0.
    """

    ports = tuple(range(EXIT_PORT, EXIT_PORT + 4))
    wide_ports = frozenset(ports)

    def __init__(self, on_exit: Callable[[int], None]) -> None:
        self._on_exit = on_exit

    def read_port(self, port: int, size: int) -> int:
        return 0

    def write_port(self, port: int, size: int, value: int) -> None:
        self._on_exit(value)
