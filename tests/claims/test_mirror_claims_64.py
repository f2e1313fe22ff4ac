"""Claims 1-8 for 64-bit guests: the hypervisor's page table mirrors four levels, NX included, in both canonical halves.

The guests are `guest64` (bundled; it fills the ends of both halves, and all of the upper one), and, in this folder,
`over64` and `aliases64`. What a guest has stored to its page tables is known from a run of it alone on the machine.
"""

from __future__ import annotations

from contextlib import suppress

import pytest

from hvproto.errors import LimitReached, RunError, TripleFault
from hvproto.hypervisor.address_space import AddressSpace
from hvproto.hypervisor.mirror import Mirror
from tests.claims import wide
from tests.claims.recordings64 import (
    CODE_MODES,
    LMA,
    copies_of_tables,
    notes,
    stores_of,
    stores_seen,
    switch_monitor_off,
    watched,
)

SHORT = 400_000
"""Cycles: enough for the host to come up and a small guest to do all it does, were it not stuck."""
LONG = 20_000_000
"""Cycles; `guest64` needs less than half of it."""
FIRST_PAGE = 0xFFFF_E000
"""What `over64` maps first."""


def has_long_mode(registers):
    return registers.efer & LMA


@pytest.fixture(scope="module")
def story(hosted, look):
    """The bundled guest, to its end."""
    run = watched(hosted, look, "guest64", whole=150)
    run.copies = copies_of_tables(run, run.guest_image.symbols)
    run.user_views = []

    def look_at_user_view(event):
        if event.vector == 0:
            registers = run.registers()
            region = look.region(registers)
            root = run.guest_image.symbols["pml4"]
            run.user_views.append((region.kernel_view, wide.differences_of_mirror(run.ram, registers, region, root)))

    run.on("ExceptionTaken", look_at_user_view)
    return run.execute(LONG)


@pytest.fixture(scope="module")
def bare_story(bare):
    run = bare("guest64")
    run.copies = copies_of_tables(run, run.image.symbols)
    return run.execute()


@pytest.fixture(scope="module")
def over(hosted, look):
    """`over64`, with the processor's registers at some of its instructions."""
    run = watched(hosted, look, "over64", whole=5)
    symbols = run.guest_image.symbols
    run.places = {}
    for place in ("paging", "elsewhere", "elsewhere_done", "once", "compare", "once_done", "slots_done", "stop"):
        run.at(symbols[place], lambda place=place: run.places.setdefault(place, run.registers()))
    run.written = []
    run.at(symbols["once_done"], lambda: run.written.append(wide.qword(run.ram, 0x0040_0000 + 510 * 4096)))
    return run.execute()


# -- what is asserted, and what fails when the mechanism is off -----------------------------------


def assert_mirrored(run):
    checked = [note.differences for note in run.notes if hasattr(note, "differences")]
    assert checked
    assert [differences for differences in checked if differences] == []


def assert_no_overlap(run):
    moves = notes(run, "Relocated")
    assert moves
    for note in moves:
        assert note.overlap == [], f"moved to {note.event.new:#x}, where the guest has pages"
        assert note.region.base == note.event.new


KINDS = {
    "aliases64": {"mov", "push", "xchg", "lock cmpxchg", "lock bts", "lock add", "lock xadd", "movups",
                  "lock cmpxchg16b", "rep stosq", "rep movsq", "stosd"},
    "over64": {"mov", "rep movsq"},
}  # fmt: skip


# -- claims 1 and 2 ------------------------------------------------------------------------------


@pytest.mark.claim(1)
def test_a_write_of_a_64_bit_guest_that_maps_over_the_region_moves_the_region(over, look):
    before, after = over.places["once"], over.places["once_done"]
    symbols = over.guest_image.symbols
    for registers in (before, after):
        assert has_long_mode(registers)
        assert look.POOL <= registers.cr3 < 2 * look.POOL
        assert registers.cr3 != symbols["pml4"]
        assert registers.ring == 3
    # The guest's page took a place in the region: the region isn't there any more, the guest's page is.
    assert FIRST_PAGE in look.region(before).pages
    assert FIRST_PAGE not in look.region(after).pages
    assert look.region(after).base >> 47 == 0x1FFFF, "now it should be in the upper half"
    assert over.word("wrong") == 0
    assert over.word("stage") == 6
    assert over.written == [~FIRST_PAGE & 0xFFFF_FFFF_FFFF_FFFF]


