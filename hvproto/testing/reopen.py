"""A failed test's run as files: its state, and what brings the debugger to the same moment of the same run.

The run is repeated there: from the same kernels, as far in virtual time. Hooks of the test aren't asked in it.
"""

from __future__ import annotations

import json
import shlex
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from hvproto.hypervisor.save_area import SaveAreaError
from hvproto.images.image import Image
from hvproto.processor.engine import WIDE_GPR_NAMES
from hvproto.processor.settings import Setting, describe
from hvproto.testing.hv import Hv
from hvproto.testing.reports import GuestReport

EVENTS = 200
"""How many of the last events are in the state."""
_BYTES_IN_A_LINE = 16


def save(hv: Hv, folder: Path) -> str:
    """Write the run's state, and its kernels if they are no files; the command that reopens it. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").write_text(json.dumps(state(hv), indent=1) + "\n", encoding="utf-8")
    script = folder / "reopen"
    told = sum(not isinstance(event, GuestReport) for event in hv.events)  # the kit's own are no events elsewhere
    script.write_text(f"goto {told}:{hv.now}:0\nregs\n", encoding="utf-8")
    words = ["hvproto", "debug", "--plan", hv.plan]
    for option, image in (("--host", hv.host_image), ("--guest", hv.image)):
        words += [option, str(_file_of(image, folder / f"{option.strip('-')}.asm"))]
    if hv.relocate_every:
        words += ["--relocate", f"every {hv.relocate_every}"]
    return shlex.join([*words, "-x", str(script)])


def state(hv: Hv) -> dict[str, Any]:
    """Where the run stands: addresses and registers in hexadecimal, time in cycles."""
    processor = hv.machine.processor
    try:
        saved = {setting.name: describe(value) for setting, value in hv.save_area.items()}
    except SaveAreaError:
        saved = {}
    return {
        "at": hv.now,
        "where": str(hv.machine.where()),
        "plan": hv.plan,
        "registers": {name: f"{processor.gpr(number):#x}" for number, name in enumerate(WIDE_GPR_NAMES)}
        | {"rip": f"{processor.eip:#x}", "eflags": f"{processor.eflags:#x}"},
        "settings": {setting.name: describe(processor.read_setting(setting)) for setting in Setting},
        "save_area": saved,
        "guests": [str(guest.where()) for guest in hv.session.guests],
        "events": [json.loads(event.to_json()) for event in hv.events[-EVENTS:]],
    }


def _file_of(image: Image, otherwise: Path) -> Path:
    """The kernel's own file; else its bytes and symbols, as assembly. Raises OSError."""
    path = Path(image.path)
    if image.kind != "assembly" or (path.is_file() and path.suffix == ".asm"):
        return path.resolve()
    otherwise.write_text(as_assembly(image), encoding="utf-8")
    return otherwise


def as_assembly(image: Image) -> str:
    """An assembled kernel's bytes, with its symbols, in the order of addresses."""
    (segment,) = image.segments
    lines = [f".origin {segment.address:#x}", ".entry hvproto_entry"]
    names: dict[int, list[str]] = {}
    for name, address in chain(image.symbols.items(), (("hvproto_entry", image.entry),)):
        if name.isidentifier() and (address in segment or address == segment.end):  # a local label's has a dot
            names.setdefault(address, []).append(name)
    edges = sorted({segment.address, segment.end, *names})
    content = segment.data.ljust(segment.size, b"\0")
    for first, end in pairwise(edges):
        lines += [f"{name}:" for name in names.get(first, ())]
        piece = content[first - segment.address : end - segment.address]
        for at in range(0, len(piece), _BYTES_IN_A_LINE):
            lines.append("    .byte " + ", ".join(f"{byte:#04x}" for byte in piece[at : at + _BYTES_IN_A_LINE]))
    lines += [f"{name}:" for name in names.get(segment.end, ())]
    return "\n".join(lines) + "\n"
