"""The results of a campaign: one SQLite file in WAL mode, one row a scenario.

Only the process that runs the campaign writes, one transaction a result, so that whatever is killed at whatever moment,
each result is there whole or not at all. Anybody may read meanwhile.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hvproto.campaign.fields import CampaignError
from hvproto.campaign.file import Campaign
from hvproto.campaign.scenario import FAILED, Result, Scenario

VERSION = 1
COLUMNS = (
    "number INTEGER PRIMARY KEY", "guest TEXT", "plan TEXT", "seed INTEGER", "relocation TEXT", "cycle_limit INTEGER",
    "expect TEXT", "verdict TEXT", "ending TEXT", "kind TEXT", "detail TEXT", "cycles INTEGER", "events INTEGER",
    "moves TEXT",
)  # fmt: skip
"""Of the table `result`: nothing in it depends on who has run a scenario, when, or in what order."""
_SCHEMA = f"""
CREATE TABLE campaign (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE result ({", ".join(COLUMNS)});
CREATE TABLE failure (number INTEGER PRIMARY KEY REFERENCES result, guest TEXT, relocation TEXT, cycle_limit INTEGER,
    bytes INTEGER, runs INTEGER, command TEXT);
"""


class Store:
    """An open file of results. `open_store` makes it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    def numbers(self) -> set[int]:
        """Of the scenarios whose results are there."""
        return {number for (number,) in self._connection.execute("SELECT number FROM result")}

    def failures(self) -> list[tuple[int, str]]:
        """Number and kind of what has failed, by number."""
        return self._connection.execute(
            "SELECT number, kind FROM result WHERE verdict = ? ORDER BY number", (FAILED,)
        ).fetchall()

    def moves(self, number: int) -> dict[int, int]:
        """The moves that a scenario made."""
        (text,) = self._connection.execute("SELECT moves FROM result WHERE number = ?", (number,)).fetchone()
        return {int(at): place for at, place in json.loads(text).items()}

    def explained(self) -> set[int]:
        """Numbers of the failures that have a command."""
        return {number for (number,) in self._connection.execute("SELECT number FROM failure")}

    def add(self, scenario: Scenario, result: Result) -> None:
        row = (
            scenario.number, scenario.name, scenario.plan, scenario.seed, scenario.relocation, scenario.limit,
            scenario.expect, result.verdict, result.ending, result.kind, result.detail, result.cycles, result.events,
            json.dumps(result.moves),
        )  # fmt: skip
        with self._connection:
            self._connection.execute(f"INSERT INTO result VALUES ({', '.join('?' * len(row))})", row)

    def explain(self, scenario: Scenario, runs: int, command: list[str]) -> None:
        """What is the smallest scenario that fails as this one does, and how to have a look at it.

        ``scenario`` is the small one, ``runs`` how many it took to find it, 0 if nobody has tried.
        """
        size = len(scenario.guest.code) if hasattr(scenario.guest, "code") else None
        row = (scenario.number, scenario.name, scenario.relocation, scenario.limit, size, runs, shlex.join(command))
        with self._connection:
            self._connection.execute("INSERT INTO failure VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    # -- for reports -------------------------------------------------------------------------

    def counts(self) -> dict[tuple[str, str], int]:
        """How many scenarios, by verdict and ending."""
        rows = self._connection.execute(
            "SELECT verdict, ending, count(*) FROM result GROUP BY verdict, ending ORDER BY verdict, 3 DESC, ending"
        )
        return {(verdict, ending): count for verdict, ending, count in rows}

    def rows(self) -> Iterator[dict[str, object]]:
        """Each failure with all that is known of it, by number."""
        cursor = self._connection.execute(
            "SELECT result.number, result.guest, plan, seed, result.relocation, expect, ending, kind, detail, "
            "failure.relocation AS smallest_relocation, failure.cycle_limit AS smallest_limit, "
            "bytes AS smallest_bytes, runs, command "
            "FROM result LEFT JOIN failure USING (number) WHERE verdict = ? ORDER BY number",
            (FAILED,),
        )
        names = [column[0] for column in cursor.description]
        for row in cursor:
            yield dict(zip(names, row, strict=True))


@contextmanager
def open_store(path: Path, campaign: Campaign, *, fresh: bool = False) -> Iterator[Store]:
    """The results of this campaign, to be gone on with; ``fresh`` throws away what is there.

    Raises CampaignError for a file that is something else, has the results of another campaign, or is in use.
    """
    if path.exists() and path.stat().st_size and path.read_bytes()[:16] != b"SQLite format 3\0":
        raise CampaignError(f"{path} is no file of results; give --results another file")
    with _sole_user(path):
        if fresh:
            for ending in ("", "-wal", "-shm"):
                Path(f"{path}{ending}").unlink(missing_ok=True)
        try:
            connection = sqlite3.connect(path)
            try:
                _prepare(path, connection, campaign)
                yield Store(path, connection)
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise CampaignError(f"{path}: {error}") from None


def _prepare(path: Path, connection: sqlite3.Connection, campaign: Campaign) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")  # a result may be lost when the power fails, and no other way
    ours = {"version": str(VERSION), "name": campaign.name, "digest": campaign.digest, "scenarios": str(len(campaign))}
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        with connection:
            connection.execute("BEGIN")
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
            connection.executemany("INSERT INTO campaign VALUES (?, ?)", ours.items())
        return
    if "campaign" not in tables:
        raise CampaignError(f"{path} is a database of somebody else's; give --results another file")
    there = dict(connection.execute("SELECT key, value FROM campaign"))
    if there != ours:
        raise CampaignError(
            f"{path} has results of another campaign ({there.get('name')}, {there.get('scenarios')} scenarios), or of "
            "this one before its file or a guest was changed; give --results another file, or --fresh to begin anew"
        )


@contextmanager
def _sole_user(path: Path) -> Iterator[None]:
    """Nobody else runs a campaign into this file meanwhile. Raises CampaignError."""
    lock = Path(f"{path}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise CampaignError(f"{path}: the results can't be written: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CampaignError(f"{path} is in use by another campaign that is running") from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
