"""The plugin as a suite elsewhere has it: nothing imported, found by its entry point."""

from __future__ import annotations

import re

import pytest

pytest_plugins = ["pytester"]

KERNEL = """
import pytest

BODY = \'\'\'
.include "hvproto/assert.asm"
    mov eax, 4
    SYNC 17
    ASSERT_EQ eax, 4
    ASSERT_EQ dword ptr [value], 5
    DONE
value: .long VALUE
\'\'\'
"""


def kernel(value: int) -> str:
    return KERNEL.replace("VALUE", str(value))


def test_unused_it_costs_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            assert not [name for name in sys.modules if name.startswith(("unicorn", "hvproto.machine", "numpy"))]
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_guest_assertions_hold_everywhere(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        kernel(5)
        + """
from hvproto.testing import GuestDone, GuestSync

def test_bare(machine, assemble):
    assert machine.execute(assemble.kernel(BODY)) == 0
    assert [event.kind for event in machine.reports] == ["GuestSync", "GuestDone"]
    assert machine.output == ""

@pytest.fixture
def guest(assemble):
    return assemble.kernel(BODY)

@pytest.mark.plan("mirrored", "direct", "application")
@pytest.mark.paging("none", "2-level", "pse", "pae")
def test_hosted(hv, events):
    with hv.wait_for(GuestSync) as seen:
        pass
    assert (seen[0].number, seen[0].line) == (7, __LINE)
    assert hv.run() == 0 and len(events.of(GuestDone)) == 1 and hv.output == ""
""".replace("7, __LINE", "17, 6")
    )
    pytester.runpytest("-p", "no:cacheprovider").assert_outcomes(passed=13)


def test_64_bit_code(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        BODY = \'\'\'
        .include "hvproto/assert64.asm"
            mov rax, 0x123456789
            SYNC 3
            ASSERT_EQ rax, qword ptr [value]
            ASSERT_EQ rax, qword ptr [other]
            DONE
        value: .quad 0x123456789
        other: .quad 0x123456780
        \'\'\'

        @pytest.fixture
        def guest(assemble):
            return assemble.kernel(BODY)

        @pytest.mark.bits(64)
        @pytest.mark.paging("pae", "4-level")
        @pytest.mark.plan("mirrored", "direct")
        def test_hosted(hv):
            hv.run()
        """
    )
    result = pytester.runpytest("-v")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*[[]*64-bit-4-level*FAILED*"])
    result.stdout.fnmatch_lines(["*test_64_bit_code.py:8: ASSERT_EQ rax, qword ptr [[]other]*"])
    result.stdout.fnmatch_lines(["*left:  0x0000000123456789", "*right: 0x0000000123456780"])


@pytest.mark.parametrize("fixtures", ["machine, assemble", "hv"])
def test_a_guest_assertion_fails_the_test(pytester: pytest.Pytester, fixtures: str) -> None:
    run = "hv.run()" if fixtures == "hv" else "machine.execute(assemble.kernel(BODY))"
    pytester.makepyfile(
        kernel(6)
        + f"""
@pytest.fixture
def guest(assemble):
    return assemble.kernel(BODY)

def test_it({fixtures}):
    {run}
"""
    )
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test_a_guest_assertion_fails_the_test.py:8: ASSERT_EQ dword ptr [[]value], 5"])
    result.stdout.fnmatch_lines(["*left:  0x00000006", "*right: 0x00000005"])


def test_a_failure_shows_the_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from hvproto.testing import PageFault, Relocated

        def test_it(hv):
            with hv.wait_for(Relocated):
                pass

            @hv.on(PageFault, where=range(0, 1 << 32))
            def never_again(seen):
                assert seen.address == 5

            hv.run()
        """
    )
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">*assert seen.address == 5", "E*HookError: guest at EIP*never_again raised AssertionError*",
            "*hvproto: last events*", '*"event": "Relocated"*', "*hvproto: save area*", "IDTR *", "CR3 *",
            "*hvproto: 0x*in both page tables*", "guest, CR3 *", "mirror, CR3 *",
        ]
    )  # fmt: skip
    found = re.search(r"where (\d+) = Exit", result.stdout.str())
    assert found is not None
    assert f"hvproto: {int(found[1]):#x} in both page tables" in result.stdout.str(), "of the exit that was looked at"


def test_an_assembly_error_has_the_line_of_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_it(assemble):
            assemble(\'\'\'
            nop
            mov eax, nowhere
            \'\'\')
        """
    )
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*AssemblyError: *test_an_assembly_error_has_the_line_of_the_test.py:4: *nowhere*"])


def test_a_file_beside_the_test(pytester: pytest.Pytester) -> None:
    pytester.makefile(".asm", small='.include "hvproto/assert.asm"\nstart: mov esp, 0x180000\nASSERT_EQ esp, 3\nDONE\n')
    pytester.makepyfile("def test_it(machine, assemble):\n    machine.execute(assemble('small.asm'))\n")
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*GuestAssertion: *small.asm:3: ASSERT_EQ esp, 3"])


def test_options(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from hvproto.testing import Relocated

        def test_it(hv, assemble, hv_engine):
            assert hv.run() == 0
            assert len(hv.events.of(Relocated)) > 300
            assert hv_engine in ("native", "portable")
            assert hv_engine in type(hv.machine.processor.engine).__name__.lower()
        """
    )
    result = pytester.runpytest("--hv-relocate-every", "20", "--hv-engine", "both", "-v", "-n", "2")
    outcomes = result.parseoutcomes()
    assert outcomes.get("passed", 0) + outcomes.get("skipped", 0) == 2 and outcomes["passed"] >= 1
    result = pytester.runpytest("--hv-relocate-every", "0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_bad_marks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.paging("5-level")
        def test_it(assemble):
            assemble.kernel("hlt")

        @pytest.mark.plan("sideways")
        def test_plan(hv):
            pass

        @pytest.mark.limit(-3)
        def test_limit(machine):
            pass
        """
    )
    result = pytester.runpytest("--strict-markers")
    result.assert_outcomes(failed=1, errors=2)
    result.stdout.fnmatch_lines(["*UsageError: limit(-3): give a number of instructions, at least 1"])
    result.stdout.fnmatch_lines(["*BadInput: no such mode*"])
    result.stdout.fnmatch_lines(["*PlanError: unknown plan 'sideways'*"])
