"""``python -m tools.docs.claims``: the table of claims in docs/explanation/claims.md, as it must be.

With ``--write`` it is put there. Its words are those of `hvproto claims`, its tests those that are marked with a
claim's number, both as they stand now; where a claim is carried out, this file says. A test holds the page against it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from hvproto.cli.claim_words import CLAIM_WORDS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "claims.md"
BEGIN, END = "<!-- claims: begin -->", "<!-- claims: end -->"
UP = "../.."
_HYPERVISOR = "hvproto/hypervisor"

_COUPLING, _SAVE_AREA, _PLAN = (f"{_HYPERVISOR}/{name}.py" for name in ("coupling", "save_area", "plan"))
_MIRROR, _MONITOR, _RELOCATION = (f"{_HYPERVISOR}/{name}.py" for name in ("mirror", "monitor", "relocation"))
_SPACE, _DIRECT, _FUNCTIONS = (f"{_HYPERVISOR}/{name}.py" for name in ("address_space", "direct", "host_functions"))
_REGION, _HYPERVISORS = f"{_HYPERVISOR}/region.py", f"{_HYPERVISOR}/hypervisor.py"
_STORES = f"{_HYPERVISOR}/followed_stores.py"
_DOOR = "guests/host/syscalls.asm"
FILES: dict[int, tuple[str, ...]] = {
    1: (_SPACE, _RELOCATION), 2: (_MIRROR,), 3: (_MONITOR,), 4: (_RELOCATION, _REGION), 5: (_STORES, _SPACE),
    6: (_SPACE, _RELOCATION), 7: (_RELOCATION, _REGION), 8: (_MONITOR, _STORES),
    9: (_COUPLING, _SAVE_AREA), 10: (_DIRECT,), 11: (_COUPLING, _SAVE_AREA), 12: (_FUNCTIONS, _HYPERVISORS),
    13: (_DOOR, _HYPERVISORS), 14: (_DIRECT,), 15: (_DIRECT,), 16: (_DIRECT,), 17: (_COUPLING,),
    18: (_DIRECT, _COUPLING), 19: (_DIRECT, _COUPLING), 20: (_FUNCTIONS, _COUPLING), 21: (_SAVE_AREA,),
    22: (_SAVE_AREA, _COUPLING), 23: (_SAVE_AREA,), 24: (_DIRECT, _COUPLING), 25: (_COUPLING, _SAVE_AREA),
    26: (_COUPLING, _SAVE_AREA), 27: (_COUPLING, _SAVE_AREA, _DOOR), 28: (_PLAN, _COUPLING),
    29: (_PLAN, _COUPLING), 30: (_PLAN, _COUPLING),
}  # fmt: skip
"""Where each claim is carried out, the heart of it first."""
_CONTRASTS = ("test_with", "test_a_region_that", "test_another", "test_in_the_plan_mirrored_it_is_not")
"""How names of tests begin that show what is missed when the mechanism isn't there."""


def marked() -> dict[int, list[tuple[str, str]]]:
    """By claim: file and name of each test that is marked with it, in the order of the files."""
    found: dict[int, list[tuple[str, str]]] = {claim: [] for claim in CLAIM_WORDS}
    for path in sorted((ROOT / "tests" / "claims").glob("test_*.py")):
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(function, ast.FunctionDef):
                for claim in _claims_of(function):
                    found[claim].append((path.relative_to(ROOT).as_posix(), function.name))
    return found


def _claims_of(function: ast.FunctionDef) -> Iterator[int]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.claim":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def table() -> str:
    """One row a claim: what it says in short, where it is carried out, and a test for each width of guests."""
    lines = ["| claim | in short | done in | shown by, with a guest of 32 bits | of 64 bits |", "|---|---|---|---|---|"]
    for claim, tests in marked().items():
        files = ", ".join(f"[{Path(file).name}]({UP}/{file})" for file in FILES[claim])
        wide = [test for test in tests if test[0].endswith("_64.py")]
        shown = [_shown(group) for group in ([test for test in tests if test not in wide], wide)]
        lines.append(f"| {claim} | {CLAIM_WORDS[claim]} | {files} | {shown[0]} | {shown[1]} |")
    return "\n".join(lines)


def _shown(tests: list[tuple[str, str]]) -> str:
    """The first test that isn't a contrast, and how many more there are."""
    file, name = next((test for test in tests if not test[1].startswith(_CONTRASTS)), tests[0])
    more = f" and {len(tests) - 1} more" if len(tests) > 1 else ""
    return f"[{name.removeprefix('test_').replace('_', ' ')}]({UP}/{file}){more}"


def document(text: str) -> str:
    """The page with the table brought up to date."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    if "--write" in sys.argv:
        PAGE.write_text(document(PAGE.read_text("utf-8")), "utf-8")
    else:
        print(table())


if __name__ == "__main__":
    main()
