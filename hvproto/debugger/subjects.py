"""How subjects are made: what `hvproto run` and `hvproto boot` run, for the debugger.

Typed input is bytes that are there from the beginning, so that every repetition of the run reads the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hvproto.debugger.subject import Build, Subject
from hvproto.errors import World
from hvproto.events import EventBus, Shutdown
from hvproto.hypervisor.exit_view import Handler
from hvproto.hypervisor.guest import Guest
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.relocation import DEFAULT_POLICY, RelocationPolicy
from hvproto.hypervisor.session import Session
from hvproto.images.image import Image
from hvproto.images.multiboot_info import BootOptions
from hvproto.machine.console_input import KeyboardSink, SerialSink
from hvproto.machine.machine import DEFAULT_RAM, Machine

Influence = Callable[[], tuple[RelocationPolicy, Sequence[Handler]]]
"""Gives a policy, and handlers of a mirrored guest's exits."""


def no_influence() -> tuple[RelocationPolicy, Sequence[Handler]]:
    """The default policy, and no handlers."""
    return DEFAULT_POLICY, ()


class TypedInput:
    """Bytes for a machine's console; a `ByteSource` that everybody who has it reads from its beginning."""

    interactive = False

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._next = 0

    def read(self, timeout: float) -> bytes | None:
        """The next byte, b"" at the end."""
        byte = self._data[self._next : self._next + 1]
        self._next += len(byte)
        return byte


def session_subject(
    host: Image,
    guest: Image,
    plan: Plan,
    *,
    ram_size: int = DEFAULT_RAM,
    disk: bytes | None = None,
    limit: int | None = None,
    typed: bytes = b"",
    engine: str | None = None,
    options: BootOptions = BootOptions(),  # noqa: B008 - it can't change
    guest_options: BootOptions = BootOptions(),  # noqa: B008 - it can't change
    influence: Influence = no_influence,
) -> Build:
    """A host, which is given ``options``, with a guest. The output is whose "guest" and "host" say.

    What is typed goes to COM1 of whoever looks for it first.

    ``influence`` is asked each time that the run is built: what it makes begins with the run.
    """

    def build(output: Callable[[str, int], None]) -> Subject:
        bus = EventBus()
        policy, handlers = influence()
        session = Session(
            host, [guest], plan, ram_size=ram_size, disk=disk, bus=bus, engine=engine, options=options, policy=policy,
            guest_options=guest_options,
            on_guest_output=lambda byte: output("guest", byte), on_host_debug=lambda byte: output("host", byte),
        )  # fmt: skip
        machine = session.machine
        source = TypedInput(typed) if typed else None
        if source is not None:
            machine.connect(source, SerialSink(machine.board.uart))

        def prepare(made: Guest) -> None:
            _add_handlers(made, handlers)
            if source is not None:
                made.connect(source)

        session.hypervisor.on_guest = prepare
        return Subject(machine, bus, session, lambda: session.run(limit))

    return build


def _add_handlers(guest: Guest, handlers: Sequence[Handler]) -> None:
    if isinstance(guest, MirroredGuest):
        for handler in handlers:
            guest.on_exit(handler)


def machine_subject(
    image: Image,
    *,
    ram_size: int = 16 << 20,
    disks: tuple[bytes, ...] = (),
    options: BootOptions = BootOptions(),  # noqa: B008 - it can't change
    limit: int | None = None,
    typed: bytes = b"",
    keyboard: bool = False,
    engine: str | None = None,
) -> Build:
    """A kernel or a disk alone on the bare machine."""

    def build(output: Callable[[str, int], None]) -> Subject:
        own = [image.disk] if image.kind == "disk" else []
        first, second = [*own, *disks, None, None][:2]
        machine = Machine(
            ram_size, first, second_disk=second, engine=engine,
            on_serial=lambda byte: output("guest", byte), on_debug=lambda byte: output("guest", byte),
        )  # fmt: skip
        if image.kind == "disk":
            machine.boot_disk(image)
        else:
            machine.load(image, options)
        if typed:
            sink = KeyboardSink(machine.platform.keyboard) if keyboard else SerialSink(machine.board.uart)
            machine.connect(TypedInput(typed), sink)
        bus = EventBus()

        def run() -> int:
            status = machine.run(limit)
            bus.emit(Shutdown(machine.processor.now, World.GUEST, status, "the machine came to its end"))
            return status

        return Subject(machine, bus, None, run)

    return build
