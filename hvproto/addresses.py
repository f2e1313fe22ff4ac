"""The kinds of address, never mixed.

A *linear* address is what segmentation hands to the page walk (Intel SDM vol. 3, 4.1). Of a guest
it is a **GVA**; the guest believes its page tables to yield a **GPA**; the machine's memory is
addressed by an **HPA**. They are distinct types for the type checker, plain integers at run time.
"""

from typing import NewType

GVA = NewType("GVA", int)
"""Guest virtual (linear) address."""

GPA = NewType("GPA", int)
"""Guest physical address: an offset into the guest's memory."""

HVA = NewType("HVA", int)
"""Host virtual (linear) address, in the address space of one host process."""

HPA = NewType("HPA", int)
"""Host physical address: an offset into the machine's RAM."""

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
PAGE_MASK = PAGE_SIZE - 1
LINEAR_MASK_32 = 0xFFFF_FFFF


def page_of(address: int) -> int:
    """The first byte of the page that holds ``address``.

    >>> hex(page_of(0x1234))
    '0x1000'
    """
    return address & ~PAGE_MASK


def page_offset(address: int) -> int:
    """How far into its page ``address`` lies, in bytes (0-4095).

    >>> hex(page_offset(0x1234))
    '0x234'
    """
    return address & PAGE_MASK


def pages_spanned(address: int, size: int) -> int:
    """How many pages ``size`` bytes from ``address`` touch.

    >>> pages_spanned(0xFFE, 4), pages_spanned(0, 4096), pages_spanned(0, 0)
    (2, 1, 0)
    """
    if size <= 0:
        return 0
    return ((address + size - 1) >> PAGE_SHIFT) - (address >> PAGE_SHIFT) + 1
