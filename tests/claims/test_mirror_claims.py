"""Claims 1-8: the hypervisor's page table mirrors the guest's, follows its stores, and the region gives way.

The guests are `guest` (bundled; among much else it maps 48 MiB over wherever the region is), `ptwrites` and `selfmap`
(bundled; page-table entries written in every way), and, in this folder, `over` and `aliases`. What a guest has stored
to its page tables is known from a run of the same guest alone on the machine.
"""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace

import capstone
import pytest
from unicorn import unicorn_const as uc_const
from unicorn import x86_const

from hvproto.errors import LimitReached, RunError, TripleFault
from hvproto.hypervisor import address_space
from hvproto.hypervisor.address_space import AddressSpace
from hvproto.hypervisor.mirror import Mirror
from hvproto.hypervisor.monitor import Monitor

SHORT = 330_000
"""Cycles: enough for the host to come up and a small guest to do all it does, were it not stuck."""


# -- recordings ----------------------------------------------------------------------------------


def watched(hosted, look, guest, directory, whole=1, **options):
    """A run in the plan `mirrored`, with a note of processor and RAM at every event of the page tables.

    At every ``whole``-th place where the mirror has just been brought up to date, all of it is compared.
    """
    run = hosted(guest, **options)
    root = run.guest_image.symbols[directory]
    run.notes = []
    settled = []

    def note(event):
        if event.kind in ("PageTableWrite", "Conflict", "NoConflict", "Relocated", "ExceptionTaken"):
            entry = SimpleNamespace(event=event, registers=run.registers())
            if event.kind in ("Relocated", "NoConflict"):
                settled.append(event)
                if len(settled) % whole == 1 % whole:
                    entry.differences = look.differences_of_mirror(run.ram, entry.registers, root)
            if event.kind in ("Relocated", "Conflict"):
                entry.region = region = look.region(entry.registers)
                entry.overlap = [at for at in region.pages if look.up_two_level(run.ram, root, at) & look.P]
                entry.frames, entry.flags = zip(
                    *(look.up_four_level(run.ram, entry.registers.cr3, at) for at in region.pages), strict=True
                )
            if event.kind == "Conflict":
                entry.guest_maps_conflict = look.up_two_level(run.ram, root, event.address) & look.P
            run.notes.append(entry)

    run.bus.subscribe(note)
    return run


def notes(run, *names):
    return [note for note in run.notes if note.event.kind in names]


@pytest.fixture(scope="module")
def story(hosted, look, always_highest):
    """The bundled guest, to its end; its page tables are copied whenever it comes to one of these places."""
    run = watched(hosted, look, "guest", "page_directory", whole=10, policy=always_highest)
    run.copies = copies_of_tables(run, run.guest_image.symbols)
    run.user_views = []

    def look_at_user_view(event):
        if event.vector == 0:
            registers = run.registers()
            directory = run.guest_image.symbols["page_directory"]
            run.user_views.append(
                (look.region(registers).kernel_view, look.differences_of_mirror(run.ram, registers, directory))
            )

    run.on("ExceptionTaken", look_at_user_view)
    return run.execute()


PLACES = (
    "program_div_next",
    "check_accessed_and_dirty",
    "map_first_pages",
    "map_whole_slot",
    "compare_slots",
    "give_back",
    "touch_slot",
    "stop",
)


def copies_of_tables(run, symbols):
    """(place, the guest's page tables as they are in RAM) each time the guest is there."""
    copies = []
    ram = run.ram
    pieces = [(symbols["page_directory"], 6 * 4096), (symbols["spare_table"], 2 * 4096)]

    def copy(place):
        copies.append((place, b"".join(bytes(ram[start : start + size]) for start, size in pieces)))

    for place in PLACES:
        run.at(symbols[place], lambda place=place: copy(place))
    return copies


@pytest.fixture(scope="module")
def bare_story(bare):
    run = bare("guest")
    run.copies = copies_of_tables(run, run.image.symbols)
    return run.execute()


