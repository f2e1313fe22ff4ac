"""The processor itself walks a mirror: real code at ring 3 in it does what it would do alone, to the last A and D bit.

The region is four pages here: stubs that halt, an IDT, GDT and TSS, a stack. What enters stub 14 is carried out as by
the hypervisor (guest's tables walked, A and D set, page synced) or is the guest's own fault; HLT, which is
privileged, ends a program. The control is the same code at ring 0 over the guest's own tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from hvproto.addresses import GPA, HPA, PAGE_SIZE
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.mirror import Mirror
from hvproto.hypervisor.pool import Pool
from hvproto.hypervisor.relocation import find_hole
from hvproto.images.assembly import assemble_text
from hvproto.machine.ram import MIB, Ram
from hvproto.processor.paging import Access, accessed_bits, fault_code, walk
from hvproto.processor.processor import Processor, Stop
from hvproto.processor.segments import Segment, SegmentRegister, TableRegister, encode_descriptor
from hvproto.processor.settings import (
    CR0_ET,
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    EFLAGS_FIXED,
    Setting,
)
from tests.hypervisor.mirror_model import NX, P, Paging, U, W, check, shuffled_frames
from tests.support.bench import CODE0, CODE3, DATA0, DATA3, NEVER, SEGMENTS, TSS_ATTRIBUTES, TSS_SELECTOR
from tests.support.long_mode import WIDE0, WIDE_CODE0, WIDE_CODE3

MEMORY = 40
ROOT, FIRST_TABLE, CODE, DATA = 0x1000, 0x2000, 0xA000, 0x14000
HIGH = 0xFFFF_8000_1234_5000
LOW = 0x4000_5000
PAGINGS = [
    Paging("none"),
    Paging("2-level", ROOT),
    Paging("2-level", ROOT, wp=False),
    Paging("pae", ROOT),
    Paging("4-level", ROOT),
    Paging("4-level", ROOT, wp=False),
]
PROGRAM = "mov eax, [{b}]\nmov [{c}], eax\ninc dword ptr [{d}]\nmov esi, [{di}]\nhlt"
NAMES_32 = {"b": "ebx", "c": "ecx", "d": "edx", "di": "edi"}
NAMES_64 = {"b": "rbx", "c": "rcx", "d": "rdx", "di": "rdi"}


@dataclass(frozen=True)
class Fault:
    """The guest's own page fault."""

    linear: int
    error_code: int


