"""A kit for tests of hypervisor ideas: a pytest plugin that comes with the package, and hooks on a run.

pytest finds the plugin by itself; a test imports from here only the words that it uses. Nothing of the emulator is
imported before a test asks for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hvproto.events import (
        Conflict,
        Decoupled,
        Event,
        ExceptionTaken,
        HostFunction,
        NoConflict,
        PageTableWrite,
        Recoupled,
        Relocated,
        SettingReplaced,
        SettingRestored,
        SettingSaved,
    )
    from hvproto.hypervisor.exit_view import DEFAULT, HANDLED, REFLECT, STOP, EndGuest, Exit, ExitKind, Inject
    from hvproto.testing.assembler import Assembler
    from hvproto.testing.bare import BareMachine
    from hvproto.testing.comparison import assert_same_run, assert_transparent
    from hvproto.testing.exit_types import (
        AnyException,
        DivideError,
        GeneralProtection,
        InvalidOpcode,
        PageFault,
        Sensitive,
        SoftwareInterrupt,
    )
    from hvproto.testing.hooks import Hook
    from hvproto.testing.hv import Hv, NotSeen
    from hvproto.testing.reports import GuestAssertion, GuestDone, GuestSync

_HOMES = {
    "hvproto.events": (
        "Conflict", "Decoupled", "Event", "ExceptionTaken", "HostFunction", "NoConflict", "PageTableWrite",
        "Recoupled", "Relocated", "SettingReplaced", "SettingRestored", "SettingSaved",
    ),
    "hvproto.hypervisor.exit_view": (
        "DEFAULT", "HANDLED", "REFLECT", "STOP", "EndGuest", "Exit", "ExitKind", "Inject",
    ),
    "hvproto.testing.assembler": ("Assembler",),
    "hvproto.testing.bare": ("BareMachine",),
    "hvproto.testing.comparison": ("assert_same_run", "assert_transparent"),
    "hvproto.testing.exit_types": (
        "AnyException", "DivideError", "GeneralProtection", "InvalidOpcode", "PageFault", "Sensitive",
        "SoftwareInterrupt",
    ),
    "hvproto.testing.hooks": ("Hook",),
    "hvproto.testing.hv": ("Hv", "NotSeen"),
    "hvproto.testing.reports": ("GuestAssertion", "GuestDone", "GuestSync"),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DEFAULT", "HANDLED", "REFLECT", "STOP", "AnyException", "Assembler", "BareMachine", "Conflict", "Decoupled",
    "DivideError", "EndGuest", "Event", "ExceptionTaken", "Exit", "ExitKind", "GeneralProtection", "GuestAssertion",
    "GuestDone", "GuestSync", "Hook", "HostFunction", "Hv", "Inject", "InvalidOpcode", "NoConflict", "NotSeen",
    "PageFault", "PageTableWrite", "Recoupled", "Relocated", "Sensitive", "SettingReplaced", "SettingRestored",
    "SettingSaved", "SoftwareInterrupt", "assert_same_run", "assert_transparent",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
