"""Every error names the file, the line and its text, and says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvproto.errors import AssemblyError, ImageError
from hvproto.images.assembly import assemble, assemble_text


def refused(text: str) -> AssemblyError:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(text, "k.asm")
    assert caught.value.path == "k.asm"
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("nop\njmp nowhere", 2, "undefined symbol nowhere"),
        ("nop\n.long nowhere", 2, "undefined symbol nowhere"),
        ("a: nop\n\na: nop", 3, "a is already defined at k.asm:1"),
        ("a = 1\na = 2", 2, "a is already defined at k.asm:1"),
        ("a: .x: nop\n.x: nop", 2, "a.x is already defined at k.asm:1"),
        ("eax: nop", 1, "eax is a register"),
        (".bogus 3", 1, "unknown directive .bogus"),
        (".byte 1/0", 1, "division by zero"),
        (".byte 256", 1, "256 doesn't fit in 8 bits"),
        (".byte -129", 1, "doesn't fit in 8 bits"),
        (".word 0x10000", 1, "doesn't fit in 16 bits"),
        (".long 1 << 32", 1, "1 << 32 = 0x100000000 doesn't fit in 32 bits"),
        (".byte 1,,2", 1, "an expression is missing"),
        (".long", 1, ".long needs a value"),
        (".long 1 2", 1, "unexpected '2'"),
        (".ascii 5", 1, 'not a "string": 5'),
        ('.ascii "a', 1, "not a"),
        (r'.ascii "\q"', 1, r"unknown escape \q"),
        (".ascii", 1, "is missing"),
        (".align 3", 1, "power of two"),
        (".align 0", 1, "power of two"),
        (".align", 1, ".align takes 1 arguments, 0 given"),
        (".space -1", 1, "0 to 256 MiB"),
        (".space 0x10000001", 1, "0 to 256 MiB"),
        (".space 0x10000000\n.space 1", 2, "larger than 256 MiB"),
        (".space 1, 256", 1, "doesn't fit in 8 bits"),
        (".fill 1, 9, 0", 1, "1 to 8 are possible"),
        ("nop\n.org 0x100000", 2, ".org 0x100000 would go backwards: this is 0x100001 already"),
        (".org 0x20000000", 1, "more than 256 MiB ahead"),
        (".origin 1\n.origin 2", 2, ".origin comes once"),
        ("nop\n.origin 2", 2, ".origin comes once, before all labels"),
        (".origin 1 << 32", 1, "0 to 0xffffffff"),
        (".origin later\nlater:", 1, "later isn't known yet"),
        (".origin 0xffffffff\nnop\nnop", 3, "beyond 4 GiB"),
        (".entry nowhere\nnop", 1, "undefined symbol nowhere"),
        (".entry\nnop", 1, "write .entry SYMBOL"),
        (".entry a\n.entry a\na: nop", 2, ".entry comes once"),
        (".equ 5", 1, "write .equ NAME, expression"),
        (".code16 5", 1, "takes no argument"),
        ("x = x + 1\nnop", 1, "x is defined by itself"),
        ("nop\nx = y\ny = x", 2, "is defined by itself"),
        (".macro m\nm\n.endm\nnop\nm", 5, "in macro m (k.asm:2): macro m invokes itself"),
        (".macro a\nb\n.endm\n.macro b\na\n.endm\na", 7, "macro a invokes itself"),
        (".macro m a\nmov al, \\a\n.endm\nm 5\nm 500", 5, "in macro m (k.asm:2): 500 doesn't fit in 8 bits"),
        (".macro m a\n.endm\nm", 3, "macro m needs its argument a"),
        (".macro m a\n.endm\nm 1, 2", 3, "macro m takes 1 arguments, 2 given"),
        (".macro m\n.endm\n.macro m\n.endm", 3, "macro m is already defined"),
        (".macro m a a\n.endm", 1, "bad macro parameter 'a'"),
        (".macro 5\n.endm", 1, "write .macro NAME"),
        ("nop\n.macro m\nnop", 2, ".macro without its .endm"),
        (".rept 3\nnop", 1, ".rept without its .endr"),
        (".endm", 1, ".endm without its .macro"),
        (".endr", 1, ".endr without its .rept"),
        (".rept\nnop\n.endr", 1, "an expression is missing"),
        (".rept -1\nnop\n.endr", 1, ".rept -1"),
        ("a: .rept a\nnop\n.endr", 1, "a isn't known yet"),
        (".rept 600\n.rept 600\nnop\n.endr\n.endr", 3, "more than 250,000 statements"),
        (".rept 1\n" * 100 + "nop\n" + ".endr\n" * 100, 65, "nested more than 64 deep"),
        (".include 5", 1, 'write .include "file"'),
        ('.include "no-such-file"', 1, "can't include no-such-file: No such file or directory"),
        ("jmp 1f", 1, "there is no label 1: after this"),
        ("jmp 1b", 1, "there is no label 1: before this"),
        ("\n\nnop garbage", 3, "undefined symbol garbage"),
        ("mov eax, [ebx", 1, "a ] is missing in '[ebx'"),
        ("mov al, 0x12345", 1, "0x12345 doesn't fit in 8 bits"),
        ("mov [x], 5\nx:", 1, "say the size of the memory operand"),
        ("mov eax, 'ab'", 1, "can't read"),
        ("\0", 1, "neither an instruction nor a directive"),
    ],
)
def test_reason_and_line(text: str, line: int, reason: str) -> None:
    error = refused(text)
    assert reason in error.reason
    assert error.line == line
    assert error.text == text.split("\n")[line - 1]
    assert str(error).startswith(f"k.asm:{line}: ")


def test_the_first_error_of_a_source_is_reported() -> None:
    assert refused("nop\n.byte 256\njmp nowhere").line == 2


@pytest.mark.parametrize("text", ["", "; only a remark", "a = 5", "label:"])
def test_nothing_to_load(text: str) -> None:
    with pytest.raises(ImageError, match="no code or data"):
        assemble_text(text)


def test_error_inside_an_included_file(tmp_path: Path) -> None:
    (tmp_path / "bad.inc").write_text("nop\n  jmp nowhere\n")
    (tmp_path / "main.asm").write_text('nop\n.include "bad.inc"\n')
    with pytest.raises(AssemblyError) as caught:
        assemble(tmp_path / "main.asm")
    assert (caught.value.path, caught.value.line) == (str(tmp_path / "bad.inc"), 2)
    assert caught.value.text == "  jmp nowhere"


def test_files_including_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.asm").write_text('.include "b.inc"\n')
    (tmp_path / "b.inc").write_text('nop\n.include "a.asm"\n')
    with pytest.raises(AssemblyError, match="includes itself") as caught:
        assemble(tmp_path / "a.asm")
    assert (caught.value.path, caught.value.line) == (str(tmp_path / "b.inc"), 2)


def test_source_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.asm").write_bytes(b"nop\nnop ; \xff\nnop\n")
    with pytest.raises(AssemblyError, match="byte 0xff isn't UTF-8") as caught:
        assemble(tmp_path / "a.asm")
    assert caught.value.line == 2


def test_missing_source(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        assemble(tmp_path / "none.asm")
    with pytest.raises(ImageError, match="directory"):
        assemble(tmp_path)
