"""The settings of the processor: whose is what, and what the save area in RAM says."""

from __future__ import annotations

from hvproto import events
from hvproto.debugger.debuggee import View
from hvproto.debugger.inspect.table import columns
from hvproto.errors import World
from hvproto.hypervisor.save_area import HEADER, SaveAreaError
from hvproto.processor.settings import RECORD, Setting, describe


def _switch(view: View) -> tuple[dict[str, str], dict[str, str]]:
    """Since the host was coupled last: each setting's value of the host's, and who provides what replaced it."""
    saved: dict[str, str] = {}
    providers: dict[str, str] = {}
    restored: set[str] = set()
    for _, event in reversed(view.watchman.history):
        match event:
            case events.Recoupled():
                break
            case events.SettingRestored():
                restored.add(event.setting)
            case events.SettingReplaced():
                if event.setting not in restored:
                    providers[event.setting] = event.provider
            case events.SettingSaved():
                saved[event.setting] = event.value
    return saved, providers


def settings(view: View) -> str:
    """Three columns: the host's, the saved, the loaded; `*` marks what is loaded and not the host's."""
    processor, coupling = view.subject.processor, view.subject.coupling
    hosts, providers = _switch(view)
    try:
        saved = {} if coupling is None else coupling.save_area.decode()
    except SaveAreaError:
        saved = {}
    rows: list[tuple[str, ...]] = []
    for setting in Setting:
        loaded = describe(processor.read_setting(setting))
        host = hosts.get(setting.name, loaded)
        whose = providers.get(setting.name, "")
        owner = "host's" if not whose else f"{whose}'s"
        if view.subject.session is None:
            rows.append((setting.name, loaded))
            continue
        record = describe(saved[setting]) if setting in saved else "-"
        rows.append((setting.name, host, record, loaded, f"{'*' if loaded != host else ' '} {owner}"))
    if view.subject.session is None:
        return columns(rows, head=("setting", "loaded now"))
    return columns(rows, head=("setting", "the host's", "saved in RAM", "loaded now", "  which is the"))


def save_area(view: View) -> str:
    """Every record of the save area, decoded and in hexadecimal."""
    coupling = view.subject.coupling
    if coupling is None:
        return "There is no save area yet: the host has not been decoupled so far."
    area = coupling.save_area
    ram = view.subject.machine.ram.view
    header = bytes(ram[area.place : area.place + HEADER.size])
    lines = [f"save area at HPA {area.place:#010x}, header {header.hex(' ', 4)}"]
    try:
        decoded = area.decode()
    except SaveAreaError as error:
        return "\n".join([*lines, str(error)])
    rows = []
    for index, (setting, value) in enumerate(decoded.items()):
        at = area.place + HEADER.size + index * RECORD.size
        raw = bytes(ram[at : at + RECORD.size])
        rows.append((f"{at:#010x}", str(int(setting)), setting.name, describe(value), raw.hex(" ", 4)))
    return "\n".join([*lines, columns(rows, head=("HPA", "id", "setting", "value", "bytes"))])


def worlds(view: View) -> str:
    """The three worlds, and where each stands."""
    subject = view.subject
    here = view.stop.world
    rows = []
    for world in World:
        image = subject.image(world)
        if world is World.HYPERVISOR and subject.session is None:
            continue
        if world is not World.HYPERVISOR and image is None:
            continue
        mark = ">>" if world is here else "  "
        rows.append((mark, str(world), image.path if image is not None else _hypervisor(view), _stands(view, world)))
    return columns(rows)


def _hypervisor(view: View) -> str:
    guest = view.subject.mirrored
    return "Python" if guest is None else f"Python; region at {guest.space.region.base:#x}"


def _stands(view: View, world: World) -> str:
    from hvproto.debugger.inspect.registers import registers_of

    if world is World.HYPERVISOR:
        coupling = view.subject.coupling
        if coupling is None:
            return "not entered yet"
        _, providers = _switch(view)
        return f"has replaced {', '.join(reversed(list(providers)))}" if providers else "the host is coupled"
    values = registers_of(view.subject, world)
    if values is None:
        return "has not run yet"
    eip = values.get("eip", values.get("rip", 0))
    symbol = view.subject.symbol_at(eip, world)
    on = "on the processor" if world is view.subject.machine.world else "state saved"
    return f"at {eip:#010x}{f' ({symbol})' if symbol else ''}, {on}"
