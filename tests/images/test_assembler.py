"""Numbers are what they are, also where Keystone takes decimal ones for hexadecimal."""

from __future__ import annotations

import keystone
import pytest

from hvproto.assembler import assembled
from hvproto.images.assembly import assemble_text

TEXTS = {
    "mov eax, 100": "b864000000",
    "mov eax, [ebx + 8*ecx + 64]": "8b44cb40",
    "mov dword ptr [ebp - 12], 0x10": "c745f410000000",
    "r10: jmp r10": "ebfe",
}


@pytest.mark.parametrize("radix", [0, keystone.KS_OPT_SYNTAX_RADIX16], ids=["decimal", "hexadecimal"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_number_is_the_same_in_either_radix(text: str, radix: int) -> None:
    assembler = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_32)
    if radix:
        assembler.syntax = keystone.KS_OPT_SYNTAX_INTEL | radix
    assert assembled(assembler, text).hex() == TEXTS[text]


def test_a_kernels_numbers_are_the_same_after_one_with_the_other_radix() -> None:
    """What an assembler leaves behind, the next one may find in its memory."""
    from hvproto.images import verified

    wanted = assemble_text("mov eax, 123456\nadd ecx, [edx + 1000]").segments[0].data
    for _ in range(20):
        other = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_32)
        other.syntax = keystone.KS_OPT_SYNTAX_INTEL | keystone.KS_OPT_SYNTAX_RADIX16
        del other
        verified._keystones.clear()
        verified._cache.clear()
        assert assemble_text("mov eax, 123456\nadd ecx, [edx + 1000]").segments[0].data == wanted
