"""What the claim tests look at: the processor through Unicorn's own interface, and RAM through parsers written here.

Nothing here asks the hypervisor what it did. The page walkers and the save-area parser are made from the documented
layouts (Intel SDM vol. 3, 4.3-4.4; the docstrings of `hvproto.hypervisor.region`, `mirror` and `save_area`), and share
no code with the package. The tests run from the source tree and from an installed package alike.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from unicorn import unicorn_const as uc_const
from unicorn import x86_const

from hvproto import bundled
from hvproto.addresses import GVA
from hvproto.errors import World
from hvproto.events import Event, EventBus
from hvproto.hypervisor.free_space import FreeSpace
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.relocation import DEFAULT_POLICY, Move, RelocationPolicy
from hvproto.hypervisor.session import Session
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.machine.machine import Machine
from hvproto.processor.processor import Stop

HERE = Path(__file__).resolve().parent
PAGE = 4096
LIMIT = 20_000_000
"""Cycles; the longest run here needs less than half of it."""

DOOR, CHECKPOINT = 0x4856, 0x4858
POOL = 0x0100_0000
"""HPA of the pages that the bundled host's emulation program lends to its hypervisor; 16 MiB."""


HOST_SPARE = 0x03F0_0000
"""HPA of host memory that the bundled host never comes to use; mapped one to one in each of its directories."""
GUEST_MEMORY = 0x4000_0000
"""Where the emulation program's directory has the machine's first memory."""
HOST_WORD = 0x4057_13D5
"""Put into guest memory 0x300000 before a run: the host's page table has it at linear 0x40300000."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "claim(number, ...): shows these claims of WO 02/50664")


# -- the processor, as Unicorn itself reports it -------------------------------------------------


class Table(NamedTuple):
    base: int
    limit: int


class Registers(NamedTuple):
    """What is in the processor now."""

    idtr: Table
    gdtr: Table
    tr: tuple[int, int, int]
    """Selector, base, limit."""
    ldtr: int
    cr0: int
    cr3: int
    cr4: int
    efer: int
    cs: int
    eip: int
    esp: int
    eflags: int
    ring: int
    """The privilege level. A deprivileged guest's selectors don't tell it: they are the guest's own."""

    @property
    def settings(self) -> tuple[Any, ...]:
        """All of the supervisor state, without where the program stands."""
        return self[:8]


def _table(uc: Any, register: int) -> Table:
    _, base, limit, _ = uc.reg_read(register)
    return Table(base, limit)


def read_registers(machine: Machine) -> Registers:
    uc = machine.processor.engine.uc
    selector, base, limit, _ = uc.reg_read(x86_const.UC_X86_REG_TR)
    return Registers(
        _table(uc, x86_const.UC_X86_REG_IDTR),
        _table(uc, x86_const.UC_X86_REG_GDTR),
        (selector, base, limit),
        uc.reg_read(x86_const.UC_X86_REG_LDTR)[0],
        uc.reg_read(x86_const.UC_X86_REG_CR0),
        uc.reg_read(x86_const.UC_X86_REG_CR3),
        uc.reg_read(x86_const.UC_X86_REG_CR4),
        uc.msr_read(0xC000_0080),
        uc.reg_read(x86_const.UC_X86_REG_CS),
        uc.reg_read(x86_const.UC_X86_REG_RIP),
        uc.reg_read(x86_const.UC_X86_REG_RSP),
        uc.reg_read(x86_const.UC_X86_REG_EFLAGS),
        machine.processor.cpl,  # Unicorn has no name for it
    )


# -- RAM, by parsers of our own ------------------------------------------------------------------

P, W, U, A, D = 1, 2, 4, 0x20, 0x40
MIRRORED = 1 << 9


class Mapping(NamedTuple):
    """A page as a table maps it, rights combined over the levels."""

    frame: int
    writable: bool
    user: bool
    accessed: bool
    dirty: bool
    present: bool = True


def _entries(ram: memoryview, table: int, letter: str) -> tuple[int, ...]:
    size = PAGE // struct.calcsize(letter)
    return struct.unpack_from(f"<{size}{letter}", ram, table & ~0xFFF)


