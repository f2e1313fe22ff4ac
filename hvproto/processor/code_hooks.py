"""Hooks on single instructions, by page: what the engine's translator has to look through.

For each instruction that it translates, Unicorn goes through the list of all hooks on code. A guest's kernel and
programs have thousands: a twelfth of the time of a small system under load was spent there. Here, while a block is
translated, the list's head is that of a list with the hooks on the block's page and the next one, into which it may
run. Before anybody else looks, it is what it was.

The engine calls `gen_intermediate_code` through the library's table of its own functions, and machine code of ours
takes the place of that entry. Where somebody else has added a hook, or hears of all code, nothing is done.
"""

from __future__ import annotations

import ctypes
from functools import cache

from hvproto.addresses import PAGE_SHIFT
from hvproto.processor import private_layout as at
from hvproto.processor.control_block import CTL_ALL_HOOKS, CTL_HOOK_TAIL, CTL_HOOKS, CTL_HOOKS_MASK, CTL_UC
from hvproto.processor.taken_places import CONTROL_OF_CPU, take

_FREE = (1 << 64) - 1
_LAST_PAGE = (1 << 52) - 1
_FIRST_SIZE = 1 << 8
_SPREAD = 0x9E37_79B9
_ENTRY_SHIFT = 4
"""An entry of the table: page number, and the head of its list."""
_MOST = 8
"""Hooks at one address, at most; where there are more, the engine looks for them."""


def _look_up(control: str, otherwise: str) -> str:
    """RAX: the head of the list of the page that the address in RAX is on; or to ``otherwise``. R10 is the table, and
    ``control`` a register with the control block; R9 and R11 are lost."""
    return f"""
    shr rax, {PAGE_SHIFT}
    imul r11d, eax, {_SPREAD}
    shr r11d, 12
page_search:
    and r11, qword ptr [{control} + {CTL_HOOKS_MASK}]
    mov r9, r11
    shl r9, {_ENTRY_SHIFT}
    cmp qword ptr [r10 + r9], rax
    je page_found
    cmp qword ptr [r10 + r9], -1
    je {otherwise}
    inc r11
    jmp page_search
page_found:
    mov rax, qword ptr [r10 + r9 + 8]
"""


# In place of `gen_intermediate_code`: RDI is the CPUState, RSI the block, which begins with its linear address. It may
# be left by a jump out of it, as when a fetch faults: so whoever comes next has `end_translation`.
_TRANSLATE = f"""
    {CONTROL_OF_CPU}
    mov r10, qword ptr [r9 + {CTL_HOOKS}]
    test r10, r10
    jz plain
    mov r8, qword ptr [r9 + {CTL_UC}]
    mov rax, qword ptr [r8 + {at.UC_CODE_HOOKS + 8}]
    cmp rax, qword ptr [r9 + {CTL_HOOK_TAIL}]
    jne plain
    cmp qword ptr [r9 + {CTL_ALL_HOOKS}], 0
    jne kept
    mov rax, qword ptr [r8 + {at.UC_CODE_HOOKS}]
    test rax, rax
    jz plain
    mov qword ptr [r9 + {CTL_ALL_HOOKS}], rax
kept:
    push rbx
    mov rbx, r9
    mov rax, qword ptr [rsi]
    {_look_up("rbx", "none")}
    jmp has_head
none:
    xor eax, eax
has_head:
    mov qword ptr [r8 + {at.UC_CODE_HOOKS}], rax
    movabs rax, {{own}}
    call rax
    mov rax, qword ptr [rbx + {CTL_ALL_HOOKS}]
    mov rcx, qword ptr [rbx + {CTL_UC}]
    mov qword ptr [rcx + {at.UC_CODE_HOOKS}], rax
    mov qword ptr [rbx + {CTL_ALL_HOOKS}], 0
    pop rbx
    ret
plain:
    movabs rax, {{own}}
    jmp rax
"""


def call_of_page(otherwise: str) -> str:
    """Call all hooks at an address, in the order in which they were added, and return; to ``otherwise`` with nothing
    done where `_TRANSLATE` would do nothing. EDI is the instruction's size, RDX the instance, RCX the address, R8 the
    control block. The engine's way goes through all hooks, which are far apart in memory: 170 us for 1,400.
    """
    return f"""
    push rbx
    push rbp
    push r12
    push r13
    sub rsp, {8 * _MOST + 8}
    mov r10, qword ptr [r8 + {CTL_HOOKS}]
    test r10, r10
    jz not_by_page
    mov rax, qword ptr [rdx + {at.UC_CODE_HOOKS + 8}]
    cmp rax, qword ptr [r8 + {CTL_HOOK_TAIL}]
    jne not_by_page
    mov rax, rcx
    {_look_up("r8", "not_by_page")}
    xor ebx, ebx
collect:
    test rax, rax
    jz collected
    mov r10, qword ptr [rax + 8]
    mov rax, qword ptr [rax]
    cmp qword ptr [r10 + {at.HOOK_BEGIN}], rcx
    jne collect
    cmp ebx, {_MOST}
    jae not_by_page
    mov qword ptr [rsp + 8*rbx], r10
    inc ebx
    jmp collect
collected:
    mov rbp, rdx
    mov r12, rcx
    mov r13d, edi
call_next:
    test ebx, ebx
    jz all_called
    dec ebx
    mov r10, qword ptr [rsp + 8*rbx]
    cmp byte ptr [r10 + {at.HOOK_IS_DELETED}], 0
    jne call_next
    mov rdi, rbp
    mov rsi, r12
    mov edx, r13d
    mov rcx, qword ptr [r10 + {at.HOOK_DATA}]
    call qword ptr [r10 + {at.HOOK_CALLBACK}]
    cmp byte ptr [rbp + {at.UC_STOP_REQUEST}], 0
    je call_next
all_called:
    add rsp, {8 * _MOST + 8}
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
not_by_page:
    add rsp, {8 * _MOST + 8}
    pop r13
    pop r12
    pop rbp
    pop rbx
    jmp {otherwise}
"""


