"""The hypervisor's own mapped pages: vector stubs, IDT, TSS, stack, GDTs, save area.

The region is real. IDTR, GDTR, TR and the gates point into it, the stubs are code that the
processor executes, and if it isn't mapped where they say, the processor shuts down. Moving it
changes the linear address of everything and the frames of nothing. What stands where is a `Layout`,
and how gates and stubs look a `Form`.

The GDTs hold the guest's descriptors: in the kernel view with DPL 3, in the user view as they are.
"""

from __future__ import annotations

import struct
from functools import cache, lru_cache
from typing import NamedTuple

from hvproto.addresses import GVA, HPA, PAGE_MASK, PAGE_SIZE
from hvproto.hypervisor.layout import FULL, Layout
from hvproto.hypervisor.plan import VECTORS, Plan, Provider
from hvproto.hypervisor.region_form import LONG_FORM, STUB_SIZE, Form
from hvproto.processor.segments import PRESENT, TSS32_AVAILABLE, Segment, TableRegister, encode_descriptor, flat

SOFTWARE_EXCEPTIONS = (3, 4)
"""INT3 and INTO: ring 3 may raise these vectors by an instruction."""


class Frame(NamedTuple):
    """What the stub's stack holds while it halts."""

    vector: int
    error_code: int
    eip: int
    cs: int
    eflags: int
    esp: int
    ss: int


@cache
def _stubs(form: Form, vectors: int) -> bytes:
    return b"".join(map(form.stub, range(vectors)))


@lru_cache(maxsize=16)
def _gates(form: Form, selector: int, stubs: GVA, vectors: int) -> bytes:
    """An IDT: each guest's region begins at the same place, and most of them stay there."""
    gates = []
    for vector in range(vectors):
        # Ring 3 may come in by INT n where no error code is pushed. The architectural
        # exceptions stay closed, so that INT 14 is a #GP and no page fault without a code.
        open_to_user = vector >= 32 or vector in SOFTWARE_EXCEPTIONS
        gates.append(form.gate(selector, stubs + vector * STUB_SIZE, dpl=3 if open_to_user else 0))
    return b"".join(gates)


class Region:
    """The region's frames and where they are mapped now (``base``, a GVA)."""

    def __init__(self, ram: memoryview, frames: list[HPA], layout: Layout = FULL, form: Form = LONG_FORM) -> None:
        if len(frames) != layout.pages:
            raise ValueError(f"this region has {layout.pages} pages, not {len(frames)}")
        self._ram = ram
        self._form = form
        self.layout = layout
        self.frames = frames
        self.base = GVA(0)
        self._store(layout.stubs, _stubs(form, layout.vectors))
        # No I/O bitmap: every port traps.
        self._store(layout.tss + form.io_map_base, struct.pack("<H", form.tss_size))
        for gdt in (layout.gdt_kernel, layout.gdt_user):
            self._store_word(gdt + layout.code_selector, encode_descriptor(form.code(layout.code_selector)))
            self._store_word(
                gdt + layout.data_selector, encode_descriptor(flat(layout.data_selector, code=False, dpl=0))
            )
        self._foreign_gates: dict[int, bytes] = {}
        self.rebase(self.base)

    @property
    def pages(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.frames) * PAGE_SIZE

    @property
    def save_area(self) -> HPA:
        """HPA of the save area."""
        return self._place(self.layout.save_area)

    def contains(self, linear: int) -> bool:
        return self.base <= linear < self.base + self.size

    # -- its memory --------------------------------------------------------------------------

    def _place(self, offset: int) -> HPA:
        """HPA of a byte of the region."""
        return HPA(self.frames[offset // PAGE_SIZE] | offset & PAGE_MASK)

    def _store(self, offset: int, data: bytes) -> None:
        while data:
            at, size = self._place(offset), min(len(data), PAGE_SIZE - (offset & PAGE_MASK))
            self._ram[at : at + size] = data[:size]
            offset, data = offset + size, data[size:]

    def _store_word(self, offset: int, value: int) -> None:
        self._store(offset, value.to_bytes(8, "little"))

    # -- settings ----------------------------------------------------------------------------

    @property
    def idtr(self) -> TableRegister:
        return TableRegister(self.base + self.layout.idt, self.layout.vectors * self._form.gate_size - 1)

    @property
    def tr(self) -> Segment:
        attributes = PRESENT | TSS32_AVAILABLE << 8
        return Segment(self.layout.tss_selector, self.base + self.layout.tss, self._form.tss_size - 1, attributes)

    def gdtr(self, *, kernel: bool) -> TableRegister:
        """The GDT of a view."""
        layout = self.layout
        return TableRegister(self.base + (layout.gdt_kernel if kernel else layout.gdt_user), layout.gdt_size - 1)

    @property
    def stack_top(self) -> GVA:
        return GVA(self.base + self.layout.stack_top)

    def cycles_to_halt(self, vector: int) -> int:
        """What the stub takes of virtual time before it halts."""
        return self._form.cycles_to_halt(vector)

    def stub(self, vector: int) -> GVA:
        """Where the gate of a vector points."""
        return GVA(self.base + self.layout.stubs + vector * STUB_SIZE)

    def rebase(self, base: GVA) -> None:
        """Make every linear address that the region's tables hold fit this place."""
        self.base = base
        layout, form = self.layout, self._form
        self._store(layout.idt, _gates(form, layout.code_selector, self.stub(0), layout.vectors))
        for vector, gate in self._foreign_gates.items():
            if vector < layout.vectors:
                self._store(layout.idt + vector * form.gate_size, gate)
        for offset, field in form.stack_fields(self.stack_top, layout.data_selector):
            self._store(layout.tss + offset, field)
        for gdt in (layout.gdt_kernel, layout.gdt_user):
            self._store(gdt + layout.tss_selector, form.system_descriptor(self.tr))

    def route(self, plan: Plan, gates: dict[Provider, bytes]) -> None:
        """Point the vectors that the plan routes past the hypervisor at their owners' own handlers.

        ``gates`` holds the host's and the guest's IDT as bytes, in the form of this region's own; a vector beyond the
        end of its owner's table gets a gate that isn't present.
        """
        size = self._form.gate_size
        self._foreign_gates = {
            vector: gates[provider][vector * size : (vector + 1) * size].ljust(size, b"\0")
            for vector in range(VECTORS)
            if (provider := plan.route(vector)) is not Provider.HYPERVISOR and provider in gates
        }
        self.rebase(self.base)

    # -- the guest's descriptors -------------------------------------------------------------

    def set_guest_descriptor(self, index: int, *, kernel: int, user: int) -> None:
        """Descriptor number ``index`` of the guest, as each view is to have it."""
        if index * 8 <= self.layout.guest_gdt_limit:
            self._store_word(self.layout.gdt_kernel + index * 8, kernel)
            self._store_word(self.layout.gdt_user + index * 8, user)

    # -- the frame of an exit ----------------------------------------------------------------

    def place_of_frame(self) -> tuple[struct.Struct, HPA]:
        """How a frame lies in RAM, and where: that never changes."""
        frame = self._form.frame
        return frame, HPA(self._place(self.layout.stack_top - 1) + 1 - frame.size)

    def read_frame(self) -> Frame:
        """What the processor and the stub have pushed: seven words below the top of the stack."""
        frame = self._form.frame
        last = self._place(self.layout.stack_top - 1)
        return Frame(*frame.unpack_from(self._ram, last + 1 - frame.size))
