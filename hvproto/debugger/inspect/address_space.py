"""Address spaces: page walks in columns, the map with the region and its free room, the history of moves."""

from __future__ import annotations

from collections.abc import Iterator

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


def _told(found: Walk, fmt: Format | None) -> list[str]:
    if fmt is None:
        return ["paging is off"]
    lines = [
        f"{_LEVELS[fmt][step.level]} {step.address:#x}: {step.entry:#x} {rights(step.entry)}" for step in found.steps
    ]
    end = "not present" if found.physical is None else f"-> {found.physical:#x}"
    return [*lines, "a reserved bit is set" if found.reserved else end]


def page_walk(view: View, text: str) -> str:
    """The walk for an address: the guest's table, the mirror, and where it is in the machine's RAM."""
    subject = view.subject
    address = Evaluator(subject).number(text)
    guest = subject.mirrored
    processor = subject.processor
    if guest is None or subject.machine.world.value == "host":
        mode = processor.paging_mode
        found = processor.walk(address)
        return "\n".join([f"{address:#x}, through CR3 {mode.cr3:#x}", *_told(found, mode.format)])
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
    first, second = _told(own, mode.format), _told(mirrored, FOUR_LEVEL)
    length = max(len(first), len(second))
    first += [""] * (length - len(first))
    second += [""] * (length - len(second))
    third = [physical] + [""] * (length - 1)
    heads = (f"the guest's, CR3 {mode.cr3:#x}", f"the mirror's, CR3 {root:#x}", "physical")
    return f"{address:#x}\n" + columns(list(zip(first, second, third, strict=True)), head=heads)


def address_map(view: View) -> str:
    """What is mapped where, as runs of pages with the same rights; the region, and the holes that it could go to."""
    subject = view.subject
    guest = subject.mirrored
    rows: list[tuple[str, ...]]
    if guest is None or subject.machine.world.value == "host":
        runs = _runs(_pages(subject.processor.paging_mode, subject.processor.read_physical))
        if runs is None:
            return "Paging is off: every linear address is a physical one."
        rows = [_row(*run) for run in runs]
        return "\n".join([f"what CR3 {subject.processor.paging_mode.cr3:#x} maps", columns(rows)])
    region = guest.space.region
    entries = ((linear, entry) for linear, entry in guest.space.mirror.kernel.entries())
    marked = [(linear, PAGE_SIZE, entry & (P | W | U | NX | REGION | MIRRORED)) for linear, entry in entries]
    rows = [(*_row(*run)[:2], _what(run[2]), rights(run[2] & ~(MIRRORED | REGION))) for run in _joined(marked)]
    holes = [
        (f"{start:#x}", f"{start + pages * PAGE_SIZE - 1:#x}", "free", f"{pages:,} pages")
        for start, pages in guest.space.mirror.space.holes(region.pages)
    ]
    parts = [f"the region: {region.base:#x} to {region.base + region.size - 1:#x}, {region.pages} pages"]
    last = _last_move(view)
    if last is not None:
        end = last.old + last.pages * PAGE_SIZE - 1
        parts.append(f"  until event Relocated at cycle {last.at:,}: {last.old:#x} to {end:#x}")
    parts += ["", "the mirror (what the guest maps, as far as it has been looked at, and the region)", columns(rows)]
    parts += ["", f"holes of the guest's own tables with room for the region ({len(holes)})", columns(holes)]
    return "\n".join(parts)


def _what(entry: int) -> str:
    return "REGION" if entry & REGION else "guest" if entry & P else "guest, hidden"


def _last_move(view: View) -> events.Relocated | None:
    return next((event for _, event in reversed(view.watchman.history) if isinstance(event, events.Relocated)), None)


def _row(start: int, size: int, entry: int) -> tuple[str, str, str, str]:
    return f"{start:#x}", f"{start + size - 1:#x}", f"{size // PAGE_SIZE:,} pages", rights(entry & (P | W | U | NX))


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
