"""``python -m tools.oracle.document``: the table of known deviations in docs/processor.md, as it must be.

With ``--write`` it is put there. A test holds the document against it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.oracle.deviations import OWN, SHARED
from tools.oracle.verdicts import VERDICTS

DOCUMENT = Path(__file__).parents[2] / "docs" / "processor.md"
BEGIN, END = "<!-- deviations: begin -->", "<!-- deviations: end -->"


def table() -> str:
    """One row a deviation: what is wrong, where, and why it stays."""
    rows = [(entry.key, entry.what, " and ".join(entry.engines), entry.why) for entry in OWN]
    shared = {verdict.key: verdict for verdict in VERDICTS}
    rows += [
        (key, shared[key].reason, "native and portable", "The engine's own, and QEMU's.") for key in sorted(SHARED)
    ]
    lines = ["| key | what is wrong | engines | why |", "|---|---|---|---|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def document(text: str) -> str:
    """The document with the table brought up to date."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    if "--write" in sys.argv:
        DOCUMENT.write_text(document(DOCUMENT.read_text("utf-8")), "utf-8")
    else:
        print(table())


if __name__ == "__main__":
    main()
