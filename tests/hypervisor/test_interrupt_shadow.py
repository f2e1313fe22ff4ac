"""Where an interrupt that waits is taken once STI lets it: behind the next instruction, whatever that one needs.

What it needs may be hidden in the mirror alone - a page, code that hasn't been looked at -, and is an exit or several.
"""

from __future__ import annotations

import pytest

from hvproto.images.assembly import assemble_text
from hvproto.processor import private_layout
from tests.hypervisor.stage import bare
from tests.hypervisor.test_quick_exits import LIMIT, MEMORY, run
from tests.hypervisor.test_quick_system import LOG, TIMER, text

pytestmark = pytest.mark.skipif(private_layout.self_check() is not None, reason="no native engine here")

ROUNDS = 4
_WAITS = """
    mov al, 0x0a
    out 0x20, al
waits{n}: in al, 0x20
    test al, 1
    jz waits{n}
"""
# {n} is the round, {page} a page that nobody has touched.
BEHIND_STI = {
    "a store": "sti\nmov [{page}], ebx\nnop\nnop\ncli",
    "a load": "sti\nmov ebx, [{page}]\nnop\nnop\ncli",
    "a store and CLI": "sti\nmov [{page}], ebx\ncli",
    "both": "sti\nadd dword ptr [{page}], ebx\nnop\nnop\ncli",
    "PUSH": "mov edx, esp\nmov esp, {page} + 0x800\nsti\npush edx\nnop\nnop\ncli\nmov esp, edx",
    "MOVS": "mov esi, 0x300000\nmov edi, {page}\nmov ecx, 8\nsti\nrep movsd\nnop\nnop\ncli",
    "new code": "mov byte ptr [{page}], 0xc3\nmov edi, {page}\nsti\ncall edi\nnop\ncli",
    "RET": "push offset to{n}\nsti\nret\nto{n}: nop\nnop\ncli",
    "CLI": "sti\ncli\nnop\nsti\nnop\ncli",
    "STI": "sti\nsti\nnop\nnop\ncli",
    "HLT": "sti\nhlt\nnop\ncli",
    "CPUID": "push ebx\nsti\ncpuid\nnop\nnop\ncli\npop ebx",
    "PUSHF": "sti\npushfd\npop ebx\nnop\ncli",
    "POPF": "pushfd\nsti\npopfd\nnop\nsti\nnop\nnop\ncli",
    "IRET": "pushfd\nor dword ptr [esp], 0x200\npush 8\npush offset to{n}\nsti\niretd\nto{n}: nop\nnop\ncli",
    "MOV to CR3": "mov eax, cr3\nsti\nmov cr3, eax\nnop\nnop\ncli",
    "MOV to FS": "mov eax, 0x10\nsti\nmov fs, eax\nnop\nnop\ncli",
    "OUT": "sti\nout 0x80, al\nnop\nnop\ncli",
    "IN": "sti\nin al, 0x80\nnop\nnop\ncli",
}


@pytest.mark.parametrize("name", BEHIND_STI)
def test_an_interrupt_that_waits_is_taken_where_it_is_alone(name: str) -> None:
    body = "mov ebx, 5\n"
    for n in range(ROUNDS):
        # The first 64 pages of each root's window, by the shared table: their A and D bits are clear.
        body += _WAITS.format(n=n) + BEHIND_STI[name].format(n=n, page=f"{0x3A0000 + 0x1000 * n:#x}") + "\n"
    image = assemble_text(text(body, start=TIMER.format(ticks=250), cr0=0x80010001), f"<{name}>")
    alone = bare(image, memory=MEMORY, limit=LIMIT)
    assert alone.status == 1
    frames = alone.guest_ram()[LOG : LOG + 12 * ROUNDS]
    assert all(any(frames[12 * n : 12 * n + 4]) for n in range(ROUNDS)), "an interrupt each"
    for ways in ({}, {"decides": False}, {"enabled": False}):
        _, found = run(image, listens=False, **ways)
        assert found["status"] == (1, "")
        assert found["memory"][LOG : LOG + 12 * ROUNDS] == frames
        assert found["memory"][0x280000:0x281000] == alone.guest_ram()[0x280000:0x281000], "A and D"
