"""Physical addresses where a guest has no memory: reads find all ones, writes go nowhere, as on the bare machine."""

from __future__ import annotations

import pytest

from hvproto.errors import TripleFault
from hvproto.machine.ram import MIB
from tests.hypervisor.hosted import PAGING, Run, kernel
from tests.hypervisor.stage import Stage, bare

NOWHERE = """
    mov dword ptr [0x200004], 0x80000083    ; GPA 0x80000000 at 0x400000
    mov edi, offset results
"""
ONES = 0xFFFF_FFFF
ACCESSES = {
    "a load": ("mov eax, [0x400000]\nstosd", [ONES]),
    "a load of a byte": ("xor eax, eax\nmov al, [0x400001]\nstosd", [0xFF]),
    "a load of 8 bytes": ("movq mm0, [0x400008]\nmovq [edi], mm0", [ONES, ONES]),
    "a store": ("mov dword ptr [0x400010], 0x12345678\nmov eax, [0x400010]\nstosd", [ONES]),
    "from memory into nowhere": (
        "mov dword ptr [0x3ffffc], 0x11223344\nmov dword ptr [0x3ffffe], 0x55667788\nmov eax, [0x3ffffe]\nstosd\n"
        "mov eax, [0x3ffffc]\nstosd",
        [0xFFFF_7788, 0x7788_3344],
    ),
    "read, changed and written": ("mov eax, 5\nlock xadd [0x400020], eax\nstosd\nmov eax, [0x400020]\nstosd", [ONES] * 2),
    "a string": ("mov esi, 0x400040\nmov ecx, 3\nrep movsd", [ONES] * 3),
    "a string into nowhere": (
        "mov edx, edi\nmov esi, 0x100000\nmov edi, 0x400040\nmov ecx, 3\nrep movsd\nlea eax, [edi - 0x400040]\n"
        "mov [edx], eax",
        [12],
    ),
    "a stack": ("mov edx, esp\nmov esp, 0x400100\npush 5\npop eax\nmov esp, edx\nstosd", [ONES]),
    "INVLPG": ("invlpg [0x400000]\nmov eax, 1\nstosd", [1]),
    "SMSW and SLDT": ("smsw [0x400030]\nsldt [0x400034]\nmov eax, [0x400030]\nstosd", [ONES]),
    "LIDT": ("lidt [0x400030]\nsidt [edi + 2]", [0xFFFF_0000, ONES]),
    "SGDT": ("sgdt [0x400030]\nmov eax, [0x400030]\nstosd", [ONES]),
    "a page table": (
        "mov dword ptr [0x200008], 0x80001003\nmov eax, 1\nstosd",
        [1],  # all ones would be a mapping with reserved bits; nobody uses it
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCESSES)
def test_as_alone(name: str, engine: str) -> None:
    body, expected = ACCESSES[name]
    image = kernel(f"{PAGING}{NOWHERE}{body}\nhlt\n.align 4\nresults: .space 16")
    alone = bare(image, engine, memory=16 * MIB, limit=1_000_000)
    stage = Stage(image, engine, memory=16 * MIB, ram_size=32 * MIB)
    assert (stage.run(1_000_000), stage.error) == (alone.status, alone.error) == (0, None)
    at = image.symbols["results"]
    assert list(memoryview(alone.guest_ram()[at : at + 16]).cast("I")[: len(expected)]) == expected
    assert stage.guest_ram() == alone.guest_ram()
    stage.check_host_untouched()


@pytest.mark.parametrize("plan", ["mirrored", "direct"])
def test_under_the_bundled_host(plan: str) -> None:
    """One after the other, and none of it reaches the machine's own memory."""
    every = "\n".join(body for body, _ in ACCESSES.values())
    image = kernel(f"{PAGING}{NOWHERE}{every}\nhlt\n.align 4\nresults: .space 256")
    alone = bare(image, memory=16 * MIB, limit=1_000_000)
    run = Run(image, plan)
    assert (run.status, run.error) == (alone.status, alone.error) == (0, None)
    at = image.symbols["results"]
    assert run.words("results", 64) == list(memoryview(alone.guest_ram()[at : at + 256]).cast("I"))
    run.check_the_host_ended_well()


def test_a_far_return_from_a_stack_in_nowhere(engine: str) -> None:
    """It finds all ones, which are no selector; and so does the handler that has only this stack."""
    image = kernel(f"{PAGING}{NOWHERE}mov esp, 0x400100\nretf\n.align 4\nresults: .space 16")
    alone = bare(image, engine, memory=16 * MIB, limit=1_000_000).error
    stage = Stage(image, engine, memory=16 * MIB, ram_size=32 * MIB)
    assert stage.run(1_000_000) is None
    assert isinstance(alone, TripleFault) and isinstance(stage.error, TripleFault)
    assert str(alone) == str(stage.error) and "#GP (error code 0xfffc)" in str(alone)
    stage.check_host_untouched()
