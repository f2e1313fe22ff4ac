"""Decoupling and recoupling the host (WO0250664, figure 2; claims 9-12, 17, 20-30).

24 read the settings -> 26 save them with their identification -> 28 load others -> ... -> 30 read
them back from memory and restore. Always of a named *set* of settings: the host stays coupled for
every function whose setting isn't in the set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hvproto import events
from hvproto.events import EventBus
from hvproto.hypervisor.plan import Provider
from hvproto.hypervisor.save_area import SaveArea
from hvproto.processor.processor import Processor
from hvproto.processor.settings import Setting, SettingValue, describe, pack_all


@dataclass(frozen=True, slots=True)
class Replacement:
    """What a setting is replaced by while decoupled, and whose it is."""

    value: SettingValue
    provider: Provider


# IDTR goes first: from then on no exception can reach a handler of the host's. Then comes what a page walk depends on,
# CR0 last of that, and the tables that live in linear memory when that memory is in place. Back it goes the other way.
_LOAD_ORDER = (
    Setting.IDTR,
    Setting.EFER,
    Setting.CR4,
    Setting.CR3,
    Setting.CR0,
    Setting.GDTR,
    Setting.LDTR,
    Setting.TR,
)
_LOADED_NAMES = tuple(setting.name for setting in _LOAD_ORDER)


class Coupling:
    """The host's hold on the processor, setting by setting."""

    def __init__(self, processor: Processor, save_area: SaveArea, bus: EventBus, guest: int = 0) -> None:
        """``guest`` is the number of the guest that gets the processor, for the events."""
        self.processor = processor
        self.save_area = save_area
        self._bus = bus
        self._guest = guest
        self._decoupled: tuple[Setting, ...] = ()
        self._packed: tuple[Mapping[Setting, Replacement], bytes] = ({}, b"")
        """The replacements that were packed last, and their records: they seldom change between two stays."""

    @property
    def decoupled(self) -> tuple[Setting, ...]:
        """The settings that are not the host's now; empty while the host is coupled."""
        return self._decoupled

    def decouple(
        self, replacements: Mapping[Setting, Replacement], exchange: Callable[[], None] = lambda: None
    ) -> None:
        """Save the host's value of each of these settings to RAM, then load the replacements.

        ``exchange`` is called in between, to bring in the other side's user-level state (general and
        segment registers, EIP): coupling itself leaves that alone. Raises RuntimeError if the host
        is decoupled already.
        """
        if self._decoupled:
            raise RuntimeError("the host is decoupled already")
        if self._decouple_at_once(replacements, exchange):
            return
        processor, now = self.processor, self.processor.now
        order = tuple(setting for setting in _LOAD_ORDER if setting in replacements)
        old = {setting: processor.read_setting(setting) for setting in sorted(order)}
        saved = self.save_area.save(old)
        for setting, place in saved.items() if self._bus.wants(events.SettingSaved) else ():
            self._bus.emit(events.SettingSaved(now, setting.name, int(setting), describe(old[setting]), place))
        host_eip = processor.eip
        exchange()
        for setting in order:
            new = replacements[setting]
            processor.write_setting(setting, new.value)
            if not self._bus.wants(events.SettingReplaced):
                continue
            self._bus.emit(
                events.SettingReplaced(
                    now, setting.name, describe(old[setting]), describe(new.value), str(new.provider)
                )
            )
        processor.engine.flush_tlb()
        self._decoupled = order
        self._bus.emit(events.Decoupled(now, tuple(setting.name for setting in order), host_eip, self._guest))

    def recouple(self, reason: str, *, temporary: bool = False, exchange: Callable[[], None] = lambda: None) -> None:
        """Write back what the save area in RAM says, whatever it says now.

        ``exchange`` brings the host's user-level state back before that.
        Raises SaveAreaError if the area no longer holds a setting that is decoupled, RuntimeError
        if the host is coupled already.
        """
        if not self._decoupled:
            raise RuntimeError("the host is coupled already")
        if self._recouple_at_once(reason, temporary, exchange):
            return
        processor, now = self.processor, self.processor.now
        records = self.save_area.load(self._decoupled[::-1])
        old = {setting: processor.read_setting(setting) for setting in records}
        exchange()
        for setting, (value, place) in records.items():
            processor.write_setting(setting, value)
            if not self._bus.wants(events.SettingRestored):
                continue
            self._bus.emit(events.SettingRestored(now, setting.name, describe(old[setting]), describe(value), place))
        processor.engine.flush_tlb()
        self._decoupled = ()
        self._bus.emit(events.Recoupled(now, reason, temporary))

    # -- all settings at once ----------------------------------------------------------------
    # Setting by setting, the two together take some 250 empty Python hooks; at once, 5. Not where somebody listens to
    # the settings: then each is told where it is done.

    def _decouple_at_once(self, replacements: Mapping[Setting, Replacement], exchange: Callable[[], None]) -> bool:
        """False, and nothing done, where it has to be done setting by setting."""
        bus, bulk, area = self._bus, self.processor.engine.bulk, self.save_area
        if bulk is None or len(replacements) != len(_LOAD_ORDER):
            return False
        heard = bool(bus.subscribers)
        if heard and bus.wants_any(events.SettingSaved, events.SettingReplaced):
            return False
        bulk.save(area.records)
        area.note_all()
        known, records = self._packed
        if known != replacements:
            records = pack_all({setting: new.value for setting, new in replacements.items()})
            self._packed = dict(replacements), records
        wanted = heard and bus.wants(events.Decoupled)
        now, host_eip = (self.processor.now, self.processor.eip) if wanted else (0, 0)
        exchange()
        if not bulk.load_packed(records):
            for setting in _LOAD_ORDER:
                self.processor.write_setting(setting, replacements[setting].value)
            self.processor.engine.flush_tlb()
        self._decoupled = _LOAD_ORDER
        if wanted:
            bus.emit(events.Decoupled(now, _LOADED_NAMES, host_eip, self._guest))
        return True

    def _recouple_at_once(self, reason: str, temporary: bool, exchange: Callable[[], None]) -> bool:
        """False, and nothing done, where it has to be done setting by setting."""
        bus, bulk, area = self._bus, self.processor.engine.bulk, self.save_area
        if bulk is None or self._decoupled is not _LOAD_ORDER or not area.has_all:
            return False
        heard = bool(bus.subscribers)
        if heard and bus.wants(events.SettingRestored):
            return False
        wanted = heard and bus.wants(events.Recoupled)
        now = self.processor.now if wanted else 0
        exchange()
        if not bulk.load(area.records):
            for setting, (value, _) in area.load(_LOAD_ORDER[::-1]).items():
                self.processor.write_setting(setting, value)
            self.processor.engine.flush_tlb()
        self._decoupled = ()
        if wanted:
            bus.emit(events.Recoupled(now, reason, temporary))
        return True
