"""What stops a free run without touching it: marks before code, and watches behind stores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unicorn import unicorn_const as uc_const

from hvproto.addresses import PAGE_SIZE
from hvproto.processor.engine import Engine


class Tripwires:
    """Hooks of the engine. ``stop`` stops it where it is, ``expire`` has it stop before its next basic block."""

    def __init__(self, engine: Engine, stop: Callable[[], None], expire: Callable[[], None]) -> None:
        self._engine = engine
        self._stop, self._expire = stop, expire
        self._marks: dict[int, int] = {}
        self._places: tuple[tuple[int, int], ...] = ()
        self._store_hooks: list[int] = []
        self.tripped = False
        """Whether the engine was stopped before a block with a mark in it."""
        self.stored_at: int | None = None
        """When the block began, at the latest, that has stored to what is watched; None if none has."""

    def mark(self, addresses: tuple[int, ...]) -> None:
        """Stop before each basic block with an instruction at one of these linear addresses.

        A hook costs nothing but where it is called: for blocks that begin less than a page before the mark.
        """
        for handle in self._marks.values():
            self._engine.uc.hook_del(handle)
        self._marks = {
            address: self._engine.uc.hook_add(
                uc_const.UC_HOOK_BLOCK,
                self._on_block,
                begin=max(0, address - PAGE_SIZE),
                end=address,
                user_data=address,
            )
            for address in addresses
        }

    def is_marked(self, address: int, size: int) -> bool:
        """Whether a block has a mark in it."""
        return any(address <= mark < address + size for mark in self._marks)

    def _on_block(self, _uc: Any, address: int, size: int, mark: int) -> None:
        if address <= mark < address + size and not self.tripped:
            # The block has been charged already, and will be once more.
            self._engine.now -= size
            self.tripped = True
            self._stop()

    def watch_stores(self, places: tuple[tuple[int, int], ...]) -> None:
        """Stop behind each basic block that stores to these (host-physical address, bytes)."""
        self.stored_at = None
        if places == self._places:
            return
        self._places = places
        for handle in self._store_hooks:
            self._engine.uc.hook_del(handle)
        self._store_hooks = [
            self._engine.uc.hook_add(uc_const.UC_HOOK_MEM_WRITE, self._on_store, begin=place, end=place + size - 1)
            for place, size in places
        ]
        self._engine.flush_code()  # what is translated already wouldn't call

    def _on_store(self, _uc: Any, _access: int, _place: int, _size: int, _value: int, _data: Any) -> None:
        if self.stored_at is None:
            first, end = self._engine.last_block
            self.stored_at = self._engine.now - (end - first)
            self._expire()
