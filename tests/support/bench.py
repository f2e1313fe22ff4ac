"""A processor on a bench: tables built in RAM, real code under test, and handlers that say what arrived.

Every vector's gate leads to a stub that is a single HLT at ring 0, so each delivery ends `Processor.run` with the
frame on the stack and nothing else changed.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.machine.ram import MIB, Ram
from hvproto.processor.processor import Processor, Stop
from hvproto.processor.segments import (
    ACCESSED,
    CODE,
    CONFORMING,
    DEFAULT_BIG,
    PRESENT,
    READABLE,
    S_BIT,
    WRITABLE,
    Segment,
    SegmentRegister,
    TableRegister,
    encode_descriptor,
    encode_gate,
    flat,
)
from hvproto.processor.settings import CR0_ET, CR0_PE, EFLAGS_FIXED, Setting

GDT = 0x1000
LDT = 0x1800
IDT = 0x2000
TSS = 0x3000
TSS_LIMIT = 0x2068
BITMAP = TSS + 0x68
STUBS = 0x6000
KERNEL_STACK = 0x9000
USER_STACK = 0xB000
DATA = 0x10000
ORIGIN = 0x20000
NEVER = 1 << 40

CODE0, DATA0, CODE3, DATA3, TSS_SELECTOR = 0x08, 0x10, 0x1B, 0x23, 0x28
CONFORMING0, ABSENT_CODE, ABSENT_DATA, ABSENT_STACK = 0x30, 0x38, 0x43, 0x48
LDT_SELECTOR, READ_ONLY0, BASED_CODE, STACK16, STACK_DPL3 = 0x50, 0x58, 0x60, 0x68, 0x20
BASE_OF_CODE = 0x8000
TSS_ATTRIBUTES = PRESENT | 0x900

_DATA = DEFAULT_BIG | PRESENT | S_BIT | WRITABLE | ACCESSED
_CODE = DEFAULT_BIG | PRESENT | S_BIT | CODE | READABLE | ACCESSED
SEGMENTS = {
    CODE0: flat(CODE0, code=True, dpl=0),
    DATA0: flat(DATA0, code=False, dpl=0),
    CODE3: flat(CODE3, code=True, dpl=3),
    DATA3: flat(DATA3, code=False, dpl=3),
    TSS_SELECTOR: Segment(TSS_SELECTOR, TSS, TSS_LIMIT, TSS_ATTRIBUTES),
    CONFORMING0: Segment(CONFORMING0, 0, 0xFFFF_FFFF, flat(0, code=True, dpl=0).attributes | CONFORMING),
    ABSENT_CODE: Segment(ABSENT_CODE, 0, 0xFFFFF, _CODE & ~PRESENT),
    ABSENT_DATA: Segment(ABSENT_DATA, 0, 0xFFFFF, _DATA & ~PRESENT | 3 << 13),
    ABSENT_STACK: Segment(ABSENT_STACK, 0, 0xFFFFF, _DATA & ~PRESENT),
    LDT_SELECTOR: Segment(LDT_SELECTOR, LDT, 0xFF, PRESENT | 0x200),
    READ_ONLY0: Segment(READ_ONLY0, 0, 0xFFFFF, _DATA & ~WRITABLE),
    BASED_CODE: Segment(BASED_CODE, BASE_OF_CODE, 0xFFFFF, _CODE),
    STACK16: Segment(STACK16, 0, 0xFFFF, _DATA & ~DEFAULT_BIG),
}


@dataclass(frozen=True)
class Arrival:
    """An event at its handler: the vector, and the frame's doublewords from ESP upwards."""

    vector: int
    frame: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Arrival({self.vector}, {', '.join(map(hex, self.frame))})"


