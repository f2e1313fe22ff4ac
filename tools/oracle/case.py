"""A case: some code, the state it starts in, and what to look at afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tools.oracle import layout
from tools.oracle.descriptors import Words

Patch = tuple[int, int]
"""A physical address and the doubleword to store there."""


@dataclass(frozen=True)
class Case:
    """``name`` is a path, family first. ``settings`` override fields of the record (`layout.FIELDS`)."""

    name: str
    code: str
    ring: int = 0
    eflags: int = 2
    patches: tuple[Patch, ...] = ()
    watches: tuple[int, ...] = ()
    settings: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    msrs: tuple[tuple[int, int], ...] = ()
    """Model-specific registers and what is written to them before the case."""
    lost_on: frozenset[str] = frozenset()
    """Machines that are known to hang in this case: there it isn't tried."""

    @property
    def family(self) -> str:
        return self.name.split("/", 1)[0]


def at(address: int, words: Iterable[int]) -> tuple[Patch, ...]:
    """Patches that store doublewords one after the other."""
    return tuple((address + 4 * index, word & 0xFFFFFFFF) for index, word in enumerate(words))


def described(selector: int, words: Words) -> tuple[Patch, ...]:
    """A patch of the GDT or LDT entry that a selector names."""
    table = layout.LDT if selector & 4 else layout.GDT
    return at(table + (selector & ~7), words)


def gated(vector: int, words: Words) -> tuple[Patch, ...]:
    """A patch of an IDT entry: of 8 bytes, or of long mode's 16."""
    return at(layout.IDT + 4 * len(words) * vector, words)


def bytes_at(address: int, data: bytes) -> tuple[Patch, ...]:
    """Patches that store bytes, filled up with INT3 to whole doublewords."""
    padded = data + b"\xcc" * (-len(data) % 4)
    return at(address, (int.from_bytes(padded[i : i + 4], "little") for i in range(0, len(padded), 4)))


def at_end(code: str) -> str:
    """Code that is to end by itself if nothing happens before."""
    return f"{code}\nint {layout.END:#x}"
