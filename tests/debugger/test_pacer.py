"""A run that is followed block by block, or instruction by instruction, is the run that it is without."""

from __future__ import annotations

import pytest

from hvproto.bundled import folder
from hvproto.debugger.pacer import Pace
from hvproto.debugger.subjects import machine_subject
from hvproto.images.load import load_image
from tests.debugger.runs import kernel, outcome, session

MODES = sorted(path.stem for path in (folder() / "modes").glob("*.asm"))


@pytest.mark.parametrize("name", MODES)
def test_each_mode_to_its_end(name: str) -> None:
    build = machine_subject(load_image(folder() / "modes" / f"{name}.asm"), limit=200_000)
    free, _ = outcome(build)
    # This one waits in HLT nearly all the time.
    stepped, instructions = outcome(build, Pace.STEPS, 0 if name == "interrupts" else 40_000)
    assert stepped == free
    assert instructions > 40


@pytest.mark.parametrize("name", ["real", "protected32", "v86", "long", "tasks"])
def test_portable_engine(name: str) -> None:
    build = machine_subject(load_image(folder() / "modes" / f"{name}.asm"), limit=12_000, engine="portable")
    stepped, instructions = outcome(build, Pace.STEPS, 2_000)
    assert stepped == outcome(build)[0]
    assert instructions > 100


@pytest.mark.parametrize("pace", [Pace.BLOCKS, Pace.STEPS])
@pytest.mark.parametrize("plan", ["mirrored", "direct"])
def test_a_whole_session_with_switches_and_interrupts(plan: str, pace: Pace) -> None:
    build = session(plan, limit=450_000)
    free, _ = outcome(build)
    stepped, _ = outcome(build, pace, 280_000, 340_000)
    assert len(free["events"]) > 100  # type: ignore[arg-type]
    assert stepped == free


def test_firmware_and_string_instructions_of_a_boot_sector() -> None:
    build = machine_subject(load_image(folder() / "boot/filesystem.asm"), limit=60_000)
    stepped, instructions = outcome(build, Pace.STEPS)
    assert stepped == outcome(build)[0]
    assert instructions > 5_000


REPETITIONS = """
    cld
    mov esi, 0x100000
    mov edi, 0x110000
    mov ecx, {count}
    {repeat} {instruction}
    mov ebx, ecx
    jecxz done
    nop
done:
    hlt
"""


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize(
    ("repeat", "instruction"),
    [("rep", "movsb"), ("rep", "stosd"), ("repe", "cmpsb"), ("repne", "scasb"), ("repne", "cmpsd"), ("repe", "scasd")],
)
def test_repetitions_take_their_time(repeat: str, instruction: str, count: int) -> None:
    build = kernel(REPETITIONS.format(count=count, repeat=repeat, instruction=instruction))
    free, _ = outcome(build)
    for pace in (Pace.BLOCKS, Pace.STEPS):
        assert outcome(build, pace)[0] == free


CHANGES_ITSELF = """
    mov ecx, 3
again:
    mov byte [patched + 1], cl
patched:
    mov al, 0x55
    add ebx, eax
    loop again
    hlt
"""


def test_code_that_changes_its_own_block() -> None:
    build = kernel(CHANGES_ITSELF)
    free, _ = outcome(build)
    stepped, _ = outcome(build, Pace.STEPS)
    assert stepped["registers"] == free["registers"]
    assert stepped["ram"] == free["ram"]
    assert stepped["now"] == free["now"]
