"""All settings loaded and saved at once, against the same one by one: on all of the processor's state."""

from __future__ import annotations

import ctypes
import random

import pytest

from hvproto.machine.ram import MIB, Ram
from hvproto.processor import private_layout
from hvproto.processor.processor import Processor
from hvproto.processor.segments import Segment, SegmentRegister, TableRegister, flat
from hvproto.processor.settings import (
    CR0_AM,
    CR0_EM,
    CR0_ET,
    CR0_MP,
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR0_WP,
    CR4_DE,
    CR4_FSGSBASE,
    CR4_OSFXSR,
    CR4_OSXMMEXCPT,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    CR4_TSD,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    EFER_SCE,
    EFLAGS_FIXED,
    RECORD,
    Setting,
    SettingValue,
    pack_all,
    unpack_all,
)

pytestmark = pytest.mark.skipif(private_layout.self_check() is not None, reason="no native engine here")

PLACE = 0x3000
SIZE = RECORD.size * len(Setting)
Settings = dict[Setting, SettingValue]
# Of CR0, CR4 and EFER: what makes the mode, and what may be set besides.
MODES = {
    "real": (0, 0, 0), "no paging": (CR0_PE, 0, 0), "two levels": (CR0_PE | CR0_PG, 0, 0),
    "PAE": (CR0_PE | CR0_PG, CR4_PAE, 0), "PAE without paging": (CR0_PE, CR4_PAE, 0),
    "long": (CR0_PE | CR0_PG, CR4_PAE, EFER_LME | EFER_LMA),
}  # fmt: skip
BITS = (
    (CR0_MP, CR0_EM, CR0_TS, CR0_NE, CR0_WP, CR0_AM),
    (CR4_TSD, CR4_DE, CR4_PGE, CR4_PSE, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_FSGSBASE),
    (EFER_SCE, EFER_NXE),
)


def drawn(draw: random.Random, mode: str) -> Settings:
    """Settings of a mode, whatever else they say."""
    cr0, cr4, efer = (
        base | sum(draw.sample(bits, draw.randrange(len(bits) + 1)))
        for base, bits in zip(MODES[mode], BITS, strict=True)
    )
    word = 64 if efer & EFER_LMA else 32
    return {
        Setting.IDTR: TableRegister(draw.getrandbits(word), draw.getrandbits(16)),
        Setting.GDTR: TableRegister(draw.getrandbits(word), draw.getrandbits(16)),
        Setting.LDTR: _segment(draw, word),
        Setting.TR: _segment(draw, word),
        Setting.CR0: cr0 | CR0_ET,
        Setting.CR3: draw.getrandbits(word) & ~0xFFF,
        Setting.CR4: cr4,
        Setting.EFER: efer,
    }


def _segment(draw: random.Random, word: int) -> Segment:
    attributes = draw.getrandbits(32) & 0x00F0_FF00
    return Segment(draw.getrandbits(16), draw.getrandbits(word), draw.getrandbits(32), attributes)


def whole(processor: Processor) -> bytes:
    """All that a saved context has of the processor, byte by byte."""
    _, context = processor.save_context()
    return ctypes.string_at(context.context, context.size)[private_layout.CONTEXT_HEADER :]


def one_by_one(processor: Processor, settings: Settings) -> None:
    for setting, value in settings.items():
        processor.write_setting(setting, value)
    processor.engine.summarize()
    processor.engine.flush_tlb()


