"""Layout, labels, directives, macros and includes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvproto.errors import AssemblyError, ImageError
from hvproto.images.assembly import assemble, assemble_text


def data(text: str, **options: int) -> bytes:
    return assemble_text(text, origin=options.get("origin", 0x1000)).segments[0].data


def test_default_origin_and_entry() -> None:
    image = assemble_text("nop\nstart: hlt")
    assert (image.kind, image.segments[0].address, image.entry) == ("assembly", 0x100000, 0x100001)
    assert assemble_text("nop\nstart: nop\n_start: hlt").entry == 0x100002
    assert assemble_text("nop\nhlt").entry == 0x100000


def test_origin_and_entry_directives() -> None:
    image = assemble_text("BASE = 0x2000000\n.origin BASE + 0x10\n.entry main.go\nmain: nop\n.go: hlt")
    assert (image.start, image.entry, image.symbols["main.go"]) == (0x2000010, 0x2000011, 0x2000011)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (".byte 1, -1, 255, 'A', ~1", "01ffff41fe"),
        (".word 0x1234, -2", "3412feff"),
        (".long 1 << 31, $", "0000008000100000"),
        (".int 5", "05000000"),
        (".quad -1", "ff" * 8),
        (r'.ascii "a;#//b", "\n\x41\101\""', b'a;#//b\nAA"'.hex()),
        ('.asciz "a", "b"', "61006200"),
        ('.string "é"', "c3a900"),
        (".byte 1\n.align 4\n.byte 2", "0100000002"),
        ("nop\n.align 4\nnop", "9090909090"),
        (".byte 1\n.balign 1\n.byte 2", "0102"),
        (".space 2\n.byte 1", "000001"),
        (".skip 2, 0xff", "ffff"),
        (".fill 2, 2, 0x1234", "34123412"),
        (".byte 9\n.org 0x1004\n.byte 8", "0900000008"),
        (".byte end - start\nstart: nop\nend: nop", "019090"),
        ("a: .long a + 4, b\nb = a + 1", "0410000001100000"),
        (".EQU N, 3\n.equ M, N * 2\n.byte M", "06"),
        (".rept 3\n.byte \\+ * 2\n.endr", "000204"),
        (".rept 2\n.byte \\+\n.rept 2\n.byte \\+ + 16\n.endr\n.endr", "001011011011"),
        (".rept 0\nbogus\n.endr\nnop", "90"),
        ("N = 2\n.rept N + 1\nnop\n.endr", "909090"),
        (".macro two a, b\n.byte \\a\n.byte \\b, \\@\n.endm\ntwo 1, 2\ntwo ',', (3)", "0102002c0301"),
        (".macro one a, b=7\n.byte \\a, \\b\n.endm\none 1\none 1, 2", "01070102"),
        (".macro wait\n1\\@\\()0: nop\n.endm\n.macro both\nwait\nwait\n.endm\nboth", "9090"),
        (".macro spin\n.again\\@: jmp .again\\@\n.endm\nx: spin\nspin", "ebfeebfe"),
        ("1: jmp 1f\njmp 1b\n1: jmp 1b", "eb02ebfcebfe"),
        ("a: jmp .x\n.x: nop\nb: jmp .x\n.x: jmp a.x", "eb0090eb00ebfb"),
        ("nop // slash\nnop # hash\nnop ; semicolon\n// alone", "909090"),
        ("mov al, ';'\nmov al, '#'", "b03bb023"),
        ("a: b: c: nop", "90"),
        ("jmp $", "ebfe"),
        (".org 0x1002\nhlt", "0000f4"),
        (".space end - start\nstart: nop\nend:", "0090"),
    ],
)
def test_emitted_bytes(text: str, wanted: str) -> None:
    assert data(text).hex() == wanted


def test_trailing_space_takes_no_data() -> None:
    segment = assemble_text("nop\nstack: .space 0x100000\ntop:").segments[0]
    assert (segment.data, segment.size) == (b"\x90", 0x100001)


def test_symbols_constants_and_lines() -> None:
    image = assemble_text("N = 5\nmain:\n  mov eax, N ; five\n.loop: jmp .loop\n1: .long 7", "k.asm")
    assert dict(image.symbols) == {"main": 0x100000, "main.loop": 0x100005}
    assert dict(image.constants) == {"N": 5}
    assert image.symbols.name_at(0x100003) == "main+0x3"
    line = image.line_at(0x100005)
    assert line is not None
    assert (line.file, line.line, line.text) == ("k.asm", 4, "jmp .loop")
    assert image.line_at(0x100007) is not None
    assert image.line_at(0x100001) is None


def test_jumps_take_the_short_form_where_they_reach() -> None:
    assert len(data("jmp end\n.space 127\nend:")) == 2
    image = assemble_text("jmp end\n.space 127, 1\nend: nop")
    assert (image.symbols["end"] - image.start) == 129
    image = assemble_text("jmp end\n.space 128, 1\nend: nop")
    assert (image.symbols["end"] - image.start) == 133


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 40), st.sampled_from(["", ".align 16\n"])), max_size=30))
def test_every_jump_lands_on_its_label(jumps: list[tuple[int, int, str]]) -> None:
    text = "".join(
        f"l{number}: {align}jmp l{target % len(jumps)}\n.space {space}, 0x90\n"
        for number, (target, space, align) in enumerate(jumps)
    )
    image = assemble_text(f"{text}end: nop")
    for address, line in image.lines.items():
        if line.text.startswith("jmp"):
            code = image.read(address, 2)
            length = 2 if code[0] == 0xEB else 5
            offset = int.from_bytes(image.read(address + 1, length - 1), "little", signed=True)
            assert address + length + offset == image.symbols[line.text.split()[1]]


def test_include(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.inc").write_text('.include "b.inc"\ncall_b: call b\n')
    (tmp_path / "lib" / "b.inc").write_text("b: ret\n")
    (tmp_path / "main.asm").write_text('start: nop\n.include "lib/a.inc"\nhlt\n')
    image = assemble(tmp_path / "main.asm")
    assert image.segments[0].data.hex() == "90c3e8fafffffff4"
    line = image.line_at(image.symbols["b"])
    assert line is not None
    assert (line.file, line.line) == (str(tmp_path / "lib" / "b.inc"), 1)


def test_the_same_file_twice_is_no_recursion(tmp_path: Path) -> None:
    (tmp_path / "n.inc").write_text("nop\n")
    (tmp_path / "main.asm").write_text('.include "n.inc"\n.include "n.inc"\n')
    assert assemble(tmp_path / "main.asm").size == 2


def test_switching_modes() -> None:
    text = ".code16\npush 0x1234\njmp dword 8:go\n.code32\ngo: push 0x1234\n.code64\niretq"
    assert data(text).hex() == "68341266ea0b100000080068341200" + "0048cf"


def test_crlf_and_tabs() -> None:
    assert data("\tnop\r\nx:\thlt\r\n").hex() == "90f4"


def test_a_thousand_lines() -> None:
    lines = ["start:"]
    for number in range(125):
        lines += [f"f{number}: mov eax, [table + {number} * 4]", f"add eax, {number * 1000}", "cmp eax, ebx",
                  f"je f{number * 7 % 125}", f"call f{number * 3 % 125}",
                  f"mov dword ptr [{number} + table], f{number}",
                  "jmp .out", ".out: ret"]  # fmt: skip
    lines.append("table: .space 1000")
    assert len(assemble_text("\n".join(lines)).lines) == 1000


def test_assembling_twice_gives_the_same() -> None:
    text = "a: jmp b\n.space 120\nb: call a\nmov eax, [b]"
    assert assemble_text(text) == assemble_text(text) or assemble_text(text).segments == assemble_text(text).segments


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.text("abce[]+-*/()'\",:.\\;#$=~<>0123456789xX %&|^\t", max_size=30)
        | st.sampled_from([".macro m", ".endm", "m", ".rept 2", ".endr", "mov eax,", ".long", "jmp", ".space", ".org"]),
        max_size=8,
    )
)
def test_any_text_assembles_or_is_refused(lines: list[str]) -> None:
    try:
        assemble_text("\n".join(lines))
    except AssemblyError as error:
        assert 1 <= error.line <= len(lines)
        assert error.text == lines[error.line - 1]
    except ImageError as error:
        assert error.reason == "the source has no code or data"


def test_jumps_stay_short_behind_jumps_that_grow() -> None:
    text = "".join(f"je end\njmp .x{number}\nmov eax, 5\n.x{number}: ret\n" for number in range(100))
    image = assemble_text(f"start: {text}.space 200, 0x90\nend: nop")
    jumps = [image.read(address, 1) for address, line in image.lines.items() if line.text.startswith("jmp")]
    assert jumps == [b"\xeb"] * 100
