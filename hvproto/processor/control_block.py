"""The block of memory that the native engine's machine code shares with Python: where each field lies in it."""

from __future__ import annotations

CTL_CPU = 0x00
CTL_ENV = 0x08
CTL_NOW = 0x10
CTL_DEADLINE = 0x18
CTL_STOPPED = 0x20  # set by the block thunk when it stops the engine at the deadline
CTL_VECTOR = 0x28  # the exception that is being delivered, or was last ...
CTL_ERROR = 0x2C  # ... its error code
CTL_BLOCK_SIZE = 0x30  # bytes of the last block entered; u32
CTL_CR2 = 0x38  # ... CR2 when it was raised
CTL_LENGTH = 0x40  # ... of INT n, INT3, INTO: the instruction's length in bytes, else 0
CTL_DELIVERING = 0x44  # set while the engine delivers it: an exception now is one of the delivery
CTL_LEFT = 0x48  # set when the delivery is left to Python
CTL_UNTIL_OPEN = 0x4C  # stop at the first block where an external interrupt could be taken
CTL_NOT_CANONICAL = 0x50  # set by the page walk for an address that isn't canonical
CTL_WALK = 0x58  # the address of the last page walk's record, below
CTL_RAM = 0x78
CTL_RAM_SIZE = 0x80
CTL_PREFIXES = 0x88  # three sets of 256 bits: prefixes, ...
CTL_UPDATES = 0xA8  # ... opcodes that may read and write the same operand, ...
CTL_UPDATES_0F = 0xC8  # ... and those after 0F
CTL_UC = 0xE8
CTL_BLOCK_START = 0xF0  # linear address of the last block entered
CTL_RESUMING = 0xF8  # set when the block thunk stops since RF is set and instruction breakpoints are
CTL_CR2_BEFORE = 0x100  # CR2 before the last page walk
CTL_SEEN_CODE = 0x108  # the selectors in CS and SS whose descriptors are known to be marked as accessed
CTL_SEEN_STACK = 0x10C
CTL_SCRATCH = 0x110  # for the fast delivery, which ...
CTL_ONLY_SLOW = 0x114  # ... this switches off,
CTL_FAST_COUNT = 0x118  # ... and this counts
CTL_CODE_PAGES = 0x120  # the address of a byte for each page of RAM: whether code was ever fetched from it
CTL_PROTECTED = 0x128  # the address of a byte for each page of RAM: whether stores to it are to be heard of
CTL_ASK = 0x130  # the address of a function to ask before an event of ring 3 is delivered, or 0
CTL_ASK_TRAP = 0x138  # ... of another to ask before an instruction at ring 3 at which a trap is planted
CTL_SIDE = 0x140  # set by who is asked: the address of what CS, SS, CR3 and GDTR become, or 0
CTL_FLAGS = 0x148  # EFLAGS in full, for who is asked
CTL_DATA_SELECTORS = 0x150  # ... and the selectors in ES, DS, FS and GS, ES lowest
CTL_ASK_CYCLES = 0x158  # two u64: virtual time that the delivery of an INT n takes if it is answered, and of a fault
CTL_LIMIT = 0x168  # the time from which on a block's beginning calls BLOCK: the deadline, or at once; signed
CTL_BLOCK_HOOK = 0x170  # the address of BLOCK
CTL_IS_BEGUN = 0x178  # set while a block's beginning has been translated, and the engine's own isn't wanted
CTL_LOOKED_SIZE = 0x17C  # the last block that BLOCK has let begin: its size, u32, ...
CTL_LOOKED_START = 0x180  # ... and its linear address
CTL_GUEST = 0x188  # a guest's flags that aren't the processor's, and what `unasked` adds; 0 if Python is to be asked
CTL_UNASKED = 0x190  # how many of the guest's instructions were executed with nobody asked
CTL_WAITING = 0x198  # the address of the number of stores that wait to be followed
CTL_REAL_FLAGS = 0x1A0  # the flags that a guest has as the processor has them
CTL_TRAPS = 0x1A8  # the address of the table of traps
CTL_TRAP_MASK = 0x1B0  # ... its number of places less one
CTL_TRAP_HOOK = 0x1B8  # ... and the address of the hook that each of them has
CTL_INSTRUCTIONS = 0x1C0  # instructions begun in all blocks before the last one entered, while ...
CTL_COUNTING = 0x1C8  # ... this is set: new translations count them
CTL_ASK_INSTRUCTIONS = 0x1D0  # two u64: as CTL_ASK_CYCLES, the instructions of the way that isn't taken
CTL_KNOWN = 0x1E0  # the address of the transfers between a guest's kernel and its programs that are known
CTL_HOOKS = 0x1E8  # the address of the table of hooks on code by page, or 0
CTL_HOOKS_MASK = 0x1F0  # ... its number of places less one
CTL_HOOK_TAIL = 0x1F8  # ... the end of the engine's list of them, if nobody else has added one
CTL_ALL_HOOKS = 0x200  # the head of that list while another one takes its place
CTL_STORES = 0x208  # the address of the block of `deferred_stores`, or 0 if only hooks are to see stores
CTL_IN_ACCESS = 0x210  # set while an access to memory is translated
CTL_WAS_SHADOW = 0x214  # the bit of the engine's summary that held interrupts off for the instruction that faulted last
CTL_HIDDEN = 0x218  # the address of what `hidden_faults` knows
CTL_COUNTS = 0x220  # 256 x u32: exceptions that the engine has delivered, by vector
CTL_WALKS = CTL_COUNTS + 256 * 4  # records of the last page walks, WALK_COUNT of them, each of WALK_SIZE bytes:
WALK_COUNT = 4
WALK_SIZE = 0x40
WALK_LINEAR = 0x00  # its address,
WALK_RETURN = 0x08  # where in translated code it was called from,
WALK_MARKS = 0x10  # how many entries on its way had A clear before it,
WALK_MARK = 0x18  # and their addresses in our memory
CTL_SIZE = CTL_WALKS + WALK_COUNT * WALK_SIZE

NOT_REPEATING = -1  # where the linear address of an instruction with REP is, if there is none
MARK = 0x6F72_7076_6865_6E67
"""Before the page walk of an engine of ours, and before it the address of its control block."""
IN_BLOCK = 1
"""Added to the control block's address: BLOCK is called by a block that has charged its time."""


def bits(members: tuple[int, ...]) -> bytes:
    """A set of bytes as 256 bits, for BT."""
    return sum(1 << member for member in members).to_bytes(32, "little")
