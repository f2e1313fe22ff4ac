"""A guest without a host kernel around it, in either plan: what a host would do between two stays is done here."""

from __future__ import annotations

import time

from hvproto.addresses import HPA, PAGE_SIZE
from hvproto.errors import World
from hvproto.events import EventBus
from hvproto.hypervisor.coupling import Coupling
from hvproto.hypervisor.direct import DirectGuest
from hvproto.hypervisor.guest import Guest, Leave
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.host_functions import ReadBlock, Write
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.save_area import SaveArea
from hvproto.images.image import Image
from hvproto.machine.disk_image import SECTOR_SIZE
from hvproto.machine.machine import Machine
from hvproto.processor.settings import Setting

POOL = 2048
"""Pages for mirrors."""
FOREVER = 1 << 60


class Rig:
    """One guest with ``memory`` bytes from GPA 0 on, and the time that its runs took."""

    def __init__(
        self,
        image: Image,
        memory: int,
        *,
        direct: bool = False,
        bus: EventBus | None = None,
        pool: int = POOL,
        disk: bytes = b"",
    ) -> None:
        """``disk``: the host's, which a guest with a disk of its own has as its second one."""
        pages = memory // PAGE_SIZE
        self.bus = bus or EventBus()
        self.machine = Machine(memory + pool * PAGE_SIZE, world=World.HOST)
        processor, view = self.machine.processor, self.machine.ram.view
        frames = [HPA(number * PAGE_SIZE) for number in range(pages + pool)]
        self.memory = GuestMemory(view, frames[:pages])
        pristine = processor.save_context()
        self.guest: Guest
        if direct:
            power_on = {setting: processor.read_setting(setting) for setting in Setting}
            self.guest = DirectGuest(
                0, self.machine, self.memory, frames[pages], 0, self.bus, power_on, pristine, image
            )  # fmt: skip
        else:
            sectors = len(disk) // SECTOR_SIZE
            self.guest = MirroredGuest(0, self.machine, self.memory, frames[pages:], sectors, self.bus, pristine, image)
        self.coupling = Coupling(processor, SaveArea(view, self.guest.save_area), self.bus)
        self.output = bytearray()
        self._disk = disk

    def warm(self) -> None:
        """Have all of RAM resident."""
        ram = self.machine.ram.view
        for page in range(0, len(ram), PAGE_SIZE):
            ram[page] |= 0

    def ask(self) -> None:
        """Have Python asked about what machine code might decide for a mirrored guest."""
        assert isinstance(self.guest, MirroredGuest)
        self.guest.quick.decides = False

    def run(self) -> float:
        """Run the guest to its end; seconds. Raises RunError for a guest that ends badly."""
        start = time.perf_counter()
        while not self._has_ended():
            pass
        return time.perf_counter() - start

    def run_until(self, words: bytes, patience: float) -> None:
        """Run until this is the last of what the guest has printed. Raises RunError, and OSError if it ends first, or
        takes more seconds than that."""
        start = time.perf_counter()
        while not self.output.endswith(words):
            if time.perf_counter() - start > patience:
                raise OSError("what the guest was to print didn't come")
            if self._has_ended():
                raise OSError("the guest ended before it was ready")

    def _has_ended(self) -> bool:
        """One stay with the processor, and what the host has to do after it."""
        guest = self.guest
        match self._stay():
            case Leave.HALTED:
                return True
            case Leave.FAILED:
                assert guest.error is not None
                raise guest.error
            case Leave.FUNCTION:
                match guest.functions.take():
                    case Write(_, data):
                        self.output += data
                    case ReadBlock(lba, done):
                        done(self._disk[lba * SECTOR_SIZE :][:SECTOR_SIZE] or None)
            case _:
                pass
        return False

    def _stay(self) -> Leave:
        guest, processor = self.guest, self.machine.processor
        host = processor.save_context()
        self.coupling.decouple(guest.replacements(), exchange=guest.enter)
        if not guest.started:
            guest.first_entry()
            guest.started = True
        try:
            return guest.run(FOREVER)
        finally:
            self.coupling.recouple("bench", exchange=lambda: (guest.leave(), processor.restore_user_state(host))[0])
