"""Which instructions are sensitive and don't trap below ring 0 (the classic x86 hole), and where they could start.

Every offset of a page at which such an instruction could start is found by decoding from each candidate byte (superset
decoding), for each kind of code that runs there.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache

import capstone
from capstone import x86_const as cs

from hvproto.addresses import PAGE_SIZE

LONGEST_INSTRUCTION = 15
_LEGACY_PREFIXES = frozenset(b"\x66\x67\xf0\xf2\xf3\x2e\x36\x3e\x26\x64\x65")
_REX = frozenset(range(0x40, 0x50))


@dataclass(frozen=True, slots=True, order=True)
class CodeKind:
    """How the bytes of code are read, and what its segment registers mean."""

    mode: int
    """Capstone's constant: code of 16, 32 or 64 bits."""
    by_paragraphs: bool = False
    """Real or virtual-8086 mode: a load of a segment register looks at no table, and the processor would."""
    guards_loads: bool = False
    """A kernel's: the processor would load segments that its own descriptors close to it."""

    @property
    def watches_loads(self) -> bool:
        """Whether loads of segment registers are sensitive."""
        return self.by_paragraphs or self.guards_loads

    @property
    def prefixes(self) -> frozenset[int]:
        return _LEGACY_PREFIXES | _REX if self.mode == capstone.CS_MODE_64 else _LEGACY_PREFIXES


def _modrm(*extensions: int) -> bytes:
    """A character class of the ModR/M bytes whose reg field is one of these."""
    values = (value for value in range(256) if value >> 3 & 7 in extensions)
    return b"[" + b"".join(re.escape(bytes([value])) for value in values) + b"]"


# Where the opcode (after prefixes) of a sensitive instruction could stand: 0F 00-03 are SLDT, STR, VERR, VERW, SGDT,
# SIDT, SMSW, LAR, LSL, which programs may use too, and 0F A2 is CPUID; 6C and 6D are INS, of which the engine stores a
# zero before any permission check can refuse it; PUSHF and POPF show and change the virtual IF and IOPL; far transfers
# and IRET would look at the region's tables, and at the stack with the rights of a supervisor; a load of SS would find
# its RPL right for ring 3 ...
_OPCODES = (
    rb"\x0f(?=[\x00-\x03\xa2\xb2])|[\x17\x6c\x6d\x9c\x9d\x9a\xea\xca\xcb\xcf]"
    rb"|\xff(?=" + _modrm(3, 5) + rb")|\x8e(?=" + _modrm(2) + rb")"
)
# ... by paragraphs and in kernels also what loads a segment register: MOV, POP, LES, LDS, LSS, LFS, LGS ...
_LOAD_OPCODES = rb"|[\x8e\x07\x1f\xc4\xc5]|\x0f(?=[\xa1\xa9\xb4\xb5])"
# ... by paragraphs ARPL, which is invalid ...
_PARAGRAPH_OPCODES = rb"|\x63"
# ... and IN and OUT, for an engine that doesn't check IOPL itself.
_IO_OPCODES = rb"|[\xe4-\xe7\xec-\xef\x6e\x6f]"

SEGMENT_LOADS = frozenset({cs.X86_INS_LDS, cs.X86_INS_LES, cs.X86_INS_LSS, cs.X86_INS_LFS, cs.X86_INS_LGS})
SEGMENT_NUMBERS = frozenset(getattr(cs, f"X86_REG_{name}") for name in ("ES", "CS", "SS", "DS", "FS", "GS"))
FAR_RETURNS = frozenset({cs.X86_INS_RETF, cs.X86_INS_RETFQ})
IRETS = frozenset({cs.X86_INS_IRET, cs.X86_INS_IRETD, cs.X86_INS_IRETQ})
FLAG_PUSHES = frozenset({cs.X86_INS_PUSHF, cs.X86_INS_PUSHFD, cs.X86_INS_PUSHFQ})
FLAG_POPS = frozenset({cs.X86_INS_POPF, cs.X86_INS_POPFD, cs.X86_INS_POPFQ})
STRING_INPUTS = frozenset({cs.X86_INS_INSB, cs.X86_INS_INSW, cs.X86_INS_INSD})
STRING_OUTPUTS = frozenset({cs.X86_INS_OUTSB, cs.X86_INS_OUTSW, cs.X86_INS_OUTSD})
_ALWAYS = (
    frozenset(
        {
            cs.X86_INS_SGDT, cs.X86_INS_SIDT, cs.X86_INS_SLDT, cs.X86_INS_STR, cs.X86_INS_SMSW, cs.X86_INS_CPUID,
            cs.X86_INS_LAR, cs.X86_INS_LSL, cs.X86_INS_VERR, cs.X86_INS_VERW, cs.X86_INS_LCALL, cs.X86_INS_LJMP,
        }
    )
    | FAR_RETURNS | IRETS | FLAG_PUSHES | FLAG_POPS | STRING_INPUTS
)  # fmt: skip
_IO = frozenset({cs.X86_INS_IN, cs.X86_INS_OUT}) | STRING_OUTPUTS


@cache
def _candidates(kind: CodeKind, ports: bool) -> re.Pattern[bytes]:
    """Finds each byte that could be the opcode of a sensitive instruction."""
    opcodes = _OPCODES
    opcodes += _LOAD_OPCODES if kind.watches_loads else b""
    opcodes += _PARAGRAPH_OPCODES if kind.by_paragraphs else b""
    opcodes += _IO_OPCODES if ports else b""
    return re.compile(opcodes, re.DOTALL)


