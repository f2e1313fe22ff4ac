"""The state of a whole board of devices as plain data, and back.

Devices keep their registers as numbers, bytes and containers of these, and are wired to each other by references and
callables. The wires are the same in every board that is built alike: only what is between them is state. So this walks
a board from its roots, along attributes, in an order that its construction fixes: an object is known by the way on
which it is first come to. Planned events are known by the method that they call.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

from hvproto.errors import HvprotoError
from hvproto.machine.clock import Clock, Event

Path = str
_SCALARS = (int, float, str, bytes, type(None), Enum)
_CONTAINERS = (list, tuple, dict, deque, set)
_NOBODY: Mapping[str, object] = {}


class StateError(HvprotoError):
    """A device holds something that can't be saved, or a state doesn't fit the devices that it is for."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Wire:
    """A connection, which the other board has of its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Object:
    """A device or a part of one."""

    path: Path


@dataclasses.dataclass(frozen=True, slots=True)
class _Planned:
    """An event of the agenda, by its sequence number; -1 for one that is over."""

    sequence: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Many:
    """A container: its kind, and its items (for a dict, keys and values)."""

    kind: str
    items: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Devices:
    """What `save` returns: plain data."""

    attributes: dict[Path, dict[str, Any]]
    agenda: tuple[tuple[int, int, Path, str], ...]
    """When (virtual time), sequence number, and the object and its method."""
    sequence: int


def _is_part(value: object) -> bool:
    """Whether a value is an object with state of its own, rather than a value or a wire."""
    kind = type(value)
    return (
        kind.__module__.startswith("hvproto.")
        and not isinstance(value, (Enum, Event, Clock, weakref.ProxyType))
        and not _is_value(value)
        and hasattr(value, "__dict__")
        and not callable(value)
    )


def _is_value(value: object) -> bool:
    """Whether it is an immutable record."""
    parameters = getattr(type(value), "__dataclass_params__", None)
    return (parameters is not None and parameters.frozen) or hasattr(type(value), "_fields")


class _Walk:
    """All parts that can be reached from the roots, by their paths."""

    def __init__(self, roots: Mapping[str, object], limits: tuple[type, ...], owners: Mapping[str, object]) -> None:
        self._limits = limits
        self.parts: dict[Path, Any] = {}
        self.paths: dict[int, Path] = {}
        self.owners = owners
        for name, root in roots.items():
            self._visit(name, root)

    def _visit(self, path: Path, value: object) -> None:
        if isinstance(value, self._limits):
            return
        if isinstance(value, _CONTAINERS):
            for name, item in _items(value):
                self._visit(f"{path}[{name}]", item)
        elif _is_part(value) and id(value) not in self.paths:
            self.parts[path] = value
            self.paths[id(value)] = path
            for name, item in vars(value).items():
                self._visit(f"{path}.{name}", item)

    def path_of(self, value: object) -> Path | None:
        return self.paths.get(id(value))


def _items(value: Any) -> Iterator[tuple[object, object]]:
    yield from value.items() if isinstance(value, dict) else enumerate(value)


def save(
    roots: Mapping[str, object], clock: Clock, limits: tuple[type, ...] = (), owners: Mapping[str, object] = _NOBODY
) -> Devices:
    """The state of all that can be reached from ``roots``, except through objects of ``limits``.

    ``owners`` are no devices, but may have planned events.
    Raises StateError for a planned event that isn't a method of one of them.
    """
    walk = _Walk(roots, limits, owners)
    agenda = []
    sequences: dict[int, int] = {}
    for when, sequence, event in sorted(clock.agenda, key=lambda entry: entry[:2]):
        if event.cancelled:
            continue
        owner = getattr(event.action, "__self__", None)
        path = walk.path_of(owner) or next((name for name, one in walk.owners.items() if one is owner), None)
        if path is None:
            raise StateError(f"the event planned for cycle {when} calls {event.action!r}, which is no part's method")
        agenda.append((when, sequence, path, event.action.__name__))
        sequences[id(event)] = sequence

    def encode(value: Any) -> Any:
        if isinstance(value, _SCALARS):
            return value
        if isinstance(value, bytearray):
            return _Many("bytearray", (bytes(value),))
        if isinstance(value, Event):
            return _Planned(sequences.get(id(value), -1))
        path = walk.path_of(value)
        if path is not None:
            return _Object(path)
        if isinstance(value, dict):
            return _Many("dict", tuple((encode(key), encode(item)) for key, item in value.items()))
        if isinstance(value, _CONTAINERS) and not _is_value(value):
            items = sorted(value) if isinstance(value, set) else value
            return _Many(type(value).__name__, tuple(encode(item) for item in items))
        return value if _is_value(value) and not _holds_wires(value) else _Wire()

    attributes = {
        path: {name: encode(value) for name, value in vars(part).items()} for path, part in walk.parts.items()
    }
    return Devices(attributes, tuple(agenda), clock.sequence)


def _holds_wires(value: Any) -> bool:
    items = value if isinstance(value, tuple) else (getattr(value, f.name) for f in dataclasses.fields(value))
    return any(callable(item) for item in items)


def restore(
    devices: Devices,
    roots: Mapping[str, object],
    clock: Clock,
    limits: tuple[type, ...] = (),
    owners: Mapping[str, object] = _NOBODY,
) -> None:
    """Bring devices that were built like the saved ones to their state. Raises StateError if they weren't."""
    walk = _Walk(roots, limits, owners)
    planned: dict[int, Event] = {}
    clock.agenda.clear()
    clock.sequence = devices.sequence
    for when, sequence, path, method in devices.agenda:
        action: Callable[[], None] = getattr(_part(walk, path), method)
        planned[sequence] = clock.plan(when, sequence, action)

    def decode(value: Any, present: Any) -> Any:
        match value:
            case _Wire():
                return present
            case _Object(path):
                return _part(walk, path)
            case _Planned(sequence):
                return planned.get(sequence) or _over()
            case _Many("bytearray", (data,)):
                return _refill(present, bytearray(data))
            case _Many("dict", pairs):
                old = present if isinstance(present, dict) else {}
                return _refill(present, {decode(k, k): decode(v, old.get(k)) for k, v in pairs})
            case _Many(kind, items):
                before = list(present) if isinstance(present, list | tuple | deque) else []
                new = [decode(v, before[n] if n < len(before) else None) for n, v in enumerate(items)]
                return _refill(present, _KINDS[kind](new))
            case _:
                return value

    for path, saved in devices.attributes.items():
        part = _part(walk, path)
        for name, value in saved.items():
            present = vars(part).get(name)
            vars(part)[name] = decode(value, present)


_KINDS: dict[str, Callable[[list[Any]], Any]] = {"list": list, "tuple": tuple, "deque": deque, "set": set}


def _part(walk: _Walk, path: Path) -> Any:
    part = walk.parts[path] if path in walk.parts else walk.owners.get(path)
    if part is None:
        raise StateError(f"these devices have no {path}: they were built otherwise than the saved ones")
    return part


def _over() -> Event:
    event = Event(0, lambda: None)
    event.cancel()
    return event


def _refill(present: Any, new: Any) -> Any:
    """The same contents in the container that there is, since others may hold it too."""
    if type(present) is not type(new) or isinstance(new, tuple):
        return new
    if isinstance(new, bytearray | list):
        present[:] = new
    else:
        present.clear()
        if isinstance(new, deque):
            present.extend(new)
        else:
            present.update(new)
    return present
