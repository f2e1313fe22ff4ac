"""Claims 12, 13, 20 for 64-bit guests: host functions by a temporary recoupling of a host of 32 bits."""

from __future__ import annotations

import pytest

from tests.claims import functions as shared
from tests.claims.functions import PLANS, at

TEXT = b"probe64: I have printed this\n"
LMA = 1 << 10


def watched(hosted, look, plan):
    return shared.watched(hosted, look, "probe64", plan)


@pytest.fixture(scope="module", params=PLANS)
def functions(request, hosted, look):
    return watched(hosted, look, request.param).execute()


@pytest.mark.claim(12, 20)
def test_the_recoupled_host_prints_and_reads_for_a_64_bit_guest_with_its_own_drivers(functions, look):
    for note in shared.check_drivers(functions, look, TEXT):
        assert note.registers.efer & LMA == 0


@pytest.mark.claim(12, 20)
def test_after_a_host_function_the_64_bit_guest_is_coupled_again_in_long_mode(functions):
    for _before, between, after in shared.check_temporary_recouplings(functions):
        # Long mode, protected mode, long mode.
        assert after.registers.efer & LMA
        for note in between:
            assert not note.registers.efer & LMA
    assert at(functions, "stop")[0].registers.efer & LMA


@pytest.mark.claim(12, 20)
@pytest.mark.parametrize("plan", PLANS)
def test_a_call_without_the_recoupling_shuts_the_processor_down_in_long_mode(plan, hosted, look, monkeypatch):
    shared.check_shutdown_without_recoupling(watched(hosted, look, plan), monkeypatch)


@pytest.mark.claim(12, 20)
@pytest.mark.parametrize("plan", PLANS)
def test_what_the_hosts_driver_reads_is_what_the_64_bit_guest_gets(plan, hosted, look):
    shared.check_block_comes_from_the_host(watched(hosted, look, plan))


@pytest.mark.claim(13)
@pytest.mark.parametrize("plan", PLANS)
def test_a_64_bit_guest_lives_in_a_user_program_among_others(plan, hosted, look):
    run = watched(hosted, look, plan)
    host = run.host_image.symbols
    found = shared.progress(run)
    run.execute()
    own = at(run, "emulator_loop")
    assert own
    for note in own:
        registers = note.registers
        assert (registers.ring, registers.cr3, registers.efer & LMA) == (3, host["emulator_directory"], 0)
    shared.check_company(run, found)


@pytest.mark.claim(13)
@pytest.mark.parametrize("plan", PLANS)
def test_when_the_host_schedules_it_no_more_the_64_bit_guest_stands_still(plan, hosted, look):
    shared.check_standstill(watched(hosted, look, plan))
