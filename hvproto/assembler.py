"""Keystone, with numbers that it can't misread.

It takes decimal numbers for hexadecimal ones if memory that it never sets happens to hold 16 (MCAsmInfo's radix, in all
versions up to 0.9.2): once in some thousand processes. A number in hexadecimal form is what it is in any case.
"""

from __future__ import annotations

import re

import keystone

_DECIMAL = re.compile(r"(?<!\w)\d+\b")


def assembled(assembler: keystone.Ks, source: str) -> bytes:
    """The machine code of instructions, at address 0; empty if there is none. Raises keystone.KsError.

    >>> assembled(keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_32), "mov eax, 100").hex()
    'b864000000'
    """
    code, _ = assembler.asm(_DECIMAL.sub(lambda number: hex(int(number[0])), source), 0, as_bytes=True)
    return bytes(code or b"")
