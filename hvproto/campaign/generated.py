"""Kernels that a seed makes: bytes as code of either width and ring, among the handlers of the hostile guests.

Whatever the bytes raise is printed by the kernel's handler for it, and is its end: exit status 2*16+1. So is running
off their end, as vector 0x80.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from hvproto.bundled import folder
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image

_REGISTERS = "eax ebx ecx edx esi edi ebp"
_PAGE_OF_DATA = 0x1C0000
_ENTER = {(32, 0): "jmp code", (32, 3): "RING3 code", (64, 0): "jmp code", (64, 3): "RING3 code"}


@dataclass(frozen=True, slots=True)
class Generated:
    """A kernel that executes ``code``; ``bits`` is 32 or 64, ``ring`` 0 or 3. The page at 0x1c0000 is its data."""

    bits: int
    ring: int
    code: bytes

    @classmethod
    def of_seed(cls, bits: int, ring: int, size: int, seed: int) -> Generated:
        """So many random bytes; the same for the same seed, anywhere."""
        return cls(bits, ring, random.Random(f"{bits} {ring} {seed}").randbytes(size))

    @property
    def text(self) -> str:
        """The kernel as assembly, complete in itself."""
        common = (folder() / "hostile" / "common" / f"setup{self.bits}.asm").read_text(encoding="utf-8")
        registers = "\n".join(f"    mov {name}, {_PAGE_OF_DATA:#x}" for name in _REGISTERS.split())
        rows = [self.code[at : at + 16] for at in range(0, len(self.code), 16)]
        data = "\n".join("    .byte " + ", ".join(f"{byte:#04x}" for byte in row) for row in rows)
        paging = "    call start_paging\n" if self.bits == 32 else ""
        return (
            f"; {len(self.code)} random bytes as code of ring {self.ring}, {self.bits} bits\n\n{common}\n"
            f"attack:\n{paging}    RESUME over\n{registers}\n    {_ENTER[self.bits, self.ring]}\n"
            f"over:\n    END 16\n.align 16\ncode:\n{data}\n    int 0x80\n"
        )

    @property
    def image(self) -> Image:
        return assemble_text(self.text, "generated.asm")

    def __str__(self) -> str:
        return f"fuzz {self.bits}-bit ring {self.ring}, {len(self.code)} bytes"
