"""INT 16h: the keys that INT 9 has put into the buffer (Ralf Brown's interrupt list, INT 16)."""

from __future__ import annotations

from hvproto.machine.bios import data_area as area
from hvproto.machine.bios import key_buffer
from hvproto.machine.bios.call import ZERO, Call
from hvproto.machine.bios.rom import rom
from hvproto.machine.bios.scan_codes import as_new, as_old

_ENHANCED = 0x10
_CAPABILITIES = 0x20  # there are the functions 10h to 12h
_SYSTEM_REQUEST, _IN_FLAGS_2, _RIGHT_KEYS = 0x04, 0x73, 0x0C


def serve(call: Call) -> None:
    """INT 16h. Functions that aren't here change nothing, as on a BIOS without them."""
    match call.ah:
        case 0x00 | 0x10:
            word = _next(call)
            if word is None:
                call.processor.eip = rom().labels["wait_for_key"]
            else:
                key_buffer.drop(call)
                call.ax = word
        case 0x01 | 0x11:
            word = _next(call)
            call.set_flag(ZERO, word is None)
            if word is not None:
                call.ax = word
        case 0x02:
            call.al = call.read(area.SHIFT_FLAGS, 1)[0]
        case 0x12:
            call.ax = _all_flags(call)
        case 0x05:
            call.al = int(not key_buffer.put(call, call.cx))
        case 0x09:
            call.al = _CAPABILITIES
        case 0x92:
            call.ah = 0x80  # by which keyboard drivers tell that there are 10h to 12h


def _next(call: Call) -> int | None:
    """The first key, as the function in AH gives it; the old functions throw away what only new keyboards have."""
    while (word := key_buffer.first(call)) is not None:
        found = as_new(word) if call.ah & _ENHANCED else as_old(word)
        if found is not None:
            return found
        key_buffer.drop(call)
    return None


def _all_flags(call: Call) -> int:
    flags, flags_2 = call.read(area.SHIFT_FLAGS, 2)
    kind = call.read(area.KEYBOARD_KIND, 1)[0]
    requested = 0x80 if flags_2 & _SYSTEM_REQUEST else 0
    return (flags_2 & _IN_FLAGS_2 | kind & _RIGHT_KEYS | requested) << 8 | flags