def end_translation(name: str) -> str:
    """The list of hooks is what it was, also where a translation was left in the middle. RBX is the control block; RAX
    and RCX are lost."""
    return f"""
    mov rcx, qword ptr [rbx + {CTL_ALL_HOOKS}]
    test rcx, rcx
    jz {name}_ended
    mov rax, qword ptr [rbx + {CTL_UC}]
    mov qword ptr [rax + {at.UC_CODE_HOOKS}], rcx
    mov qword ptr [rbx + {CTL_ALL_HOOKS}], 0
{name}_ended:
"""


@cache
def install() -> bool:
    """Take the entry's place, for the whole process and its life; False if that can't be done here."""
    return take({"gen_intermediate_code": _TRANSLATE}, {})


class CodeHooks:
    """Of one engine."""

    def __init__(self, control: int, instance: int) -> None:
        """``control`` and ``instance``: the addresses of the control block and of Unicorn's own instance."""
        word = ctypes.c_uint64.from_address
        self._place, self._mask, self._expected = (
            word(control + field) for field in (CTL_HOOKS, CTL_HOOKS_MASK, CTL_HOOK_TAIL)
        )
        self._tail = word(instance + at.UC_CODE_HOOKS + 8)
        self._pages: dict[int, dict[int, ctypes.Array[ctypes.c_uint64]]] = {}
        """By number of the page at which a block begins: the items, (next, hook), by hook, the last one first in the
        list."""
        self._items: dict[int, int] = {}
        """By hook: the items of Unicorn's own list that are ours; ..."""
        self._gone: set[int] = set()
        """... and those that it still has until the next run."""
        self._is_open = install() and not self._tail.value
        self._build(_FIRST_SIZE)

    def _build(self, size: int) -> None:
        self._words = (ctypes.c_uint64 * (2 * size))(*([_FREE, 0] * size))
        self._size, self._used = size, 0
        for page in self._pages:
            self._put(page)
        self._place.value, self._mask.value = ctypes.addressof(self._words) * self._is_open, size - 1

    def _put(self, page: int) -> None:
        """Have the table lead to a page's list as it is now."""
        place = (page * _SPREAD & 0xFFFF_FFFF) >> 12 & self._size - 1
        while self._words[2 * place] not in (_FREE, page):
            place = place + 1 & self._size - 1
        self._used += self._words[2 * place] == _FREE
        items = self._pages[page]
        self._words[2 * place + 1] = ctypes.addressof(items[next(reversed(items))]) if items else 0
        self._words[2 * place] = page

    def add(self, address: int, hook: int) -> None:
        """A hook has just been added to Unicorn's list, on the instruction at this linear address."""
        if not self._is_open:
            return
        self._items[hook] = self._tail.value
        self._expected.value = self._tail.value
        for page in _pages_before(address):
            items = self._pages.setdefault(page, {})
            before = ctypes.addressof(items[next(reversed(items))]) if items else 0
            items[hook] = (ctypes.c_uint64 * 2)(before, hook)
            if self._used * 2 >= self._size:
                self._build(2 * self._size)
            else:
                self._put(page)

    def remove(self, address: int, hook: int) -> None:
        """... no longer."""
        if not self._is_open:
            return
        self._gone.add(self._items.pop(hook))
        for page in _pages_before(address):
            items, self._pages[page] = self._pages[page], {}
            before = 0
            for one in items:
                if one != hook:
                    items[one][0] = before
                    before = ctypes.addressof(items[one])
                    self._pages[page][one] = items[one]
            self._put(page)

    def check(self) -> None:
        """Before a run, and before a hook is added: stand back for good if somebody else has added one."""
        tail = self._tail.value
        if tail != self._expected.value and self._is_open:
            if tail and tail not in self._gone and tail not in self._items.values():
                self._is_open = False
                self._place.value = 0
            self._expected.value = tail

    def has_run(self) -> None:
        """After a run."""
        if self._gone:
            self._gone.clear()


def _pages_before(address: int) -> tuple[int, int]:
    """The numbers of the pages at which a block may begin that has this address: it is shorter than a page."""
    page = address >> PAGE_SHIFT
    return page - 1 & _LAST_PAGE, page
