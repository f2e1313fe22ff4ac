"""A debugging session: one run with its timeline, breakpoints and places to go to. What REPL, GDB and scripts drive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any

from hvproto import events
from hvproto.debugger.debuggee import View
from hvproto.debugger.goal import Breakpoint, Goal, Stop, Watched
from hvproto.debugger.inspect import memory
from hvproto.debugger.places import places_of
from hvproto.debugger.position import Position
from hvproto.debugger.subject import Build
from hvproto.debugger.timeline import Timeline
from hvproto.debugger.watchman import SWITCH_EVENTS
from hvproto.errors import BadInput, World
from hvproto.events import Event
from hvproto.processor.settings import Setting

EVENT_KINDS = tuple(sorted(one.__name__ for one in vars(events).values()
                           if isinstance(one, type) and issubclass(one, Event) and one is not Event))  # fmt: skip
SETTING_EVENTS = ("SettingSaved", "SettingReplaced", "SettingRestored")
SWITCHES = ("Decoupled", "Recoupled")
_SKIPPED_OVER = ("call", "lcall", "int", "int3", "into", "rep", "repe", "repne", "loop")
assert set(SETTING_EVENTS + SWITCHES) == set(SWITCH_EVENTS)


class DebugSession:
    """The run stands before its first instruction. To be used in a `with`, or closed.

    >>> from hvproto.debugger.subjects import machine_subject
    >>> from hvproto.images.assembly import assemble_text
    >>> with DebugSession(machine_subject(assemble_text("mov eax, 5\\nadd eax, eax\\nhlt"))) as debug:
    ...     debug.step(2).position, debug.evaluate("eax"), debug.back().position, debug.evaluate("eax")
    (0:0:2, 10, 0:0:1, 5)
    """

    def __init__(self, build: Build, on_output: Callable[[str, bytes], None] = lambda _whose, _data: None) -> None:
        self.timeline = Timeline(build, on_output)
        self.breakpoints: dict[int, Breakpoint] = {}
        self._next_number = 1

    def __enter__(self) -> DebugSession:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.timeline.close()

    # -- where it stands ---------------------------------------------------------------------

    @property
    def stop(self) -> Stop:
        return self.timeline.stop

    @property
    def position(self) -> Position:
        return self.stop.position

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a module's function with a `View` of the run as it stands; what it returns must be picklable."""
        return self.timeline.call(function, *arguments)

    def evaluate(self, text: str) -> Any:
        """A register, setting, symbol or expression. Raises BadInput."""
        return self.call(memory.evaluate, text)

    # -- forwards ----------------------------------------------------------------------------

    def goal(self, **what: Any) -> Goal:
        """A goal with all breakpoints."""
        return Goal(breakpoints=tuple(self.breakpoints.values()), **what)

    def resume(self, **what: Any) -> Stop:
        return self.timeline.resume(self.goal(**what))

    def cont(self) -> Stop:
        """Go on to a breakpoint or to the end."""
        return self.resume()

    def step(self, count: int = 1, *, skips_interrupts: bool = False) -> Stop:
        """So many instructions on; less if a breakpoint is met.

        ``skips_interrupts``: the handlers of external interrupts that come in between aren't stepped into.
        """
        return self.resume(steps=count, skips_interrupts=skips_interrupts)

    def step_moment(self) -> Stop:
        """To the next instruction or event: what `back` undoes."""
        return self.resume(steps=1, any_event=True)

    def step_setting(self) -> Stop:
        """To the next setting that a switch saves, replaces or restores."""
        return self.resume(events=SETTING_EVENTS)

    def step_switch(self) -> Stop:
        """To the end of the next decoupling or recoupling."""
        return self.resume(events=SWITCHES)

    def step_exit(self) -> Stop:
        """To the next exception that takes the processor from the guest, or that the guest takes."""
        return self.resume(events=("ExceptionTaken",))

    def step_event(self) -> Stop:
        return self.resume(any_event=True)

    def next(self) -> Stop:
        """As `step`, but over a call, a software interrupt or a repetition."""
        following = self.call(_following)
        if following is None:
            return self.step()
        address, stack = following
        return self.resume(returns_to=address, above=stack)

    def finish(self) -> Stop:
        """To behind the return from the present function: the stack pointer is above where it is now."""
        return self.resume(above=self.call(_stack_pointer))

    def until(self, address: int) -> Stop:
        """To the instruction at a linear address."""
        return self.resume(returns_to=address)

    # -- anywhere ----------------------------------------------------------------------------

    def goto(self, place: Position | int) -> Stop:
        """To a position, or to the first instruction at or after a virtual time in cycles."""
        return self.timeline.goto(place) if isinstance(place, Position) else self.timeline.goto_time(place)

    def back(self, count: int = 1) -> Stop:
        """So many instructions or events back; less if it is interrupted."""
        with self.timeline.journey():
            for _ in range(count):
                if self.timeline.back().kind == "interrupted":
                    break
            return self.stop

    def back_instruction(self) -> Stop:
        """To the instruction before, past all events."""
        with self.timeline.journey():
            while self.back().position.in_event and self.stop.kind != "interrupted":
                pass
            return self.stop

    def edit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """As `call`, for a function that changes something: to go back to before then undoes it."""
        return self.timeline.edit(function, *arguments)

    def back_continue(self) -> Stop:
        """Back to where a breakpoint would have stopped last; to the start, if there is none."""
        return self.timeline.back_to(self.goal())

    # -- breakpoints -------------------------------------------------------------------------

    def _add(self, breakpoint_: Breakpoint) -> Breakpoint:
        added = replace(breakpoint_, number=self._next_number)
        if added.condition:
            _check_condition(added.condition)
        self.breakpoints[self._next_number] = added
        self._next_number += 1
        return added

    def break_at(self, where: str | int, world: World | None = None, condition: str = "") -> Breakpoint:
        """At an address (linear; a number, a symbol or an expression). Raises BadInput."""
        text = where if isinstance(where, str) else f"{where:#x}"
        address = self.call(memory.address_of, text, str(world or ""))
        return self._add(Breakpoint(0, Watched.ADDRESS, text, address, world=world, condition=condition))

    def break_on(self, event: str, world: World | None = None, condition: str = "") -> Breakpoint:
        """At events of a kind, or of a step of the figures by its number. Raises BadInput."""
        if event not in EVENT_KINDS and event not in _STEPS:
            raise BadInput(f"{event!r} is no event: there are {', '.join(EVENT_KINDS)}")
        return self._add(Breakpoint(0, Watched.EVENT, event, world=world, condition=condition))

    def watch(self, setting: str, world: World | None = None, condition: str = "") -> Breakpoint:
        """At each change of a setting, by whomever. Raises BadInput."""
        if setting.upper() not in Setting.__members__:
            raise BadInput(f"{setting!r} is no setting: there are {', '.join(Setting.__members__)}")
        return self._add(Breakpoint(0, Watched.SETTING, setting.upper(), world=world, condition=condition))

    def watch_memory(
        self, where: str | int, size: int = 4, condition: str = "", *, access: str = "write", world: World | None = None
    ) -> Breakpoint:
        """At each change of so many bytes of linear memory; or behind each read or access of it. Raises BadInput.

        The memory is what the address means now, to ``world`` or to whom the processor is.
        """
        text = where if isinstance(where, str) else f"{where:#x}"
        address = self.call(memory.address_of, text)
        places = tuple(self.call(places_of, world, address, size))
        if sum(count for _, count in places) != size:
            raise BadInput(f"there is no memory for {size} bytes at {address:#x}")
        found = Breakpoint(
            0, Watched.MEMORY, text, address, size, condition=condition, places=places, access=access, world=None
        )
        return self._add(found)

    def delete(self, number: int) -> None:
        """Raises BadInput."""
        if self.breakpoints.pop(number, None) is None:
            raise BadInput(f"there is no breakpoint {number}")


_STEPS = ("26", "28", "30", "40", "42", "44", "46")


def _check_condition(text: str) -> None:
    import ast

    try:
        ast.parse(text.strip().replace("$", ""), mode="eval")
    except SyntaxError as error:
        raise BadInput(f"{text!r} is no condition: {error.msg}") from None


def _following(view: View) -> tuple[int, int] | None:
    """Where an instruction that may come back comes back to, and the stack pointer then; None for any other."""
    from hvproto.processor.instruction import first_instruction

    processor = view.subject.processor
    if view.stop.position.in_event:
        return None
    code = processor.peek_some(processor.code_address, 16)
    decoded = first_instruction(code, processor.decoder_mode)
    if decoded is None or decoded.mnemonic.split()[0] not in _SKIPPED_OVER:
        return None
    return processor.wrapped(processor.code_address + decoded.size), processor.esp


def _stack_pointer(view: View) -> int:
    return view.subject.processor.esp
