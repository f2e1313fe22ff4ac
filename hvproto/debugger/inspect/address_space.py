"""Address spaces: page walks in columns, the map with the region and its free room, the history of moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from hvproto import events
from hvproto.addresses import PAGE_SIZE
from hvproto.debugger.debuggee import View
from hvproto.debugger.expression import Evaluator
from hvproto.debugger.inspect.table import columns
from hvproto.hypervisor.view import MIRRORED, REGION
from hvproto.processor.paging import (
    FOUR_LEVEL,
    NX,
    PAE,
    PS,
    TWO_LEVEL,
    A,
    D,
    Format,
    P,
    PagingMode,
    ReadEntry,
    U,
    W,
    Walk,
    walk,
)

_LEVELS = {TWO_LEVEL: ("PDE", "PTE"), PAE: ("PDPTE", "PDE", "PTE"), FOUR_LEVEL: ("PML4E", "PDPTE", "PDE", "PTE")}
_BITS = (
    (P, "P"),
    (W, "W"),
    (U, "U"),
    (A, "A"),
    (D, "D"),
    (PS, "PS"),
    (NX, "NX"),
    (MIRRORED, "mirrored"),
    (REGION, "region"),
)


def rights(entry: int) -> str:
    """The bits of an entry by name.

    >>> rights(0x67)
    'P W U A D'
    """
    return " ".join(name for bit, name in _BITS if entry & bit) or "-"


def _told(found: Walk, fmt: Format | None) -> tuple[str, ...]:
    if fmt is None:
        return ("paging is off",)
    lines = [
        f"{_LEVELS[fmt][step.level]} {step.address:#x}: {step.entry:#x} {rights(step.entry)}" for step in found.steps
    ]
    end = "not present" if found.physical is None else f"-> {found.physical:#x}"
    return *lines, "a reserved bit is set" if found.reserved else end


@dataclass(frozen=True, slots=True)
class WalkColumn:
    """How one set of page tables, or physical memory, answers for an address."""

    head: str
    lines: tuple[str, ...]


def walk_columns(view: View, text: str) -> tuple[int, list[WalkColumn]]:
    """The address, and its walks: the guest's table, the mirror, and where it is in the machine's RAM.

    One column where no guest is on the processor. Raises BadInput.
    """
    subject = view.subject
    address = Evaluator(subject).number(text)
    guest = subject.mirrored
    processor = subject.processor
    if guest is None or subject.machine.world.value == "host":
        mode = processor.paging_mode
        return address, [WalkColumn(f"CR3 {mode.cr3:#x}", _told(processor.walk(address), mode.format))]
    mode = guest.cpu.paging_mode
    own = walk(mode, guest.cpu.read_physical, address)
    root = guest.space.root
    mirror_mode = PagingMode(1 << 31, root, 1 << 5, 0xD00)
    mirrored = walk(mirror_mode, processor.read_physical, address)
    host = None if own.physical is None else guest.memory.to_host(own.physical)
    physical = "-" if own.physical is None else f"GPA {own.physical:#x}"
    physical += "" if host is None else f" = HPA {host:#x}"
    if own.physical is not None and host is None:
        physical += ", no memory"
    return address, [
        WalkColumn(f"the guest's, CR3 {mode.cr3:#x}", _told(own, mode.format)),
        WalkColumn(f"the mirror's, CR3 {root:#x}", _told(mirrored, FOUR_LEVEL)),
        WalkColumn("physical", (physical,)),
    ]


def page_walk(view: View, text: str) -> str:
    """The walk for an address: the guest's table, the mirror, and where it is in the machine's RAM."""
    address, walks = walk_columns(view, text)
    if len(walks) == 1:
        return "\n".join([f"{address:#x}, through {walks[0].head}", *walks[0].lines])
    rows = list(zip_longest(*(each.lines for each in walks), fillvalue=""))
    return f"{address:#x}\n" + columns(rows, head=[each.head for each in walks])


@dataclass(frozen=True, slots=True)
class PageRun:
    """Neighbouring pages with the same rights: the linear addresses of its first and last byte."""

    first: int
    last: int
    what: str
    """REGION, "guest", "guest, hidden" (mapped by the guest only), "free" or, without a mirror, nothing."""
    rights: str

    @property
    def pages(self) -> int:
        return (self.last + 1 - self.first) // PAGE_SIZE

    def cells(self) -> tuple[str, str]:
        """Its addresses as text."""
        return f"{self.first:#x}", f"{self.last:#x}"


@dataclass(frozen=True, slots=True)
class RegionPlace:
    """Where the region is, and where it was until its last move (which was at a cycle)."""

    base: int
    pages: int
    before: int | None = None
    moved_at: int = 0

    @staticmethod
    def last(base: int, pages: int) -> int:
        """The address of the last byte of so many pages."""
        return base + pages * PAGE_SIZE - 1


@dataclass(frozen=True, slots=True)
class AddressMap:
    """What is mapped where. ``region`` is None unless a mirror is loaded; ``holes`` are those with room for it."""

    cr3: int
    is_paged: bool
    runs: tuple[PageRun, ...]
    region: RegionPlace | None = None
    holes: tuple[PageRun, ...] = ()


def mapped(view: View) -> AddressMap:
    """The address space that the processor is in."""
    subject = view.subject
    guest = subject.mirrored
    if guest is None or subject.machine.world.value == "host":
        mode = subject.processor.paging_mode
        runs = _runs(_pages(mode, subject.processor.read_physical))
        return AddressMap(mode.cr3, runs is not None, tuple(_run(*run, "") for run in runs or ()))
    region = guest.space.region
    entries = ((linear, entry) for linear, entry in guest.space.mirror.kernel.entries())
    marked = [(linear, PAGE_SIZE, entry & (P | W | U | NX | REGION | MIRRORED)) for linear, entry in entries]
    last = _last_move(view)
    moved = () if last is None else (last.old, last.at)
    return AddressMap(
        guest.space.root,
        True,
        tuple(_run(start, size, entry, _what(entry)) for start, size, entry in _joined(marked)),
        RegionPlace(region.base, region.pages, *moved),
        tuple(
            PageRun(start, start + pages * PAGE_SIZE - 1, "free", "")
            for start, pages in guest.space.mirror.space.holes(region.pages)
        ),
    )


def address_map(view: View) -> str:
    """What is mapped where, as runs of pages with the same rights; the region, and the holes that it could go to."""
    found = mapped(view)
    if not found.is_paged:
        return "Paging is off: every linear address is a physical one."
    region = found.region
    if region is None:
        rows = [(*run.cells(), f"{run.pages:,} pages", run.rights) for run in found.runs]
        return "\n".join([f"what CR3 {found.cr3:#x} maps", columns(rows)])
    parts = [f"the region: {region.base:#x} to {region.last(region.base, region.pages):#x}, {region.pages} pages"]
    if region.before is not None:
        end = region.last(region.before, region.pages)
        parts.append(f"  until event Relocated at cycle {region.moved_at:,}: {region.before:#x} to {end:#x}")
    parts += ["", "the mirror (what the guest maps, as far as it has been looked at, and the region)"]
    parts.append(columns([(*run.cells(), run.what, run.rights) for run in found.runs]))
    parts += ["", f"holes of the guest's own tables with room for the region ({len(found.holes)})"]
    parts.append(columns([(*hole.cells(), hole.what, f"{hole.pages:,} pages") for hole in found.holes]))
    return "\n".join(parts)


def _what(entry: int) -> str:
    return "REGION" if entry & REGION else "guest" if entry & P else "guest, hidden"


def _last_move(view: View) -> events.Relocated | None:
    return next((event for _, event in reversed(view.watchman.history) if isinstance(event, events.Relocated)), None)


def _run(start: int, size: int, entry: int, what: str) -> PageRun:
    return PageRun(start, start + size - 1, what, rights(entry & (P | W | U | NX)))


def _runs(pages: Iterator[tuple[int, int, int]] | None) -> list[tuple[int, int, int]] | None:
    return None if pages is None else _joined(list(pages))


def _joined(pages: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """(address, size, rights) in order, neighbours of the same rights as one."""
    runs: list[tuple[int, int, int]] = []
    for address, size, entry in pages:
        if runs and runs[-1][0] + runs[-1][1] == address and runs[-1][2] == entry:
            runs[-1] = (runs[-1][0], runs[-1][1] + size, entry)
        else:
            runs.append((address, size, entry))
    return runs


def _pages(mode: PagingMode, read: ReadEntry) -> Iterator[tuple[int, int, int]] | None:
    fmt = mode.format
    if fmt is None:
        return None
    return _below(mode, fmt, read, 0, mode.cr3 & fmt.root_mask, 0, P | W | U)


def _below(
    mode: PagingMode, fmt: Format, read: ReadEntry, level: int, table: int, base: int, above: int
) -> Iterator[tuple[int, int, int]]:
    shift, bits = fmt.levels[level]
    for index in range(1 << bits):
        entry = read(table + index * fmt.entry_size, fmt.entry_size)
        if entry is None or not entry & P:
            continue
        linear = base | index << shift
        if level == 0 and fmt is FOUR_LEVEL and index >= 256:
            linear |= 0xFFFF << 48
        combined = above if fmt is PAE and level == 0 else above & entry | (above | entry) & NX
        leaf = level == fmt.depth - 1 or (entry & PS and mode.allows_large(fmt, level))
        if leaf:
            yield linear, 1 << shift, combined & (P | W | U | NX)
        else:
            yield from _below(mode, fmt, read, level + 1, entry & fmt.frame_mask, linear, combined)


def conflicts(view: View) -> str:
    """Every move of the region, with the address that the guest wanted."""
    rows: list[tuple[str, ...]] = []
    cause: events.Conflict | None = None
    for position, event in view.watchman.history:
        match event:
            case events.Conflict():
                cause = event
            case events.Relocated():
                wanted = f"{cause.address:#x}" if cause is not None else "-"
                why = cause.cause if cause is not None else ""
                rows.append(
                    (
                        str(len(rows) + 1),
                        repr(position),
                        f"{event.at:,}",
                        f"{event.old:#x}",
                        f"{event.new:#x}",
                        wanted,
                        why,
                    )
                )
                cause = None
    if not rows:
        return "The region has not moved so far."
    return columns(rows, head=("no", "position", "cycle", "from", "to", "the guest maps", "by"))
