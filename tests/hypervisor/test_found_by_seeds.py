"""What random bytes have found, as the shortest code that shows it: alone and as a guest it comes to the same."""

from __future__ import annotations

from collections import Counter

import pytest

from hvproto.hypervisor.quick_transfers import QuickTransfers
from hvproto.images.assembly import assemble_text
from hvproto.processor import private_layout
from hvproto.processor.unasked import REFUSED
from tests.hypervisor.random_judge import judge
from tests.hypervisor.random_kernels import LENGTH, STEP, RandomKernel, kernel_of
from tests.hypervisor.random_modes import ABSENT, DATA, LOG, MODES, PROGRAM
from tests.hypervisor.random_runs import Alone, Inn, Outcome

BITS = {"16-bit": 16, "real": 16, "virtual-8086": 16, "64-bit": 64, "64-bit program": 64}
PAGE_FAULT, INVALID, BREAKPOINT = 14, 6, 3


def kernel(mode: str, text: str) -> RandomKernel:
    chosen = next(one for one in MODES if one.name == mode)
    code = assemble_text(f".code{BITS.get(mode, 32)}\n{text}").segments[0].data
    return kernel_of(chosen, code.ljust(LENGTH, b"\xcc"))


def logged(outcome: Outcome, at: int) -> int:
    """A doubleword of the first exception's entry in the log."""
    return int.from_bytes(outcome.memory.tobytes()[LOG + 4 * at : LOG + 4 * at + 4], "little")


VECTOR, ERROR_CODE, CR2 = 10, 11, 17
"""Where they are in an entry of a kernel of 32 bits."""


@pytest.mark.parametrize("mode, text", [
    pytest.param("flat", "mov eax, [0xffffb000]", id="a load from where the region lies"),
    pytest.param("flat", "mov dword ptr [0xffffbffe], 5", id="a store across two of the region's pages"),
    pytest.param("flat", "mov esp, 4\npush eax\nmov eax, [0xffffffff]", id="a load across the end of 4 GiB, flat"),
    pytest.param("16-bit", "mov ebx, 0xfffffffe\nmov eax, [ebx]", id="a load across the end of 4 GiB"),
    pytest.param("real", "mov ax, 3\nmov bx, 1\n.byte 0x63, 0xd8\n", id="ARPL in real mode"),
    pytest.param("real", "mov ax, 8\nmov ds, ax\nxor ax, ax\nmov ds, ax\nmov ax, [0]", id="DS made 0 in real mode"),
    pytest.param("virtual-8086", "mov ax, 3\nmov bx, 1\n.byte 0x63, 0xd8\n", id="ARPL in virtual-8086 mode"),
    pytest.param("virtual-8086", "mov bx, 0xe000\n.byte 0x8e, 0x0f", id="MOV to CS from a place that can't be read"),
    pytest.param("virtual-8086", "mov bx, 0xdffe\nlds ax, [bx]", id="LDS of a pointer that can't be read"),
    pytest.param("flat", 6 * "push 0x100\n" + f"push 0x1a0002\npush 0\npush {PROGRAM + 128}\niretd", id="VIF and VIP"),
    pytest.param("paging", f"mov edi, {ABSENT}\nmov edx, 0xe9\ninsd", id="INS to a page that isn't there"),
])  # fmt: skip
def test_it_comes_to_the_same(mode: str, text: str, engine: str) -> None:
    verdict = judge(kernel(mode, text), Alone(engine), Inn(engine))
    assert verdict.wrong == []
    # Alone, the portable engine sees no devices at the end of 4 GiB.
    assert verdict.excuse == "" or (engine, mode) == ("portable", "flat")


@pytest.mark.parametrize("mode", ["program", "paging"])
def test_an_address_that_ends_in_the_opcode_of_outs(mode: str, engine: str) -> None:
    """The fault is one of memory, whatever the port in DX."""
    verdict = judge(
        kernel(mode, f"mov ecx, {ABSENT}\nmov edx, 0x60\nmov eax, [ecx + 0x6e]"), Alone(engine), Inn(engine)
    )
    assert verdict.wrong == []
    assert (logged(verdict.hosted, VECTOR), logged(verdict.hosted, CR2)) == (PAGE_FAULT, ABSENT + 0x6E)


