"""Commands of the debugger's prompt: their names, their help, and how a line finds its command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hvproto.errors import BadInput

if TYPE_CHECKING:
    from hvproto.debugger.repl.console import Console

Handler = Callable[["Console", str], str]


@dataclass(frozen=True, slots=True)
class Command:
    """``usage`` begins with the name; ``examples`` are lines as one types them."""

    name: str
    usage: str
    summary: str
    group: str
    handler: Handler
    aliases: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    details: str = ""

    def help(self) -> str:
        """The whole help."""
        lines = [self.usage, f"  {self.summary}"]
        if self.details:
            lines += ["", *(f"  {line}" for line in self.details.splitlines())]
        if self.aliases:
            lines += ["", f"  short: {', '.join(self.aliases)}"]
        if self.examples:
            lines += ["", "  examples:", *(f"    {example}" for example in self.examples)]
        return "\n".join(lines)


@dataclass(slots=True)
class Commands:
    """All commands, in the order in which they were added."""

    by_name: dict[str, Command] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        usage: str,
        summary: str,
        group: str,
        *,
        aliases: tuple[str, ...] = (),
        examples: tuple[str, ...] = (),
        details: str = "",
    ) -> Callable[[Handler], Handler]:
        """Decorates the function of a command."""

        def added(handler: Handler) -> Handler:
            name = usage.split()[0]
            self.by_name[name] = Command(name, usage, summary, group, handler, aliases, examples, details)
            self.aliases.update(dict.fromkeys(aliases, name))
            return handler

        return added

    def find(self, word: str) -> Command:
        """By name, short name, or a beginning that only one name has. Raises BadInput."""
        name = self.aliases.get(word, word)
        if name in self.by_name:
            return self.by_name[name]
        found = [each for each in self.by_name if each.startswith(word)]
        if len(found) == 1:
            return self.by_name[found[0]]
        if found:
            raise BadInput(f"{word!r} could be {', '.join(found)}")
        raise BadInput(f"there is no command {word!r}; help lists them")

    def overview(self) -> str:
        """All commands by group, a line each."""
        groups: dict[str, list[Command]] = {}
        for command in self.by_name.values():
            groups.setdefault(command.group, []).append(command)
        width = max(len(command.usage) for command in self.by_name.values())
        lines = []
        for group, commands in groups.items():
            lines += [group, *(f"  {each.usage:{width}}  {each.summary}" for each in commands), ""]
        return "\n".join([*lines, "help COMMAND says more, with examples; an empty line repeats the last step."])


COMMANDS = Commands()


def words(text: str, least: int, most: int, usage: str) -> list[str]:
    """The words of an argument, if they are so many. Raises BadInput, which shows the usage."""
    found = text.split()
    if not least <= len(found) <= most:
        raise BadInput(f"usage: {usage}")
    return found