class Bench:
    """A processor at ring 0 in flat protected mode, with a GDT, an IDT of stubs and a TSS."""

    def __init__(self, engine: str, ram_size: int = MIB) -> None:
        self.ram = Ram(ram_size)
        self.view = self.ram.view
        self.cpu = Processor(self.view, engine)
        for segment in SEGMENTS.values():
            self.describe(segment)
        for vector in range(256):
            self.gate(vector)
            self.view[STUBS + 16 * vector] = 0xF4
        self.store(TSS + 4, KERNEL_STACK, DATA0)
        self.store(TSS + 0x64, 0x68 << 16)
        self.view[BITMAP : TSS + TSS_LIMIT + 1] = b"\xff" * (TSS + TSS_LIMIT + 1 - BITMAP)
        cpu = self.cpu
        cpu.write_setting(Setting.GDTR, TableRegister(GDT, 0x7FF))
        cpu.write_setting(Setting.IDTR, TableRegister(IDT, 0x7FF))
        cpu.write_setting(Setting.TR, SEGMENTS[TSS_SELECTOR])
        cpu.write_setting(Setting.CR0, CR0_PE | CR0_ET)
        self.ring(0)
        cpu.eflags = EFLAGS_FIXED
        self.image: Image | None = None

    # -- tables ------------------------------------------------------------------------------

    def describe(self, segment: Segment, table: int = GDT) -> None:
        """Put a segment's descriptor where its selector points to."""
        self.store(table + (segment.selector & ~7), *_halves(encode_descriptor(segment)))

    def gate(
        self,
        vector: int,
        selector: int = CODE0,
        *,
        dpl: int = 3,
        trap: bool = False,
        present: bool = True,
        wide: bool = True,
        target: int | None = None,
    ) -> None:
        """An interrupt or trap gate, by default to the vector's stub; ``wide=False`` makes it a 16-bit one."""
        offset = STUBS + 16 * vector if target is None else target
        gate = encode_gate(selector, offset, dpl=dpl, trap=trap, present=present)
        if not wide:
            gate = gate & ~(8 << 40) & 0xFFFF_FFFF_FFFF
        self.store(IDT + 8 * vector, *_halves(gate))

    # -- memory ------------------------------------------------------------------------------

    def store(self, physical: int, *values: int) -> None:
        """Doublewords to physical memory."""
        for index, value in enumerate(values):
            self.view[physical + 4 * index : physical + 4 * index + 4] = (value & 0xFFFF_FFFF).to_bytes(4, "little")

    def load(self, physical: int, count: int = 1) -> tuple[int, ...]:
        """Doublewords from physical memory."""
        data = bytes(self.view[physical : physical + 4 * count])
        return tuple(int.from_bytes(data[i : i + 4], "little") for i in range(0, 4 * count, 4))

    # -- running -----------------------------------------------------------------------------

    def code(self, text: str, origin: int = ORIGIN) -> Image:
        """Assemble into RAM and put EIP at its first instruction."""
        image = assemble_text(text, origin=origin)
        for segment in image.segments:
            self.view[segment.address : segment.end] = segment.data + bytes(segment.size - len(segment.data))
        self.cpu.engine.flush_code()
        self.cpu.eip = image.entry
        self.image = image
        return image

    def ring(self, level: int) -> None:
        """Flat segments of privilege level 0 or 3, and a stack."""
        code, data = (SEGMENTS[CODE3], SEGMENTS[DATA3]) if level else (SEGMENTS[CODE0], SEGMENTS[DATA0])
        others = {r: data for r in SegmentRegister if r is not SegmentRegister.CS}
        self.cpu.set_segments({SegmentRegister.CS: code, **others})
        self.cpu.esp = USER_STACK if level else KERNEL_STACK

    def go(self, text: str, level: int = 0, **registers: int) -> Stop:
        """Run code from its start at a privilege level until it halts or something arrives."""
        self.ring(level)
        self.code(text)
        self.set(**registers)
        return self.cpu.run(NEVER)

    def go_again(self, level: int = 0, **registers: int) -> Stop:
        """The same code as the last time, and with what the engine has in its TLB: new code is flushed from there."""
        assert self.image is not None
        self.ring(level)
        self.cpu.eip = self.image.entry
        self.set(**registers)
        return self.cpu.run(NEVER)

    def set(self, **registers: int) -> None:
        """Set general registers, ``eflags`` and ``eip`` by name."""
        names = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
        for name, value in registers.items():
            if name in names:
                self.cpu.set_gpr(names.index(name), value)
            else:
                setattr(self.cpu, name, value)

    def arrival(self, words: int = 6) -> Arrival:
        """What arrived at the stub where the processor halted."""
        cpu = self.cpu
        offset = cpu.eip - 1 - STUBS
        assert 0 <= offset < 0x1000 and offset % 16 == 0, f"no stub was reached: EIP is {cpu.eip:#x}"
        data = cpu.read_bytes(cpu.stack.base + cpu.esp, 4 * words)
        return Arrival(offset // 16, tuple(int.from_bytes(data[i : i + 4], "little") for i in range(0, 4 * words, 4)))

    def provoke(self, text: str, level: int = 0, words: int = 6, **registers: int) -> Arrival:
        """Run code until something arrives at a stub."""
        stop = self.go(text, level, **registers)
        assert stop is Stop.HALT
        return self.arrival(words)

    def symbol(self, name: str) -> int:
        assert self.image is not None
        return self.image.symbols[name]


def _halves(value: int) -> tuple[int, int]:
    return value & 0xFFFF_FFFF, value >> 32
