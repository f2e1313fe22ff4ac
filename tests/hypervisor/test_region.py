"""The region's tables fit wherever it lies, in both layouts."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.addresses import GVA, PAGE_SIZE
from hvproto.hypervisor.layout import FULL, SMALL, Layout
from hvproto.hypervisor.plan import Plan, Provider
from hvproto.hypervisor.region import Region
from hvproto.hypervisor.region_form import STUB_SIZE
from hvproto.processor.engine import VECTORS_WITH_ERROR_CODE
from tests.hypervisor.mirror_model import canonical, shuffled_frames


def _region(layout: Layout) -> tuple[bytearray, Region]:
    ram = bytearray(0x20000)
    return ram, Region(memoryview(ram), shuffled_frames(layout.pages, 3, len(ram)), layout)


def _content(ram: bytearray, region: Region) -> bytes:
    return b"".join(bytes(ram[frame : frame + PAGE_SIZE]) for frame in region.frames)


@pytest.mark.parametrize("layout", [FULL, SMALL], ids=["full", "small"])
@given(page=st.integers(1, (1 << 36) - 8))
def test_rebase_makes_every_linear_address_fit(layout: Layout, page: int) -> None:
    ram, region = _region(layout)
    stubs = slice(layout.stubs, layout.stubs + layout.vectors * STUB_SIZE)
    before = _content(ram, region)[stubs]
    base = canonical(page << 12)
    region.rebase(GVA(base))
    content = _content(ram, region)
    assert content[stubs] == before, "the stubs hold no address"
    assert (region.idtr.base, region.idtr.limit) == (base + layout.idt, layout.vectors * 16 - 1)
    for vector in range(layout.vectors):
        low, selector, kind, middle, high, zero = struct.unpack_from("<HHHHII", content, layout.idt + vector * 16)
        target = high << 32 | middle << 16 | low
        assert selector == layout.code_selector and kind & 0x9FFF == 0x8E00 and zero == 0
        assert target == base + layout.stubs + vector * STUB_SIZE == region.stub(vector)
        assert (kind >> 13 & 3 == 3) is (vector >= 32 or vector in (3, 4)), "INT n of an exception stays closed"
        code = content[layout.stubs + vector * STUB_SIZE :][:STUB_SIZE]
        error = b"" if vector in VECTORS_WITH_ERROR_CODE else b"\x6a\x00"
        assert code.startswith(error + b"\x68" + struct.pack("<I", vector) + b"\xf4")
    assert struct.unpack_from("<Q", content, layout.tss + 4)[0] == base + layout.stack_top == region.stack_top
    for kernel, place in ((True, layout.gdt_kernel), (False, layout.gdt_user)):
        assert region.gdtr(kernel=kernel).base == base + place
        word, upper = struct.unpack_from("<QQ", content, place + layout.tss_selector)
        at = word >> 16 & 0xFF_FFFF | word >> 32 & 0xFF00_0000 | upper << 32
        assert at == base + layout.tss == region.tr.base and word & 0xFFFF == 0x67
    assert region.contains(base) and region.contains(base + layout.pages * PAGE_SIZE - 1)
    assert not region.contains(base - 1) and not region.contains(base + layout.pages * PAGE_SIZE)


def test_routed_vectors_survive_a_move() -> None:
    ram, region = _region(FULL)
    theirs = bytes(range(256)) * 16
    region.route(Plan.parse("mirrored,vector.14=host,vector.33=guest"), {Provider.HOST: theirs, Provider.GUEST: b""})
    region.rebase(GVA(0x5000_0000))
    idt = _content(ram, region)[FULL.idt : FULL.idt + 0x1000]
    assert idt[14 * 16 : 15 * 16] == theirs[14 * 16 : 15 * 16]
    assert idt[33 * 16 : 34 * 16] == bytes(16), "beyond the end of its owner's table: not present"
    assert struct.unpack_from("<H", idt, 13 * 16)[0] == region.stub(13) & 0xFFFF
