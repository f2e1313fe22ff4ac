"""What a person sees in the page of `hvproto run --report`, in a browser, against the events of the same run."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.report.browser import number, opened, rows, settled, shown_range
from tests.support.command import hvproto

LANE, BAR = 46, 12
"""Height of a lane, and where its bar is, in pixels from the top of the plot."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The bundled guest's run: its page, and its events."""
    folder = tmp_path_factory.mktemp("report")
    ended = hvproto("run", "--quiet", "--report", folder / "report.html", "--events", folder / "events.jsonl")
    assert (ended.status, ended.stderr) == (0, "")
    return folder / "report.html", [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def browsing(browser: Any, recorded: tuple[Path, list[dict[str, Any]]]) -> Iterator[Any]:
    with opened(browser, recorded[0]) as page:
        yield page


@pytest.fixture
def page(browsing: Any) -> Any:
    """The page, with all of the run in view."""
    browsing.click("#by-time")
    browsing.click("#all")
    settled(browsing)
    return browsing


@pytest.fixture(scope="module")
def events(recorded: tuple[Path, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return recorded[1]


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def painted(page: Any, canvas: str, y: int) -> int:
    """How many pixels of a row of a plot have a colour."""
    count: int = page.evaluate(
        """([id, y]) => { const canvas = document.getElementById(id), scale = canvas.width / canvas.clientWidth;
        const row = canvas.getContext("2d").getImageData(0, Math.round(y * scale), canvas.width, 1).data;
        return row.filter((value, i) => i % 4 === 3 && value > 128).length; }""",
        [canvas, y],
    )
    return count


def region_colours(page: Any, x: float) -> int:
    """How many pixels of a column of the address space have the region's colour."""
    count: int = page.evaluate(
        """(x) => { const canvas = document.getElementById("space"), scale = canvas.width / canvas.clientWidth;
        const wanted = getComputedStyle(document.documentElement).getPropertyValue("--region").trim();
        const parts = [1, 3, 5].map((at) => parseInt(wanted.slice(at, at + 2), 16));
        const column = canvas.getContext("2d").getImageData(Math.round(x * scale), 0, 1, canvas.height).data;
        let found = 0;
        for (let i = 0; i < column.length; i += 4) found += parts.every((part, at) => Math.abs(column[i + at] - part) < 8);
        return found; }""",
        x,
    )
    return count


def test_it_needs_nothing_else(recorded: tuple[Path, list[dict[str, Any]]]) -> None:
    text = recorded[0].read_text()
    assert not re.search(r"https?://|(?:src|href)=\"(?!data:)|@import|import\(", text)
    assert len(text) < 400_000


def test_the_numbers_are_those_of_the_events(page: Any, events: list[dict[str, Any]]) -> None:
    shown = {
        name: number(page.inner_text(f"#{name}")) for name in ("events", "cycles", "relocations", "conflicts-count")
    }
    assert shown == {
        "events": len(events), "cycles": events[-1]["at"], "relocations": len(of(events, "Relocated")),
        "conflicts-count": len(of(events, "Conflict")),
    }  # fmt: skip
    assert shown["relocations"] > 3


def test_every_world_has_a_lane_with_something_in_it(page: Any) -> None:
    names = page.eval_on_selector_all("#lane-names div", "(all) => all.map((each) => each.textContent)")
    assert names == ["host", "hypervisor", "guest"]
    for lane in range(3):
        thinnest = 4 + 22 - 1  # the last row of a bar: any share at all is drawn there
        assert painted(page, "lanes", lane * LANE + thinnest) > 100
    assert painted(page, "lanes", 3 * LANE + 2) < 100


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.62, 0.83])
def test_hovering_tells_the_event_that_is_there(share: float, page: Any, events: list[dict[str, Any]]) -> None:
    exits = of(events, "ExceptionTaken")
    share = exits[int(share * len(exits))]["at"] / events[-1]["at"]
    box = page.locator("#lanes").bounding_box()
    page.hover("#lanes", position={"x": share * box["width"], "y": LANE + BAR})
    tip = page.inner_text("#tip")
    found = re.match(r"event ([\d,]+): (\w+), cycle ([\d,]+)\n", tip)
    assert found is not None, tip
    event = events[number(found[1]) - 1]
    assert (event["event"], event["at"]) == (found[2], number(found[3]))
    away = abs(event["at"] / events[-1]["at"] - share) * box["width"]
    assert away <= 4.5
    for name, value in event.items():
        if isinstance(value, str) and name != "event":
            assert value in tip


def test_hovering_tells_who_has_the_processor(page: Any, events: list[dict[str, Any]]) -> None:
    """In the longest time that the host has it, according to the events."""
    turns = [event for event in events if event["event"] in ("Decoupled", "Recoupled")]
    length, begin, end = max(
        (after["at"] - before["at"], before["at"], after["at"])
        for before, after in pairwise(turns)
        if before["event"] == "Recoupled"
    )
    box = page.locator("#lanes").bounding_box()
    x = (begin + length / 2) / events[-1]["at"] * box["width"]
    page.hover("#lanes", position={"x": x, "y": BAR})
    assert f"host has the processor from cycle {begin:,} to {end:,}" in page.inner_text("#tip")


def test_zoom_changes_what_is_in_view(page: Any, events: list[dict[str, Any]]) -> None:
    assert shown_range(page) == (0, events[-1]["at"])
    page.click("#in")
    half = shown_range(page)
    assert half[1] - half[0] == pytest.approx(events[-1]["at"] / 2, abs=2)
    box = page.locator("#lanes").bounding_box()
    under = half[0] + (half[1] - half[0]) * 0.25
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 10)
    page.mouse.wheel(0, -300)
    near = shown_range(page)
    assert near[1] - near[0] < half[1] - half[0]
    assert near[0] + (near[1] - near[0]) * 0.25 == pytest.approx(under, abs=1.5 * (half[1] - half[0]) / box["width"])
    page.keyboard.press("ArrowRight")
    assert shown_range(page)[0] == pytest.approx(near[0] + (near[1] - near[0]) / 4, abs=2)
    page.click("#all")
    assert shown_range(page) == (0, events[-1]["at"])