@pytest.mark.claim(1, 6)
def test_without_relocation_the_64_bit_guest_never_gets_its_page(hosted, look, monkeypatch):
    stay, last = [], []
    monkeypatch.setattr(AddressSpace, "relocate", lambda self, conflict, cause: stay.append(run.registers()))
    run = hosted("over64")
    run.at(run.guest_image.symbols["compare"], lambda: last.append(run.registers()))
    with pytest.raises(LimitReached):
        run.execute(SHORT)
    assert len(run.named("PageTableWrite")) == 1 <= len(stay), "it should be stuck right after its first store"
    assert (run.word("stage"), run.word("right")) == (0, 0)
    root = run.guest_image.symbols["pml4"]
    region = look.region(stay[0])
    assert last[-1].idtr == stay[0].idtr
    assert [at for at in region.pages if wide.is_mapped(run.ram, root, at)] == [FIRST_PAGE]


@pytest.mark.claim(2)
def test_the_page_table_in_cr3_is_the_64_bit_guests_mappings_plus_the_region(story, over):
    assert len(notes(story, "Relocated")) >= 30
    assert_mirrored(story)
    assert_mirrored(over)
    # In the view for the guest's programs, its supervisor pages aren't there at all.
    assert story.user_views == [(False, [])]


@pytest.mark.claim(2)
def test_what_the_64_bit_guest_forbids_to_execute_is_forbidden_in_the_mirror(story, over, look):
    for run in (story, over):
        registers = run.notes[-1].registers
        entries = wide.last_entries(run.ram, registers.cr3)
        pages = wide.guest_pages(run.ram, run.guest_image.symbols["pml4"])
        forbidden = [linear for linear, page in pages.items() if page.no_execute]
        assert all(entries[linear] & wide.NX for linear in forbidden if linear in entries)
        here = pages[run.guest_image.symbols["stop"] & ~0xFFF]
        assert not here.no_execute
        assert not entries[run.guest_image.symbols["stop"] & ~0xFFF] & wide.NX  # it is being executed
    assert len(forbidden) < len(pages)


@pytest.mark.claim(2, 3)
def test_without_the_monitor_four_levels_are_no_longer_mirrored(hosted, look, monkeypatch):
    switch_monitor_off(monkeypatch)
    run = hosted("aliases64")
    symbols = run.guest_image.symbols
    stale = []

    def compare():
        registers = run.registers()
        stale.extend(wide.differences_of_mirror(run.ram, registers, look.region(registers), symbols["pml4"]))

    run.at(symbols["unhooked"], compare)
    run.execute()
    with pytest.raises(AssertionError):
        assert stale == []


# -- claim 3 -------------------------------------------------------------------------------------


@pytest.mark.claim(3)
@pytest.mark.parametrize("guest", ["aliases64", "over64"])
def test_every_store_to_a_table_of_four_levels_is_seen(guest, hosted, bare):
    expected, kinds, alone = stores_of(bare, guest)
    run = hosted(guest).execute()
    assert expected
    assert stores_seen(run) == expected
    assert {mnemonic for mnemonic, *_ in kinds} >= KINDS[guest]
    symbols = run.guest_image.symbols
    if guest == "aliases64":
        assert {selector for _, selector, _, _ in kinds} == set(CODE_MODES), "code of 64, 32 and 16 bits"
        assert ("mov", 0x08, 8, True) in kinds, "no store crossed from one table to the next"
        frames = [0x0020_0000 + number * 4096 for number in range(18)]
        frames += [0x0021_2000, 0x0021_2000, 0x0021_4000, 0x0021_5000, 0x0021_0000, 0x0022_1000]
        assert list(memoryview(run.ram[symbols["results"] :][:96]).cast("I")) == frames
    # And what lies in RAM at the end is what lies there without a hypervisor.
    for table in {address & ~0xFFF for address in expected}:
        assert bytes(run.ram[table : table + 4096]) == bytes(alone.ram[table : table + 4096])


@pytest.mark.claim(3)
def test_without_the_monitor_no_store_of_a_64_bit_guest_is_seen(hosted, bare, monkeypatch):
    expected, _, _ = stores_of(bare, "aliases64")
    switch_monitor_off(monkeypatch)
    run = hosted("aliases64").execute()
    with pytest.raises(AssertionError):
        assert stores_seen(run) == expected


