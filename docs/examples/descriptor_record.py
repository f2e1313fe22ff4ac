"""A record of every descriptor-table change: which table registers a guest loads, and what it stores in the tables.

LGDT, LIDT, LLDT and LTR trap, as the guest's kernel is deprivileged; each tells where its table is, and from then on
its pages are watched for stores.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvproto.addresses import GPA, PAGE_SIZE
from hvproto.bundled import kernel_path
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.write_watch import WriteWatch
from hvproto.images.load import load_image
from hvproto.processor.segments import TableRegister
from hvproto.processor.settings import Setting, describe
from hvproto.testing import ExceptionTaken, Hv

LOADS = {"lgdt": Setting.GDTR, "lidt": Setting.IDTR, "lldt": Setting.LDTR, "ltr": Setting.TR}


@dataclass(frozen=True)
class Loaded:
    at: str
    """The symbol that the instruction is near."""
    setting: str
    value: str


@dataclass(frozen=True)
class Stored:
    table: str
    index: int
    descriptor: int
    """As it is then, all 8 bytes."""


class DescriptorRecord:
    """Of a run that hasn't begun; for guests whose tables lie where their GVA is their GPA."""

    def __init__(self, hv: Hv) -> None:
        self._hv = hv
        self._tables: dict[str, TableRegister] = {}
        self._watch: WriteWatch | None = None
        self.changes: list[Loaded | Stored] = []
        hv.on(ExceptionTaken, where=lambda event: event.detail in LOADS)(self._loaded)

    def _loaded(self, event: ExceptionTaken) -> None:
        guest, setting = self._hv.guest, LOADS[event.detail]
        assert isinstance(guest, MirroredGuest) and event.eip is not None
        value = guest.cpu.read_setting(setting)
        place = guest.image.symbols.name_at(event.eip) or hex(event.eip)
        self.changes.append(Loaded(place, setting.name, describe(value)))
        if isinstance(value, TableRegister):
            self._tables[setting.name] = value
            self._watch = self._watch or guest.on_write((), self._stored)
            self._watch.add(range(value.base & -PAGE_SIZE, value.base + value.limit + 1, PAGE_SIZE))

    def _stored(self, gpa: GPA, size: int) -> None:
        for name, table in self._tables.items():
            first, last = max(gpa, table.base), min(gpa + size - 1, table.base + table.limit)
            for index in range((first - table.base) // 8, (last - table.base) // 8 + 1) if first <= last else ():
                descriptor = self._hv.read(table.base + 8 * index, 8)
                self.changes.append(Stored(name, index, descriptor))


def record(name: str = "guest") -> DescriptorRecord:
    hv = Hv(load_image(kernel_path("host")), load_image(kernel_path(name)))
    made = DescriptorRecord(hv)
    hv.run()
    return made


if __name__ == "__main__":
    for change in (made := record()).changes:
        print(change)
