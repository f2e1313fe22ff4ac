from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import Ended, hvproto, kernel, write

NAMES = (
    "SettingSaved", "SettingReplaced", "Decoupled", "SettingRestored", "Recoupled", "ExceptionTaken", "PageTableWrite",
    "NoConflict", "Conflict", "Relocated", "HostFunction", "GuestHalted", "Shutdown",
)  # fmt: skip
STEPS = {"SettingSaved": 26, "SettingReplaced": 28, "SettingRestored": 30, "PageTableWrite": 40, "NoConflict": 44,
         "Conflict": 42, "Relocated": 46}  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, list[dict[str, object]]]:
    """The whole story, as told and as events."""
    path = tmp_path_factory.mktemp("story") / "events.jsonl"
    ended = hvproto("run", "--events", path)
    return ended, [json.loads(line) for line in path.read_text().splitlines()]


def test_the_whole_story_ends_well(told: tuple[Ended, list[dict[str, object]]]) -> None:
    ended, _ = told
    assert (ended.status, ended.stderr) == (0, "")


def test_every_event_is_there_with_its_step(told: tuple[Ended, list[dict[str, object]]]) -> None:
    _, lines = told
    assert {line["event"] for line in lines} >= set(NAMES)
    for line in lines:
        assert list(line)[:3] == ["event", "step", "at"]
        assert line["step"] == STEPS.get(str(line["event"]), line["step"])
    times = [line["at"] for line in lines]
    assert times == sorted(times, key=lambda time: int(str(time)))


def test_what_the_events_must_contain(told: tuple[Ended, list[dict[str, object]]]) -> None:
    _, lines = told
    assert len({line["new"] for line in lines if line["event"] == "Relocated"}) >= 3
    reflected = {line["vector"] for line in lines if line["event"] == "ExceptionTaken" and line["route"] == "reflect"}
    assert reflected >= {0, 14}
    assert len({line["name"] for line in lines if line["event"] == "HostFunction"}) >= 2


def test_the_story_names_what_happened(told: tuple[Ended, list[dict[str, object]]]) -> None:
    text = told[0].text
    for words in (
        "the HOST has the processor", "the HYPERVISOR decouples the host", "the GUEST has the processor",
        "IDTR", "host prints: host: up", "guest prints: guest: done", "#DE divide error", "#PF page fault",
        "host function read_block, block 7", "the region moves from", "The run in numbers", "exit status",
    ):  # fmt: skip
        assert words in text
    raised, counted = (
        next(line.split()[-1] for line in text.splitlines() if row in line)
        for row in ("timer interrupts raised", "ticks that the host counted")
    )
    assert raised == counted and int(raised) > 0


def test_the_story_fits_the_page_and_has_no_codes_in_a_pipe(told: tuple[Ended, list[dict[str, object]]]) -> None:
    text = told[0].text
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_two_runs_are_identical_event_for_event(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one.jsonl", "two.jsonl")]
    for file in files:
        assert hvproto("run", "--quiet", "--guest", "selfmap", "--events", file).status == 0
    assert files[0].read_bytes() == files[1].read_bytes() != b""


@pytest.mark.parametrize("name", ["hello", "spin", "selfmap", "ptwrites", "guest"])
def test_a_guest_prints_the_same_hosted_as_alone(name: str) -> None:
    alone = hvproto("boot", name)
    assert alone.status == 0
    for plan in ("mirrored", "direct"):
        assert hvproto("run", "--quiet", "--guest", name, "--plan", plan) == alone


@pytest.mark.parametrize("plan", ["mirrored", "direct"])
def test_a_guests_exit_status_is_the_commands(plan: str, tmp_path: Path) -> None:
    assert hvproto("run", "--quiet", "--plan", plan, "--guest", "exit") == Ended(7, b"", "")
    image = write(tmp_path, "end.asm", kernel("mov al, 60\nout 0xf4, al\n.on: jmp .on"))
    assert hvproto("run", "--quiet", "--plan", plan, "--guest", image).status == 121


def test_a_bad_end_is_told_and_summed_up() -> None:
    ended = hvproto("run", "--guest", "triple")
    assert ended.status == 1 and "triple fault" in ended.stderr
    assert "The run in numbers" in ended.text and "the end, at cycle" in ended.text


def test_a_disk_of_ones_own(tmp_path: Path) -> None:
    disk = write(
        tmp_path, "disk.img", b"".join(f"sector {number} of mine\n".encode().ljust(512) for number in range(9))
    )
    assert "block 7 of my disk begins 'sector 7 of mine" in hvproto("run", "-q", "--disk", disk).text


def test_verbose_tells_every_coupling_in_full() -> None:
    ended = hvproto("run", "--guest", "hello", "--verbose")
    assert ended.status == 0
    assert ended.text.count("the HYPERVISOR decouples the host") > 1
    assert "handled out of the guest's sight" in ended.text


@pytest.mark.parametrize("columns", ["50", "80", "200"])
def test_narrow_and_wide_pages(columns: str) -> None:
    text = hvproto("run", "--guest", "hello", COLUMNS=columns).text
    assert max(len(line) for line in text.splitlines() if "/" not in line) <= int(columns)


def test_a_terminal_that_knows_ascii_only() -> None:
    ended = hvproto("run", "--guest", "hello", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert ended.status == 0 and ended.stdout.isascii()


def test_what_a_guest_prints_cannot_upset_the_page(tmp_path: Path) -> None:
    letters = "".join(f"mov al, {byte}\nout 0xe9, al\n" for byte in b"[red]\x1b[31m\xff{0}\n")
    image = write(tmp_path, "odd.asm", kernel(letters + "cli\nhlt"))
    text = hvproto("run", "--guest", image).text
    assert "guest prints: [red]\\x1b[31m\\xff{0}\n" in text and "\x1b" not in text
    assert hvproto("run", "--quiet", "--guest", image).stdout == b"[red]\x1b[31m\xff{0}\n"


def test_what_a_guest_prints_just_before_the_limit_is_not_lost(tmp_path: Path) -> None:
    body = "start: mov al, 0x61\nout 0xe9, al\nmov al, 0x62\nout 0xe9, al\nspin: jmp spin\n"
    image, events = write(tmp_path, "prints.asm", body), tmp_path / "events.jsonl"
    ended = hvproto("run", "--quiet", "--guest", image, "--limit", 400_000, "--events", events)
    assert (ended.status, ended.stdout) == (1, b"ab") and "limit" in ended.stderr
    assert "HostFunction" not in events.read_text(), "it waited for company"
