"""All rows, in the order in which they are shown."""

from __future__ import annotations

from bench import rows_debugger, rows_exits, rows_running, rows_tables
from bench.measure import Row


def all_rows() -> list[Row]:
    return [*rows_running.rows(), *rows_exits.rows(), *rows_tables.rows(), *rows_debugger.rows()]
