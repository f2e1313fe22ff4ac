"""An exception firewall: a table of rules between a guest's exceptions and its own handlers.

A guest's kernel leaves the gates of all its vectors open to programs. The firewall closes those that nobody has
business with: there the guest sees the #GP of a closed gate, and it can't tell who has closed it. Which vectors were
asked for, and what became of that, is on record.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hvproto.bundled import folder, kernel_path
from hvproto.images.load import load_image
from hvproto.testing import Exit, Hv, Inject, SoftwareInterrupt

IDT_BIT = 2
"""In the error code of a #GP: the selector's place is a number of the IDT (SDM vol. 3, 6.13)."""


@dataclass
class Firewall:
    """What isn't in any of the ranges is let through."""

    closed: tuple[range, ...]
    log: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __call__(self, seen: Exit) -> Inject | None:
        if any(seen.vector in vectors for vectors in self.closed):
            self.log["closed", seen.vector] += 1
            return Inject(13, seen.vector << 3 | IDT_BIT)
        self.log["open", seen.vector] += 1
        return None


def run(firewall: Firewall | None) -> Hv:
    """A guest that tries all 256 software interrupts, and prints the vector of what arrives at its handlers."""
    hv = Hv(load_image(kernel_path("host")), load_image(folder() / "hostile" / "all_interrupts.asm"))
    if firewall is not None:
        hv.on(SoftwareInterrupt)(firewall)
    hv.run()
    return hv


if __name__ == "__main__":
    firewall = Firewall(closed=(range(0x20, 0x30), range(0x81, 0x100)))
    without, behind = run(None).output.split(), run(firewall).output.split()
    print(f"without: {len(without)} arrived, {without.count('0d')} of them #GP")
    print(f"behind it: {len(behind)} arrived, {behind.count('0d')} of them #GP")
    closed = sum(count for (how, _), count in firewall.log.items() if how == "closed")
    print(f"on record: {sum(firewall.log.values())}, closed: {closed}")
