"""Copy-on-write cloning: one guest becomes many, and each clone owns only the pages that it has written.

The guest is saved once it has started. A clone is that state, and a dictionary of its own pages, empty at first. While
it runs, `on_write` tells which pages it writes; all others are the parent's for good.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hvproto.addresses import PAGE_SIZE
from hvproto.hypervisor.guest_state import GuestState
from hvproto.hypervisor.stay import ForHost
from hvproto.images.assembly import assemble_text
from hvproto.testing.lodging import Lodging

IMAGE = assemble_text("""
start:  mov esp, 0x180000
        mov dword ptr [0x140000], 1000      ; a long start: clones needn't do it again
        mov ecx, 3000
1:      loop 1b
ready:  mov eax, [0x1f0000]                 ; who am I? here the clone is told
        test eax, eax
        jz ready
        mov ebx, [0x140000]
        add ebx, eax
        shl eax, 12
        mov [0x150000 + eax], ebx           ; a page that only this clone writes
        push ebx
        cli
        hlt
""")


@dataclass
class Clone:
    parent: GuestState
    own: dict[int, bytes] = field(default_factory=dict)
    """By GPA: what isn't the parent's."""

    @property
    def pages(self) -> list[bytes]:
        return [self.own.get(n * PAGE_SIZE, page) for n, page in enumerate(self.parent.memory)]


class Nursery(Lodging):
    """A machine with room for one guest: its clones take turns."""

    def parent(self, cycles: int) -> GuestState:
        self.add(IMAGE)
        self.run(cycles, ForHost.STANDS_STILL)
        return self.save()

    def let_run(self, clone: Clone, cycles: int = 100_000) -> None:
        """Let a clone go on, and keep what it has made its own."""
        guest = self.rebuild(replace(clone.parent, memory=tuple(clone.pages)), IMAGE)
        written = set(clone.own)
        watch = guest.on_write(range(0, guest.memory.size, PAGE_SIZE), lambda gpa, _size: written.add(gpa & -PAGE_SIZE))
        self.run(cycles, ForHost.STANDS_STILL)
        watch.close()
        clone.own = {gpa: guest.memory.read(gpa, PAGE_SIZE) or b"" for gpa in sorted(written)}


def born(state: GuestState, name: int) -> Clone:
    return Clone(state, {0x1F0000: name.to_bytes(PAGE_SIZE, "little")})


if __name__ == "__main__":
    nursery = Nursery()
    state = nursery.parent(20_000)
    for clone in [born(state, name) for name in range(1, 9)]:
        nursery.let_run(clone)
        print(f"{len(clone.own)} of {len(state.memory)} pages are its own: {', '.join(map(hex, clone.own))}")
