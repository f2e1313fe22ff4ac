"""What MkDocs asks while it builds the site (``hooks`` in mkdocs.yml).

Pages link to files of the source tree as they do on any other viewer, ``[paging.py](../hvproto/processor/paging.py)``.
The site has a page for each file that is linked to, and the links lead there. ``<!-- command line -->`` is replaced by
what each command's ``--help`` says, ``<!-- show: FILE -->`` by the file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files, InclusionLevel

from hvproto.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs"
SOURCES = "source/"
"""Where the site has the pages of source files."""
COMMAND_LINE = "<!-- command line -->"
WIDTH = 96
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
_SHOW = re.compile(r"<!-- show: (\S+) -->")
_LEXERS = {".py": "python", ".asm": "nasm", ".toml": "toml", ".yml": "yaml"}


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each source file or folder that a page links to, and for those that these link to."""
    waiting = [path for file in files.documentation_pages() for path in _sources(f"{DOCS}/{file.src_uri}")]
    added: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in added:
            continue
        added.add(path)
        text = _page_of(path)
        files.append(File.generated(config, f"{SOURCES}{path}.md", content=text, inclusion=InclusionLevel.NOT_IN_NAV))
        if path.endswith(".md"):
            waiting += _sources(path)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to source files to their pages, and put files and the commands' help in."""
    here = page.file.src_uri
    origin = here.removeprefix(SOURCES).removesuffix(".md") if here.startswith(SOURCES) else f"{DOCS}/{here}"

    def lead(link: re.Match[str]) -> str:
        path = _source(origin, link[2])
        if path is None:
            return link[0]
        to = path.removeprefix(f"{DOCS}/") if path.startswith(f"{DOCS}/") else f"{SOURCES}{path}.md"
        return link[1] + posixpath.relpath(to, posixpath.dirname(here)) + link[3]

    def show(wanted: re.Match[str]) -> str:
        return _code(posixpath.join(posixpath.dirname(origin), wanted[1]))

    markdown = _SHOW.sub(show, _LINK.sub(lead, markdown))
    return markdown.replace(COMMAND_LINE, command_line()) if COMMAND_LINE in markdown else markdown


def _sources(origin: str) -> Iterator[str]:
    for link in _LINK.finditer((ROOT / origin).read_text(encoding="utf-8")):
        path = _source(origin, link[2])
        if path is not None and not path.startswith(f"{DOCS}/"):
            yield path


def _source(origin: str, target: str) -> str | None:
    """The file or folder of the source tree that a link in ``origin`` means, unless both are in docs."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
    inside = origin.startswith(f"{DOCS}/") and path.startswith(f"{DOCS}/")
    if inside or path.startswith("..") or ":" in target:
        return None
    if (ROOT / path / "README.md").is_file():
        path += "/README.md"
    return path if (ROOT / path).exists() else None


def _page_of(path: str) -> str:
    front = "---\nsearch:\n  exclude: true\n---\n"
    if (ROOT / path).is_dir():
        names = sorted(entry.name for entry in (ROOT / path).iterdir() if not entry.name.startswith("__"))
        return f"{front}# {path}\n\n" + "".join(f"- `{name}`\n" for name in names)
    if path.endswith(".md"):
        return front + (ROOT / path).read_text(encoding="utf-8")
    return f"{front}# {path}\n\n{_code(path)}"


def _code(path: str) -> str:
    fence = "````"
    lexer = _LEXERS.get(Path(path).suffix, "text")
    return f"{fence}{lexer}\n{(ROOT / path).read_text(encoding='utf-8')}{fence}\n"


def command_line() -> str:
    """The help of `hvproto` and each of its commands."""
    group: Any = typer.main.get_command(app)
    parts = [_help(group, "hvproto")]
    for name in group.commands:
        parts.append(f"## hvproto {name}\n\n{_help(group.commands[name], f'hvproto {name}')}")
    return "\n\n".join(parts)


def _help(command: Any, name: str) -> str:
    context = command.make_context(name, [], resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH)
    return f"```text\n{command.get_help(context).rstrip()}\n```"
