"""What the processor costs, as ratios within one run.

The yardstick **Y** is one empty UC_HOOK_INTR callback through the binding's ``hook_add``: what the
smallest possible Python exception handler costs. Everything is measured in turns, several times,
and the median ratio is shown with its spread; absolute times depend on the machine.

    python tools/bench_processor.py [--rounds N]
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const

from hvproto.images.assembly import assemble_text
from hvproto.machine.machine import Machine
from hvproto.processor import native
from hvproto.processor.processor import Stop

KERNEL = """
.origin 0x100000
start:
    lgdt [gdtr]
    lidt [idtr]
    mov ax, 0x28
    ltr ax
    mov esp, 0x88000
    mov eax, handler
    mov word ptr [idt + 0x30*8], ax
    shr eax, 16
    mov word ptr [idt + 0x30*8 + 6], ax
    mov ax, 0x23
    mov ds, ax
    push 0x23
    push 0x90000
    push 2
    push 0x1b
    push user
    iretd
user:
    mov ecx, COUNT
again:
    int 0x30
    dec ecx
    jnz again
    cli                     ; a protection fault whose gate isn't there: a named end of the run
handler:
    HALT
    cmp ecx, 1
    je done
    iretd
done:
    hlt
.align 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
    .word 0x67, tss & 0xffff
    .byte tss >> 16, 0x89, 0, 0
gdtr: .word gdtr - gdt - 1
    .long gdt
idtr: .word 0x7ff
    .long idt
tss: .long 0, 0x80000, 0x10
    .space 92
idt: .space 0x30 * 8
    .word 0, 8
    .byte 0, 0xee
    .word 0
    .space 0x7ff - 0x31 * 8
"""

WIDE_KERNEL = """
.origin 0x100000
start:
    lgdt [gdtr]
    mov dword ptr [0x70000], 0x71007
    mov dword ptr [0x71000], 0x87           ; 1 GiB, one to one, for everybody
    mov eax, 0x20
    mov cr4, eax
    mov eax, 0x70000
    mov cr3, eax
    mov ecx, 0xc0000080
    mov eax, 0x100
    xor edx, edx
    wrmsr
    mov eax, 0x80000001
    mov cr0, eax
    jmp 0x08:long
.code64
long:
    lidt [idtr]
    mov eax, 0x28
    ltr ax
    mov rsp, 0x88000
    lea rax, [handler]
    mov word ptr [idt + 0x30*16], ax
    shr eax, 16
    mov word ptr [idt + 0x30*16 + 6], ax
    push 0x23
    push 0x90000
    push 2
    push SELECTOR
    push user
    iretq
handler:
    HALT
    cmp ecx, 1
    je done
    iretq
done:
    hlt
.code32
user:
    mov ecx, COUNT
again:
    int 0x30
    sub ecx, 1
    jnz again
    cli
.align 8
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
    .word 0x67, tss & 0xffff
    .byte tss >> 16, 0x89, 0, 0
    .quad 0, 0x00affb000000ffff
gdtr: .word gdtr - gdt - 1
    .long gdt
idtr: .word 0xfff
    .quad idt
tss: .long 0, 0x80000, 0
    .space 92
idt: .space 0x30 * 16
    .word 0, 8
    .byte 0, 0xee
    .word 0
    .quad 0
    .space 0xfff - 0x31 * 16
"""
"""The program's code is the same with 32 and with 64 bits."""
PROGRAMS = {
    "32-bit kernel": KERNEL,
    "64-bit kernel, 32-bit program": WIDE_KERNEL.replace("SELECTOR", "0x1b"),
    "64-bit kernel, 64-bit program": WIDE_KERNEL.replace("SELECTOR", "0x3b"),
}


def yardstick(count: int) -> float:
    """Seconds for ``count`` empty INTR callbacks."""
    uc = unicorn.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_32)
    uc.mem_map(0, 0x2000)
    uc.mem_write(0x1000, b"\xcd\x30\x49\x75\xfb\xf4")  # again: int 0x30; dec ecx; jnz again; hlt
    uc.hook_add(uc_const.UC_HOOK_INTR, lambda _uc, _vector, _data: None)
    uc.reg_write(x86_const.UC_X86_REG_ECX, count)
    start = time.perf_counter()
    uc.emu_start(0x1000, 0)
    return time.perf_counter() - start


def exceptions(engine: str, kernel: str, count: int) -> float:
    """Seconds for ``count`` software interrupts from ring 3 to ring 0 and back."""
    machine = Machine(2 << 20, engine=engine)
    machine.load(assemble_text(kernel.replace("COUNT", str(count)).replace("HALT", "nop"), "<bench>"))
    start = time.perf_counter()
    assert machine.run_processor(1 << 60) is Stop.HALT
    return time.perf_counter() - start


def exits(engine: str, kernel: str, count: int) -> float:
    """The same with a stop at the beginning of each handler: what a way out of a guest costs at least."""
    machine = Machine(2 << 20, engine=engine)
    machine.load(assemble_text(kernel.replace("COUNT", str(count)).replace("HALT", "hlt"), "<bench>"))
    processor = machine.processor
    start = time.perf_counter()
    for _ in range(count):
        assert processor.run(1 << 60) is Stop.HALT
    return time.perf_counter() - start


def ready(_count: int) -> float:
    """Seconds until a machine with 16 MiB of RAM could run."""
    gc.collect()
    start = time.perf_counter()
    Machine(16 << 20)
    return time.perf_counter() - start


MEMORY_PROBE = """
from hvproto.machine.machine import Machine
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024
before = resident()
machine = Machine(16 << 20)
print(resident() - before)
"""


def memory(engine: str) -> float:
    """MiB that one machine with 16 MiB of RAM keeps resident, before a kernel touches its RAM."""
    environment = {**os.environ, "HVPROTO_ENGINE": engine}
    done = subprocess.run([sys.executable, "-c", MEMORY_PROBE], env=environment, capture_output=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    engines = ["portable"] if native.self_check() else ["native", "portable"]
    count = {"native": 50_000, "portable": 1_000}
    samples: dict[tuple[str, str, str], list[float]] = {}
    startup: list[float] = []
    measure: Callable[[int], float] = yardstick
    for _ in range(rounds):
        unit = measure(50_000) / 50_000
        for engine, (name, kernel) in product(engines, PROGRAMS.items()):
            for what, ways in (("int 0x30 and iret", exceptions), ("... with a stop", exits)):
                number = count[engine] // (10 if what.startswith("...") and engine == "native" else 1)
                cost = ways(engine, kernel, number) / number / unit
                samples.setdefault((engine, name, what), []).append(cost)
        startup.append(ready(0) * 1000)
    print(f"{rounds} rounds, medians (least to most)")
    for (engine, name, what), ratios in samples.items():
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{engine:8} {name:30} {what:18}: {statistics.median(ratios):8.2f} Y {spread}")
    spread = f"({min(startup):.1f} to {max(startup):.1f})"
    print(f"a machine with 16 MiB is ready in {statistics.median(startup):.1f} ms {spread}")
    for engine in engines:
        print(f"and costs {memory(engine):.1f} MiB with the {engine} engine")


if __name__ == "__main__":
    main()
