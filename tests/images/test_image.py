from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.addresses import GPA
from hvproto.images.image import NAME_REACH, Image, Segment, Symbols


def test_segment_knows_its_extent() -> None:
    segment = Segment(GPA(0x1000), b"ab", 16)
    assert (segment.end, 0x100F in segment, 0x1010 in segment) == (0x1010, True, False)
    with pytest.raises(ValueError, match="can't hold"):
        Segment(GPA(0), b"abc", 2)


def test_image_extent_and_reading() -> None:
    image = Image("k", "flat", (Segment(GPA(0x3000), b"x", 4), Segment(GPA(0x1000), b"y", 1)), GPA(0x1000))
    assert (image.start, image.end, image.size) == (0x1000, 0x3004, 0x2004)
    assert image.read(0x3000, 4) == b"x\0\0\0"
    with pytest.raises(LookupError, match="aren't in k"):
        image.read(0x1000, 2)


def test_symbols_are_a_mapping_in_address_order() -> None:
    symbols = Symbols({"b": 0x20, "a": 0x10, "also_a": 0x10})
    assert list(symbols) == ["a", "also_a", "b"]
    assert (symbols["b"], symbols.get("c"), "a" in symbols, len(symbols)) == (0x20, None, True, 3)
    assert symbols.name_at(0x10) == "a"


def test_names_end_with_the_segment() -> None:
    symbols = Symbols({"a": 0x1000, "b": 0x3000}, ((0x1000, 0x2000), (0x3000, 0x4000)))
    assert symbols.name_at(0x1FFF) == "a+0xfff"
    assert symbols.name_at(0x2000) is None
    assert symbols.name_at(0x3000) == "b"
    assert symbols.name_at(0x4000) is None


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 1 << 18)), st.integers(0, 1 << 18))
def test_name_at_is_the_nearest_symbol_before(table: dict[str, int], address: int) -> None:
    name = Symbols(table).name_at(address)
    nearest = max((value for value in table.values() if value <= address), default=None)
    if nearest is None or address - nearest > NAME_REACH:
        assert name is None
    else:
        assert name is not None
        base, _, distance = name.partition("+")
        assert (table[base], int(distance or "0", 16)) == (nearest, address - nearest)