def test_a_lock_behind_an_instruction_that_is_in_no_manual_is_looked_at(engine: str) -> None:
    verdict = judge(kernel("flat", ".byte 0xdf, 0xd7, 0xf0, 0xb5, 0x39  # FSTP, LOCK MOV"), Alone(engine), Inn(engine))
    assert verdict.wrong == []
    assert logged(verdict.alone, VECTOR) == INVALID


def test_what_the_end_of_a_block_cuts_off_is_looked_at_as_a_whole(engine: str) -> None:
    """FSTP that only the engine knows, JMP: the JMP's last byte is a LOCK, by itself a forbidden one."""
    text = ".byte 0xeb, 16\n" + 16 * "int3\n" + ".byte 0xdf, 0xd7, 0xeb, 0xf0\nadd [ebx], eax"
    verdict = judge(kernel("flat", text), Alone(engine), Inn(engine))
    assert verdict.wrong == []
    assert logged(verdict.alone, VECTOR) == BREAKPOINT


def test_ins_to_a_page_that_is_absent_is_a_write(engine: str) -> None:
    verdict = judge(kernel("paging", f"mov edi, {ABSENT}\nmov edx, 0xe9\ninsd"), Alone(engine), Inn(engine))
    assert (logged(verdict.hosted, VECTOR), logged(verdict.hosted, ERROR_CODE)) == (PAGE_FAULT, 2)


@pytest.mark.parametrize("rotate", ["rcr dword ptr [ecx], 1", "rcr dword ptr [ecx], 8", "rcl dword ptr [ecx], cl"])
@pytest.mark.parametrize("touch", ["", "mov eax, [ecx]"], ids=["hidden", "clean"])
def test_a_rotation_finds_the_carry_on_a_page_that_the_mirror_hides(rotate: str, touch: str, engine: str) -> None:
    text = f"mov ecx, {DATA + 0x1000}\n{touch}\nstc\nlahf\n{rotate}\nlahf"
    verdict = judge(kernel("paging", text), Alone(engine), Inn(engine))
    assert verdict.wrong == [] and verdict.excuse == ""


def test_a_fetch_that_comes_too_early_leaves_nothing_in_cr2(engine: str) -> None:
    """The last instruction of a page whose next one isn't there."""
    text = f"mov eax, {ABSENT - 1}\nmov byte ptr [eax], 0xcc\nmov byte ptr [eax - 1], 0x90\ndec eax\njmp eax"
    verdict = judge(kernel("paging", text), Alone(engine), Inn(engine))
    assert verdict.wrong == []
    assert verdict.alone.registers["cr2"] == 0


def test_a_kernel_where_another_guest_has_been(engine: str) -> None:
    """Its IRETs are the hypervisor's, also where one of another kernel was the processor's."""
    inn = Inn(engine)
    for mode in ("flat", "program", "16-bit", "64-bit program", "virtual-8086", "program"):
        verdict = judge(kernel(mode, "nop"), Alone(engine), inn)
        assert verdict.wrong == [] and verdict.excuse == "", mode


def test_a_guest_that_nobody_listens_to_takes_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """INT n and IRET between a program and its kernel: what is compared is what happens in the engine's run."""
    if private_layout.self_check():
        pytest.skip("the portable engine always goes the plain way")
    done = Counter[str]()
    reflect, iret = QuickTransfers.reflect, QuickTransfers.iret

    def counted_reflect(transfers: QuickTransfers, *where: int) -> bool:
        is_done = reflect(transfers, *where)
        done["INT n"] += is_done
        return is_done

    def counted_iret(transfers: QuickTransfers, *where: int) -> int:
        answer = iret(transfers, *where)
        done["IRET"] += answer != REFUSED
        return answer

    monkeypatch.setattr(QuickTransfers, "reflect", counted_reflect)
    monkeypatch.setattr(QuickTransfers, "iret", counted_iret)
    padding = "nop\n" * (STEP - 2)
    verdict = judge(kernel("program", f"int 0x2d\n{padding}int 0x2d"), Alone(), Inn())
    assert verdict.wrong == []
    assert done == {"INT n": 1, "IRET": 1}
