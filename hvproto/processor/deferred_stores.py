"""Stores to page-table entries that nothing can have cached: done and noted at once, to be followed later.

A processor caches no entry that isn't present, nor one whose A bit is clear (SDM vol. 3, 4.10.2.3): who mirrors the
entry doesn't map it either. A store to one is noticed at the next access through it, which faults, and until then it
may wait, with thousands of others. And of a page of which only some bytes matter, stores to the rest are just done. All
other stores to protected pages go to `Callbacks.protected_store` one by one.

`DeferredStores.offer` says what is done; the native engine does it in machine code, ten times faster, and for a plain
store of four or eight bytes without its hooks, forty times (`store_helpers`).
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable

import numpy as np

from hvproto.addresses import PAGE_SHIFT, PAGE_SIZE

CAPACITY = 16384
"""So many wait at most; the next one goes the other way, and ends the run. To follow them takes time for each table, as
a rule, however often its entries were stored to."""
_FEW = 64
"""Pages in so few turns are told apart without sorting."""
PRESENT_AND_ACCESSED = 0x21
(
    _COUNT, _PAGES, _RAM, _RAM_SIZE, _OTHERWISE, _FIRST, _END, _PROTECTED, _FOLLOW, _AT_HELPER, _KNOWN, _NOTED,
) = range(12)  # fmt: skip
COUNT, RAM, RAM_SIZE, PROTECTED, AT_HELPER, KNOWN = (
    8 * field for field in (_COUNT, _RAM, _RAM_SIZE, _PROTECTED, _AT_HELPER, _KNOWN)
)
"""Fields of the block that `store_helpers` and `simple_tables` need, by their offsets."""
_ONLY_A_PART, _NOTHING = 1, 2
"""Marks of a page: only some of its bytes matter, or none."""
_PAGE_SHIFT = np.uint64(PAGE_SHIFT)
_FIRST_TURN = np.zeros(1, np.int64)
_ADDRESSES = 8 * _NOTED
_VALUES = _ADDRESSES + 8 * CAPACITY
_SIZES = _VALUES + 8 * CAPACITY
_BLOCK_SIZE = _SIZES + CAPACITY
"""What is noted of a store: physical address, value, and the size in a byte."""
_ASK_TO_FOLLOW = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64)
"""Called with the interpreter's lock held, as the run is."""

# What becomes of a store to a page that is heard of: RDX is the physical address, ECX the size, R8 the value, R9 the
# block below, R10 the number of the page. To ``store`` with RAM's address in R11 if nothing is left but to do it, to
# ``at_once`` if the entry may be cached, to ``otherwise`` with nothing done; RAX, R10 and R11 are lost.
NOTE = f"""
    add r10, qword ptr [r9 + {8 * _PAGES}]
    movzx eax, byte ptr [r10]
    test eax, eax
    jz otherwise
    mov r11, qword ptr [r9 + {8 * _RAM}]
    cmp eax, {_NOTHING}
    je store
    ja entry
    mov ecx, ecx
    lea r10, [rdx + rcx]
    cmp r10, qword ptr [r9 + {8 * _FIRST}]
    jbe store
    cmp rdx, qword ptr [r9 + {8 * _END}]
    jb otherwise
    jmp store
entry:
    lea r10d, [rax - 1]
    and r10d, edx
    add r10d, ecx
    cmp r10d, eax
    ja otherwise
    neg rax
    and rax, rdx
    mov eax, dword ptr [r11 + rax]
    and eax, {PRESENT_AND_ACCESSED}
    cmp eax, {PRESENT_AND_ACCESSED}
    je at_once
    mov r10d, dword ptr [r9 + {8 * _COUNT}]
    cmp r10d, {CAPACITY}
    jae otherwise
    mov qword ptr [r9 + r10*8 + {_ADDRESSES}], rdx
    mov qword ptr [r9 + r10*8 + {_VALUES}], r8
    mov byte ptr [r9 + r10 + {_SIZES}], cl
    inc r10d
    mov dword ptr [r9 + {8 * _COUNT}], r10d
store:
"""

