"""Fixtures of all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from zlib import crc32

import pytest
from hypothesis import settings

from hvproto.processor import private_layout
from hvproto.processor.processor import ENGINE_VARIABLE

# What is drawn must not decide whether a change lands: in CI, Hypothesis draws the same each time.
settings.register_profile("ci", derandomize=True, database=None)
settings.register_profile("nightly", max_examples=4000, deadline=None)
if os.environ.get("HYPOTHESIS_PROFILE"):
    settings.load_profile(os.environ["HYPOTHESIS_PROFILE"])
elif os.environ.get("CI"):
    settings.load_profile("ci")

ENGINES = ("native", "portable")
SHARE = 6


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of each engine that can be used here; only the one that the environment asks for, if it does."""
    name: str = request.param
    wanted = os.environ.get(ENGINE_VARIABLE)
    if wanted and name != wanted:
        pytest.skip(f"{ENGINE_VARIABLE} asks for the {wanted} engine")
    if name == "portable" and not wanted and os.environ.get("CI") and crc32(request.node.nodeid.encode()) % SHARE:
        pytest.skip(f"CI has time for one in {SHARE} on the portable engine, chosen by name; without CI set all run")
    reason = private_layout.self_check() if name == "native" else None
    if reason:
        pytest.skip(f"no native engine here: {reason}")
    yield name


@pytest.fixture
def both_engines() -> tuple[str, str]:
    """For tests that compare the engines with each other."""
    if os.environ.get(ENGINE_VARIABLE):
        pytest.skip(f"{ENGINE_VARIABLE} asks for one engine only")
    reason = private_layout.self_check()
    if reason:
        pytest.skip(f"no native engine here: {reason}")
    return "native", "portable"
