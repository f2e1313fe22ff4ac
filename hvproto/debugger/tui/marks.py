"""Marks and styles. Whatever a colour says, a mark, a word or bold letters say as well.

The colours are three of Okabe and Ito's eight, which people with any colour vision tell apart.
"""

from __future__ import annotations

from hvproto.errors import World

HERE = "▶"
CHANGED = "*"
AHEAD = "○"
BEHIND = "│"
DIFFERS = "≠"
SAME = "="
MORE = "»"
"""At the end of a line that goes on: `>` scrolls there."""
BADGES = {World.HOST: "■", World.HYPERVISOR: "◆", World.GUEST: "●"}
COLOURS = {World.HOST: "#56b4e9", World.HYPERVISOR: "#cc79a7", World.GUEST: "#e69f00"}
STRONG = "bold"
STRONGEST = "bold reverse"
WEAK = "dim"
ERROR = "bold underline"


def style_of(world: World) -> str:
    """Letters in a world's colour."""
    return f"bold {COLOURS[world]}"
