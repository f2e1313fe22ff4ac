"""Claims 9, 11, 17, 21-23, 25-27: reading the host's settings, saving, replacing and restoring them.

The witness (witness.asm) is host code that notes, by SGDT, SIDT, STR, SLDT, MOV from CRn and RDMSR, what the processor
holds right before the hypervisor's door and right behind it, and raises a divide error and `int 0x30` to see who
answers. `probe` is the guest; `mixed`, in the tests that couple by hand, is one whose routines run under the host's
page table.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hvproto.errors import TripleFault, World
from hvproto.hypervisor.coupling import Coupling, Replacement
from hvproto.hypervisor.direct import DirectGuest
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.plan import Plan, Provider
from hvproto.hypervisor.region import Region
from hvproto.hypervisor.region_form import LEGACY_FORM
from hvproto.hypervisor.save_area import SaveArea, SaveAreaError
from hvproto.processor.processor import Processor
from hvproto.processor.settings import Setting

PLANS = ("mirrored", "direct")
GUESTS = {"mirrored": MirroredGuest, "direct": DirectGuest}
SETTINGS = ("idtr", "gdtr", "ldtr", "tr", "cr0", "cr3", "cr4", "efer")


def noted(hosted, look, witnessed, plan):
    """A run of host, witness and `probe`, with a note at every decoupling and recoupling."""
    run = hosted("probe", plan, "witness")
    run.notes = []

    def note(event):
        if event.kind in ("SettingSaved", "Decoupled", "Recoupled"):
            counts = {"probes": run.word("probes"), "divides": run.word("divides"), "ticks": run.word("ticks")}
            entry = SimpleNamespace(
                event=event,
                name=event.kind,
                registers=run.registers(),
                testimony=witnessed(run.ram),
                guest=counts,
                host={name: run.host_word(name) for name in ("host_probes", "host_divides")},
            )
            if event.kind == "Decoupled":
                entry.saved = look.save_area(run.ram, look.find_save_area(run.ram))
            run.notes.append(entry)

    run.bus.subscribe(note)
    return run


@pytest.fixture(scope="module", params=PLANS)
def coupled(request, hosted, look, witnessed):
    run = noted(hosted, look, witnessed, request.param)
    run.plan = request.param
    return run.execute()


def named(run, name):
    return [note for note in run.notes if note.name == name]


def assert_saved(run, look):
    """The save area, at each decoupling, against what the host itself found a moment before."""
    decouplings = named(run, "Decoupled")
    assert decouplings
    for note in decouplings:
        found, saved = note.testimony[-1], note.saved
        assert set(saved) == set(SETTINGS)
        assert (saved["idtr"].value, saved["idtr"].limit) == found.idtr
        assert (saved["gdtr"].value, saved["gdtr"].limit) == found.gdtr
        for name in ("cr0", "cr3", "cr4", "efer"):
            assert saved[name].value == getattr(found, name), name
        # TR and LDTR have a hidden part, which is what the descriptor in the host's own GDT says.
        assert (saved["tr"].selector, saved["ldtr"].selector) == (found.tr, found.ldtr)
        descriptor = int.from_bytes(run.ram[found.gdtr.base + found.tr :][:8], "little")
        base = descriptor >> 16 & 0xFF_FFFF | descriptor >> 32 & 0xFF00_0000
        limit = descriptor & 0xFFFF | descriptor >> 32 & 0xF_0000
        assert (saved["tr"].value, saved["tr"].limit) == (base, limit)
        assert base == run.host_image.symbols["kernel_tss"]


# -- whole runs, in each plan --------------------------------------------------------------------


@pytest.mark.claim(9, 21, 23, 27)
def test_the_hosts_settings_are_read_and_written_to_ram_with_their_registers_names(coupled, look):
    assert_saved(coupled, look)
    # RAM it is: the records lie in memory that the emulation program has lent.
    for note in named(coupled, "Decoupled"):
        assert all(look.POOL <= record.place < 2 * look.POOL for record in note.saved.values())
    # And they were read while they still were the host's.
    for note in named(coupled, "SettingSaved"):
        assert note.registers.idtr == note.testimony[-1].idtr
        assert note.registers.cr3 == note.testimony[-1].cr3


@pytest.mark.claim(9, 21, 23, 27)
@pytest.mark.parametrize("plan", PLANS)
def test_without_the_copy_in_ram_there_is_no_way_back(plan, hosted, look):
    run = hosted("probe", plan, "witness")

    def wipe(_event):
        place = look.find_save_area(run.ram)
        run.ram[place : place + look.PAGE] = bytes(look.PAGE)

    run.on("Decoupled", wipe)
    with pytest.raises(SaveAreaError):
        run.execute()
    assert run.named("Recoupled") == []


@pytest.mark.claim(21, 27)
@pytest.mark.parametrize("plan", PLANS)
def test_a_record_that_is_not_what_the_register_held_is_noticed(plan, hosted, look, witnessed):
    run = noted(hosted, look, witnessed, plan)

    def falsify(event):
        if event.setting == "IDTR":
            run.ram[event.place + 16 : event.place + 20] = (0x5FF).to_bytes(4, "little")

    run.on("SettingSaved", falsify)
    run.execute()
    with pytest.raises(AssertionError):
        assert_saved(run, look)


@pytest.mark.claim(9, 17, 27)
def test_the_guests_settings_are_then_in_the_processor(coupled, look):
    host = coupled.host_image.symbols
    last = named(coupled, "Decoupled")[-1].registers
    assert last.idtr.base != host["kernel_idt"]
    assert last.gdtr.base != host["kernel_gdt"]
    assert last.cr3 not in (host["emulator_directory"], host["kernel_page_directory"])
    if coupled.plan == "direct":
        guest = coupled.guest_image.symbols
        assert (last.idtr.base, last.gdtr.base, last.cr3) == (guest["idt"], guest["gdt"], guest["directory"])
        assert last.tr[:2] == (0x28, guest["tss"])
    else:
        region = look.region(last)
        flags = [look.up_four_level(coupled.ram, last.cr3, linear)[1] for linear in region.pages]
        assert all(flag & look.P and not flag & look.U for flag in flags)


@pytest.mark.claim(11, 17, 22, 26)
def test_the_second_replacement_gives_the_host_everything_back(coupled):
    decouplings, recouplings = named(coupled, "Decoupled"), named(coupled, "Recoupled")
    assert len(decouplings) == len(recouplings) > 5
    for before, after in zip(decouplings, recouplings, strict=True):
        found = before.testimony[-1]
        registers = after.registers
        assert (registers.gdtr, registers.idtr, registers.tr[0], registers.ldtr) == found[:4]
        assert (registers.cr0, registers.cr3, registers.cr4, registers.efer) == found[4:8]
        assert registers.tr[1] == coupled.host_image.symbols["kernel_tss"]
    # The host's own instructions find the same behind the door as before it; and it is the host that goes on.
    said = decouplings[-1].testimony
    assert all(record[:8] == said[0][:8] for record in said)
    assert b"exit=0" in coupled.machine.debug_output


@pytest.mark.claim(17, 19, 25)
def test_a_probe_between_the_replacements_shows_whose_the_processor_is(coupled, look):
    """The same linear address, the same instruction: before and after it is the host's memory, between the guest's."""
    assert coupled.word("kernel_window") == coupled.word("program_window") == 0x60E5_7000
    said = named(coupled, "Decoupled")[-1].testimony
    assert {record.window for record in said} == {look.HOST_WORD}


def assert_rerouted(run):
    """While the guest has the processor, `int 0x30` and the divide error end in its routines and not in the host's."""
    decouplings, recouplings = named(run, "Decoupled"), named(run, "Recoupled")
    stays = list(zip(decouplings, recouplings, strict=True))
    assert [after.host == before.host for before, after in stays] == [True] * len(stays)
    gained = [after.guest["probes"] - before.guest["probes"] for before, after in stays]
    assert sum(gained) == run.word("probes") == 1
    divided = [after.guest["divides"] - before.guest["divides"] for before, after in stays]
    assert sum(divided) == run.word("divides") == 1
    # Before and after: each testimony adds one of each to the host's.
    said = decouplings[-1].testimony
    assert [record.probes for record in said] == list(range(1, len(said) + 1))
    assert [record.divides for record in said] == list(range(1, len(said) + 1))


