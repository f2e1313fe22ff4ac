"""What the bundled host's kernel gives to programs for a guest inside of one: signals and mappings, and what it refuses.

The emulation program is replaced by a program of the test's, which ends with what it has found.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hvproto import bundled
from hvproto.images.load import load_image
from hvproto.machine.machine import Machine

LIMIT = 50_000_000


def run(tmp_path: Path, program: str) -> Machine:
    """The bundled host with another emulation program; its exit status is what the program ends with."""
    folder = tmp_path / "guests"
    shutil.copytree(bundled.folder(), folder)
    path = folder / "host" / "programs.asm"
    text = path.read_text()
    assert text.count("emulator_main:\n") == 1
    path.write_text(text.replace("emulator_main:\n", f"emulator_main:\n{program}\n"))
    machine = Machine()
    machine.load(load_image(str(folder / "host.asm")))
    status = machine.run(LIMIT)
    assert status == 0, machine.debug_output.decode()
    return machine


END = """
    xor ebx, ebx
    SYSCALL SYS_EXIT
wrong:
    mov ebx, 3
    SYSCALL SYS_EXIT
"""


def call(number: str, ebx: str, ecx: str, edx: str, result: str) -> str:
    return f"""
    mov ebx, {ebx}
    mov ecx, {ecx}
    mov edx, {edx}
    SYSCALL {number}
    cmp eax, {result}
    jne wrong
"""


@pytest.mark.parametrize(
    ("number", "ebx", "ecx", "edx"),
    [
        ("SYS_MAP", "0x01000800", "0", "0x1000"),  # not a page
        ("SYS_MAP", "0x01000000", "0", "0x1800"),  # not whole pages
        ("SYS_MAP", "0x01000000", "0", "0"),  # none
        ("SYS_MAP", "0x01000000", "4", "0x1000"),  # flags that aren't its to choose
        ("SYS_MAP", "0x01000000", "GUEST_SIZE", "0x1000"),  # beyond its memory
        ("SYS_MAP", "0x05000000", "GUEST_SIZE - 0x1000", "0x2000"),
        ("SYS_MAP", "0x05000000", "0x1000", "GUEST_SIZE"),
        ("SYS_MAP", "0x05000000", "0", "0x80000000"),
        ("SYS_MAP", "HOST_MEMORY", "0", "0x1000"),  # the kernel's addresses
        ("SYS_MAP", "HOST_END - 0x1000", "2", "0x1000"),
        ("SYS_MAP", "HOST_MEMORY - 0x1000", "2", "0x2000"),
        ("SYS_MAP", "0x01800000", "2", "0x01000000"),
        ("SYS_MAP", "0xfffff000", "0", "0x2000"),  # around the end
        ("SYS_UNMAP", "run_block", "0", "0x1000"),
        ("SYS_UNMAP", "0", "0", "HOST_MEMORY + 0x1000"),
        ("SYS_UNMAP", "0x00000001", "0", "0x1000"),
        ("SYS_UNMAP", "0xfffff000", "0", "0x2000"),
        ("SYS_SIGNAL", "0x02000000", "run_block + 0x100", "0"),  # a handler that isn't its own
        ("SYS_SIGNAL", "emulator_main", "emulator_main + 0x100", "0"),  # a stack that it can't write to
        ("SYS_SIGNAL", "emulator_main", "16", "0"),
        ("SYS_SIGNAL", "emulator_main", "kernel_gdt + 0x100", "0"),
        ("SYS_SIGRETURN", "run_block", "0", "0"),  # without a handler
        ("SYS_SIGRETURN", "kernel_gdt", "0", "0"),
        ("10", "0", "0", "0"),  # no such system call
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, number: str, ebx: str, ecx: str, edx: str) -> None:
    machine = run(tmp_path, call(number, ebx, ecx, edx, "-1") + END)
    assert b"killed" not in machine.debug_output


def test_a_page_of_its_memory_at_two_addresses_and_at_none(tmp_path: Path) -> None:
    """Mapped writable and read-only, remapped, and unmapped: the access after that is the program's end."""
    program = (
        call("SYS_MAP", "0xfffff000", "0x00300002", "0x1000", "0")
        + call("SYS_MAP", "0", "0x00300000", "0x2000", "0")
        + """
    mov dword ptr [0xfffff010], 0x12345678
    cmp dword ptr [0x10], 0x12345678
    jne wrong
    mov dword ptr [GUEST_MEMORY + 0x00301010], 0x9abcdef0
    cmp dword ptr [0x1010], 0x9abcdef0
    jne wrong
"""
        + call("SYS_MAP", "0xfffff000", "0x00301000", "0x1000", "0")
        + "    cmp dword ptr [0xfffff010], 0x9abcdef0\n    jne wrong\n"
        + call("SYS_UNMAP", "0", "0", "HOST_MEMORY", "0")
        + call("SYS_UNMAP", "HOST_END", "0", "(0 - HOST_END) & 0xffffffff", "0")
        + END
    )
    assert b"killed" not in run(tmp_path, program).debug_output


