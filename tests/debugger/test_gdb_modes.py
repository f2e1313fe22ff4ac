"""Debian's gdb over changes between 32-bit and 64-bit code: one connection, always the registers of the code at hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hvproto.debugger.subject import Build
from hvproto.debugger.subjects import machine_subject, session_subject
from hvproto.hypervisor.plan import Plan
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from tests.debugger.gdb import needed
from tests.debugger.runs import bundled
from tests.debugger.test_gdb import connected
from tests.images.elf_builder import Elf, Load

pytestmark = needed

TO_64, TO_32, EXEC = "executing new program: 64-bit code", "executing new program: 32-bit code", "executing new program"
R8 = 0x123456789ABCDEF0

THERE_AND_BACK = f"""
.code32
start:
    cli
    mov esp, 0x9000
    lgdt [gdtp]
    mov dword [0x20000], 0x21007
    mov dword [0x21000], 0x22007
    mov dword [0x22000], 0x87       ; 2 MiB, one to one
    mov eax, 0x20
    mov cr4, eax
    mov eax, 0x20000
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    mov ecx, 3
around:
    jmp 0x18:wide
.code64
wide:
    mov r8, {R8}
    nop
    inc dword [0x5000]
back:
    jmp far [pointer]
.code32
narrow:
    nop
    inc dword [0x5004]
    loop around
    hlt
.align 8
pointer:
    .long narrow
    .word 0x08
.align 8
gdt:
    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x00af9a000000ffff
gdtp:
    .word 31
    .long gdt
"""
NAMES = ("around", "wide", "back", "narrow")


@pytest.fixture(scope="module")
def image() -> Image:
    return assemble_text(THERE_AND_BACK)


@pytest.fixture(scope="module")
def at(image: Image) -> dict[str, int]:
    return {name: int(image.symbols[name]) for name in NAMES}


@pytest.fixture
def build(image: Image) -> Build:
    return machine_subject(image)


def symbols(folder: Path, image: Image, at: dict[str, int], file_class: int) -> Path:
    """An ELF file of the kernel, for gdb's eyes."""
    segment = image.segments[0]
    path = folder / f"kernel{32 * file_class}"
    load = Load(int(segment.address), bytes(segment.data))
    path.write_bytes(bytes(Elf([load], entry=load.virtual, symbols=at, file_class=file_class)))
    return path


def test_single_steps_over_a_change_of_mode_and_back_in_time(build: Build, at: dict[str, int]) -> None:
    with connected(build) as (_, gdb):
        gdb.do(f"break *{at['around']}")
        gdb.do("continue")
        gdb.do("delete")
        assert gdb.value("sizeof($pc)") == 4
        text = gdb.do("stepi")
        assert TO_64 in text and text.count(EXEC) == 1
        assert (gdb.value("$rip"), gdb.value("sizeof($rip)")) == (at["wide"], 8)
        assert "movabs" in gdb.do("x/i $pc")  # in 32-bit code it would be dec and mov
        assert EXEC not in gdb.do("stepi")
        assert gdb.value("$r8") == R8
        assert "r15" in gdb.do("info registers") and "eip" not in gdb.do("info registers")
        gdb.do("reverse-stepi")
        text = gdb.do("reverse-stepi")
        assert TO_32 in text
        assert (gdb.value("$eip"), gdb.value("sizeof($eip)")) == (at["around"], 4)
        assert "r8" not in gdb.do("info registers")


@pytest.mark.parametrize("command", ["stepi", "stepi 9", "nexti", "continue"])
def test_no_command_runs_away_from_a_breakpoint_on_the_switch(build: Build, at: dict[str, int], command: str) -> None:
    # GDB steps off a breakpoint first, and an exec within that makes it forget the rest of what it was told.
    with connected(build) as (_, gdb):
        gdb.do(f"break *{at['around']}")
        gdb.do("continue")
        assert TO_64 in gdb.do(command)
        assert gdb.value("$rip") == at["wide"]
        assert TO_32 in gdb.do("continue")
        assert (gdb.value("$eip"), gdb.value("$ecx")) == (at["around"], 2)


def test_breakpoints_of_every_kind_stop_in_both_modes(build: Build, at: dict[str, int]) -> None:
    with connected(build) as (server, gdb):
        gdb.do("display/x $pc")
        gdb.do(f"break *{at['wide'] + 10}")
        gdb.do(f"hbreak *{at['back']}")
        gdb.do(f"break *{at['narrow']} if $ecx == 2")
        for pc, number, change in (("wide", 1, True), ("back", 2, False), ("wide", 1, True), ("back", 2, False),
                                   ("narrow", 3, True), ("wide", 1, True)):  # fmt: skip
            text = gdb.do("continue")
            expected = at[pc] + 10 * (pc == "wide")
            assert gdb.value("$pc") == expected
            assert f"Breakpoint {number}, " in text and (EXEC in text) == change
            assert f"/x $pc = {expected:#x}" in text
        assert gdb.value("$r8") == R8
        gdb.do("delete")
        assert server.debug.breakpoints == {}
        assert "exited" in gdb.do("continue")


