"""Bad campaign files: the message says which key, and what was expected."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from hvproto.campaign.fields import CampaignError
from hvproto.campaign.file import find_campaign, read_campaign
from hvproto.errors import BadInput
from tests.campaign.files import campaign
from tests.support.command import hvproto, write

GOOD = '[[scenarios]]\nguests = ["hello"]\n'


@pytest.mark.parametrize("text, words", [
    ("scenarios = [", ("no TOML",)),
    ("", ("'scenarios' is missing", "[[scenarios]]")),
    ("scenarios = 3", ("scenarios = 3", "[[scenarios]]")),
    ("limit = 'long'\n" + GOOD, ("limit = 'long'", "a whole number from 1")),
    ("limit = true\n" + GOOD, ("limit = True", "a whole number")),
    ("colour = 3\n" + GOOD, ("unknown key 'colour'", "host, limit, minimise, name, scenarios")),
    ("host = 'nobody'\n" + GOOD, ("nobody", "no such file")),
    ("[[scenarios]]\n", ("scenarios 1", "guests", "fuzz")),
    (GOOD + "fuzz = {bytes = 3}", ("one of the keys guests", "fuzz")),
    (GOOD + GOOD + "plans = 'direct'", ("scenarios 2: plans = 'direct'", "a list of one or more texts")),
    (GOOD + "plans = ['sideways']", ("plans:", "sideways")),
    (GOOD + "relocations = ['often']", ("relocations:", "'often'", '"every N"', '"never"')),
    (GOOD + "relocations = ['every 0']", ("'every 0' is no relocation schedule",)),
    (GOOD + "plans = ['direct']\nrelocations = ['every 1']", ("plan 'direct' has no region",)),
    (GOOD + "expect = 'success'", ("expect: 'success'", '"as alone"', '"status N"')),
    (GOOD + "expect = 'status 256'", ("expect: 'status 256'",)),
    (GOOD + "seeds = 0", ("seeds = 0", "how many of them")),
    (GOOD + "seeds = 2", ("seeds: none makes a difference to hello", "random N")),
    (GOOD + "allow = 'NoRoom'", ("allow = 'NoRoom'", "a list")),
    (GOOD + "guest = ['hello']", ("unknown key 'guest'", "guests")),
    (GOOD + "handlers = ['ideas.py']", ("handlers: 'ideas.py'", "FILE.py:NAME")),
    (GOOD + "handlers = ['none.py:f']", ("none.py", "No such file")),
    (GOOD + "policy = 'there.py:missing'", ("policy:", "there.py", "'missing'")),
    (GOOD + "policy = 'broken.py:f'", ("broken.py: SyntaxError",)),
    ("[[scenarios]]\nguests = ['*.elf']", ("guests: nothing in", "'*.elf'")),
    ("[[scenarios]]\nguests = ['helo']", ("helo", "no such file")),
    ("[[scenarios]]\nguests = ['host']", ("host", "RAM ends at 0x1000000")),
    ("[[scenarios]]\nfuzz = {bits = 16, bytes = 3}", ("fuzz: bits = 16: 32 or 64",)),
    ("[[scenarios]]\nfuzz = {ring = 1, bytes = 3}", ("ring = 1: 0 or 3",)),
    ("[[scenarios]]\nfuzz = {ring = 3}", ("fuzz: the key 'bytes' is missing",)),
    ("[[scenarios]]\nfuzz = {bytes = 99999}", ("bytes = 99999: at most 4096",)),
])  # fmt: skip
def test_a_file_that_says_nonsense(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, "there.py", "def something(seen): pass\n")
    write(tmp_path, "broken.py", "def f(:\n")
    with pytest.raises(BadInput) as raised:
        read_campaign(campaign(tmp_path, text))
    for word in words:
        assert word in str(raised.value)


def test_the_command_says_so_and_runs_nothing(tmp_path: Path) -> None:
    file = campaign(tmp_path, GOOD + "expect = 'success'")
    ended = hvproto("campaign", file, cwd=tmp_path)
    assert (ended.status, ended.text) == (2, "") and ended.stderr.startswith(f"hvproto: {file}: scenarios 1: expect:")
    assert not (tmp_path / "ideas.sqlite").exists()


@pytest.mark.parametrize("arguments, words", [
    (("nothing.toml",), ("nothing.toml", "no such file")),
    (("hostil",), ("hostil", "there are hostile")),
    (("ideas.toml", "--results", "ideas.toml"), ("ideas.toml is no file of results",)),
    (("ideas.toml", "--results", "no/where.sqlite"), ("no/where.sqlite", "can't be written")),
    (("ideas.toml", "--results", "theirs.sqlite"), ("theirs.sqlite is a database of somebody else's",)),
    (("ideas.toml", "-j", "1", "--scheduler", "tcp://127.0.0.1:1"), ("--workers is for this machine",)),
])  # fmt: skip
def test_bad_arguments(arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path) -> None:
    campaign(tmp_path, GOOD)
    connection = sqlite3.connect(tmp_path / "theirs.sqlite")
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    ended = hvproto("campaign", *arguments, cwd=tmp_path)
    assert (ended.status, ended.text) == (2, "")
    for word in words:
        assert word in ended.stderr


def test_results_of_another_campaign_are_left_alone(tmp_path: Path) -> None:
    first, second = campaign(tmp_path, GOOD), campaign(tmp_path, GOOD + "limit = 77777", "others.toml")
    assert hvproto("campaign", first, "-j", "1", cwd=tmp_path).status == 0
    ended = hvproto("campaign", second, "--results", "ideas.sqlite", cwd=tmp_path)
    assert ended.status == 2 and "another campaign (ideas, 1 scenarios)" in ended.stderr and "--fresh" in ended.stderr
    assert hvproto("campaign", second, "-j", "1", "--results", "ideas.sqlite", "--fresh", cwd=tmp_path).status == 0


def test_the_standing_campaign_has_ten_thousand_scenarios() -> None:
    standing = read_campaign(find_campaign("hostile"))
    numbers = [scenario.number for scenario in standing.scenarios()]
    assert (standing.name, numbers) == ("hostile", list(range(1, 10_001)))
    with pytest.raises(CampaignError):
        find_campaign("hostile.toml")
