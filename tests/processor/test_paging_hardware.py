"""The walker against the engine's own page walk: faults, error codes, CR2, values, A and D bits."""

from __future__ import annotations

from functools import cache

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvproto.processor.exceptions import Raised
from hvproto.processor.paging import NX, PS, A, Access, D, G, P, U, W
from tests.support.bench import CODE0, CODE3, Bench
from tests.support.page_tables import FRAME, PROBE, TABLES, Tables

PROGRAM = f"""
read:   mov eax, [{PROBE}]
        int 0x40
write:  mov [{PROBE}], eax
        int 0x41
fetch:  mov ecx, {PROBE}
        jmp ecx
"""
LANDING = b"\xcd\x42\x90\x90"  # int 0x42; nop; nop


@cache
def _bench(engine: str) -> Bench:
    bench = Bench(engine)
    bench.code(PROGRAM)
    return bench


flags = st.builds(
    lambda bits: sum(bits),
    st.tuples(*[st.sampled_from((0, bit)) for bit in (W, U, A, D, G)], st.sampled_from((P, P, P, P, 0))),
)


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    pae = draw(st.booleans())
    pse = draw(st.booleans())
    large = draw(st.booleans()) and (pae or pse)
    directory, table = draw(flags), draw(flags)
    if draw(st.booleans()) and not large and not (pae or pse):
        directory |= PS  # means nothing without PSE
    extra = 0
    if pae:
        nx = draw(st.sampled_from((0, 0, NX)))
        directory |= draw(st.sampled_from((0, 0, NX)))
        extra = nx | draw(st.sampled_from((0, 0, 0, 0, 1 << 40, 1 << 51, 1 << 62)))
    if large:
        # Bits of the frame below the page's size: reserved, but for PSE-36 and the PAT bit.
        extra |= draw(st.sampled_from((0, 0, 0, 1 << 21 if not pae else 1 << 20, 1 << 13 if pae else 1 << 12)))
    return Tables(pae, pse, large, draw(st.booleans()), draw(st.booleans()), directory, table, extra)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables(), st.sampled_from(Access), st.sampled_from((0, 3)))
def test_the_walker_agrees_with_the_engine(engine: str, wanted: Tables, access: Access, level: int) -> None:
    bench = _bench(engine)
    cpu = bench.cpu
    wanted.build(bench)
    bench.ring(level)
    bench.view[FRAME + (PROBE & 0xFFF) : FRAME + (PROBE & 0xFFF) + 4] = LANDING
    bench.set(eax=0x0BAD_CAFE, eip=bench.symbol(access.name.lower()))
    cpu.cr2 = 0x1234
    before = bytes(bench.view[TABLES.start : TABLES.stop])

    # What we think ...
    try:
        physical = cpu.translate(PROBE, access, user=level == 3)
        fault = None
        assert physical == FRAME + (PROBE & 0xFFF)
    except Raised as raised:
        fault = raised
    expected = bytes(bench.view[TABLES.start : TABLES.stop])
    bench.view[TABLES.start : TABLES.stop] = before

    # ... and what happens.
    cpu.run(1 << 40)
    arrived = bench.arrival()
    after = bytes(bench.view[TABLES.start : TABLES.stop])
    if fault is not None:
        assert expected == before
        assert (arrived.vector, arrived.frame[0]) == (14, fault.error_code)
        assert cpu.cr2 == PROBE == fault.cr2
        assert arrived.frame[2] == (CODE3 if level else CODE0)
        at = {Access.READ: bench.symbol("read"), Access.WRITE: bench.symbol("write"), Access.FETCH: PROBE}[access]
        assert arrived.frame[1] == at
    else:
        assert arrived.vector == {Access.READ: 0x40, Access.WRITE: 0x41, Access.FETCH: 0x42}[access]
        assert cpu.cr2 == 0x1234
        assert after == expected
        if access is Access.READ:
            assert cpu.gpr(0) == int.from_bytes(LANDING, "little")
        if access is Access.WRITE:
            assert bench.load(FRAME + (PROBE & 0xFFF)) == (0x0BAD_CAFE,)
