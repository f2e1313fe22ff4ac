"""Markers and options of the plugin, and what they parametrise."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

ENGINES = ("native", "portable")
MARKERS = (
    "plan(text, ...): run the test under each of these plans",
    "paging(mode, ...): run it with assemble.kernel in each of these: none, 2-level, pse, pae, 4-level",
    "bits(number, ...): run it with assemble.kernel in 32- and 64-bit code; modes that there aren't are left out",
    "limit(instructions): the most instructions that the test's runs may take, the host's and its guests'",
)


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("hvproto", "hvproto: hypervisor prototypes")
    group.addoption(
        "--hv-relocate-every", type=_positive, metavar="N", default=None,
        help="move the hypervisor's region before every Nth exit of the fixture hv's guests",
    )  # fmt: skip
    group.addoption(
        "--hv-engine", choices=[*ENGINES, "both"], default=None,
        help="how Unicorn is driven for the fixtures machine and hv; both: run each test twice",
    )  # fmt: skip


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def engine_of(config: pytest.Config) -> str | None:
    """The engine that the options ask for; None leaves it to HVPROTO_ENGINE."""
    chosen: str | None = config.getoption("--hv-engine")
    return None if chosen == "both" else chosen


def limit_of(node: pytest.Item) -> int | None:
    """Instructions; None without the marker."""
    mark = node.get_closest_marker("limit")
    if mark is None:
        return None
    instructions = _arguments(mark, 1)[0]
    if not isinstance(instructions, int) or instructions < 1:
        raise pytest.UsageError(f"limit({instructions!r}): give a number of instructions, at least 1")
    return instructions


def parametrize(metafunc: pytest.Metafunc) -> None:
    """One test per plan, mode and engine that is asked for."""
    names = metafunc.fixturenames
    if "hv_engine" in names and metafunc.config.getoption("--hv-engine") == "both":
        metafunc.parametrize("hv_engine", ENGINES, indirect=True)
    plans = _marked(metafunc, "plan")
    if plans and "hv_plan" in names:
        metafunc.parametrize("hv_plan", plans, indirect=True, ids=str)
    bits, modes = _marked(metafunc, "bits"), _marked(metafunc, "paging")
    if (bits or modes) and "hv_mode" in names:
        from hvproto.testing.kernels import is_possible

        pairs = [pair for pair in product(bits or [32], modes or [None]) if is_possible(*pair)]
        labels = [f"{width}-bit" + (f"-{mode}" if mode else "") for width, mode in pairs]
        metafunc.parametrize("hv_mode", pairs, indirect=True, ids=labels)


def _marked(metafunc: pytest.Metafunc, name: str) -> list[Any]:
    mark = metafunc.definition.get_closest_marker(name)
    return list(_arguments(mark)) if mark is not None else []


def _arguments(mark: pytest.Mark, count: int | None = None) -> tuple[Any, ...]:
    if not mark.args or mark.kwargs or count not in (None, len(mark.args)):
        raise pytest.UsageError(f"the marker {mark.name} takes {count or 'one or more'} plain arguments")
    return mark.args


def engine_problem(name: str | None) -> str | None:
    """Why this engine can't be used here."""
    if name != "native":
        return None
    from hvproto.processor import private_layout

    return private_layout.self_check()
