"""The save area as a mapping that is read from RAM at each look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hvproto.processor.settings import Setting, SettingValue
from hvproto.testing.hv import Hv


class LiveSaveArea(Mapping[Setting, SettingValue]):
    """The host's settings as the save area in RAM has them at this moment; empty before the first decoupling."""

    def __init__(self, hv: Hv) -> None:
        self._hv = hv

    def __getitem__(self, setting: Setting) -> SettingValue:
        return self._hv.save_area[setting]

    def __iter__(self) -> Iterator[Setting]:
        return iter(self._hv.save_area)

    def __len__(self) -> int:
        return len(self._hv.save_area)

    def __repr__(self) -> str:
        return repr(self._hv.save_area)