@pytest.mark.parametrize("file_class", [1, 2])
@pytest.mark.parametrize("command", ["file", "symbol-file"])
def test_symbols_and_breakpoints_at_them_survive(
    build: Build, image: Image, at: dict[str, int], tmp_path: Path, file_class: int, command: str
) -> None:
    with connected(build, f"{command} {symbols(tmp_path, image, at, file_class)}") as (_, gdb):
        gdb.do("break *back")
        gdb.do("break *narrow")
        for name in ("back", "narrow", "back"):
            text = gdb.do("continue")
            assert EXEC in text and f"in {name} ()" in text
            assert gdb.value("$pc") == at[name]
        assert gdb.value("$r8") == R8


def test_watchpoints_stop_on_the_other_side_too(build: Build, at: dict[str, int]) -> None:
    with connected(build) as (_, gdb):
        gdb.do("watch *(int*)0x5000")
        text = gdb.do("continue")
        assert "64-bit code (the watched memory at 0x5000 has changed)" in text
        assert (gdb.value("$rip"), gdb.value("*(int*)0x5000")) == (at["back"], 1)
        text = gdb.do("continue")
        assert EXEC not in text and "watchpoint-trigger" in text
        assert (gdb.value("$rip"), gdb.value("*(int*)0x5000")) == (at["back"], 2)


@pytest.mark.parametrize("kind", ["rwatch", "awatch"])
def test_a_watchpoint_for_reads_is_told_of_as_ever(build: Build, at: dict[str, int], kind: str) -> None:
    with connected(build) as (_, gdb):
        gdb.do(f"{kind} *(int*)0x5000")
        text = gdb.do("continue")
        assert TO_64 in text and "watchpoint-trigger" in text
        assert gdb.value("$rip") == at["back"]


def test_only_the_mode_at_a_stop_is_told(build: Build, at: dict[str, int]) -> None:
    with connected(build) as (_, gdb):
        gdb.do(f"break *{at['around']}")
        gdb.do("continue")
        gdb.do("delete")
        gdb.do(f"tbreak *{at['narrow'] + 7}")  # the loop, on the way back
        text = gdb.do("continue")
        assert EXEC not in text
        assert (gdb.value("$eip"), gdb.value("$ecx")) == (at["narrow"] + 7, 3)


def test_a_gdb_that_takes_no_exec_is_told_to_reconnect(build: Build, at: dict[str, int]) -> None:
    with connected(build, "set remote exec-event-feature-packet off") as (server, gdb):
        gdb.do(f"break *{at['back']}")
        assert EXEC not in gdb.do("continue")
        assert gdb.value("$eip") == at["back"]
        assert "r8" not in gdb.do("info registers")
        assert any("reconnect GDB" in line for line in server.said)


def test_whoever_catches_execs_stops_twice_at_the_same_place(build: Build, at: dict[str, int]) -> None:
    with connected(build) as (server, gdb):
        gdb.do(f"break *{at['back']}")
        gdb.do("catch exec")
        assert "Catchpoint 2 (exec'd 64-bit code)" in gdb.do("continue")
        assert gdb.value("$rip") == at["back"]
        position = server.debug.position
        assert "Breakpoint 1, " in gdb.do("continue")
        assert server.debug.position == position
        assert "Catchpoint 2 (exec'd 32-bit code)" in gdb.do("stepi")
        gdb.do(f"monitor break {at['back']}")
        gdb.do("monitor continue")  # somebody else takes the run on
        position = server.debug.position
        gdb.do("stepi")
        assert server.debug.position != position


def test_a_guest_of_64_bits_on_a_host_of_32() -> None:
    build = session_subject(bundled("host"), bundled("guest64"), Plan.parse("mirrored"))
    with connected(build) as (_, gdb):
        gdb.do("monitor break Relocated")
        text = gdb.do("continue")
        assert text.count(EXEC) == 1 and TO_64 in text
        threads = gdb.do("info threads")
        assert "host, state saved" in threads and "guest, on the processor" in threads
        assert gdb.value("sizeof($rip)") == 8
        gdb.do("monitor delete")
        gdb.do("monitor break HostFunction")
        text = gdb.do("continue")
        assert text.count(EXEC) == 1 and TO_32 in text
        assert re.search(r"\* +\d+ +Thread 1 \(host, on the processor\)", gdb.do("info threads"))
        assert gdb.value("sizeof($eip)") == 4
