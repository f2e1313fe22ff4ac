"""Commands that go somewhere in the run, forwards and backwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvproto.debugger.inspect import memory
from hvproto.debugger.position import START, Position, parse_position
from hvproto.debugger.repl.command import COMMANDS, words
from hvproto.debugger.repl.present import told
from hvproto.errors import BadInput

if TYPE_CHECKING:
    from hvproto.debugger.repl.console import Console

_FORWARDS, _BACKWARDS = "Forwards", "Backwards"
END = Position(1 << 62, 1 << 62, 0)


def _count(text: str, usage: str) -> int:
    if not text:
        return 1
    if not text.replace(",", "").replace("_", "").isdecimal():
        raise BadInput(f"usage: {usage}")
    return max(1, int(text.replace(",", "").replace("_", "")))


@COMMANDS.add("run", "From the beginning, to a breakpoint or the end.", _FORWARDS, aliases=("r",), examples=("run",))
def run(console: Console, argument: str) -> str:
    words(argument, 0, 0, "run")
    with console.debug.timeline.journey():
        console.debug.goto(START)
        return told(console.debug, console.debug.cont())


@COMMANDS.add(
    "step [instruction|moment|setting|switch|exit|event] [COUNT]", "The next instruction, or something larger.",
    _FORWARDS,
    aliases=("s", "si", "stepi"),
    details="instruction: one of the world that has the processor, whatever world that is afterwards.\n"
            "moment: the next instruction or event, whichever comes first: what back undoes.\n"
            "setting: the next setting that a switch saves (26), replaces (28) or restores (30): in the middle of it.\n"
            "switch: the end of the next decoupling or recoupling.\n"
            "exit: the next exception that takes the processor from the guest.\n"
            "event: the next event of any kind.",
    examples=("step", "step 100", "step setting", "step switch 2"),
)  # fmt: skip
def step(console: Console, argument: str) -> str:
    usage = "step [instruction|moment|setting|switch|exit|event] [COUNT]"
    parts = words(argument, 0, 2, usage)
    what = parts.pop(0) if parts and not parts[0][0].isdecimal() else "instruction"
    count = _count(parts[0] if parts else "", usage)
    debug = console.debug
    if what == "instruction":
        return told(debug, debug.step(count))
    ways = {
        "moment": debug.step_moment, "setting": debug.step_setting, "switch": debug.step_switch,
        "exit": debug.step_exit, "event": debug.step_event,
    }  # fmt: skip
    way = next((function for name, function in ways.items() if name.startswith(what)), None)
    if way is None:
        raise BadInput(f"usage: {usage}")
    for _ in range(count):
        stop = way()
        if stop.kind not in ("event", "step"):
            break
    return told(debug, stop)


@COMMANDS.add(
    "next [COUNT]", "The next instruction, over calls, software interrupts and repetitions.", _FORWARDS,
    aliases=("n", "ni", "nexti"), examples=("next",),
)  # fmt: skip
def next_(console: Console, argument: str) -> str:
    for _ in range(_count(argument, "next [COUNT]")):
        stop = console.debug.next()
        if stop.kind != "step":
            break
    return told(console.debug, stop)


@COMMANDS.add("finish", "To behind the return from this function.", _FORWARDS, aliases=("fin",), examples=("finish",))
def finish(console: Console, argument: str) -> str:
    words(argument, 0, 0, "finish")
    return told(console.debug, console.debug.finish())


@COMMANDS.add("continue", "To a breakpoint or the end.", _FORWARDS, aliases=("c", "cont"), examples=("continue",))
def continue_(console: Console, argument: str) -> str:
    words(argument, 0, 0, "continue")
    return told(console.debug, console.debug.cont())


@COMMANDS.add(
    "until ADDRESS", "To the instruction at an address, once.", _FORWARDS, aliases=("u",),
    examples=("until load_task", "until eip + 5"),
)  # fmt: skip
def until(console: Console, argument: str) -> str:
    if not argument:
        raise BadInput("usage: until ADDRESS")
    return told(console.debug, console.debug.until(console.debug.call(memory.address_of, argument)))


@COMMANDS.add(
    "back [COUNT]", "The instruction or event before.", _BACKWARDS, aliases=("bs", "reverse-stepi", "rsi"),
    examples=("back", "back 3"),
)  # fmt: skip
def back(console: Console, argument: str) -> str:
    return told(console.debug, console.debug.back(_count(argument, "back [COUNT]")))


@COMMANDS.add(
    "back-continue", "Back to where a breakpoint would have stopped last.", _BACKWARDS,
    aliases=("bc", "reverse-continue", "rc"), examples=("back-continue",),
)  # fmt: skip
def back_continue(console: Console, argument: str) -> str:
    words(argument, 0, 0, "back-continue")
    return told(console.debug, console.debug.back_continue())


@COMMANDS.add(
    "goto POSITION|CYCLE|NAME|start|end", "To any moment, before or after this one.", _BACKWARDS, aliases=("g",),
    details="A position is what a stop shows in brackets; a cycle, the virtual time of the first instruction at or\n"
            "after it; a name, that of a snapshot.",
    examples=("goto 15:286443:-2", "goto 1,000,000", "goto start"),
)  # fmt: skip
def goto(console: Console, argument: str) -> str:
    (place,) = words(argument, 1, 1, "goto POSITION|CYCLE|NAME|start|end")
    number = place.replace(",", "").replace("_", "")
    if place == "start":
        stop = console.debug.goto(START)
    elif place == "end":
        stop = console.debug.goto(END)
    elif place in console.snapshots:
        stop = console.debug.goto(console.snapshots[place].position)
    elif number.isdecimal():
        stop = console.debug.goto(int(number))
    else:
        stop = console.debug.goto(parse_position(place))
    return told(console.debug, stop)
