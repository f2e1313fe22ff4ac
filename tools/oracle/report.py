"""A case's line as fields with names."""

from __future__ import annotations

_FRAME = ("vector", "esp", "stack0", "stack1", "stack2", "stack3", "stack4", "stack5")
_GENERAL = ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi")
NAMES = (*_FRAME, *_GENERAL, "dses", "fsgs", "cr2", "dr6")
LONG_NAMES = (
    *_FRAME, *_GENERAL, "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    "segments", "ss", "cr2", "dr6", "fs_base", "gs_base", "kernel_gs_base",
)  # fmt: skip
"""Long mode's, whose numbers have 16 digits; ``segments`` are GS, FS, ES and DS."""
WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17})

NOT_REACHED = "not reached"
"""The line of a case before which a machine had to be given up."""

Report = dict[str, int]


def parse(line: str) -> Report | None:
    """The fields of a line; watched doublewords are w0, w1 ... None if the machine died or got lost."""
    words = line.split()
    known = LONG_NAMES if len(words) > 1 and len(words[1]) == 16 else NAMES
    if len(words) < len(known) or any(set(word) - set("0123456789abcdef") for word in words):
        return None
    values = [int(word, 16) for word in words]
    names = (*known, *(f"w{index}" for index in range(len(values) - len(known))))
    return _framed(dict(zip(names, values, strict=True)))


def _framed(report: Report) -> Report:
    """The frame's fields by their names, for what the vector lets expect."""
    pushed = ("eip", "cs", "eflags", "stack_esp", "stack_ss")
    names = ("error", *pushed) if report["vector"] in WITH_ERROR_CODE else (*pushed, "beyond")
    return {
        (names[int(name[5:])] if name.startswith("stack") and name[5:].isdigit() else name): value
        for name, value in report.items()
    }


def ending(line: str) -> str:
    """The first word of a line that isn't a report: died, lost, hung; nothing of one that is."""
    return "" if parse(line) else line.split()[0] if line else "nothing"
