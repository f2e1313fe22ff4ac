"""The memory area that the host's settings are saved to (WO0250664, step 26; claims 9, 21, 23, 27).

In RAM, little endian: a header of 16 bytes (magic, count, two reserved words) and then one record
of 24 bytes per setting, as `hvproto.processor.settings` packs it: the register's identification
first. Recoupling reads the values back from here and from nowhere else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from hvproto.addresses import HPA
from hvproto.errors import HvprotoError
from hvproto.processor.settings import RECORD, Setting, SettingValue, pack_setting, unpack_setting

MAGIC = 0x45564153  # "SAVE"
HEADER = struct.Struct("<IIII")
CAPACITY = 64
SIZE = HEADER.size + CAPACITY * RECORD.size
_ALL = tuple(Setting)
_IDENTIFICATIONS = memoryview(struct.pack(f"{len(_ALL)}I", *_ALL)).cast("I")
_HEADER_OF_ALL = memoryview(HEADER.pack(MAGIC, len(_ALL), 0, 0)).cast("I")
_WORD = 4


class SaveAreaError(HvprotoError):
    """The area doesn't hold what recoupling needs: somebody overwrote it, or nothing was saved."""


class SaveArea:
    """A save area at a host-physical address of RAM."""

    def __init__(self, ram: memoryview, place: HPA) -> None:
        self._ram = ram
        self.place = place
        self.records = self._place(0)
        """Where the first record lies."""
        words = ram.cast("I")
        self._header = words[place // _WORD : self.records // _WORD]
        self._identifications = words[self.records // _WORD :: RECORD.size // _WORD][: len(_ALL)]
        self.clear()

    def clear(self) -> None:
        self._ram[self.place : self.place + SIZE] = bytes(SIZE)
        self._write_count(0)

    def _write_count(self, count: int) -> None:
        HEADER.pack_into(self._ram, self.place, MAGIC, count, 0, 0)

    def save(self, values: Mapping[Setting, SettingValue]) -> dict[Setting, HPA]:
        """Write settings with their identification, in this order; returns where the record of each lies."""
        self.clear()
        places = {setting: self._place(index) for index, setting in enumerate(values)}
        for setting, place in places.items():
            self._ram[place : place + RECORD.size] = pack_setting(setting, values[setting])
        self._write_count(len(places))
        return places

    # -- all settings at once ----------------------------------------------------------------

    def note_all(self) -> None:
        """Somebody has put a record of every setting there, in the order of identification."""
        self._header[:] = _HEADER_OF_ALL

    @property
    def has_all(self) -> bool:
        """Whether a record of every setting is there, in the order of identification."""
        return self._header == _HEADER_OF_ALL and self._identifications == _IDENTIFICATIONS

    def _place(self, index: int) -> HPA:
        return HPA(self.place + HEADER.size + index * RECORD.size)

    def load(self, settings: Iterable[Setting]) -> dict[Setting, tuple[SettingValue, HPA]]:
        """Read these settings back from RAM, each with where its record lies. Raises SaveAreaError."""
        records = {setting: (value, self._place(index)) for index, (setting, value) in enumerate(self.decode().items())}
        missing = [setting.name for setting in settings if setting not in records]
        if missing:
            raise SaveAreaError(f"the save area at {self.place:#x} doesn't hold {', '.join(missing)}")
        return {setting: records[setting] for setting in settings}

    def decode(self) -> dict[Setting, SettingValue]:
        """All that is saved, in the order in which it lies in RAM. Raises SaveAreaError."""
        magic, count, _, _ = HEADER.unpack_from(self._ram, self.place)
        if magic != MAGIC or count > CAPACITY:
            raise SaveAreaError(f"there is no save area at {self.place:#x}: magic {magic:#x}, count {count}")
        found: dict[Setting, SettingValue] = {}
        for index in range(count):
            at = self.place + HEADER.size + index * RECORD.size
            try:
                setting, value = unpack_setting(bytes(self._ram[at : at + RECORD.size]))
            except ValueError as error:
                raise SaveAreaError(f"record {index} of the save area at {self.place:#x}: {error}") from None
            found[setting] = value
        return found
