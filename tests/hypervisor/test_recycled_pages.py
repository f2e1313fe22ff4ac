"""A kernel that gives the pages of one process to another: its code, and its page tables, become something else.

What the processor sees must be the new contents; and it must not cost an exit for each store.
"""

from __future__ import annotations

from collections import Counter

import pytest

from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.processor.processor import Processor
from tests.hypervisor.stage import Stage, bare

ROUNDS = 6
_KERNEL = f"""
.origin 0x100000
.entry start
start:
    cli
    mov esp, 0x10f000
    lgdt [gdt_pointer]
    mov edi, 0x112000                   ; a table that both roots share: 4 MiB, one to one
    mov eax, 0x63
fill:
    mov [edi], eax
    add edi, 4
    add eax, 0x1000
    cmp edi, 0x113000
    jb fill
    mov dword ptr [0x110000], 0x112063
    mov dword ptr [0x111000], 0x112063
    mov dword ptr [0x111004], 0x114067  ; the second root's own table, at 4 MiB
    mov eax, 0x110000
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    mov ebx, {ROUNDS}
round:
    mov eax, 0x110000
    mov cr3, eax
    {{work}}
    mov eax, 0x111000
    mov cr3, eax
    {{use}}
    add [sum], eax
    rol dword ptr [sum], 3
    dec ebx
    jnz round
    hlt
.align 8
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .long gdt
sum: .long 0
"""
_CODE = (
    """
    mov edi, 0x180000                   ; the code's page, where nobody executes it: first all NOPs, store by store
    mov ecx, 1024
    mov eax, 0x90909090
    rep stosd
    mov byte ptr [0x180000], 0xb8       ; mov eax, EBX; ret
    mov [0x180001], ebx
    mov byte ptr [0x180005], 0xc3
    mov dword ptr [0x114000], 0x180065
""",
    "mov edx, 0x400000\ncall edx",
)
_TABLES = (
    """
    mov edi, 0x114000                   ; all entries of the other root's table, present and accessed
    mov ecx, 1024
    mov eax, 0x180067
    test bl, 1
    jz entries
    mov eax, 0x181067
entries:
    stosd
    loop entries
    mov [0x180000], ebx
    mov [0x181000], edi
""",
    "mov eax, [0x400000]\nadd eax, [0x7ff000]",
)

_ALIASES = (
    """
    mov dword ptr [0x110004], 0x115067  ; a page of code, at 4 MiB in the first root ...
    mov dword ptr [0x115000], 0x180067
    mov dword ptr [0x114000], 0x181067  ; ... and in the second, where another one is at 4 MiB, behind it
    mov dword ptr [0x114004], 0x180067
    mov dword ptr [0x180000], 0xc3c8000f ; str eax; ret
    mov dword ptr [0x180100], 0x180005c6 ; mov byte ptr [0x401800], 1; ret
    mov dword ptr [0x180104], 0xc3010040
    mov dword ptr [0x181000], 0x000001b8 ; mov eax, 1; ret
    mov word ptr [0x181004], 0xc300
    mov eax, 0x110000
    mov cr3, eax
    mov edx, 0x400000
    call edx
""",
    """
    mov edx, 0x400000
    call edx
    mov edx, 0x401100
    call edx
    mov eax, 0x110000
    mov cr3, eax
    mov edx, 0x400000
    call edx
""",
)


def _image(parts: tuple[str, str]) -> Image:
    return assemble_text(_KERNEL.replace("{work}", parts[0]).replace("{use}", parts[1]), "<recycled>")


def _run(image: Image, engine: str, *, listened_to: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[Stage, int, int]:
    """A guest to its end; how often the engine was run, and how often it forgot all translations."""
    stage = Stage(image, engine)
    if not listened_to:
        stage.bus.unsubscribe(stage.bus.subscribers[0])
    counts = {"run": 0, "flush_code": 0}
    machine_engine = stage.machine.processor.engine
    for name in counts:
        original = getattr(machine_engine, name)

        def counted(name: str = name, original: object = original) -> object:
            counts[name] += 1
            return original()  # type: ignore[operator]

        monkeypatch.setattr(machine_engine, name, counted)
    assert stage.run() == 0, stage.error
    return stage, counts["run"], counts["flush_code"]


@pytest.mark.parametrize("parts", [_CODE, _TABLES, _ALIASES], ids=["code", "tables", "aliases"])
@pytest.mark.parametrize("listened_to", [True, False], ids=["heard", "unheard"])
def test_what_a_recycled_page_holds_is_what_counts(
    parts: tuple[str, str], listened_to: bool, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = _image(parts)
    alone = bare(image, engine)
    stage, _, _ = _run(image, engine, listened_to=listened_to, monkeypatch=monkeypatch)
    at = image.symbols["sum"]
    assert stage.memory.read(at, 4) == bytes(alone.machine.ram.view[at : at + 4])
    assert stage.guest_ram() == alone.guest_ram()


def test_a_store_to_code_of_another_address_space_is_followed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    translated: Counter[int] = Counter()
    plain = Processor.new_block

    def new_block(processor: Processor, address: int, size: int) -> bool:
        translated[address] += 1
        return plain(processor, address, size)

    monkeypatch.setattr(Processor, "new_block", new_block)
    _, runs, flushes = _run(_image(_CODE), "native", listened_to=False, monkeypatch=monkeypatch)
    assert flushes == 0 and runs < ROUNDS * 16, "not for each of 1024 stores"
    assert translated.pop(0x400000) == ROUNDS
    assert max(translated.values()) == 1, "what isn't on that page stays translated"


def test_tables_of_a_root_that_is_not_loaded_are_looked_at_when_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    _, runs, _ = _run(_image(_TABLES), "native", listened_to=False, monkeypatch=monkeypatch)
    assert runs < ROUNDS * 16, "not stopped for each of 1024 stores"
