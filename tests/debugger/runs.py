"""Runs for the debugger's tests: bundled kernels, and what two runs that ought to be the same are compared by."""

from __future__ import annotations

import zlib
from functools import cache

from hvproto.bundled import kernel_path
from hvproto.debugger.debuggee import View
from hvproto.debugger.pacer import FOREVER, Pace, Pacer
from hvproto.debugger.subject import Build, Subject
from hvproto.debugger.subjects import machine_subject, session_subject
from hvproto.errors import LimitReached, World
from hvproto.hypervisor.plan import Plan
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.processor.processor import Processor
from hvproto.processor.settings import Setting, describe


@cache
def bundled(name: str) -> Image:
    return load_image(kernel_path(name))


def session(plan: str = "mirrored", **more: object) -> Build:
    """The bundled host with the bundled guest."""
    return session_subject(bundled("host"), bundled("guest"), Plan.parse(plan), **more)  # type: ignore[arg-type]


def kernel(source: str, **more: object) -> Build:
    """A kernel of these statements on the bare machine."""
    return machine_subject(assemble_text(source), **more)  # type: ignore[arg-type]


class Follower:
    """Has a run go at a pace between two times, and free elsewhere; counts what it was asked about."""

    def __init__(self, processor: Processor, pace: Pace, begin: int, end: int) -> None:
        self._processor, self._pace, self._begin, self._end = processor, pace, begin, end
        self.instructions = self.blocks = 0
        Pacer(processor, self)

    def pace(self) -> Pace:
        return self._pace if self._begin <= self._processor.now < self._end else Pace.FREE

    def free_until(self) -> int:
        return self._begin if self._processor.now < self._begin else FOREVER

    def between_blocks(self) -> None:
        pass

    def before_block(self, address: int, size: int) -> None:
        self.blocks += 1

    def before_instruction(self, address: int, index: int) -> None:
        assert self._processor.code_address == address
        self.instructions += 1


def outcome(
    build: Build, pace: Pace | None = None, begin: int = 0, end: int = FOREVER
) -> tuple[dict[str, object], int]:
    """Everything that a run has come to, and how many instructions it was stopped at."""
    output = bytearray()
    events: list[str] = []
    subject = build(lambda _whose, byte: output.append(byte))
    subject.bus.subscribe(lambda event: events.append(event.to_json()))
    follower = Follower(subject.processor, pace, begin, end) if pace is not None else None
    try:
        ended: object = subject.run()
    except LimitReached:
        ended = "limit"
    processor = subject.processor
    state = {
        "ended": ended, "now": processor.now, "registers": processor.registers(), "output": bytes(output),
        "ram": zlib.crc32(subject.machine.ram.view), "events": events,
    }  # fmt: skip
    return state, follower.instructions if follower is not None else 0


def fingerprint(view: View) -> tuple[object, ...]:
    """All that a run is at a moment: registers, settings, RAM, time, events."""
    return of_subject(view.subject, len(view.watchman.history))


def of_subject(subject: Subject, events: int) -> tuple[object, ...]:
    processor = subject.processor
    return (
        events, processor.now, tuple(processor.registers().items()), processor.cpl, processor.cr2,
        tuple(describe(processor.read_setting(setting)) for setting in Setting),
        zlib.crc32(subject.machine.ram.view), str(subject.machine.world is World.HOST),
        bytes(subject.machine.serial_output), len(subject.machine.debug_output),
    )  # fmt: skip
