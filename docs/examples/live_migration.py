"""Live migration: a guest's memory is sent while it runs, and `on_write` says what must be sent again.

Round after round, the pages that were written meanwhile go to the destination; when few are left, the guest stands
still, these go with its processor and devices, and it goes on over there (pre-copy: Clark et al., NSDI 2005).
"""

from __future__ import annotations

import pickle
from dataclasses import replace

from hvproto.addresses import PAGE_SIZE
from hvproto.hypervisor.stay import ForHost
from hvproto.images.assembly import assemble_text
from hvproto.testing.lodging import Lodging

BUSY = assemble_text("""
start:  mov esp, 0x180000
        mov ecx, 60000
1:      mov eax, ecx                    ; at first all over 32 pages, then in one
        shl eax, 4
        and eax, 0x1fff0
        cmp ecx, 20000
        ja 2f
        and eax, 0xff0
2:      add [0x140000 + eax], ecx
        loop 1b
        mov al, 33
        out 0xe9, al
        out 0xf4, al
""")


class Migration:
    """A guest that moves from one machine to another; ``rounds`` are how many pages were sent in each."""

    def __init__(self, here: Lodging, there: Lodging) -> None:
        self.here, self.there = here, there
        self.rounds: list[int] = []
        self._arrived: dict[int, bytes] = {}
        self._dirty = set(range(0, here.guest.memory.size, PAGE_SIZE))
        self._watch = here.guest.on_write((), self._on_write)

    def _on_write(self, gpa: int, _size: int) -> None:
        self._dirty.add(gpa & -PAGE_SIZE)
        self._watch.drop(gpa)  # once is enough until it is sent again

    def move(self, cycles: int, few: int = 4, most: int = 12) -> None:
        """Let it run for so many cycles each round, until few pages are dirty, and then only over there."""
        while len(self._dirty) > few and len(self.rounds) < most:
            self._send()
            self.here.run(cycles, ForHost.STANDS_STILL)
        state = self.here.save()  # from here on it stands still
        self._send()
        rest = pickle.loads(pickle.dumps(replace(state, memory=())))  # as it would go over a wire
        memory = tuple(self._arrived[gpa] for gpa in sorted(self._arrived))
        self.there.rebuild(replace(rest, memory=memory), self.here.image)

    def _send(self) -> None:
        self._watch.add(self._dirty)
        for gpa in self._dirty:
            self._arrived[gpa] = self.here.guest.memory.read(gpa, PAGE_SIZE) or b""
        self.rounds.append(len(self._dirty))
        self._dirty.clear()


if __name__ == "__main__":
    here, there = Lodging(), Lodging()
    here.add(BUSY)
    migration = Migration(here, there)
    migration.move(cycles=200_000)
    stay = there.run(2_000_000)
    print(f"pages sent, round by round: {migration.rounds}; over there it ended with status {stay.status}")
