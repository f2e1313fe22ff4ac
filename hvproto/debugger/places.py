"""Where the memory of a world is: its linear addresses, through its own settings, to the machine's RAM."""

from __future__ import annotations

from hvproto.debugger.debuggee import View
from hvproto.debugger.subject import Subject
from hvproto.errors import World
from hvproto.hypervisor.save_area import SaveAreaError
from hvproto.processor.cpu import Cpu
from hvproto.processor.paging import PagingMode, walk
from hvproto.processor.settings import Setting, SettingValue


def world_settings(subject: Subject, world: World) -> dict[Setting, SettingValue]:
    """The settings that a world has, or will have once it has the processor again."""
    processor, coupling = subject.processor, subject.coupling
    loaded = {setting: processor.read_setting(setting) for setting in Setting}
    if coupling is None:
        return loaded
    decoupled = coupling.decoupled
    guest = subject.mirrored
    if world is World.HOST and decoupled:
        try:
            return loaded | {
                setting: value for setting, value in coupling.save_area.decode().items() if setting in decoupled
            }
        except SaveAreaError:
            return loaded
    if world is World.GUEST and guest is not None:
        return {setting: guest.cpu.read_setting(setting) for setting in Setting}
    if world is World.GUEST and not decoupled and subject.guest is not None:
        return loaded | getattr(subject.guest, "settings", {})
    return loaded


def places_of(
    view: View, world: World | None, address: int, size: int, *, physical: bool = False
) -> list[tuple[int, int]]:
    """(host-physical address, bytes) of a range of a world's memory, as far as it is mapped to RAM.

    Without a world: of the one that has the processor.
    """
    subject = view.subject
    world = world or subject.machine.world
    length = len(subject.machine.ram.view)
    if physical:
        return [(address, min(size, length - address))] if 0 <= address < length else []
    mode, cpu = _space(subject, world)
    guest = subject.mirrored
    places = []
    while size > 0:
        found = walk(mode, cpu.read_physical, address & _mask(mode))
        at = found.physical
        if at is not None and guest is not None and cpu is guest.cpu:
            at = guest.memory.to_host(at)
        count = min(size, 0x1000 - (address & 0xFFF))
        if at is None or at + count > length:
            break
        places.append((at, count))
        address, size = address + count, size - count
    return places


def _mask(mode: PagingMode) -> int:
    return (1 << 64) - 1 if mode.efer & 1 << 10 else 0xFFFF_FFFF


def _space(subject: Subject, world: World) -> tuple[PagingMode, Cpu]:
    """The page tables of a world, and whose physical memory they are in."""
    guest = subject.mirrored
    if world is World.GUEST and guest is not None:
        return guest.cpu.paging_mode, guest.cpu
    settings = world_settings(subject, world)
    words = [settings[setting] for setting in (Setting.CR0, Setting.CR3, Setting.CR4, Setting.EFER)]
    cr0, cr3, cr4, efer = (word if isinstance(word, int) else 0 for word in words)
    return PagingMode(cr0, cr3, cr4, efer), subject.processor
