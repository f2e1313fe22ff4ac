"""Claims 12, 13, 20: host functions by a temporary recoupling, and the emulation program as a program of the host's."""

from __future__ import annotations

import pytest

from tests.claims import functions as shared
from tests.claims.functions import PLANS, at

TEXT = b"probe: I have printed this\n"


def watched(hosted, look, plan):
    return shared.watched(hosted, look, "probe", plan)


@pytest.fixture(scope="module", params=PLANS)
def functions(request, hosted, look):
    return watched(hosted, look, request.param).execute()


@pytest.mark.claim(12, 20)
def test_the_recoupled_host_prints_and_reads_with_its_own_drivers(functions, look):
    shared.check_drivers(functions, look, TEXT)


@pytest.mark.claim(12, 20)
def test_afterwards_the_guest_is_coupled_again_and_goes_on(functions):
    shared.check_temporary_recouplings(functions)


@pytest.mark.claim(12, 20)
@pytest.mark.parametrize("plan", PLANS)
def test_a_function_call_without_the_recoupling_shuts_the_processor_down(plan, hosted, look, monkeypatch):
    shared.check_shutdown_without_recoupling(watched(hosted, look, plan), monkeypatch)


@pytest.mark.claim(12, 20)
@pytest.mark.parametrize("plan", PLANS)
def test_what_the_hosts_driver_reads_is_what_the_guest_gets(plan, hosted, look):
    shared.check_block_comes_from_the_host(watched(hosted, look, plan))


@pytest.mark.claim(13)
@pytest.mark.parametrize("plan", PLANS)
def test_the_emulation_program_is_a_user_program_among_others(plan, hosted, look):
    run = watched(hosted, look, plan)
    host = run.host_image.symbols
    found = shared.progress(run)
    run.execute()
    # Its code runs at ring 3, in its own directory, where the kernel's memory isn't open to it.
    own = at(run, "emulator_loop", "guest_write", "guest_read_block")
    assert {note.name for note in own} == {"emulator_loop", "guest_write", "guest_read_block"}
    for note in own:
        assert (note.registers.ring, note.registers.cr3) == (3, host["emulator_directory"])
        assert note.current == host["emulator_process"]
    pages = look.two_level(run.ram, host["emulator_directory"])
    assert pages[host["emulator_main"]].user and not pages[host["emulator_main"]].writable
    assert not pages[host["kernel_idt"] & ~0xFFF].user
    shared.check_company(run, found)


@pytest.mark.claim(13)
@pytest.mark.parametrize("plan", PLANS)
def test_when_the_host_schedules_it_no_more_the_guest_stands_still(plan, hosted, look):
    shared.check_standstill(watched(hosted, look, plan))
