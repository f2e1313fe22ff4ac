"""A 64-bit ELF kernel is loaded at its physical addresses and entered as any other, in 32-bit protected mode."""

from __future__ import annotations

from pathlib import Path

from hvproto.images.assembly import assemble
from hvproto.images.load import load_image
from hvproto.machine.machine import Machine
from tests.images.elf_builder import Elf, Load
from tests.modes.test_kernels import ALL_WELL, CYCLES, FOLDER, RAM, expected

HIGH = 0xFFFFFFFF80000000


def test_an_elf64_kernel_goes_its_way_to_long_mode(tmp_path: Path, engine: str) -> None:
    image = assemble(FOLDER / "long.asm")
    (segment,) = image.segments
    # Linked for the higher half, as 64-bit kernels are; e_entry is the physical address of its 32-bit beginning.
    load = Load(HIGH + segment.address, segment.data, physical=segment.address, memory_size=segment.size)
    path = tmp_path / "kernel"
    path.write_bytes(bytes(Elf([load], entry=image.entry, file_class=2)))
    loaded = load_image(path)
    assert (loaded.kind, loaded.start, loaded.entry) == ("multiboot", segment.address, image.entry)
    machine = Machine(RAM, engine=engine)
    machine.load(loaded)
    assert (machine.run(CYCLES), machine.debug_output.decode()) == (ALL_WELL, expected("long"))
