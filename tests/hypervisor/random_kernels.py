"""Kernels that execute random bytes, one for each seed, in nine modes of the processor.

Around the bytes is a kernel whose handler writes down what each exception came to - registers, vector, error code,
frame, CR2 - and goes on at the next of the places to start at, with the registers as they were at the first one. After
`PLACES` of them it halts. The bytes may do what they like, to their kernel as well.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from hvproto.addresses import GPA
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image, Segment
from tests.hypervisor.random_modes import (
    ABSENT,
    DATA,
    DATA0,
    GDT,
    IDT,
    KERNEL,
    KERNEL_ONLY,
    KERNEL_STACK,
    LOG,
    MEMORY,
    MODES,
    PROGRAM,
    READ_ONLY,
    ROOT,
    STACK,
    STUBS,
    TSS,
    VARIABLES,
    Mode,
    system_tables,
)

PLACES = 2
"""To start at, in each seed."""
STEP = 32
"""Bytes between them."""
LENGTH = 256
"""Bytes of code, all of them random."""
WILDERNESS = ((0x600, KERNEL), (KERNEL_STACK, STUBS), (STUBS + 0x1000, GDT), (TSS + 0x1000, ROOT))
"""Where nothing is, INT3 is: zeros would be code that goes on and on."""
_WITH_ERROR_CODE = (8, 10, 11, 12, 13, 14, 17)

_HANDLER32 = f"""
.origin {KERNEL}
.entry resume
common: pushad                              ; vector and error code are there already
        push ds
        push es
        mov eax, {DATA0}
        mov ds, eax
        mov es, eax
        cld
        mov edi, [log]
        mov esi, esp
        mov ecx, 17
        rep movsd
        cmp dword ptr [esp + 40], 14
        jne logged
        mov eax, cr2
        stosd
logged: mov [log], edi
resume: dec dword ptr [left]
        js finish
        mov eax, [stack + 4]
        mov ss, eax
        mov esp, [stack]
        mov edi, esp
        lea esi, [frame]
        mov ecx, 9
        rep movsd
        add dword ptr [frame], {STEP}
        mov eax, [data]
        mov es, eax
        mov ds, eax
        mov eax, es:[registers]
        mov ecx, es:[registers + 4]
        mov edx, es:[registers + 8]
        mov ebx, es:[registers + 12]
        mov ebp, es:[registers + 20]
        mov esi, es:[registers + 24]
        mov edi, es:[registers + 28]
        iretd
finish: cli
        hlt
        jmp finish
"""
_HANDLER64 = f"""
.origin {KERNEL}
.entry resume
.code64
common: push r15
        push r14
        push r13
        push r12
        push r11
        push r10
        push r9
        push r8
        push rdi
        push rsi
        push rbp
        push rbx
        push rdx
        push rcx
        push rax
        cld
        mov rdi, [log]
        mov rsi, rsp
        mov ecx, 22
        rep movsq
        cmp dword ptr [rsp + 120], 14
        jne logged
        mov rax, cr2
        stosq
logged: mov [log], rdi
resume: dec dword ptr [left]
        js finish
        mov rsp, [stack]
        push [frame + 32]
        push [frame + 24]
        push [frame + 16]
        push [frame + 8]
        push [frame]
        add qword ptr [frame], {STEP}
        mov rax, [registers]
        mov rcx, [registers + 8]
        mov rdx, [registers + 16]
        mov rbx, [registers + 24]
        mov rbp, [registers + 40]
        mov rsi, [registers + 48]
        mov rdi, [registers + 56]
        mov r8, [registers + 64]
        mov r9, [registers + 72]
        mov r15, [registers + 80]
        iretq
finish: cli
        hlt
        jmp finish
"""
_HANDLER16 = f"""
.origin {KERNEL}
.entry resume
.code16
common: pushad                              ; the vector is there already
        push ds
        push es
        push ss
        pop ds
        xor ax, ax
        mov es, ax
        cld
        mov edi, es:[log]
        mov si, sp
        mov cx, 22
        rep movsw
        mov es:[log], edi
        mov ds, ax
resume: dec dword ptr [left]
        js finish
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esp, [stack]
        push word ptr [frame + 8]
        push word ptr [frame + 4]
        push word ptr [frame]
        add dword ptr [frame], {STEP}
        mov eax, [registers]
        mov ecx, [registers + 4]
        mov edx, [registers + 8]
        mov ebx, [registers + 12]
        mov ebp, [registers + 20]
        mov esi, [registers + 24]
        mov edi, [registers + 28]
        iret
finish: cli
        hlt
        jmp finish
