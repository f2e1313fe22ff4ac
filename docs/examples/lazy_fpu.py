"""A lazily loaded FPU: tasks that use it get their own registers, and only those that do.

The guest's kernel switches tasks and forgets their floating-point registers. The hypervisor mends that: at each switch
it sets CR0.TS, and no more; the first floating-point instruction then raises #NM, and only now the registers of the
last user are put away and those of this task brought in (Intel SDM vol. 3, 2.5). A kernel that reads CR0 would see TS.
"""

from __future__ import annotations

from pathlib import Path

from hvproto.bundled import kernel_path
from hvproto.images.load import load_image
from hvproto.processor.fpu import FpuState
from hvproto.processor.settings import CR0_TS, Setting
from hvproto.testing import Assembler, Exit, Hv

NM, YIELD = 7, 0x30
BODY = """
        lidt [idt_pointer]
        fldpi                               ; task 0 keeps pi in ST0 all the time
        mov ecx, 10
1:      mov dword ptr [current], 1
        int 0x30                            ; to task 1, which uses the FPU once in ten times
        cmp ecx, 5
        jne 2f
        fninit
        fstp st(0)
2:      mov dword ptr [current], 0
        int 0x30                            ; to task 0
        loop 1b
        fstp qword ptr [kept]
        cli
        hlt
switch: iretd
.align 8
kept:   .quad 0
current: .long 0
idt:    .space 0x30 * 8
        .long 0x00080000 | (switch & 0xffff), (switch & 0xffff0000) | 0x8e00
idt_pointer: .word 0x31 * 8 - 1
        .long idt
"""


class LazyFpu:
    """``switches`` are how often the guest has changed tasks, ``loads`` how often registers had to be brought in."""

    def __init__(self, hv: Hv) -> None:
        self._hv = hv
        self._kept: dict[int, FpuState] = {}
        self._owner = 0
        self.switches = self.loads = 0
        hv.on(YIELD)(self._switched)
        hv.on(NM)(self._wanted)

    def _switched(self, seen: Exit) -> None:
        self.switches += 1
        seen.cpu.write_setting(Setting.CR0, seen.cpu.control(Setting.CR0) | CR0_TS)

    def _wanted(self, seen: Exit) -> str:
        processor, task = self._hv.machine.processor, self._hv.read("current")
        if task != self._owner:
            self._kept[self._owner], self._owner = processor.fpu, task
            processor.fpu = self._kept.get(task, FpuState())
            self.loads += 1
        seen.cpu.write_setting(Setting.CR0, seen.cpu.control(Setting.CR0) & ~CR0_TS)
        return "handle"  # the instruction is executed anew


def make() -> Hv:
    return Hv(load_image(kernel_path("host")), Assembler(Path()).kernel(BODY))


if __name__ == "__main__":
    lazy = LazyFpu(hv := make())
    hv.run()
    print(f"{lazy.switches} switches, {lazy.loads} loads; task 0 has kept {hv.read('kept', 8):#x}")
