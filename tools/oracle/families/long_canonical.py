"""Addresses that aren't canonical: #GP, #SS on the stack, and what must not take one (SDM vol. 1, 3.3.7.1)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, at_end
from tools.oracle.case import at as put
from tools.oracle.families.long_gates import on_other_stack

ADDRESSES = {"low": 1 << 47, "high": (1 << 64) - (1 << 47) - 0x1000, "middle": 1 << 63, "bit62": 1 << 62}
_CODES = {
    "read": "mov rax, [rdi]",
    "write": "mov [rdi], rax",
    "byte": "mov al, [rdi]",
    "update": "add dword ptr [rdi], 1",
    "indexed": "xor ecx, ecx\nmov rax, [rdi + rcx*8]",
    "fs": "mov rax, fs:[rdi]",
    "rbp": "mov rax, [rbp]",
    "rbp-write": "mov [rbp], rax",
    "rsp": "mov rsp, rdi\nmov rax, [rsp]",
    "push": "mov rsp, rdi\npush rax",
    "pop": "mov rsp, rdi\npop rax",
    "call": "mov rsp, rdi\ncall 1f\n1: nop",
    "ret": "mov rsp, rdi\nret",
    "leave": "leave",
    "lods": "mov rsi, rdi\nlodsb",
    "stos": "stosb",
    "movs": "mov rsi, rdi\nmovsb",
    "clflush": "clflush [rdi]",
    "lea": "lea rax, [rdi]",
    "prefetch": "prefetcht0 [rdi]",
    "nop": ".byte 0x0f, 0x1f, 0x07",
    "fld": "fninit\nfld qword ptr [rdi]",
    "movups": "movups xmm0, [rdi]",
    "jmp": "jmp rdi",
    "jmp-memory": f"mov [{at.DATA:#x}], rdi\njmp qword ptr [{at.DATA:#x}]",
    "call-register": "call rdi",
    "ret-to": "push rdi\nret",
    "xlat": "mov rbx, rdi\nxlat",
    "cmpxchg16b": "cmpxchg16b [rdi]",
}


def accesses() -> Iterator[Case]:
    for (what, code), (name, address), ring in product(_CODES.items(), ADDRESSES.items(), (0, 3)):
        settings = {"edi": address, "ebp": address}
        yield Case(f"canonical/{what}/{name}/ring{ring}", at_end(code), ring, 2, on_other_stack(), settings=settings)
    edges = {
        "last": (1 << 47) - 8,
        "across": (1 << 47) - 4,
        "first": (1 << 64) - (1 << 47),
        "before": (1 << 64) - (1 << 47) - 4,
    }
    for (name, address), what in product(edges.items(), ("read", "write", "rbp")):
        settings = {"edi": address, "ebp": address}
        yield Case(f"canonical/{what}/edge-{name}", at_end(_CODES[what]), 3, 2, settings=settings)


def loads() -> Iterator[Case]:
    """Base addresses that are loaded: descriptor tables and MSRs."""
    msrs = {"fs": 0xC0000100, "gs": 0xC0000101, "kernel-gs": 0xC0000102, "lstar": 0xC0000082, "cstar": 0xC0000083}
    msrs |= {"sysenter-esp": 0x175, "sysenter-eip": 0x176}
    for (register, number), (name, address) in product(msrs.items(), ADDRESSES.items()):
        text = f"mov ecx, {number:#x}\nmov rax, rdi\nmov rdx, rdi\nshr rdx, 32\nwrmsr\nrdmsr"
        yield Case(f"canonical/wrmsr-{register}/{name}", at_end(text), 0, settings={"edi": address})
    for register, number in msrs.items():
        text = f"mov ecx, {number:#x}\nmov eax, 0x11223344\nmov edx, 0xffffffff\nwrmsr\nmov eax, 0\nrdmsr"
        yield Case(f"canonical/wrmsr-{register}/good", at_end(text), 0)
    for word, (name, address) in product(("lgdt", "lidt"), ADDRESSES.items()):
        pointer = put(at.DATA, (0xFF | (address & 0xFFFF) << 16, address >> 16, address >> 48))
        # QEMU takes the base, and shuts down with the next exception.
        code = at_end(f"{word} [{at.DATA:#x}]")
        yield Case(f"canonical/{word}/{name}", code, 0, 2, pointer, lost_on=frozenset({"qemu"}))


def cases() -> Iterator[Case]:
    yield from accesses()
    yield from loads()
