"""Memory and code: bytes, disassembly with symbols, search, source lines."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hvproto.debugger.debuggee import View
from hvproto.debugger.expression import Evaluator
from hvproto.debugger.inspect.registers import parse_world
from hvproto.errors import BadInput, World
from hvproto.processor.instruction import decoder
from hvproto.processor.opcodes import MAX_LENGTH

_BRANCH_TARGET = re.compile(r"^0x[0-9a-f]+$")


def evaluate(view: View, text: str) -> int | str | bool | None:
    """The value of an expression."""
    return Evaluator(view.subject).value(text)


def address_of(view: View, text: str, world: str = "") -> int:
    """The linear address that an expression gives, with that world's symbols first. Raises BadInput."""
    return Evaluator(view.subject, world=parse_world(world) if world else None).number(text)


def read_linear(view: View, address: int, size: int) -> bytes:
    """As many of these bytes as are mapped."""
    return view.subject.processor.peek_some(address, size)


def read_physical(view: View, address: int, size: int) -> bytes:
    """As many of these bytes of host-physical memory as there are."""
    ram = view.subject.machine.ram.view
    return bytes(ram[address : min(address + size, len(ram))]) if 0 <= address < len(ram) else b""


def instruction_at(view: View, address: int | None = None, world: World | None = None) -> str:
    """One line: address, bytes, the instruction; of the next one without an address."""
    address = view.subject.processor.code_address if address is None else address
    return str(_code_line(view, address, world or view.subject.world))


@dataclass(frozen=True, slots=True)
class CodeLine:
    """An instruction at a linear address; ``code`` is empty where nothing is mapped."""

    address: int
    symbol: str
    code: bytes
    text: str

    def __str__(self) -> str:
        if not self.code:
            return f"{self.address:#010x}  {self.text}"
        name = f"<{self.symbol}>" if self.symbol else ""
        return f"{self.address:#010x} {name:28} {self.code.hex(' '):22} {self.text}"


def _code_line(view: View, address: int, world: World) -> CodeLine:
    processor = view.subject.processor
    code = processor.peek_some(address, MAX_LENGTH)
    symbol = view.subject.symbol_at(address, world)
    if not code:
        return CodeLine(address, symbol, b"", "not mapped")
    found = next(decoder(processor.decoder_mode).disasm(code, address, 1), None)
    if found is None:
        return CodeLine(address, symbol, code[:1], "(bad)")
    operands = found.op_str
    target = view.subject.symbol_at(int(operands, 0), world) if _BRANCH_TARGET.match(operands) else ""
    text = f"{found.mnemonic} {operands}" + (f"  <{target}>" if target else "")
    return CodeLine(address, symbol, bytes(found.bytes), text)


def code_lines(view: View, address: int, count: int) -> list[CodeLine]:
    """So many instructions from a linear address on, or up to where nothing is mapped."""
    processor, world = view.subject.processor, view.subject.world
    lines: list[CodeLine] = []
    while len(lines) < count and (not lines or lines[-1].code):
        lines.append(_code_line(view, address, world))
        address = processor.wrapped(address + len(lines[-1].code))
    return lines


def disassemble(view: View, text: str = "", count: str = "10") -> str:
    """So many instructions from an address on."""
    evaluator, here = Evaluator(view.subject), view.subject.processor.code_address
    lines = code_lines(view, evaluator.number(text) if text else here, evaluator.number(count))
    return "\n".join(f"{'=> ' if line.address == here else '   '}{line}" for line in lines)


def dump(view: View, text: str, size: str = "64", kind: str = "linear") -> str:
    """Bytes of linear (or, with `physical`, of host-physical) memory, 16 a line."""
    evaluator = Evaluator(view.subject)
    address, length = evaluator.number(text), evaluator.number(size)
    if address < 0 or length < 0 or kind not in ("linear", "physical"):
        raise BadInput("x ADDRESS [SIZE] [linear|physical]")
    data = read_physical(view, address, length) if kind == "physical" else read_linear(view, address, length)
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{address + at:#010x}  {row[:8].hex(' '):23}  {row[8:].hex(' '):23}  {shown}")
    if len(data) < length:
        lines.append(f"{address + len(data):#010x}  not mapped")
    return "\n".join(lines)


def search(view: View, pattern: str, start: str = "0", end: str = "") -> str:
    """Where in host-physical memory these bytes are: hexadecimal, or text in quotes."""
    ram = view.subject.machine.ram.view
    if pattern[:1] in "\"'":
        wanted = pattern.strip(pattern[:1]).encode("latin-1", "replace")
    else:
        try:
            wanted = bytes.fromhex(pattern)
        except ValueError:
            raise BadInput(f"{pattern!r} is neither hexadecimal bytes nor text in quotes") from None
    if not wanted:
        raise BadInput("nothing to search for")
    evaluator = Evaluator(view.subject)
    first, last = evaluator.number(start), evaluator.number(end) if end else len(ram)
    data = bytes(ram[first:last])
    found, at = [], data.find(wanted)
    while at >= 0:
        found.append(f"HPA {first + at:#010x}")
        at = data.find(wanted, at + 1)
    return "\n".join([*found, f"{len(found)} found in {first:#x} to {last:#x}"])


def source(view: View, text: str = "") -> str:
    """The source line of an address, and some before and after it."""
    processor, subject = view.subject.processor, view.subject
    address = Evaluator(subject).number(text) if text else processor.code_address
    image = subject.image(subject.world)
    if image is None or not image.lines:
        return f"There are no source lines for the {subject.world}."
    places = sorted(place for place in image.lines if place <= address)
    if not places or address - places[-1] > MAX_LENGTH:
        return f"No source line is known for {address:#x}."
    every = sorted(image.lines)
    index = every.index(places[-1])
    lines = []
    for place in every[max(0, index - 3) : index + 4]:
        mark = "=>" if place == places[-1] else "  "
        lines.append(f"{mark} {place:#010x}  {image.lines[place]}")
    return "\n".join(lines)
