"""What the shell offers behind an option, beside files: names of the project's kernels and of what is bundled."""

from __future__ import annotations

from collections.abc import Iterable

from hvproto import project
from hvproto.hypervisor.plan import BUILT_IN


def hosts(incomplete: str) -> list[str]:
    """Hosts that have a name.

    >>> hosts("ho"), hosts("x")
    (['host'], [])
    """
    return _beginning(incomplete, _names("host"))


def guests(incomplete: str) -> list[str]:
    """Guests that have a name."""
    return _beginning(incomplete, _names("guest"))


def plans(incomplete: str) -> list[str]:
    """Built-in plans.

    >>> plans("m")
    ['mirrored']
    """
    return _beginning(incomplete, BUILT_IN)


def _names(kind: str) -> list[str]:
    return [kernel.name for kernel in project.named() if kernel.kind == kind]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
