"""Claims 10, 14-16, 18, 19, 24 for 64-bit guests: the processor itself calls their handlers and walks four levels.

The host is one of 32 bits; the guest goes to long mode by itself, at ring 0, and comes back to it after each stay of the
host on the processor. That nothing stands between an exception and the guest's handler is seen by the machine's virtual
time, which counts every byte of code that is executed, and by how often the processor was stopped and started.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hvproto.errors import TripleFault, World
from hvproto.hypervisor.direct import DirectGuest
from hvproto.machine.machine import Machine
from hvproto.processor.segments import TableRegister
from hvproto.processor.settings import Setting
from tests.claims import wide

PLACES = ("program_divide", "divide_entry", "program_divided", "syscall_entry", "timer_entry", "bits", "bits_end")
LONG_MODE = 0xD00
"""EFER: LME, LMA, NXE."""


def watched(hosted):
    """`probe64` in the plan `direct`, with a note of processor and stack whenever it comes to one of its places."""
    run = hosted("probe64", "direct", "witness")
    symbols = run.guest_image.symbols
    run.notes = []
    run.starts = 0

    def note(place):
        registers = run.registers()
        frame = [wide.qword(run.ram, registers.esp + 8 * at) for at in range(5)]  # guest-physical is host-physical
        run.notes.append(
            SimpleNamespace(
                place=place, registers=registers, frame=frame, now=run.machine.processor.now, starts=run.starts
            )
        )

    for place in PLACES:
        run.at(symbols[place], lambda place=place: note(place))
    return run


def execute(run):
    """Run to the end, counting how often the processor is started."""
    real = Machine.run_processor

    def counted(self, deadline):
        run.starts += 1
        return real(self, deadline)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Machine, "run_processor", counted)
        return run.execute()


@pytest.fixture(scope="module")
def direct(hosted):
    return execute(watched(hosted))


def at(run, place):
    return [note for note in run.notes if note.place == place]


def redirect(run, vector, handler):
    symbols = run.guest_image.symbols
    wide.point_gate(run.ram, symbols["idt"], vector, symbols[handler])


# -- exceptions ----------------------------------------------------------------------------------


@pytest.mark.claim(10, 15, 18, 24)
def test_a_divide_error_of_a_64_bit_program_is_delivered_by_the_processor_to_the_guests_handler(direct):
    symbols = direct.guest_image.symbols
    (before,), (handler,), (after,) = (
        at(direct, place) for place in ("program_divide", "divide_entry", "program_divided")
    )
    # In long mode, through the guest's table: IDTR points to it, in it the gate, in the gate the handler.
    assert before.registers.efer & LONG_MODE == LONG_MODE
    assert before.registers.idtr == (symbols["idt"], 0xFFF)
    assert wide.gate_of(direct.ram, before.registers.idtr.base, 0) == (0x08, symbols["divide_entry"])
    # From ring 3 to ring 0, onto the stack that the guest's TSS names, with the frame that the manual gives.
    assert (before.registers.ring, handler.registers.ring, after.registers.ring) == (3, 0, 3)
    assert handler.registers.esp == symbols["interrupt_stack_top"] - 40
    rip, cs, _, rsp, ss = handler.frame
    assert (rip, cs, ss) == (symbols["program_divide"], 0x2B, 0x23)
    assert rsp == before.registers.esp == symbols["program_stack_top"]
    assert direct.word("divides") == 1
    assert direct.word("program_eax") == 42
    # And nothing in between: the only code since is the handler's own, and the processor has not been stopped.
    assert handler.now - before.now == symbols["divide_end"] - symbols["divide_entry"]
    assert before.starts == handler.starts == after.starts
    assert handler.registers.settings == before.registers.settings


@pytest.mark.claim(10, 18, 24)
def test_with_the_hosts_pointer_the_64_bit_guest_is_not_called(hosted, monkeypatch):
    """IDTR is put back while the guest runs: the processor looks in a table that this address space doesn't have."""
    run = hosted("probe64", "direct", "witness")
    processor, symbols = run.machine.processor, run.guest_image.symbols
    run.at(symbols["program"], processor.request_stop)
    real = Machine.run_processor

    def run_processor(self, deadline):
        if self.world is World.GUEST:
            processor.write_setting(Setting.IDTR, TableRegister(run.host_image.symbols["kernel_idt"], 0x7FF))
        return real(self, deadline)

    monkeypatch.setattr(Machine, "run_processor", run_processor)
    with pytest.raises(TripleFault) as caught:
        run.execute()
    assert (caught.value.where.world, caught.value.where.symbol) == (World.GUEST, "program_divide")
    assert run.word("divides") == 0


@pytest.mark.claim(15)
def test_the_table_of_16_byte_gates_in_ram_decides_which_handler(hosted, direct):
    """The pointer is to a *table*: the test writes another address into it, in RAM, and another routine is called."""
    run = watched(hosted)
    run.at(run.guest_image.symbols["program"], lambda: redirect(run, 0, "divide_other"))
    execute(run)
    assert (run.word("divides"), run.word("others")) == (0, 1)
    assert (direct.word("divides"), direct.word("others")) == (1, 0)


@pytest.mark.claim(10)
def test_the_bundled_64_bit_guest_handles_its_exceptions_as_it_does_alone(hosted, bare):
    run = hosted("guest64", "direct").execute()
    alone = bare("guest64").execute()
    assert bytes(run.session.guests[0].output) == bytes(alone.machine.serial_output)
    assert b"divide error in the program, handled" in alone.machine.serial_output
    assert run.word("failures") == alone.word("failures") == 0
    assert run.word("faults") == alone.word("faults")


# -- interrupts, and what long mode has besides --------------------------------------------------


