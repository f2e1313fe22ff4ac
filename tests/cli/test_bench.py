"""`hvproto bench`: it runs, prints its rows, and says what it misses. No test looks at a time."""

from __future__ import annotations

import json

import pytest

from tests.support.command import hvproto

ROWS = ("build", "events")


def test_the_rows_that_are_asked_for_are_measured_and_shown() -> None:
    done = hvproto("bench", "--quick", "--rounds", "1", *ROWS)
    assert done.status == 0, done.stderr
    for name in ROWS:
        assert any(line.startswith(name) for line in done.text.splitlines())


def test_json_has_the_bar_and_the_spread_of_each_row() -> None:
    done = hvproto("bench", "--quick", "--rounds", "2", "--json", *ROWS)
    rows = json.loads(done.text)["rows"]
    assert [row["name"] for row in rows] == list(ROWS)
    for row in rows:
        assert row["rounds"] == 2
        assert 0 < row["least"] <= row["median"] <= row["most"]
        assert isinstance(row["holds"], bool)


def test_a_row_that_isnt_there_is_named_with_those_that_are() -> None:
    done = hvproto("bench", "sleep")
    assert done.status != 0
    assert "'sleep'" in done.stderr
    assert "relocate" in done.stderr


@pytest.mark.parametrize("at_least", [True, False])
def test_a_missed_bar_is_told_from_one_that_is_met(at_least: bool) -> None:
    from hvproto.cli.bench import _module

    measure = _module("measure")
    row = measure.Row("r", "w", "x", 10.0, lambda _: 1.0, None, at_least=at_least)
    good, near, bad = (12.0, 9.0, 5.0) if at_least else (8.0, 11.0, 20.0)
    assert row.holds(good)
    assert not row.holds(near)
    assert row.holds(near, measure.TOLERANCE)
    assert not row.holds(bad, measure.TOLERANCE)