def walk_two_level(ram: memoryview, cr3: int) -> dict[int, Mapping]:
    """Every page that a 32-bit, two-level table maps, by linear address; no 4 MiB pages (no guest here has any)."""
    found = {}
    for high, upper in enumerate(_entries(ram, cr3, "I")):
        if not upper & P:
            continue
        for low, entry in enumerate(_entries(ram, upper & 0xFFFF_F000, "I")):
            if entry & P:
                both = upper & entry
                found[high << 22 | low << 12] = Mapping(
                    entry & 0xFFFF_F000, bool(both & W), bool(both & U), bool(both & A), bool(entry & D)
                )
    return found


def walk_four_level(ram: memoryview, cr3: int) -> dict[int, tuple[int, int]]:
    """Every entry that isn't zero in the last level of a 4-level table: linear address -> (frame, flags).

    Of the addresses, the lower 48 bits.
    """
    found: dict[int, tuple[int, int]] = {}

    def descend(table: int, shift: int, base: int) -> None:
        for index, entry in enumerate(_entries(ram, table, "Q")):
            at = base | index << shift
            if shift == 12:
                if entry:
                    found[at] = (entry & 0xF_FFFF_F000, entry & 0xFFF)
            elif entry & P:
                assert entry & (W | U) == W | U, "an upper entry of the mirror must leave all rights to the last level"
                descend(entry & 0xF_FFFF_F000, shift - 9, at)

    descend(cr3, 39, 0)
    return found


def look_up_two_level(ram: memoryview, cr3: int, linear: int) -> int:
    """The last-level entry of one page in a two-level table; 0 if there is none."""
    upper = word(ram, (cr3 & ~0xFFF) + (linear >> 22) * 4)
    return word(ram, (upper & ~0xFFF) + (linear >> 12 & 1023) * 4) if upper & P else 0


def look_up_four_level(ram: memoryview, cr3: int, linear: int) -> tuple[int, int]:
    """(frame, flags) of one page in a 4-level table; (0, 0) if there is no such entry."""
    table = cr3 & ~0xFFF
    for shift in (39, 30, 21, 12):
        (entry,) = struct.unpack_from("<Q", ram, table + (linear >> shift & 511) * 8)
        if shift > 12 and not entry & P:
            return 0, 0
        table = entry & 0xF_FFFF_F000
    return table, entry & 0xFFF


REGION_PAGES = 6


FOUR_GIB = 1 << 32


class Region(NamedTuple):
    """Where the hypervisor's region is, by what the processor's registers point to."""

    base: int
    kernel_view: bool

    @property
    def pages(self) -> range:
        return range(self.base, self.base + REGION_PAGES * PAGE, PAGE)


def find_region(registers: Registers) -> Region:
    """Page 1 holds the IDT, page 2 the TSS; page 3 is the GDT of the kernel view and page 4 that of the user view."""
    base = registers.idtr.base - PAGE
    assert registers.gdtr.base in (base + 3 * PAGE, base + 4 * PAGE)
    assert registers.tr[1] == base + 2 * PAGE
    return Region(base, registers.gdtr.base == base + 3 * PAGE)


def differences_of_mirror(ram: memoryview, registers: Registers, directory: int) -> list[str]:
    """Where the page table in CR3 isn't the guest's mappings plus the region and nothing else; read from RAM."""
    mirror = walk_four_level(ram, registers.cr3)
    guest = walk_two_level(ram, directory)
    region = find_region(registers)
    wrong = []
    # The first GiB once more: where 32-bit code comes to over the end of 4 GiB.
    for linear in [at for at in mirror if FOUR_GIB <= at < FOUR_GIB + (1 << 30)]:
        if mirror.pop(linear) != mirror.get(linear - FOUR_GIB):
            wrong.append(f"{linear:#x}: not what is at {linear - FOUR_GIB:#x}")
    for linear in region.pages:
        frame, flags = mirror.pop(linear, (0, 0))
        if not flags & P or flags & U or not POOL <= frame < 2 * POOL:
            wrong.append(f"{linear:#x}: no page of the region, but {frame:#x} {flags:#x}")
    for linear, page in guest.items():
        frame, flags = mirror.pop(linear, (0, 0))
        if not region.kernel_view and not page.user:
            if flags:
                wrong.append(f"{linear:#x}: a supervisor page of the guest in the view of its programs")
            continue
        # A page that the guest's tables don't call accessed (dirty) isn't there (isn't writable) yet: its first use
        # has to be noticed, so that the bit can be set.
        expected = (page.frame, U | MIRRORED | (P if page.accessed else 0) | (W if page.dirty and page.writable else 0))
        flags &= ~(A | D)  # these the processor sets in the mirror, as in any table
        if (frame, flags) != expected:
            wrong.append(f"{linear:#x}: {frame:#x} {flags:#x} instead of {expected[0]:#x} {expected[1]:#x}")
    wrong += [f"{linear:#x}: neither the guest's nor the region's" for linear in mirror]
    return wrong


