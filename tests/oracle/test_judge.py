"""The judge of `tools/oracle` on made-up lines: who is right, what is open, what an engine is held to."""

from __future__ import annotations

import pytest

from tools.oracle import document
from tools.oracle import layout as at
from tools.oracle.case import Case, at_end
from tools.oracle.compare import described, differing, judge
from tools.oracle.difference import OUTCOME
from tools.oracle.image import build, starting_at
from tools.oracle.randomly import batch
from tools.oracle.report import LONG_NAMES, NAMES, NOT_REACHED, ending, parse
from tools.oracle.show_case import case_text, place
from tools.oracle.tables import Mode

CASE = Case("made-up/one", at_end("ud2"), watches=(at.PD + 8,))


def line(**fields: int) -> str:
    """A line of 32-bit mode; ``fields`` by the names of the raw line."""
    values = {"vector": 6} | fields
    words = [f"{values.get(name, 0):0{2 if name == 'vector' else 8}x}" for name in NAMES]
    return " ".join([*words, f"{values.get('w0', 7):08x}"])


def test_a_line_becomes_fields_with_the_names_of_the_frame() -> None:
    report = parse(line(stack0=0x400000, stack2=0x10002))
    assert report is not None
    assert (report["eip"], report["eflags"], report["w0"]) == (0x400000, 0x10002, 7)
    report = parse(line(vector=14, stack0=2, stack1=0x400000))
    assert report is not None
    assert (report["error"], report["eip"]) == (2, 0x400000)


def test_a_line_of_long_mode_is_told_by_its_digits() -> None:
    words = [f"{index:0{2 if index == 0 else 16}x}" for index in range(len(LONG_NAMES))]
    report = parse(" ".join(words))
    assert report is not None
    assert report["r8"] == LONG_NAMES.index("r8")


@pytest.mark.parametrize("text", ["lost", "died without a word", NOT_REACHED, "", "06 00000000"])
def test_what_is_no_line_is_no_report(text: str) -> None:
    assert parse(text) is None


def test_lost_and_dead_are_different_endings() -> None:
    assert ending("lost") != ending("died without a word")
    assert ending(line()) == ""
    assert [found.field for found in judge(CASE, "lost", "died").open] == [OUTCOME]
    assert not judge(CASE, "died of this", "died of that").open


def test_agreement_is_right() -> None:
    judged = judge(CASE, line(), line())
    assert not judged.open
    assert differing(judged, line()) == []
    (found,) = differing(judged, line(eax=1))
    assert (found.field, found.first, found.second) == ("eax", 0, 1)
    assert described(found, ("right", "mine")) == "made-up/one: eax: right 00000000, mine 00000001"


def test_a_verdict_gives_one_of_them_right() -> None:
    judged = judge(CASE, line(stack2=0x10002), line(stack2=2))  # RF in the pushed flags
    assert [verdict.key for verdict in judged.used] == ["resume-flag"]
    assert differing(judged, line(stack2=0x10002)) == []
    assert [found.field for found in differing(judged, line(stack2=2))] == ["eflags"]


def test_nobody_is_held_to_what_the_manual_leaves_open() -> None:
    fault = {"vector": 14, "stack0": 2}
    judged = judge(CASE, line(**fault, w0=7), line(**fault, w0=0x27))  # A of a directory entry
    assert [verdict.key for verdict in judged.used] == ["accessed-on-the-way-to-a-fault"]
    assert differing(judged, line(**fault, w0=7)) == differing(judged, line(**fault, w0=0x27)) == []
    agreed = judge(CASE, line(**fault, w0=7), line(**fault, w0=7))
    assert differing(agreed, line(**fault, w0=0x27)) == []


def test_a_disagreement_without_a_verdict_is_open_and_binds_nobody() -> None:
    judged = judge(CASE, line(ebx=1), line(ebx=2))
    assert [found.field for found in judged.open] == ["ebx"]
    assert differing(judged, line(ebx=3)) == []


def test_an_oracle_that_was_given_up_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="made-up/one"):
        judge(CASE, line(), NOT_REACHED)


def test_a_case_is_shown_with_names() -> None:
    text = case_text(judge(CASE, line(), line(eax=1)), {"bochs": line(), "qemu": line(eax=1)}, Mode.LEGACY)
    assert "00000001*" in text or "open: eax" in text
    assert "w0 PD+0x8" in text
    assert place(at.ENTRY_STACK0 - 8) == "ENTRY_STACK0-0x8"
    assert place(0x1234) == "0x1234"


@pytest.mark.parametrize("mode", list(Mode))
def test_random_batches_are_the_same_every_time_and_fit(mode: Mode) -> None:
    cases = batch(5, mode, 50)
    assert cases == batch(5, mode, 50)
    image = build(cases, mode)
    assert image == build(cases, mode)
    assert starting_at(image, 0, mode) == image != starting_at(image, 1, mode)


def test_what_a_record_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="no such settings"):
        build([Case("made-up/two", "nop", settings={"r8": 1})], Mode.LEGACY)
    with pytest.raises(ValueError, match="too long"):
        build([Case("made-up/three", ".rept 4096\nnop\n.endr")], Mode.LEGACY)


def test_the_document_lists_the_deviations() -> None:
    text = document.DOCUMENT.read_text("utf-8")
    assert document.document(text) == text, "bring it up to date: python -m tools.oracle.document --write"
