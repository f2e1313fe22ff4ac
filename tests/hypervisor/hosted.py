"""Small kernels under the bundled host, to their end: the whole machine, as `hvproto run` has it."""

from __future__ import annotations

from hvproto.bundled import kernel_path
from hvproto.errors import RunError
from hvproto.events import Event, EventBus, Shutdown
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.session import Session
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.images.load import load_image

# Longer than a tick of the host's, so that its other process gets the processor at all.
BUSY = "mov ecx, 250000\n2: dec ecx\njnz 2b\n"
PAGING = """
    mov edi, 0x200000                   ; 4 MiB one to one, with large pages
    mov ecx, 1024
    xor eax, eax
    rep stosd
    mov dword ptr [0x200000], 0x83
    mov eax, 0x200000
    mov cr3, eax
    mov eax, cr4
    or eax, 0x10
    mov cr4, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
"""


def kernel(body: str) -> Image:
    return assemble_text(f".origin 0x100000\nstart: cli\nmov esp, 0x180000\n{BUSY}{body}")


class Run:
    """A guest under the bundled host, to its end."""

    def __init__(self, image: Image, plan: str = "mirrored", limit: int | None = 50_000_000) -> None:
        self.events: list[Event] = []
        self.image = image
        bus = EventBus()
        bus.subscribe(self.events.append)
        self.session = Session(load_image(str(kernel_path("host"))), [image], Plan.parse(plan), bus=bus)
        self.error: RunError | None = None
        self.status: int | None = None
        try:
            self.status = self.session.run(limit)
        except RunError as error:
            self.error = error
        self.said = self.session.machine.debug_output.decode()

    @property
    def output(self) -> str:
        """What the guest has printed."""
        return self.session.guests[0].output.decode("latin-1")

    def words(self, symbol: str, count: int) -> list[int]:
        """Doublewords of the guest's memory."""
        data = self.session.guests[0].memory.read(self.image.symbols[symbol], 4 * count)
        assert data is not None
        return list(memoryview(data).cast("I"))

    def check_the_host_ended_well(self, *, worked: bool = True) -> None:
        """It has counted every tick of its timer, and come to its own end; ``worked``: so has its other process."""
        assert "host: ticks=" in self.said
        ticks = int(self.said.split("ticks=")[1].split()[0])
        assert ticks == self.session.machine.board.pit.raised
        if worked:
            assert int(self.said.split("worker=")[1].split()[0]) > 0, "the host's other process stood still"
        assert isinstance(self.events[-1], Shutdown)
