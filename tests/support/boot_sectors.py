"""Boot sectors for tests: what real-mode code asks of the firmware, and what comes back."""

from __future__ import annotations

from hvproto.images.assembly import assemble_text
from hvproto.images.disk import assembled_disk
from hvproto.images.image import Image
from hvproto.machine.clock import CYCLES_PER_SECOND
from hvproto.machine.disk_backend import SectorBackend
from hvproto.machine.machine import Machine

RAM = 4 << 20
LIMIT = CYCLES_PER_SECOND
WELL = 2 * 1 + 1

HEAD = """
.origin 0x7c00
.code16
.macro EXIT
    mov al, 1
    out 0xf4, al
    hlt
.endm
.macro KEEP name                    ; all that a service can answer with
    mov [\\name], eax
    mov [\\name + 4], ebx
    mov [\\name + 8], ecx
    mov [\\name + 12], edx
    pushfd
    pop dword ptr [\\name + 16]
.endm
start:
    cld
"""
TAIL = """
    EXIT
    .org 0x7dfe
    .word 0xaa55
results: .space 512
"""


def boot_sector(body: str) -> Image:
    """A disk of two sectors, the second of which is for data at ``results`` (address 0x7e00)."""
    return assembled_disk(assemble_text(HEAD + body + TAIL, "boot sector"))


def booted(engine: str | None, body: str, rest: bytes = b"", second: bytes | SectorBackend | None = None) -> Machine:
    """A machine at the first instruction of a boot sector; ``rest`` are further sectors of its disk, from number 1 on."""
    image = boot_sector(body)
    machine = Machine(RAM, image.disk[:512] + rest, engine=engine, second_disk=second)
    machine.boot_disk(image)
    return machine


def run(engine: str | None, body: str, rest: bytes = b"", second: bytes | SectorBackend | None = None) -> Machine:
    """The same machine after its regular end."""
    machine = booted(engine, body, rest, second)
    assert machine.run(LIMIT) == WELL
    return machine


def ram(machine: Machine, address: int, size: int) -> bytes:
    return bytes(machine.ram.view[address : address + size])


def kept(machine: Machine, address: int = 0x7E00) -> tuple[int, int, int, int, bool, bool]:
    """EAX, EBX, ECX, EDX, carry and zero of a KEEP."""
    eax, ebx, ecx, edx, flags = (int.from_bytes(ram(machine, address + 4 * n, 4), "little") for n in range(5))
    return eax, ebx, ecx, edx, bool(flags & 1), bool(flags & 0x40)


def screen(machine: Machine, row: int) -> str:
    """The text of a row of the screen."""
    return ram(machine, 0xB8000 + 160 * row, 160)[::2].decode("latin-1").rstrip()
