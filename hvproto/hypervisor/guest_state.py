"""A mirrored guest as plain data: saved while the host has the processor, rebuilt from nothing but that.

The mirror, the region's contents, traps and watched pages are no state: they follow from the guest's memory and its
virtual processor, and are made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hvproto.addresses import GVA
from hvproto.errors import Unsupported
from hvproto.hypervisor import device_state
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.guest_ram import GuestRam
from hvproto.hypervisor.plan import Provider
from hvproto.hypervisor.relocation import Move
from hvproto.machine.complaints import Complaints
from hvproto.processor.processor import Processor

if TYPE_CHECKING:
    from hvproto.hypervisor.mirrored import MirroredGuest

_LIMITS = (GuestMemory, GuestRam, Processor, Complaints)
"""What devices and the virtual processor are connected to, and no part of them."""
_OWN = (
    "status", "halted", "_offered", "started", "_skew", "_frozen_at", "_resets", "_nmi_waits", "_first_registers",
    "_stopped",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GuestState:
    """Everything that a guest is. It can be pickled; it belongs to machines with the same engine."""

    memory: tuple[bytes, ...]
    """The pages of guest-physical memory, from GPA 0."""
    devices: device_state.Devices
    """The board, the rest of its PC, and the virtual processor."""
    has_firmware: bool
    """Whether it was started from a disk."""
    registers: Any
    """The processor as the guest has left it: what of it is real, FPU and all."""
    own: dict[str, Any]
    output: bytes
    windows: tuple[int, ...]
    """The GPAs of the pages behind which devices answer."""
    region: GVA
    is_small: bool
    may_shrink: bool
    moves: tuple[Move, ...]
    routes: dict[int, Provider]


def _roots(guest: MirroredGuest) -> Mapping[str, object]:
    pc = guest.pc
    return {
        "board": pc.board, "platform": pc.platform, "disks": pc.disks, "functions": guest.functions, "model": pc.model,
        "cpu": guest.cpu, "breakpoints": guest.exits.breakpoints, "bios": pc.bios,
    }  # fmt: skip


def save(guest: MirroredGuest) -> GuestState:
    """The state of a guest that stands still between two instructions (`MirroredGuest.settle`).

    Handlers of exits are no data: who has added them adds them to the next one. Raises Unsupported for a guest that has
    come to its end by an error or waits for an answer.
    """
    if guest.error is not None or guest.functions.waiting or guest.exit_policy.event is not None:
        raise Unsupported(guest.where(), "a guest that has failed, or waits for its host's answer, can't be saved")
    space, memory = guest.space, guest.memory
    pages = tuple(memory.read(at, 4096) or b"" for at in range(0, memory.size, 4096))
    return GuestState(
        memory=pages,
        devices=device_state.save(_roots(guest), guest.clock, _LIMITS, {"guest": guest}),
        has_firmware=guest.pc.bios is not None,
        registers=guest.kept_registers,
        own={name: getattr(guest, name) for name in _OWN},
        output=bytes(guest.output),
        windows=memory.windows,
        region=space.region.base,
        is_small=space.region.layout.is_one_page,
        may_shrink=space.may_shrink,
        moves=tuple(space.history),
        routes={vector: provider for vector, provider in guest.routes.items() if provider is not Provider.HYPERVISOR},
    )


def apply(state: GuestState, guest: MirroredGuest) -> None:
    """Make a guest that has just been built, and whose mirror hasn't, what the saved one was.

    Raises StateError if it has another board, ValueError if it has another size.
    """
    memory = guest.memory
    if len(state.memory) * 4096 != memory.size:
        raise ValueError(f"a state of {len(state.memory)} pages, a guest of {memory.size // 4096}")
    for number, page in enumerate(state.memory):
        memory.write(number * 4096, page)
    for window in state.windows:
        guest.open_window(window)
    if state.has_firmware:
        guest.pc.install_firmware(guest.cpu)
    device_state.restore(state.devices, _roots(guest), guest.clock, _LIMITS, {"guest": guest})
    guest.find_drain()
    guest.keep_registers(state.registers)
    for name, value in state.own.items():
        setattr(guest, name, value)
    guest.output[:] = state.output
    guest.cpu.forget_real()
    guest.space.may_shrink = state.may_shrink
    guest.space.history[:] = state.moves
    guest.routes.update(state.routes)
    guest.space.prefer(state.region, small=state.is_small)