@pytest.fixture(scope="module")
def over(hosted, look, always_highest):
    """`over`, which maps its pages where the region is; with the processor's registers at some of its instructions."""
    run = watched(hosted, look, "over", "directory", whole=5, policy=always_highest)
    symbols = run.guest_image.symbols
    run.places = {}
    for place in ("paging", "elsewhere", "elsewhere_done", "once", "compare", "once_done", "one_by_one_done", "stop"):
        run.at(symbols[place], lambda place=place: run.places.setdefault(place, run.registers()))
    run.written = []
    run.at(symbols["once_done"], lambda: run.written.append(look.word(run.ram, 0x0040_0000 + 1022 * 4096)))
    return run.execute()


@pytest.fixture(scope="module")
def over_by_default(hosted, look):
    """`over` with the policy that a user gets."""
    return watched(hosted, look, "over", "directory").execute()


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


def stores_of(bare, guest, beyond=None):
    """What a guest alone on the machine stores to page tables in use: the addresses of the bytes, and by which code.

    ``beyond``: the page whose linear neighbour (by an alias) is another than its physical one, and that neighbour.
    """
    run = bare(guest)
    uc, ram = run.machine.processor.engine.uc, run.ram
    decoders = {bits: capstone.Cs(capstone.CS_ARCH_X86, mode) for bits, mode in ((32, 4), (16, 2))}
    addresses, kinds = [], set()

    def is_table(address):
        root = uc.reg_read(x86_const.UC_X86_REG_CR3)
        entries = memoryview(ram[root : root + 4096]).cast("I")
        return address & ~0xFFF == root or any(entry & 1 and entry & ~0xFFF == address & ~0xFFF for entry in entries)

    def on_store(_uc, _access, address, size, _value, _data):
        if not uc.reg_read(x86_const.UC_X86_REG_CR0) >> 31 or not is_table(address):
            return
        eip = uc.reg_read(x86_const.UC_X86_REG_EIP)
        bits = 16 if uc.reg_read(x86_const.UC_X86_REG_CS) == 0x18 and guest == "aliases" else 32
        instruction = next(decoders[bits].disasm(bytes(ram[eip : eip + 15]), eip, 1))
        crosses = (address & 0xFFF) + size > 0x1000
        kinds.add((instruction.mnemonic, bits, size, crosses))
        for at in range(address, address + size):
            if beyond and at >> 12 != address >> 12 and address >> 12 == beyond[0] >> 12:
                addresses.append(beyond[1] + (at & 0xFFF))
            else:
                addresses.append(at)

    uc.hook_add(uc_const.UC_HOOK_MEM_WRITE, on_store, begin=0, end=len(ram) - 1)
    run.execute()
    return addresses, kinds, run


def stores_seen(run):
    """The bytes that the monitor reports, in order; one that it repeats alone after a wider report counts once."""
    found = []
    wide = range(0)
    for event in run.named("PageTableWrite"):
        if event.size == 1 and event.gpa in wide:
            continue
        found += range(event.gpa, event.gpa + event.size)
        wide = range(event.gpa, event.gpa + event.size) if event.size > 1 else range(0)
    return found


def table_beyond(guest, kernel):
    if guest != "aliases":
        return None
    symbols = kernel(guest).symbols
    return symbols["table"], symbols["other_table"]


GUESTS_OF_STORES = ("ptwrites", "aliases", "selfmap", "over")
KINDS = {
    "ptwrites": {"mov", "rep stosd", "rep movsd", "xchg", "lock cmpxchg", "bts", "add", "lock xadd", "push", "pushal",
                 "movups", "movdqu", "lock cmpxchg8b"},
    "aliases": {"mov", "stosd"},
    "selfmap": {"mov"},
    "over": {"mov", "rep movsd"},
}  # fmt: skip


# -- claim 1 -------------------------------------------------------------------------------------


@pytest.mark.claim(1)
def test_a_guest_write_that_maps_over_the_region_moves_the_region(over, look):
    before, after = over.places["once"], over.places["once_done"]
    # Hypervisor and its page table are established: the processor's registers name them, and not the guest's own.
    symbols = over.guest_image.symbols
    for registers in (before, after):
        assert look.POOL <= registers.cr3 < 2 * look.POOL
        assert registers.cr3 != symbols["directory"]
        assert registers.ring == 3
    # The guest's page at 0xffffe000 took a place in the region: the region isn't there any more, the guest's page is.
    assert 0xFFFF_E000 in look.region(before).pages
    assert 0xFFFF_E000 not in look.region(after).pages
    assert over.word("wrong") == 0
    assert over.word("stage") == 5
    assert over.written == [~0xFFFF_E000 & 0xFFFF_FFFF]


