"""Descriptors and gates as numbers: encoding and decoding are inverse, and agree with the processor."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvproto.processor.segments import (
    ATTRIBUTE_MASK,
    GRANULARITY,
    Segment,
    decode_descriptor,
    encode_descriptor,
    encode_gate,
    flat,
)
from tests.support.bench import DATA, GDT, Bench

attributes = st.integers(0, 0xFFFF_FFFF).map(lambda value: value & ATTRIBUTE_MASK)


@given(st.integers(0, 0xFFFF), st.integers(0, (1 << 64) - 1))
def test_encoding_undoes_decoding(selector: int, descriptor: int) -> None:
    segment = decode_descriptor(selector, descriptor)
    assert segment.selector == selector
    assert encode_descriptor(segment) == descriptor


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF), st.integers(0, 0xFFFFF), attributes)
def test_decoding_undoes_encoding(selector: int, base: int, limit: int, bits: int) -> None:
    if bits & GRANULARITY:
        limit = limit << 12 | 0xFFF
    segment = Segment(selector, base, limit, bits)
    assert decode_descriptor(selector, encode_descriptor(segment)) == segment


@given(st.integers(0x10_0000, 0xFFFF_FFFF))
def test_a_large_limit_is_rounded_up_to_pages(limit: int) -> None:
    decoded = decode_descriptor(8, encode_descriptor(Segment(8, 0, limit, 0x9200)))
    assert decoded.limit == limit | 0xFFF
    assert decoded.attributes & GRANULARITY


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF), st.integers(0, 3), st.booleans(), st.booleans())
def test_a_gate_has_its_parts_where_the_manual_says(
    selector: int, offset: int, dpl: int, trap: bool, present: bool
) -> None:
    data = encode_gate(selector, offset, dpl=dpl, trap=trap, present=present).to_bytes(8, "little")
    assert int.from_bytes(data[0:2] + data[6:8], "little") == offset
    assert int.from_bytes(data[2:4], "little") == selector
    assert data[4] == 0
    assert data[5] == (0x0F if trap else 0x0E) | dpl << 5 | present << 7


def test_the_properties_of_a_flat_segment() -> None:
    code, data = flat(0x1B, code=True, dpl=3), flat(0x10, code=False, dpl=0)
    assert (code.is_code, code.is_conforming, code.is_readable, code.is_writable_data) == (True, False, True, False)
    assert (data.is_code, data.is_readable, data.is_writable_data, data.is_32bit) == (False, True, True, True)
    assert (code.dpl, code.rpl, data.dpl, data.rpl) == (3, 3, 0, 0)
    assert code.present and not code.is_system
    assert code.with_dpl(1).dpl == 1 and code.with_dpl(1).with_dpl(3) == code
    assert not Segment(0).present


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 0xFFFF_FFFF), st.integers(0, 0xFFFFF), st.booleans(), st.sampled_from((0x92, 0xF2, 0x9A, 0xFA)))
def test_the_processor_loads_what_decoding_says(engine: str, base: int, limit: int, big: bool, access: int) -> None:
    """LSL and LAR tell limit and attributes; an access through the segment its base."""
    bench = Bench(engine)
    high = (base & 0xFF00_0000) | (base >> 16 & 0xFF) | (limit & 0xF0000) | access << 8 | big << 23 | 1 << 22
    low = (limit & 0xFFFF) | (base & 0xFFFF) << 16
    bench.store(GDT + 0x70, low, high)
    expected = decode_descriptor(0x70, high << 32 | low)
    bench.store(DATA, 0xCAFE)
    bench.go(
        f"mov ecx, 0x70\nlsl eax, ecx\nlar ebx, ecx\nmov fs, cx\nmov edi, {(DATA - base) % (1 << 32)}\n"
        "mov edx, fs:[edi]\nhlt"
    )
    assert bench.cpu.gpr(0) == expected.limit
    assert bench.cpu.gpr(3) & ATTRIBUTE_MASK == expected.attributes
    assert bench.cpu.gpr(2) == 0xCAFE