REGISTER_IDS = {1: "idtr", 2: "gdtr", 3: "ldtr", 4: "tr", 5: "cr0", 6: "cr3", 7: "cr4", 8: "efer"}


class Saved(NamedTuple):
    """One record of the save area."""

    place: int
    selector: int
    value: int
    limit: int
    attributes: int


def parse_save_area(ram: memoryview, place: int) -> dict[str, Saved]:
    """16 bytes of header ("SAVE", count), then 24 a record: register, selector, value or base, limit, attributes."""
    magic, count = struct.unpack_from("<4sI", ram, place)
    assert magic == b"SAVE"
    found = {}
    for at in range(place + 16, place + 16 + 24 * count, 24):
        number, *rest = struct.unpack_from("<IIQII", ram, at)
        found[REGISTER_IDS[number]] = Saved(at, *rest)
    return found


def find_save_area(ram: memoryview) -> int:
    """The HPA of the save area: the one page of the pool that begins with its magic."""
    places = [page for page in range(POOL, POOL + 64 * PAGE, PAGE) if ram[page : page + 4] == b"SAVE"]
    assert len(places) == 1
    return places[0]


def word(ram: memoryview, address: int) -> int:
    """32 bits of RAM, little endian."""
    return int.from_bytes(ram[address : address + 4], "little")


class Look:
    """The above, for the tests."""

    P, W, U, A, D, PAGE, POOL, REGION_PAGES = P, W, U, A, D, PAGE, POOL, REGION_PAGES
    HOST_SPARE, HOST_WORD, GUEST_MEMORY = HOST_SPARE, HOST_WORD, GUEST_MEMORY
    DOOR, CHECKPOINT, LIMIT = DOOR, CHECKPOINT, LIMIT
    registers = staticmethod(read_registers)
    two_level = staticmethod(walk_two_level)
    four_level = staticmethod(walk_four_level)
    up_two_level = staticmethod(look_up_two_level)
    up_four_level = staticmethod(look_up_four_level)
    region = staticmethod(find_region)
    differences_of_mirror = staticmethod(differences_of_mirror)
    save_area = staticmethod(parse_save_area)
    find_save_area = staticmethod(find_save_area)
    word = staticmethod(word)


@pytest.fixture(scope="session")
def look() -> type[Look]:
    return Look


# -- kernels -------------------------------------------------------------------------------------

_images: dict[str, Image] = {}


def image_of(name: str) -> Image:
    """A kernel of this folder, or a bundled one; "witness" is the bundled host with witness.asm grafted in."""
    if name not in _images:
        own = HERE / f"{name}.asm"
        if name == "witness":
            _images[name] = assemble_text(_witness_source(), str(bundled.kernel_path("host")))
        elif name == "mixed":
            host = image_of("witness").symbols
            told = f"HOST_TICKS = {host['ticks']:#x}\nHOST_WORKER = {host['worker_count']:#x}\n"
            _images[name] = assemble_text(told + own.read_text(encoding="utf-8"), str(own))
        else:
            _images[name] = load_image(str(own if own.is_file() else bundled.kernel_path(name)))
    return _images[name]


