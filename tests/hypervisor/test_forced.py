"""What happens rarely, forced to happen after every instruction: nobody notices.

The host is decoupled and recoupled at each of 2,000 instructions, through interrupts, page faults and both rings; the
region of a guest is moved after each of its first 2,000 instructions.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from hvproto.addresses import GVA, PAGE_SIZE
from hvproto.errors import LimitReached
from hvproto.hypervisor.guest import Leave
from hvproto.hypervisor.stay import ForHost
from hvproto.images.assembly import assemble
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.machine.machine import NEVER
from hvproto.machine.ram import MIB
from hvproto.processor.processor import Stop
from tests.hypervisor.lodger import Lodging
from tests.hypervisor.stage import Stage, bare
from tests.hypervisor.whole_state import Stepper, differences, everything
from tests.support.command import ROOT
from tests.support.kernels import kernel

INSTRUCTIONS = 2000
CYCLES = 30
"""Of the guest at each instruction of the host: a few of its own, and about one exit."""
MODES = ROOT / "guests" / "modes"


@cache
def resident() -> Image:
    return assemble(Path(__file__).parent / "resident.asm")


@cache
def image_of(path: Path) -> Image:
    return load_image(path)


# -- the host, decoupled at every instruction ----------------------------------------------------

PAGING_HOST = """
        mov dword ptr [0x30000], 0x87   ; 4 MiB one to one, for all; then a table that is empty yet
        mov dword ptr [0x30004], 0x32007
        mov eax, 0x10
        mov cr4, eax
        mov eax, 0x30000
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80010000
        mov cr0, eax
        GATE 14, page_fault, 0x8e00
        GATE 0x20, tick, 0x8e00
        GATE 0x80, finish, 0xee00
        mov dword ptr [gdt_tss], 0x00000067
        mov dword ptr [gdt_tss + 4], 0x00008900
        mov eax, offset tss
        mov word ptr [gdt_tss + 2], ax
        shr eax, 16
        mov byte ptr [gdt_tss + 4], al
        mov dword ptr [tss + 4], 0x8f000
        mov dword ptr [tss + 8], 0x10
        mov eax, 0x28
        ltr ax
        SET_TIMER 3                     ; a tick every 1,200 cycles: some 300 instructions
        push 0x23
        push 0x2f0000
        push 0x202
        push 0x1b
        push offset program
        iretd
page_fault:                             ; give out a page
        push eax
        push ebx
        mov ebx, cr2
        shr ebx, 12
        and ebx, 0x3ff
        mov eax, ebx
        shl eax, 12
        add eax, 0x200007
        mov [0x32000 + ebx * 4], eax
        inc dword ptr [seen]
        pop ebx
        pop eax
        add esp, 4
        iretd
tick:   inc dword ptr [ticks]
        EOI
        iretd
program:
        mov ax, 0x23
        mov ds, ax
        mov es, ax
        fninit
        fldpi
        mov edx, 0x400000
        mov ecx, 1
2:      imul ecx, ecx, 1664525
        add ecx, 1013904223
        mov [edx + 0x10], ecx
        fld st(0)
        fadd
        push ecx
        rol ecx, 7
        pop eax
        adc ecx, eax
        add edx, 0x400
        cmp edx, 0x440000
        jb 2b
        int 0x80
finish: mov al, 0
        out 0xf4, al
        hlt
