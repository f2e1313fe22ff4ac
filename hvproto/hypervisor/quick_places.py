"""Where the bytes lie that a guest accesses over and over again: a page looked up once serves until the mirror changes.

`AddressSpace.place` takes a walk through the view and a look at who watches the page: 0.9 Y (of an empty hook). This
takes a third of it.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from hvproto.addresses import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from hvproto.hypervisor.view import View

if TYPE_CHECKING:
    from hvproto.hypervisor.address_space import AddressSpace
    from hvproto.processor.deferred_stores import DeferredStores


class LastPage:
    """The page that was accessed last."""

    def __init__(self, space: AddressSpace, deferred: DeferredStores) -> None:
        self._space = space
        self._protected = deferred.protected
        self._closed = ctypes.c_uint8(1)
        self.page = self._changes = -1
        """Its number, in its view's linear space; or -1."""
        self._frame = self._base = 0
        self._view: View | None = None
        self._is_writable = False

    def place(self, linear: int, size: int, view: View, write: bool) -> int:
        """As `AddressSpace.place`, but -1 for None."""
        if linear >> PAGE_SHIFT != self.page or view is not self._view or view.changes != self._changes:
            return self._find(linear, size, view, write)
        if write and not self._is_writable:
            return self._find(linear, size, view, write)  # it may be by now
        offset = linear & PAGE_MASK
        if offset + size > PAGE_SIZE or (write and self._protected[self._frame]):
            return -1
        return self._base + offset

    def is_of(self, view: View) -> bool:
        """Whether it is known now where it lies in that view."""
        return view is self._view and view.changes == self._changes

    @property
    def base(self) -> int:
        """Its HPA."""
        return self._base

    @property
    def protection(self) -> int:
        """The address, in our own memory, of a byte that is 0 as long as the guest may just store there."""
        if not self._is_writable:
            return ctypes.addressof(self._closed)
        return ctypes.addressof(self._protected) + self._frame

    def _find(self, linear: int, size: int, view: View, write: bool) -> int:
        self.page = -1
        start = linear & ~PAGE_MASK
        base = self._space.place(start, PAGE_SIZE, view)
        if base is None:
            return -1
        self._is_writable = self._space.place(start, PAGE_SIZE, view, write=True) is not None
        self.page, self._view, self._changes = linear >> PAGE_SHIFT, view, view.changes
        self._base, self._frame = base, base >> PAGE_SHIFT
        offset = linear & PAGE_MASK
        if offset + size > PAGE_SIZE or (write and not self._is_writable):
            return -1
        return base + offset
