"""One case in words: its code, the state it starts in, and the lines of all machines field by field."""

from __future__ import annotations

from collections.abc import Mapping

from tools.oracle import deviations, layout
from tools.oracle.compare import Judged, differing
from tools.oracle.report import Report, parse
from tools.oracle.tables import Mode

_PLACES = sorted(
    (value, name)
    for name, value in vars(layout).items()
    if name.isupper() and isinstance(value, int) and value >= 0x7000
)


def place(address: int) -> str:
    """An address as a name of the layout and an offset."""
    known = [(value, name) for value, name in _PLACES if value <= address < value + 0x1000]
    stack = [(value, name) for value, name in _PLACES if "STACK" in name and value - 0x100 <= address < value]
    if stack:
        value, name = min(stack)
        return f"{name}-{value - address:#x}"
    if not known:
        return f"{address:#x}"
    value, name = max(known)
    return f"{name}+{address - value:#x}" if address != value else name


def case_text(judged: Judged, lines: Mapping[str, str], mode: Mode) -> str:
    """Several lines; fields in which a machine differs from what is right are marked with a star."""
    case = judged.case
    text = [f"== {case.name}  (mode {mode.value}, ring {case.ring}, eflags {case.eflags:#x})"]
    text += [f"    {line}" for line in case.code.splitlines()]
    if case.settings:
        text.append("  settings: " + ", ".join(f"{name}={value:#x}" for name, value in case.settings.items()))
    if case.patches:
        text.append("  patches:  " + ", ".join(f"{place(address)}={value:#010x}" for address, value in case.patches))
    reports = {name: parse(line) for name, line in lines.items()}
    text += [f"  {name}: {lines[name]}" for name, report in reports.items() if report is None]
    text += _table(judged, {name: report for name, report in reports.items() if report is not None})
    text += [f"  verdict {verdict.key} ({verdict.says.name.lower()}): {verdict.reason}" for verdict in judged.used]
    for found in judged.open:
        text.append(f"  open: {found.field}")
    for name in lines:
        if name in deviations.BOTH:
            excused = {deviations.excuse(found, name) for found in differing(judged, lines[name])} - {None}
            text += [f"  {name}, known deviation: {key}" for key in sorted(filter(None, excused))]
    return "\n".join(text) + "\n"


def _table(judged: Judged, reports: Mapping[str, Report]) -> list[str]:
    names: dict[str, None] = {}
    for report in reports.values():
        names |= dict.fromkeys(report)
    long = any("r8" in report for report in reports.values())
    width = 17 if long else 9
    rows = ["  " + f"{'':28}" + "".join(f"{name:>{width}} " for name in reports)]
    for field in names:
        label = field
        if field[0] == "w" and field[1:].isdigit():
            label = f"{field} {place(judged.case.watches[int(field[1:])])}"
        cells = ""
        for report in reports.values():
            value = report.get(field)
            right = judged.right is None or value == judged.right.get(field) or field in judged.unchecked
            cells += f"{'-' if value is None else f'{value:0{width - 1}x}':>{width}}{' ' if right else '*'}"
        note = "  not compared" if field in judged.unchecked else ""
        rows.append(f"  {label:28}{cells}{note}")
    return rows
