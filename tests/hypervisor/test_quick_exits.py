"""What is answered in the engine's run, against the same done by an exit each: nothing that a guest can see differs."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hvproto.bundled import find
from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.machine.ram import MIB
from hvproto.processor import private_layout
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import Setting
from tests.hypervisor.hosted import PAGING, kernel
from tests.hypervisor.stage import Stage, bare
from tests.support.beginnings import PICS_AT_40, TICKS
from tests.support.command import ROOT

pytestmark = pytest.mark.skipif(private_layout.self_check() is not None, reason="no native engine here")

MEMORY, LIMIT = 16 * MIB, 40_000_000
KERNELS = [*sorted((ROOT / "guests" / "modes").glob("*.asm")), *(find(name).path for name in ("guest", "guest64"))]


def _state(cpu: VirtualCpu) -> dict[str, Any]:
    state: dict[str, Any] = {setting.name: cpu.read_setting(setting) for setting in Setting}
    state |= {register.name: cpu.segment(register) for register in SegmentRegister}
    state |= {"eflags": cpu.eflags, "cr2": cpu.cr2, "shadow": cpu.in_interrupt_shadow, "NMI": cpu.nmi_blocked}
    state |= {f"r{number}": cpu.gpr(number) for number in range(16)} | {"eip": cpu.eip, "now": cpu.now}
    return state


def run(image: Image, *, listens: bool, enabled: bool = True, decides: bool = True) -> tuple[int, dict[str, Any]]:
    """How many exits were handled quickly, and all that there is to be compared at the guest's end."""
    stage = Stage(image, "native", memory=MEMORY, pool_pages=2048, ram_size=64 * MIB)
    guest, processor = stage.guest, stage.machine.processor
    if not listens:
        stage.bus.unsubscribe(stage.events.append)
    guest.quick.enabled, guest.quick.decides = enabled, decides
    processor.count_instructions()
    status = stage.run(LIMIT)
    processor.restore_context(guest.kept_registers)
    guest.settle(LIMIT)
    clock = guest.pc.board.clock
    found = {
        "status": (status, str(stage.error or "")), "output": bytes(stage.output), "memory": stage.guest_ram(),
        "time": processor.now, "instructions": processor.instructions, "agenda": sorted(entry[0] for entry in clock.agenda if not entry[2].cancelled),
        "unclaimed": guest.board.ports.unclaimed, "interrupts": guest.board.pit.raised,
        "state": _state(guest.cpu),
    }  # fmt: skip
    return guest.quick.count, found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    different = [name for name in one if one[name] != other[name]]
    if "state" in different:
        different += differences(one["state"], other["state"])
    return different


def check_alike(image: Image) -> tuple[int, dict[str, Any]]:
    """Unheard, with Python asked, heard, and with each exit the plain way: the same. Returns the first."""
    count, unheard = run(image, listens=False)
    asked_count, asked = run(image, listens=False, decides=False)
    some, heard = run(image, listens=True)
    none, plain = run(image, listens=False, enabled=False)
    assert differences(unheard, plain) == [] and differences(asked, plain) == []
    assert asked_count == count
    assert differences(heard, plain) == []
    assert none == 0 and count > some
    return count, unheard


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_kernel_is_the_same_whoever_listens(path: Any) -> None:
    check_alike(load_image(path))


IDT = """
    mov eax, handler
    mov [0x3000 + {vector} * 8], ax
    mov word ptr [0x3002 + {vector} * 8], cs
    mov word ptr [0x3004 + {vector} * 8], 0x8e00
    shr eax, 16
    mov [0x3006 + {vector} * 8], ax
"""
DESCRIPTORS = """
    lgdt [gdtr]
    lidt [idtr]
    jmp 0x08:1f
1:  mov eax, 0x10
    mov ss, eax
    mov ds, eax
    mov es, eax
"""
END = """
    mov al, 0
    out 0xf4, al
    hlt
.align 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:
    .word 0x17
    .long gdt
idtr:
    .word 0x7ff
    .long 0x3000
"""