HANDLER = """
    mov ebx, caught
    mov ecx, run_block + 0x100
    SYSCALL SYS_SIGNAL
    test eax, eax
    jnz wrong
    mov dword ptr [run_block + 0x100 - SIGNAL_SIZE + FRAME_EIP], inside
    mov dword ptr [run_block + 0x100 - SIGNAL_SIZE + FRAME_ESP], run_block + 0x800
    mov dword ptr [run_block + 0x100 - SIGNAL_SIZE + FRAME_EFLAGS], 0x00023002      ; VM, IOPL 3, and no IF
    mov dword ptr [run_block + 0x100 - SIGNAL_SIZE + FRAME_CS], KERNEL_CODE
    mov dword ptr [run_block + 0x100 - SIGNAL_SIZE + FRAME_EAX], 0x11223344
    mov ebx, run_block + 0x100 - SIGNAL_SIZE
    SYSCALL SYS_SIGRETURN
    jmp wrong
"""


@pytest.mark.parametrize(
    ("instruction", "vector", "error_code", "cr2"),
    [
        ("mov dword ptr [0x1234], 1", 14, 6, 0x1234),
        ("mov ecx, [kernel_gdt]", 14, 5, None),
        ("cli", 13, 0, None),
        ("int 0x21", 13, 0x21 * 8 + 2, None),
        ("int 0x80", 0x80, 0, None),
        ("ud2", 6, 0, None),
        ("int3", 3, 0, None),
        ("mov dword ptr [STACK_TOP - 16], 1", 14, 6, None),  # no page on demand for a program that takes signals
        ("jmp inside_place", 0x20, 0, None),  # a tick
    ],
)
def test_a_signal_and_the_way_back(
    tmp_path: Path, instruction: str, vector: int, error_code: int, cr2: int | None
) -> None:
    """The frame says what happened; flags and segments that aren't a program's to choose are the kernel's."""
    checks = "" if cr2 is None else f"    cmp dword ptr [esp + SIGNAL_CR2], {cr2:#x}\n    jne wrong\n"
    behind = 0 if vector not in (3, 0x80) else 1 if vector == 3 else 2
    program = (
        HANDLER
        + f"""
inside:
    mov ecx, cs
    cmp ecx, USER_CODE
    jne wrong
    pushfd
    pop ecx
    and ecx, 0x00023200
    cmp ecx, 0x200
    jne wrong
inside_place:
    {instruction}
    jmp wrong
caught:
    cmp dword ptr [esp + FRAME_VECTOR], {vector:#x}
    jne wrong
    cmp dword ptr [esp + FRAME_ERROR], {error_code:#x}
    jne wrong
    cmp dword ptr [esp + FRAME_EIP], inside_place + {behind}
    jne wrong
    cmp dword ptr [esp + FRAME_EAX], 0x11223344
    jne wrong
    cmp esp, run_block + 0x100 - SIGNAL_SIZE
    jne wrong
{checks}"""
        + "    SYSCALL SYS_TICKS\n    cmp eax, -1\n    je wrong\n"  # in the handler INT 0x80 is a system call
        + END
    )
    assert b"killed" not in run(tmp_path, program).debug_output


def test_a_fault_of_the_handler_is_the_programs_end(tmp_path: Path) -> None:
    program = HANDLER + "inside:\n    ud2\ncaught:\n    ud2\n" + END
    with pytest.raises(AssertionError, match="emulator killed: vector=6"):
        run(tmp_path, program)


def test_a_program_without_a_handler_is_ended_as_ever(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="emulator killed: vector=13"):
        run(tmp_path, "    cli\n" + END)
