"""What the rows are measured against."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from unicorn import UC_ARCH_X86, UC_HOOK_INTR, UC_MODE_32, Uc
from unicorn import x86_const as x86

from bench import kernel
from bench.measure import Sizes
from hvproto.images.image import Image

QEMU = shutil.which("qemu-system-i386")
_EXITED = 1


def empty_hook(sizes: Sizes) -> float:
    """Y: seconds for one empty INTR hook through the binding's own `hook_add`."""
    count = sizes.of(50_000, 20_000)
    uc = Uc(UC_ARCH_X86, UC_MODE_32)
    uc.mem_map(0, 0x2000)
    uc.mem_write(0x1000, b"\xcd\x30\x49\x75\xfb\xf4")  # again: int 0x30; dec ecx; jnz again; hlt
    uc.hook_add(UC_HOOK_INTR, lambda _uc, _vector, _data: None)
    uc.reg_write(x86.UC_X86_REG_ECX, count)
    start = time.perf_counter()
    uc.emu_start(0x1000, 0)
    return (time.perf_counter() - start) / count


def raw(code: str, count: int) -> float:
    """Seconds for a load on plain Unicorn: flat 32-bit, no hooks."""
    image = kernel.counted(code, count, paging=False)
    uc = Uc(UC_ARCH_X86, UC_MODE_32)
    uc.mem_map(0, kernel.MEMORY)
    for segment in image.segments:
        uc.mem_write(segment.address, bytes(segment.data))
    uc.reg_write(x86.UC_X86_REG_ESP, 0x88000)
    first = image.symbols["again"]
    uc.reg_write(x86.UC_X86_REG_ECX, count)
    start = time.perf_counter()
    uc.emu_start(first, image.symbols["done"])
    return time.perf_counter() - start


def in_qemu(image: Image) -> float:
    """Seconds of a whole run of QEMU (TCG), its own start included. Raises OSError if it ends otherwise than asked."""
    assert QEMU is not None
    with tempfile.TemporaryDirectory() as folder:
        flat, path = image.segments[0], Path(folder, "kernel")
        path.write_bytes(_multiboot(image.entry, flat.address, bytes(flat.data)))
        command = [QEMU, "-accel", "tcg", "-m", "32", "-display", "none", "-serial", "none", "-kernel", str(path)]
        command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-no-reboot"]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, timeout=120)
        if done.returncode != _EXITED:
            raise OSError(f"QEMU ended with status {done.returncode}: {done.stderr.decode()[-200:]}")
        return time.perf_counter() - start


def _multiboot(entry: int, address: int, data: bytes) -> bytes:
    """A file that QEMU's -kernel takes: a header (multiboot 1 with addresses) below the kernel's first byte."""
    header, flags = address - 0x1000, 0x10000
    words = (0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFF_FFFF, header, header, address + len(data), 0, entry)
    return b"".join(word.to_bytes(4, "little") for word in words).ljust(0x1000, b"\0") + data
