"""The firmware's ROM, assembled: its bytes and where its entry points are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hvproto.addresses import GPA
from hvproto.images.assembly import assemble

ROM_SEGMENT = 0xF000
_SERVICE = "service_"


@dataclass(frozen=True)
class Rom:
    """``data`` belongs at physical ``address``; all offsets are within segment F000."""

    address: GPA
    data: bytes
    labels: dict[str, int]
    services: dict[int, str]
    """By the offset behind its HLT: the name of each service."""

    def vector(self, label: str) -> int:
        """The entry of an interrupt vector table that leads to a label."""
        return ROM_SEGMENT << 16 | self.labels[label]


@cache
def rom() -> Rom:
    """The ROM of `rom.asm`."""
    image = assemble(Path(__file__).with_name("rom.asm"))
    (segment,) = image.segments
    labels = dict(image.symbols)
    # Each service begins with its HLT, which has one byte.
    services = {at + 1: name.removeprefix(_SERVICE) for name, at in labels.items() if name.startswith(_SERVICE)}
    return Rom(GPA(ROM_SEGMENT * 16 + segment.address), segment.data, labels, services)
