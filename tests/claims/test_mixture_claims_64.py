"""Claims 28-30 with both sides of 64 bits: replacement sets that leave part of the processor to the host.

A processor reads one table of vectors, in gates of one size, and walks one page table, of one format. So a set can mix
handlers or page tables of a host and a guest of the same kind only: beside the bundled 32-bit host, a 64-bit guest has
to have the whole of them replaced (as it has in the plans `mirrored` and `direct`). Here the host is one of 64 bits,
`host64`, with a guest `mixed64` in its emulation program's place, coupled by hand.
"""

from __future__ import annotations

import pytest

from hvproto.errors import TripleFault
from hvproto.hypervisor.plan import Provider
from tests.claims import wide
from tests.claims.desk64 import CALL, CHECKPOINT, GUEST_MEMORY, LIMIT, POOL, SPARE, Desk64, Mixture64

GUEST_DIVIDES = {0: Provider.GUEST, CALL: Provider.HYPERVISOR}
"""The guest's own routine for its divide errors; everything else but the call is the host's."""
LMA = 1 << 10


@pytest.fixture
def desk(look):
    return Desk64(look.registers)


def assert_host_exceptions_serve(mixture):
    desk = mixture.desk
    assert mixture.entry(0x30) == desk.symbols["probe_entry"]
    assert mixture.entry(14) == desk.symbols["page_fault_entry"]
    assert desk.word("host_probes") == 2  # the driver's and the guest's
    assert desk.guest_word("probes") == 0
    # The guest's own vector is the guest's.
    assert mixture.entry(0) == mixture.desk.guest.symbols["divide_entry"]
    assert (desk.guest_word("divides"), desk.word("host_divides")) == (1, 1)


def assert_host_clock_ticks(mixture, ticks_before):
    desk = mixture.desk
    assert mixture.entry(0x20) == desk.symbols["timer_entry"]
    assert desk.guest_word("ticks_taken") == 0
    assert desk.guest_word("ticks_seen") >= 3
    assert desk.word("ticks") - ticks_before >= 3
    assert desk.word("ticks") == desk.machine.board.pit.raised


@pytest.mark.claim(28)
def test_a_set_of_64_bit_gates_has_pointers_to_the_hosts_exception_handlers(desk):
    mixture = Mixture64(desk, GUEST_DIVIDES)
    # The host's page on demand isn't there: the guest's touch calls the host's own page fault handler.
    entry = desk.symbols["demand_table"]
    desk.ram[entry : entry + 8] = bytes(8)
    desk.processor.engine.flush_tlb()
    faults = desk.word("page_faults")
    mixture.decouple()
    decoupled = desk.registers()
    assert decoupled.efer & LMA
    assert decoupled.idtr.base == mixture.region.base + wide.PAGE != mixture.host.idtr.base
    mixture.run_to_call()
    assert_host_exceptions_serve(mixture)
    assert desk.word("page_faults") == faults + 1
    assert wide.qword(desk.ram, entry) & wide.P
    mixture.recouple()
    assert desk.registers() == mixture.host
    # Claim 28 follows claim 20: something of the host's in between, by a temporary recoupling; then the guest again.
    desk.run_to(CHECKPOINT)
    assert desk.registers().idtr == mixture.host.idtr
    assert "exit=0" in desk.finish()


@pytest.mark.claim(20, 28)
def test_the_mixture_of_64_bits_is_put_back_after_a_temporary_recoupling(desk):
    mixture = Mixture64(desk, GUEST_DIVIDES)
    mixture.decouple()
    mixture.run_to_call()
    guest, guest_registers = desk.processor.save_context(), desk.registers()
    mixture.recouple()
    desk.run_to(CHECKPOINT)  # the host does something of its own
    probes = desk.word("host_probes")
    assert probes == 3
    mixture.state = desk.processor.save_context()
    mixture.coupling.decouple(mixture.replacements, exchange=lambda: desk.processor.restore_user_state(guest))
    assert desk.registers() == guest_registers
    desk.run_to_halt()  # out of the stub, back into the guest, which calls once more
    assert desk.registers().eip == guest_registers.eip
    assert desk.registers().settings == guest_registers.settings
    assert desk.word("host_probes") == probes
    mixture.recouple()
    assert "exit=0" in desk.finish()


