"""Addresses and conditions as people type them: registers, settings, symbols, memory, arithmetic.

`guest_idt + 8*14`, `eax == 5 and [esp+4] > 0x1000`, `setting == "IDTR"`. Python's syntax; `[x]` is the doubleword at a
linear address, `u8(x)`, `u16(x)`, `u32(x)` and `u64(x)` say how much. In an event, its fields are names, too.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from hvproto.debugger.subject import Subject
from hvproto.errors import BadInput, World
from hvproto.processor.register_names import register_place
from hvproto.processor.segments import Segment, SegmentRegister, TableRegister
from hvproto.processor.settings import Setting

Value = int | str | bool | None

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv, ast.Mod: operator.mod, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
    ast.BitXor: operator.xor, ast.LShift: operator.lshift, ast.RShift: operator.rshift,
}  # fmt: skip
_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda one, other: one in other, ast.NotIn: lambda one, other: one not in other,
}  # fmt: skip
_SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
LONGEST_SHIFT = 4096


class Evaluator:
    """Evaluates in the present state of a subject. ``world`` is whose symbols go first."""

    def __init__(self, subject: Subject, fields: Mapping[str, Any] | None = None, world: World | None = None) -> None:
        self._subject = subject
        self._fields = fields or {}
        self._world = world or subject.world

    def number(self, text: str) -> int:
        """Raises BadInput for what is no number."""
        value = self.value(text)
        if not isinstance(value, int):
            raise BadInput(f"{text!r} is no number")
        return value

    def truth(self, text: str) -> bool:
        return bool(self.value(text))

    def value(self, text: str) -> Value:
        """Raises BadInput for what can't be evaluated."""
        try:
            value: Value = self._evaluate(ast.parse(text.strip().replace("$", ""), mode="eval").body)
            return value
        except (SyntaxError, TypeError, ValueError, ZeroDivisionError, RecursionError, MemoryError) as error:
            raise BadInput(f"{text!r} can't be evaluated: {error}") from None

    def _evaluate(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int() | str() | bool() | None as value):
                return value
            case ast.Name(id=name):
                return self._name(name)
            case ast.Attribute():
                return self._name(ast.unparse(node))
            case ast.List(elts=[inner]):
                return self._memory(self._evaluate(inner), 4)
            case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]) if name in _SIZES:
                return self._memory(self._evaluate(inner), _SIZES[name])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                one, other = self._evaluate(left), self._evaluate(right)
                if isinstance(op, ast.LShift) and other > LONGEST_SHIFT:
                    raise ValueError("too long a shift")
                return _BINARY[type(op)](one, other)
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -self._evaluate(inner)
            case ast.UnaryOp(op=ast.UAdd(), operand=inner):
                return self._evaluate(inner)
            case ast.UnaryOp(op=ast.Invert(), operand=inner):
                return ~self._evaluate(inner)
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                return not self._evaluate(inner)
            case ast.BoolOp(op=ast.And(), values=values):
                return all(self._evaluate(value) for value in values)
            case ast.BoolOp(op=ast.Or(), values=values):
                return any(self._evaluate(value) for value in values)
            case ast.Compare(left=left, ops=ops, comparators=others):
                one = self._evaluate(left)
                for comparison, right in zip(ops, others, strict=True):
                    other = self._evaluate(right)
                    if type(comparison) not in _COMPARE or not _COMPARE[type(comparison)](one, other):
                        return False
                    one = other
                return True
        raise BadInput(f"{ast.unparse(node)!r} isn't understood here; see help expressions")

    def _memory(self, address: int, size: int) -> int:
        data = self._subject.processor.peek(address, size)
        if data is None:
            raise BadInput(f"no memory is mapped at {address:#x}")
        return int.from_bytes(data, "little")

    def _name(self, name: str) -> Value:
        if name in self._fields:
            value = self._fields[name]
            return value if isinstance(value, int | str) or value is None else str(value)
        found = register_value(self._subject, name.lower())
        if found is not None:
            return found
        worlds = [self._world, *(world for world in World if world is not self._world)]
        for world in worlds:
            image = self._subject.image(world)
            if image is not None and name in image.symbols:
                return image.symbols[name]
        raise BadInput(f"{name!r} is neither a register nor a setting nor a symbol here")


def register_value(subject: Subject, name: str) -> int | None:
    """A register or setting of the processor by its name; a descriptor table's is its base."""
    processor = subject.processor
    if name in ("eip", "rip", "pc", "ip"):
        return processor.eip
    if name in ("eflags", "rflags"):
        return processor.eflags
    if name in ("sp",):
        return processor.esp
    if name in ("now", "time"):
        return processor.now
    if name in ("cpl", "cr2"):
        return int(getattr(processor, name))
    if name.upper() in SegmentRegister.__members__:
        return processor.segment(SegmentRegister[name.upper()]).selector
    setting_name, _, part = name.partition(".")
    if setting_name.upper() in Setting.__members__:
        value = processor.read_setting(Setting[setting_name.upper()])
        match value:
            case int():
                return value
            case TableRegister():
                return value.limit if part == "limit" else value.base
            case Segment():
                return {"limit": value.limit, "selector": value.selector}.get(part, value.base)
    if name.startswith("dr") and name[2:] in tuple("012367"):
        return processor.debug_register(int(name[2:]))
    try:
        register_place(name)
    except ValueError:
        return None
    return processor.register(name)