@pytest.mark.claim(1, 6)
def test_without_relocation_the_guest_never_gets_its_page(hosted, look, monkeypatch):
    stay, last = [], []
    monkeypatch.setattr(AddressSpace, "relocate", lambda self, conflict, cause: stay.append(run.registers()))
    run = hosted("over")
    run.at(run.guest_image.symbols["compare"], lambda: last.append(run.registers()))
    with pytest.raises(LimitReached):
        run.execute(SHORT)
    assert len(run.named("PageTableWrite")) == 1 <= len(stay), "it should be stuck right after its first store"
    assert run.word("stage") == 0
    assert run.word("right") == 0
    # Its table maps a page where the region still is, as long as it tries.
    guest = look.two_level(run.ram, run.guest_image.symbols["directory"])
    assert [at for at in look.region(stay[0]).pages if at in guest] == [0xFFFF_E000]
    assert last[-1].idtr == stay[0].idtr


# -- claim 2 -------------------------------------------------------------------------------------


@pytest.mark.claim(2)
def test_the_page_table_in_cr3_is_the_guests_mappings_plus_the_region(story, over, over_by_default):
    assert len(notes(story, "Relocated")) >= 50
    for run in (story, over, over_by_default):
        assert_mirrored(run)
    # In the view for the guest's programs, its supervisor pages aren't there at all.
    assert story.user_views == [(False, [])]


@pytest.mark.claim(2, 3)
def test_without_the_monitor_the_mirror_no_longer_mirrors(hosted, look, monkeypatch):
    monkeypatch.setattr(Monitor, "_on_protected_store", lambda self, physical, size: None)
    run = hosted("aliases")
    symbols = run.guest_image.symbols
    stale = []
    run.at(
        symbols["unhooked"],
        lambda: stale.extend(look.differences_of_mirror(run.ram, run.registers(), symbols["directory"])),
    )
    run.execute()
    with pytest.raises(AssertionError):
        assert stale == []


# -- claim 3 -------------------------------------------------------------------------------------


@pytest.mark.claim(3)
@pytest.mark.parametrize("guest", GUESTS_OF_STORES)
def test_every_store_to_a_page_table_is_seen(guest, hosted, bare, kernel):
    expected, kinds, alone = stores_of(bare, guest, table_beyond(guest, kernel))
    run = hosted(guest).execute()
    assert expected
    assert stores_seen(run) == expected
    assert {mnemonic for mnemonic, *_ in kinds} >= KINDS[guest]
    symbols = run.guest_image.symbols
    if guest == "ptwrites":
        assert {size for _, _, size, _ in kinds} == {1, 2, 4, 8}
        assert ("mov", 32, 4, True) in kinds, "no store crossed from one table to the next"
        assert bytes(run.session.guests[0].output) == bytes(alone.machine.serial_output)
    if guest == "aliases":
        assert {("mov", 16, 2, False), ("mov", 16, 4, False), ("stosd", 16, 4, False)} <= kinds
        assert ("mov", 32, 4, True) in kinds
        frames = [0x0020_0000 + number * 4096 for number in range(8)] + [0x0021_0000, 0x0022_1000]
        assert list(memoryview(run.ram[symbols["results"] :][:40]).cast("I")) == frames
    # And what lies in RAM at the end is what lies there without a hypervisor.
    for table in {address & ~0xFFF for address in expected}:
        assert bytes(run.ram[table : table + 4096]) == bytes(alone.ram[table : table + 4096])


@pytest.mark.claim(3)
def test_without_the_monitor_no_store_is_seen(hosted, bare, kernel, monkeypatch):
    expected, _, _ = stores_of(bare, "selfmap")
    monkeypatch.setattr(Monitor, "_on_protected_store", lambda self, physical, size: None)
    run = hosted("selfmap").execute()
    with pytest.raises(AssertionError):
        assert stores_seen(run) == expected