class Guest:
    """Tables, code and data of a guest in scattered memory, and a processor in long mode with its mirror."""

    def __init__(self, paging: Paging, engine: str, *, kernel: bool = True) -> None:
        self.paging, self.is_kernel = paging, kernel
        self.ram = Ram(2 * MIB).view
        frames = shuffled_frames(200, 7, len(self.ram))
        self.memory = GuestMemory(self.ram, frames[:MEMORY])
        self.region_frames = frames[MEMORY : MEMORY + 4]
        self.pool = Pool(self.ram, frames[MEMORY + 4 :])
        self.tables = FIRST_TABLE
        self.cpu = Processor(self.ram, engine)
        self.wide = paging.kind == "4-level"
        for number in range(20):
            self.memory.write(DATA + number * PAGE_SIZE, bytes([number + 1]) * PAGE_SIZE)

    @property
    def at(self) -> int:
        """Where the guest's code is in its linear space; its data follow."""
        return CODE if self.paging.kind == "none" else HIGH if self.wide else LOW

    def map(self, linear: int, gpa: int, flags: int) -> None:
        """A page in the guest's tables, made as needed; no A bit is set."""
        if self.paging.kind == "none":
            return
        table, size = self.paging.cr3, self.paging.entry_size
        for level, shift in enumerate(self.paging.levels):
            place = table + (linear >> shift) % self.paging.entries_at(level) * size
            if level == len(self.paging.levels) - 1:
                self.memory.write(place, (gpa | flags).to_bytes(size, "little"))
                return
            entry = self.memory.read_entry(place, size)
            if not entry:
                upper = P if self.paging.kind == "pae" and level == 0 else P | W | U
                entry = self.tables | upper
                self.tables += PAGE_SIZE
                self.memory.write(place, entry.to_bytes(size, "little"))
            table = entry & ~0xFFF

    def code(self, text: str) -> None:
        names = NAMES_64 if self.wide else NAMES_32
        image = assemble_text(f".code{64 if self.wide else 32}\n{text.format(**names)}", origin=0)
        self.memory.write(CODE, image.segments[0].data)

    # -- the hypervisor ----------------------------------------------------------------------

    def _enter(self) -> None:
        self.mirror = Mirror(self.ram, self.pool, self.memory, self.paging.mode)
        self.mirror.sync_range(0, 1 << (48 if self.wide else 32))
        base = self.base = find_hole(self.mirror.space, 4)
        self.mirror.set_region(base, self.region_frames, 1)
        stubs, idt, tables, _ = self.region_frames
        for vector in range(256):
            self.ram[stubs + 16 * vector] = 0xF4
            offset = base + 16 * vector
            low = offset & 0xFFFF | WIDE0 << 16 | 0xEE << 40 | (offset >> 16 & 0xFFFF) << 48
            self._quads(HPA(idt + 16 * vector), low, offset >> 32)
        gdt, tss = base + 2 * PAGE_SIZE, base + 2 * PAGE_SIZE + 0x800
        segments = [SEGMENTS[n] for n in (CODE0, DATA0, CODE3, DATA3)] + [WIDE_CODE0, WIDE_CODE3]
        for segment in segments:
            self._quads(HPA(tables + (segment.selector & ~7)), encode_descriptor(segment))
        self._quads(HPA(tables + 0x804), base + 4 * PAGE_SIZE)
        cpu = self.cpu
        for setting, value in (
            (Setting.CR4, CR4_PAE),
            (Setting.EFER, EFER_LME | EFER_LMA | EFER_NXE),
            (Setting.CR3, (self.mirror.kernel if self.is_kernel else self.mirror.user).root),
            (Setting.CR0, CR0_PE | CR0_ET | CR0_PG | CR0_WP),
            (Setting.IDTR, TableRegister(base + PAGE_SIZE, 0xFFF)),
            (Setting.GDTR, TableRegister(gdt, 0x7FF)),
            (Setting.TR, Segment(TSS_SELECTOR, tss, 0x67, TSS_ATTRIBUTES)),
        ):
            cpu.write_setting(setting, value)

    def _quads(self, hpa: HPA, *values: int) -> None:
        data = b"".join(value.to_bytes(8, "little") for value in values)
        self.ram[hpa : hpa + len(data)] = data

    def run(self, *registers: int) -> Fault | None:
        """Run the code at ring 3 to its HLT, or to a fault that its own tables make."""
        self._enter()
        for number, value in zip((3, 1, 2, 7), registers, strict=True):
            self.cpu.set_gpr(number, value)
        rip, rsp, flags = self.at, 0, EFLAGS_FIXED
        for _ in range(50):
            self._resume(rip, rsp, flags)
            assert self.cpu.run(NEVER) is Stop.HALT
            vector = (self.cpu.eip - 1 - self.base) // 16
            top = self.region_frames[3] + self.cpu.esp - (self.base + 3 * PAGE_SIZE)
            code, rip, _, flags, rsp, _ = (
                int.from_bytes(self.ram[at : at + 8], "little") for at in range(top, top + 48, 8)
            )
            if vector == 13:
                assert code == 0
                return None
            assert vector == 14, f"vector {vector}, error code {code:#x}"
            fault = self._page_fault(self.cpu.cr2, code)
            if fault is not None:
                return fault
        raise AssertionError("the same page faults again and again")

    def _resume(self, rip: int, rsp: int, flags: int) -> None:
        data = SEGMENTS[DATA3]
        others = {r: data for r in SegmentRegister if r is not SegmentRegister.CS}
        self.cpu.set_segments({SegmentRegister.CS: WIDE_CODE3 if self.wide else SEGMENTS[CODE3], **others})
        self.cpu.eip, self.cpu.esp, self.cpu.eflags = rip, rsp, flags

    def _page_fault(self, linear: int, code: int) -> Fault | None:
        access = Access.FETCH if code & 0x10 else Access.WRITE if code & 2 else Access.READ
        mode = self.paging.mode
        found = walk(mode, self.memory.read_entry, linear)
        error = fault_code(mode, found, access, user=not self.is_kernel)
        if error is not None:
            return Fault(linear, error)
        for at, bits in accessed_bits(mode, found, access):
            self.memory.set_bits(at, bits)
        if access is Access.FETCH:
            assert found.physical is not None
            self.mirror.allow_fetches(linear, GPA(found.physical & ~0xFFF), kernel=self.is_kernel)
        self.mirror.sync_page(linear & ~0xFFF)
        self.cpu.engine.flush_tlb()
        return None

    def guest_ram(self) -> bytes:
        data = self.memory.read(0, self.memory.size)
        assert data is not None
        return data


