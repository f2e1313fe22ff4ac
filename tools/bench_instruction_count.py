"""What it costs to count instructions: the same code with the count and without, in turns, as ratios of speed.

python tools/bench_instruction_count.py [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from hvproto.bundled import kernel_path
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.session import Session
from hvproto.images.assembly import assemble_text
from hvproto.images.load import load_image
from hvproto.machine.machine import Machine

LOOPS = {
    "two instructions in registers": "dec ecx",
    "ten instructions in registers": "add eax, ecx\nxor eax, edx\nadd edx, eax\nrol eax, 3\nsub edx, ecx\n"
    "add ebx, eax\nxor ebx, edx\nlea esi, [ebx + eax]\ndec ecx",
    "ten instructions, four in memory": "mov eax, [0x90000]\nadd eax, ecx\nmov [0x90000], eax\nxor edx, eax\n"
    "mov [0x90004], edx\nadd ebx, [0x90004]\nrol ebx, 3\nsub edx, ebx\ndec ecx",
}
COUNT = 3_000_000


def loop(body: str, counted: bool) -> float:
    """Seconds of the processor."""
    machine = Machine(2 << 20)
    text = f".origin 0x100000\nstart: mov ecx, {COUNT}\nagain: {body}\njnz again\ncli\nhlt\n"
    machine.load(assemble_text(text, "<bench>"))
    machine.processor.count_instructions(counted)
    start = time.process_time()
    assert machine.run() == 0
    return time.process_time() - start


def hosted(guest: str, counted: bool) -> float:
    """Seconds of the processor."""
    session = Session(load_image(kernel_path("host")), [load_image(kernel_path(guest))], Plan.parse("mirrored"))
    session.machine.processor.count_instructions(counted)
    start = time.process_time()
    assert session.run() == 0
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    subjects: dict[str, Callable[[bool], float]] = {
        name: lambda counted, body=body: loop(body, counted) for name, body in LOOPS.items()
    }
    subjects |= {
        f"{name}, mirrored": lambda counted, name=name: hosted(name, counted) for name in ("guest", "ptwrites", "spin")
    }
    print(f"{rounds} pairs, medians (least to most) of the speed with the count, without it being 1")
    for name, run in subjects.items():
        run(False)
        ratios = []
        for number in range(rounds):
            seconds = {counted: run(counted) for counted in ((True, False) if number % 2 else (False, True))}
            ratios.append(seconds[False] / seconds[True])
        print(f"{name:34} {statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
