"""What the shell offers behind an option, beside files: the names of what is bundled."""

from __future__ import annotations

from collections.abc import Iterable

from hvproto import bundled
from hvproto.hypervisor.plan import BUILT_IN


def hosts(incomplete: str) -> list[str]:
    """Bundled hosts.

    >>> hosts("ho"), hosts("x")
    (['host'], [])
    """
    return _beginning(incomplete, (kernel.name for kernel in bundled.kernels() if kernel.kind == "host"))


def guests(incomplete: str) -> list[str]:
    """Bundled guests."""
    return _beginning(incomplete, (kernel.name for kernel in bundled.kernels() if kernel.kind == "guest"))


def plans(incomplete: str) -> list[str]:
    """Built-in plans.

    >>> plans("m")
    ['mirrored']
    """
    return _beginning(incomplete, BUILT_IN)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