@pytest.mark.claim(25, 26)
def test_the_same_exception_ends_at_the_host_before_at_the_guest_during_at_the_host_after(coupled):
    assert_rerouted(coupled)


@pytest.mark.claim(9, 25)
@pytest.mark.parametrize("plan", PLANS)
def test_with_idtr_left_out_of_the_set_one_of_the_two_has_no_handlers(plan, hosted, monkeypatch):
    """Deprivileged, the guest finds the host's pointer; at ring 0 it loads its own, and the host is left with that."""
    real = GUESTS[plan].replacements

    def all_but_idtr(self):
        return {setting: value for setting, value in real(self).items() if setting is not Setting.IDTR}

    monkeypatch.setattr(GUESTS[plan], "replacements", all_but_idtr)
    run = hosted("probe", plan, "witness")
    with pytest.raises(TripleFault) as caught:
        run.execute()
    if plan == "mirrored":
        assert caught.value.where.world == World.GUEST
        assert (run.word("probes"), run.word("divides")) == (0, 0)
    else:
        assert caught.value.where.world == World.HOST
        assert run.registers().idtr.base == run.guest_image.symbols["idt"]


@pytest.mark.claim(11, 17, 22, 26)
@pytest.mark.parametrize("plan", PLANS)
def test_without_the_second_replacement_the_host_can_not_go_on(plan, hosted, look, witnessed, monkeypatch):
    """The host's registers and EIP come back, but not what its page table, GDT and IDT are."""
    real = Coupling.recouple

    def recouple(self, reason, *, temporary=False, exchange=lambda: None):
        with monkeypatch.context() as patch:
            patch.setattr(Processor, "write_setting", lambda self, setting, value: None)
            patch.setattr(Processor, "restore_user_state", _user_state_only)
            real(self, reason, temporary=temporary, exchange=exchange)

    write_setting = Processor.write_setting

    def _user_state_only(self, context):
        settings = {setting: self.read_setting(setting) for setting in Setting}
        self.engine.restore_context(context)
        for setting, value in settings.items():
            write_setting(self, setting, value)

    monkeypatch.setattr(Coupling, "recouple", recouple)
    run = noted(hosted, look, witnessed, plan)
    with pytest.raises(TripleFault) as caught:
        run.execute()
    assert caught.value.where.world == World.HOST