class KnownPages:
    """What is sensitive in whole pages: guests of the same kernel have the same, and so has one that starts again."""

    SIZE = 256

    def __init__(self) -> None:
        self._offsets: OrderedDict[tuple[bytes, CodeKind, bool], list[int]] = OrderedDict()

    def offsets(self, page: bytes, decoder: Decoder, kind: CodeKind, *, ports: bool) -> list[int]:
        """`sensitive_offsets` of all of a page."""
        key = page, kind, ports
        if key in self._offsets:
            self._offsets.move_to_end(key)
            return self._offsets[key]
        found = self._offsets[key] = sensitive_offsets(page, decoder, kind, ports=ports)
        if len(self._offsets) > self.SIZE:
            self._offsets.popitem(last=False)
        return found


KNOWN_PAGES = KnownPages()
"""One for all guests: it follows from the bytes alone."""


class Decoder:
    """Capstone for guest code with operand details; decoded instructions are kept by their bytes."""

    def __init__(self) -> None:
        self._decoders: dict[int, capstone.Cs] = {}
        self._known: dict[tuple[int, bytes], capstone.CsInsn | None] = {}

    def decode(self, code: bytes, mode: int) -> capstone.CsInsn | None:
        """The instruction that these bytes begin with in code of this mode, or None if they are none."""
        key = mode, code[:LONGEST_INSTRUCTION]
        if key not in self._known:
            self._known[key] = self._first(key[1], mode) or self._first(_plain(key[1], mode), mode)
        return self._known[key]

    def _first(self, code: bytes, mode: int) -> capstone.CsInsn | None:
        decoder = self._decoders.get(mode)
        if decoder is None:
            decoder = self._decoders[mode] = capstone.Cs(capstone.CS_ARCH_X86, mode)
            decoder.detail = True
        return next(decoder.disasm(code, 0, 1), None)


def _plain(code: bytes, mode: int) -> bytes:
    """The same bytes with others instead of LOCK and REP prefixes: the engine executes what these make undefined."""
    prefixes = code[: len(code) - len(code.lstrip(bytes(CodeKind(mode).prefixes)))]
    # Not a REX: one that another prefix follows counts for nothing, and has to go on doing so.
    harmless = bytes(byte for byte in prefixes if byte in _LEGACY_PREFIXES - set(b"\xf0\xf2\xf3"))[-1:] or b"\x3e"
    replaced = b"".join(harmless if byte in b"\xf0\xf2\xf3" else bytes([byte]) for byte in prefixes)
    return replaced + code[len(prefixes) :]


def is_far_through_memory(instruction: capstone.CsInsn) -> bool:
    """FF /3 (CALL) or FF /5 (JMP), which the decoder numbers as the near ones."""
    far = instruction.id in (cs.X86_INS_CALL, cs.X86_INS_JMP) and instruction.opcode[0] == 0xFF
    return bool(far and instruction.modrm >> 3 & 7 in (3, 5))


def loads_segment(instruction: capstone.CsInsn) -> int:
    """Capstone's number of the segment register that an instruction other than a far transfer loads; 0 if none."""
    if instruction.id in SEGMENT_LOADS:
        return int(getattr(cs, f"X86_REG_{instruction.mnemonic[1:].upper()}"))
    if instruction.id in (cs.X86_INS_MOV, cs.X86_INS_POP) and instruction.operands:
        target = instruction.operands[0]
        if target.type == cs.X86_OP_REG and target.reg in SEGMENT_NUMBERS:
            return int(target.reg)
    return 0


def loads_stack(instruction: capstone.CsInsn) -> bool:
    """Whether it is MOV SS, POP SS or LSS."""
    return bool(loads_segment(instruction) == cs.X86_REG_SS)


def is_sensitive(instruction: capstone.CsInsn, kind: CodeKind, *, ports: bool) -> bool:
    """Whether an instruction must trap although the processor lets it pass at ring 3.

    ``ports``: IN and OUT count too, for an engine that doesn't check IOPL itself.
    """
    if instruction.id in _ALWAYS or (ports and instruction.id in _IO):
        return True
    if is_far_through_memory(instruction) or loads_stack(instruction):
        return True
    if kind.by_paragraphs and instruction.id == cs.X86_INS_ARPL:
        return True
    return kind.watches_loads and bool(loads_segment(instruction))


# What stands at the end of a page if what an instruction is depends on the next one.
_UNFINISHED = re.compile(b"[" + re.escape(bytes(sorted(_LEGACY_PREFIXES | _REX))) + rb"]*[\x0f\xff\x8e]?\Z", re.DOTALL)


def sensitive_offsets(
    page: bytes, decoder: Decoder, kind: CodeKind, *, ports: bool, first: int = 0, end: int = PAGE_SIZE
) -> list[int]:
    """Offsets in [first, end) of a page at which a sensitive instruction could start, in order.

    An instruction whose opcode or ModR/M byte would stand in the next page counts, whatever is there now: the next
    page may be another one when it is executed.
    """
    code = page + bytes(LONGEST_INSTRUCTION)  # what is sensitive, neither displacements nor immediates tell
    prefixes = kind.prefixes
    found = set()
    pattern = _candidates(kind, ports)
    for match in pattern.finditer(code, first, min(end + LONGEST_INSTRUCTION, PAGE_SIZE)):
        offset = match.start()
        start = offset
        while True:
            instruction = decoder.decode(code[start : start + LONGEST_INSTRUCTION], kind.mode)
            if instruction is not None and is_sensitive(instruction, kind, ports=ports):
                found.add(start)
            start -= 1
            if start < 0 or offset - start >= LONGEST_INSTRUCTION or code[start] not in prefixes:
                break
    unfinished = _UNFINISHED.search(page, PAGE_SIZE - LONGEST_INSTRUCTION)
    if unfinished is not None:
        found.update(range(unfinished.start(), PAGE_SIZE))
    return sorted(offset for offset in found if first <= offset < end)