@pytest.mark.claim(3, 8)
def test_a_store_to_what_is_no_page_table_is_not_one(over, story):
    symbols = over.guest_image.symbols
    unused = range(symbols["unused_table"], symbols["unused_table"] + 4096)
    assert any(over.ram[unused.start : unused.stop])
    assert not [event for event in over.named("PageTableWrite") if event.gpa in unused]
    # The bundled guest clears 4 KiB of a table that no longer hangs in its directory, once a round.
    spare = story.guest_image.symbols["spare_table"]
    seen = [event for event in story.named("PageTableWrite") if event.gpa & ~0xFFF == spare]
    assert seen
    assert all(event.value for event in seen)


# -- claim 4 -------------------------------------------------------------------------------------


@pytest.mark.claim(4)
def test_after_each_move_no_page_of_the_region_is_at_an_address_that_the_guest_maps(story, over, over_by_default, look):
    for run in (story, over, over_by_default):
        assert_no_overlap(run)
        for note in notes(run, "Relocated"):
            # And it is really there, for ring 0 alone.
            assert all(flags & look.P and not flags & look.U for flags in note.flags)


@pytest.mark.claim(4, 7)
def test_a_region_that_moves_onto_the_guests_pages_is_noticed(hosted, look, monkeypatch):
    real, calls = address_space.find_hole, []

    def find_hole(space, pages, policy, history):
        calls.append(pages)
        return real(space, pages, policy, history) if len(calls) < 3 else 0x0070_0000

    monkeypatch.setattr(address_space, "find_hole", find_hole)
    run = watched(hosted, look, "over", "directory")
    with pytest.raises((LimitReached, TripleFault)):
        run.execute(SHORT)
    with pytest.raises(AssertionError):
        assert_no_overlap(run)


# -- claim 5 -------------------------------------------------------------------------------------


@pytest.mark.claim(5)
def test_mirror_monitor_and_relocation_in_one_run(over, bare):
    expected, _, _ = stores_of(bare, "over")
    assert stores_seen(over) == expected
    assert_mirrored(over)
    assert_no_overlap(over)
    assert len({note.event.new for note in notes(over, "Relocated")}) > 50


@pytest.mark.claim(5)
@pytest.mark.parametrize("missing", ["mirror", "monitor", "relocation"])
def test_with_one_of_the_three_missing_another_of_the_checks_fails(missing, hosted, look, bare, monkeypatch):
    expected, _, _ = stores_of(bare, "over")
    sync_range = Mirror.sync_range
    if missing == "mirror":  # made at the start, kept up to date no more
        monkeypatch.setattr(
            Mirror, "sync_range", lambda self, at, size: sync_range(self, at, size) if size == 1 << 32 else None
        )
    elif missing == "monitor":
        monkeypatch.setattr(Monitor, "_on_protected_store", lambda self, physical, size: None)
    else:
        monkeypatch.setattr(AddressSpace, "move_region", lambda self, new: None)
    run = watched(hosted, look, "over", "directory", whole=5)
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
def test_the_guest_always_wins_and_its_tables_stay_as_they_are_bit_for_bit(story, bare_story):
    moves = notes(story, "Relocated")
    assert len(moves) >= 50
    assert len(story.copies) > 50
    assert [place for place, _ in story.copies] == [place for place, _ in bare_story.copies]
    for number, (hosted_copy, bare_copy) in enumerate(zip(story.copies, bare_story.copies, strict=True)):
        assert hosted_copy == bare_copy, f"place {number}, {hosted_copy[0]}"
    # It never notices: it has checked every page it mapped, and prints what it prints alone.
    assert story.word("failures") == 0
    assert bytes(story.session.guests[0].output) == bytes(bare_story.machine.serial_output)
    assert story.word("faults") == bare_story.word("faults") == 196


