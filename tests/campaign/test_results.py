"""Campaigns of real scenarios: what is in the results, whoever has run them and whatever was killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.campaign.files import SCENARIOS, SMALL, campaign, failures, query, table
from tests.support.command import COMMAND, environment, hvproto

PATIENCE = 120
"""Seconds for something to come that comes within two."""

KILLER = """
import os
import signal
from pathlib import Path


def always(seen):
    os.kill(os.getpid(), signal.SIGSEGV)


def once(seen):
    mark = Path(MARK)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
"""
DEADLY = """
limit = 400_000

[[scenarios]]
guests = ["hello"]

[[scenarios]]
guests = ["hello"]
handlers = ["killer.py:always"]

[[scenarios]]
guests = ["hello"]
handlers = ["killer.py:once"]

[[scenarios]]
guests = ["hello"]
relocations = ["every 2"]
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a campaign that nobody has disturbed, by one worker."""
    folder = tmp_path_factory.mktemp("whole")
    ended = hvproto("campaign", campaign(folder, SMALL), "-j", "1", cwd=folder)
    assert (ended.status, ended.stderr) == (0, ""), ended.text + ended.stderr
    assert f"ideas: {SCENARIOS} scenarios, {SCENARIOS} passed, 0 failed" in ended.text
    return folder / "ideas.sqlite"


def test_scenarios_are_the_product_in_the_files_order(whole: Path) -> None:
    rows = query(whole, "SELECT number, guest, seed, relocation, expect, verdict FROM result ORDER BY number")
    assert [row[0] for row in rows] == list(range(1, SCENARIOS + 1)) and {row[5] for row in rows} == {"passed"}
    assert [row[3] for row in rows[:6]] == ["never", "every 1"] * 3
    assert [row[2] for row in rows[6:]] == [1, 2, 4, 9]
    assert rows[4][1] == "hello" and rows[8][1] == "fuzz 32-bit ring 3" and rows[8][4] == "harmless"


def test_guests_end_as_they_do_alone_and_regions_have_moved(whole: Path) -> None:
    endings = dict(query(whole, "SELECT number, ending FROM result"))
    assert (endings[1], endings[2], endings[3], endings[5]) == ("TripleFault", "TripleFault", "status 3", "status 0")
    moves = {number: json.loads(text) for number, text in query(whole, "SELECT number, moves FROM result")}
    assert moves[1] == moves[3] == moves[5] == {} and min(len(moves[at]) for at in (2, 4, 6, 7, 8, 9, 10)) > 0
    assert moves[7] != moves[8], "the seed makes no difference"


def test_two_workers_leave_the_same_table(whole: Path, tmp_path: Path) -> None:
    ended = hvproto("campaign", campaign(tmp_path, SMALL), "-j", "2", "--json", cwd=tmp_path)
    told = json.loads(ended.text)
    assert (ended.status, told["scenarios"], told["passed"], told["failures"]) == (0, SCENARIOS, SCENARIOS, [])
    assert table(tmp_path / "ideas.sqlite") == table(whole)


def test_it_goes_on_after_a_kill_where_it_was(whole: Path, tmp_path: Path) -> None:
    results = tmp_path / "ideas.sqlite"
    command = [*COMMAND, "campaign", str(campaign(tmp_path, SMALL)), "-j", "1"]
    begun = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    before = _wait_for_results(results, 2)
    begun.send_signal(signal.SIGKILL)
    begun.communicate(timeout=PATIENCE)  # the pipes end: no worker has outlived it
    assert begun.returncode == -signal.SIGKILL
    there = len(table(results))
    assert before <= there < SCENARIOS
    ended = hvproto("campaign", tmp_path / "ideas.toml", "-j", "1", cwd=tmp_path)
    assert ended.status == 0
    rows = table(results)
    assert len(rows) == SCENARIOS and rows == table(whole)


def _wait_for_results(results: Path, count: int) -> int:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if results.exists() and query(results, "SELECT name FROM sqlite_master WHERE name = 'result'"):
            found = len(table(results))
            if found >= count:
                return found
        time.sleep(0.02)
    raise AssertionError("no results come")


def test_nothing_is_run_twice(whole: Path, tmp_path: Path) -> None:
    """A second command runs what is missing, and leaves the rest as it is, whatever that says."""
    results = tmp_path / "ideas.sqlite"
    results.write_bytes(whole.read_bytes())
    with closing(sqlite3.connect(results)) as connection, connection:
        connection.execute("UPDATE result SET detail = 'left alone' WHERE number = 3")
        connection.execute("DELETE FROM result WHERE number = 5")
    ended = hvproto("campaign", campaign(tmp_path, SMALL), "-j", "1", cwd=tmp_path)
    assert ended.status == 0
    rows = table(results)
    assert rows[2][10] == "left alone" and rows[4] == table(whole)[4]


def test_workers_that_die_lose_nothing_and_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "killer.py").write_text(KILLER.replace("MARK", repr(str(tmp_path / "mark"))), encoding="utf-8")
    ended = hvproto("campaign", campaign(tmp_path, DEADLY), "-j", "2", cwd=tmp_path)
    results = tmp_path / "ideas.sqlite"
    assert (ended.status, ended.stderr) == (1, "")
    assert query(results, "SELECT number, verdict, ending, kind FROM result ORDER BY number") == [
        (1, "passed", "status 0", ""),
        (2, "failed", "worker died", "worker died"),
        (3, "passed", "status 0", ""),
        (4, "passed", "status 0", ""),
    ]
    assert (tmp_path / "mark").exists() and "FAILED 2: hello" in ended.text
    ((number, *_, runs),) = failures(results)
    assert (number, runs) == (2, 0)


def test_ctrl_c_ends_it_at_once_and_keeps_what_is_done(tmp_path: Path) -> None:
    results = tmp_path / "ideas.sqlite"
    command = [*COMMAND, "campaign", str(campaign(tmp_path, SMALL)), "-j", "1"]
    begun = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    _wait_for_results(results, 1)
    os.killpg(begun.pid, signal.SIGINT)
    stdout, stderr = begun.communicate(timeout=PATIENCE)
    assert (begun.returncode, stdout, stderr) == (130, b"", b"hvproto: interrupted\n")
    assert 1 <= len(table(results)) < SCENARIOS


def test_progress_is_shown_on_a_terminal(tmp_path: Path) -> None:
    file = campaign(tmp_path, '[[scenarios]]\nguests = ["hello"]\nrelocations = ["never", "every 2"]\n')
    ours, theirs = os.openpty()
    done = subprocess.run(
        [*COMMAND, "campaign", str(file), "-j", "1"], cwd=tmp_path, env=environment(TERM="xterm"), stderr=theirs,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=PATIENCE, check=False,
    )  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 0 and "ideas: scenarios" in shown and "2/2" in shown
    assert done.stdout.decode().startswith("ideas: 2 scenarios, 2 passed, 0 failed\n")


def test_a_cluster_leaves_the_same_table_and_survives_its_workers(whole: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask isn't installed: pip install 'hvproto[cluster]'")
    dask = pytest.importorskip("dask")
    (tmp_path / "killer.py").write_text(KILLER, encoding="utf-8")
    files = (
        campaign(tmp_path, SMALL),
        campaign(tmp_path, DEADLY.replace("killer.py:once", "killer.py:always"), "deadly.toml"),
    )
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, protocol="tcp://"
        ) as cluster,
    ):
        ended, deadly = (
            hvproto("campaign", file, "--scheduler", cluster.scheduler_address, "--json", cwd=tmp_path)
            for file in files
        )
    assert ended.status == 0, ended.stderr
    assert json.loads(ended.text)["passed"] == SCENARIOS
    assert table(tmp_path / "ideas.sqlite") == table(whole)
    assert deadly.status == 1, deadly.stderr
    rows = query(tmp_path / "deadly.sqlite", "SELECT number, kind FROM result ORDER BY number")
    assert rows == [(1, ""), (2, "worker died"), (3, "worker died"), (4, "")]


@pytest.mark.parametrize("address", ["nonsense://127.0.0.1:1", "tcp://127.0.0.1:1"])
def test_a_scheduler_that_is_not_there(address: str, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="Dask isn't installed: pip install 'hvproto[cluster]'")
    ended = hvproto("campaign", campaign(tmp_path, SMALL), "--scheduler", address, cwd=tmp_path)
    assert (ended.status, ended.text) == (2, "") and f"--scheduler {address}: no scheduler" in ended.stderr
