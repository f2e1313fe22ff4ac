"""`hvproto boot --devices`: what a kernel wanted of devices, on stderr."""

from __future__ import annotations

from pathlib import Path

from tests.support.command import hvproto, kernel, write

BODY = "mov dx, 0x300\nin al, dx\nmov eax, [0xd0000000]\nin al, 0x43\nmov al, 'x'\nout 0xe9, al\ncli\nhlt"


def test_the_list_is_on_stderr(tmp_path: Path) -> None:
    ended = hvproto("boot", write(tmp_path, "kernel.asm", kernel(BODY)), "--devices")
    assert (ended.status, ended.stdout) == (0, b"x")
    *lines, last = ended.stderr.splitlines()
    assert lines == [
        "accesses that nobody answered:",
        "  port 0x0300: read once",
        "  memory page 0xd0000000: read once",
        "devices that were used wrongly:",
    ]
    assert last.startswith("  8254: the control word can't be read, guest at EIP 0x0010000a (start+0xa), cycle ")


def test_also_when_the_kernel_comes_to_grief(tmp_path: Path) -> None:
    ended = hvproto("boot", write(tmp_path, "kernel.asm", kernel("in al, 0x99\nud2")), "--devices")
    assert ended.status == 1 and "port 0x0099: read once" in ended.stderr and "triple fault" in ended.stderr
    assert "used wrongly:\n  none\n" in ended.stderr


def test_unless_it_is_asked_for_nothing_is_said(tmp_path: Path) -> None:
    ended = hvproto("boot", write(tmp_path, "kernel.asm", kernel(BODY)))
    assert (ended.status, ended.stdout, ended.stderr) == (0, b"x", "")
