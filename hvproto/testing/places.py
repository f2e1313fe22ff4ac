"""Where something happened, as a test writes it: an address, a range, a symbol, or a predicate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hvproto.errors import BadInput
from hvproto.images.image import Image

Place = int | range | str | Callable[[Any], bool]


def matcher(place: Place, image: Callable[[], Image]) -> Callable[[int | None, Any], bool]:
    """A function of (linear address or None, what is seen) that says whether this is the place.

    A symbol stands for the addresses from it to the next symbol, ``"first..behind"`` for those between two; a range for
    the addresses in it, its step aside. Raises BadInput for a place that is none of them.
    """
    if isinstance(place, str):
        span: list[range] = []

        def in_symbol(address: int | None, _seen: Any) -> bool:
            if not span:
                span.append(symbol_range(place, image()))
            return address is not None and address in span[0]

        return in_symbol
    if isinstance(place, range):
        return lambda address, _seen: address is not None and place.start <= address < place.stop
    if isinstance(place, int):
        return lambda address, _seen: address == place
    if callable(place):
        return lambda _address, seen: bool(place(seen))
    raise BadInput(f"{place!r} is no place: give an address, a range, a symbol or a function")


def address_of(symbol: str, image: Image) -> int:
    """Raises BadInput if the image doesn't know it."""
    if symbol not in image.symbols:
        raise BadInput(f"{image.path} has no symbol {symbol!r}")
    return image.symbols[symbol]


def symbol_range(text: str, image: Image) -> range:
    """The addresses that a symbol stands for. Raises BadInput if the image doesn't know it.

    >>> from hvproto.images.assembly import assemble_text
    >>> image = assemble_text("start: nop\\nnop\\nend: hlt")
    >>> symbol_range("start", image) == symbol_range("start..end", image) == range(0x100000, 0x100002)
    True
    """
    first, dots, behind = text.partition("..")
    start = address_of(first, image)
    if dots:
        return range(start, address_of(behind, image))
    return range(start, min((at for at in image.symbols.values() if at > start), default=image.end))