@pytest.mark.claim(11, 22, 26)
@pytest.mark.parametrize("plan", PLANS)
def test_what_arrives_is_what_lies_in_the_save_area(plan, hosted, look, witnessed):
    """The saved limit of the host's IDTR is changed in RAM while the guest has the processor."""
    run = hosted("probe", plan, "witness")
    changed = []

    def corrupt(_event):
        if not changed:
            record = look.save_area(run.ram, look.find_save_area(run.ram))["idtr"]
            assert record.limit == 0x7FF
            run.ram[record.place + 16 : record.place + 20] = (0x5FF).to_bytes(4, "little")
            changed.append(record)

    run.on("Decoupled", corrupt)
    run.execute()
    first, *others = witnessed(run.ram)
    assert first.idtr.limit == 0x7FF
    assert {record.idtr.limit for record in others} == {0x5FF}
    assert {record.idtr.base for record in others} == {first.idtr.base}
    # The host's handlers serve again: vector 0x80 is still inside that limit.
    assert [record.probes for record in others] == list(range(2, len(others) + 2))
    assert b"exit=0" in run.machine.debug_output


@pytest.mark.claim(11, 22, 26)
@pytest.mark.parametrize("plan", PLANS)
def test_a_saved_copy_that_is_destroyed_leaves_the_host_without_handlers(plan, hosted, look):
    run = hosted("probe", plan, "witness")

    def destroy(_event):
        record = look.save_area(run.ram, look.find_save_area(run.ram))["idtr"]
        run.ram[record.place + 8 : record.place + 16] = bytes(8)

    run.on("Decoupled", destroy)
    with pytest.raises(TripleFault) as caught:
        run.execute()
    assert caught.value.where.world == World.HOST