def test_dragging_moves_and_the_tables_follow(page: Any, events: list[dict[str, Any]]) -> None:
    page.click("#in")
    page.click("#in")
    before = shown_range(page)
    box = page.locator("#lanes").bounding_box()
    page.mouse.move(box["x"] + 600, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 10, steps=3)
    page.mouse.up()
    first, last = shown_range(page)
    assert first - before[0] == pytest.approx(200 / box["width"] * (last - first), rel=0.02)
    counted = sum(number(row[2]) for row in rows(page, "exits"))
    assert counted == sum(first <= event["at"] < last for event in of(events, "ExceptionTaken")) > 0


def test_event_by_event_each_step_of_a_switch_can_be_seen(page: Any, events: list[dict[str, Any]]) -> None:
    page.click("#by-event")
    assert shown_range(page) == (1, len(events))
    page.select_option("#find-kind", label=f"Relocated ({len(of(events, 'Relocated'))})")
    page.click("#find")
    settled(page)
    title = page.inner_text("#event-number")
    place = number(title.split(":")[0]) - 1
    assert events[place]["event"] == "Relocated"
    told = dict(rows(page, "event"))
    assert (told["step"], told["old"], told["new"]) == (
        "46", f"{events[place]['old']:#010x}", f"{events[place]['new']:#010x}",
    )  # fmt: skip
    page.click("#previous")
    settled(page)
    assert page.inner_text("#event-number") == f"{place:,}: {events[place - 1]['event']}"


def test_the_settings_at_a_switch(page: Any, events: list[dict[str, Any]]) -> None:
    page.click(f"#conflicts tbody tr[data-event='{events.index(of(events, 'Conflict')[0])}']")
    at = events.index(of(events, "Conflict")[0])
    last = max(i for i, event in enumerate(events[:at]) if event["event"] == "Decoupled")
    assert f"cycle {events[last]['at']:,}: the host is decoupled" in page.inner_text("#switch-title")
    saved = {event["setting"]: event["value"] for event in events[last - 16 : last] if event["event"] == "SettingSaved"}
    new = {event["setting"]: event["new"] for event in events[last - 16 : last] if event["event"] == "SettingReplaced"}
    assert {row[1]: (row[2], row[4], row[5]) for row in rows(page, "settings")} == {
        name: (value, new[name], "hypervisor's") for name, value in saved.items()
    }
    page.click("#next-switch")
    assert "the host is recoupled" in page.inner_text("#switch-title")
    assert len(rows(page, "settings")) == len(saved)