# A hook on stores to RAM off the engine's fast path; the engine does them, unless they are to protected pages. The
# registers are those of `NOTE`. What kind of access it is (ESI) is of no interest to whoever is asked otherwise. EAX
# becomes 1: the store is taken care of.
DEFER_STORE = f"""
    cmp rdx, qword ptr [r9 + {8 * _RAM_SIZE}]
    jae otherwise
    mov r10, rdx
    shr r10, {PAGE_SHIFT}
    mov r11, qword ptr [r9 + {8 * _PROTECTED}]
    mov eax, 1
    cmp byte ptr [r11 + r10], 0
    jne heard_of
    ret
heard_of:
    mov eax, edx
    and eax, {PAGE_SIZE - 1}
    add eax, ecx
    cmp eax, {PAGE_SIZE}
    ja otherwise
    {NOTE}
    mov eax, 1
    cmp ecx, 4
    je four
    cmp ecx, 8
    je eight
    cmp ecx, 2
    je two
    mov byte ptr [r11 + rdx], r8b
    ret
two:
    mov word ptr [r11 + rdx], r8w
    ret
four:
    mov dword ptr [r11 + rdx], r8d
    ret
eight:
    mov qword ptr [r11 + rdx], r8
    ret
at_once:
    mov rax, qword ptr [r9 + {8 * _FOLLOW}]
    test rax, rax
    jz otherwise
    push rdi
    push rsi
    push rdx
    push rcx
    push r8
    push r9
    sub rsp, 8
    mov rdi, rdx
    mov esi, ecx
    mov rdx, r8
    call rax
    add rsp, 8
    pop r9
    pop r8
    pop rcx
    pop rdx
    pop rsi
    pop rdi
    mov r11, qword ptr [r9 + {8 * _RAM}]
    test eax, eax
    jnz store
otherwise:
    jmp qword ptr [r9 + {8 * _OTHERWISE}]
"""

Follow = Callable[[int, int, int], bool]
"""(physical address, size in bytes, value) of a store, not done yet, to an entry that is present and accessed: True if
nothing is left to do but the store. Called inside a run."""


class Follower:
    """A method that is offered stores, in a form that machine code can call. Its object isn't held."""

    def __init__(self, follow: Follow, fail: Callable[[BaseException], None]) -> None:
        """``fail``, a method that isn't held either, gets what it raises."""
        owner, function = weakref.ref(follow.__self__), follow.__func__  # type: ignore[attr-defined]
        failing = weakref.WeakMethod(fail)

        def guarded(physical: int, size: int, value: int) -> bool:
            try:
                return bool(function(owner(), physical, size, value & (1 << 8 * size) - 1))
            except BaseException as problem:
                report = failing()
                if report is not None:
                    report(problem)
                return False

        self.follow: Follow = guarded
        self._callback = _ASK_TO_FOLLOW(guarded)
        self.address = ctypes.cast(self._callback, ctypes.c_void_p).value or 0