# -- by hand: one setting at a time --------------------------------------------------------------


class Hand:
    """A coupling on the witness host, with a region in host memory that every directory of the host's maps."""

    def __init__(self, desk, look):
        self.desk = desk
        self.image = desk.load_mixed()
        spare = look.HOST_SPARE
        self.coupling = Coupling(desk.processor, SaveArea(desk.ram, look.POOL), desk.bus)
        self.region = Region(
            desk.ram, [spare + page * look.PAGE for page in range(look.REGION_PAGES)], form=LEGACY_FORM
        )
        self.region.rebase(spare)

    def route(self, vectors):
        """The region's IDT: these vectors by these providers, all others the host's own gates."""
        plan = Plan("by hand", {}, dict.fromkeys(range(256), Provider.HOST) | vectors)
        base, limit = self.desk.registers().idtr
        symbols = self.image.symbols
        self.region.route(
            plan,
            {
                Provider.HOST: bytes(self.desk.ram[base : base + limit + 1]),
                Provider.GUEST: self.image.read(symbols["idt"], symbols["idt_end"] - symbols["idt"]),
            },
        )


@pytest.fixture
def hand(desk, look):
    return Hand(desk, look)


def assert_decoupled_for_exceptions_only(desk, look, before, region):
    """One more testimony, with IDTR alone replaced."""
    first, between = desk.testimony()
    now = desk.registers()
    assert now.idtr.base == between.idtr.base == region.base + look.PAGE
    assert now.settings[1:] == before.settings[1:]
    # The host's page table still translates, for the host's own code.
    assert (between.cr3, between.window) == (first.cr3, look.HOST_WORD)
    # But its divide error and its int 0x30 ended in the guest's routines.
    assert (between.probes, between.divides) == (first.probes, first.divides) == (1, 1)
    assert (desk.guest_word("probes"), desk.guest_word("divides")) == (1, 1)


@pytest.mark.claim(9, 17)
def test_idtr_alone_replaced_the_hosts_page_table_still_translates(desk, hand, look):
    hand.route({0: Provider.GUEST, 0x30: Provider.GUEST})
    before = desk.registers()
    hand.coupling.decouple({Setting.IDTR: Replacement(hand.region.idtr, Provider.HYPERVISOR)})
    assert set(look.save_area(desk.ram, look.POOL)) == {"idtr"}
    desk.run_to(look.CHECKPOINT)
    assert_decoupled_for_exceptions_only(desk, look, before, hand.region)
    hand.coupling.recouple("by hand")
    assert desk.registers().settings == before.settings
    desk.run_to(look.DOOR)
    first, _, after, *_ = desk.testimony()
    assert (after.idtr, after.probes, after.divides) == (first.idtr, 2, 2)
    assert "exit=0" in desk.finish()


@pytest.mark.claim(9, 17)
def test_with_nothing_replaced_it_is_the_host_that_answers(desk, hand, look):
    hand.route({0: Provider.GUEST, 0x30: Provider.GUEST})
    before = desk.registers()
    desk.run_to(look.CHECKPOINT)
    with pytest.raises(AssertionError):
        assert_decoupled_for_exceptions_only(desk, look, before, hand.region)
    assert desk.testimony()[1].probes == 2


