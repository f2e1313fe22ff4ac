"""Commands about where the run is to stop."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hvproto.debugger.inspect.registers import parse_world
from hvproto.debugger.repl.command import COMMANDS, words
from hvproto.debugger.session import EVENT_KINDS
from hvproto.errors import BadInput, World
from hvproto.processor.settings import Setting

if TYPE_CHECKING:
    from hvproto.debugger.repl.console import Console

_GROUP = "Where to stop"
_TAIL = re.compile(
    r"^(?P<what>.*?)(?:\s+in\s+(?P<world>host|hypervisor|guest))?(?:\s+if\s+(?P<condition>.+))?$", re.DOTALL
)


def _parse(argument: str, usage: str) -> tuple[str, World | None, str]:
    match = _TAIL.match(argument.strip())
    if match is None or not match["what"].strip():
        raise BadInput(f"usage: {usage}")
    return match["what"].strip(), parse_world(match["world"]) if match["world"] else None, match["condition"] or ""


@COMMANDS.add(
    "break ADDRESS|SYMBOL|EVENT [in WORLD] [if EXPR]", "Stop at an instruction, or at an event.", _GROUP,
    aliases=("b",),
    details=f"Events: {', '.join(EVENT_KINDS)}.\nOr `step N` for all events of a step of figures 2 and 4.\n"
            "In a condition, an event's fields are names, too; help expressions.\n"
            "All events are in hypervisor, and in the world that has the processor when they happen.",
    examples=("break load_task in guest", "break 0x100230 if eax == 5", 'break SettingReplaced if setting == "IDTR"',
              "break Relocated", "break ExceptionTaken in guest", "break step 30"),
)  # fmt: skip
def break_(console: Console, argument: str) -> str:
    what, world, condition = _parse(argument, "break ADDRESS|SYMBOL|EVENT [in WORLD] [if EXPR]")
    debug = console.debug
    step = re.fullmatch(r"step\s+(\d+)", what)
    if step:
        return str(debug.break_on(step[1], world, condition))
    if what in EVENT_KINDS:
        return str(debug.break_on(what, world, condition))
    return str(debug.break_at(what, world, condition))


@COMMANDS.add(
    "watch SETTING|ADDRESS [SIZE] [in WORLD] [if EXPR]", "Stop when a setting or memory changes.", _GROUP,
    aliases=("w",),
    details=f"Settings: {', '.join(Setting.__members__)}. It stops at the register, whoever has written it.\n"
            "Of memory, SIZE bytes (4) from the linear ADDRESS on: the RAM that it means now.",
    examples=("watch IDTR", "watch ticks 4", "watch 0x100518 8 if eip > 0x101000"),
)  # fmt: skip
def watch(console: Console, argument: str) -> str:
    usage = "watch SETTING|ADDRESS [SIZE] [in WORLD] [if EXPR]"
    what, world, condition = _parse(argument, usage)
    if what.upper() in Setting.__members__:
        return str(console.debug.watch(what, world, condition))
    place, _, size = what.rpartition(" ")
    if not place:
        place, size = what, "4"
    if not size.isdecimal() or not 0 < int(size) <= 4096:
        raise BadInput(f"usage: {usage}")
    return str(console.debug.watch_memory(place, int(size), condition))


@COMMANDS.add(
    "delete [NUMBER ...]", "Forget breakpoints and watches; all, without a number.", _GROUP, aliases=("d", "del"),
    examples=("delete 1", "delete"),
)  # fmt: skip
def delete(console: Console, argument: str) -> str:
    numbers = argument.split()
    if not all(number.isdecimal() for number in numbers):
        raise BadInput("usage: delete [NUMBER ...]")
    chosen = [int(number) for number in numbers] or list(console.debug.breakpoints)
    for number in chosen:
        console.debug.delete(number)
    return f"{len(chosen)} deleted"


@COMMANDS.add("breakpoints", "All breakpoints and watches.", _GROUP, aliases=("bl",), examples=("breakpoints",))
def breakpoints(console: Console, argument: str) -> str:
    words(argument, 0, 0, "breakpoints")
    return "\n".join(str(each) for each in console.debug.breakpoints.values()) or "There are none."
