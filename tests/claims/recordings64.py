"""Recordings for claims 1-8 with 64-bit guests: runs with notes of processor and RAM, and what a guest stores by itself."""

from __future__ import annotations

from types import SimpleNamespace

import capstone
from unicorn import unicorn_const as uc_const
from unicorn import x86_const

from hvproto.hypervisor.monitor import Monitor
from tests.claims import wide

LMA = 1 << 10
"""EFER: long mode is active."""


def watched(hosted, look, guest, whole=1):
    """A run in the plan `mirrored`, with a note of processor and RAM at every event of the page tables.

    At every ``whole``-th place where the mirror has just been brought up to date, all of it is compared. Nothing is
    noted before the guest has its four-level table in use.
    """
    run = hosted(guest)
    root = run.guest_image.symbols["pml4"]
    run.notes, run.settled, run.in_use = [], 0, False

    def begin():
        run.in_use = True

    run.at(run.guest_image.symbols["paging" if guest != "guest64" else "main"], begin)

    def note(event):
        if not run.in_use:
            return
        if event.kind in ("PageTableWrite", "Conflict", "NoConflict", "Relocated", "ExceptionTaken"):
            entry = SimpleNamespace(event=event, registers=run.registers())
            if event.kind in ("Relocated", "NoConflict"):
                run.settled += 1
                if run.settled % whole == 1 % whole:
                    entry.differences = wide.differences_of_mirror(
                        run.ram, entry.registers, look.region(entry.registers), root, exact=guest == "over64"
                    )
            if event.kind in ("Relocated", "Conflict"):
                entry.region = look.region(entry.registers)
                entry.overlap = [at for at in entry.region.pages if wide.is_mapped(run.ram, root, at)]
                entry.pages = [wide.look_up(run.ram, entry.registers.cr3, at) for at in entry.region.pages]
            if event.kind == "Conflict":
                entry.guest_maps_conflict = wide.is_mapped(run.ram, root, event.address)
            run.notes.append(entry)

    run.bus.subscribe(note)
    return run


def notes(run, *names):
    return [note for note in run.notes if note.event.kind in names]


COPIED = ("pml4", "low_pdpt", "high_pdpt", "edge_pdpt", "directory", "low_table", "demand_table", "top_directory",
          "edge_directory", "fourth_directory", "spare_table")  # fmt: skip
PLACES = ("program_div_next", "check_accessed_and_dirty", "map_first_pages", "map_whole_slot", "fill_upper_half",
          "compare_slots", "give_back", "touch_slot", "stop")  # fmt: skip


def copies_of_tables(run, symbols):
    """(place, the guest's page tables as they are in RAM) each time `guest64` is there."""
    copies = []

    def copy(place):
        copies.append((place, [bytes(run.ram[symbols[name] : symbols[name] + 4096]) for name in COPIED]))

    for place in PLACES:
        run.at(symbols[place], lambda place=place: copy(place))
    return copies


def switch_monitor_off(monkeypatch):
    """Stores are still caught and done, but nobody hears of them."""
    real = Monitor.drain

    def drain(self):
        real(self)
        return []

    monkeypatch.setattr(Monitor, "drain", drain)


CODE_MODES = {0x08: capstone.CS_MODE_64, 0x18: capstone.CS_MODE_32, 0x20: capstone.CS_MODE_16}
"""By code selector of the two guests."""


def stores_of(bare, guest):
    """What a guest alone on the machine stores to page tables in use: the addresses of the bytes, and by which code.

    A store beyond the end of `table` of `aliases64` goes on in its neighbour by the alias.
    """
    run = bare(guest)
    uc, ram, symbols = run.machine.processor.engine.uc, run.ram, run.image.symbols
    decoders = {selector: capstone.Cs(capstone.CS_ARCH_X86, mode) for selector, mode in CODE_MODES.items()}
    addresses, kinds = [], set()

    def tables(root):
        found, last = {root}, {root}
        for level in range(3):
            entries = {entry for table in last for entry in memoryview(ram[table : table + 4096]).cast("Q")}
            last = {entry & wide.FRAME for entry in entries if entry & 1 and (level == 0 or not entry & wide.PS)}
            found |= last
        return found

    def on_store(_uc, _access, address, size, _value, _data):
        if not uc.msr_read(0xC000_0080) & LMA:
            return
        if address & ~0xFFF not in tables(uc.reg_read(x86_const.UC_X86_REG_CR3)):
            return
        selector, rip = uc.reg_read(x86_const.UC_X86_REG_CS), uc.reg_read(x86_const.UC_X86_REG_RIP)
        instruction = next(decoders[selector].disasm(bytes(ram[rip : rip + 15]), rip, 1))
        kinds.add((instruction.mnemonic, selector, size, (address & 0xFFF) + size > 0x1000))
        for at in range(address, address + size):
            crossed = guest == "aliases64" and at >> 12 != address >> 12
            addresses.append(symbols["other_table"] + (at & 0xFFF) if crossed else at)

    uc.hook_add(uc_const.UC_HOOK_MEM_WRITE, on_store, begin=0, end=len(ram) - 1)
    run.execute()
    return addresses, kinds, run


def stores_seen(run):
    """The bytes that the monitor reports, in order; one that it repeats alone after a wider report counts once."""
    found = []
    wider = range(0)
    for event in run.named("PageTableWrite"):
        if event.size == 1 and event.gpa in wider:
            continue
        found += range(event.gpa, event.gpa + event.size)
        wider = range(event.gpa, event.gpa + event.size) if event.size > 1 else range(0)
    return found
