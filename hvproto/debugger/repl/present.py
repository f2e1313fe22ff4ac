"""A stop as a person reads it."""

from __future__ import annotations

from hvproto.debugger.goal import Stop
from hvproto.debugger.inspect import memory
from hvproto.debugger.inspect.history import event_line
from hvproto.debugger.session import DebugSession


def told(debug: DebugSession, stop: Stop) -> str:
    """Where the run stands, why, and what comes next."""
    lines = []
    if stop.reason and stop.kind not in ("step", "goal"):
        lines.append(stop.reason)
    if stop.ended:
        status = "" if stop.status is None else f", exit status {stop.status}"
        return "\n".join([*lines, f"[{stop.position!r}] the end, at cycle {stop.now:,}{status}"])
    if stop.position.in_event:
        lines.append(f"[{stop.position!r}] {stop.world}, {event_line(stop.event)}")
    else:
        lines.append(f"[{stop.position!r}] {stop.world}, cycle {stop.now:,}")
        lines.append("=> " + debug.call(memory.instruction_at, None, stop.world))
    return "\n".join(lines)
