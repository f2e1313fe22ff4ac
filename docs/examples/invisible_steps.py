"""Single-stepping a guest's kernel invisibly: every instruction is seen, and the guest can't find out.

Debuggers step by the trap flag, and malware looks for it: PUSHF shows it, and so does what an exception pushes. Here it
is set at every entry into the guest and gone at every exit, before anybody looks; the #DB is the hypervisor's. A guest
that sets the flag itself gets its own traps. What it doesn't hide from: programs at ring 3, whose PUSHF makes no exit,
and whoever reads the clock, as a basic block's time is charged whole at each entry.
"""

from __future__ import annotations

from hvproto.hypervisor.exit_view import HANDLED, Answer, Exit
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.images.assembly import assemble_text
from hvproto.processor.settings import EFLAGS_TF
from hvproto.testing.lodging import Lodging

DEBUG = 1
SUSPICIOUS = assemble_text("""
start:  mov esp, 0x180000
        pushfd                              ; am I being stepped through?
        pop dword ptr [flags]
        mov ecx, 3
turn:   loop turn
        mov eax, dr6                        ; has there been a single step?
        mov [traps], eax
        cli
        hlt
.align 4
flags:  .long 0
traps:  .long 0
""")
WORDS = ("flags", "traps")


class Stepper:
    """Steps through a guest from its next entry on; ``seen`` are the EIPs of the instructions, in order."""

    def __init__(self, guest: MirroredGuest) -> None:
        self.seen: list[int] = []
        self._own = False  # the guest's TF is the guest's
        self._again = False  # the instruction has faulted, and nobody but the hypervisor knows
        guest.on_exit(self._exit)
        guest.on_entry(self._entry)

    def _entry(self, guest: MirroredGuest) -> None:
        if not (self._again and self.seen and self.seen[-1] == guest.cpu.eip):
            self.seen.append(guest.cpu.eip)
        self._own = bool(guest.cpu.eflags & EFLAGS_TF)
        guest.cpu.eflags |= EFLAGS_TF

    def _exit(self, seen: Exit) -> Answer:
        self._again = seen.vector != DEBUG
        if self._own:
            return None
        seen.cpu.eflags &= ~EFLAGS_TF
        return HANDLED if seen.vector == DEBUG else None


def run(*, stepped: bool) -> tuple[Lodging, list[int]]:
    lodging = Lodging()
    guest = lodging.add(SUSPICIOUS)
    stepper = Stepper(guest) if stepped else None
    lodging.run()
    return lodging, stepper.seen if stepper else []


if __name__ == "__main__":
    plain, (stepped, seen) = run(stepped=False)[0], run(stepped=True)
    for eip in seen:
        print(f"{eip:#x}  {line.text.strip() if (line := SUSPICIOUS.line_at(eip)) else '?'}")
    for word in WORDS:
        print(f"{word}: {stepped.words(word)[0]:#x}, and {plain.words(word)[0]:#x} when nobody looks")
