"""Claims 12, 13, 20 for 64-bit guests: host functions by a temporary recoupling of a host of 32 bits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hvproto.errors import LimitReached, TripleFault, World
from hvproto.hypervisor.coupling import Coupling
from hvproto.processor.processor import Processor
from hvproto.processor.settings import Setting

PLANS = ("mirrored", "direct")
BLOCK = bytes(at * 7 + 3 & 0xFF for at in range(512))
DISK = bytes(7 * 512) + BLOCK + bytes(8 * 512)
TEXT = b"probe64: I have printed this\n"
LMA = 1 << 10


def watched(hosted, look, plan):
    """`probe64`, with a note whenever the host's drivers are called, and at every decoupling and recoupling."""
    run = hosted("probe64", plan, "host", DISK)
    host, guest = run.host_image.symbols, run.guest_image.symbols
    run.notes = []

    def note(name):
        current = look.word(run.ram, host["current"])
        run.notes.append(SimpleNamespace(name=name, registers=run.registers(), current=current))

    for name in ("write_serial", "read_disk"):
        run.at(host[name], lambda name=name: note(name))
    for name in ("printed", "busy", "stop"):
        run.at(guest[name], lambda name=name: note(name))
    run.on("Decoupled", lambda event: note("Decoupled"))
    run.on("Recoupled", lambda event: note("temporarily" if event.temporary else "Recoupled"))
    return run


@pytest.fixture(scope="module", params=PLANS)
def functions(request, hosted, look):
    return watched(hosted, look, request.param).execute()


def at(run, *names):
    return [note for note in run.notes if note.name in names]


@pytest.mark.claim(12, 20)
def test_the_recoupled_host_prints_and_reads_for_a_64_bit_guest_with_its_own_drivers(functions, look):
    run = functions
    host = run.host_image.symbols
    drivers = at(run, "write_serial", "read_disk")
    assert {note.name for note in drivers} == {"write_serial", "read_disk"}
    for note in drivers:
        registers = note.registers
        assert (registers.idtr.base, registers.gdtr.base) == (host["kernel_idt"], host["kernel_gdt"])
        assert (registers.cr3, registers.ring, registers.efer & LMA) == (host["emulator_directory"], 0, 0)
        assert note.current == host["emulator_process"]
        # The call came from a program: the frame at the top of the process's kernel stack says ring 3.
        assert look.word(run.ram, host["emulator_stack_top"] - 16) == 0x1B
    # The line went out of the machine's serial port, and the block is in the guest's memory.
    assert bytes(run.machine.serial_output) == TEXT
    place = run.guest_image.symbols["disk_block"]
    assert bytes(run.ram[place : place + 512]) == BLOCK
    assert run.word("finished") == 1


@pytest.mark.claim(12, 20)
def test_after_a_host_function_the_64_bit_guest_is_coupled_again_in_long_mode(functions):
    run = functions
    host = run.host_image.symbols
    names = [note.name for note in run.notes]
    assert "temporarily" in names
    for index, name in enumerate(names):
        if name == "temporarily":
            before = next(note for note in reversed(run.notes[:index]) if note.name == "Decoupled")
            again = names.index("Decoupled", index)
            after, between = run.notes[again], run.notes[index + 1 : again]
            assert {note.name for note in between} & {"write_serial", "read_disk"}, "recoupled for nothing"
            # The guest's settings, the host's, and the guest's again: long mode, protected mode, long mode.
            assert after.registers.efer & LMA
            for guest in (before.registers, after.registers):
                assert guest.idtr.base != host["kernel_idt"]
                assert guest.tr[1] != host["kernel_tss"]
                assert guest.cr3 != host["emulator_directory"] or not guest.cr0 >> 31
            for note in between:
                assert note.registers.idtr.base == host["kernel_idt"]
                assert note.registers.tr[1] == host["kernel_tss"]
                assert note.registers.cr3 == host["emulator_directory"]
                assert not note.registers.efer & LMA
    # ... result in hand: after the last driver call comes the guest's own end.
    assert names.index("read_disk") < names.index("stop")
    stopped = at(run, "stop")[0].registers
    assert stopped.idtr == at(run, "Decoupled")[-1].registers.idtr
    assert stopped.efer & LMA


