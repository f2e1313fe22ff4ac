"""Other machines that run our kernels: QEMU by the multiboot header, Bochs from a ROM of ours.

From the command line: ``python -m tests.modes.machines qemu guests/modes/real.asm`` (or ``bochs``, or ``flat FILE``,
which writes the file that QEMU loads).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hvproto.images.assembly import assemble, assemble_text
from hvproto.images.image import Image

QEMU = "qemu-system-x86_64"
SECONDS = 30
"""How long an emulator may take."""

_ROM_CODE_SIZE = 0x10000
# The processor comes from reset at 0xfffffff0 in real mode; the rest is what a multiboot loader does.
_ROM_SOURCE = """
.origin 0xffff0000
.code16
begin:
    cli
    o32 lgdt cs:[gdt_pointer - 0xffff0000]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword 8:flat
.code32
flat:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    cld
    mov esi, IMAGE
    mov edi, LOAD
    mov ecx, SIZE
    rep movsd
    mov eax, 0x2badb002
    xor ebx, ebx
    jmp 8:ENTRY
.align 8
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .long gdt
    .org 0xfffffff0
.code16
    jmp near begin                          ; around the end of the segment
    .space 13, 0x90
"""

_BOCHSRC = """\
display_library: rfb, options="timeout=0"
romimage: file=rom, address={rom:#x}
vgaromimage: file=vga
megs: 32
cpu: model=corei7_skylake_x, count=1, ips=100000000, reset_on_triple_fault=0
clock: sync=none
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
speaker: enabled=0, mode=none
plugin_ctrl: unmapped=1, speaker=0
port_e9_hack: enabled=1
log: log
panic: action=fatal
error: action=report
info: action=report
debug: action=ignore
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a kernel printed, and how its machine ended: None if that machine has no exit status to give."""

    output: str
    status: int | None
    log: str = ""


def flat(image: Image) -> bytes:
    """The file for a multiboot loader: the image begins with its header (a.out kludge)."""
    (segment,) = image.segments
    return segment.data


def run_qemu(path: Path, processor: str = "") -> Outcome:
    """Runs a kernel on QEMU; ``processor`` is a model other than the default one."""
    with tempfile.TemporaryDirectory() as directory:
        file, output = Path(directory, "image"), Path(directory, "output")
        file.write_bytes(flat(assemble(path)))
        output.touch()
        command = [QEMU, "-kernel", str(file), "-debugcon", f"file:{output}", "-accel", "tcg", "-no-reboot"]
        command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        command += ["-display", "none", "-monitor", "none", "-serial", "none", "-net", "none"]
        command += ["-cpu", processor] if processor else []
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return Outcome(output.read_text("latin-1"), None, f"no end within {SECONDS} s")
        return Outcome(output.read_text("latin-1"), ended.returncode, ended.stderr)


NO_PORT = "could not bind any port"
PORT_ATTEMPTS = 8


def run_bochs(path: Path) -> Outcome:
    """Runs a kernel on Bochs, without BIOS and display.

    Bochs has no debug exit port: the kernel's last HLT, with interrupts off, ends the run.
    """
    for attempt in range(PORT_ATTEMPTS):
        outcome = _run_bochs_once(path)
        if NO_PORT not in outcome.log:
            break
        time.sleep(0.2 * (attempt + 1))  # its display listens on one of 50 ports, which others may have just now
    return outcome


def _run_bochs_once(path: Path) -> Outcome:
    image = assemble(path)
    with tempfile.TemporaryDirectory() as directory:
        where = Path(directory)
        rom = _rom(flat(image), image.start, image.entry)
        (where / "rom").write_bytes(rom)
        (where / "vga").write_bytes(_empty_option_rom())
        (where / "debugger").write_text("c\nq\n", "ascii")
        (where / "bochsrc").write_text(_BOCHSRC.format(rom=(1 << 32) - len(rom)), "ascii")
        with open(where / "output", "wb") as output:
            command = ["bochs", "-q", "-f", "bochsrc", "-rc", "debugger"]
            process = subprocess.Popen(
                command, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL
            )
            end = time.monotonic() + SECONDS
            while process.poll() is None and time.monotonic() < end and not _halted(where / "log"):
                time.sleep(0.05)
            process.kill()
            process.wait()
        # The debugger's own greeting comes first and ends with the instruction at the reset vector.
        printed = (where / "output").read_text("latin-1").partition("jmp .+13")[2].partition("\n")[2]
        return Outcome(printed, None, (where / "log").read_text("latin-1"))


def _halted(log: Path) -> bool:
    return log.exists() and "HLT instruction with IF=0" in log.read_text("latin-1")


def _rom(image: bytes, load: int, entry: int) -> bytes:
    """A ROM for the end of the first 4 GiB: copies the image to ``load`` and goes to ``entry``, flat and protected."""
    padded = image + bytes(-len(image) % 0x1000)
    padded += bytes(-(len(padded) + _ROM_CODE_SIZE) % 0x20000)
    return padded + _rom_code((1 << 32) - _ROM_CODE_SIZE - len(padded), len(padded) // 4, load, entry)


@cache
def _rom_code(image: int, size: int, load: int, entry: int) -> bytes:
    values = f".equ IMAGE, {image:#x}\n.equ SIZE, {size:#x}\n.equ LOAD, {load:#x}\n.equ ENTRY, {entry:#x}\n"
    return assemble_text(values + _ROM_SOURCE, "rom").segments[0].data


def _empty_option_rom() -> bytes:
    """A VGA BIOS that does nothing: 512 bytes that add up to 0 (PCI Firmware Specification 3.0, 5.2.1)."""
    rom = bytearray(b"\x55\xaa\x01\xcb" + bytes(508))
    rom[-1] = -sum(rom) & 0xFF
    return bytes(rom)


def available(name: str) -> bool:
    """Whether an emulator is installed."""
    return shutil.which(name) is not None


def main(arguments: list[str]) -> int:
    what, path, *rest = arguments
    if what == "flat":
        Path(rest[0]).write_bytes(flat(assemble(path)))
        return 0
    outcome = run_bochs(Path(path)) if what == "bochs" else run_qemu(Path(path), *rest)
    print(outcome.output, end="")
    print(f"[{what}: status {outcome.status}]")
    if what == "bochs":
        print("\n".join(line for line in outcome.log.splitlines() if "e[CPU0" in line or "p[" in line))
    else:
        print(outcome.log[-1500:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
