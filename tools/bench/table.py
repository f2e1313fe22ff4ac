"""All rows, in the order in which they are shown."""

from __future__ import annotations

from bench import rows_debugger, rows_exits, rows_running, rows_system, rows_tables
from bench.measure import Row


def all_rows(system: rows_system.System | None = None) -> list[Row]:
    """``system``: a whole operating system, which there is a row for."""
    parts = rows_running.rows(), rows_exits.rows(), rows_tables.rows(), rows_system.rows(system), rows_debugger.rows()
    return [row for part in parts for row in part]


def system(image: str, commands: str, disk: str | None = None) -> rows_system.System:
    """Commands are parted by semicolons; ``disk``: the file of its second one."""
    return rows_system.System(image, tuple(one.strip() for one in commands.split(";")), disk)