@pytest.mark.claim(14)
def test_an_interrupt_calls_the_64_bit_guests_routine_by_the_guests_pointer(direct):
    symbols = direct.guest_image.symbols
    ticks = at(direct, "timer_entry")
    assert len(ticks) == direct.word("ticks") >= 3
    for note in ticks:
        assert note.registers.idtr.base == symbols["idt"]
        assert wide.gate_of(direct.ram, note.registers.idtr.base, 0x20) == (0x08, symbols["timer_entry"])
        rip, cs, flags = note.frame[:3]
        assert symbols["spin"] <= rip <= symbols["spin_end"]
        assert (cs, flags & 0x200) == (0x08, 0x200)
        assert not note.registers.eflags & 0x200  # an interrupt gate
    assert direct.word("spins") > 1000
    # The host's own clock has gone on beside it, by the host's own routine.
    assert direct.host_word("ticks") == direct.machine.board.pit.raised


@pytest.mark.claim(14)
def test_another_pointer_in_a_16_byte_gate_is_another_routine(hosted, direct):
    run = watched(hosted)
    run.at(run.guest_image.symbols["bits_end"], lambda: redirect(run, 0x20, "timer_other"))
    execute(run)
    assert run.word("others") == run.word("ticks") >= 3
    assert direct.word("others") == 0


@pytest.mark.claim(17, 18)
@pytest.mark.parametrize("plan", ["mirrored", "direct"])
def test_what_long_mode_has_beside_the_settings_survives_each_stay_of_the_host(plan, hosted):
    """LSTAR, STAR, FMASK, GS's two bases, EFER, R15 and XMM7, set at the beginning and looked at in the end."""
    run = hosted("probe64", plan, "witness").execute()
    assert len(run.named("Recoupled")) > 5
    assert run.word("calls") == 1  # SYSCALL found its entry
    assert run.word("program_gs") == run.word("high_window") == 0x60E5_7000
    assert (run.word("msr_changes"), run.word("mark_changes")) == (0, 0)
    assert run.word("finished") == 1


@pytest.mark.claim(17)
def test_a_kernel_gs_base_that_is_lost_on_the_way_is_noticed(hosted):
    run = hosted("probe64", "direct", "witness")
    processor = run.machine.processor
    armed = []
    run.at(run.guest_image.symbols["printed"], lambda: armed.append(True))

    def lose(_event):
        if armed:
            processor.set_msr(0xC000_0102, 0)

    run.on("Decoupled", lose)
    run.execute()
    with pytest.raises(AssertionError):
        assert run.word("msr_changes") == 0


# -- the page table ------------------------------------------------------------------------------


@pytest.mark.claim(16, 19)
def test_the_processor_walks_the_64_bit_guests_page_table(direct, look, witnessed):
    symbols = direct.guest_image.symbols
    first, last = at(direct, "bits")[0], at(direct, "bits_end")[0]
    assert first.registers.cr3 == last.registers.cr3 == symbols["pml4"]
    # A guest-virtual address translates by it, for the guest's kernel and its program, in either half ...
    for linear in (0x4030_0000, 0xFFFF_FFFF_C000_0000):
        assert wide.look_up(direct.ram, first.registers.cr3, linear).frame == 0x0020_0000
    for place in ("kernel_window", "program_window", "high_window"):
        assert direct.word(place) == look.word(direct.ram, 0x0020_0000) == 0x60E5_7000
    # ... and for the host the same address is other memory.
    assert {record.window for record in witnessed(direct.ram)} == {look.HOST_WORD}
    # What the walk leaves behind: accessed after the read, dirty after the write; set with nobody's help.
    assert first.starts == last.starts
    marks = [direct.word(name) & (look.A | look.D) for name in ("bits_untouched", "bits_read", "bits_written")]
    assert marks == [0, look.A, look.A | look.D]
    page = wide.look_up(direct.ram, symbols["pml4"], 0x4030_1000)
    assert page == (0x0020_1000, 4096, True, True, True, True, False)
    assert look.word(direct.ram, 0x0020_1000) == 0xD112_7000


@pytest.mark.claim(16)
def test_another_entry_in_the_64_bit_guests_table_is_another_page(hosted, look):
    run = watched(hosted)
    symbols = run.guest_image.symbols
    entry = symbols["window_table"] + 257 * 8

    def lead_elsewhere():
        run.ram[entry : entry + 8] = (0x0020_2000 | 7).to_bytes(8, "little")

    run.at(symbols["program"], lead_elsewhere)
    execute(run)
    assert look.word(run.ram, 0x0020_2000) == 0xD112_7000
    assert look.word(run.ram, 0x0020_1000) == 0


@pytest.mark.claim(16, 19)
def test_in_the_plan_mirrored_it_is_not_the_64_bit_guests_table_that_the_processor_walks(hosted, look, direct):
    run = hosted("probe64", "mirrored", "witness")
    found = []
    run.at(run.guest_image.symbols["bits"], lambda: found.append(run.registers().cr3))
    run.execute()
    assert found[0] >= look.POOL
    with pytest.raises(AssertionError):
        assert found[0] == at(direct, "bits")[0].registers.cr3


@pytest.mark.claim(19)
def test_without_cr3_in_the_set_the_host_is_left_with_a_table_of_four_levels(hosted, monkeypatch):
    real = DirectGuest.replacements

    def all_but_cr3(self):
        return {setting: value for setting, value in real(self).items() if setting is not Setting.CR3}

    monkeypatch.setattr(DirectGuest, "replacements", all_but_cr3)
    with pytest.raises(TripleFault) as caught:
        hosted("probe64", "direct", "witness").execute()
    assert caught.value.where.world == World.HOST
