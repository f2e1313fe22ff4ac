"""Claims 9, 11, 17, 21-23, 25-27 for 64-bit guests: the host's settings, saved, replaced by those of long mode, restored.

Whole runs, in both plans: the witness (witness.asm) is code of the 32-bit host that notes what the processor holds right
before and right behind the hypervisor's door; `probe64` is the guest. One setting at a time, by hand: `host64`, a host
of 64 bits, with a guest whose routines run under its page table (see test_mixture_claims_64.py for why).
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hvproto.errors import TripleFault, World
from hvproto.hypervisor.coupling import Coupling, Replacement
from hvproto.hypervisor.direct import DirectGuest
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.plan import Provider
from hvproto.hypervisor.save_area import SaveAreaError
from hvproto.processor.processor import Processor
from hvproto.processor.settings import Setting
from tests.claims import wide
from tests.claims.desk64 import CHECKPOINT, GUEST_MEMORY, HOST_WORD, SPARE, WINDOW, Desk64, Mixture64

PLANS = ("mirrored", "direct")
GUESTS = {"mirrored": MirroredGuest, "direct": DirectGuest}
SETTINGS = ("idtr", "gdtr", "ldtr", "tr", "cr0", "cr3", "cr4", "efer")
LMA = 1 << 10


def noted(hosted, look, witnessed, plan):
    """A run of host, witness and `probe64`, with a note at every decoupling and recoupling."""
    run = hosted("probe64", plan, "witness")
    run.notes = []

    def note(event):
        if event.kind in ("SettingSaved", "Decoupled", "Recoupled"):
            entry = SimpleNamespace(
                event=event,
                name=event.kind,
                registers=run.registers(),
                testimony=witnessed(run.ram),
                guest={name: run.word(name) for name in ("probes", "divides", "ticks")},
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


def assert_saved(run):
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
        assert (saved["tr"].selector, saved["ldtr"].selector) == (found.tr, found.ldtr)
        assert saved["tr"].value == run.host_image.symbols["kernel_tss"]


# -- whole runs, in each plan --------------------------------------------------------------------


@pytest.mark.claim(9, 21, 23, 27)
def test_the_hosts_settings_are_in_ram_with_their_registers_names_while_a_64_bit_guest_runs(coupled, look):
    assert_saved(coupled)
    for note in named(coupled, "Decoupled"):
        assert all(look.POOL <= record.place < 2 * look.POOL for record in note.saved.values())
        assert not note.saved["efer"].value & LMA  # the host's, of 32 bits
    # And they were read while they still were the host's.
    for note in named(coupled, "SettingSaved"):
        assert note.registers.idtr == note.testimony[-1].idtr
        assert note.registers.cr3 == note.testimony[-1].cr3


@pytest.mark.claim(9, 21, 23, 27)
@pytest.mark.parametrize("plan", PLANS)
def test_without_the_copy_in_ram_there_is_no_way_back_from_long_mode(plan, hosted, look):
    run = hosted("probe64", plan, "witness")

    def wipe(_event):
        place = look.find_save_area(run.ram)
        run.ram[place : place + look.PAGE] = bytes(look.PAGE)

    run.on("Decoupled", wipe)
    with pytest.raises(SaveAreaError):
        run.execute()
    assert run.named("Recoupled") == []


@pytest.mark.claim(21, 27)
@pytest.mark.parametrize("plan", PLANS)
def test_a_false_record_is_noticed_beside_a_64_bit_guest(plan, hosted, look, witnessed):
    run = noted(hosted, look, witnessed, plan)

    def falsify(event):
        if event.setting == "IDTR":
            run.ram[event.place + 16 : event.place + 20] = (0x5FF).to_bytes(4, "little")

    run.on("SettingSaved", falsify)
    run.execute()
    with pytest.raises(AssertionError):
        assert_saved(run)


@pytest.mark.claim(9, 17, 27)
def test_the_64_bit_guests_settings_are_then_in_the_processor(coupled, look):
    host = coupled.host_image.symbols
    last = named(coupled, "Decoupled")[-1].registers
    assert last.efer & LMA
    assert last.idtr.base != host["kernel_idt"]
    assert last.gdtr.base != host["kernel_gdt"]
    assert last.cr3 not in (host["emulator_directory"], host["kernel_page_directory"])
    if coupled.plan == "direct":
        guest = coupled.guest_image.symbols
        assert (last.idtr, last.gdtr.base, last.cr3) == ((guest["idt"], 0xFFF), guest["gdt"], guest["pml4"])
        assert last.tr[:2] == (0x30, guest["tss"])
    else:
        pages = [wide.look_up(coupled.ram, last.cr3, linear) for linear in look.region(last).pages]
        assert all(page is not None and not page.user for page in pages)


@pytest.mark.claim(11, 17, 22, 26)
def test_after_a_stay_of_a_64_bit_guest_the_host_has_everything_back(coupled):
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
def test_a_probe_between_the_replacements_finds_the_64_bit_guests_memory(coupled, look):
    """The same linear address: before and after it is the host's memory, between the guest's."""
    for place in ("kernel_window", "program_window", "high_window"):
        assert coupled.word(place) == 0x60E5_7000
    said = named(coupled, "Decoupled")[-1].testimony
    assert {record.window for record in said} == {look.HOST_WORD}


@pytest.mark.claim(25, 26)
def test_the_same_exception_ends_at_the_host_at_the_64_bit_guest_and_at_the_host(coupled):
    decouplings, recouplings = named(coupled, "Decoupled"), named(coupled, "Recoupled")
    stays = list(zip(decouplings, recouplings, strict=True))
    assert [after.host == before.host for before, after in stays] == [True] * len(stays)
    for name in ("probes", "divides"):
        gained = [after.guest[name] - before.guest[name] for before, after in stays]
        assert sum(gained) == coupled.word(name) == 1
        # Before and after: each testimony adds one of each to the host's.
        said = decouplings[-1].testimony
        assert [getattr(record, name) for record in said] == list(range(1, len(said) + 1))


@pytest.mark.claim(9, 25)
@pytest.mark.parametrize("plan", PLANS)
def test_with_idtr_left_out_of_the_set_a_64_bit_guest_or_its_host_has_no_handlers(plan, hosted, monkeypatch):
    """Deprivileged, the guest finds the host's pointer; at ring 0 it loads its own, and the host is left with that."""
    real = GUESTS[plan].replacements

    def all_but_idtr(self):
        return {setting: value for setting, value in real(self).items() if setting is not Setting.IDTR}

    monkeypatch.setattr(GUESTS[plan], "replacements", all_but_idtr)
    run = hosted("probe64", plan, "witness")
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
def test_without_the_second_replacement_the_host_is_stuck_in_long_mode(plan, hosted, look, witnessed, monkeypatch):
    """The host's registers and EIP come back, but not what its page table, GDT and IDT are."""
    real, write_setting = Coupling.recouple, Processor.write_setting

    def recouple(self, reason, *, temporary=False, exchange=lambda: None):
        keep = {setting: self.processor.read_setting(setting) for setting in Setting}
        real(self, reason, temporary=temporary, exchange=exchange)
        for setting, value in keep.items():
            write_setting(self.processor, setting, value)
        self.processor.engine.flush_tlb()

    monkeypatch.setattr(Coupling, "recouple", recouple)
    run = noted(hosted, look, witnessed, plan)
    with pytest.raises(TripleFault) as caught:
        run.execute()
    assert caught.value.where.world == World.HOST


