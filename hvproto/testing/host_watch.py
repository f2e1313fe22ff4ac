"""The host while it is decoupled: not a byte of its memory and none of its settings may change."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hvproto.addresses import PAGE_SIZE
from hvproto.events import Decoupled, Event, Recoupled, SettingSaved
from hvproto.processor.settings import Setting, describe
from hvproto.testing.comparison import Difference
from hvproto.testing.hv import Hv

WHOLE = 8
"""All of RAM is looked at for so many stays of the guest, and then once in so many (some 3 ms each). For the others,
the pages are that held anything the last time; a machine's are mostly empty."""


class HostWatch:
    """Looks at the host's memory and settings at each `Decoupled` and `Recoupled` of a run that hasn't begun.

    Memory is all that is neither the guest's nor in the pool that the host has lent to the hypervisor. What is found is
    kept, since nothing may be thrown in the midst of a switch: `check` raises it.
    """

    def __init__(self, hv: Hv) -> None:
        self._hv = hv
        self._ram = np.frombuffer(hv.machine.ram.view, np.uint64).reshape(-1, PAGE_SIZE // 8)
        self._hosts = np.empty(0, np.bool_)
        self._pages: npt.NDArray[np.intp] = np.empty(0, np.intp)
        self._kept = self._ram[:0]
        self._saved: dict[str, str] = {}
        self._whole = True
        self._stays = 0
        self.problem: str | None = None
        """The first thing that has changed."""
        hv.session.bus.subscribe(self._look, Decoupled, Recoupled, SettingSaved)

    def check(self) -> None:
        """Raises Difference, of kind "host", if anything of the host's has changed while it was decoupled."""
        if self.problem is not None:
            raise Difference("host", self.problem)

    def _look(self, event: Event) -> None:
        if isinstance(event, SettingSaved):
            self._saved[event.setting] = event.value
        elif isinstance(event, Decoupled):
            self._keep()
        elif isinstance(event, Recoupled) and self.problem is None:
            self.problem = self._memory() or self._settings()

    def _keep(self) -> None:
        if not self._stays:
            self._hosts = np.ones(len(self._ram), np.bool_)
            space = getattr(self._hv.guest, "space", None)
            lent = space.pool.frames if space is not None else ()
            for frame in (*self._hv.guest.memory.frames, *lent, self._hv.guest.save_area):
                if frame is not None:
                    self._hosts[frame // PAGE_SIZE] = False
        self._whole = self._stays < WHOLE or self._stays % WHOLE == 0
        self._stays += 1
        if self._whole:
            self._pages = self._in_use()
        self._kept = self._ram[self._pages]

    def _in_use(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(self._ram.any(axis=1) & self._hosts)

    def _memory(self) -> str | None:
        changed = np.flatnonzero((self._ram[self._pages] != self._kept).any(axis=1)).tolist()
        pages = [int(self._pages[at]) for at in changed]
        if not pages and self._whole:
            pages = sorted(set(self._in_use().tolist()) - set(self._pages.tolist()))
        if not pages:
            return None
        return f"the host's memory at HPA {pages[0] * PAGE_SIZE:#x} has changed while it was decoupled"

    def _settings(self) -> str | None:
        processor = self._hv.machine.processor
        for name, value in self._saved.items():
            now = describe(processor.read_setting(Setting[name]))
            if now != value:
                return f"the host's {name} was {value} before it was decoupled, and is {now} now"
        return None