def alone(guest: Guest, engine: str, *registers: int) -> tuple[bytes, list[int]]:
    """The same memory, code and tables on a processor of their own, at ring 0; what is in RAM and registers after it."""
    ram = Ram(1 * MIB).view
    ram[: guest.memory.size] = guest.guest_ram()
    cpu = Processor(ram, engine)
    mode = guest.paging.mode
    for setting, value in ((Setting.CR4, mode.cr4), (Setting.EFER, mode.efer), (Setting.CR3, mode.cr3)):
        cpu.write_setting(setting, value)
    cpu.write_setting(Setting.CR0, mode.cr0 | CR0_PE | CR0_ET)
    data = SEGMENTS[DATA0]
    others = {r: data for r in SegmentRegister if r is not SegmentRegister.CS}
    cpu.set_segments({SegmentRegister.CS: WIDE_CODE0 if guest.wide else SEGMENTS[CODE0], **others})
    for number, value in zip((3, 1, 2, 7), registers, strict=True):
        cpu.set_gpr(number, value)
    cpu.eip, cpu.eflags = guest.at, EFLAGS_FIXED
    assert cpu.run(NEVER) is Stop.HALT
    return bytes(ram[: guest.memory.size]), [cpu.gpr(number) for number in (0, 6)]


@pytest.mark.parametrize("paging", PAGINGS, ids=lambda p: f"{p.kind}{'' if p.wp else '-no-wp'}")
def test_code_in_a_mirror_does_what_it_does_alone(paging: Paging, engine: str) -> None:
    guest = Guest(paging, engine)
    guest.map(guest.at, CODE, P)
    places = []
    for number in range(4):
        linear = DATA + number * PAGE_SIZE if paging.kind == "none" else guest.at + (1 + number) * PAGE_SIZE
        writable = number in (1, 2) and paging.wp
        guest.map(linear, DATA + number * PAGE_SIZE, P | (W if writable else 0))
        places.append(linear + 8 * number)
    guest.code(PROGRAM)
    expected, registers = alone(guest, engine, *places)
    assert guest.run(*places) is None
    assert guest.guest_ram() == expected
    assert [guest.cpu.gpr(number) for number in (0, 6)] == registers == [0x01010101, 0x04040404]
    region = {guest.base + n * PAGE_SIZE: frame for n, frame in enumerate(guest.region_frames)}
    looked_at = {True: {guest.at: CODE}}
    pages = list(range(0, MEMORY * PAGE_SIZE, PAGE_SIZE))
    check(guest.mirror, paging, guest.ram, pages, region=region, executable=looked_at)


REFUSED = [
    pytest.param(True, P, 0, "mov eax, [{b}]", None, id="supervisor page, for the kernel"),
    pytest.param(False, P | W, 0, "mov eax, [{b}]", 5, id="supervisor page, for a program"),
    pytest.param(False, P | U, 0, "mov [{b}], eax", 7, id="read-only page, for a program"),
    pytest.param(True, P, 0, "mov [{b}], eax", 3, id="read-only page, for the kernel"),
    pytest.param(True, W | U, 0, "mov [{b}], eax", 2, id="absent page"),
    pytest.param(True, P | W | U, 1 << 45, "mov eax, [{b}]", 9, id="reserved bit"),
    pytest.param(True, P | W | U, NX, "jmp {b}", 0x11, id="no-execute page"),
    pytest.param(False, P | U, NX, "jmp {b}", 0x15, id="no-execute page, for a program"),
]


@pytest.mark.parametrize("kind", ["pae", "4-level"])
@pytest.mark.parametrize(("kernel", "flags", "extra", "text", "error"), REFUSED)
def test_what_the_guests_tables_refuse_is_the_guests_fault(
    kind: str, kernel: bool, flags: int, extra: int, text: str, error: int | None, engine: str
) -> None:
    guest = Guest(Paging(kind, ROOT), engine, kernel=kernel)
    guest.map(guest.at, CODE, P | U)
    place = guest.at + PAGE_SIZE
    guest.map(place, DATA, flags | extra)
    guest.code(f"{text}\nhlt")
    fault = guest.run(place, 0, 0, 0)
    assert fault == (None if error is None else Fault(place, error))
    assert guest.memory.read(DATA, PAGE_SIZE) == b"\1" * PAGE_SIZE


@pytest.mark.parametrize("paging", PAGINGS[1:], ids=lambda p: f"{p.kind}{'' if p.wp else '-no-wp'}")
@pytest.mark.parametrize("text", ["mov eax, [{b}]", "mov [{b}], eax", "jmp {b}"])
def test_the_region_is_out_of_the_guests_reach(paging: Paging, text: str, engine: str) -> None:
    guest = Guest(paging, engine)
    guest.map(guest.at, CODE, P | W | U)
    guest.code(f"{text}\nhlt")
    place = find_hole(Mirror(guest.ram, guest.pool, guest.memory, paging.mode).space, 4) + 2 * PAGE_SIZE
    fault = guest.run(place, 0, 0, 0)
    assert guest.base + 2 * PAGE_SIZE == place
    code = {"mov eax, [{b}]": 0, "mov [{b}], eax": 2, "jmp {b}": 0x10 if paging.entry_size == 8 else 0}[text]
    assert fault == Fault(place, code), "as if nothing were there"