@pytest.mark.claim(11, 22, 26)
@pytest.mark.parametrize("plan", PLANS)
def test_what_arrives_from_long_mode_is_what_lies_in_the_save_area(plan, hosted, look, witnessed):
    """The saved limit of the host's IDTR is changed in RAM while the guest has the processor."""
    run = hosted("probe64", plan, "witness")
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


# -- by hand, on a host of 64 bits: one setting at a time ----------------------------------------


@pytest.fixture
def desk(look):
    return Desk64(look.registers)


@pytest.mark.claim(9, 17, 25)
def test_idtr_alone_replaced_the_64_bit_hosts_page_table_still_translates(desk):
    before = desk.registers()
    mixture = Mixture64(desk, {0: Provider.GUEST, 0x30: Provider.GUEST})
    mixture.coupling.decouple({Setting.IDTR: mixture.replacements[Setting.IDTR]})
    desk.run_to(CHECKPOINT)  # host code that divides by zero, raises INT 0x30, reads at WINDOW
    now = desk.registers()
    assert now.idtr.base == mixture.region.base + wide.PAGE != before.idtr.base
    assert now.settings[1:] == before.settings[1:]
    assert desk.word("host_window") == HOST_WORD
    assert (desk.word("host_probes"), desk.word("host_divides")) == (1, 1)  # from before the door
    assert (desk.guest_word("probes"), desk.guest_word("divides")) == (1, 1)
    mixture.coupling.recouple("by hand")
    assert desk.registers().settings == before.settings
    desk.run_to(CHECKPOINT)
    assert (desk.word("host_probes"), desk.word("host_divides")) == (2, 2)
    assert "exit=0" in desk.finish()


