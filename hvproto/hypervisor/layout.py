"""Where everything stands in the region: the usual layout of six pages, and the smallest one of one page.

All offsets are in bytes from the region's beginning.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvproto.addresses import PAGE_SIZE

OWN_DESCRIPTORS = 4
"""The hypervisor's own, at the end of each GDT: code, data, and the TSS, which takes two places."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to lay the region out."""

    pages: int
    vectors: int
    """Vectors with a gate. An INT n beyond them is a #GP that names it, and served all the same."""
    stubs: int
    idt: int
    tss: int
    stack_top: int
    gdt_kernel: int
    gdt_user: int
    gdt_size: int
    """In bytes, of each of the two."""
    save_area: int

    @property
    def is_one_page(self) -> bool:
        """Whether code, stack and tables share a page, which then is executed and written to."""
        return self.pages == 1

    @property
    def code_selector(self) -> int:
        return self.gdt_size - OWN_DESCRIPTORS * 8

    @property
    def data_selector(self) -> int:
        return self.code_selector + 8

    @property
    def tss_selector(self) -> int:
        return self.code_selector + 16

    @property
    def guest_gdt_limit(self) -> int:
        """The last byte of a guest's GDT that there is room for; segments beyond it are loaded by emulation."""
        return self.code_selector - 1


FULL = Layout(
    pages=6, vectors=256, stubs=0, idt=PAGE_SIZE, tss=2 * PAGE_SIZE, stack_top=3 * PAGE_SIZE,
    gdt_kernel=3 * PAGE_SIZE, gdt_user=4 * PAGE_SIZE, gdt_size=PAGE_SIZE, save_area=5 * PAGE_SIZE,
)  # fmt: skip
"""Page 0: the stubs of all vectors; 1: IDT; 2: TSS and, from its end downwards, the stack; 3 and 4: the GDTs of the
kernel view and of the user view; 5: the save area."""

SMALL = Layout(
    pages=1, vectors=32, stubs=0, idt=0x200, tss=0x400, stack_top=0x1000,
    gdt_kernel=0x480, gdt_user=0x4C0, gdt_size=0x40, save_area=0x500,
)  # fmt: skip
"""Everything in one page, which is executed and written to: 32 vectors, and room for 3 descriptors of the guest's."""