def accesses(seed: int, count: int, ports: tuple[int, ...]) -> str:
    """IN and OUT in all their forms, at random; what is in EAX behind each is left in memory from 0x8000 on."""
    draw = random.Random(seed)
    lines = ["mov edi, 0x8000"]
    for _ in range(count):
        port = draw.choice(ports)
        operand = draw.choice(("al", "ax", "eax"))
        by_byte = port < 0x100 and draw.random() < 0.5
        name = f"{port:#x}" if by_byte else "dx"
        lines += [f"mov eax, {draw.getrandbits(32):#x}", f"mov edx, {draw.getrandbits(16) << 16 | port:#x}"]
        lines.append(draw.choice((f"in {operand}, {name}", f"out {name}, {operand}")))
        lines += ["mov [edi], eax", "add edi, 4"]
        lines += draw.choices(["nop", "add eax, edx", "xor ebx, eax"], k=draw.randrange(3))
    return "\n".join(lines)


UNTIMED = (0x3FB, 0x3FF, 0x3FC, 0x21, 0xA1, 0x70, 0x72, 0x80, 0x1000, 0xCF8, 0xE9, 0x1F2, 0x3D4)
"""The scratch and line registers of COM1, masks, CMOS index, nobody, PCI's index, text, a disk's count, the CRTC."""


@pytest.mark.parametrize("paging", ["", PAGING], ids=["no paging", "paging"])
@pytest.mark.parametrize("seed", range(3))
def test_ports_in_all_forms_give_what_they_give_alone(seed: int, paging: str) -> None:
    image = kernel(paging + accesses(seed, 120, UNTIMED) + END)
    count, found = check_alike(image)
    assert count > 100
    alone = bare(image, memory=MEMORY, limit=LIMIT)
    assert found["status"] == (alone.status, "") == (1, "")
    assert found["output"] == bytes(alone.machine.debug_output)
    assert found["memory"][0x8000:0x9000] == alone.guest_ram()[0x8000:0x9000]


TIMED = (*UNTIMED, 0x40, 0x42, 0x61, 0x71, 0x3F8, 0x3FA, 0x3FD, 0x3F9, 0x20, 0xA0, 0x60, 0x64, 0x1F7)


START = f"""
    {PICS_AT_40}
    mov al, 4                           ; all but those of the second chip
    out 0x21, al
    {TICKS}
    mov ebp, 0x20000
    sti
    nop
"""
HANDLER = """
handler:
    push eax
    mov eax, [esp + 4]
    mov [ebp], eax
    mov eax, [esp + 12]
    mov [ebp + 4], eax
    mov [ebp + 8], edi
    add ebp, 12
    mov al, 0x20
    out 0x20, al
    pop eax
    iretd
"""


def with_timer(body: str, ticks: int) -> Image:
    """A kernel with the timer at this period; its handler leaves (return address, EFLAGS, EDI) from 0x20000 on."""
    gates = "".join(IDT.format(vector=vector) for vector in range(0x40, 0x48))
    return kernel(DESCRIPTORS + gates + START.format(ticks=ticks) + body + END + HANDLER)


@pytest.mark.parametrize("seed", range(6))
def test_interrupts_of_devices_that_are_being_programmed_come_at_the_same_instruction(seed: int) -> None:
    """STI and CLI among accesses to timer, COM1 and PIC; the handler leaves where and when it was called."""
    draw = random.Random(seed)
    lines = accesses(seed, 150, tuple(port for port in TIMED if port not in (0x21, 0x20, 0xA1, 0x64))).split("\n")
    body: list[str] = []
    for line in lines:
        body.append(line)
        if line.startswith("add edi"):
            body += draw.choice((["sti"], ["sti", "sti"], ["cli"], ["sti", "nop", "cli"], ["sti", "cli"], [], []))
    body.append("cli")
    image = with_timer("\n".join(body), draw.randrange(20, 90))
    count, found = check_alike(image)
    assert count > 15
    assert found["status"] == (1, ""), found["status"][1]
    assert found["memory"][0x20000:0x20004] != bytes(4), "no interrupt came"


@pytest.mark.parametrize("ticks", range(20, 26))
def test_no_interrupt_comes_between_sti_and_the_next_instruction(ticks: int) -> None:
    image = with_timer("mov edi, 6000\nagain: cli\nsti\nbehind: nop\nnop\ndec edi\njnz again\ncli", ticks)
    _, found = check_alike(image)
    assert found["status"] == (1, ""), found["status"][1]
    frames = memoryview(found["memory"][0x20000:0x22000]).cast("I")
    returns = [address for address in frames[::3] if address]
    assert len(returns) > 10
    assert image.symbols["behind"] not in returns