def _graft(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"the bundled host has changed: {old!r}"
    return text.replace(old, new)


def _witness_source() -> str:
    """The bundled host, whose driver also calls the witness: before the door, behind it, and once more."""
    path = bundled.kernel_path("host")
    text = re.sub(
        r'^\.include "(host/[a-z]+\.asm)".*$',
        lambda match: (path.parent / match[1]).read_text(encoding="utf-8"),
        path.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    text = _graft(text, "    call build_idt\n", "    call build_idt\n    call witness_gates\n")
    text = _graft(text, "    mov edx, DOOR\n", "    call witness\n    mov edx, DOOR\n")
    text = _graft(text, "door_return:\n", "door_return:\n    call witness\n    call checkpoint\n    call witness\n")
    return text + (HERE / "witness.asm").read_text(encoding="utf-8")


class Testimony(NamedTuple):
    """One record of the witness: what the host's own instructions found in the processor."""

    gdtr: Table
    idtr: Table
    tr: int
    ldtr: int
    cr0: int
    cr3: int
    cr4: int
    efer: int
    probes: int
    """How often `int 0x30` has reached the host's routine, after this one's."""
    divides: int
    window: int
    """What lies at linear address 0x40300000."""
    ticks: int


def testimonies(ram: memoryview) -> list[Testimony]:
    """All records of the witness, in order."""
    symbols = image_of("witness").symbols
    count = word(ram, symbols["witness_count"])
    assert count <= 256, "the witness has said more than it can keep"
    found = []
    for number in range(count):
        at = symbols["witness_records"] + 64 * number
        glimit, gbase, ilimit, ibase, tr, ldtr, *rest = struct.unpack_from("<HI2xHI2xHHIIIQIIII", ram, at)
        found.append(Testimony(Table(gbase, glimit), Table(ibase, ilimit), tr, ldtr, *rest))
    return found


# -- runs ----------------------------------------------------------------------------------------


class AlwaysHighest:
    """Puts the region into the highest hole, whatever has been before: most in the way of `guest` and of `over`.

    The policy that a user gets keeps away from where conflicts have been, and moves less: for `over` 5 times, not 88.
    """

    def suggest(self, space: FreeSpace, pages: int, history: Sequence[Move]) -> GVA | None:
        for start, found in space.holes(pages):
            return GVA(start + (found - pages) * PAGE)
        return None


class Run:
    """A host and a guest, about to be run; what is to be looked at is arranged first."""

    def __init__(
        self,
        guest: str | Image,
        plan: str = "mirrored",
        host: str = "host",
        disk: bytes | None = None,
        policy: RelocationPolicy = DEFAULT_POLICY,
    ):
        self.guest_image = image_of(guest) if isinstance(guest, str) else guest
        self.host_image = image_of(host)
        self.bus = EventBus()
        self.session = Session(
            self.host_image, [self.guest_image], Plan.parse(plan), bus=self.bus, disk=disk, policy=policy
        )
        self.machine = self.session.machine
        self.ram = self.machine.ram.view
        self.ram[0x0030_0000:0x0030_0004] = HOST_WORD.to_bytes(4, "little")
        self.events: list[Event] = []
        self.bus.subscribe(self.events.append)

    def on(self, name: str, action: Callable[[Any], None]) -> None:
        """Call ``action`` at every event of this name; the processor has stopped."""
        self.bus.subscribe(lambda event: action(event) if event.kind == name else None)

    def at(self, address: int, action: Callable[[], None]) -> None:
        """Call ``action`` whenever the processor is about to execute the instruction at this linear address."""
        hook_code(self.machine, address, action)

    def execute(self, limit: int = LIMIT) -> Run:
        self.session.run(limit)
        return self

    def named(self, *names: str) -> list[Any]:
        return [event for event in self.events if event.kind in names]

    def word(self, symbol: str) -> int:
        """32 bits of the guest's memory (which is the machine's first memory)."""
        return word(self.ram, self.guest_image.symbols[symbol])

    def host_word(self, symbol: str) -> int:
        return word(self.ram, self.host_image.symbols[symbol])

    def registers(self) -> Registers:
        return read_registers(self.machine)


def hook_code(machine: Machine, address: int, action: Callable[[], None]) -> None:
    machine.processor.engine.uc.hook_add(uc_const.UC_HOOK_CODE, lambda *_: action(), begin=address, end=address)


@pytest.fixture(scope="session")
def kernel() -> Callable[[str], Image]:
    return image_of


@pytest.fixture(scope="session")
def hosted() -> type[Run]:
    return Run


@pytest.fixture(scope="session")
def always_highest() -> RelocationPolicy:
    return AlwaysHighest()


@pytest.fixture(scope="session")
def witnessed() -> Callable[[memoryview], list[Testimony]]:
    return testimonies


class Bare:
    """A guest alone on the machine, without hypervisor and host: the control experiment."""

    def __init__(self, guest: str | Image):
        self.image = image_of(guest) if isinstance(guest, str) else guest
        self.machine = Machine()
        self.ram = self.machine.ram.view
        self.machine.load(self.image)

    def at(self, address: int, action: Callable[[], None]) -> None:
        hook_code(self.machine, address, action)

    def execute(self) -> Bare:
        assert self.machine.run(LIMIT) == 0
        return self

    def word(self, symbol: str) -> int:
        return word(self.ram, self.image.symbols[symbol])


@pytest.fixture(scope="session")
def bare() -> type[Bare]:
    return Bare


class Desk:
    """The witness host with nobody but the test behind its door: for coupling and decoupling by hand."""

    def __init__(self) -> None:
        self.image = image_of("witness")
        self.symbols = self.image.symbols
        self.machine = Machine(world=World.HOST)
        self.processor = self.machine.processor
        self.ram = self.machine.ram.view
        self.events: list[Event] = []
        self.bus = EventBus()
        self.bus.subscribe(self.events.append)
        self.ram[0x0030_0000:0x0030_0004] = HOST_WORD.to_bytes(4, "little")
        self.ports = self.wide_ports = (DOOR, CHECKPOINT)
        self._knocked: int | None = None
        self.machine.board.ports.attach(self, self.ports)
        self.machine.load(self.image)

    def read_port(self, port: int, size: int) -> int:
        return 0

    def write_port(self, port: int, size: int, value: int) -> None:
        self._knocked = port
        if port == DOOR:
            self._answer(1)  # as after an interrupt: the emulation program will come again
        self.processor.request_stop()

    def _answer(self, reason: int) -> None:
        struct.pack_into("<II", self.ram, self.symbols["run_block"] + 0x20, reason, 0)

    def run_to(self, port: int) -> None:
        """Let the host run until it writes to this port: the door, or the checkpoint behind it."""
        self._run(lambda stop: self._knocked == port)

    def run_to_halt(self) -> None:
        """... or until a HLT that no interrupt could end."""
        self._run(lambda stop: stop is Stop.HALT and not self.registers().eflags & 0x200)

    def _run(self, until: Callable[[Stop], bool]) -> None:
        self._knocked = None
        while not until(stop := self.machine.slice(LIMIT)):
            if stop is Stop.HALT:
                assert self.machine.wait_for_interrupt(LIMIT), "the host has come to its end"
            self.machine.check_limit(LIMIT)

    def finish(self) -> str:
        """Tell the emulation program that the guest has ended (reason 3, status 0); returns the host's last words."""
        self._answer(3)
        assert self.machine.run(2 * LIMIT) == 0
        return self.machine.debug_output.decode()

    def load_mixed(self) -> Image:
        """Put `mixed` into the guest's memory: it runs under the host's page table, where that memory is at 1 GiB."""
        image = image_of("mixed")
        for segment in image.segments:
            at = segment.address - GUEST_MEMORY
            self.ram[at : at + segment.size] = segment.data.ljust(segment.size, b"\0")
        return image

    def guest_word(self, symbol: str) -> int:
        """32 bits of the memory of `mixed`."""
        return word(self.ram, image_of("mixed").symbols[symbol] - GUEST_MEMORY)

    def registers(self) -> Registers:
        return read_registers(self.machine)

    def word(self, symbol: str) -> int:
        return word(self.ram, self.symbols[symbol])

    def testimony(self) -> list[Testimony]:
        return testimonies(self.ram)


@pytest.fixture
def desk() -> Iterator[Desk]:
    """The host, stopped right behind its OUT to the door."""
    desk = Desk()
    desk.run_to(DOOR)
    yield desk
