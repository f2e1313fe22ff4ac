"""Packets of GDB's protocol: framing, escapes, and rubbish."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hvproto.debugger.gdb.packets import INTERRUPT, Reader, escape, frame, unescape


@given(st.binary(max_size=200))
def test_binary_data_survives(data: bytes) -> None:
    assert unescape(escape(data)) == data
    assert not set(b"#$*") & set(escape(data))


@given(st.lists(st.binary(max_size=30), max_size=8), st.integers(1, 7))
def test_packets_arrive_however_they_are_cut(payloads: list[bytes], size: int) -> None:
    line = b"+".join(frame(escape(payload)) for payload in payloads)
    reader, found = Reader(), []
    for at in range(0, len(line), size):
        found += reader.feed(line[at : at + size])
    assert [unescape(each or b"") for each in found] == payloads


@given(st.binary(max_size=300))
def test_rubbish_gives_no_packet_that_was_not_sent(data: bytes) -> None:
    reader = Reader()
    for each in reader.feed(data):
        assert each is None or each == INTERRUPT or frame(each) in data or each in data
    reader.feed(b"#00")
    assert list(Reader().feed(frame(b"g"))) == [b"g"]