def test_exits_and_recouplings_by_kind_and_cost(page: Any, events: list[dict[str, Any]]) -> None:
    exits = of(events, "ExceptionTaken")
    hidden = [event for event in exits if event["detail"] == "hidden from the mirror"]
    row = next(row for row in rows(page, "exits") if row[0] == "#PF: hidden from the mirror")
    assert (number(row[2]), number(row[3])) == (len(hidden), sum(event["cycles"] for event in hidden))
    assert sum(number(row[2]) for row in rows(page, "exits")) == len(exits)
    reasons = Counter(event["reason"] for event in of(events, "Recoupled"))
    table = rows(page, "recouplings")
    assert sum(number(row[1]) for row in table) == reasons.total()
    assert (
        number(next(row[1] for row in table if row[0] == "an interrupt for the host"))
        == reasons["an interrupt for the host"]
    )
    shares = {row[0]: number(row[1]) for row in rows(page, "shares")}
    stubs = sum(event["cycles"] for event in exits)
    assert 0.99 * stubs < shares["hypervisor"] <= stubs  # less where the host came in between a stub's two instructions
    assert sum(shares.values()) == pytest.approx(events[-1]["at"], abs=3)


def test_the_conflicts_are_listed_with_their_moves(page: Any, events: list[dict[str, Any]]) -> None:
    assert [row[2:5] for row in rows(page, "conflicts")] == [
        [f"{conflict['address']:#010x}", f"{conflict['region']:#010x}", f"{move['new']:#010x}"]
        for conflict, move in zip(of(events, "Conflict"), of(events, "Relocated"), strict=True)
    ]


def test_the_address_space_shows_where_the_region_is(page: Any, events: list[dict[str, Any]]) -> None:
    box = page.locator("#space").bounding_box()
    seen = set()
    for share in (0.3, 0.7, 0.75, 0.99):
        assert region_colours(page, share * box["width"]) >= 3
        page.hover("#space", position={"x": share * box["width"], "y": 120})
        found = re.search(r"the region: (0x\w+), (\d+) pages", page.inner_text("#tip"))
        assert found is not None
        until = share * events[-1]["at"]
        place = [event["new"] for event in of(events, "Relocated") if event["at"] <= until] or [
            of(events, "GuestMappings")[0]["region"]
        ]
        assert int(found[1], 16) == place[-1]
        seen.add(found[1])
    assert len(seen) >= 3
    assert sum(painted(page, "space", y) for y in range(0, 240, 12)) > 1000
    page.click("#to-scale")
    settled(page)
    labels = page.eval_on_selector_all("#space-names div", "(all) => all.map((each) => parseInt(each.textContent))")
    gaps = [one - other for one, other in pairwise(labels)]
    assert max(gaps) - min(gaps) < 1 << 14 and labels == sorted(labels, reverse=True)
    page.click("#compressed")


def test_several_guests_have_a_lane_and_an_address_space_each(browser: Any, tmp_path: Path) -> None:
    report = tmp_path / "two.html"
    ended = hvproto("run", "-q", "--guest", "selfmap", "--guest", "ptwrites", "--report", report)
    assert ended.status == 0
    with opened(browser, report) as page:
        names = page.eval_on_selector_all("#lane-names div", "(all) => all.map((each) => each.textContent)")
        assert names == ["host", "hypervisor", "guest selfmap", "guest ptwrites"]
        for lane in range(4):
            assert painted(page, "lanes", lane * LANE + 25) > 10
        assert page.eval_on_selector_all("#space-guest option", "(all) => all.length") == 2


@pytest.mark.parametrize("plan", ["direct", "application"])
def test_under_the_other_plans_there_is_no_region(browser: Any, plan: str, tmp_path: Path) -> None:
    report = tmp_path / "other.html"
    assert hvproto("run", "-q", "--guest", "hello", "--plan", plan, "--report", report).status == 0
    with opened(browser, report) as page:
        assert "no region" in page.inner_text("#space-note")
        for lane in (0, 2):
            assert painted(page, "lanes", lane * LANE + 25) > 5
        has_switches = plan == "direct"
        assert ("never decoupled" not in page.inner_text("#settings")) == has_switches
