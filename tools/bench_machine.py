"""What a machine's paging, timer and virtual time cost a program, and what a disk read costs.

Each loop of `bench_machine.asm` runs on the bare machine, with paging and a timer of 1 kHz, and, the same bytes, on a
plain engine: Unicorn as it comes, flat, without a hook. In turns, several times; the ratios of their speeds are shown
as a median with its spread. 1.00 is the plain engine's speed.

    python tools/bench_machine.py [--rounds N] [--engine NAME]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const

from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.machine.machine import Machine
from hvproto.machine.ram import MIB

SOURCE = Path(__file__).with_suffix(".asm")
LOOPS = {"alu": (30_000_000, 0.5), "memcpy": (3_000, 0.8), "calls": (3_000_000, 0.8), "sieve": (100, 0.8)}
"""How often each goes round: some tenths of a second; and the least ratio that it should have."""
RAM = 8 * MIB
STACK = 0x90000
DISK = """
.origin 0x100000
start:  mov edi, 0x200000
        xor ebx, ebx
again:  mov dx, 0x1f2
        xor eax, eax            ; 256 sectors
        out dx, al
        inc edx
        out dx, al
        inc edx
        mov al, bl              ; 0, 1, ...: the sector's bits 8 to 15
        out dx, al
        inc edx
        xor eax, eax
        out dx, al
        inc edx
        mov al, 0xe0
        out dx, al
        inc edx
        mov al, 0x20
        out dx, al
        mov esi, 256
sector: in al, dx
        and al, 0x88
        cmp al, 0x08
        jne sector
        mov dx, 0x1f0
        mov ecx, 256
        rep insw
        mov dx, 0x1f7
        dec esi
        jnz sector
        inc ebx
        cmp ebx, 8
        jb again
        cli
        hlt
"""
"""Reads 1 MiB by PIO: eight commands of 256 sectors, polled."""


def plain(image: Image, name: str, turns: int) -> float:
    """Seconds that a loop takes on Unicorn as it comes."""
    uc = unicorn.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_32)
    uc.mem_map(0, RAM)
    for segment in image.segments:
        uc.mem_write(segment.address, bytes(segment.data))
    uc.reg_write(x86_const.UC_X86_REG_ECX, turns)
    uc.reg_write(x86_const.UC_X86_REG_ESP, STACK)
    start = time.perf_counter()
    uc.emu_start(image.symbols[name], image.symbols["done"])
    return time.perf_counter() - start


def bare(engine: str | None, name: str, turns: int) -> tuple[float, int]:
    """Seconds that the same takes on a machine with paging and a timer, and how many interrupts it had."""
    text = SOURCE.read_text("utf-8").replace("LOOP", str(list(LOOPS).index(name))).replace("TURNS", str(turns))
    image = assemble_text(text, SOURCE.name)
    machine = Machine(RAM, engine=engine)
    machine.load(image)
    start = time.perf_counter()
    assert machine.run() == 0
    seconds = time.perf_counter() - start
    at = image.symbols["ticks"]
    return seconds, int.from_bytes(machine.ram.view[at : at + 4], "little")


def disk_read(engine: str | None) -> float:
    """Seconds for 1 MiB by REP INSW."""
    content = bytes(range(256)) * (MIB // 256)
    machine = Machine(RAM, content, engine=engine)
    machine.load(assemble_text(DISK, "<disk>"))
    start = time.perf_counter()
    assert machine.run() == 0
    seconds = time.perf_counter() - start
    assert machine.ram.view[0x200000:0x300000] == content
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--engine", choices=("native", "portable"))
    options = parser.parse_args()
    image = assemble_text(SOURCE.read_text("utf-8").replace("LOOP", "0").replace("TURNS", "0"), SOURCE.name)
    ratios: dict[str, list[float]] = {name: [] for name in LOOPS}
    ticks: dict[str, int] = {}
    disk = []
    for _ in range(options.rounds):
        for name, (turns, _) in LOOPS.items():
            alone = plain(image, name, turns)
            seconds, ticks[name] = bare(options.engine, name, turns)
            ratios[name].append(alone / seconds)
        disk.append(disk_read(options.engine))
    print(f"{options.rounds} rounds, medians (least to most); 1.00 is a plain engine's speed")
    for name, found in ratios.items():
        spread = f"({min(found):.2f} to {max(found):.2f})"
        bar = f"at least {LOOPS[name][1]}"
        print(f"{name:8} {statistics.median(found):6.2f} {spread}, {bar}, {ticks[name]} timer interrupts")
    print(f"1 MiB by PIO: {statistics.median(disk):.3f} s ({min(disk):.3f} to {max(disk):.3f}), at most 0.5")


if __name__ == "__main__":
    main()
