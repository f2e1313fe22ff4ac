"""The pytest plugin (entry point ``pytest11``): fixtures for machines, hosts, guests and runs under a test's control.

Only pytest is imported here; a suite that uses none of the fixtures never loads the emulator.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from hvproto.testing import marks

if TYPE_CHECKING:
    from hvproto.images.image import Image
    from hvproto.testing.assembler import Assembler
    from hvproto.testing.bare import BareMachine
    from hvproto.testing.hv import Hv
    from hvproto.testing.recorded import Recorded
    from hvproto.testing.save_area import LiveSaveArea


def pytest_addoption(parser: pytest.Parser) -> None:
    marks.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    for line in marks.MARKERS:
        config.addinivalue_line("markers", line)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marks.parametrize(metafunc)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    """A failed test shows where its run stood."""
    report = yield
    hv = getattr(item, "funcargs", {}).get("hv") if report.failed and call.when == "call" else None
    if hv is not None and type(hv).__module__ == "hvproto.testing.hv":
        from hvproto.testing.postmortem import sections

        try:
            report.sections.extend(sections(hv))
            report.sections.append(("hvproto: to see it again, in the debugger", _reopens(hv, item)))
        except Exception as problem:  # the test's own failure must be seen, whatever state the run is in
            report.sections.append(("hvproto", f"nothing can be said of the run: {type(problem).__name__}: {problem}"))
    return report


# -- what parametrises ------------------------------------------------------------------------


@pytest.fixture
def hv_engine(request: pytest.FixtureRequest) -> str | None:
    """The engine of `machine` and `hv`: ``--hv-engine``."""
    name: str | None = getattr(request, "param", marks.engine_of(request.config))
    reason = marks.engine_problem(name)
    if reason:
        pytest.skip(f"no native engine here: {reason}")
    return name


@pytest.fixture
def hv_plan(request: pytest.FixtureRequest) -> str:
    """The plan of `hv`, mirrored without the marker `plan`."""
    return str(getattr(request, "param", "mirrored"))


@pytest.fixture
def hv_mode(request: pytest.FixtureRequest) -> tuple[int, str | None]:
    """Bits and paging of `assemble.kernel`: the markers `bits` and `paging`."""
    mode: tuple[int, str | None] = getattr(request, "param", (32, None))
    return mode


# -- fixtures ---------------------------------------------------------------------------------


@pytest.fixture
def assemble(request: pytest.FixtureRequest, hv_mode: tuple[int, str | None]) -> Assembler:
    """``assemble(text or file)`` gives an image; ``assemble.kernel(body)`` one that enters the marked mode first."""
    from hvproto.testing.assembler import Assembler

    return Assembler(request.path.parent, *hv_mode)


@pytest.fixture
def machine(request: pytest.FixtureRequest, hv_engine: str | None) -> BareMachine:
    """A bare machine with 16 MiB: `load` an image, `run` it."""
    from hvproto.testing.bare import BareMachine

    return BareMachine(engine=hv_engine, limit=marks.limit_of(request.node))


@pytest.fixture(scope="session")
def host() -> Image:
    """The host's image: the bundled one, unless a suite has a fixture of this name."""
    return _bundled("host")


@pytest.fixture
def guest() -> Image:
    """The guest's image: the bundled one, unless a suite has a fixture of this name."""
    return _bundled("guest")


@pytest.fixture
def hv(request: pytest.FixtureRequest, host: Image, guest: Image, hv_plan: str, hv_engine: str | None) -> Hv:
    """A run of `guest` under `host`, which begins when the test says ``hv.run()`` or waits for something."""
    from hvproto.testing.hv import Hv

    return Hv(
        host,
        guest,
        hv_plan,
        engine=hv_engine,
        limit=marks.limit_of(request.node),
        relocate_every=request.config.getoption("--hv-relocate-every"),
    )


@pytest.fixture
def events(hv: Hv) -> Recorded:
    """The events of `hv`, a list that grows; ``events.of(Relocated)`` are those of one kind."""
    return hv.events


@pytest.fixture
def save_area(hv: Hv) -> LiveSaveArea:
    """The save area of `hv`, read from RAM whenever it is asked."""
    from hvproto.testing.save_area import LiveSaveArea

    return LiveSaveArea(hv)


def _reopens(hv: Hv, item: pytest.Item) -> str:
    """Have the run's state written to a folder of pytest's cache; the command that reopens it."""
    from hvproto.testing import reopen

    cache = item.config.cache if hasattr(item.config, "cache") else None
    if cache is None:
        return "pytest has no cache (-p no:cacheprovider) to keep the state in"
    return reopen.save(hv, cache.mkdir("hvproto") / re.sub(r"[^\w.-]+", "_", item.nodeid))


def _bundled(name: str) -> Image:
    from hvproto.bundled import kernel_path
    from hvproto.images.load import load_image

    return load_image(kernel_path(name))
