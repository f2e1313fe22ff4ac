"""The settings of the processor: whose is what, and what the save area in RAM says."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting, as text: the host's value, what the save area holds, what is loaded and who provides that.

    On a bare machine there is but what is loaded.
    """

    name: str
    hosts: str
    saved: str
    loaded: str
    owner: str

    @property
    def differs(self) -> bool:
        """Whether what is loaded isn't the host's."""
        return self.loaded != self.hosts


def setting_rows(view: View) -> list[SettingRow]:
    """All settings, in their order."""
    processor, coupling = view.subject.processor, view.subject.coupling
    hosts, providers = _switch(view)
    try:
        saved = {} if coupling is None else coupling.save_area.decode()
    except SaveAreaError:
        saved = {}
    rows = []
    for setting in Setting:
        loaded = describe(processor.read_setting(setting))
        host = hosts.get(setting.name, loaded)
        owner = providers.get(setting.name, "host")
        record = describe(saved[setting]) if setting in saved else "-"
        rows.append(SettingRow(setting.name, host, record, loaded, owner))
    return rows


def settings(view: View) -> str:
    """Three columns: the host's, the saved, the loaded; `*` marks what is loaded and not the host's."""
    rows = setting_rows(view)
    if view.subject.session is None:
        return columns([(row.name, row.loaded) for row in rows], head=("setting", "loaded now"))
    return columns(
        [(row.name, row.hosts, row.saved, row.loaded, f"{'*' if row.differs else ' '} {row.owner}'s") for row in rows],
        head=("setting", "the host's", "saved in RAM", "loaded now", "  which is the"),
    )


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


@dataclass(frozen=True, slots=True)
class WorldRow:
    """A world: what it is made of, and where it stands."""

    world: World
    made_of: str
    stands: str


def world_rows(view: View) -> list[WorldRow]:
    """The worlds that there are."""
    subject = view.subject
    rows = []
    for world in World:
        image = subject.image(world)
        if world is World.HYPERVISOR and subject.session is None:
            continue
        if world is not World.HYPERVISOR and image is None:
            continue
        made_of = image.path if image is not None else _hypervisor(view)
        rows.append(WorldRow(world, made_of, _stands(view, world)))
    return rows


def worlds(view: View) -> str:
    """The three worlds, and where each stands."""
    here = view.stop.world
    rows = world_rows(view)
    return columns([(">>" if row.world is here else "  ", str(row.world), row.made_of, row.stands) for row in rows])


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
