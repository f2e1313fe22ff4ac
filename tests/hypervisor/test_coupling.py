"""The save area, and decouple then recouple = the identity on every setting and every byte outside the save area."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvproto import events
from hvproto.addresses import HPA
from hvproto.events import Event, EventBus
from hvproto.hypervisor.coupling import Coupling, Replacement
from hvproto.hypervisor.plan import Provider
from hvproto.hypervisor.save_area import HEADER, SIZE, SaveArea, SaveAreaError
from hvproto.machine.ram import MIB, Ram
from hvproto.processor.processor import Processor
from hvproto.processor.segments import Segment, TableRegister
from hvproto.processor.settings import CR0_ET, CR0_PE, CR0_WP, CR4_PSE, EFER_NXE, Setting, SettingValue

PLACE = HPA(0x3000)
_u32 = st.integers(0, 0xFFFF_FFFF)
_tables = st.builds(TableRegister, _u32, st.integers(0, 0xFFFF))
_segments = st.builds(Segment, st.integers(0, 0xFFFF), _u32, _u32, _u32.map(lambda value: value & 0x00F0_FF00))


def _values(setting: Setting) -> st.SearchStrategy[SettingValue]:
    if setting.kind is TableRegister:
        return _tables
    return _segments if setting.kind is Segment else st.integers(0, (1 << 64) - 1)


_saved = st.fixed_dictionaries({}, optional={setting: _values(setting) for setting in Setting})


@given(_saved, st.randoms(use_true_random=False))
def test_save_area_round_trip(values: dict[Setting, SettingValue], rng: random.Random) -> None:
    ram = bytearray(b"\xa5" * 0x6000)
    area = SaveArea(memoryview(ram), PLACE)
    order = list(values)
    rng.shuffle(order)
    area.save({Setting.CR0: 5, Setting.CR3: 6, Setting.IDTR: TableRegister(1, 2)})
    places = area.save({setting: values[setting] for setting in order})
    assert area.decode() == values and list(area.decode()) == order
    assert area.load(values) == {setting: (value, places[setting]) for setting, value in values.items()}
    for setting, place in places.items():
        assert int.from_bytes(ram[place:][:4], "little") == setting, "the identification comes first"
    assert ram[:PLACE] == b"\xa5" * PLACE and ram[PLACE + SIZE :] == b"\xa5" * (0x6000 - PLACE - SIZE)
    for setting in set(Setting) - values.keys():
        with pytest.raises(SaveAreaError, match=setting.name):
            area.load([*order, setting])


@pytest.mark.parametrize(
    "offset, value", [(0, 0), (0, 0x45564152), (4, 65), (4, 0xFFFFFFFF), (HEADER.size, 0), (HEADER.size, 99)]
)
def test_a_corrupt_area_is_refused(offset: int, value: int) -> None:
    ram = bytearray(0x6000)
    area = SaveArea(memoryview(ram), PLACE)
    area.save({Setting.CR3: 0x1000})
    ram[PLACE + offset : PLACE + offset + 4] = value.to_bytes(4, "little")
    with pytest.raises(SaveAreaError):
        area.load([Setting.CR3])


def _processor(engine: str | None) -> Processor:
    ram = Ram(MIB)
    ram.view[:] = random.Random(1).randbytes(MIB)
    processor = Processor(ram.view, engine)
    processor.write_setting(Setting.CR0, CR0_PE | CR0_ET)
    processor.write_setting(Setting.GDTR, TableRegister(0x5000, 0x7F))
    processor.write_setting(Setting.IDTR, TableRegister(0x6000, 0x3FF))
    processor.write_setting(Setting.CR3, 0x9000)
    return processor


OTHERS: dict[Setting, SettingValue] = {
    Setting.IDTR: TableRegister(0x7000, 0x7FF), Setting.GDTR: TableRegister(0x8000, 0xFFF),
    Setting.LDTR: Segment(0x48, 0x8800, 0xFF, 0x8200), Setting.TR: Segment(0x50, 0x8900, 0x67, 0x8900),
    Setting.CR0: CR0_PE | CR0_ET | CR0_WP, Setting.CR3: 0x12000, Setting.CR4: CR4_PSE, Setting.EFER: EFER_NXE,
}  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(replaced=st.sets(st.sampled_from(Setting)), rounds=st.integers(1, 3))
def test_decouple_then_recouple_is_the_identity(engine: str, replaced: set[Setting], rounds: int) -> None:
    processor = _processor(engine)
    seen: list[Event] = []
    bus = EventBus()
    bus.subscribe(seen.append)
    coupling = Coupling(processor, SaveArea(processor.ram, PLACE), bus)
    before = {setting: processor.read_setting(setting) for setting in Setting}
    registers, memory = processor.registers(), bytes(processor.ram)
    replacements = {setting: Replacement(OTHERS[setting], Provider.GUEST) for setting in replaced}
    for _ in range(rounds if replaced else 1):
        coupling.decouple(replacements)
        for setting in Setting:
            expected = OTHERS[setting] if setting in replaced else before[setting]
            assert processor.read_setting(setting) == expected, setting
        assert coupling.save_area.decode() == {setting: before[setting] for setting in replaced}
        if not replaced:
            return
        with pytest.raises(RuntimeError):
            coupling.decouple(replacements)
        coupling.recouple("test")
        with pytest.raises(RuntimeError):
            coupling.recouple("test")
    assert {setting: processor.read_setting(setting) for setting in Setting} == before
    assert processor.registers() == registers
    after = bytes(processor.ram)
    assert after[:PLACE] == memory[:PLACE] and after[PLACE + SIZE :] == memory[PLACE + SIZE :]
    for kind in (events.SettingSaved, events.SettingReplaced, events.SettingRestored):
        assert len([e for e in seen if isinstance(e, kind)]) == rounds * len(replaced)


def test_recoupling_reads_memory_and_nothing_else(engine: str) -> None:
    processor = _processor(engine)
    area = SaveArea(processor.ram, PLACE)
    coupling = Coupling(processor, area, EventBus())
    coupling.decouple({Setting.CR3: Replacement(0x12000, Provider.HYPERVISOR)})
    area.save({Setting.CR3: 0x15000})
    coupling.recouple("test")
    assert processor.read_setting(Setting.CR3) == 0x15000
    coupling.decouple({Setting.IDTR: Replacement(TableRegister(0, 0), Provider.HYPERVISOR)})
    processor.ram[PLACE : PLACE + 4] = b"gone"
    with pytest.raises(SaveAreaError):
        coupling.recouple("test")