@pytest.mark.claim(3, 8)
def test_a_store_to_what_is_no_table_of_the_64_bit_guest_is_not_one(over, story):
    symbols = over.guest_image.symbols
    unused = range(symbols["unused_table"], symbols["unused_table"] + 4096)
    assert any(over.ram[unused.start : unused.stop])
    assert not [event for event in over.named("PageTableWrite") if event.gpa in unused]
    # The bundled guest clears a table that no longer hangs in its directory, once a round.
    spare = story.guest_image.symbols["spare_table"]
    seen = [event for event in story.named("PageTableWrite") if event.gpa & ~0xFFF == spare]
    assert seen
    assert all(event.value for event in seen)


# -- claims 4 and 5 ------------------------------------------------------------------------------


@pytest.mark.claim(4)
def test_after_each_move_no_page_of_the_region_is_where_the_64_bit_guest_maps_something(story, over):
    for run in (story, over):
        assert_no_overlap(run)
        for note in notes(run, "Relocated"):
            # And it is really there, for ring 0 alone.
            assert all(page is not None and not page.user for page in note.pages)
    halves = {note.event.new >> 47 for note in notes(story, "Relocated")}
    assert halves == {0, 0x1FFFF}, "the bundled guest should have driven it into both halves"


@pytest.mark.claim(4, 7)
def test_a_region_that_moves_onto_the_64_bit_guests_pages_is_noticed(hosted, look, monkeypatch):
    real, calls = AddressSpace.hole, []

    def hole(self):
        calls.append(self)
        return real(self) if len(calls) < 3 else 0x0070_0000

    monkeypatch.setattr(AddressSpace, "hole", hole)
    run = watched(hosted, look, "over64")
    with pytest.raises((LimitReached, TripleFault)):
        run.execute(SHORT)
    with pytest.raises(AssertionError):
        assert_no_overlap(run)


@pytest.mark.claim(5)
def test_mirror_monitor_and_relocation_in_one_run_of_a_64_bit_guest(over, bare):
    expected, _, _ = stores_of(bare, "over64")
    assert stores_seen(over) == expected
    assert_mirrored(over)
    assert_no_overlap(over)
    assert len({note.event.new for note in notes(over, "Relocated")}) >= 30


@pytest.mark.claim(5)
@pytest.mark.parametrize("missing", ["mirror", "monitor", "relocation"])
def test_with_one_of_the_three_missing_a_check_of_the_64_bit_guest_fails(missing, hosted, look, bare, monkeypatch):
    expected, _, _ = stores_of(bare, "over64")
    sync_range = Mirror.sync_range
    if missing == "mirror":  # made at the start, kept up to date no more
        monkeypatch.setattr(
            Mirror, "sync_range", lambda self, at, size: sync_range(self, at, size) if size >= 1 << 32 else None
        )
    elif missing == "monitor":
        switch_monitor_off(monkeypatch)
    else:
        monkeypatch.setattr(AddressSpace, "move_region", lambda self, new: None)
    run = watched(hosted, look, "over64", whole=5)
    with suppress(RunError):
        run.execute(SHORT)
    with pytest.raises(AssertionError):
        if missing == "mirror":
            assert_mirrored(run)
        elif missing == "monitor":
            assert stores_seen(run) == expected
        else:
            assert_no_overlap(run)


# -- claims 6, 7, 8 ------------------------------------------------------------------------------


@pytest.mark.claim(6)
def test_the_64_bit_guest_always_wins_and_its_tables_stay_as_they_are_bit_for_bit(story, bare_story):
    assert len(notes(story, "Relocated")) >= 30
    assert len(story.copies) > 50
    assert [place for place, _ in story.copies] == [place for place, _ in bare_story.copies]
    for number, (hosted_copy, bare_copy) in enumerate(zip(story.copies, bare_story.copies, strict=True)):
        assert hosted_copy == bare_copy, f"place {number}, {hosted_copy[0]}"
    # It never notices: it has checked every page it mapped, and prints what it prints alone.
    assert story.word("failures") == 0
    assert bytes(story.session.guests[0].output) == bytes(bare_story.machine.serial_output)
    assert story.word("faults") == bare_story.word("faults") == 6 + 2 * 14 * 8