def a_processor(draw: random.Random, settings: Settings) -> Processor:
    processor = Processor(Ram(MIB).view, "native")
    one_by_one(processor, settings)
    dpl = draw.choice((0, 3))
    segments = {
        register: flat(draw.randrange(1, 50) << 3 | dpl, code=register is SegmentRegister.CS, dpl=dpl)
        for register in SegmentRegister
    }
    if draw.random() < 0.3:
        data = segments[SegmentRegister.DS]
        segments[SegmentRegister.DS] = Segment(data.selector, 0x1000, data.limit, data.attributes)
    processor.set_segments(segments)
    for index in range(16):
        processor.set_gpr(index, draw.getrandbits(64))
    processor.eip, processor.eflags = draw.getrandbits(64), EFLAGS_FIXED | draw.getrandbits(22) & 0x246CD5
    processor.cr2 = draw.getrandbits(64)
    return processor


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("new", MODES)
@pytest.mark.parametrize("old", MODES)
def test_both_ways_leave_the_same_processor(old: str, new: str, seed: int) -> None:
    draw = random.Random(f"{old} {new} {seed}")
    before, after = drawn(draw, old), drawn(draw, new)
    processor = a_processor(draw, before)
    bulk = processor.engine.bulk
    assert bulk is not None
    context = processor.save_context()
    state = whole(processor)
    bulk.save(PLACE)
    saved = bytes(processor.ram[PLACE : PLACE + SIZE])
    assert saved == bulk.packed() == pack_all({setting: processor.read_setting(setting) for setting in Setting})
    assert whole(processor) == state, "to save changes nothing"

    order = list(after.items())
    draw.shuffle(order)
    one_by_one(processor, dict(order))
    expected = whole(processor)
    processor.restore_context(context)
    processor.engine.summarize()
    assert bulk.load_packed(pack_all(after))
    assert whole(processor) == expected
    # ... and back, from memory.
    one_by_one(processor, dict(unpack_all(saved)))
    expected = whole(processor)
    bulk.load_packed(pack_all(after))
    assert bulk.load(PLACE)
    assert whole(processor) == expected
    assert dict(unpack_all(bulk.packed())) == dict(unpack_all(saved))


ODD: list[tuple[str, dict[Setting, SettingValue]]] = [
    ("long mode without PAE", {Setting.CR4: 0}),
    ("LMA without LME", {Setting.EFER: EFER_LMA}),
    ("LME and paging, but no LMA", {Setting.EFER: EFER_LME}),
    ("LMA without paging", {Setting.CR0: CR0_PE | CR0_ET}),
    ("CR0 without ET", {Setting.CR0: CR0_PE | CR0_PG}),
    ("CR0 of more than 32 bits", {Setting.CR0: 1 << 40 | CR0_PE | CR0_PG | CR0_ET}),
    ("CR4.SMAP", {Setting.CR4: CR4_PAE | 1 << 21}),
    ("CR4.OSXSAVE", {Setting.CR4: CR4_PAE | 1 << 18}),
    ("an unknown bit of EFER", {Setting.EFER: EFER_LME | EFER_LMA | 1 << 12}),
    ("a limit of more than 16 bits", {Setting.IDTR: TableRegister(0, 0x10000)}),
    ("a selector of more than 16 bits", {Setting.TR: Segment(0x1_0008, 0, 0x67, 0x8900)}),
    ("attributes where none are", {Setting.LDTR: Segment(8, 0, 0x67, 0x8201)}),
]


@pytest.mark.parametrize("what, changes", ODD, ids=[what for what, _ in ODD])
def test_what_the_engine_would_not_take_as_it_is_is_refused(what: str, changes: Settings) -> None:
    draw = random.Random(what)
    processor = a_processor(draw, drawn(draw, "PAE"))
    bulk = processor.engine.bulk
    assert bulk is not None
    new = drawn(draw, "long")
    before = whole(processor)
    assert not bulk.load_packed(pack_all(new | changes))
    assert whole(processor) == before
    assert bulk.load_packed(pack_all(new))


@pytest.mark.parametrize("record", range(len(Setting)))
def test_records_that_are_not_all_there_are_refused(record: int) -> None:
    draw = random.Random(record)
    processor = a_processor(draw, drawn(draw, "PAE"))
    bulk = processor.engine.bulk
    assert bulk is not None
    bulk.save(PLACE)
    assert bulk.load(PLACE)
    processor.ram[PLACE + record * RECORD.size] ^= 1 << draw.randrange(8)
    before = whole(processor)
    assert not bulk.load(PLACE)
    assert whole(processor) == before
