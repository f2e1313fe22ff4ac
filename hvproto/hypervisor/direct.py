"""The plan `direct`: the guest's own settings are in the processor (claims 9-30 to the letter).

The processor calls the guest's handlers through the guest's IDT and walks the guest's page tables;
no code of ours stands in between. The guest kernel is at ring 0, and guest-physical is
host-physical.
"""

from __future__ import annotations

from typing import Any

from hvproto import events
from hvproto.addresses import HPA
from hvproto.errors import NoMemory, TripleFault, Unsupported, Where, World
from hvproto.events import EventBus
from hvproto.hypervisor.coupling import Replacement
from hvproto.hypervisor.guest import Guest, Leave
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.plan import Provider
from hvproto.images.image import Image
from hvproto.images.multiboot_info import BootOptions
from hvproto.machine.machine import Machine
from hvproto.processor.engine import UnmappedAccess
from hvproto.processor.exceptions import Shutdown
from hvproto.processor.processor import Stop
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import EFLAGS_IF, Setting, SettingValue


class DirectGuest(Guest):
    """A guest at ring 0, with its own settings in the processor's registers."""

    def __init__(
        self,
        number: int,
        machine: Machine,
        memory: GuestMemory,
        save_area: HPA,
        sectors: int,
        bus: EventBus,
        power_on: dict[Setting, SettingValue],
        pristine: Any,
        image: Image,
        options: BootOptions = BootOptions(),  # noqa: B008 - it can't change
    ) -> None:
        super().__init__(number, machine, memory, sectors, bus, pristine, image, options)
        if not memory.is_identity:
            raise Unsupported(
                Where(World.HYPERVISOR, machine.processor.eip),
                "plan direct needs a guest whose physical memory is the host's physical memory from 0",
                "Use plan mirrored, where a guest's memory may lie anywhere.",
            )
        self.save_area = save_area
        self.settings = dict(power_on)
        self._boots_disk = image.kind == "disk"
        if self._boots_disk:
            machine.images[World.GUEST] = image
        else:
            self._boot = self.load(image)
            self.settings[Setting.GDTR] = self._boot.gdtr
        self._reported = [0] * 256

    def replacements(self) -> dict[Setting, Replacement]:
        return {setting: Replacement(value, Provider.GUEST) for setting, value in self.settings.items()}

    def where(self) -> Where:
        return self.machine.where()

    def first_entry(self) -> None:
        processor = self.machine.processor
        if self._boots_disk:
            self.pc.start_firmware(processor)
            return
        segments = dict.fromkeys(SegmentRegister, self._boot.data)
        segments[SegmentRegister.CS] = self._boot.code
        processor.set_segments(segments)
        for index in range(8):
            processor.set_gpr(index, 0)
        processor.set_gpr(0, self._boot.eax)
        processor.set_gpr(3, self._boot.ebx)
        processor.eflags = 2
        processor.eip = self._boot.eip

    def enter(self) -> None:
        super().enter()
        self._reported = list(self.machine.processor.engine.counts)

    def leave(self) -> None:
        # A guest at ring 0 loads IDTR, CR3 ... itself: what it has made of them is kept for its return.
        self.settings = {setting: self.machine.processor.read_setting(setting) for setting in self.settings}
        super().leave()

    def run(self, limit: int) -> Leave:
        machine, processor = self.machine, self.machine.processor
        while True:
            self.keep_time()
            reason = self.reason_to_leave()
            if reason is not None:
                return reason
            if self.host_interrupt_pending():
                return Leave.INTERRUPT
            if self.halted:
                wait = self.wait(accepts_interrupts=bool(processor.eflags & EFLAGS_IF))
                if wait is not None:
                    return wait
            deadline = self.deadline(limit)
            try:
                if self.board.interrupts.pending:
                    if machine.interruptible():
                        self._interrupt()
                    else:
                        deadline = min(deadline, processor.now + machine.window_poll())
                stop = machine.run_processor(deadline)
            except (TripleFault, NoMemory, Unsupported) as ending:
                self.error = ending  # the guest's end, not the host's
                continue
            self._report_exceptions()
            if stop is Stop.HALT:
                self.halted = self.pc.bios is None or not self.pc.bios.serve()
            machine.check_limit(limit)

    def _interrupt(self) -> None:
        self.halted = False
        try:
            self.machine.processor.interrupt(self.board.interrupts.acknowledge())
        except Shutdown as shutdown:
            raise TripleFault(self.machine.where(), shutdown.faults) from None
        except UnmappedAccess as access:
            raise NoMemory(self.machine.where(), access.kind, access.physical) from None

    def _report_exceptions(self) -> None:
        """Say what the processor delivered by itself. It is known only that it did, not where."""
        processor = self.machine.processor
        counts = list(processor.engine.counts)
        if not self.bus.wants(events.ExceptionTaken):
            self._reported = counts
            return
        for vector, (now, before) in enumerate(zip(counts, self._reported, strict=True)):
            for _ in range(now - before):
                self.bus.emit(events.ExceptionTaken(processor.now, vector, None, "direct", None, guest=self.number))
        self._reported = counts