class DeferredStores:
    """What waits, and where stores may wait at all: it owns the memory that the machine code works on."""

    def __init__(self, ram: memoryview, address: int) -> None:
        """``address`` is where RAM lies in our own memory."""
        self._ram = ram
        self.pages = (ctypes.c_uint8 * -(-len(ram) // PAGE_SIZE))()
        """For each page of RAM the size of its entries, 4 or 8, if stores there may wait, else 0. See `watch_part`."""
        self._muted: dict[int, int] = {}
        self.protected = (ctypes.c_uint8 * len(self.pages))()
        """For each page of RAM whether stores to it are to be heard of; for the machine code only."""
        self.block = (ctypes.c_uint64 * (_BLOCK_SIZE // 8))()
        memory = memoryview(self.block)
        self._addresses, self._values = (
            np.frombuffer(memory, np.uint64, CAPACITY, place) for place in (_ADDRESSES, _VALUES)
        )
        self._sizes = np.frombuffer(memory, np.uint8, CAPACITY, _SIZES)
        self.block[_PAGES], self.block[_RAM], self.block[_RAM_SIZE] = ctypes.addressof(self.pages), address, len(ram)
        self.block[_PROTECTED] = ctypes.addressof(self.protected)
        self.count = ctypes.c_uint64.from_buffer(self.block)
        """A cell: how many stores wait."""
        self.count_at_helper = ctypes.c_uint64.from_buffer(self.block, AT_HELPER)
        """A cell: how many stores `store_helpers` has done, of those that are done and noted."""
        self._follower: Follower | None = None

    def unmark(self, physical: int, size: int) -> None:
        """No store to these whole pages may wait, until somebody says so."""
        first, count = physical >> PAGE_SHIFT, size >> PAGE_SHIFT
        end = min(first + count, len(self.pages))
        for page in [page for page in self._muted if first <= page < end]:
            del self._muted[page]
        if first < end:
            ctypes.memset(ctypes.addressof(self.pages) + first, 0, end - first)

    def ask_otherwise(self, hook: int) -> None:
        """The address of the hook that gets all other stores."""
        self.block[_OTHERWISE] = hook

    def ask_to_follow(self, follower: Follower | None) -> None:
        """Offer somebody stores to entries that may be cached, instead of whoever got them; None: nobody."""
        self._follower = follower
        self.block[_FOLLOW] = 0 if follower is None else follower.address

    def watch_part(self, first: int, end: int) -> None:
        """Of the page that these physical addresses are in, only [first, end) matters, until its mark is changed.

        There is one such page at most.
        """
        self.block[_FIRST], self.block[_END] = first, end
        self.pages[first >> PAGE_SHIFT] = _ONLY_A_PART

    def offer(self, physical: int, size: int, value: int) -> bool:
        """Do and, if it matters, note a store within a page of RAM; False, and nothing done, if it can't wait."""
        entry = self.pages[physical >> PAGE_SHIFT]
        if entry in (_ONLY_A_PART, _NOTHING):
            if entry == _ONLY_A_PART and physical + size > self.block[_FIRST] and physical < self.block[_END]:
                return False
            self._ram[physical : physical + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
            return True
        count = self.count.value
        if not entry or (physical & entry - 1) + size > entry:
            return False
        value &= (1 << 8 * size) - 1
        if self._ram[physical & -entry] & PRESENT_AND_ACCESSED == PRESENT_AND_ACCESSED:
            if self._follower is None or not self._follower.follow(physical, size, value):
                return False
            self._ram[physical : physical + size] = value.to_bytes(size, "little")
            return True
        if count >= CAPACITY:
            return False
        self._ram[physical : physical + size] = value.to_bytes(size, "little")
        self._addresses[count], self._values[count], self._sizes[count] = physical, value, size
        self.count.value = count + 1
        return True

    @property
    def waits(self) -> bool:
        """Whether a store does."""
        return bool(self.count.value)

    def take_ranges(self) -> list[tuple[int, int, None]]:
        """As `take`, but for each page only (physical address, size, None) of a range that covers all stores there."""
        count = self.count.value
        if not count:
            return []
        self.count.value = 0
        first = self._addresses[:count]
        end = first + self._sizes[:count]
        turns = np.flatnonzero((first[1:] ^ first[:-1]) >> _PAGE_SHIFT) + 1
        if len(turns) < _FEW:
            starts = np.concatenate((_FIRST_TURN, turns))
            lowest, highest = np.minimum.reduceat(first, starts), np.maximum.reduceat(end, starts)
            found: dict[int, tuple[int, int]] = {}
            for low, high in zip(lowest.tolist(), highest.tolist(), strict=True):
                page = low >> PAGE_SHIFT
                known = found.get(page)
                found[page] = (low, high) if known is None else (min(low, known[0]), max(high, known[1]))
            return [(low, high - low, None) for _, (low, high) in sorted(found.items())]
        pages, places = np.unique(first >> _PAGE_SHIFT, return_inverse=True)
        lowest, highest = np.full(len(pages), -1, np.int64).view(np.uint64), np.zeros(len(pages), np.uint64)
        np.minimum.at(lowest, places, first)
        np.maximum.at(highest, places, end)
        return [(low, high - low, None) for low, high in zip(lowest.tolist(), highest.tolist(), strict=True)]

    def mute(self, physical: int) -> None:
        """Just do all stores to the page there, until `unmute`: somebody looks at all of it then."""
        page = physical >> PAGE_SHIFT
        self._muted.setdefault(page, self.pages[page])
        self.pages[page] = _NOTHING

    def unmute(self) -> None:
        """Have stores to all pages be as they were."""
        for page, before in self._muted.items():
            self.pages[page] = before
        self._muted.clear()

    def take(self) -> list[tuple[int, int, int]]:
        """(physical address, size, value) of each store that has waited, in order; none waits any longer."""
        count = self.count.value
        if not count:
            return []
        self.count.value = 0
        noted = (part[:count].tolist() for part in (self._addresses, self._sizes, self._values))
        return [(physical, size, value & (1 << 8 * size) - 1) for physical, size, value in zip(*noted, strict=True)]
