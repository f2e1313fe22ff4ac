"""The trace of `hvproto run --trace`, as the Perfetto UI reads it, against the events of the same run."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import hvproto

Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lines, Lines]:
    folder = tmp_path_factory.mktemp("trace")
    ended = hvproto(
        "run", "-q", "--guest", "guest", "--guest", "hello", "--trace", folder / "trace.json", "--events",
        folder / "events.jsonl",
    )  # fmt: skip
    assert (ended.status, ended.stderr) == (0, "")
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return json.loads((folder / "trace.json").read_text()), events


def test_every_world_has_a_track(run: tuple[Lines, Lines]) -> None:
    names = {line["tid"]: line["args"]["name"] for line in run[0] if line["name"] == "thread_name"}
    assert names == {0: "host", 1: "hypervisor", 2: "guest guest", 3: "guest hello"}


def test_at_each_time_one_world_has_the_processor(run: tuple[Lines, Lines]) -> None:
    trace, events = run
    slices = [line for line in trace if line["ph"] == "X"]
    assert {line["tid"] for line in slices} == {0, 1, 2, 3}
    assert sum(line["args"]["cycles"] for line in slices) == events[-1]["at"]
    assert slices[0]["ts"] == 0
    for before, after in pairwise(slices):
        assert before["ts"] + before["dur"] == pytest.approx(after["ts"], abs=1e-6)


def test_a_guest_has_it_from_its_decoupling_on(run: tuple[Lines, Lines]) -> None:
    trace, events = run
    begins = {(line["ts"], line["tid"]) for line in trace if line["ph"] == "X"}
    entered = {(event["at"], 2 + event["guest"]) for event in events if event["event"] == "Decoupled"}
    placed = {(line["args"]["cycle"], line["tid"]): line["ts"] for line in trace if line["name"] == "Decoupled"}
    found = {(placed[place], place[1]) for place in entered}
    assert len(found) > 20 and {lane for _, lane in found} == {2, 3}
    assert len(found & begins) > 0.9 * len(found)  # the others trap at their first instruction


def test_every_event_is_there(run: tuple[Lines, Lines]) -> None:
    trace, events = run
    marks = Counter(line["name"] for line in trace if line["ph"] == "i")
    kinds = Counter(event["event"] for event in events)
    functions, looks = kinds.pop("HostFunction"), kinds.pop("GuestMappings")
    assert marks == kinds and kinds["Relocated"] > 0
    assert sum(line["ph"] in "be" for line in trace) == functions
    assert sum(line["name"] == "pages that the guest maps" for line in trace) == looks
    relocated = [event for event in events if event["event"] == "Relocated"]
    told = [line["args"] for line in trace if line["name"] == "Relocated"]
    assert [(args["old"], args["new"], args["step"]) for args in told] == [
        (event["old"], event["new"], 46) for event in relocated
    ]


def test_two_traces_are_the_same(tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("one", "two")]
    for name in names:
        assert hvproto("run", "-q", "--guest", "hello", "--trace", name, "--report", f"{name}.html").status == 0
    assert names[0].read_bytes() == names[1].read_bytes() != b""
    assert Path(f"{names[0]}.html").read_bytes() == Path(f"{names[1]}.html").read_bytes() != b""
