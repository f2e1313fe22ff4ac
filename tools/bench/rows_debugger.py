"""Rows of the debugger: what recording costs, and the first way back."""

from __future__ import annotations

from bench import kernel
from bench.measure import Row, Sizes, seconds
from hvproto import bundled
from hvproto.debugger.session import DebugSession
from hvproto.debugger.subject import Build
from hvproto.debugger.subjects import machine_subject, session_subject
from hvproto.events import Event
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.session import Session
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.machine.machine import Machine

ROUNDS, QUICK_ROUNDS = 100_000_000, 12_000_000
"""Of a loop of six instructions."""


def _loop(sizes: Sizes) -> Image:
    return assemble_text(
        f"mov ecx, {sizes.of(ROUNDS, QUICK_ROUNDS)}\nagain: inc eax\nmov [0x200000], eax\nadd ebx, eax\ncmp ebx, 5\n"
        "dec ecx\njnz again\nhlt"
    )


def _bundled(name: str) -> Image:
    kernel_ = bundled.find(name)
    assert kernel_ is not None
    return load_image(str(kernel_.path))


def _story() -> Build:
    return session_subject(_bundled("host"), _bundled("guest"), Plan.parse("mirrored"))


def _recorded(build: Build) -> float:
    with DebugSession(build) as debug:
        return seconds(debug.cont)


def loop_recorded(sizes: Sizes) -> float:
    return _recorded(machine_subject(_loop(sizes)))


def loop_alone(sizes: Sizes) -> float:
    machine = Machine(kernel.MEMORY)
    machine.load(_loop(sizes))
    return seconds(machine.run)


def story_recorded(_sizes: Sizes) -> float:
    return _recorded(_story())


def story_with_events(_sizes: Sizes) -> float:
    """The debugger knows all events: a run that somebody hears them of, too."""
    heard: list[Event] = []
    session = Session(_bundled("host"), [_bundled("guest")], Plan.parse("mirrored"))
    session.bus.subscribe(heard.append)
    return seconds(session.run)


def story_back(_sizes: Sizes) -> float:
    with DebugSession(_story()) as debug:
        debug.cont()
        return seconds(debug.back)


def loop_back(sizes: Sizes) -> float:
    with DebugSession(machine_subject(_loop(sizes))) as debug:
        debug.goto(2 * sizes.of(ROUNDS, QUICK_ROUNDS))
        return seconds(debug.back)


def rows() -> list[Row]:
    return [
        Row("record", "debugger, recording an ALU loop", "x alone", 1.3, loop_recorded, loop_alone),
        Row("record-story", "debugger, recording the bundled guest's story", "x with events", 1.3, story_recorded,
            story_with_events),
        Row("back", "first step back after millions of instructions", "s", 0.3, loop_back, None),
        Row("back-story", "first step back from the end of the story", "s", 0.3, story_back, None),
    ]  # fmt: skip