"""
_NAMES = {name: VARIABLES + 8 * index for index, name in enumerate(("log", "left", "stack", "data", "frame"))}
_NAMES["registers"] = VARIABLES + 0x80


@cache
def _kernel(width: int) -> Image:
    names = "".join(f"{name} = {address}\n" for name, address in _NAMES.items())
    return assemble_text(names + {16: _HANDLER16, 32: _HANDLER32, 64: _HANDLER64}[width])


@dataclass(frozen=True)
class RandomKernel:
    """What a seed stands for."""

    seed: int
    mode: Mode
    code: bytes
    image: Image


_TABOO = re.compile(rb"\x0f(?:\x31|\x01\xf9|\xc7[\xf0-\xff])", re.DOTALL)
"""RDTSC, RDTSCP, RDRAND and RDSEED: a guest's time is its own, and the engine's random numbers are random."""
_NOT_IN_RING_3 = b"\x6c\x6d\x6e\x6f"
"""INS and OUTS: the engine touches their memory before it refuses them to a program."""
_NOT_IN_64_BITS = b"\xc4\xc5"
"""VEX prefixes: the engine has halves of AVX, which no processor of ours has (CPUID)."""


def _random_code(draw: random.Random, mode: Mode) -> bytes:
    """Without what the two can't have in common: NOPs instead."""
    code = draw.randbytes(LENGTH)
    while _TABOO.search(code):
        code = draw.randbytes(LENGTH)
    unwanted = (_NOT_IN_RING_3 if mode.is_program else b"") + (_NOT_IN_64_BITS if mode.width == 64 else b"")
    return code.translate(bytes(0x90 if byte in unwanted else byte for byte in range(256)))


def random_kernel(seed: int) -> RandomKernel:
    """The kernel of a seed: its number modulo nine chooses the mode."""
    draw = random.Random(seed)
    mode = MODES[seed % len(MODES)]
    code = _random_code(draw, mode)
    registers = [_register(draw, mode.width) for _ in range(11)]
    return kernel_of(mode, code, registers, draw.randbytes(64), seed)


def kernel_of(
    mode: Mode, code: bytes, registers: Sequence[int] = (), data: bytes = b"", seed: int = -1
) -> RandomKernel:
    """The kernel around this code, with these values in EAX, ECX, EDX, EBX, (ESP), EBP, ESI, EDI, R8, R9 and R15."""
    size = 8 if mode.width == 64 else 4
    variables = bytearray(LOG - VARIABLES)
    values = {
        "log": (LOG,), "left": (PLACES,), "stack": mode.stack if size == 4 else mode.stack[:1],
        "data": (mode.data_selector,), "frame": (PROGRAM, *mode.frame), "registers": registers,
    }  # fmt: skip
    for name, numbers in values.items():
        for index, number in enumerate(numbers):
            at = _NAMES[name] - VARIABLES + index * size
            variables[at : at + size] = number.to_bytes(size, "little")
    segments = [
        Segment(GPA(at), held, len(held))
        for at, held in {VARIABLES: bytes(variables), PROGRAM: code, DATA: data}.items()
    ]
    image = _kernel(mode.width)
    image = replace(image, segments=(*_surroundings(mode.name), *image.segments, *segments))
    return RandomKernel(seed, mode, code, image)


def _register(draw: random.Random, width: int) -> int:
    """A number, an address of the program's, one of the kernel's, or one that is nobody's."""
    kind = draw.randrange(8)
    if kind < 3:
        return draw.choice((DATA, DATA + 0x40, DATA + 0xFFE, STACK - 0x800, PROGRAM + LENGTH))
    if kind < 5:
        return draw.choice((0, 1, 2, 3, 5, 0x20, 0xFF, 0x3F8, 0xE9))
    if kind == 5:
        return draw.choice((READ_ONLY, READ_ONLY - 2, ABSENT, ABSENT - 1, KERNEL_ONLY, KERNEL, LOG, KERNEL_STACK - 8))
    if kind == 6:
        return draw.choice((GDT, IDT, TSS, ROOT, ROOT + 0x1000, 0xFFFF_B000, 0xFFFF_F000, MEMORY - 2, 0x8000_0000))
    return draw.getrandbits(width if width == 64 else 32)


@cache
def _surroundings(name: str) -> tuple[Segment, ...]:
    """What is the same in all kernels of a mode; for the rest of the first 128 KiB there is INT3 to run into."""
    mode = next(mode for mode in MODES if mode.name == name)
    common = _kernel(mode.width).symbols["common"]
    places = {STUBS: b"".join(_stub(vector, mode.width, common) for vector in range(256)), **mode.tables()}
    if mode.width == 16:
        places[0] = b"".join(struct.pack("<HH", 16 * n, STUBS >> 4) for n in range(256))
    else:
        places |= system_tables(mode.width)
    wild = {at: b"\xcc" * (end - at) for at, end in WILDERNESS}
    return tuple(Segment(GPA(at), data, len(data)) for at, data in (*wild.items(), *places.items()))


def _stub(vector: int, width: int, common: int) -> bytes:
    at = STUBS + 16 * vector
    if width == 16:
        return (b"\x68" + struct.pack("<H", vector) + b"\xea" + struct.pack("<HH", common, 0)).ljust(16, b"\xcc")
    code = (b"" if vector in _WITH_ERROR_CODE else b"\x6a\x00") + b"\x68" + struct.pack("<I", vector)
    code += b"\xe9" + struct.pack("<i", common - (at + len(code) + 5))
    return code.ljust(16, b"\xcc")
