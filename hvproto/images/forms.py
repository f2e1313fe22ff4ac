"""Instruction forms that are encoded by hand: branches, far transfers, stack, string and return forms.

Opcodes are those of the Intel SDM vol. 2. ``bits`` is the mode, 16, 32 or 64. What can't be encoded raises
``ExpressionError``.
"""

from __future__ import annotations

from hvproto.images.expressions import ExpressionError
from hvproto.images.operands import SEGMENT_PREFIXES, Memory, Operand, Register

PREFIXES = {"lock": 0xF0, "rep": 0xF3, "repe": 0xF3, "repz": 0xF3, "repne": 0xF2, "repnz": 0xF2}

OPERAND_SIZE, ADDRESS_SIZE = 0x66, 0x67
_SIZE_PREFIXES = {
    "o16": (OPERAND_SIZE, 16),
    "o32": (OPERAND_SIZE, 32),
    "a16": (ADDRESS_SIZE, 16),
    "a32": (ADDRESS_SIZE, 32),
}

_STRINGS = {"movs": 0xA4, "cmps": 0xA6, "stos": 0xAA, "lods": 0xAC, "scas": 0xAE, "ins": 0x6C, "outs": 0x6E}
STRING_STEMS = frozenset(_STRINGS)

SHIFTS = frozenset({"shl", "shr", "sal", "sar", "rol", "ror", "rcl", "rcr"})

UNSIZED_MEMORY = frozenset(
    {
        "lgdt", "lidt", "sgdt", "sidt", "invlpg", "lldt", "ltr", "str", "sldt", "smsw", "lmsw", "verr", "verw",
        "ljmp", "lcall", "fxsave", "fxrstor", "xsave", "xrstor", "clflush", "ldmxcsr", "stmxcsr", "fldcw", "fstcw",
        "fnstcw", "fldenv", "fstenv", "fnstenv", "fsave", "fnsave", "frstor", "fstsw", "fnstsw", "cmpxchg8b",
        "cmpxchg16b", "fxsave64", "fxrstor64", "xsave64", "xrstor64", "xsaveopt", "xsaveopt64",
        "prefetcht0", "prefetcht1", "prefetcht2", "prefetchnta", "prefetchw"
    }
)  # fmt: skip
"""Instructions whose memory operand needs no size because there is only one."""

ONLY_IN_64 = frozenset(
    {"swapgs", "cdqe", "cqo", "cmpxchg16b", "movsxd", "movabs", "rdfsbase", "rdgsbase", "wrfsbase", "wrgsbase"}
)
"""Instructions of 64-bit mode that Keystone takes, or takes for others, in the other modes as well."""

_CONDITIONS = (
    ("o",), ("no",), ("b", "c", "nae"), ("ae", "nb", "nc"), ("e", "z"), ("ne", "nz"), ("be", "na"), ("a", "nbe"),
    ("s",), ("ns",), ("p", "pe"), ("np", "po"), ("l", "nge"), ("ge", "nl"), ("le", "ng"), ("g", "nle"),
)  # fmt: skip
_JCC = {f"j{name}": code for code, names in enumerate(_CONDITIONS) for name in names}
_SHORT_ONLY = {"loopne": 0xE0, "loopnz": 0xE0, "loope": 0xE1, "loopz": 0xE1, "loop": 0xE2}
_COUNTERS = {"jcxz": 16, "jecxz": 32, "jrcxz": 64}
BRANCHES = frozenset({"jmp", "call", *_JCC, *_SHORT_ONLY, *_COUNTERS})

# Mnemonic -> opcode and operand size; 0 is the mode's own size, "stack" forms default to 64 bits in 64-bit mode.
_PLAIN: dict[str, tuple[bytes, int]] = {
    "iretw": (b"\xcf", 16), "iretd": (b"\xcf", 32), "iretq": (b"\xcf", 64),
    "ret": (b"\xc3", 0), "retn": (b"\xc3", 0), "retf": (b"\xcb", 0),
    "retfw": (b"\xcb", 16), "retfd": (b"\xcb", 32), "retfq": (b"\xcb", 64),
    "leave": (b"\xc9", 0), "sysret": (b"\x0f\x07", 0), "sysretq": (b"\x0f\x07", 64),
    "sysexit": (b"\x0f\x35", 0), "sysexitq": (b"\x0f\x35", 64), "xlat": (b"\xd7", 0),
}  # fmt: skip
_ACCUMULATORS = {"al": (b"", 0xA0), "ax": (b"\x66", 0xA1), "eax": (b"", 0xA1), "rax": (b"\x48", 0xA1)}
_STACK = {"pushf": 0x9C, "popf": 0x9D, "pusha": 0x60, "popa": 0x61}
_SUFFIXES = {"": 0, "w": 16, "d": 32, "q": 64}
_SEGMENT_STACK = {
    ("push", "es"): b"\x06", ("push", "cs"): b"\x0e", ("push", "ss"): b"\x16", ("push", "ds"): b"\x1e",
    ("pop", "es"): b"\x07", ("pop", "ss"): b"\x17", ("pop", "ds"): b"\x1f",
    ("push", "fs"): b"\x0f\xa0", ("pop", "fs"): b"\x0f\xa1", ("push", "gs"): b"\x0f\xa8", ("pop", "gs"): b"\x0f\xa9",
}  # fmt: skip


