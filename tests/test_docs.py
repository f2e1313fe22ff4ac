"""What the documentation shows is what happens: every block is done, every link leads somewhere, every name is there."""

from __future__ import annotations

import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from hvproto import testing
from hvproto.bundled import kernel_path
from hvproto.debugger.session import EVENT_KINDS
from hvproto.images.load import load_image
from hvproto.machine.machine import Machine
from tests.support.command import ROOT
from tests.support.documents import DOCS, Block, DocumentError, Hands, blocks, commands, newcomer, pages, script
from tools.docs import claims

MOST_COMMANDS = 10
PAGES = pages()


def done(page: Path) -> bool:
    """Whether there is something to do on a page."""
    return any(block.language != "text" and "not run" not in block.marks for block in blocks(page))


@pytest.mark.parametrize("page", [page for page in PAGES if done(page)], ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    hands = Hands(tmp_path)
    for block in blocks(page):
        hands.do(block)


@pytest.mark.parametrize("name", ["spin", "compare", "hello", "ptwrites", "guest", "guest64"])
def test_what_is_said_of_cycles_and_instructions_is_measured(name: str) -> None:
    page = (DOCS / "explanation" / "time.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    instructions, code, each, ports, idle = (float(cell.replace(",", "")) for cell in row.split("|")[2:7])
    machine = Machine(16 << 20)
    machine.processor.count_instructions()
    machine.load(load_image(kernel_path(name)))
    machine.run()
    assert (instructions, code + ports + idle) == (machine.processor.instructions, machine.processor.now)
    assert each == round(code / instructions, 1)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_says_why(page: Path) -> None:
    reasons = [block.marks["not run"] for block in blocks(page) if "not run" in block.marks]
    assert len(reasons) <= 1 and all(len(reason.split()) >= 4 for reason in reasons)


def test_a_block_that_does_something_else_is_noticed(tmp_path: Path) -> None:
    page = DOCS / "page.md"
    for text, marks, reason in [
        ("exit 3\n", {}, "exit status 3 instead of 0"),
        ("true\n", {"ends with": "1"}, "exit status 0 instead of 1"),
    ]:
        with pytest.raises(DocumentError, match=reason):
            Hands(tmp_path).do(Block(page, 1, "bash", "", text, marks))
    hands = Hands(tmp_path)
    hands.do(Block(page, 1, "bash", "", "mkdir -p there && cd there && echo one two three\n", {}))
    assert hands.here == tmp_path / "there"
    hands.do(Block(page, 2, "text", "", "one ... three\n", {}))
    with pytest.raises(DocumentError, match="that isn't the output"):
        hands.do(Block(page, 3, "text", "", "one ... four\n", {}))
    with pytest.raises(DocumentError, match="nobody can run this"):
        hands.do(Block(page, 4, "toml", "", "a = 1\n", {}))


def test_a_newcomer_types_ten_commands_or_fewer(tmp_path: Path) -> None:
    """README and tutorial, up to the first test of an own guest. The test of the page runs them, but for those that make
    an environment; CI runs `script`, where nothing is left out."""
    readme = re.search(r"<!-- run: main -->\n```bash\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert readme is not None
    typed = commands(readme[1])
    for block in newcomer():
        typed += commands(block.text) if block.language == "bash" else []
    assert len(typed) <= MOST_COMMANDS and typed[-1] == "pytest"
    files = [block.title for block in newcomer() if block.title]
    assert files == ["guest.asm", "test_guest.py"] and all(f"cat > {name} " in script() for name in files)
    assert "hv.on(" in newcomer()[-2].text, "the test is one by hooks"
    hands = Hands(tmp_path)
    hands.do(newcomer()[0])
    assert len(hands.left_out) == 3 and hands.here == tmp_path / "idea"
    assert subprocess.run(["bash", "-n"], input=script(), text=True, check=False).returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_tests_that_are_named_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert "://" in target or (page.parent / target).exists(), target
    for sentence, file in re.findall(r"\[([a-z0-9]+(?: [a-z0-9]+){2,})\]\([./]+/(tests/[\w/]+\.py)\)", text):
        name = f"test_{sentence.replace(' ', '_')}"
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), name
    for file in re.findall(r"`((?:hvproto|guests|tests|tools)/[\w/.]+\.\w+)`", text):
        assert (ROOT / file).is_file() or (ROOT / "hvproto/images/include" / file).is_file(), file


def test_every_page_has_a_place_in_the_site() -> None:
    listed = set(re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE))
    assert listed == {page.relative_to(DOCS).as_posix() for page in PAGES}


def test_the_claims_are_as_they_stand() -> None:
    text = claims.PAGE.read_text("utf-8")
    assert claims.document(text) == text, "bring it up to date: python -m tools.docs.claims --write"
    assert all(len({file.endswith("_64.py") for file, _ in tests}) == 2 for tests in claims.marked().values())


def test_the_examples_are_all_shown() -> None:
    """Each of them is run by tests/examples."""
    shown = re.findall(r"<!-- show: (\S+) -->", (DOCS / "examples.md").read_text("utf-8"))
    assert sorted(shown) == sorted(path.relative_to(DOCS).as_posix() for path in (DOCS / "examples").glob("*.py"))


def test_the_reference_has_what_is_offered() -> None:
    """Each name of the kit, each event, each error and each command is on a page."""
    reference = "".join(page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md"))
    whole = set(re.findall(r"^::: ([\w.]+)$", reference, re.MULTILINE))
    for name in testing.__all__:
        value = getattr(testing, name)
        home = testing._HOME[name]
        assert home in whole or f"{home}.{name}" in whole, value
    assert {"hvproto.events", "hvproto.errors", "hvproto.hypervisor.relocation"} <= whole
    for name in whole:
        assert importable(name), name
    sheet = (DOCS / "cheat-sheet.md").read_text("utf-8")
    assert [kind for kind in EVENT_KINDS if f"`{kind}(" not in sheet] == []


def importable(name: str) -> bool:
    try:
        import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return hasattr(import_module(module), attribute)
    return True
