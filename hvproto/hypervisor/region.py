"""The hypervisor's own mapped pages: vector stubs, IDT, TSS, stack, GDTs, save area.

The region is real. IDTR, GDTR, TR and the gates point into it, the stubs are code that the
processor executes, and if it isn't mapped where they say, the processor shuts down. Moving it
changes the linear address of everything and the frames of nothing.

    page 0   256 stubs of 16 bytes: push 0 (where the processor pushes no error code); push vector;
             hlt; add esp, 8; iretd
    page 1   IDT (2 KiB), TSS, and above it the stack, growing down from the end of the page
    page 2   GDT of the kernel view: the guest's descriptors with DPL 3
    page 3   GDT of the user view: the guest's descriptors as they are
    page 4   save area
"""

from __future__ import annotations

import struct

from hvproto.addresses import GVA, HPA, PAGE_SIZE
from hvproto.hypervisor.plan import VECTORS, Plan, Provider
from hvproto.processor.engine import VECTORS_WITH_ERROR_CODE
from hvproto.processor.segments import (
    PRESENT,
    RPL_MASK,
    TABLE_INDICATOR,
    TSS32_AVAILABLE,
    Segment,
    TableRegister,
    decode_descriptor,
    encode_descriptor,
    encode_gate,
    flat,
)

PAGES = 5
CODE_PAGES = 1
STUB_SIZE = 16
TSS_OFFSET = 0x800
TSS_LIMIT = 0x67
STACK_TOP = 0x1000
GDT_ENTRIES = PAGE_SIZE // 8

# The hypervisor's own descriptors stand at the end of each GDT page, out of a guest's usual way.
CODE_SELECTOR = (GDT_ENTRIES - 3) * 8
DATA_SELECTOR = (GDT_ENTRIES - 2) * 8
TSS_SELECTOR = (GDT_ENTRIES - 1) * 8
# The guest's CS and SS, where its table no longer holds what it has loaded.
STAND_IN_CODE = (GDT_ENTRIES - 5) * 8
STAND_IN_STACK = (GDT_ENTRIES - 4) * 8
GUEST_GDT_LIMIT = STAND_IN_CODE - 1
"""The last byte of a guest GDT that there is room for."""

KICK_VECTOR = 0xFF
"""Used by the hypervisor itself to bring a running guest into a stub; no `int 0xff` is lost by it,
since the way in tells them apart."""

SOFTWARE_EXCEPTIONS = (3, 4)
"""INT3 and INTO: ring 3 may raise these vectors by an instruction."""


def _stub(vector: int) -> bytes:
    fake_error = b"" if vector in VECTORS_WITH_ERROR_CODE else b"\x6a\x00"
    code = fake_error + b"\x68" + struct.pack("<I", vector) + b"\xf4" + b"\x83\xc4\x08" + b"\xcf"
    return code.ljust(STUB_SIZE, b"\xcc")


