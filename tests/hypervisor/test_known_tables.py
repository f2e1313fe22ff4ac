"""Page tables that were mirrored before: what comes of them is what comes of a translation, whatever has changed since."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hvproto.addresses import GPA, HPA, PAGE_SIZE
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.known_tables import FEW, KnownTables
from hvproto.hypervisor.mirror import Mirror
from hvproto.hypervisor.pool import Pool
from hvproto.machine.ram import MIB, Ram
from hvproto.processor.paging import PagingMode
from hvproto.processor.settings import CR0_PE, CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, EFER_NXE

PAGES = 4 * MIB // PAGE_SIZE
TABLES = 0x10_0000
WINDOW = 0x1000_0000


class Rig:
    """A root with a dozen tables in it, in PAE form or with two levels, that are changed at random."""

    def __init__(self, seed: int, *, pae: bool) -> None:
        self.ram = Ram(8 * MIB).view
        self.memory = GuestMemory(self.ram, [HPA(number * PAGE_SIZE) for number in range(PAGES)])
        self.pool = Pool(self.ram, [HPA(number * PAGE_SIZE) for number in range(PAGES, 2 * PAGES)])
        self.draw, self.pae = random.Random(seed), pae
        self.size = 8 if pae else 4
        self.count = FEW + 4
        self.known = KnownTables(self.memory)
        self.mode = PagingMode(CR0_PE | CR0_PG | CR0_WP, 0x1000, CR4_PAE if pae else CR4_PSE, EFER_NXE if pae else 0)
        if pae:
            self.memory.write(0x1000, (0x2001).to_bytes(8, "little"))
        for number in range(self.count):
            self.lead_to(number, 0x67)
            for index in range(4096 // self.size):
                self.put(number, index)

    def lead_to(self, number: int, flags: int) -> None:
        directory = 0x2000 if self.pae else 0x1000
        entry = TABLES + number * PAGE_SIZE | flags
        self.memory.write(GPA(directory + number * self.size), entry.to_bytes(self.size, "little"))

    def put(self, number: int, index: int) -> None:
        """A random entry: of memory, of none, of a device; sometimes with a reserved bit, or NX."""
        frame = self.draw.choice((self.draw.randrange(PAGES) << 12, 0x2000_0000, WINDOW))
        entry = frame | self.draw.choice((0x67, 0x67, 0x27, 0x25, 7, 5, 3, 0x66, 0))
        if self.pae and self.draw.random() < 0.2:
            entry |= self.draw.choice((1 << 63, 1 << 55))
        at = TABLES + number * PAGE_SIZE + index * self.size
        self.memory.write(GPA(at), entry.to_bytes(self.size, "little"))

    def views(self, known: KnownTables | None) -> tuple[Any, Any]:
        mirror = Mirror(self.ram, self.pool, self.memory, self.mode, known)
        mirror.sync_range(0, 1 << 32)
        found = list(mirror.kernel.entries()), list(mirror.user.entries())
        mirror.release()
        return found


@pytest.mark.parametrize("pae", [False, True], ids=["2-level", "PAE"])
@pytest.mark.parametrize("seed", range(3))
def test_tables_that_are_known_give_what_a_translation_gives(seed: int, pae: bool) -> None:
    rig = Rig(seed, pae=pae)
    for step in range(12):
        assert rig.views(rig.known) == rig.views(None), step
        match rig.draw.randrange(4):
            case 0:
                for _ in range(rig.draw.choice((1, 3, 40))):
                    rig.put(rig.draw.randrange(rig.count), rig.draw.randrange(4096 // rig.size))
            case 1:
                rig.lead_to(rig.draw.randrange(rig.count), rig.draw.choice((0x67, 0x65, 0x63, 7, 0x27)))
            case 2 if not rig.memory.windows:
                rig.memory.add_device(WINDOW, HPA(0x1_0000_0000))
            case _:
                pass


def test_only_what_has_changed_is_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(0, pae=False)
    rig.views(rig.known)
    asked: list[int] = []
    translated = KnownTables.translated

    def counting(self: KnownTables, kind: Any, part: Any, raw: Any, translate: Any) -> Any:
        def counted(tables: Any, content: Any) -> Any:
            asked.append(len(tables))
            return translate(tables, content)

        return translated(self, kind, part, raw, counted)

    monkeypatch.setattr(KnownTables, "translated", counting)
    rig.views(rig.known)
    rig.memory.write(GPA(TABLES + 3 * PAGE_SIZE), (0x5067).to_bytes(4, "little"))
    rig.views(rig.known)
    assert asked == [1]
