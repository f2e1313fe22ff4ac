"""The keys that wait for INT 16h: a ring of words in segment 0040, which programs look at and change themselves."""

from __future__ import annotations

from hvproto.machine.bios import data_area as area
from hvproto.machine.bios.call import Call


def _word(call: Call, address: int) -> int:
    return int.from_bytes(call.read(address, 2), "little")


def _after(call: Call, place: int) -> int:
    start, end = _word(call, area.KEY_BUFFER_START), _word(call, area.KEY_BUFFER_END)
    return place + 2 if start <= place + 2 < end else start


def put(call: Call, word: int) -> bool:
    """Put a key behind the others; False if the buffer is full: it holds one less than it has places."""
    tail = _word(call, area.KEY_TAIL)
    after = _after(call, tail)
    if after == _word(call, area.KEY_HEAD):
        return False
    call.write(area.DATA_AREA + tail, word.to_bytes(2, "little"))
    call.write(area.KEY_TAIL, after.to_bytes(2, "little"))
    return True


def first(call: Call) -> int | None:
    """The key that comes next, which stays; None if there is none."""
    head = _word(call, area.KEY_HEAD)
    return None if head == _word(call, area.KEY_TAIL) else _word(call, area.DATA_AREA + head)


def drop(call: Call) -> None:
    """Take the first key away; there must be one."""
    call.write(area.KEY_HEAD, _after(call, _word(call, area.KEY_HEAD)).to_bytes(2, "little"))


def clear(call: Call) -> None:
    start = call.read(area.KEY_BUFFER_START, 2)
    call.write(area.KEY_HEAD, start + start)
