"""What a failed test leaves: its run's state as a file, and the command that brings the debugger to that moment."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from hvproto.images.load import load_image
from hvproto.testing.reopen import as_assembly
from tests.support.command import ROOT, hvproto

pytest_plugins = ["pytester"]

FAILING = """
import pytest
from hvproto.testing import Relocated

@pytest.fixture
def guest(assemble):
    return assemble.kernel('''
        mov esi, 0x1234
    again:
        inc esi
        mov dword ptr [0x182000], 0
        jmp again
    ''')

@pytest.mark.paging("2-level")
def test_it(hv):
    with hv.wait_for(Relocated, limit=400_000):
        pass
"""


def test_the_same_moment_in_the_debugger(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING)
    failed = pytester.runpytest_subprocess()
    failed.assert_outcomes(failed=1)
    command = next(line for line in failed.outlines if line.startswith("hvproto debug "))
    words = shlex.split(command)
    script = Path(words[-1])
    state = json.loads((script.parent / "state.json").read_text(encoding="utf-8"))
    assert state["at"] >= 400_000 and state["registers"]["rsi"] > "0x1234" and len(state["events"]) > 20
    assert state["save_area"]["IDTR"]
    seen = hvproto(*words[1:], "--batch")
    assert seen.status == 0, seen.stderr
    assert f":{state['at']}:0" in seen.text
    registers = {
        name.lower(): int(value, 16)
        for name, value in re.findall(r"\b(ESI|EIP|ESP|RSI|RIP|RSP) +([0-9a-f]{8,16})\b", seen.text, re.I)
    }
    for name, value in registers.items():
        assert value == int(state["registers"]["r" + name[1:]], 16), name
    assert len(registers) == 3


@pytest.mark.parametrize("name", ["guest.asm", "modes/long.asm"])
def test_a_kernel_as_bytes_and_symbols(name: str, tmp_path: Path) -> None:
    image = load_image(ROOT / "guests" / name)
    copy = tmp_path / "copy.asm"
    copy.write_text(as_assembly(image), encoding="utf-8")
    again = load_image(copy)
    assert (again.entry, again.start, again.end) == (image.entry, image.start, image.end)
    assert again.read(again.start, again.size) == image.read(image.start, image.size)
    assert {name: at for name, at in image.symbols.items() if "." not in name}.items() <= dict(again.symbols).items()
