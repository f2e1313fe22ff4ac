"""A kernel alone and as a guest on the stage: the same end, the same log, the same memory."""

from __future__ import annotations

from hvproto.errors import RunError
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from tests.hypervisor.probes import Snippet, log_of
from tests.hypervisor.stage import MEMORY, Bare, Stage, bare


def code(text: str) -> bytes:
    """A snippet's bytes, assembled for its address being unknown."""
    return assemble_text(text).segments[0].data


def run(image: Image, engine: str | None = None, limit: int = 400_000) -> tuple[Stage, RunError | None]:
    """Run on the stage; the error, if the guest or the run ended in one."""
    stage = Stage(image, engine)
    error: RunError | None = None
    try:
        stage.run(limit)
    except RunError as raised:
        error = raised
    stage.check_host_untouched()
    return stage, error or stage.error


def outcome(status: int | None, error: RunError | None) -> object:
    return type(error) if error else status


def twins(image: Image, engine: str | None = None, limit: int = 4_000_000) -> tuple[Bare, Stage]:
    """Alone and as a guest: the same end, the same log, the same memory."""
    alone = bare(image, engine, limit=limit)
    stage, error = run(image, engine, limit)
    assert outcome(stage.guest.status, error) == outcome(alone.status, alone.error), f"{error} but alone {alone.error}"
    hosted, expected = stage.guest_ram(), alone.guest_ram()
    pairs = zip(log_of(expected), log_of(hosted), strict=False)
    wrong = [f"\nalone  {one}\nhosted {other}" for one, other in pairs if one != other]
    assert not wrong, "".join(wrong[:6])
    places = [hex(at) for at in range(0, MEMORY, 4) if hosted[at : at + 4] != expected[at : at + 4]]
    assert not places, f"memory differs at {places[:8]}"
    assert stage.output == alone.output
    return alone, stage


def snippets(texts: list[str], rings: tuple[int, ...] = (0, 3), flags: tuple[int, ...] = (2,)) -> list[Snippet]:
    return [Snippet(code(text), ring, flag) for text in texts for ring in rings for flag in flags]


def plain_kernel(body: str, data: str = "") -> Image:
    return assemble_text(
        f".origin 0x100000\n.entry start\nstart:\ncli\nmov esp, 0x180000\n{body}\nfinish: cli\nhlt\njmp finish\n{data}"
    )
