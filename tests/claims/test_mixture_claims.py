"""Claims 28-30: replacement sets that leave part of the processor to the host, coupled by hand.

The guest is `mixed`: its kernel runs at ring 0 in the emulation program's place, under the host's own page table, with
an IDT in which some gates lead to its own routines, some to the host's, and one to the hypervisor's stub.
"""

from __future__ import annotations

import pytest

from hvproto.errors import TripleFault
from hvproto.hypervisor.coupling import Coupling, Replacement
from hvproto.hypervisor.plan import Plan, Provider
from hvproto.hypervisor.region import Region
from hvproto.hypervisor.region_form import LEGACY_FORM
from hvproto.hypervisor.save_area import SaveArea
from hvproto.processor.settings import Setting

CALL = 0x31
"""The vector by which `mixed` calls the hypervisor."""


class Mixture:
    """`mixed` on the witness host, with the host's settings replaced as a plan and a page table say."""

    def __init__(self, desk, look, vectors, cr3=None):
        self.desk, self.look = desk, look
        self.image = desk.load_mixed()
        symbols = self.image.symbols
        spare = look.HOST_SPARE
        self.host = desk.registers()
        self.region = Region(
            desk.ram, [spare + page * look.PAGE for page in range(look.REGION_PAGES)], form=LEGACY_FORM
        )
        self.region.rebase(spare)
        base, limit = self.host.idtr
        self.region.route(
            Plan("mixture", {}, dict.fromkeys(range(256), Provider.HOST) | vectors),
            {
                Provider.HOST: bytes(desk.ram[base : base + limit + 1]),
                Provider.GUEST: self.image.read(symbols["idt"], symbols["idt_end"] - symbols["idt"]),
            },
        )
        for index in range(1, (self.host.gdtr.limit + 1) // 8):
            descriptor = int.from_bytes(desk.ram[self.host.gdtr.base + 8 * index :][:8], "little")
            self.region.set_guest_descriptor(index, kernel=descriptor, user=descriptor)
        self.coupling = Coupling(desk.processor, SaveArea(desk.ram, look.POOL), desk.bus)
        self.state = desk.processor.save_context()
        self.replacements = {
            Setting.IDTR: Replacement(self.region.idtr, Provider.HYPERVISOR),
            Setting.GDTR: Replacement(self.region.gdtr(kernel=False), Provider.HYPERVISOR),
            Setting.CR3: Replacement(
                self.host.cr3 if cr3 is None else cr3, Provider.HOST if cr3 is None else Provider.GUEST
            ),
        }

    def decouple(self):
        def enter():
            processor, symbols = self.desk.processor, self.image.symbols
            processor.eip, processor.esp, processor.eflags = symbols["start"], symbols["stack_top"], 2

        self.coupling.decouple(self.replacements, exchange=enter)

    def recouple(self):
        self.coupling.recouple("by hand", exchange=lambda: self.desk.processor.restore_user_state(self.state))

    def run_to_call(self):
        """Let it run until it stands in the hypervisor's stub of its call."""
        self.desk.run_to_halt()
        stub = self.region.base + CALL * 16
        assert stub < self.desk.registers().eip < stub + 16

    def entry(self, vector):
        """The routine that a gate of the table in force leads to, read from RAM (which is one to one here)."""
        gate = self.desk.registers().idtr.base + vector * 8
        low, high = self.look.word(self.desk.ram, gate), self.look.word(self.desk.ram, gate + 4)
        return low & 0xFFFF | high & 0xFFFF_0000


GUEST_DIVIDES = {0: Provider.GUEST, CALL: Provider.HYPERVISOR}
"""The guest's own routine for its divide errors; everything else but the call is the host's."""


def assert_host_exceptions_serve(mixture):
    desk = mixture.desk
    assert mixture.entry(0x30) == desk.symbols["host_probe_entry"]
    assert mixture.entry(14) == desk.symbols["page_fault_entry"]
    assert desk.word("host_probes") == 2  # the witness's and the guest's
    assert desk.guest_word("probes") == 0
    # The guest's own vector is the guest's.
    assert mixture.entry(0) == mixture.image.symbols["divide_entry"]
    assert (desk.guest_word("divides"), desk.word("host_divides")) == (1, 1)


def assert_host_clock_ticks(mixture, ticks_before):
    desk = mixture.desk
    assert mixture.entry(0x20) == desk.symbols["timer_entry"]
    assert desk.guest_word("ticks_taken") == 0
    assert desk.guest_word("ticks_seen") >= 3
    assert desk.word("ticks") - ticks_before >= 3
    assert desk.word("ticks") == desk.machine.board.pit.raised


@pytest.mark.claim(28)
def test_the_replacement_set_has_pointers_to_the_hosts_exception_handlers(desk, look):
    mixture = Mixture(desk, look, GUEST_DIVIDES)
    mixture.decouple()
    decoupled = desk.registers()
    assert decoupled.idtr.base == mixture.region.base + look.PAGE != mixture.host.idtr.base
    mixture.run_to_call()
    assert_host_exceptions_serve(mixture)
    # The host's other program went on meanwhile, page faults and all, through a table that isn't the host's.
    assert desk.registers().idtr == decoupled.idtr
    assert desk.word("page_faults") > 0
    mixture.recouple()
    assert desk.registers() == mixture.host
    # Claim 28 follows claim 20: a function of the host's in between, by a temporary recoupling; then the guest again.
    desk.run_to(look.CHECKPOINT)
    assert desk.testimony()[1].idtr == mixture.host.idtr
    assert "exit=0" in desk.finish()


@pytest.mark.claim(20, 28)
def test_the_mixture_is_put_back_after_a_temporary_recoupling(desk, look):
    mixture = Mixture(desk, look, GUEST_DIVIDES)
    mixture.decouple()
    mixture.run_to_call()
    guest, guest_registers = desk.processor.save_context(), desk.registers()
    mixture.recouple()
    desk.run_to(look.CHECKPOINT)  # the host does something of its own: the witness speaks
    assert desk.testimony()[1].idtr == mixture.host.idtr
    mixture.state = desk.processor.save_context()
    mixture.coupling.decouple(mixture.replacements, exchange=lambda: desk.processor.restore_user_state(guest))
    assert desk.registers() == guest_registers
    probes = desk.word("host_probes")
    desk.run_to_halt()  # out of the stub, back into the guest, which calls once more
    assert desk.registers()[:-1] == guest_registers[:-1]
    assert desk.word("host_probes") == probes
    mixture.recouple()
    assert "exit=0" in desk.finish()


@pytest.mark.claim(28)
def test_with_the_guests_pointer_instead_the_hosts_handler_is_not_called(desk, look):
    mixture = Mixture(desk, look, GUEST_DIVIDES | {0x30: Provider.GUEST})
    mixture.decouple()
    mixture.run_to_call()
    with pytest.raises(AssertionError):
        assert_host_exceptions_serve(mixture)
    assert (desk.guest_word("probes"), desk.word("host_probes")) == (1, 1)


@pytest.mark.claim(29)
def test_the_hosts_timer_keeps_ticking_while_it_is_decoupled(desk, look):
    mixture = Mixture(desk, look, GUEST_DIVIDES)
    ticks, worker = desk.word("ticks"), desk.word("worker_count")
    mixture.decouple()
    mixture.run_to_call()
    assert desk.registers().idtr.base == mixture.region.base + look.PAGE
    assert_host_clock_ticks(mixture, ticks)
    assert desk.word("worker_count") >= worker
    mixture.recouple()
    desk.run_to(look.CHECKPOINT)
    report = desk.finish()
    assert f"ticks={desk.machine.board.pit.raised} " in report
    assert "exit=0" in report


@pytest.mark.claim(29)
def test_a_timer_that_is_routed_to_the_guest_ticks_for_the_host_no_more(desk, look):
    mixture = Mixture(desk, look, GUEST_DIVIDES | {0x20: Provider.GUEST})
    ticks = desk.word("ticks")
    mixture.decouple()
    with pytest.raises(AssertionError):
        while desk.guest_word("ticks_taken") < 10:
            desk.machine.slice(look.LIMIT)
        assert_host_clock_ticks(mixture, ticks)
    assert desk.word("ticks") == ticks


def assert_hosts_page_table(mixture, cr3):
    """The guest reads host memory at the host's addresses: its tick counter, through the table in CR3."""
    desk, look = mixture.desk, mixture.look
    assert cr3 == mixture.host.cr3 == desk.symbols["emulator_directory"]
    assert look.up_two_level(desk.ram, cr3, desk.symbols["ticks"]) & ~0xFFF == desk.symbols["ticks"] & ~0xFFF
    assert desk.guest_word("first_ticks") + desk.guest_word("ticks_seen") == desk.word("ticks")
    # And its own memory where the emulation program has it.
    page = mixture.image.symbols["divides"]
    assert look.up_two_level(desk.ram, cr3, page) & ~0xFFF == page - look.GUEST_MEMORY


@pytest.mark.claim(30)
def test_the_replacement_set_has_the_hosts_own_page_table(desk, look):
    mixture = Mixture(desk, look, GUEST_DIVIDES)
    mixture.decouple()
    saved = look.save_area(desk.ram, look.POOL)
    assert set(saved) == {"idtr", "gdtr", "cr3"}
    assert saved["cr3"].value == mixture.host.cr3
    cr3 = desk.registers().cr3
    mixture.run_to_call()
    assert desk.registers().cr3 == cr3
    assert_hosts_page_table(mixture, cr3)
    mixture.recouple()
    assert desk.registers() == mixture.host
    assert "exit=0" in desk.finish()


@pytest.mark.claim(30)
def test_with_a_page_table_of_the_guests_the_hosts_memory_is_out_of_reach(desk, look):
    """The same set with a table that maps the guest's memory only, where the guest expects it."""
    root, table = look.HOST_SPARE + 0x1_0000, look.HOST_SPARE + 0x1_1000
    entries = b"".join((page << 12 | 3).to_bytes(4, "little") for page in range(1024))
    desk.ram[table : table + 4096] = entries
    desk.ram[root + 0x100 * 4 : root + 0x100 * 4 + 4] = (table | 3).to_bytes(4, "little")
    mixture = Mixture(desk, look, GUEST_DIVIDES, root)
    mixture.decouple()
    assert desk.registers().cr3 == root
    with pytest.raises(TripleFault):  # neither the host's variables nor the table of vectors is anywhere now
        mixture.run_to_call()
    with pytest.raises(AssertionError):
        assert_hosts_page_table(mixture, root)
