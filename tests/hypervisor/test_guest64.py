"""The bundled 64-bit guest, deprivileged over scattered frames: it prints what it prints alone, wherever the region is."""

from __future__ import annotations

import pytest

from hvproto.bundled import kernel_path
from hvproto.events import Relocated
from hvproto.images.load import load_image
from hvproto.machine.ram import MIB
from tests.hypervisor.stage import Stage, bare

MEMORY, RAM, POOL_PAGES = 16 * MIB, 64 * MIB, 2048
LIMIT = 40_000_000
"""Cycles; it needs a tenth of that."""
TABLES = ("pml4", "low_pdpt", "high_pdpt", "edge_pdpt", "directory", "low_table", "demand_table", "top_directory")


@pytest.mark.parametrize("moving", [False, True], ids=["where it is", "moving at every exit"])
@pytest.mark.parametrize("engine", ["native", "portable"])
def test_it_prints_what_it_prints_alone(engine: str, moving: bool) -> None:
    image = load_image(str(kernel_path("guest64")))
    alone = bare(image, engine, memory=MEMORY, limit=LIMIT)
    stage = Stage(image, engine, memory=MEMORY, pool_pages=POOL_PAGES, ram_size=RAM)
    places = stage.move_at_every_exit() if moving else []
    assert stage.run(LIMIT) == alone.status == 0, stage.error
    assert bytes(stage.output) == bytes(alone.output)
    assert bytes(stage.output).endswith(b"guest64: done\n")
    hosted, ram = stage.guest_ram(), alone.guest_ram()
    for name in TABLES:
        start = image.symbols[name]
        assert hosted[start : start + 4096] == ram[start : start + 4096], name
    stage.check_host_untouched()
    # It has driven the region out of the first 4 GiB, and out of the upper half.
    conflicts = {event.new >> 47 for event in stage.events if isinstance(event, Relocated)}
    assert conflicts == {0, 0x1FFFF}
    assert len(set(places)) > 30 or not moving