def _sized(opcode: bytes, size: int, bits: int) -> bytes:
    """``opcode`` with the prefix for an operand of ``size`` bits (0: the mode's own)."""
    if size == 64:
        if bits != 64:
            raise ExpressionError("a 64-bit form outside .code64")
        return b"\x48" + opcode
    if size and size != min(bits, 32):
        return b"\x66" + opcode
    return opcode


def plain(mnemonic: str, bits: int) -> bytes | None:
    """A form without operands, None if it isn't one of those here."""
    if mnemonic == "iret":
        if bits == 64:
            raise ExpressionError("say iretq or iretd in .code64")
        return b"\xcf"
    if mnemonic in _PLAIN:
        return _sized(*_PLAIN[mnemonic], bits)
    for stem, opcode in _STACK.items():
        if mnemonic.startswith(stem) and mnemonic[len(stem) :] in _SUFFIXES:
            return _stack(bytes([opcode]), _SUFFIXES[mnemonic[len(stem) :]], bits)
    stem, letter = mnemonic[:-1], mnemonic[-1:]
    if stem in _STRINGS and letter in "bwdq" and not (letter == "q" and stem in ("ins", "outs")):
        if letter == "b":
            return bytes([_STRINGS[stem]])
        return _sized(bytes([_STRINGS[stem] | 1]), _SUFFIXES[letter], bits)
    return None


def _stack(opcode: bytes, size: int, bits: int) -> bytes:
    if opcode in (b"\x60", b"\x61") and bits == 64:
        raise ExpressionError("there is no PUSHA or POPA in .code64")
    if bits == 64:
        if size == 32:
            raise ExpressionError("there is no 32-bit form in .code64")
        return opcode if size != 16 else b"\x66" + opcode
    if size == 64:
        raise ExpressionError("a 64-bit form outside .code64")
    return _sized(opcode, size, bits)


def segment_stack(mnemonic: str, register: str, bits: int) -> bytes:
    """PUSH or POP of a segment register, in the mode's own size."""
    opcode = _SEGMENT_STACK.get((mnemonic, register))
    if opcode is None or (bits == 64 and len(opcode) == 1):
        raise ExpressionError(f"there is no {mnemonic} {register}{' in .code64' if opcode else ''}")
    return opcode


