"""Campaigns for tests: their files, and what stands in the results."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from tests.support.command import ROOT, write

HOSTILE = ROOT / "guests" / "hostile"
SMALL = f"""
limit = 400_000

[[scenarios]]
guests = ["{HOSTILE}/stack_top.asm", "{HOSTILE}/string_top.asm", "hello"]
relocations = ["never", "every 1"]

[[scenarios]]
guests = ["{HOSTILE}/reserved_bits.asm"]
relocations = ["random 2"]
seeds = 2

[[scenarios]]
fuzz = {{ bits = 32, ring = 3, bytes = 24 }}
relocations = ["random 1"]
seeds = [4, 9]
expect = "harmless"
"""
"""Ten scenarios, all of which pass."""
SCENARIOS = 10


def campaign(folder: Path, text: str, name: str = "ideas.toml") -> Path:
    return write(folder, name, text)


def query(results: Path, text: str, *values: object) -> list[Any]:
    connection = sqlite3.connect(results)
    try:
        return connection.execute(text, values).fetchall()
    finally:
        connection.close()


def table(results: Path) -> list[Any]:
    """All that must be the same whoever has run the scenarios."""
    return query(results, "SELECT * FROM result ORDER BY number")


def failures(results: Path) -> list[Any]:
    """The same of what was made small, but for the place of the results, which is in the commands."""
    return query(results, "SELECT number, guest, relocation, cycle_limit, bytes, runs FROM failure ORDER BY number")
