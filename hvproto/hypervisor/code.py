"""Catching the sensitive instructions that don't trap below ring 0 (the classic x86 hole).

When a guest page is fetched from for the first time, every offset at which such an instruction
could start is found by decoding from each candidate byte (superset decoding), and a trap is planted
there. A planted trap costs nothing unless an instruction starts at it, and guest memory is never
changed. Code pages are watched, so that new code is looked at too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import capstone
from capstone import x86_const as cs

from hvproto.addresses import GPA, GVA, PAGE_MASK, PAGE_SIZE
from hvproto.processor.processor import Processor

LONGEST_INSTRUCTION = 15
_PREFIXES = frozenset(b"\x66\x67\xf0\xf2\xf3\x2e\x36\x3e\x26\x64\x65")


def _modrm(*extensions: int) -> bytes:
    """A character class of the ModR/M bytes whose reg field is one of these."""
    values = (value for value in range(256) if value >> 3 & 7 in extensions)
    return b"[" + b"".join(re.escape(bytes([value])) for value in values) + b"]"


# Where the opcode (after prefixes) of a sensitive instruction could stand: 0F 00-03 are SLDT, STR, VERR,
# VERW, SGDT, SIDT, SMSW, LAR, LSL, which programs may use too; 6C and 6D are INS, of which the engine
# stores a zero before any permission check can refuse it; PUSHF and POPF show and change the virtual IF and IOPL;
# far CALL (direct and through memory), far RET and IRET reach the stack with the rights of a supervisor in the engine,
# and so the region ...
_USER_OPCODES = rb"\x0f(?=[\x00-\x03])|[\x6c\x6d\x9c\x9d\x9a\xca\xcb\xcf]|\xff(?=" + _modrm(3) + rb")"
# ... and in a kernel PUSH CS, PUSH SS, MOV from CS and SS, far JMP (direct and through memory). Far transfers would
# take ring 3 for the kernel's own level.
_KERNEL_OPCODES = _USER_OPCODES + rb"|[\x0e\x16\xea]|\x8c(?=" + _modrm(1, 2) + rb")|\xff(?=" + _modrm(5) + rb")"
_IO_OPCODES = rb"|[\xe4-\xe7\xec-\xef\x6e\x6f]"

_ALWAYS = frozenset(
    {
        cs.X86_INS_INSB, cs.X86_INS_INSW, cs.X86_INS_INSD,
        cs.X86_INS_SGDT, cs.X86_INS_SIDT, cs.X86_INS_SLDT, cs.X86_INS_STR, cs.X86_INS_SMSW,
        cs.X86_INS_LAR, cs.X86_INS_LSL, cs.X86_INS_VERR, cs.X86_INS_VERW,
        cs.X86_INS_PUSHF, cs.X86_INS_PUSHFD, cs.X86_INS_POPF, cs.X86_INS_POPFD,
        cs.X86_INS_IRET, cs.X86_INS_IRETD, cs.X86_INS_LCALL, cs.X86_INS_RETF,
    }
)  # fmt: skip
_IO = frozenset(
    {
        cs.X86_INS_IN, cs.X86_INS_OUT, cs.X86_INS_OUTSB, cs.X86_INS_OUTSW, cs.X86_INS_OUTSD,
    }
)  # fmt: skip
_LEVEL_REGISTERS = frozenset({cs.X86_REG_CS, cs.X86_REG_SS})


@cache
def _candidates(kernel: bool, ports: bool) -> re.Pattern[bytes]:
    """Finds each byte that could be the opcode of a sensitive instruction."""
    return re.compile((_KERNEL_OPCODES if kernel else _USER_OPCODES) + (_IO_OPCODES if ports else b""), re.DOTALL)


class Decoder:
    """Capstone for guest code, 32-bit with operand details; decoded instructions are kept by their bytes."""

    def __init__(self) -> None:
        self._capstone = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
        self._capstone.detail = True
        self._known: dict[bytes, capstone.CsInsn | None] = {}

    def decode(self, code: bytes) -> capstone.CsInsn | None:
        """The instruction that these bytes begin with, or None if they are none."""
        key = code[:LONGEST_INSTRUCTION]
        if key not in self._known:
            found = next(self._capstone.disasm(key, 0, 1), None)
            self._known[key] = found or next(self._capstone.disasm(_plain(key), 0, 1), None)
        return self._known[key]


def _plain(code: bytes) -> bytes:
    """The same bytes with others instead of LOCK and REP prefixes: the engine executes what these make undefined."""
    prefixes = code[: len(code) - len(code.lstrip(bytes(_PREFIXES)))]
    harmless = bytes(byte for byte in prefixes if byte not in b"\xf0\xf2\xf3")[-1:] or b"\x3e"
    replaced = b"".join(harmless if byte in b"\xf0\xf2\xf3" else bytes([byte]) for byte in prefixes)
    return replaced + code[len(prefixes) :]


def is_far_through_memory(instruction: capstone.CsInsn) -> bool:
    """FF /3 (CALL) or FF /5 (JMP), which the decoder numbers as the near ones."""
    far = instruction.id in (cs.X86_INS_CALL, cs.X86_INS_JMP) and instruction.opcode[0] == 0xFF
    return bool(far and instruction.modrm >> 3 & 7 in (3, 5))


def loads_stack(instruction: capstone.CsInsn) -> bool:
    """Whether it is MOV SS, POP SS or LSS."""
    if instruction.id == cs.X86_INS_LSS:
        return True
    if instruction.id not in (cs.X86_INS_MOV, cs.X86_INS_POP):
        return False
    target = instruction.operands[0]
    return bool(target.type == cs.X86_OP_REG and target.reg == cs.X86_REG_SS)


def is_sensitive(instruction: capstone.CsInsn, *, kernel: bool, ports: bool) -> bool:
    """Whether an instruction must trap although the processor lets it pass at ring 3.

    ``ports``: IN and OUT count too, for an engine that doesn't check IOPL itself.
    """
    if instruction.id in _ALWAYS or (ports and instruction.id in _IO):
        return True
    far_through_memory = is_far_through_memory(instruction)
    if far_through_memory and instruction.id == cs.X86_INS_CALL:
        return True
    if not kernel:
        return False
    if far_through_memory or instruction.id == cs.X86_INS_LJMP:
        return True
    if instruction.id in (cs.X86_INS_MOV, cs.X86_INS_PUSH) and instruction.operands:
        source = instruction.operands[-1]
        return bool(source.type == cs.X86_OP_REG and source.reg in _LEVEL_REGISTERS)
    return False


# What stands at the end of a page if what an instruction is depends on the next one.
_UNFINISHED = re.compile(b"[" + re.escape(bytes(sorted(_PREFIXES))) + rb"]*[\x0f\xff\x8c]?\Z", re.DOTALL)


def sensitive_offsets(
    page: bytes, decoder: Decoder, *, kernel: bool, ports: bool, first: int = 0, end: int = PAGE_SIZE
) -> list[int]:
    """Offsets in [first, end) of a page at which a sensitive instruction could start.

    An instruction whose opcode or ModR/M byte would stand in the next page counts, whatever is there now: the next
    page may be another one when it is executed.
    """
    code = page + bytes(LONGEST_INSTRUCTION)  # what is sensitive, neither displacements nor immediates tell
    found = set()
    for match in _candidates(kernel, ports).finditer(code, first, min(end + LONGEST_INSTRUCTION, PAGE_SIZE)):
        offset = match.start()
        start = offset
        while True:
            instruction = decoder.decode(code[start : start + LONGEST_INSTRUCTION])
            if instruction is not None and is_sensitive(instruction, kernel=kernel, ports=ports):
                found.add(start)
            start -= 1
            if start < 0 or offset - start >= LONGEST_INSTRUCTION or code[start] not in _PREFIXES:
                break
    unfinished = _UNFINISHED.search(page, PAGE_SIZE - LONGEST_INSTRUCTION)
    if unfinished is not None:
        found.update(range(unfinished.start(), PAGE_SIZE))
    return sorted(offset for offset in found if first <= offset < end)


class CodeWatch:
    """The traps that are planted, by linear page and view (True: the kernel's), and what was seen there."""

    def __init__(self, processor: Processor, decoder: Decoder) -> None:
        self._processor = processor
        self._decoder = decoder
        self._ports = not processor.engine.traps_port_io
        self._seen: dict[tuple[GVA, bool], bytes] = {}
        self._planted: dict[tuple[GVA, bool], set[int]] = {}
        self._places: dict[GPA, set[tuple[GVA, bool]]] = {}

    def look_at(self, linear: GVA, gpa: GPA, content: bytes, *, kernel: bool) -> bool:
        """Plant what a page needs that is being fetched from; True if it is a page that wasn't watched yet."""
        key = (linear, kernel)
        if self._seen.get(key) != content:
            self._seen[key] = content
            self._replant(key, content, 0, PAGE_SIZE)
            self._processor.engine.flush_code()
        places = self._places.setdefault(gpa, set())
        is_new = not places
        places.add(key)
        return is_new

    def look_again(self, linear: GVA, content: bytes, first: int, end: int, *, kernel: bool) -> None:
        """A watched page was stored to, in the offsets [first, end)."""
        key = (linear, kernel)
        self._seen[key] = content
        self._replant(key, content, max(0, first - LONGEST_INSTRUCTION), end)

    def _replant(self, key: tuple[GVA, bool], content: bytes, first: int, end: int) -> None:
        linear, kernel = key
        offsets = sensitive_offsets(content, self._decoder, kernel=kernel, ports=self._ports, first=first, end=end)
        wanted = {linear + offset for offset in offsets}
        planted = self._planted.setdefault(key, set())
        stale = {address for address in range(linear + first, linear + end) if address in planted} - wanted
        for address in sorted(stale):
            planted.discard(address)
            if not self._is_planted(address, kernel=not kernel):
                self._processor.engine.unplant(address)
        for address in sorted(wanted - planted):
            self._processor.engine.plant(address)
        planted |= wanted

    def places(self, gpa: GPA) -> list[tuple[GVA, bool]]:
        """Where, and in which view, a page that is being watched has been executed; empty if it isn't one."""
        return sorted(self._places.get(gpa, ()))

    def _is_planted(self, address: int, *, kernel: bool) -> bool:
        page = GVA(address & ~PAGE_MASK)
        return address in self._planted.get((page, kernel), ())

    def is_trap(self, address: int, peek: Callable[[int, int], bytes], *, kernel: bool) -> bool:
        """Whether the instruction at this linear address is to trap now."""
        if not self._is_planted(address, kernel=kernel):
            return False
        if address & PAGE_MASK <= PAGE_SIZE - LONGEST_INSTRUCTION:
            return True
        # What may cross into the next page is decided by what is there now.
        instruction = self._decoder.decode(peek(address, LONGEST_INSTRUCTION))
        return instruction is not None and is_sensitive(instruction, kernel=kernel, ports=self._ports)
