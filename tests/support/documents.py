"""The code blocks of the documentation, and how a reader's hands do what they say.

In README.md a block is named by ``<!-- run: NAME -->`` before it, and each has a test of its own. In docs/ a page is
done from top to bottom in one folder:

- a block with ``title="FILE"`` is saved under that name;
- ``bash`` is run, and so is ``python`` without a title; all of its output is kept;
- ``text`` behind them is that output, with ``...`` for any text that isn't repeated.

Marks on the line before a block: ``<!-- ends with: N -->``, another exit status than 0; ``<!-- needs: COMMAND -->``, it
and its output are left out where there is no such command; ``<!-- not run: REASON -->``.

``python -m tests.support.documents`` writes what a newcomer types, from the README's first commands to the first test
that passes, as a script: CI runs it as it stands. Here, a virtual environment is there already, and the commands that
make one are left out.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.command import ROOT, environment

DOCS = ROOT / "docs"
FIRST = DOCS / "tutorial" / "guest.md"
"""What a newcomer reads after the README."""
MOST_SECONDS = 120
_FENCE = re.compile(r'```(\w+)(?: title="([^"]+)")?$')
_MARK = re.compile(r"<!-- ([\w ]+): (.+) -->$")
_MARKS = ("run", "ends with", "needs", "not run")
_ENVIRONMENT = re.compile(r"python3 -m venv (?P<folder>\S+)|\. \S+/bin/activate|pip install .*")


class DocumentError(AssertionError):
    """A page that isn't written by the rules, or doesn't do what it says."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: where it begins (line from 1), its language, file name and marks, and its text."""

    page: Path
    line: int
    language: str
    title: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    def error(self, reason: str) -> DocumentError:
        return DocumentError(f"{self.page.relative_to(ROOT)}:{self.line}: {reason}\n{self.text}")


def pages() -> list[Path]:
    """All pages of the site, sources."""
    return sorted(DOCS.rglob("*.md"))


def blocks(page: Path) -> list[Block]:
    """The blocks of a page. Raises DocumentError for a fence or mark that isn't by the rules."""
    found: list[Block] = []
    marks: dict[str, str] = {}
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        if mark := _MARK.fullmatch(line):
            marks[mark[1]] = mark[2]
        elif line.lstrip().startswith("```"):
            fence = _FENCE.fullmatch(line)
            text = "".join(f"{inside}\n" for inside in _inside(lines))
            block = Block(page, number, fence[1] if fence else "", (fence[2] if fence else "") or "", text, marks)
            if fence is None or any(name not in _MARKS for name in marks):
                raise block.error("neither fence nor mark is as tests/support/documents.py wants it")
            found.append(block)
            marks = {}
        else:
            marks = {}
    return found


def _inside(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for _, line in lines:
        if line == "```":
            return
        yield line


def commands(text: str) -> list[str]:
    """The commands that one types for a block of bash; comments are none.

    >>> commands("cd there && ls  # all\\nhvproto run | head -3\\n")
    ['cd there', 'ls', 'hvproto run | head -3']
    """
    lines = (re.sub(r"\s+#.*|^#.*", "", line) for line in text.splitlines())
    return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


class Hands:
    """Does a page's blocks, one after the other, in a folder that is also the home directory."""

    def __init__(self, folder: Path) -> None:
        self.home, self.here = folder, folder
        self.output: str | None = None
        self.left_out: list[str] = []
        """Commands that make a virtual environment."""

    def do(self, block: Block) -> None:
        """Raises DocumentError if it comes to another end than the page says."""
        if "not run" in block.marks or shutil.which(block.marks.get("needs", "bash")) is None:
            self.output = None
        elif block.title:
            (self.here / block.title).parent.mkdir(parents=True, exist_ok=True)
            (self.here / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "bash":
            self._run(block, ["bash", "-euo", "pipefail", "-c", self._script(block.text)])
        elif block.language == "python":
            self._run(block, [sys.executable, "-c", block.text])
        elif block.language == "text" and (self.output is not None or "needs" in block.marks):
            self._compare(block)
        elif block.language != "text":
            raise block.error("nobody can run this: give it a title, or a mark that says why not")

    def _script(self, text: str) -> str:
        if not _ENVIRONMENT.search(text):
            return f'{text}\npwd > "$HERE"'
        kept = []
        for command in commands(text):
            made = _ENVIRONMENT.fullmatch(command)
            if made is not None:
                self.left_out.append(command)
                kept.append(f"mkdir -p {made['folder']}" if made["folder"] else ":")
            else:
                kept.append(command)
        return "\n".join([*kept, 'pwd > "$HERE"'])

    def _run(self, block: Block, command: list[str]) -> None:
        note = self.home / ".here"
        search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.Popen(
            command, cwd=self.here, env=environment(PATH=search, HOME=str(self.home), HERE=str(note), PYTEST_ADDOPTS=""),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8",
            start_new_session=True,
        )  # fmt: skip
        try:
            self.output = done.communicate(timeout=MOST_SECONDS)[0]
        except subprocess.TimeoutExpired:
            os.killpg(done.pid, signal.SIGKILL)  # what it has left running, too
            raise block.error(f"nothing after {MOST_SECONDS} s:\n{done.communicate()[0]}\n") from None
        wanted = int(block.marks.get("ends with", 0))
        if done.returncode != wanted:
            raise block.error(f"exit status {done.returncode} instead of {wanted}:\n{self.output}\n")
        if note.exists():
            self.here = Path(note.read_text().strip())

    def _compare(self, block: Block) -> None:
        if self.output is None:
            return
        shown = re.escape(_plain(block.text)).replace(r"\.\.\.", ".*?")
        if re.fullmatch(shown, _plain(self.output), re.DOTALL) is None:
            raise block.error(f"that isn't the output, which is:\n{self.output}\n")


def _plain(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def newcomer() -> list[Block]:
    """The blocks of the first page up to the first test."""
    found = []
    for block in blocks(FIRST):
        found.append(block)
        if block.language == "bash" and any(command.startswith("pytest") for command in commands(block.text)):
            return found
    raise DocumentError(f"{FIRST.name} comes to no test")


def script() -> str:
    """What a newcomer types, and the files that he or she writes, for bash."""
    lines = ["set -euo pipefail"]
    for block in newcomer():
        if block.title:
            lines.append(f"cat > {shlex.quote(block.title)} <<'END_OF_FILE'\n{block.text}END_OF_FILE")
        elif block.language == "bash":
            lines += commands(block.text)
    return "\n".join(lines)


if __name__ == "__main__":
    print(script())