@pytest.mark.claim(6)
def test_reconciling_at_the_64_bit_guests_expense_would_be_seen(hosted, bare, monkeypatch):
    """The other way of having no conflict: to take the page away from the guest."""
    symbols = bare("over64").image.symbols
    entry = symbols["first_table"] + 510 * 8

    def take_away(self, conflict, cause):
        assert conflict == FIRST_PAGE
        run.ram[entry] &= ~1

    monkeypatch.setattr(AddressSpace, "relocate", take_away)
    run = hosted("over64")
    with pytest.raises(TripleFault):  # it faults on a page that it has mapped, and has no handler for that
        run.execute()
    alone, kept = bare("over64"), []
    alone.at(symbols["once_done"], lambda: kept.append(alone.ram[entry] & 1))
    alone.execute()
    with pytest.raises(AssertionError):
        assert run.ram[entry] & 1 == kept[0]


@pytest.mark.claim(7)
def test_only_the_mapping_of_the_hypervisor_moves_beside_a_64_bit_guest(story, over):
    for run in (story, over):
        moves = notes(run, "Conflict", "Relocated")
        frames = [page.frame for page in moves[0].pages]
        assert len(set(frames)) == len(frames)
        for before, after in zip(moves[::2], moves[1::2], strict=True):
            assert (before.event.kind, after.event.kind) == ("Conflict", "Relocated")
            assert before.region.base == after.event.old != after.event.new == after.region.base
            # The same memory elsewhere; the same root, modes and selectors; and everything that points into it follows.
            assert [page.frame for page in before.pages] == [page.frame for page in after.pages] == frames
            old, new = before.registers, after.registers
            assert (old.cr0, old.cr3, old.cr4, old.efer, old.ldtr) == (new.cr0, new.cr3, new.cr4, new.efer, new.ldtr)
            distance = after.event.new - after.event.old
            assert new.idtr.base - old.idtr.base == distance
            assert new.gdtr.base - old.gdtr.base == distance
            assert new.tr == (old.tr[0], old.tr[1] + distance, old.tr[2])
            assert after.overlap == []


@pytest.mark.claim(7)
def test_a_region_that_is_not_where_64_bit_registers_say_shuts_the_processor_down(hosted, monkeypatch):
    """The region is real: moved in the mirror alone, with IDTR and TR left behind, nothing can be delivered."""

    def move_the_mapping_only(self, conflict, cause):
        old = self.region.base
        self.mirror.clear_region(old, len(self.region.frames))
        self.region.rebase(self.hole())
        self._map_region()
        self._processor.engine.flush_tlb()

    monkeypatch.setattr(AddressSpace, "relocate", move_the_mapping_only)
    run = hosted("over64")
    with pytest.raises(TripleFault):
        run.execute()


@pytest.mark.claim(8)
def test_the_step_is_taken_on_the_64_bit_guests_write_and_not_otherwise(story, over, look):
    # On the write: the very next block of the guest's finds the region gone.
    places = over.places
    assert places["paging"].idtr == places["elsewhere_done"].idtr == places["once"].idtr
    assert places["compare"].idtr != places["once"].idtr
    # Not otherwise: between two moves the region stands still, whatever happens, and each move has its store.
    for run in (story, over):
        base = run.notes[0].registers.idtr.base - look.PAGE
        last = None
        for note in run.notes:
            if note.event.kind == "Relocated":
                assert last == "Conflict"
                assert note.event.old == base
                base = note.event.new
            elif note.event.kind == "Conflict":
                assert last == "PageTableWrite"
                assert note.guest_maps_conflict, "nothing of the guest's was there"
                assert note.event.address in note.region.pages
            elif note.event.kind == "NoConflict":
                assert last == "PageTableWrite"
            assert note.registers.idtr.base == base + look.PAGE
            last = note.event.kind
        writes, decided = run.named("PageTableWrite"), run.named("Conflict", "NoConflict")
        assert len(writes) == len(decided)
    # A page that goes away is a write without a conflict.
    assert over.notes[-1].event.kind in ("NoConflict", "ExceptionTaken")
    assert places["stop"].idtr == places["slots_done"].idtr


@pytest.mark.claim(8)
def test_without_the_monitor_the_64_bit_guests_write_moves_nothing(hosted, monkeypatch):
    switch_monitor_off(monkeypatch)
    run = hosted("over64")
    symbols = run.guest_image.symbols
    places = {}
    for place in ("once", "compare"):
        run.at(symbols[place], lambda place=place: places.setdefault(place, run.registers()))
    with pytest.raises(LimitReached):
        run.execute(SHORT)
    with pytest.raises(AssertionError):
        assert places["compare"].idtr != places["once"].idtr