@pytest.mark.claim(12, 20)
@pytest.mark.parametrize("plan", PLANS)
def test_a_call_without_the_recoupling_shuts_the_processor_down_in_long_mode(plan, hosted, look, monkeypatch):
    """At a temporary recoupling, the host's code is continued with the settings as they are."""
    real, write_setting = Coupling.recouple, Processor.write_setting

    def recouple(self, reason, *, temporary=False, exchange=lambda: None):
        keep = {setting: self.processor.read_setting(setting) for setting in Setting}
        real(self, reason, temporary=temporary, exchange=exchange)
        if temporary:
            for setting, value in keep.items():
                write_setting(self.processor, setting, value)
            self.processor.engine.flush_tlb()

    monkeypatch.setattr(Coupling, "recouple", recouple)
    run = watched(hosted, look, plan)
    with pytest.raises(TripleFault) as caught:
        run.execute()
    assert caught.value.where.world == World.HOST
    assert bytes(run.machine.serial_output) == b""


@pytest.mark.claim(12, 20)
@pytest.mark.parametrize("plan", PLANS)
def test_what_the_hosts_driver_reads_is_what_the_64_bit_guest_gets(plan, hosted, look):
    """The block is changed in the emulation program's memory, between the host's driver and the guest."""
    run = watched(hosted, look, plan)
    data = run.host_image.symbols["run_block"] + 0x200
    run.at(
        run.host_image.symbols["guest_served"],
        lambda: run.ram.__setitem__(slice(data, data + 4), b"HOST"),
    )
    run.execute()
    place = run.guest_image.symbols["disk_block"]
    assert bytes(run.ram[place : place + 512]) == b"HOST" + BLOCK[4:]


# -- claim 13 ------------------------------------------------------------------------------------


def progress(run):
    """(the worker's primes, the guest's ticks, the guest's turns in its loop) at each decoupling."""
    found = []
    run.on(
        "Decoupled",
        lambda event: found.append((run.host_word("worker_count"), run.word("ticks"), run.word("spins"))),
    )
    return found


@pytest.mark.claim(13)
@pytest.mark.parametrize("plan", PLANS)
def test_a_64_bit_guest_lives_in_a_user_program_among_others(plan, hosted, look):
    run = watched(hosted, look, plan)
    host = run.host_image.symbols
    found = progress(run)
    own = []
    run.at(host["emulator_loop"], lambda: own.append(run.registers()))
    run.execute()
    assert own
    for registers in own:
        assert (registers.ring, registers.cr3, registers.efer & LMA) == (3, host["emulator_directory"], 0)
    # The guest has the processor only in that process's turn, and beside it the host runs another.
    assert {note.current for note in at(run, "Decoupled", "Recoupled", "temporarily")} == {host["emulator_process"]}
    assert found[0][0] < found[-1][0], "the worker has not worked while the guest lived"
    assert run.host_word("ticks") == run.machine.board.pit.raised


@pytest.mark.claim(13)
@pytest.mark.parametrize("plan", PLANS)
def test_when_the_host_schedules_it_no_more_the_64_bit_guest_stands_still(plan, hosted, look):
    """The emulation program is taken off the host's list of those that may run; all else goes on."""
    run = watched(hosted, look, plan)
    host = run.host_image.symbols
    found = progress(run)

    def stop_the_process():
        if run.word("ticks") == 1:  # the guest waits, awake, for three
            state = host["emulator_process"]
            run.ram[state : state + 4] = (0).to_bytes(4, "little")

    run.at(host["timer_entry"], stop_the_process)
    with pytest.raises(LimitReached):
        run.execute(1_200_000)
    stopped_at = found[-1][0]
    assert run.word("finished") == 0
    assert run.word("ticks") < 3
    assert run.host_word("worker_count") > stopped_at + 10, "the host should have gone on with its other program"
