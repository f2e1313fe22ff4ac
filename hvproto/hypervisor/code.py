"""Planting traps where sensitive instructions could start, page by page, as guest code is fetched.

A planted trap costs nothing unless an instruction starts at it, and guest memory is never changed. Code pages are
watched, so that new code is looked at too.
"""

from __future__ import annotations

from collections.abc import Callable

from hvproto.addresses import GPA, GVA, PAGE_MASK, PAGE_SIZE
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.sensitive import (
    KNOWN_PAGES,
    LONGEST_INSTRUCTION,
    CodeKind,
    Decoder,
    is_sensitive,
    sensitive_offsets,
)
from hvproto.processor.processor import Processor

Place = tuple[GVA, bool]
"""A linear page in a view (True: the kernel's)."""


class CodeWatch:
    """The traps that are planted, by linear page and view, and what was seen there.

    A page is looked at for all kinds of code that its view has executed so far. When a new kind comes, all pages have
    to be looked at again.
    """

    def __init__(self, processor: Processor, decoder: Decoder, memory: GuestMemory) -> None:
        self._processor = processor
        self._decoder = decoder
        self._memory = memory
        self._ports = not processor.engine.traps_port_io
        self._kinds: dict[bool, tuple[CodeKind, ...]] = {True: (), False: ()}
        self._seen: dict[Place, bytes] = {}
        self._held: dict[Place, GPA] = {}
        """By place: the page that was looked at there last, by whose content the traps are planted."""
        self._verdicts: dict[tuple[bytes, CodeKind], bool] = {}
        """Whether the instruction that these bytes begin with is sensitive."""
        self._planted: dict[Place, set[int]] = {}
        self.pages: dict[GPA, set[Place]] = {}
        """What is being watched, and its `places`."""
        self._stale: set[GPA] = set()
        """Pages that have changed since they were last executed; the engine may have translated what they were."""
        self._executed: dict[GVA, set[GPA]] = {}
        """By linear page: what of `pages` has been executed there, in either view."""

    def knows(self, kind: CodeKind, *, kernel: bool) -> bool:
        """Whether pages of this view are looked at for this kind of code; if not, they are from now on."""
        if kind in self._kinds[kernel]:
            return True
        self._kinds[kernel] = tuple(sorted((*self._kinds[kernel], kind)))
        for place in [place for place in self._seen if place[1] == kernel]:
            del self._seen[place]
        return False

    def is_known(self, linear: GVA, gpa: GPA, content: bytes, *, kernel: bool) -> bool:
        """Whether `look_at` would plant nothing, and find nothing changed."""
        return gpa not in self._stale and self._seen.get((linear, kernel)) == content

    def look_at(self, linear: GVA, gpa: GPA, content: bytes, *, kernel: bool) -> bool:
        """Plant what a page needs that is being fetched from; True if it is a page that wasn't watched yet."""
        place = (linear, kernel)
        self._held[place] = gpa
        changed = self._seen.get(place) != content
        if changed:
            self._seen[place] = content
            self._replant(place, 0, PAGE_SIZE, lambda kind: self._offsets_of_page(content, kind))
        pages = self._executed.setdefault(linear, set())
        pages.add(gpa)
        if changed or gpa in self._stale:
            self._stale.discard(gpa)
            for page in sorted(pages) if changed else (gpa,):
                self._forget_translations(page)
        places = self.pages.setdefault(gpa, set())
        is_new = not places
        places.add(place)
        return is_new

    def _forget_translations(self, gpa: GPA) -> None:
        """... of a page's code, made while there were other traps, or of what it was. To forget all would have a kernel
        translated anew whenever it starts a program: a tenth of a small system's time."""
        frame = self._memory.to_host(gpa)
        if frame is not None:
            self._processor.engine.forget_code_in(frame)

    def look_again(self, linear: GVA, gpa: GPA, content: bytes, first: int, end: int, *, kernel: bool) -> None:
        """A watched page was stored to, in the offsets [first, end)."""
        place = (linear, kernel)
        if self._held.get(place) != gpa:
            return  # there are the traps of another page now: this one is looked at when it comes back
        self._seen[place] = content
        first = max(0, first - LONGEST_INSTRUCTION)
        self._replant(place, first, end, lambda kind: self._offsets(content, kind, first, end))

    def take(self, gpa: GPA, content: bytes, first: int, end: int) -> bool:
        """A watched page was stored to, in the offsets [first, end): False, and nothing done, if a trap has to be
        planted or taken out for it."""
        low = max(0, first - LONGEST_INSTRUCTION)
        places = [place for place in self.pages[gpa] if self._held.get(place) == gpa]
        for place in places:
            linear, kernel = place
            wanted = {
                linear + offset for kind in self._kinds[kernel] for offset in self._offsets(content, kind, low, end)
            }
            if wanted != {address for address in self._planted[place] if linear + low <= address < linear + end}:
                return False
        for place in places:
            self._seen[place] = content
        return True

    def drop(self, gpa: GPA) -> None:
        """A page isn't watched any more, and can't be fetched from before it is looked at again."""
        for linear, _ in self.pages.pop(gpa):
            self._executed[linear].discard(gpa)
        self._stale.add(gpa)

    def _offsets_of_page(self, content: bytes, kind: CodeKind) -> list[int]:
        return KNOWN_PAGES.offsets(content, self._decoder, kind, ports=self._ports)

    def _offsets(self, content: bytes, kind: CodeKind, first: int, end: int) -> list[int]:
        return sensitive_offsets(content, self._decoder, kind, ports=self._ports, first=first, end=end)

    def _replant(self, place: Place, first: int, end: int, offsets: Callable[[CodeKind], list[int]]) -> None:
        linear, kernel = place
        wanted = {linear + offset for kind in self._kinds[kernel] for offset in offsets(kind)}
        planted = self._planted.setdefault(place, set())
        stale = {address for address in planted if linear + first <= address < linear + end} - wanted
        for address in sorted(stale):
            planted.discard(address)
            self._processor.engine.unplant(address)
        for address in sorted(wanted - planted):
            self._processor.engine.plant(address)
        planted |= wanted

    def close(self) -> None:
        """Take all traps out."""
        for planted in self._planted.values():
            for address in sorted(planted):
                self._processor.engine.unplant(address)
        self._planted.clear()
        self._processor.engine.flush_code()

    def places(self, gpa: GPA) -> list[Place]:
        """Where, and in which view, a page that is being watched has been executed; empty if it isn't one."""
        return sorted(self.pages.get(gpa, ()))

    def _is_planted(self, address: int, *, kernel: bool) -> bool:
        page = GVA(address & ~PAGE_MASK)
        return address in self._planted.get((page, kernel), ())

    def is_trap(self, address: int, peek: Callable[[int, int], bytes], kind: CodeKind, *, kernel: bool) -> bool:
        """Whether the instruction at this linear address is to trap now."""
        if not self._is_planted(address, kernel=kernel):
            return False
        if self._kinds[kernel] == (kind,) and address & PAGE_MASK <= PAGE_SIZE - LONGEST_INSTRUCTION:
            return True
        # Another kind of code may have been meant; and what may cross into the next page is decided by what is there.
        offset = address & PAGE_MASK
        seen = self._seen.get((GVA(address - offset), kernel)) if offset <= PAGE_SIZE - LONGEST_INSTRUCTION else None
        code = peek(address, LONGEST_INSTRUCTION) if seen is None else seen[offset : offset + LONGEST_INSTRUCTION]
        verdict = self._verdicts.get((code, kind))
        if verdict is None:
            instruction = self._decoder.decode(code, kind.mode)
            verdict = instruction is not None and is_sensitive(instruction, kind, ports=self._ports)
            self._verdicts[code, kind] = verdict
        return verdict
