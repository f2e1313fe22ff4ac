"""What a process of the host has mapped for its guest is never more than the guest's own tables give.

Read from RAM at each signal: the host's page table by a walk of the test's own, the guest's tables as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from hvproto.hypervisor.process_cpu import ProcessCpu, SignalFrame
from hvproto.processor.paging import Access, accessed_bits, fault_code, walk
from tests.hypervisor.test_application import host, session_of
from tests.hypervisor.test_twins import LIMIT, image_of

PRESENT, WRITABLE, USER = 1, 2, 4
KERNEL = range(0x0200_0000, 0x0400_0000)
TABLE = struct.Struct("<1024I")


def pages_of_programs(ram: memoryview, directory: int) -> Iterator[tuple[int, int, bool]]:
    """(linear, physical, writable) of what ring 3 may use outside the host kernel's addresses."""
    for index, entry in enumerate(TABLE.unpack_from(ram, directory)):
        if not entry & PRESENT or index << 22 in KERNEL:
            continue
        for number, page in enumerate(TABLE.unpack_from(ram, entry & ~0xFFF)):
            if page & PRESENT and page & USER:
                yield index << 22 | number << 12, page & ~0xFFF, bool(page & WRITABLE)


@pytest.mark.parametrize("name", ["ptwrites", "selfmap", "compare"])
def test_only_what_the_guests_tables_give(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session, seen = session_of(image_of(name))
    ram, directory = session.machine.ram.view, host().symbols["emulator_directory"]
    looked = pages = 0
    take = ProcessCpu.take

    def look(cpu: ProcessCpu, signal: SignalFrame) -> None:
        nonlocal looked, pages
        if not session.guests[0].space.tables_are_open:  # else a store to a page table is being let through
            mode, user = cpu.paging_mode, cpu.cpl == 3
            for linear, physical, writable in pages_of_programs(ram, directory):
                found = walk(mode, cpu.memory.read_entry, linear)
                access = Access.WRITE if writable else Access.READ
                assert found.physical == physical, f"{linear:#x}"  # the bundled host has guest-physical memory at 0
                assert fault_code(mode, found, access, user=user) is None, f"{linear:#x}"
                assert accessed_bits(mode, found, access) == [], f"{linear:#x}: A or D isn't set"
                pages += 1
            looked += 1
        take(cpu, signal)

    monkeypatch.setattr(ProcessCpu, "take", look)
    assert session.run(LIMIT) == 0
    assert looked > 100 and pages > 300
    if name != "compare":
        assert sum(event.kind == "PageTableWrite" for event in seen) > 2
