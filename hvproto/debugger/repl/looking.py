"""Commands that look at the run as it stands, and change nothing."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hvproto.debugger.inspect import address_space, history, memory, registers, settings, tables
from hvproto.debugger.repl.command import COMMANDS, words
from hvproto.debugger.repl.present import told
from hvproto.errors import BadInput

if TYPE_CHECKING:
    from hvproto.debugger.repl.console import Console

_SWITCH, _MEMORY, _TIME, _REST = "The switch", "Processor and memory", "What has happened", "Others"
_WORDS = '  Numbers: 5, 0x1f. Names: registers (eax, rip, cs, cr2 ...), settings (idtr, idtr.limit, cr3), symbols,\n' \
         '  cpl, now; in a condition at an event its fields (setting, old, vector ...), event and step.\n' \
         '  [x] is the doubleword at linear address x; u8(x), u16(x), u32(x), u64(x).\n' \
         '  + - * / % & | ^ ~ << >> == != < <= > >= and or not in. Strings in quotes.'  # fmt: skip


def _shown(
    usage: str, summary: str, group: str, function: Callable[..., Any], most: int, least: int = 0, **more: Any
) -> None:
    """A command that shows what a function of the inspectors says."""

    def handler(console: Console, argument: str) -> str:
        return str(console.debug.call(function, *words(argument, least, most, usage)))

    COMMANDS.add(usage, summary, group, **more)(handler)


_shown("worlds", "Host, hypervisor, guest: who has the processor, where each stands.", _SWITCH, settings.worlds, 0,
       examples=("worlds",))  # fmt: skip
_shown("settings", "Each setting: the host's, the saved, the loaded; * marks what is not the host's.", _SWITCH,
       settings.settings, 0, examples=("settings",))  # fmt: skip
_shown("save-area", "The save area, decoded from RAM.", _SWITCH, settings.save_area, 0, examples=("save-area",))
_shown("map", "The address space: what is mapped, the region, the room that there is for it.", _SWITCH,
       address_space.address_map, 0, examples=("map",))  # fmt: skip
_shown("conflicts", "Every move of the region so far.", _SWITCH, address_space.conflicts, 0, examples=("conflicts",))
_shown("regs [WORLD]", "Registers: on the processor, or saved for a world that doesn't have it.", _MEMORY,
       registers.registers, 1, aliases=("registers",), examples=("regs", "regs host"))  # fmt: skip
_shown("idt [guest]", "The interrupt descriptor table in IDTR, or the guest's own.", _MEMORY, tables.idt, 1,
       examples=("idt", "idt guest"))  # fmt: skip
_shown("gdt [guest]", "The descriptors in GDTR's table, or in the guest's own.", _MEMORY, tables.gdt, 1,
       examples=("gdt", "gdt guest"))  # fmt: skip
_shown("tss [guest]", "The task state segment.", _MEMORY, tables.tss, 1, examples=("tss",))


def _expression(argument: str, usage: str, most: int) -> list[str]:
    """An expression and up to ``most`` words behind it; blanks within the expression are allowed after a comma-free
    word only, so the words are taken from the end, as long as they are plain numbers or names of kinds."""
    parts = argument.split()
    tail: list[str] = []
    while (
        len(parts) > 1 and len(tail) < most and _is_plain(parts[-1]) and not parts[-2].endswith(tuple("+-*/%&|^<>=("))
    ):
        tail.insert(0, parts.pop())
    if not parts:
        raise BadInput(f"usage: {usage}")
    return [" ".join(parts), *tail]


def _is_plain(word: str) -> bool:
    return word.isdecimal() or word in ("linear", "physical") or word.lower().startswith("0x")


@COMMANDS.add("pt ADDRESS", "The page walk: the guest's table, the mirror, physical memory.", _MEMORY,
              aliases=("walk",), examples=("pt eip", "pt 0xfffff000"))  # fmt: skip
def page_table(console: Console, argument: str) -> str:
    if not argument:
        raise BadInput("usage: pt ADDRESS")
    return str(console.debug.call(address_space.page_walk, argument))


@COMMANDS.add("x ADDRESS [SIZE] [linear|physical]", "Bytes of memory.", _MEMORY,
              examples=("x esp", "x idtr 32", "x 0x5000 64 physical"))  # fmt: skip
def examine(console: Console, argument: str) -> str:
    return str(console.debug.call(memory.dump, *_expression(argument, "x ADDRESS [SIZE] [linear|physical]", 2)))


@COMMANDS.add("disas [ADDRESS] [COUNT]", "Instructions, with symbols.", _MEMORY, aliases=("l", "disassemble"),
              examples=("disas", "disas page_fault_entry 20"))  # fmt: skip
def disas(console: Console, argument: str) -> str:
    if not argument:
        return str(console.debug.call(memory.disassemble))
    return str(console.debug.call(memory.disassemble, *_expression(argument, "disas [ADDRESS] [COUNT]", 1)))


@COMMANDS.add("source [ADDRESS]", "Lines of the assembly around an address.", _MEMORY, examples=("source",))
def source(console: Console, argument: str) -> str:
    return str(console.debug.call(memory.source, argument))


@COMMANDS.add('search HEX|"TEXT" [FIRST [END]]', "Where bytes are in the machine's RAM.", _MEMORY,
              aliases=("find",), examples=("search deadbeef", 'search "hello" 0x100000'))  # fmt: skip
def search(console: Console, argument: str) -> str:
    try:
        parts = shlex.split(argument, posix=False)
    except ValueError as error:
        raise BadInput(f"{argument!r}: {error}") from None
    if not 1 <= len(parts) <= 3:
        raise BadInput('usage: search HEX|"TEXT" [FIRST [END]]')
    return str(console.debug.call(memory.search, *parts))


@COMMANDS.add("print EXPR", "The value of an expression.", _MEMORY, aliases=("p",), details=_WORDS,
              examples=("print eax", "print [esp + 4] & 0xfff", "print idtr.limit"))  # fmt: skip
def print_(console: Console, argument: str) -> str:
    value = console.debug.evaluate(argument)
    return f"{value:#x}  {value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


_shown("events [COUNT|all] [KIND]", "The last events; of one kind, if it is named.", _TIME, history.event_list, 2,
       examples=("events", "events all Relocated"), aliases=("ev",))  # fmt: skip


@COMMANDS.add("trace [COUNT]", "Step so many instructions, and show each.", _TIME, examples=("trace 20",))
def trace(console: Console, argument: str) -> str:
    if argument and not argument.isdecimal():
        raise BadInput("usage: trace [COUNT]")
    lines = []
    for _ in range(int(argument or 10)):
        stop = console.debug.step()
        lines.append(told(console.debug, stop))
        if stop.kind != "step":
            break
    return "\n".join(lines)


@COMMANDS.add("where", "Where the run stands.", _TIME, aliases=("info",), examples=("where",))
def where(console: Console, argument: str) -> str:
    words(argument, 0, 0, "where")
    return told(console.debug, console.debug.stop)


@COMMANDS.add("snapshot [NAME]", "Remember this moment under a name, for diff and goto; without: the list.", _TIME,
              examples=("snapshot before",))  # fmt: skip
def snapshot(console: Console, argument: str) -> str:
    names = words(argument, 0, 1, "snapshot [NAME]")
    for name in names:
        console.snapshots[name] = console.debug.call(history.snapshot)
    return "\n".join(f"{name}  {each.position!r}" for name, each in console.snapshots.items()) or "There are none."


@COMMANDS.add("diff NAME [NAME]", "What differs between a snapshot and now, or another one.", _TIME,
              examples=("diff before", "diff before after"))  # fmt: skip
def diff(console: Console, argument: str) -> str:
    names = words(argument, 1, 2, "diff NAME [NAME]")
    for name in names:
        if name not in console.snapshots:
            raise BadInput(f"there is no snapshot {name!r}")
    one = console.snapshots[names[0]]
    other = console.snapshots[names[1]] if len(names) > 1 else console.debug.call(history.snapshot)
    return history.differences(one, other)


@COMMANDS.add("echo TEXT", "Show a text: for scripts.", _REST, examples=("echo now the switch",))
def echo(console: Console, argument: str) -> str:
    return argument


@COMMANDS.add("help [COMMAND|expressions]", "This list, or all about one command.", _REST, aliases=("h", "?"),
              examples=("help", "help break"))  # fmt: skip
def help_(console: Console, argument: str) -> str:
    if argument == "expressions":
        return _WORDS
    return COMMANDS.find(argument).help() if argument else COMMANDS.overview()


@COMMANDS.add("quit", "End the debugger.", _REST, aliases=("q", "exit"), examples=("quit",))
def quit_(console: Console, argument: str) -> str:
    console.done = True
    return ""
