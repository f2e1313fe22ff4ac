"""A host of 64 bits with nobody but the test behind its door, for coupling and decoupling by hand; see host64.asm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hvproto.errors import World
from hvproto.events import Event, EventBus
from hvproto.hypervisor.coupling import Coupling, Replacement
from hvproto.hypervisor.plan import Plan, Provider
from hvproto.hypervisor.region import Region
from hvproto.hypervisor.region_form import LONG_FORM
from hvproto.hypervisor.save_area import SaveArea
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.machine.machine import Machine
from hvproto.processor.processor import Stop
from hvproto.processor.settings import Setting
from tests.claims import wide

HERE = Path(__file__).resolve().parent
DOOR, CHECKPOINT = 0x4856, 0x4858
SPARE = 0x03F0_0000
"""HPA of host memory that the host never comes to use; it has it one to one."""
POOL = 0x0100_0000
GUEST_MEMORY = 0x4000_0000
DEMAND = 0x8000_0000
"""The host's page that is mapped when it is touched."""
WINDOW = 0x4030_0000
HOST_WORD = 0x4057_13D5
"""What lies at WINDOW."""
LIMIT = 20_000_000
ENDED = 3
CALL = 0x31
"""The vector by which `mixed64` calls the hypervisor."""


class Desk64:
    """The host, stopped right behind its OUT to the door. ``read_registers`` says what is in a machine's processor."""

    def __init__(self, read_registers: Callable[[Machine], Any]) -> None:
        self._read_registers = read_registers
        self.image = load_image(str(HERE / "host64.asm"))
        self.symbols = self.image.symbols
        self.machine = Machine(world=World.HOST)
        self.processor = self.machine.processor
        self.ram = self.machine.ram.view
        self.events: list[Event] = []
        self.bus = EventBus()
        self.bus.subscribe(self.events.append)
        self.ram[WINDOW - GUEST_MEMORY : WINDOW - GUEST_MEMORY + 4] = HOST_WORD.to_bytes(4, "little")
        self.ports = self.wide_ports = (DOOR, CHECKPOINT)
        self._knocked: int | None = None
        self.machine.board.ports.attach(self, self.ports)
        self.machine.load(self.image)
        self.guest = self._load_guest()
        self.run_to(DOOR)

    def _load_guest(self) -> Image:
        path = HERE / "mixed64.asm"
        told = f"HOST_TICKS = {self.symbols['ticks']:#x}\nHOST_DEMAND = {DEMAND:#x}\n"
        image = assemble_text(told + path.read_text(encoding="utf-8"), str(path))
        for segment in image.segments:
            at = segment.address - GUEST_MEMORY
            self.ram[at : at + segment.size] = segment.data.ljust(segment.size, b"\0")
        return image

    def read_port(self, port: int, size: int) -> int:
        return 0

    def write_port(self, port: int, size: int, value: int) -> None:
        self._knocked = port
        self.processor.request_stop()

    def run_to(self, port: int) -> None:
        """Let the host run until it writes to this port."""
        self._run(lambda stop: self._knocked == port)

    def run_to_halt(self) -> None:
        """... or until a HLT that no interrupt could end."""
        self._run(lambda stop: stop is Stop.HALT and not self.registers().eflags & 0x200)

    def _run(self, until: Callable[[Stop], bool]) -> None:
        self._knocked = None
        while not until(stop := self.machine.slice(LIMIT)):
            assert stop is not Stop.HALT or self.machine.wait_for_interrupt(LIMIT), "the host has come to its end"
            self.machine.check_limit(LIMIT)

    def finish(self) -> str:
        """Answer that the guest has ended; returns the host's last words."""
        at = self.symbols["answer"]
        self.ram[at : at + 4] = ENDED.to_bytes(4, "little")
        assert self.machine.run(2 * LIMIT) == 0
        return self.machine.debug_output.decode()

    def registers(self) -> Any:
        """What is in the processor now."""
        return self._read_registers(self.machine)

    def word(self, symbol: str) -> int:
        """32 bits of the host's memory."""
        at = self.symbols[symbol]
        return int.from_bytes(self.ram[at : at + 4], "little")

    def guest_word(self, symbol: str) -> int:
        """32 bits of the guest's memory."""
        at = self.guest.symbols[symbol] - GUEST_MEMORY
        return int.from_bytes(self.ram[at : at + 4], "little")


class Mixture64:
    """`mixed64` on the host of 64 bits, with the host's settings replaced as a plan and a page table say."""

    def __init__(self, desk: Desk64, vectors: Mapping[int, Provider], cr3: int | None = None) -> None:
        self.desk = desk
        self.host = desk.registers()
        symbols = desk.guest.symbols
        self.region = Region(desk.ram, [SPARE + page * wide.PAGE for page in range(6)], form=LONG_FORM)
        self.region.rebase(SPARE)
        idtr, gdtr = self.host.idtr, self.host.gdtr
        self.region.route(
            Plan("mixture", {}, {**dict.fromkeys(range(256), Provider.HOST), **vectors}),
            {
                Provider.HOST: bytes(desk.ram[idtr.base : idtr.base + idtr.limit + 1]),
                Provider.GUEST: desk.guest.read(symbols["idt"], symbols["idt_end"] - symbols["idt"]),
            },
        )
        for index in range(1, (gdtr.limit + 1) // 8):
            descriptor = wide.qword(desk.ram, gdtr.base + 8 * index)
            self.region.set_guest_descriptor(index, kernel=descriptor, user=descriptor)
        self.coupling = Coupling(desk.processor, SaveArea(desk.ram, POOL), desk.bus)
        self.state = desk.processor.save_context()
        self.replacements = {
            Setting.IDTR: Replacement(self.region.idtr, Provider.HYPERVISOR),
            Setting.GDTR: Replacement(self.region.gdtr(kernel=False), Provider.HYPERVISOR),
            Setting.CR3: Replacement(
                self.host.cr3 if cr3 is None else cr3, Provider.HOST if cr3 is None else Provider.GUEST
            ),
        }

    def decouple(self) -> None:
        def enter() -> None:
            processor, symbols = self.desk.processor, self.desk.guest.symbols
            processor.eip, processor.esp, processor.eflags = symbols["start"], symbols["stack_top"], 2

        self.coupling.decouple(self.replacements, exchange=enter)

    def recouple(self) -> None:
        self.coupling.recouple("by hand", exchange=lambda: self.desk.processor.restore_user_state(self.state))

    def run_to_call(self) -> None:
        """Let it run until it stands in the hypervisor's stub of its call."""
        self.desk.run_to_halt()
        stub = self.region.base + CALL * 16
        assert stub < self.desk.registers().eip < stub + 16

    def entry(self, vector: int) -> int:
        """The routine that a gate of the table in force leads to, read from RAM (which is one to one here)."""
        return wide.gate_of(self.desk.ram, self.desk.registers().idtr.base, vector)[1]