@pytest.mark.claim(6)
def test_reconciling_at_the_guests_expense_would_be_seen(hosted, bare, look, monkeypatch):
    """The other way of having no conflict: to take the page away from the guest."""

    def take_away(self, conflict, cause):
        symbols = run.guest_image.symbols
        upper = look.word(run.ram, symbols["directory"] + (conflict >> 22) * 4)
        entry = (upper & ~0xFFF) + (conflict >> 12 & 1023) * 4
        run.ram[entry] &= ~1

    monkeypatch.setattr(AddressSpace, "relocate", take_away)
    run = hosted("over")
    with pytest.raises(TripleFault):  # it faults on a page that it has mapped, and has no handler for that
        run.execute()
    alone = bare("over").execute()
    table = run.guest_image.symbols["top_table"]
    with pytest.raises(AssertionError):
        assert look.word(run.ram, table + 1022 * 4) | 0x60 == look.word(alone.ram, table + 1022 * 4) | 0x60


@pytest.mark.claim(7)
def test_only_the_mapping_of_the_hypervisor_moves(story, over, over_by_default):
    for run in (story, over, over_by_default):
        moves = notes(run, "Conflict", "Relocated")
        frames = moves[0].frames
        assert len(set(frames)) == len(frames)
        for before, after in zip(moves[::2], moves[1::2], strict=True):
            assert (before.event.kind, after.event.kind) == ("Conflict", "Relocated")
            assert before.region.base == after.event.old != after.event.new == after.region.base
            # The same memory elsewhere; the same root, modes and selectors; and everything that points into it follows.
            assert before.frames == after.frames == frames
            old, new = before.registers, after.registers
            assert (old.cr0, old.cr3, old.cr4, old.efer, old.ldtr) == (new.cr0, new.cr3, new.cr4, new.efer, new.ldtr)
            distance = after.event.new - after.event.old
            assert new.idtr.base - old.idtr.base == distance
            assert new.gdtr.base - old.gdtr.base == distance
            assert new.tr == (old.tr[0], old.tr[1] + distance, old.tr[2])
            assert after.overlap == []


@pytest.mark.claim(7)
def test_a_region_that_is_not_where_the_registers_say_shuts_the_processor_down(hosted, monkeypatch):
    """The region is real: moved in the mirror alone, with IDTR and TR left behind, nothing can be delivered."""

    def move_the_mapping_only(self, conflict, cause):
        old = self.region.base
        self.mirror.clear_region(old, len(self.region.frames))
        self.region.rebase(self.hole())
        self._map_region()
        self._processor.engine.flush_tlb()

    monkeypatch.setattr(AddressSpace, "relocate", move_the_mapping_only)
    run = hosted("over")
    with pytest.raises(TripleFault):
        run.execute()


@pytest.mark.claim(8)
def test_the_step_is_taken_on_the_write_and_not_otherwise(story, over, over_by_default, look):
    # On the write: the very next block of the guest's finds the region gone.
    places = over.places
    assert places["paging"].idtr == places["elsewhere_done"].idtr == places["once"].idtr
    assert places["compare"].idtr != places["once"].idtr
    # Not otherwise: between two moves the region stands still, whatever happens, and each move has its store.
    for run in (story, over, over_by_default):
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
    assert places["stop"].idtr == places["one_by_one_done"].idtr


@pytest.mark.claim(6, 8)
def test_a_region_that_keeps_away_moves_less_and_the_guest_gets_the_same(over, over_by_default):
    few, many = (len(notes(run, "Relocated")) for run in (over_by_default, over))
    assert 0 < few < many / 4
    assert stores_seen(over_by_default) == stores_seen(over)
    assert over_by_default.word("right") == over.word("right") and over_by_default.word("wrong") == 0
    symbols = over.guest_image.symbols
    tables = slice(symbols["directory"], symbols["next_table"] + 4096)
    assert bytes(over_by_default.ram[tables]) == bytes(over.ram[tables])


@pytest.mark.claim(8)
def test_without_the_monitor_the_write_moves_nothing(hosted, monkeypatch):
    monkeypatch.setattr(Monitor, "_on_protected_store", lambda self, physical, size: None)
    run = hosted("over")
    symbols = run.guest_image.symbols
    places = {}
    for place in ("once", "compare"):
        run.at(symbols[place], lambda place=place: places.setdefault(place, run.registers()))
    with pytest.raises(LimitReached):
        run.execute(SHORT)
    with pytest.raises(AssertionError):
        assert places["compare"].idtr != places["once"].idtr