@pytest.mark.claim(9, 17, 19)
def test_cr3_alone_replaced_the_64_bit_hosts_vectors_still_serve(desk):
    """A copy of the host's four levels, with one page in another frame."""
    symbols = desk.symbols
    root, pointers, directory = SPARE + 0x1_0000, SPARE + 0x1_1000, SPARE + 0x1_2000
    for new, old in ((root, "pml4"), (pointers, "pdpt"), (directory, "guest_directory")):
        desk.ram[new : new + 4096] = desk.ram[symbols[old] : symbols[old] + 4096]

    def put(at, value):
        desk.ram[at : at + 8] = value.to_bytes(8, "little")

    put(root, pointers | 7)
    put(pointers + 8, directory | 7)
    index = (WINDOW - GUEST_MEMORY) >> 21
    put(directory + 8 * index, 0x0080_0000 | 0x87)
    changed = 0x0080_0000 + (WINDOW & 0x1F_FFFF)
    desk.ram[changed : changed + 4] = (0x60E5_7111).to_bytes(4, "little")
    before = desk.registers()
    mixture = Mixture64(desk, {})
    mixture.coupling.decouple({Setting.CR3: Replacement(root, Provider.GUEST)})
    desk.run_to(CHECKPOINT)
    now = desk.registers()
    assert now.cr3 == root
    assert (now.idtr, now.gdtr, now.tr, now.cr0) == (before.idtr, before.gdtr, before.tr, before.cr0)
    # The same address is other memory now; but the host's own vectors still serve.
    assert desk.word("host_window") == 0x60E5_7111
    assert (desk.word("host_probes"), desk.word("host_divides")) == (2, 2)
    mixture.coupling.recouple("by hand")
    assert desk.registers().settings == before.settings
    desk.run_to(CHECKPOINT)
    assert desk.word("host_window") == HOST_WORD
    assert "exit=0" in desk.finish()


@pytest.mark.claim(9, 17, 19)
def test_with_nothing_replaced_it_is_the_64_bit_host_that_answers(desk):
    Mixture64(desk, {0: Provider.GUEST, 0x30: Provider.GUEST})
    desk.run_to(CHECKPOINT)
    assert desk.word("host_window") == HOST_WORD
    assert (desk.word("host_probes"), desk.word("host_divides")) == (2, 2)
    assert (desk.guest_word("probes"), desk.guest_word("divides")) == (0, 0)
