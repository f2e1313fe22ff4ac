"""Guests saved as plain data, destroyed and rebuilt from that at every exit: the run doesn't notice."""

from __future__ import annotations

import pickle
from functools import cache
from pathlib import Path

import pytest

from hvproto.addresses import HPA, PAGE_SIZE
from hvproto.errors import Unsupported
from hvproto.hypervisor.device_state import StateError
from hvproto.hypervisor.guest import Leave
from hvproto.hypervisor.plan import Provider
from hvproto.hypervisor.stay import ForHost, Stay, spare_frames
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.machine.ram import MIB
from tests.hypervisor.lodger import MEMORY, Lodging, logging_kernel
from tests.hypervisor.test_exit_handlers import BODY, only
from tests.support.command import ROOT

MODES = ROOT / "guests" / "modes"
BOOT_SECTOR = ROOT / "guests" / "boot" / "bootsector.asm"
PAGES = MEMORY // PAGE_SIZE


@cache
def image_of(path: Path) -> Image:
    return load_image(path)


class Rebuilt(Lodging):
    """A guest that lives in its state only: after each stay all else is thrown away."""

    def __init__(self, engine: str, image: Image, memory: int = MEMORY, plan: str = "mirrored") -> None:
        super().__init__(engine, plan, guest_memory=memory)
        frames = spare_frames(self.machine, memory // PAGE_SIZE + 512)
        self.pool, self.frames = frames[:512], frames[512:][::-1]
        guest = self.hypervisor.add_guest(image, self.frames, self.pool)
        self.image = image
        self.guest = guest  # type: ignore[assignment]
        self.rebuilt = 0

    def rebuild(self) -> None:
        state = pickle.loads(pickle.dumps(self.hypervisor.save_guest(self.guest)))
        self.hypervisor.remove_guest(self.guest)
        view = self.machine.ram.view
        old, self.frames = self.frames, self.frames[1:] + self.frames[:1]  # it comes to lie elsewhere, too
        for frame in old + self.pool:
            view[frame : frame + PAGE_SIZE] = b"\xdb" * PAGE_SIZE
        self.guest = self.hypervisor.rebuild_guest(0, state, self.frames, self.pool)
        self.rebuilt += 1

    def turns(self, cycles: int, times: int) -> Stay:
        """Stays of so many cycles, the guest rebuilt after each of them; then to the end."""
        for _ in range(times):
            stay = self.run(cycles, ForHost.STANDS_STILL)
            if stay.leave is not Leave.TIME:
                return stay
            self.rebuild()
        return self.run(40_000_000, ForHost.STANDS_STILL)


def compare(
    image: Image, engine: str, cycles: int, times: int, memory: int = MEMORY, besides: tuple[int, ...] = ()
) -> Rebuilt:
    """A guest with and without being rebuilt: all the same, time aside, and the stack pages that it leaves its trace on."""
    still, rebuilt = Rebuilt(engine, image, memory), Rebuilt(engine, image, memory)
    expected = still.turns(cycles, 0)
    found = rebuilt.turns(cycles, times)
    assert (found.leave, found.status, str(found.error)) == (expected.leave, expected.status, str(expected.error))
    assert rebuilt.printed == still.printed
    ours, theirs = (
        [run.guest.memory.read(at, PAGE_SIZE) for at in range(0, memory, PAGE_SIZE)] for run in (rebuilt, still)
    )
    assert [
        hex(n * PAGE_SIZE) for n, page in enumerate(ours) if page != theirs[n] and n * PAGE_SIZE not in besides
    ] == []
    assert [rebuilt.guest.cpu.gpr(n) for n in range(1, 4)] == [still.guest.cpu.gpr(n) for n in range(1, 4)]
    return rebuilt


def test_a_guest_with_events_rebuilt_at_every_exit(engine: str) -> None:
    run = compare(assemble_text(logging_kernel(BODY)), engine, 1, 150)
    assert run.rebuilt > 15
    assert [vector for vector, _, _ in run.log] == [6, 48, 13]


DEVICES = """
        mov al, 0x11                        ; 8259s
        out 0x20, al
        mov al, 0x30
        out 0x21, al
        mov al, 4
        out 0x21, al
        mov al, 1
        out 0x21, al
        mov al, 0xfe
        out 0x21, al
        mov al, 0x34                        ; 8254
        out 0x43, al
        mov al, 200
        out 0x40, al
        mov al, 0
        out 0x40, al
        mov dx, 0x3fb                       ; UART: divisor, line, scratch
        mov al, 0x83
        out dx, al
        mov dx, 0x3f8
        mov al, 3
        out dx, al
        mov dx, 0x3fb
        mov al, 3
        out dx, al
        mov dx, 0x3ff
        mov al, 0x5a
        out dx, al
        mov al, 0x0b                        ; clock chip: register B
        out 0x70, al
        in al, 0x71
        mov [result + 4], al
        mov al, 0x20                        ; keyboard controller: its command byte
        out 0x64, al
1:      in al, 0x64
        test al, 1
        jz 1b
        in al, 0x60
        mov [result + 5], al
        mov dword ptr [0xfee000f0], 0x1ff   ; local APIC, I/O APIC
        mov dword ptr [0xfee00350], 0x700
        mov dword ptr [0xfec00000], 0x12
        mov eax, [0xfec00010]
        mov [result + 8], eax
        mov dx, 0x1f6                       ; disk: sector 3
        mov al, 0xe0
        out dx, al
        mov dx, 0x1f2
        mov al, 1
        out dx, al
        inc dx
        mov al, 3
        out dx, al
        mov dx, 0x1f7
        mov al, 0x20
        out dx, al
2:      in al, dx
        test al, 0x80
        jnz 2b
        mov dx, 0x1f0
        mov ecx, 256
        mov edi, 0x170000
        rep insw
        fninit
        fldpi
        fldl2e
        mov eax, cr4
        or eax, 0x600
        mov cr4, eax
        mov eax, 0x1234567
        movd xmm3, eax
        mov eax, 0x100000
        mov dr1, eax
        sti
3:      mov eax, [ticks]
        cmp eax, 6
        jb 3b
        hlt
        cli
        fmulp
        fstp qword ptr [result + 16]
        movd [result + 24], xmm3
        mov eax, dr1
        mov [result + 28], eax
        mov dx, 0x3ff
        in al, dx
        mov [result + 12], al
        mov al, 0x2b
        mov dx, 0x3f8
        out dx, al
        jmp finish
tick:   push eax
        inc dword ptr [ticks]
        mov al, 0x20
        out 0x20, al
        pop eax
        iretd
ticks:  .long 0
"""


def devices_kernel() -> Image:
    text = (
        logging_kernel(DEVICES).replace("GATE 48, h48", "GATE 48, tick").replace("result: .long 0", "result: .space 64")
    )
    return assemble_text(text)


def test_every_device_rebuilt_in_the_middle_of_its_work(engine: str) -> None:
    run = compare(devices_kernel(), engine, 40, 150, besides=(0x17F000,))
    assert run.rebuilt > 100 and run.words("ticks")[0] >= 7 and run.printed == b"+"
    assert run.guest.memory.read(0x170000, 4) == bytes([0, 1, 2, 3])
    scratch, _, product, _ = run.words("result", 7)[3:7]
    assert scratch & 0xFF == 0x5A and product and run.words("result", 8)[6:] == [0x1234567, 0x100000]


@pytest.mark.parametrize("name", ["paging2", "long", "v86", "tasks"])
def test_guests_of_other_modes_rebuilt(name: str) -> None:
    run = compare(image_of(MODES / f"{name}.asm"), "native", 300, 40, 4 * MIB)
    assert run.rebuilt == 40


def test_a_guest_with_firmware_rebuilt_between_its_boot_sector_and_long_mode(engine: str) -> None:
    run = compare(image_of(BOOT_SECTOR), engine, 120, 150, 4 * MIB)
    assert run.rebuilt == 150 and run.guest.pc.bios is not None and b"long mode: ok" in run.printed


def test_a_guest_without_room_rebuilt_with_its_small_region() -> None:
    from tests.hypervisor.test_region_policy import GREEDY, HOLE

    image = assemble_text(logging_kernel(GREEDY.format(free=1, hole=HOLE)))
    run = Rebuilt("native", image, plan="mirrored,region=shrink")
    stay = run.turns(2500, 10)
    assert stay.status == 0 and run.rebuilt >= 3 and run.guest.region.layout.is_one_page
    assert run.words("result") == [0xCAFE] and run.printed == b"*"


def test_routes_go_along_and_handlers_do_not(engine: str) -> None:
    run = Rebuilt(engine, assemble_text(logging_kernel(BODY)))
    run.guest.routes[48] = Provider.HOST
    run.guest.on_exit(only(6, None))
    run.rebuild()
    assert run.guest.routes[48] is Provider.HOST and run.guest.exit_policy.handlers == ()
    assert run.run().leave is Leave.EVENT
    with pytest.raises(Unsupported, match="waits for its host's answer"):
        run.hypervisor.save_guest(run.guest)


def test_a_state_of_another_machine_is_refused() -> None:
    run = Rebuilt("native", assemble_text(logging_kernel(BODY)))
    state = run.hypervisor.save_guest(run.guest)
    with pytest.raises(ValueError, match="512 pages"):
        run.hypervisor.rebuild_guest(0, state, [HPA(frame) for frame in run.frames[:100]], run.pool)
    other = Lodging("native")
    other.hypervisor.images.append(load_image(BOOT_SECTOR))
    if other.hypervisor.images[0].kind == "disk":
        frames = spare_frames(other.machine, PAGES + 256)
        with pytest.raises(StateError, match="built otherwise"):
            other.hypervisor.rebuild_guest(0, state, frames[256:], frames[:256])


LAST_WORDS = """
        cmp dword ptr [turns], 8
        jb turn
        fnsave [0x150000]
        movups [0x150100], xmm7
        movups [0x150110], xmm1
        stmxcsr [0x150120]
        mov eax, dr7
        mov [0x150124], eax
        mov ecx, 0xc0000102
        rdmsr
        mov [0x150128], eax
        cli
        hlt
"""


def test_a_guest_that_uses_every_register_rebuilt(engine: str) -> None:
    """Its FPU and SSE registers and control words among them."""
    source = (Path(__file__).parent / "resident.asm").read_text().replace("        jmp turn\n", LAST_WORDS)
    run = compare(assemble_text(source), engine, 12, 150, besides=(0x17F000,))
    assert run.rebuilt > 100
    words = run.guest.memory.read(0x150100, 0x30)
    assert words is not None
    assert int.from_bytes(words[:4], "little") == 8 * 0x1234 and words[0x20:0x24] == bytes.fromhex("807f0000")
    assert int.from_bytes(words[0x28:0x2C], "little") == 0x13579B00
