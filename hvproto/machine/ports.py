"""The I/O address space: 65,536 byte-wide ports, each claimed by one device or by none (Intel SDM vol. 1, ch. 19).

Most devices of a PC answer bytes only. The bus does for them what the chipset does: an access of two or four bytes
becomes as many byte accesses to consecutive ports, the lowest byte first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from hvproto.errors import MachineError

PORT_COUNT = 0x10000


class PortDevice(Protocol):
    """What answers at ports. ``size`` is in bytes: always 1, unless the device says otherwise.

    One with an attribute ``wide_ports`` (a frozenset) takes accesses starting at these whole, whatever their size: 1, 2
    or 4 bytes.
    """

    def read_port(self, port: int, size: int) -> int:
        """Answer IN: a value of ``size`` bytes, unsigned."""

    def write_port(self, port: int, size: int, value: int) -> None:
        """Take OUT: ``value`` has ``size`` bytes, unsigned."""


class PortBus:
    """All ports of one machine.

    Accesses that nobody answers read as all ones, as a floating bus does, and are counted in ``unclaimed`` by
    ("read" or "write", port), so that a driver that talks to an absent device can be told from one that doesn't talk.
    """

    def __init__(self) -> None:
        self.unclaimed: dict[tuple[str, int], int] = {}
        self._devices: dict[int, PortDevice] = {}
        self._wide: set[int] = set()

    def attach(self, device: PortDevice, ports: Iterable[int]) -> None:
        """Let ``device`` answer at ``ports``. Raises MachineError if one is out of range or claimed; none is, then."""
        wanted = list(ports)
        for port in wanted:
            if not 0 <= port < PORT_COUNT:
                raise MachineError(f"{_name(device)}: there is no port {port:#x}")
            if port in self._devices:
                raise MachineError(f"{_name(device)}: port {port:#x} belongs to {_name(self._devices[port])} already")
        wide: frozenset[int] = getattr(device, "wide_ports", frozenset())
        for port in wanted:
            self._devices[port] = device
            if port in wide:
                self._wide.add(port)

    def claimed(self, port: int) -> bool:
        """Whether a device answers at this port."""
        return port in self._devices

    def read(self, port: int, size: int) -> int:
        """IN of ``size`` bytes (1, 2 or 4) at ``port``."""
        device = self._devices.get(port)
        if device is not None and (size == 1 or port in self._wide):
            return device.read_port(port, size) & _ones(size)
        if self._nobody(port, size):
            self._count("read", port)
            return _ones(size)
        value = 0
        for offset in range(size):
            value |= self.read((port + offset) % PORT_COUNT, 1) << 8 * offset
        return value

    def write(self, port: int, size: int, value: int) -> None:
        """OUT of ``size`` bytes (1, 2 or 4) at ``port``; bits of ``value`` beyond them don't count."""
        value &= _ones(size)
        device = self._devices.get(port)
        if device is not None and (size == 1 or port in self._wide):
            device.write_port(port, size, value)
        elif self._nobody(port, size):
            self._count("write", port)
        else:
            for offset in range(size):
                self.write((port + offset) % PORT_COUNT, 1, value >> 8 * offset)

    def _nobody(self, port: int, size: int) -> bool:
        """One access to a place without any device counts once, however wide it is."""
        return not any((port + offset) % PORT_COUNT in self._devices for offset in range(size))

    def _count(self, direction: str, port: int) -> None:
        self.unclaimed[direction, port] = self.unclaimed.get((direction, port), 0) + 1


def _ones(size: int) -> int:
    if size not in (1, 2, 4):
        raise ValueError(f"no port access has {size} bytes")
    return (1 << 8 * size) - 1


def _name(device: PortDevice) -> str:
    return type(device).__name__
