"""A guest-kernel code-integrity monitor: whoever writes to the kernel's code is stopped before it can be executed.

Once the kernel says that it has started, the pages of its code are watched: in physical memory, so that an alias in a
page table is no way around. The monitor puts the old bytes back, notes who it was, and ends the guest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hvproto.addresses import GPA, PAGE_SIZE
from hvproto.bundled import kernel_path
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.images.load import load_image
from hvproto.testing import Assembler, GuestSync, Hv

BODY = """
.include "hvproto/assert.asm"
        jmp begin
.align 4096
code:   mov eax, 1                          ; what the kernel guards its secrets with
        ret
begin:  call code
        mov [0x150000], eax
        SYNC 1                              ; from here on nobody has business with the code
        mov dword ptr [0x181000 + 4 * 0x160], 0x101007  ; a second mapping of it, ...
        invlpg [0x160000]
        mov dword ptr [0x160001], 0         ; ... by which it is made to answer 0
        call code
        mov [0x150000], eax
        DONE
.align 4096
"""


@dataclass(frozen=True)
class Violation:
    place: GPA
    was: bytes
    became: bytes


class CodeIntegrity:
    """Watches the pages of [first, end) (GPA) from now on."""

    def __init__(self, guest: MirroredGuest, first: int, end: int) -> None:
        self._guest, self._first = guest, first
        self._good = guest.memory.read(first, end - first) or b""
        self.violations: list[Violation] = []
        guest.on_write(range(first, end, PAGE_SIZE), self._on_write)

    def _on_write(self, gpa: GPA, size: int) -> None:
        start = gpa - self._first
        was, became = self._good[start : start + size], self._guest.memory.read(gpa, size) or b""
        if became != was:
            self.violations.append(Violation(gpa, was, became))
            self._guest.memory.write(gpa, was)
            self._guest.end(1, f"code at {gpa:#x} was written to")


def run(*, guarded: bool) -> tuple[Hv, CodeIntegrity | None]:
    hv = Hv(load_image(kernel_path("host")), Assembler(Path(), paging="2-level").kernel(BODY))
    with hv.wait_for(GuestSync):
        pass
    code = hv.image.symbols["code"]
    assert isinstance(hv.guest, MirroredGuest)
    monitor = CodeIntegrity(hv.guest, code, code + PAGE_SIZE) if guarded else None
    hv.run()
    return hv, monitor


if __name__ == "__main__":
    for guarded in (False, True):
        hv, monitor = run(guarded=guarded)
        print(f"guarded: {guarded}; the guard's last answer: {hv.read(0x150000)}; status {hv.status}")
        print(*(monitor.violations if monitor else ["nobody has noticed"]))