@pytest.mark.claim(28)
def test_with_the_64_bit_guests_pointer_instead_the_hosts_handler_is_not_called(desk):
    mixture = Mixture64(desk, GUEST_DIVIDES | {0x30: Provider.GUEST})
    mixture.decouple()
    mixture.run_to_call()
    with pytest.raises(AssertionError):
        assert_host_exceptions_serve(mixture)
    assert (desk.guest_word("probes"), desk.word("host_probes")) == (1, 1)


@pytest.mark.claim(29)
def test_the_64_bit_hosts_timer_keeps_ticking_while_it_is_decoupled(desk):
    mixture = Mixture64(desk, GUEST_DIVIDES)
    ticks = desk.word("ticks")
    mixture.decouple()
    mixture.run_to_call()
    assert desk.registers().idtr.base == mixture.region.base + wide.PAGE
    assert_host_clock_ticks(mixture, ticks)
    mixture.recouple()
    desk.run_to(CHECKPOINT)
    assert "exit=0" in desk.finish()
    assert desk.word("ticks") == desk.machine.board.pit.raised


@pytest.mark.claim(29)
def test_a_timer_that_is_routed_to_the_64_bit_guest_ticks_for_the_host_no_more(desk):
    mixture = Mixture64(desk, GUEST_DIVIDES | {0x20: Provider.GUEST})
    ticks = desk.word("ticks")
    mixture.decouple()
    with pytest.raises(AssertionError):
        while desk.guest_word("ticks_taken") < 10:
            desk.machine.slice(LIMIT)
        assert_host_clock_ticks(mixture, ticks)
    assert desk.word("ticks") == ticks


def assert_hosts_page_table(mixture, cr3):
    """The guest reads host memory at the host's addresses: its tick counter, through the table in CR3."""
    desk = mixture.desk
    assert cr3 == mixture.host.cr3 == desk.symbols["pml4"]
    ticks = desk.symbols["ticks"]
    assert wide.look_up(desk.ram, cr3, ticks).frame == ticks & ~0xFFF
    assert desk.guest_word("first_ticks") + desk.guest_word("ticks_seen") == desk.word("ticks")
    # And its own memory where the emulation program has it.
    page = mixture.desk.guest.symbols["divides"]
    assert wide.look_up(desk.ram, cr3, page).frame == page - GUEST_MEMORY & ~0x1F_FFFF


@pytest.mark.claim(30)
def test_the_set_has_the_64_bit_hosts_own_page_table(desk, look):
    mixture = Mixture64(desk, GUEST_DIVIDES)
    mixture.decouple()
    saved = look.save_area(desk.ram, POOL)
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
def test_with_four_levels_of_the_guests_the_hosts_memory_is_out_of_reach(desk):
    """The same set with a table that maps the guest's memory only, where the guest expects it."""
    root, pointers, directory = SPARE + 0x1_0000, SPARE + 0x1_1000, SPARE + 0x1_2000

    def put(at, value):
        desk.ram[at : at + 8] = value.to_bytes(8, "little")

    put(root, pointers | 3)
    put(pointers + 8, directory | 3)
    for index in range(8):
        put(directory + 8 * index, index << 21 | 0x83)
    mixture = Mixture64(desk, GUEST_DIVIDES, root)
    mixture.decouple()
    assert desk.registers().cr3 == root
    with pytest.raises(TripleFault):  # neither the host's variables nor the table of vectors is anywhere now
        mixture.run_to_call()
    with pytest.raises(AssertionError):
        assert_hosts_page_table(mixture, root)
