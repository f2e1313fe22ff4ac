"""A case's line as fields with names."""

from __future__ import annotations

NAMES = (
    "vector", "esp", "stack0", "stack1", "stack2", "stack3", "stack4", "stack5",
    "eax", "ecx", "edx", "ebx", "ebp", "esi", "edi", "dses", "fsgs", "cr2", "dr6",
)  # fmt: skip
WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17})

Report = dict[str, int]


def parse(line: str) -> Report | None:
    """The fields of a line; watched doublewords are w0, w1 ... None if the machine died or got lost."""
    words = line.split()
    if len(words) < len(NAMES) or any(set(word) - set("0123456789abcdef") for word in words):
        return None
    values = [int(word, 16) for word in words]
    names = (*NAMES, *(f"w{index}" for index in range(len(values) - len(NAMES))))
    return _framed(dict(zip(names, values, strict=True)))


def _framed(report: Report) -> Report:
    """The frame's fields by their names, for what the vector lets expect."""
    names = ("eip", "cs", "eflags", "stack_esp", "stack_ss")
    coded = report["vector"] in WITH_ERROR_CODE
    names = ("error", *names) if coded else (*names, "beyond")
    return {
        (names[int(name[5:])] if name.startswith("stack") and name[5:].isdigit() else name): value
        for name, value in report.items()
    }


def differences(first: Report | None, second: Report | None) -> list[str]:
    """The names of the fields that differ; ["end"] if only one of the machines got to report."""
    if first is None or second is None:
        return [] if first is second else ["end"]
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
