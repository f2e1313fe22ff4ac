"""An own relocation policy: the region hides.

The guest wins every conflict, so it can find the region by mapping page after page until something moves. Under this
policy each place is drawn by lot from all that is free, so that knowing where it was says nothing of where it is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice

from hvproto.addresses import GVA, PAGE_SIZE
from hvproto.bundled import folder, kernel_path
from hvproto.hypervisor.free_space import FreeSpace
from hvproto.hypervisor.relocation import Move
from hvproto.images.load import load_image
from hvproto.testing import Hv, Relocated


class Hidden:
    """Anywhere; the seed makes two runs the same, which all of this framework promises."""

    def __init__(self, seed: int) -> None:
        self._lots = random.Random(seed)

    def suggest(self, space: FreeSpace, pages: int, history: Sequence[Move]) -> GVA | None:
        holes = list(islice(space.holes(pages), 256))
        if not holes:
            return None
        start, found = self._lots.choices(holes, [hole[1] for hole in holes])[0]
        return GVA(start + self._lots.randrange(found - pages + 1) * PAGE_SIZE)


def hunt(policy: Hidden | None = None) -> Hv:
    """A guest that maps, page by page down from the top, where it suspects the region, 400 times."""
    host, guest = load_image(kernel_path("host")), load_image(folder() / "hostile" / "storm.asm")
    hv = Hv(host, guest) if policy is None else Hv(host, guest, policy=policy)
    hv.run()
    return hv


if __name__ == "__main__":
    for name, hv in (("the highest hole", hunt()), ("hidden", hunt(Hidden(seed=7)))):
        moves = hv.events.of(Relocated)
        print(f"{name}: found {len(moves)} times in 400 tries, last at {hv.guest.region.base:#x}; status {hv.status}")
