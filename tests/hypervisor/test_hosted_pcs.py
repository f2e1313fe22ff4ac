"""The kernels that boot a PC, as guests: firmware and real mode, APICs, keyboard, screen and disk are the guest's own."""

from __future__ import annotations

from hvproto.images.load import load_image
from hvproto.machine.clock import CYCLES_PER_SECOND
from hvproto.machine.machine import Machine
from hvproto.machine.ram import MIB
from tests.hypervisor.stage import DISK, Stage, bare
from tests.hypervisor.twins import plain_kernel
from tests.support.boot_sectors import WELL, boot_sector
from tests.support.command import ROOT
from tests.support.samples import CYCLES, FILESYSTEM, TERMINAL, sample
from tools.make_filesystem import build

RAM = 16 * MIB
BOOT_SECTOR = ROOT / "guests" / "boot" / "bootsector.asm"


def stage(image, engine, **options) -> Stage:
    return Stage(image, engine, memory=RAM, pool_pages=2048, ram_size=64 * MIB, **options)


def test_a_boot_sector_from_real_mode_to_long_mode(engine: str) -> None:
    """The firmware's services, called from real mode at ring 3, and the disk that they read."""
    image = load_image(BOOT_SECTOR)
    alone = Machine(RAM, image.disk, second_disk=DISK, engine=engine)
    alone.boot_disk(image)
    status = alone.run(CYCLES)
    hosted = stage(image, engine)
    assert hosted.run(CYCLES) == status == 1
    assert bytes(hosted.output) == bytes(alone.debug_output) and b"long mode: ok\ndone\n" in hosted.output
    assert hosted.guest.screen.text == alone.screen.text
    hosted.check_host_untouched()


def test_apics_and_a_file_system_on_the_hosts_disk(engine: str) -> None:
    image, disk = sample(FILESYSTEM), build({"motd.txt": b"Welcome to the disk.\n"}, 96)
    alone = bare(image, engine, memory=RAM, limit=CYCLES, disk=disk)
    hosted = stage(image, engine, disk=disk)
    assert hosted.run(CYCLES) == alone.status
    lines, expected = (bytes(text).decode().splitlines() for text in (hosted.output, alone.output))
    # The count of the APIC's timer is a matter of when the interval timer was looked at.
    timer = next(number for number, line in enumerate(expected) if "counts" in line)
    assert lines[:timer] + lines[timer + 1 :] == expected[:timer] + expected[timer + 1 :]
    assert "filesystem: ok" in "\n".join(lines)
    assert abs(int(lines[timer].split()[6]) / (CYCLES_PER_SECOND / 100) - 1) < 0.002
    hosted.check_host_untouched()


def test_a_terminal_that_is_typed_to(engine: str) -> None:
    hosted = stage(sample(TERMINAL), engine)
    hosted.guest.type("echo Hi!\noff\n")
    assert hosted.run(CYCLES) == 0
    assert hosted.guest.screen.lines[1:4] == ["> echo Hi!", "Hi!", "> off"]
    assert b"\nHi!" in hosted.output


def test_a_reset_starts_the_firmware_again(engine: str) -> None:
    body = """
    inc byte ptr [0x6000]
    mov al, [0x6000]
    add al, '0'
    out 0xe9, al
    cmp byte ptr [0x6000], 3
    je .enough
    mov dx, 0xcf9
    mov al, 6
    out dx, al
.wait:
    jmp .wait
.enough:
    EXIT
"""
    hosted = stage(boot_sector(body), engine)
    assert hosted.run(CYCLES) == WELL
    assert hosted.output == b"123"


def test_without_firmware_a_reset_is_the_end(engine: str) -> None:
    hosted = stage(plain_kernel("mov dx, 0xcf9\nmov al, 6\nout dx, al\n.wait: jmp .wait"), engine)
    assert hosted.run(CYCLES) == 0
