"""The floating-point and SSE registers as a value: kept, overwritten by code, and put back."""

from __future__ import annotations

from hvproto.processor.fpu import FpuState
from hvproto.processor.processor import Stop
from hvproto.processor.settings import CR4_OSFXSR, Setting
from tests.support.bench import DATA, Bench

FILL = f"fninit\nfldpi\nfld1\nfldl2e\nfldcw [{DATA:#x}]\nmov eax, 0x1234\nmovd xmm0, eax\nmovd xmm7, eax\nhlt"
SPOIL = "fninit\nfldz\nfldz\nfldz\nfldz\nxorps xmm0, xmm0\nxorps xmm7, xmm7\nhlt"
STORE = f"fxsave [{DATA + 0x100:#x}]\nhlt"


def test_what_was_kept_comes_back_to_the_last_bit(engine: str) -> None:
    bench = Bench(engine)
    bench.cpu.write_setting(Setting.CR4, CR4_OSFXSR)
    bench.store(DATA, 0x27F)
    assert bench.go(FILL) is Stop.HALT
    kept = bench.cpu.fpu
    assert bench.go(STORE) is Stop.HALT
    image = bench.load(DATA + 0x100, 128)
    assert bench.go(SPOIL) is Stop.HALT
    assert bench.cpu.fpu != kept
    bench.cpu.fpu = kept
    assert bench.cpu.fpu == kept and kept.control == 0x27F and kept.xmm[7] == 0x1234
    assert bench.go(STORE) is Stop.HALT
    # The addresses of the last instruction and operand (bytes 8 to 23) are no registers of these.
    after = bench.load(DATA + 0x100, 128)
    assert after[:2] == image[:2] and after[6:] == image[6:]


def test_the_defaults_are_those_of_fninit(engine: str) -> None:
    bench = Bench(engine)
    bench.cpu.write_setting(Setting.CR4, CR4_OSFXSR)
    assert bench.go("fninit\nhlt") is Stop.HALT
    state = bench.cpu.fpu
    assert (state.control, state.status, state.tags, state.mxcsr) == (0x37F, 0, 0xFFFF, 0x1F80)
    assert FpuState().xmm == state.xmm
