"""What a failed test shows of its run: the last events, the save area, and the address that faulted in both views."""

from __future__ import annotations

from collections.abc import Iterator

from hvproto.events import ExceptionTaken, SettingReplaced, SettingRestored, SettingSaved
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.save_area import SaveAreaError
from hvproto.processor.paging import PagingMode, Walk, walk
from hvproto.processor.settings import describe
from hvproto.testing.hv import Hv

EVENTS = 12
"""How many of the last events are shown."""
SETTINGS = (SettingSaved, SettingReplaced, SettingRestored)
"""Not among them: there are eight of each in every switch, and `Decoupled` and `Recoupled` say as much."""
_MIRROR_CR0, _MIRROR_CR4, _MIRROR_EFER = 1 << 31, 1 << 5, 0xD00
"""Paging, PAE, long mode: the mirror is always 4-level tables."""


def sections(hv: Hv) -> Iterator[tuple[str, str]]:
    """Title and text of each section for pytest's report."""
    told = [event for event in hv.events if not isinstance(event, SETTINGS)][-EVENTS:]
    yield "hvproto: last events", "\n".join(event.to_json() for event in told) or "none"
    yield "hvproto: where", _where(hv)
    yield "hvproto: save area", _save_area(hv)
    fault = _last_fault(hv)
    if fault is not None and hv.session.guests and isinstance(hv.guest, MirroredGuest):
        yield f"hvproto: {fault:#x} in both page tables", "\n".join(page_tables(hv.guest, fault))


def _where(hv: Hv) -> str:
    lines = [f"at {hv.now:,} cycles: {hv.machine.where()}", f"plan {hv.session.hypervisor.plan.name}"]
    return "\n".join([*lines, *(f"guest {guest.number}: {guest.where()}" for guest in hv.session.guests)])


def _save_area(hv: Hv) -> str:
    try:
        values = hv.save_area
    except SaveAreaError as error:
        return str(error)
    return "\n".join(f"{setting.name:5} {describe(value)}" for setting, value in values.items()) or "nothing was saved"


def _last_fault(hv: Hv) -> int | None:
    """The GVA of the last page fault: of the one that a hook has raised at, or of the last that is on record."""
    if hv.present_exit is not None and hv.present_exit.address is not None:
        return hv.present_exit.address
    return next((event.cr2 for event in reversed(hv.events) if isinstance(event, ExceptionTaken) and event.cr2), None)


def page_tables(guest: MirroredGuest, linear: int) -> Iterator[str]:
    """The walk for a GVA through the guest's own tables, and through the mirror that is in CR3."""
    own = guest.cpu.paging_mode
    yield f"guest, CR3 {own.cr3:#x}: {_told(walk(own, guest.cpu.read_physical, linear), paging=own.format is not None)}"
    root = guest.space.root
    mode = PagingMode(_MIRROR_CR0, root, _MIRROR_CR4, _MIRROR_EFER)
    found = walk(mode, guest.machine.processor.read_physical, linear)
    yield f"mirror, CR3 {root:#x}: {_told(found, paging=True)}"
    if guest.region.contains(linear):
        yield f"the hypervisor's region is there: {guest.region.base:#x}, {guest.region.pages} pages"


def _told(found: Walk, *, paging: bool) -> str:
    if not paging:
        return "paging is off"
    steps = "  ".join(f"[{step.address:#x}] {step.entry:#x}" for step in found.steps)
    if found.physical is None:
        return f"{steps}  not present"
    rights = ("W" if found.writable else "R") + ("U" if found.user else "S") + ("" if found.no_execute else "X")
    return f"{steps}  -> {found.physical:#x} {rights}"
