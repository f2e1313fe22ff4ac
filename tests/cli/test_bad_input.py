"""Bad input and bad guests: a paragraph on stderr that says where and why, a status that isn't 0, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.images.elf_builder import Elf, Load
from tests.support.command import Ended, hvproto, kernel, write

TYPO = "; a kernel\n.origin 0x100000\nstart:\n    mov eax, 1\n    muv ebx, 2\n"
COMMANDS = pytest.mark.parametrize("command", [("boot",), ("run", "--guest"), ("run", "--host")], ids=" ".join)


def refused(ended: Ended, *words: str) -> None:
    assert ended.status == 2 and ended.stdout == b""
    check_message(ended, *words)


def check_message(ended: Ended, *words: str) -> None:
    assert ended.stderr.startswith("hvproto: ") and "\n\n" not in ended.stderr
    for word in words:
        assert word in ended.stderr


@COMMANDS
def test_a_missing_file(command: tuple[str, ...]) -> None:
    refused(hvproto(*command, "nothing/kernel.elf"), "nothing/kernel.elf", "no such file")


@COMMANDS
def test_an_unknown_name_says_which_there_are(command: tuple[str, ...]) -> None:
    refused(hvproto(*command, "helo"), "helo", "hello", "selfmap")


@COMMANDS
def test_an_empty_file(command: tuple[str, ...], tmp_path: Path) -> None:
    refused(hvproto(*command, write(tmp_path, "empty.elf", b"")), "empty.elf", "empty")


@COMMANDS
def test_a_truncated_elf(command: tuple[str, ...], tmp_path: Path) -> None:
    whole = bytes(Elf([Load(0x100000, b"\x90" * 600)]))
    for length in (20, 300):
        refused(hvproto(*command, write(tmp_path, "cut.elf", whole[:length])), "cut.elf")


@COMMANDS
def test_a_directory(command: tuple[str, ...], tmp_path: Path) -> None:
    refused(hvproto(*command, tmp_path), str(tmp_path), "directory")


@COMMANDS
def test_an_assembly_typo(command: tuple[str, ...], tmp_path: Path) -> None:
    refused(hvproto(*command, write(tmp_path, "typo.asm", TYPO)), "typo.asm:5", "muv ebx, 2")


@pytest.mark.parametrize(
    "command", [("boot",), ("run", "--quiet", "--guest"), ("run", "-q", "--plan", "direct", "--guest")], ids=" ".join
)
def test_a_triple_fault(command: tuple[str, ...]) -> None:
    ended = hvproto(*command, "triple")
    assert ended.status == 1 and ended.stdout == b""
    check_message(ended, "guest at EIP 0x001000", "(last_words)", "triple fault", "#DE", "#GP", "#DF")


@pytest.mark.parametrize("command", [("boot",), ("run", "--quiet", "--guest")], ids=" ".join)
def test_an_endless_guest(command: tuple[str, ...]) -> None:
    ended = hvproto(*command, "forever", "--limit", "1000000")
    assert ended.status == 1 and ended.stdout == b""
    check_message(ended, "EIP 0x", "1,000,000 cycles", "--limit")


def test_a_guest_larger_than_its_ram(tmp_path: Path) -> None:
    image = write(tmp_path, "big.asm", kernel("cli\nhlt\n.space 0x1100000"))
    for command in (("boot",), ("run", "--quiet", "--guest")):
        refused(hvproto(*command, image), "big.asm", "RAM ends at 0x1000000")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("mirrored,CR9=host", ("'CR9'", "IDTR", "CR3")),
        ("mirrored,CR3=nobody", ("'nobody'", "hypervisor")),
        ("mirrored,CR3", ("'CR3'", "SETTING=PROVIDER")),
        ("mirrored,vector.256=host", ("256", "255")),
        ("sideways", ("'sideways'", "mirrored", "direct")),
        ("", ("''", "mirrored")),
        ("mirrored,CR3=guest", ("CR3=guest",)),
        ("application,CR3=guest", ("CR3=guest", "IDTR=host")),
    ],
)
def test_a_plan_that_cannot_be(plan: str, words: tuple[str, ...]) -> None:
    refused(hvproto("run", "--plan", plan), *words)


@pytest.mark.parametrize("size", ["0", "10T", "abc", "", "-1", "4097", "100G"])
def test_an_absurd_amount_of_memory(size: str) -> None:
    command = ("run", "--quiet") if size in ("0", "10T", "abc") else ("boot", "hello")
    ended = hvproto(*command, f"--ram={size}")
    refused(ended)
    assert "size" in ended.stderr or "RAM of" in ended.stderr


def test_a_machine_too_small_for_the_host() -> None:
    refused(hvproto("run", "--ram", "16M"), "host.asm", "--ram 33M")


@pytest.mark.parametrize(("command", "limit"), [(("boot", "hello"), "0"), (("run",), "-5"), (("run",), "soon")])
def test_a_limit_that_is_none(command: tuple[str, ...], limit: str) -> None:
    ended = hvproto(*command, f"--limit={limit}")
    assert ended.status == 2 and ended.stdout == b"" and "--limit" in ended.stderr


def test_events_that_cannot_be_written(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "nowhere" / "events.jsonl"):
        refused(hvproto("run", "--events", name), "the events can't be written")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_events() -> None:
    ended = hvproto("run", "--quiet", "--guest", "hello", "--events", "/dev/full")
    assert ended.status == 2
    check_message(ended, "/dev/full", "No space left")


def test_events_must_not_overwrite_an_input(tmp_path: Path) -> None:
    source = kernel("cli\nhlt")
    image = write(tmp_path, "mine.asm", source)
    refused(hvproto("run", "--guest", image, "--events", image), "overwrite")
    assert image.read_text() == source


@pytest.mark.parametrize("command", [("boot", "hello"), ("run", "-q")], ids=" ".join)
def test_an_unknown_engine(command: tuple[str, ...]) -> None:
    refused(hvproto(*command, HVPROTO_ENGINE="steam"), "'steam'", "native", "portable")


def test_a_disk_that_is_none(tmp_path: Path) -> None:
    refused(hvproto("run", "--disk", tmp_path / "no.img"), "no.img")
    refused(hvproto("boot", "hello", "--disk", tmp_path), str(tmp_path))
    refused(hvproto("boot", "hello", "--disk", write(tmp_path, "empty.img", b"")), "empty.img")


def test_an_address_for_an_image_that_has_its_own() -> None:
    refused(hvproto("boot", "hello", "--at", "0x7c00"), "--at", "assembly")


@pytest.mark.parametrize("address", ["here", "-1", "0x100000000"])
def test_an_address_that_is_none(address: str) -> None:
    refused(hvproto("boot", "hello", f"--at={address}"), address)


@pytest.mark.parametrize("arguments", [("bot",), ("boot",), ("run", "--gest", "x"), ("guests", "--what")], ids=" ".join)
def test_usage(arguments: tuple[str, ...]) -> None:
    ended = hvproto(*arguments)
    assert ended.status == 2 and ended.stdout == b"" and "Usage: hvproto" in ended.stderr


def test_a_host_that_never_enters_its_guest() -> None:
    ended = hvproto("run", "--quiet", "--host", "hello")
    assert ended.status == 1 and ended.stdout == b""
    check_message(ended, "host at EIP", "without entering the guest")
