"""What INT 13h answers in AH (IBM PS/2 and PC BIOS Interface Technical Reference, INT 13h)."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    OK = 0x00
    BAD_COMMAND = 0x01
    NOT_FOUND = 0x04
    NO_PARAMETERS = 0x07
    ACROSS_64K = 0x09
    UNKNOWN_MEDIA = 0x0C
    BAD_DATA = 0x10
    TIMEOUT = 0x80
    WRITE_FAULT = 0xCC