@pytest.mark.claim(9, 17)
def test_idtr_and_gdtr_replaced_the_hosts_interrupt_ends_in_the_regions_stub(desk, hand, look):
    hand.route({0x30: Provider.HYPERVISOR})
    before = desk.registers()
    for index in range(1, (before.gdtr.limit + 1) // 8):
        descriptor = int.from_bytes(desk.ram[before.gdtr.base + 8 * index :][:8], "little")
        hand.region.set_guest_descriptor(index, kernel=descriptor, user=descriptor)
    hand.coupling.decouple(
        {
            Setting.IDTR: Replacement(hand.region.idtr, Provider.HYPERVISOR),
            Setting.GDTR: Replacement(hand.region.gdtr(kernel=False), Provider.HYPERVISOR),
        }
    )
    desk.run_to_halt()
    stopped = desk.registers()
    # The processor stands in stub 0x30, behind its HLT; what the stub and the processor have pushed is on the stack.
    stub = hand.region.base + 0x30 * 16
    assert stub < stopped.eip < stub + 16
    assert desk.ram[stopped.eip - 1] == 0xF4
    vector, _, eip, selector, _ = (look.word(desk.ram, stopped.esp + 4 * at) for at in range(5))
    assert (vector, eip, selector) == (0x30, desk.symbols["witness_probed"], 0x08)
    assert stopped.cr3 == before.cr3
    desk.run_to(look.CHECKPOINT)  # the stub's IRET takes the host back to where it was
    first, between = desk.testimony()
    assert (between.probes, between.divides, between.window) == (first.probes, 2, look.HOST_WORD)
    hand.coupling.recouple("by hand")
    assert desk.registers().settings == before.settings
    assert "exit=0" in desk.finish()


def copy_with_one_page_changed(desk, look):
    """The emulation program's page table, copied, with linear 0x40300000 in another frame; returns the new root."""
    root, table = look.HOST_SPARE + 0x1_0000, look.HOST_SPARE + 0x1_1000
    old = desk.symbols["emulator_directory"]
    old_table = look.word(desk.ram, old + 0x100 * 4) & ~0xFFF
    desk.ram[root : root + 4096] = desk.ram[old : old + 4096]
    desk.ram[table : table + 4096] = desk.ram[old_table : old_table + 4096]
    desk.ram[root + 0x100 * 4 : root + 0x100 * 4 + 4] = (table | 7).to_bytes(4, "little")
    desk.ram[table + 0x300 * 4 : table + 0x300 * 4 + 4] = (0x0030_1000 | 7).to_bytes(4, "little")
    desk.ram[0x0030_1000:0x0030_1004] = (0x60E5_7111).to_bytes(4, "little")
    return root


def assert_decoupled_for_translation_only(desk, look, before, root):
    first, between = desk.testimony()
    now = desk.registers()
    assert now.cr3 == between.cr3 == root
    assert (now.idtr, now.gdtr, now.tr, now.cr0) == (before.idtr, before.gdtr, before.tr, before.cr0)
    # The same address is other memory now; but the host's own vectors still serve.
    assert (first.window, between.window) == (look.HOST_WORD, 0x60E5_7111)
    assert (between.probes, between.divides) == (2, 2)


@pytest.mark.claim(9, 17, 19)
def test_cr3_alone_replaced_the_hosts_vectors_still_serve(desk, hand, look):
    root = copy_with_one_page_changed(desk, look)
    before = desk.registers()
    hand.coupling.decouple({Setting.CR3: Replacement(root, Provider.GUEST)})
    assert set(look.save_area(desk.ram, look.POOL)) == {"cr3"}
    desk.run_to(look.CHECKPOINT)
    assert_decoupled_for_translation_only(desk, look, before, root)
    hand.coupling.recouple("by hand")
    assert desk.registers().settings == before.settings
    desk.run_to(look.DOOR)
    after = desk.testimony()[2]
    assert (after.cr3, after.window, after.probes) == (before.cr3, look.HOST_WORD, 3)
    assert "exit=0" in desk.finish()


@pytest.mark.claim(9, 17, 19)
def test_with_cr3_left_alone_the_address_is_what_it_was(desk, hand, look):
    root = copy_with_one_page_changed(desk, look)
    before = desk.registers()
    desk.run_to(look.CHECKPOINT)
    with pytest.raises(AssertionError):
        assert_decoupled_for_translation_only(desk, look, before, root)
    assert desk.testimony()[1].window == look.HOST_WORD
