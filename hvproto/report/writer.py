"""Writes the page: one file of HTML that needs nothing else, with the events in it as compressed columns."""

from __future__ import annotations

import base64
import html
import json
import re
import struct
import zlib
from collections.abc import Iterator
from importlib.resources import files
from typing import TextIO

from hvproto.errors import EXCEPTION_NAMES
from hvproto.machine.clock import CYCLES_PER_SECOND
from hvproto.report.collector import Collector
from hvproto.report.columns import packed

SCRIPTS = ("data.js", "axis.js", "lanes.js", "space.js", "tables.js", "main.js")
"""In this order: each uses what those before it define."""
_PLACES = re.compile(r"(\$(?:TITLE|STYLE|DATA|SCRIPTS))\b")
_CHUNK = 3 << 16
"""Bytes that become base64 at a time: a multiple of 3, so that the pieces fit together."""


def write_page(file: TextIO, collector: Collector) -> None:
    """The whole page; the same events give the same bytes. Raises OSError."""
    page = files("hvproto.report") / "page"
    heading = collector.heading
    title = html.escape(f"{', '.join(heading.guests)} on {heading.host}, plan {heading.plan}")
    for piece in _PLACES.split((page / "page.html").read_text(encoding="utf-8")):
        match piece:
            case "$TITLE":
                file.write(title)
            case "$STYLE":
                file.write((page / "page.css").read_text(encoding="utf-8"))
            case "$SCRIPTS":
                file.writelines((page / name).read_text(encoding="utf-8") for name in SCRIPTS)
            case "$DATA":
                file.writelines(_base64(_compressed(_blob(collector))))
            case _:
                file.write(piece)


def _blob(collector: Collector) -> Iterator[bytes]:
    """Length of the header (32 bits), header (JSON), columns; header and columns begin at multiples of 8."""
    heading, own = collector.heading, collector.columns()
    rows = collector.rows()
    columns = list(own.values())
    columns += [
        column.codes(count)
        for table, count in zip(collector.tables, rows, strict=False)
        for column in table.columns
    ]  # fmt: skip
    pieces = list(packed(columns))
    places = iter([{"offset": offset, "type": column.dtype.name, "length": len(column)}
                   for (offset, _), column in zip(pieces, columns, strict=True)])  # fmt: skip
    header = {
        "heading": heading._asdict(),
        "cyclesPerSecond": CYCLES_PER_SECOND,
        "lanes": heading.lanes,
        "exceptions": EXCEPTION_NAMES,
        "columns": {name: next(places) for name in own},
        "kinds": [
            {
                "name": table.name,
                "step": table.step,
                "rows": count,
                "fields": [
                    {"name": column.name, "values": column.values, **next(places)} for column in table.columns
                ],
            }
            for table, count in zip(collector.tables, rows, strict=False)
        ],
    }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<II", len(text), 0)
    yield text
    for _, data in pieces:
        yield data


def _compressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    compressor = zlib.compressobj(6)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def _base64(pieces: Iterator[bytes]) -> Iterator[str]:
    waiting = b""
    for piece in pieces:
        waiting += piece
        whole = len(waiting) // _CHUNK * _CHUNK
        yield base64.b64encode(waiting[:whole]).decode()
        waiting = waiting[whole:]
    yield base64.b64encode(waiting).decode()