class Region:
    """The region's frames and where they are mapped now (``base``, a GVA)."""

    def __init__(self, ram: memoryview, frames: list[HPA]) -> None:
        if len(frames) != PAGES:
            raise ValueError(f"the region has {PAGES} pages, not {len(frames)}")
        self._ram = ram
        self.frames = frames
        self.base = GVA(0)
        for vector in range(VECTORS):
            at = frames[0] + vector * STUB_SIZE
            ram[at : at + STUB_SIZE] = _stub(vector)
        tss = frames[1] + TSS_OFFSET
        struct.pack_into("<I", ram, tss + 8, DATA_SELECTOR)
        struct.pack_into("<H", ram, tss + 0x66, TSS_LIMIT + 1)  # no I/O bitmap: every port traps
        for gdt in frames[2:4]:
            self._set_descriptor(gdt, CODE_SELECTOR, encode_descriptor(flat(CODE_SELECTOR, code=True, dpl=0)))
            self._set_descriptor(gdt, DATA_SELECTOR, encode_descriptor(flat(DATA_SELECTOR, code=False, dpl=0)))
        self._foreign_gates: dict[int, bytes] = {}
        self.rebase(self.base)

    @property
    def size(self) -> int:
        return len(self.frames) * PAGE_SIZE

    @property
    def save_area(self) -> HPA:
        """HPA of the save area."""
        return self.frames[4]

    def contains(self, linear: int) -> bool:
        return self.base <= linear < self.base + self.size

    def _set_descriptor(self, gdt: HPA, selector: int, descriptor: int) -> None:
        struct.pack_into("<Q", self._ram, gdt + selector, descriptor)

    # -- settings ----------------------------------------------------------------------------

    @property
    def idtr(self) -> TableRegister:
        return TableRegister(self.base + PAGE_SIZE, VECTORS * 8 - 1)

    @property
    def tr(self) -> Segment:
        return Segment(TSS_SELECTOR, self.base + PAGE_SIZE + TSS_OFFSET, TSS_LIMIT, PRESENT | TSS32_AVAILABLE << 8)

    def gdtr(self, *, kernel: bool) -> TableRegister:
        """The GDT of a view."""
        return TableRegister(self.base + (2 if kernel else 3) * PAGE_SIZE, PAGE_SIZE - 1)

    @property
    def stack_top(self) -> GVA:
        return GVA(self.base + PAGE_SIZE + STACK_TOP)

    def stub(self, vector: int) -> GVA:
        """Where the gate of a vector points."""
        return GVA(self.base + vector * STUB_SIZE)

    def after_halt(self, vector: int) -> GVA:
        """Where the processor stands after the stub's HLT; running on from here returns to the guest."""
        fake_error = 0 if vector in VECTORS_WITH_ERROR_CODE else 2
        return GVA(self.stub(vector) + fake_error + 6)

    def rebase(self, base: GVA) -> None:
        """Make every linear address that the region's tables hold fit this place."""
        self.base = base
        ram, (_, tables, *gdts, _) = self._ram, self.frames
        for vector in range(VECTORS):
            # Ring 3 may come in by INT n where no error code is pushed. The architectural
            # exceptions stay closed, so that INT 14 is a #GP and no page fault without a code.
            open_to_user = vector >= 32 or vector in SOFTWARE_EXCEPTIONS
            gate = encode_gate(CODE_SELECTOR, self.stub(vector), dpl=3 if open_to_user else 0)
            at = tables + vector * 8
            ram[at : at + 8] = self._foreign_gates.get(vector, gate.to_bytes(8, "little"))
        struct.pack_into("<I", ram, tables + TSS_OFFSET + 4, self.stack_top)
        for gdt in gdts:
            self._set_descriptor(gdt, TSS_SELECTOR, encode_descriptor(self.tr))

    def route(self, plan: Plan, gates: dict[Provider, bytes]) -> None:
        """Point the vectors that the plan routes past the hypervisor at their owners' own handlers.

        ``gates`` holds the host's and the guest's IDT as bytes; a vector beyond the end of its
        owner's table gets a gate that isn't present.
        """
        self._foreign_gates = {
            vector: gates[provider][vector * 8 : vector * 8 + 8].ljust(8, b"\0")
            for vector in range(VECTORS)
            if (provider := plan.route(vector)) is not Provider.HYPERVISOR and provider in gates
        }
        self.rebase(self.base)

    # -- the guest's descriptors -------------------------------------------------------------

    def set_guest_descriptor(self, index: int, *, kernel: int, user: int) -> None:
        """Descriptor number ``index`` of the guest, as each view is to have it."""
        if index * 8 <= GUEST_GDT_LIMIT:
            self._set_descriptor(self.frames[2], index * 8, kernel)
            self._set_descriptor(self.frames[3], index * 8, user)

    def guest_descriptor(self, selector: int) -> Segment | None:
        """What the guest's table says of a selector, as last copied; None where nothing can be loaded."""
        at = selector & ~RPL_MASK
        if selector & TABLE_INDICATOR or at > GUEST_GDT_LIMIT:
            return None
        (descriptor,) = struct.unpack_from("<Q", self._ram, self.frames[3] + at)
        return decode_descriptor(selector, descriptor) if descriptor else None

    def selector_for(self, segment: Segment, stand_in: int, *, kernel: bool) -> int:
        """A selector, RPL 3, under which a view's GDT holds this segment: the guest's own, or else the stand-in."""
        selector = segment.selector | RPL_MASK
        loaded = encode_descriptor(segment.with_dpl(3) if kernel else segment)
        gdt = self.frames[2 if kernel else 3]
        at = selector & ~RPL_MASK
        if not selector & TABLE_INDICATOR and at <= GUEST_GDT_LIMIT:
            (held,) = struct.unpack_from("<Q", self._ram, gdt + at)
            if held == loaded:
                return selector
        self._set_descriptor(gdt, stand_in, loaded)
        return stand_in | RPL_MASK

    # -- the frame of an exit ----------------------------------------------------------------

    @property
    def _frame(self) -> int:
        # EIP CS EFLAGS ESP SS, error code, vector: seven words below the top of the stack.
        return self.frames[1] + STACK_TOP - 28

    def read_frame(self) -> tuple[int, ...]:
        """(vector, error code, EIP, CS, EFLAGS, ESP, SS) as the stub's stack holds them."""
        return struct.unpack_from("<7I", self._ram, self._frame)

    def write_frame(self, eip: int, cs: int, eflags: int, esp: int, ss: int) -> None:
        """What the stub's IRET will load."""
        struct.pack_into("<5I", self._ram, self._frame + 8, eip, cs, eflags, esp, ss)

    @property
    def halted_esp(self) -> GVA:
        """ESP in a stub after its HLT."""
        return GVA(self.stack_top - 28)