.align 8
tss:    .space 0x68
"""


def start(image: Image, engine: str, *, with_guest: bool) -> Lodging:
    run = Lodging(engine, host_memory=16 * MIB)
    run.load_host(image)
    if with_guest:
        run.add(resident())
        run.run(3000, ForHost.STANDS_STILL)  # it has set itself up
    return run


def forced(run: Lodging, stride: int, *, with_guest: bool, to_the_end: bool = False) -> int:
    """A host to its end, in short runs, with a guest that stays before each of the first 2,000; returns their number.

    ``stride`` is `Stepper`'s: 0 is an instruction, 1 a basic block.
    """

    def visit() -> None:
        if with_guest and stepper.steps < INSTRUCTIONS:
            assert run.run(CYCLES, ForHost.STANDS_STILL).leave is Leave.TIME

    stepper = Stepper(run.machine, lambda: stride if to_the_end or stepper.steps < INSTRUCTIONS else NEVER, visit)
    assert run.machine.run(40_000_000) == 1
    return stepper.steps


def check_same(run: Lodging, alone: Lodging) -> None:
    """Nothing of the host tells that there was a guest: not one byte, not one cycle."""
    assert run.machine.processor.now == alone.machine.processor.now
    assert differences(everything(alone.machine.processor), everything(run.machine.processor)) == []
    assert run.machine.ram.view[: run.host_memory] == alone.machine.ram.view[: run.host_memory]
    assert run.machine.debug_output == alone.machine.debug_output
    assert run.words("turns")[0] > 20, "the guest did its work meanwhile"


def check_events(run: Lodging, image: Image) -> None:
    view, symbols = run.machine.ram.view, image.symbols
    ticks, faults = (int.from_bytes(view[symbols[name] :][:4], "little") for name in ("ticks", "seen"))
    assert ticks >= 5 and faults == 64, (ticks, faults)


def test_a_host_with_interrupts_and_page_faults_decoupled_at_every_instruction(engine: str) -> None:
    image = kernel(PAGING_HOST)
    # Where interrupts come depends on where the engine's basic blocks end: both go by single instructions.
    run, alone = (start(image, engine, with_guest=with_guest) for with_guest in (True, False))
    assert forced(run, 0, with_guest=True, to_the_end=True) >= INSTRUCTIONS
    forced(alone, 0, with_guest=False, to_the_end=True)
    check_same(run, alone)
    check_events(run, image)


def test_a_host_decoupled_at_every_block_against_one_that_is_never_stopped(engine: str) -> None:
    image = kernel(PAGING_HOST)
    run, alone = (start(image, engine, with_guest=with_guest) for with_guest in (True, False))
    assert 400 < forced(run, 1, with_guest=True) < INSTRUCTIONS
    assert alone.machine.run(40_000_000) == 1
    check_same(run, alone)
    check_events(run, image)


@pytest.mark.parametrize("name", ["real", "long", "v86"])
def test_a_host_of_another_mode_decoupled_at_every_instruction(name: str, engine: str) -> None:
    image = image_of(MODES / f"{name}.asm")
    run, alone = (start(image, engine, with_guest=with_guest) for with_guest in (True, False))
    assert forced(run, 0, with_guest=True) >= INSTRUCTIONS
    forced(alone, 0, with_guest=False)
    check_same(run, alone)


# -- the region, moved after every instruction ---------------------------------------------------


class Moved:
    """A guest by single instructions, whose region goes elsewhere after each of the first 2,000."""

    def __init__(self, image: Image, engine: str, *, moves: bool) -> None:
        self.stage = Stage(image, engine, memory=16 * MIB, pool_pages=2048, ram_size=64 * MIB)
        machine, space = self.stage.machine, self.stage.guest.space
        self.steps = 0
        self.places: set[int] = set()
        run = machine.run_processor

        def step(deadline: int) -> Stop:
            if self.steps >= INSTRUCTIONS:
                return run(deadline)
            self.steps += 1
            machine.processor.set_shadow(True)
            stop = run(min(deadline, machine.processor.now + 1))
            if moves:
                size = space.region.size
                top = space.hole()
                new = GVA(top - (1 + self.steps % 7) * size)
                space.move_region(new if space.mirror.space.is_free(new, size // PAGE_SIZE) else top)
                self.places.add(space.region.base)
            return stop

        machine.run_processor = step  # type: ignore[method-assign]
        self.status = self.stage.run(40_000_000)
        self.state = everything(machine.processor)
        self.cpu = self.stage.guest.cpu


@pytest.mark.parametrize("name", ["paging2", "long", "v86", "tasks"])
def test_a_region_that_moves_after_every_instruction(name: str) -> None:
    image = image_of(MODES / f"{name}.asm")
    still, moved = (Moved(image, "native", moves=moves) for moves in (False, True))
    assert moved.steps == INSTRUCTIONS and len(moved.places) > 5
    assert (moved.status, moved.stage.error) == (still.status, still.stage.error) == (1, None)
    assert moved.stage.output == still.stage.output
    assert moved.stage.guest_ram() == still.stage.guest_ram()
    assert moved.cpu.eip == still.cpu.eip and moved.cpu.eflags == still.cpu.eflags
    assert [moved.cpu.gpr(n) for n in range(16)] == [still.cpu.gpr(n) for n in range(16)]
    moved.stage.check_host_untouched()


def test_a_region_that_moves_on_the_portable_engine() -> None:
    image = image_of(MODES / "paging2.asm")
    moved = Moved(image, "portable", moves=True)
    expected = bare(image, memory=16 * MIB, limit=40_000_000)
    assert moved.status == expected.status == 1
    assert moved.stage.output == expected.machine.debug_output
    assert moved.stage.guest_ram() == expected.guest_ram()


def test_the_limit_is_still_seen() -> None:
    stage = Stage(resident())
    with pytest.raises(LimitReached):
        stage.run(5000)
