"""The examples do what they say: each is run as it stands, and what it leaves is looked at."""

from __future__ import annotations

import math
import runpy
import struct
import subprocess
import sys
from typing import Any

import pytest

from hvproto.events import Relocated
from hvproto.processor.settings import CR0_TS, Setting
from hvproto.testing import BareMachine, Hv
from tests.support.command import ROOT, environment

FOLDER = ROOT / "docs" / "examples"
FILES = sorted(FOLDER.glob("*.py"))
MOST_LINES = 80


def example(name: str) -> dict[str, Any]:
    """What ``python docs/examples/NAME.py`` leaves behind."""
    return runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_is_short_and_begins_with_its_idea(path: Any) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < MOST_LINES and lines[0].startswith('"""') and len(lines[0]) > 30


def test_there_are_eight_and_this_file_has_a_test_of_each() -> None:
    assert len(FILES) == 8
    source = (ROOT / "tests" / "examples" / "test_examples.py").read_text(encoding="utf-8")
    assert [path.stem for path in FILES if f'example("{path.stem}")' not in source] == []


def test_it_runs_as_a_script() -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / "invisible_steps.py"], env=environment(), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "") and "loop turn" in done.stdout


def test_a_region_that_hides_is_not_found(capsys: pytest.CaptureFixture[str]) -> None:
    made = example("relocation_policy")
    hidden: Hv = made["hv"]
    usual: Hv = made["hunt"]()
    found = [len(hv.events.of(Relocated)) for hv in (usual, hidden)]
    assert found[0] > 0 == found[1] and usual.status == hidden.status
    other: Hv = made["hunt"](made["Hidden"](seed=8))
    assert other.guest.region.base != hidden.guest.region.base, "the seed makes no difference"
    assert "hidden: found 0 times" in capsys.readouterr().out


def test_a_firewall_turns_closed_vectors_into_general_protection() -> None:
    made = example("exception_firewall")
    without, behind = made["without"], made["behind"]
    closed = {vector for rule in made["firewall"].closed for vector in rule}
    expected = ["0d" if int(vector, 16) in closed else vector for vector in without]
    assert behind == expected and len(closed) == 143 and made["closed"] == 2 * 143


def test_clones_own_what_they_have_written_and_share_the_rest() -> None:
    made = example("cow_clones")
    nursery, parent = made["nursery"], made["state"]
    clones = [made["born"](parent, name) for name in (1, 2)]
    for clone in clones:
        nursery.let_run(clone)
        pages = [nursery.guest.memory.read(at, 4096) for at in range(0, nursery.guest.memory.size, 4096)]
        assert pages == clone.pages, "a page that was written isn't its own"
        assert 3 <= len(clone.own) <= 4
    words = [int.from_bytes(clone.own[0x150000 + 0x1000 * name][:4], "little") for name, clone in enumerate(clones, 1)]
    assert words == [1001, 1002]
    shared = sum(one is other for one, other in zip(clones[0].pages, clones[1].pages, strict=True))
    assert shared >= len(parent.memory) - 6


def test_a_guest_that_moved_while_it_ran_is_as_one_that_stayed() -> None:
    made = example("live_migration")
    rounds = made["migration"].rounds
    assert rounds[0] == 512 and max(rounds[1:]) < 40 and rounds[-1] <= 4 and len(rounds) < 12
    there, bare = made["there"], BareMachine(2 << 20)
    assert bare.execute(made["BUSY"]) == made["stay"].status == 67
    data = there.guest.memory.read(0x140000, 0x20000)
    assert data == bytes(bare.ram.view[0x140000:0x160000]) and any(data)
    assert there.printed == b"!" and made["here"].printed == b""


def test_registers_are_loaded_only_for_who_uses_them() -> None:
    made = example("lazy_fpu")
    assert (made["lazy"].switches, made["lazy"].loads) == (20, 2)
    assert struct.unpack("<d", made["hv"].read("kept", 8).to_bytes(8, "little")) == (math.pi,)
    alone: Hv = made["make"]()
    alone.run()
    kept = struct.unpack("<d", alone.read("kept", 8).to_bytes(8, "little"))[0]
    assert kept != math.pi, "without the hypervisor's help, one task takes the other's registers"
    assert not made["hv"].guest.cpu.control(Setting.CR0) & CR0_TS


def test_code_that_is_written_through_an_alias_is_noticed_and_never_executed() -> None:
    made = example("code_integrity")
    (violation,) = made["monitor"].violations
    code = made["hv"].image.symbols["code"]
    assert (violation.place, violation.was[0], violation.became[0]) == (code + 1, 1, 0)
    assert made["hv"].read(0x150000) == 1 and made["hv"].guest.memory.read(code + 1, 4) == violation.was
    unguarded, _ = made["run"](guarded=False)
    assert unguarded.read(0x150000) == 0


def test_each_step_is_seen_and_the_guest_finds_nothing() -> None:
    made = example("invisible_steps")
    lines = [made["SUSPICIOUS"].line_at(eip).text.split(";")[0].strip() for eip in made["seen"]]
    assert lines[:3] == ["mov esp, 0x180000", "pushfd", "pop dword ptr [flags]"]
    assert lines[3:8] == ["mov ecx, 3", *["loop turn"] * 3, "mov eax, dr6"] and lines[-1] == "hlt"
    for word in made["WORDS"]:
        assert made["stepped"].words(word) == made["plain"].words(word)
    assert not made["stepped"].words("flags")[0] & 0x100


def test_each_change_of_a_descriptor_table_is_on_record() -> None:
    made = example("descriptor_record")
    changes = made["made"].changes
    loaded = [change.setting for change in changes if type(change).__name__ == "Loaded"]
    assert loaded == ["GDTR", "TR", "LDTR", "IDTR"] and changes[0].at.startswith("load_tables")
    stored = [change for change in changes if type(change).__name__ == "Stored"]
    assert [(change.table, change.index) for change in stored] == [("GDTR", 5)], "LTR marks its descriptor busy"
    assert stored[0].descriptor >> 40 & 0x1F == 0x0B
