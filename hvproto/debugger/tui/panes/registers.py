"""The registers pane: those of one world, with what has changed since the stop before."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from hvproto.debugger.inspect.registers import RegisterFile
from hvproto.debugger.tui import marks
from hvproto.debugger.tui.frame import Frame
from hvproto.debugger.tui.panes.lines import LinesPane
from hvproto.errors import World


class RegistersPane(LinesPane):
    """Shows the world that has the processor, unless another one is chosen."""

    def __init__(self, key: str, name: str) -> None:
        super().__init__(key, name)
        self._chosen: World | None = None
        self._before: dict[World, RegisterFile] = {}

    def show(self, frame: Frame) -> None:
        if self._frame is not None:
            self._before = self._frame.registers
        super().show(frame)

    def choose_next_world(self) -> None:
        """Whoever has the processor, host, hypervisor, guest, and from the beginning."""
        order = [None, *World]
        self._chosen = order[(order.index(self._chosen) + 1) % len(order)]
        self.lay_out()

    def lines(self, frame: Frame, width: int) -> list[Text]:
        world = self._chosen or frame.stop.world
        found = frame.registers.get(world)
        if found is None:
            self.border_subtitle = str(world)
            return [Text(f"The {world} has not run yet.")]
        self.border_subtitle = f"{world}, {'saved' if found.is_saved else 'on the processor'}"
        before = self._before.get(world, found)
        flags = {name: value for name, value in found.wide.items() if name.endswith("flags")}
        lines = list(
            _in_columns({name: found.wide[name] for name in found.wide if name not in flags}, before.wide, width)
        )
        lines += (line.append(f"  {found.flags}") for line in _in_columns(flags, before.wide, width))
        lines += _in_columns(found.selectors, before.selectors, width)
        if not found.is_saved:
            own = {"CPL": found.privilege, "CR2": found.cr2}
            lines += _in_columns(own, {"CPL": before.privilege, "CR2": before.cr2} if before.privilege else own, width)
        if found.symbol:
            lines.append(Text(f"at {found.symbol}"))
        return lines


def _in_columns(values: dict[str, str], before: dict[str, str], width: int) -> Iterator[Text]:
    names = max(map(len, values))
    cell = names + max(map(len, values.values())) + 3  # a blank, the mark, a blank
    count = max(1, (width + 1) // cell)
    items = list(values.items())
    for first in range(0, len(items), count):
        line = Text()
        for name, value in items[first : first + count]:
            has_changed = before.get(name, value) != value
            shown = f"{name:{names}} {value}{marks.CHANGED if has_changed else ' '}"
            line.append(f"{shown:{cell}}", style=marks.STRONG if has_changed else "")
        line.rstrip()
        yield line