def push(value: int, size: int, bits: int) -> bytes:
    """PUSH of a number; ``size`` in bytes, 0 for the mode's own."""
    width = 8 * size or bits
    if width not in (16, 32, 64) or (width == 64) != (bits == 64 and width != 16) or (width == 32 and bits == 64):
        raise ExpressionError(f"there is no push of {width} bits in .code{bits}")
    if not -(1 << (width - 1)) <= value < 1 << width:
        raise ExpressionError(f"{value:#x} doesn't fit in {width} bits")
    signed = (value + (1 << (width - 1))) % (1 << width) - (1 << (width - 1))
    field = min(width, 32)
    if not -(1 << (field - 1)) <= signed < 1 << (field - 1):
        raise ExpressionError(f"push sign-extends 32 bits; {value:#x} needs more")
    prefix = b"\x66" if width < min(bits, 32) or (bits == 16 and width == 32) else b""
    if -128 <= signed <= 127:
        return prefix + b"\x6a" + signed.to_bytes(1, "little", signed=True)
    return prefix + b"\x68" + signed.to_bytes(field // 8, "little", signed=True)


def returning(mnemonic: str, count: int, bits: int) -> bytes:
    """RET or RETF that also drops ``count`` bytes of arguments."""
    if not 0 <= count <= 0xFFFF:
        raise ExpressionError(f"{mnemonic} drops 0 to 65535 bytes, not {count}")
    opcode = b"\xca" if mnemonic.startswith("retf") else b"\xc2"
    return _sized(opcode, _SUFFIXES.get(mnemonic[4:], 0), bits) + count.to_bytes(2, "little")


def size_prefix(word: str, bits: int) -> bytes | None:
    """What ``o16``, ``o32``, ``a16`` or ``a32`` emits, nothing where it is the mode's own; None for other words."""
    if word not in _SIZE_PREFIXES:
        return None
    prefix, size = _SIZE_PREFIXES[word]
    if prefix == ADDRESS_SIZE:
        if {size, bits} == {16, 64}:
            raise ExpressionError("there are no 16-bit addresses in .code64")
        return b"" if size == bits else bytes([prefix])
    return b"" if size == min(bits, 32) else bytes([prefix])


def absolute(register: str, address: int, segment: str, to_register: bool, bits: int) -> bytes:
    """MOV between the accumulator and a 64-bit address (``movabs``)."""
    if bits != 64 or register not in _ACCUMULATORS:
        raise ExpressionError("movabs moves AL, AX, EAX or RAX from or to an address, in .code64")
    if not -(1 << 64) < address < 1 << 64:
        raise ExpressionError(f"address {address:#x} needs more than 64 bits")
    prefix, opcode = _ACCUMULATORS[register]
    override = bytes([SEGMENT_PREFIXES[segment]]) if segment else b""
    return override + prefix + bytes([opcode + (0 if to_register else 2)]) + (address % (1 << 64)).to_bytes(8, "little")


def far(mnemonic: str, selector: int, offset: int, size: int, bits: int) -> bytes:
    """JMP or CALL to ``selector:offset``; ``size`` of the offset in bytes, 0 for the mode's own."""
    width = 8 * size or bits
    if bits == 64 or width not in (16, 32):
        raise ExpressionError(f"there is no far {mnemonic} with a {width}-bit offset in .code{bits}")
    if not 0 <= selector <= 0xFFFF:
        raise ExpressionError(f"selector {selector:#x} doesn't fit in 16 bits")
    if not 0 <= offset < 1 << width:
        advice = f"; write {mnemonic} dword selector:offset" if width == 16 else ""
        raise ExpressionError(f"offset {offset:#x} doesn't fit in {width} bits{advice}")
    prefix = b"\x66" if width != bits else b""
    opcode = b"\xea" if mnemonic == "jmp" else b"\x9a"
    return prefix + opcode + offset.to_bytes(width // 8, "little") + selector.to_bytes(2, "little")


def branch(mnemonic: str, address: int, target: int, distance: str, bits: int) -> bytes:
    """A relative branch at ``address`` to ``target``; ``distance`` is "short", "near" or "" for what fits."""
    if not 0 <= target < 1 << max(bits, 32):
        raise ExpressionError(f"target {target:#x} isn't an address in .code{bits}")
    if mnemonic in _SHORT_ONLY or mnemonic in _COUNTERS:
        prefix = b"\x67" if _COUNTERS.get(mnemonic, bits) != bits else b""
        if {bits, _COUNTERS.get(mnemonic, bits)} == {16, 64} or (mnemonic == "jrcxz" and bits != 64):
            raise ExpressionError(f"there is no {mnemonic} in .code{bits}")
        opcode = prefix + bytes([_SHORT_ONLY.get(mnemonic, 0xE3)])
        return _relative(opcode, 1, address, target, bits)
    if mnemonic == "call":
        if distance == "short":
            raise ExpressionError("there is no short call")
        return _relative(b"\xe8", 2 if bits == 16 else 4, address, target, bits)
    short, near = (
        (b"\xeb", b"\xe9")
        if mnemonic == "jmp"
        else (bytes([0x70 | _JCC[mnemonic]]), bytes([0x0F, 0x80 | _JCC[mnemonic]]))
    )
    if distance == "short" or (not distance and _reaches(address + 2, target, bits)):
        return _relative(short, 1, address, target, bits)
    return _relative(near, 2 if bits == 16 else 4, address, target, bits)


def _offset(origin: int, target: int, bits: int) -> int:
    """From ``origin`` (the next instruction) to ``target``, around the end of the address space if that's nearer."""
    if bits == 16 and (origin > 0xFFFF or target > 0xFFFF):
        # Code for real mode that lies above 64 KiB: nobody knows where its segment begins, and so where IP wraps.
        return target - origin
    half = 1 << (bits - 1)
    return (target - origin + half) % (2 * half) - half


def _reaches(origin: int, target: int, bits: int) -> bool:
    return -128 <= _offset(origin, target, bits) <= 127


def _relative(opcode: bytes, width: int, address: int, target: int, bits: int) -> bytes:
    offset = _offset(address + len(opcode) + width, target, bits)
    half = 1 << (8 * width - 1)
    if bits == 16 and width == 2 and -0x10000 < offset < 0x10000:
        offset = (offset + half) % 0x10000 - half  # IP wraps at 64 KiB, wherever their common segment begins
    if not -half <= offset < half:
        kind = "a short branch" if width == 1 else "this branch"
        raise ExpressionError(f"{target:#x} is {abs(offset):,} bytes away, out of reach of {kind}")
    return opcode + offset.to_bytes(width, "little", signed=True)


def needs_no_operand_size(mnemonic: str, operands: list[Operand]) -> bool:
    """Whether Keystone's 0x66 prefix outside 16-bit mode is wrong (LGDT ...) or useless (MOV DS, AX)."""
    if mnemonic in ("lgdt", "lidt", "sgdt", "sidt", "ljmp", "lcall"):
        return True
    if mnemonic != "mov" or len(operands) != 2:
        return False
    first, second = operands
    to_segment = isinstance(first, Register) and first.name in SEGMENT_PREFIXES
    to_memory = isinstance(first, Memory) and isinstance(second, Register) and second.name in SEGMENT_PREFIXES
    return to_segment or to_memory
