"""Names of the ATA registers' bits and of the commands (ATA-1: ANSI X3.221-1994; FLUSH CACHE: ATA-4)."""

from __future__ import annotations

from enum import IntEnum

# Status register.
BSY, DRDY, DF, DSC, DRQ, ERR = 0x80, 0x40, 0x20, 0x10, 0x08, 0x01
IDLE = DRDY | DSC
# Error register.
UNC, IDNF, ABRT = 0x40, 0x10, 0x04
PASSED = 0x01  # the error register after a diagnostic
# Drive/head register.
LBA_MODE, SLAVE, ALWAYS_ONE = 0x40, 0x10, 0xA0
# Device control register.
NO_INTERRUPT, RESET = 0x02, 0x04


class Command(IntEnum):
    READ = 0x20
    READ_ONCE = 0x21  # the variants "without retries" are the same here: nothing ever needs one
    WRITE = 0x30
    WRITE_ONCE = 0x31
    VERIFY = 0x40
    VERIFY_ONCE = 0x41
    DIAGNOSE = 0x90
    SET_GEOMETRY = 0x91
    READ_MULTIPLE = 0xC4
    WRITE_MULTIPLE = 0xC5
    SET_MULTIPLE = 0xC6
    CHECK_POWER = 0xE5
    FLUSH = 0xE7
    IDENTIFY = 0xEC
    SET_FEATURES = 0xEF


WRITES = {Command.WRITE, Command.WRITE_ONCE, Command.WRITE_MULTIPLE}
VERIFIES = {Command.VERIFY, Command.VERIFY_ONCE}
MULTIPLES = {Command.READ_MULTIPLE, Command.WRITE_MULTIPLE}
TRANSFERS = {Command.READ, Command.READ_ONCE} | WRITES | VERIFIES | MULTIPLES
# Recalibrate and seek, with any low nibble, move heads that aren't there; nor is there a motor for 0xe0 to 0xe3.
NOTHING_TO_DO = {Command.FLUSH, Command.SET_FEATURES, *range(0xE0, 0xE4), *range(0x10, 0x20), *range(0x70, 0x80)}
