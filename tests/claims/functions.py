"""What the tests of host functions share, whatever the guest's bits: `probe` or `probe64`, watched, and what must hold."""

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


def watched(hosted, look, guest, plan):
    """This guest, with a note whenever the host's drivers are called, and at every decoupling and recoupling."""
    run = hosted(guest, plan, "host", DISK)
    host, symbols = run.host_image.symbols, run.guest_image.symbols
    run.notes = []

    def note(name):
        current = look.word(run.ram, host["current"])
        run.notes.append(SimpleNamespace(name=name, registers=run.registers(), current=current))

    for name in ("write_serial", "read_disk", "emulator_loop", "guest_write", "guest_read_block"):
        run.at(host[name], lambda name=name: note(name))
    for name in ("printed", "busy", "stop"):
        run.at(symbols[name], lambda name=name: note(name))
    run.on("Decoupled", lambda event: note("Decoupled"))
    run.on("Recoupled", lambda event: note("temporarily" if event.temporary else "Recoupled"))
    return run


def at(run, *names):
    return [note for note in run.notes if note.name in names]


def check_drivers(run, look, text):
    """The host's own drivers have printed the text and read the block, for the emulation program; returns their notes."""
    host = run.host_image.symbols
    drivers = at(run, "write_serial", "read_disk")
    assert {note.name for note in drivers} == {"write_serial", "read_disk"}
    for note in drivers:
        registers = note.registers
        assert (registers.idtr.base, registers.gdtr.base) == (host["kernel_idt"], host["kernel_gdt"])
        assert (registers.cr3, registers.ring) == (host["emulator_directory"], 0)
        assert note.current == host["emulator_process"]
        # The call came from a program: the frame at the top of the process's kernel stack says ring 3.
        assert look.word(run.ram, host["emulator_stack_top"] - 16) == 0x1B
    # The line went out of the machine's serial port, and the block is in the guest's memory.
    assert bytes(run.machine.serial_output) == text
    place = run.guest_image.symbols["disk_block"]
    assert bytes(run.ram[place : place + 512]) == BLOCK
    assert run.word("finished") == 1
    return drivers


def check_temporary_recouplings(run):
    """The guest's settings, the host's, and the guest's again, each time; returns the notes (before, between, after)."""
    host = run.host_image.symbols
    names = [note.name for note in run.notes]
    found = []
    assert "temporarily" in names
    for index, name in enumerate(names):
        if name == "temporarily":
            before = next(note for note in reversed(run.notes[:index]) if note.name == "Decoupled")
            again = names.index("Decoupled", index)
            after, between = run.notes[again], run.notes[index + 1 : again]
            assert {note.name for note in between} & {"write_serial", "read_disk"}, "recoupled for nothing"
            for guest in (before.registers, after.registers):
                assert guest.idtr.base != host["kernel_idt"]
                assert guest.tr[1] != host["kernel_tss"]
                assert guest.cr3 != host["emulator_directory"] or not guest.cr0 >> 31
            for note in between:
                assert note.registers.idtr.base == host["kernel_idt"]
                assert note.registers.tr[1] == host["kernel_tss"]
                assert note.registers.cr3 == host["emulator_directory"]
            found.append((before, between, after))
    # ... result in hand: after the last driver call comes the guest's own end.
    assert names.index("read_disk") < names.index("stop")
    stopped = at(run, "stop")[0].registers
    assert stopped.idtr == at(run, "Decoupled")[-1].registers.idtr
    return found


def check_shutdown_without_recoupling(run, monkeypatch):
    """At a temporary recoupling, the host's code is continued with the settings as they are: it doesn't get far."""
    real, write_setting = Coupling.recouple, Processor.write_setting

    def recouple(self, reason, *, temporary=False, exchange=lambda: None):
        keep = {setting: self.processor.read_setting(setting) for setting in Setting}
        real(self, reason, temporary=temporary, exchange=exchange)
        if temporary:
            for setting, value in keep.items():
                write_setting(self.processor, setting, value)
            self.processor.engine.flush_tlb()

    monkeypatch.setattr(Coupling, "recouple", recouple)
    with pytest.raises(TripleFault) as caught:
        run.execute()
    assert caught.value.where.world == World.HOST
    assert bytes(run.machine.serial_output) == b""


def check_block_comes_from_the_host(run):
    """The block is changed in the emulation program's memory, between the host's driver and the guest."""
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


def check_company(run, found):
    """The guest has had the processor only in its process's turn, and beside it the host ran another."""
    host = run.host_image.symbols
    assert {note.current for note in at(run, "Decoupled", "Recoupled", "temporarily")} == {host["emulator_process"]}
    assert found[0][0] < found[-1][0], "the worker has not worked while the guest lived"
    assert run.host_word("ticks") == run.machine.board.pit.raised


def check_standstill(run):
    """The emulation program is taken off the host's list of those that may run; all else goes on."""
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
