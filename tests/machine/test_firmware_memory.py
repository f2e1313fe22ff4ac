"""What a kernel started by a loader finds of a firmware: data areas, and tables by the search that kernels make."""

from __future__ import annotations

from tests.hypervisor.twins import plain_kernel, twins
from tests.support.kernels import booted, word

SEARCH = """
; EAX: the place of the 4 bytes EDX in 16-byte steps of ESI to EDI; 0 if they aren't there
search: cmp [esi], edx
        je .here
        add esi, 16
        cmp esi, edi
        jb search
        xor esi, esi
.here:  mov eax, esi
        ret
; AL: the sum of ECX bytes at ESI
sum:    xor eax, eax
.next:  add al, [esi]
        inc esi
        loop .next
        ret
find:   movzx eax, word ptr [0x413]     ; the pointer isn't in the EBDA, nor at the end of base memory: so in ROM
        mov [base_kib], eax
        movzx esi, word ptr [0x40e]
        shl esi, 4
        mov [ebda], esi
        movzx eax, byte ptr [esi]
        mov [ebda_kib], eax
        lea edi, [esi + 1024]
        mov edx, 0x5f504d5f             ; _MP_
        call search
        mov [in_ebda], eax
        mov esi, 0xf0000
        mov edi, 0x100000
        call search
        mov [mp], eax
        mov esi, eax
        mov ecx, 16
        call sum
        mov [mp_sum], eax
        mov eax, [mp]
        mov esi, [eax + 4]
        mov eax, [esi]
        mov [table], eax
        movzx ecx, word ptr [esi + 4]
        call sum
        mov [table_sum], eax
        mov esi, 0xe0000
        mov edx, 0x20445352             ; RSD
        call search
        mov [rsdp], eax
        mov esi, [eax + 16]
        mov eax, [esi]
        mov [rsdt], eax
        mov ecx, [esi + 4]
        call sum
        mov [rsdt_sum], eax
        movzx eax, word ptr [0x400]
        mov [com1], eax
        movzx eax, byte ptr [0x475]
        mov [disks], eax
        ret
base_kib: .long 0
ebda:   .long 0
ebda_kib: .long 0
in_ebda: .long 0xffffffff
mp:     .long 0
mp_sum: .long 0xffffffff
table:  .long 0
table_sum: .long 0xffffffff
rsdp:   .long 0
rsdt:   .long 0
rsdt_sum: .long 0xffffffff
com1:   .long 0
disks:  .long 0
"""


def test_a_kernel_finds_the_tables_as_kernels_do(engine: str) -> None:
    machine = booted(engine, "call find\nmov al, 0\nout 0xf4, al\n" + SEARCH)
    assert machine.run(10_000_000) == 1
    found = {name: word(machine, name) for name in ("base_kib", "ebda", "ebda_kib", "in_ebda", "com1", "disks")}
    assert found == {"base_kib": 639, "ebda": 0x9FC00, "ebda_kib": 1, "in_ebda": 0, "com1": 0x3F8, "disks": 1}
    assert word(machine, "mp") == 0xF5A00 and word(machine, "table") == int.from_bytes(b"PCMP", "little")
    assert word(machine, "rsdp") == 0xF6000 and word(machine, "rsdt") == int.from_bytes(b"RSDT", "little")
    assert [word(machine, name) for name in ("mp_sum", "table_sum", "rsdt_sum")] == [0, 0, 0]


def test_the_multiboot_memory_map_keeps_them_from_being_overwritten(engine: str) -> None:
    """A kernel that takes all memory that the map calls available takes none of the tables."""
    machine = booted(
        engine,
        """
        push ebx
        call find
        pop ebx
        mov esi, [ebx + 48]
        mov edi, esi
        add edi, [ebx + 44]
next:   cmp dword ptr [esi + 20], 1
        jne skip
        mov eax, [esi + 4]              ; from ...
        mov edx, eax
        add edx, [esi + 12]             ; ... to
        mov ecx, 3
check:  mov ebp, [places + 4 * ecx - 4]
        mov ebp, [ebp]
        cmp ebp, eax
        jb outside
        cmp ebp, edx
        jae outside
        inc dword ptr [taken]
outside: loop check
        inc dword ptr [available]
skip:   add esi, [esi]
        add esi, 4
        cmp esi, edi
        jb next
        mov al, 0
        out 0xf4, al
available: .long 0
taken:  .long 0
places: .long ebda, mp, rsdp
"""
        + SEARCH,
    )
    assert machine.run(10_000_000) == 1
    assert (word(machine, "available"), word(machine, "taken")) == (2, 0)


def test_a_hosted_guest_finds_the_same(engine: str) -> None:
    alone, stage = twins(plain_kernel("call find", SEARCH), engine)
    assert stage.guest_ram()[0xF5A00:0xF5A04] == alone.guest_ram()[0xF5A00:0xF5A04] == b"_MP_"
