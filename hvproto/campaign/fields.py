"""A table of a TOML file, read key by key: whatever is wrong is said with the key and what was expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from hvproto.errors import BadInput


class CampaignError(BadInput):
    """A campaign file that can't be used."""


class Fields:
    """``where`` is what messages begin with: the file, and the table in it."""

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        self._table = table
        self.where = where
        self._asked: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._table

    def text(self, key: str, default: str | None = None) -> str:
        value: str = self._get(key, default, "a text", lambda value: isinstance(value, str) and value != "")
        return value

    def number(self, key: str, default: int | None = None, least: int = 1) -> int:
        wanted = f"a whole number from {least} on"
        value: int = self._get(key, default, wanted, lambda value: _is_number(value) and value >= least)
        return value

    def texts(self, key: str, default: list[str] | None = None) -> list[str]:
        wanted = "a list of one or more texts"
        value: list[str] = self._get(
            key, default, wanted,
            lambda value: isinstance(value, list) and value != [] and all(isinstance(each, str) for each in value),
        )  # fmt: skip
        return value

    def numbers(self, key: str, default: list[int]) -> list[int]:
        """A list of numbers, or how many from 1 on."""
        wanted = "a list of whole numbers, or how many of them from 1 on"
        value = self._get(
            key, default, wanted,
            lambda value: (_is_number(value) and value > 0)
            or (isinstance(value, list) and value != [] and all(map(_is_number, value))),
        )  # fmt: skip
        return list(range(1, value + 1)) if isinstance(value, int) else value

    def table(self, key: str) -> Fields:
        value = self._get(key, None, "a table", lambda value: isinstance(value, dict))
        return Fields(value, f"{self.where}: {key}")

    def tables(self, key: str) -> list[Fields]:
        wanted = f"one or more tables [[{key}]]"
        value = self._get(
            key, None, wanted,
            lambda value: isinstance(value, list) and value != [] and all(isinstance(each, dict) for each in value),
        )  # fmt: skip
        return [Fields(each, f"{self.where}: {key} {number}") for number, each in enumerate(value, 1)]

    def finish(self) -> None:
        """Raises CampaignError if there is a key that nobody has asked for."""
        unknown = sorted(set(self._table) - set(self._asked))
        if unknown:
            self.refuse(f"unknown key {unknown[0]!r}: there are {', '.join(sorted(self._asked))}")

    def refuse(self, reason: str) -> NoReturn:
        raise CampaignError(f"{self.where}: {reason}")

    def _get(self, key: str, default: Any, wanted: str, is_good: Callable[[Any], bool]) -> Any:
        self.know(key)
        if key not in self._table:
            if default is None:
                self.refuse(f"the key {key!r} is missing: {wanted} was expected")
            return default
        value = self._table[key]
        if not is_good(value):
            self.refuse(f"{key} = {value!r}: {wanted} was expected")
        return value

    def know(self, *keys: str) -> None:
        """These keys may be there, although nobody asks for them now."""
        self._asked += [key for key in keys if key not in self._asked]


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
