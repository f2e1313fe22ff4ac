"""What the instructions cost that Python looks at before the engine may execute them, or that it does instead.

In yardsticks Y (`bench_processor`) and in microseconds: a loop with the instruction against one without, in turns,
medians.

    python tools/bench_watched.py [--rounds N] [--engine NAME]
"""

from __future__ import annotations

import argparse
import statistics
import time

from hvproto.images.assembly import assemble_text
from hvproto.machine.machine import Machine
from hvproto.machine.ram import MIB
from tools.bench_processor import yardstick

KERNEL = """
.origin 0x100000
.entry start
start:  lgdt [gdtr]
        lidt [idtr]
        mov esp, 0x90000
        mov dword ptr [0x70000], 0x87           ; 4 MiB, one to one
        mov eax, 0x10
        mov cr4, eax
        mov eax, 0x70000
        mov cr3, eax
        mov eax, 0x80000001
        mov cr0, eax
        mov edi, COUNT
again:  BODY
        dec edi
        jnz again
        hlt
.align 8
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
        .word 0x67, 0x3000, 0x8900, 0
        .quad 0x00009b000000ffff
gdtr:   .word gdtr - gdt - 1
        .long gdt
pointer: .long on
        .word 8
.align 8
idt:    .space 0x100
idtr:   .word idtr - idt - 1
        .long idt
"""
BODIES = {
    "nothing": "",
    "mov cr3": "mov eax, 0x70000\nmov cr3, eax",
    "mov cr0": "mov eax, 0x80000001\nmov cr0, eax",
    "ltr": "mov byte ptr [gdt + 0x1d], 0x89\nmov eax, 0x18\nltr ax",
    "lidt": "lidt [idtr]",
    "mov ss": "mov eax, 0x10\nmov ss, ax",
    "wrmsr": "mov ecx, 0x174\nxor eax, eax\nxor edx, edx\nwrmsr",
    "rdtsc": "rdtsc",
    "cpuid": "xor eax, eax\ncpuid",
    "far jmp": "jmp 0x08:on\non:",
    "far jmp through memory": ".byte 0xff, 0x2d\n.long pointer\non:",
    "far call and ret": "call 0x08:on\njmp beyond\non: retf\nbeyond:",
}
"""The last ones are done in Python, between two runs of the engine."""


def seconds(engine: str | None, body: str, count: int) -> float:
    text = KERNEL.replace("BODY", body).replace("COUNT", str(count))
    if "on:" not in body:
        text = text.replace(".long on", ".long 0")
    machine = Machine(MIB * 2, engine=engine)
    machine.load(assemble_text(text, "<bench>"))
    start = time.perf_counter()
    assert machine.run() == 0
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", choices=("native", "portable"))
    options = parser.parse_args()
    count = 4000
    costs: dict[str, list[float]] = {name: [] for name in BODIES}
    ratios: dict[str, list[float]] = {name: [] for name in BODIES}
    for _ in range(options.rounds):
        unit = yardstick(50_000) / 50_000
        nothing = seconds(options.engine, "", count)
        for name, body in BODIES.items():
            costs[name].append((seconds(options.engine, body, count) - nothing) / count)
            ratios[name].append(costs[name][-1] / unit)
    print(f"{options.rounds} rounds, medians (least to most)")
    for name, found in costs.items():
        spread = f"({min(found) * 1e6:.1f} to {max(found) * 1e6:.1f})"
        print(f"{name:24} {statistics.median(ratios[name]):6.1f} Y {statistics.median(found) * 1e6:6.1f} us {spread}")


if __name__ == "__main__":
    main()
