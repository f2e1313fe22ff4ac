"""Instructions that Keystone encodes: written out with numbers for symbols, and checked with Capstone.

Keystone accepts much that it then encodes as something else (numbers cut off, registers and prefixes dropped), so
each result is disassembled and compared, operand by operand, with what the source says.
"""

from __future__ import annotations

import capstone
import keystone

from hvproto.assembler import assembled
from hvproto.images import forms
from hvproto.images.expressions import ExpressionError, told
from hvproto.images.operands import (
    SEGMENT_PREFIXES,
    FarMemory,
    FarPointer,
    Immediate,
    Memory,
    Operand,
    Register,
    Value,
)

_KS_MODES = {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32, 64: keystone.KS_MODE_64}
_CS_MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
_SIZE_NAMES = {1: "byte", 2: "word", 4: "dword", 6: "fword", 8: "qword", 10: "tbyte", 16: "xmmword"}


class Written:
    """What the source says, with numbers for symbols; ``encoded`` gives its verified bytes."""

    def __init__(self, prefix: bytes, mnemonic: str, operands: tuple[Operand, ...], bits: int, value: Value) -> None:
        self.prefix = prefix
        self.mnemonic = mnemonic
        self.operands = list(operands)
        self.bits = bits
        self.value = value
        if self.bits != 64 and self.mnemonic in forms.ONLY_IN_64:
            raise ExpressionError(f"{self.mnemonic} is there in .code64 only")
        self.far_offset = 0
        if self.mnemonic in ("jmp", "call") and len(self.operands) == 1 and isinstance(self.operands[0], FarMemory):
            self.mnemonic = f"l{self.mnemonic}"
            size = self.operands[0].size
            self.far_offset = size - 2 if size else min(bits, 32) // 8
            if self.far_offset not in (2, 4, 8) or (self.far_offset == 8 and bits != 64):
                raise ExpressionError(f"there is no far {mnemonic} with such an offset in .code{bits}")
            if self.far_offset != 8 and self.far_offset != min(bits, 32) // 8:
                self.prefix += bytes([forms.OPERAND_SIZE])
        self.operands = [operand.memory if isinstance(operand, FarMemory) else operand for operand in self.operands]
        if any(isinstance(operand, FarPointer) for operand in self.operands):
            raise ExpressionError(f"{self.mnemonic} takes no selector:offset")
        memories = [operand for operand in self.operands if isinstance(operand, Memory)]
        if len(memories) > 1:
            raise ExpressionError("two memory operands in one instruction")
        self.memory = memories[0] if memories else None
        self.width = self._width()
        self.prefix_dropped = self.bits != 16 and forms.needs_no_operand_size(self.mnemonic, self.operands)
        self.displacement = 0
        self.rip_relative = False
        if self.memory is not None:
            self._place(self.memory)

    def _width(self) -> int:
        """The operand size in bytes, 0 if the operands don't tell."""
        if self.mnemonic in forms.SHIFTS or self.mnemonic in ("out",):
            sized = self.operands[:1] if self.mnemonic != "out" else self.operands[1:]
        else:
            sized = self.operands
        for operand in sized:
            if isinstance(operand, Register | Memory) and operand.size:
                return operand.size
        memory_alone = self.memory is not None and not any(isinstance(o, Register) for o in sized)
        if memory_alone and self.mnemonic in ("push", "pop", "jmp", "call"):
            return self.bits // 8
        if memory_alone and self.mnemonic not in forms.UNSIZED_MEMORY:
            raise ExpressionError("say the size of the memory operand: byte, word, dword ... ptr [...]")
        return 0

    def _place(self, memory: Memory) -> None:
        value = self.value(memory.displacement)
        size = memory.address_size or self.bits // 8
        limit = 1 << (8 * size)
        if not -limit < value < limit:
            raise ExpressionError(f"address {value:#x} needs more than {8 * size} bits")
        if not memory.registers:
            self.displacement = value % limit
            self.rip_relative = self.bits == 64 and memory.segment not in ("fs", "gs")
            return
        self.displacement = (value + limit // 2) % limit - limit // 2
        if not -(1 << 31) <= self.displacement < 1 << 31:
            raise ExpressionError(f"displacement {value:#x} needs more than 32 bits")

    def make_absolute(self) -> None:
        """Leaves RIP alone, for an address that is out of its reach but sign-extends from 32 bits."""
        signed = (self.displacement + (1 << 63)) % (1 << 64) - (1 << 63)
        if not -(1 << 31) <= signed < 1 << 31:
            raise ExpressionError(f"{self.displacement:#x} is out of reach of an address with 32 bits")
        self.displacement, self.rip_relative = signed, False

    def encoded(self, displacement: int) -> bytes:
        """The bytes with this displacement (relative to RIP or not, as ``rip_relative`` says)."""
        body = _keystone_checked(self, displacement)
        if self.far_offset == 8:
            body = _with_rex_w(body)
        if self.memory is not None and self.memory.segment not in ("", self.memory.default_segment):
            body = bytes([SEGMENT_PREFIXES[self.memory.segment]]) + body
        return self.prefix + body

    def text(self, displacement: int) -> str:
        parts = [self._operand_text(index, operand, displacement) for index, operand in enumerate(self.operands)]
        return f"{self.mnemonic} {', '.join(parts)}".strip()

    def _operand_text(self, index: int, operand: Operand, displacement: int) -> str:
        if isinstance(operand, Register):
            if self.mnemonic in ("lar", "lsl") and index == 1 and operand.size == 2:
                # Keystone wants both registers of one size; the upper half of the second is ignored anyway.
                return _widened(operand.name, self.operands[0])
            return operand.name
        if isinstance(operand, Memory):
            return self._memory_text(operand, displacement)
        if isinstance(operand, Immediate):
            if operand.size or operand.distance:
                raise ExpressionError(f"a size before the number {operand.text!r}")
            return str(_fitting(immediate_value(operand, self.value, self.width), operand.text, self.width))
        raise AssertionError(operand)

    def _memory_text(self, memory: Memory, displacement: int) -> str:
        parts = [name if scale == 1 else f"{name}*{scale}" for name, scale in memory.registers]
        if self.rip_relative:
            parts.append("rip")
        elif self.bits == 64 and not memory.registers:
            # An index of "none" makes the displacement absolute (SDM vol. 2, table 2-7).
            parts.append("rsp*2")
        if displacement or not parts:
            parts.append(str(displacement))
        size = memory.size or (self.width if self.mnemonic in ("push", "pop", "jmp", "call") else 0)
        if self.mnemonic in ("lar", "lsl", "ljmp", "lcall") or size not in _SIZE_NAMES:
            size = 0
        return f"{_SIZE_NAMES[size]} ptr [{' + '.join(parts)}]" if size else f"[{' + '.join(parts)}]"


def _with_rex_w(code: bytes) -> bytes:
    """The 64-bit form of an instruction: REX.W behind the other prefixes."""
    start = 1 if code[0] == forms.ADDRESS_SIZE else 0
    if code[start] & 0xF0 == 0x40:
        return code[:start] + bytes([code[start] | 8]) + code[start + 1 :]
    return code[:start] + b"\x48" + code[start:]


def _widened(name: str, like: Operand) -> str:
    if isinstance(like, Register) and like.size > 2:
        letter = "e" if like.size == 4 else "r"
        return letter + name if name[0] != "r" else name[:-1] + ("d" if like.size == 4 else "")
    return name


def immediate_value(operand: Immediate, value: Value, width: int = 4) -> int:
    """The value; a complement (``~x``) of an unsigned number of ``width`` bytes becomes unsigned itself."""
    number = value(operand.value)
    if width in (1, 2, 4, 8) and ("~" in operand.text or width >= 4):
        limit = 1 << (8 * width)
        if -limit <= number < -(limit >> 1):
            return number + limit
    return number


def _fitting(number: int, text: str, width: int) -> int:
    if width in (1, 2, 4, 8):
        limit = 1 << (8 * width)
        if not -(limit >> 1) <= number < limit:
            raise ExpressionError(f"{told(text, number)} doesn't fit in {8 * width} bits")
    return number


_keystones: dict[int, keystone.Ks] = {}
_capstones: dict[int, capstone.Cs] = {}
_cache: dict[tuple[int, bytes, str], bytes | str] = {}
_CACHE_LIMIT = 100_000


def _keystone_checked(written: Written, displacement: int) -> bytes:
    """Keystone's encoding, put right where it is known to be wrong, and compared with what was written."""
    text = written.text(displacement)
    key = (written.bits, written.prefix, text)
    result = _cache.get(key)
    if result is None:
        if len(_cache) > _CACHE_LIMIT:
            _cache.clear()
        try:
            result = _verified(written, text, displacement)
        except ExpressionError as error:
            result = str(error)
        _cache[key] = result
    if isinstance(result, str):
        raise ExpressionError(result)
    return result


def _verified(written: Written, text: str, displacement: int) -> bytes:
    bits = written.bits
    if bits not in _keystones:
        _keystones[bits] = keystone.Ks(keystone.KS_ARCH_X86, _KS_MODES[bits])
        _capstones[bits] = capstone.Cs(capstone.CS_ARCH_X86, _CS_MODES[bits])
        _capstones[bits].detail = True
    try:
        code = assembled(_keystones[bits], text)
    except keystone.KsError as error:
        reason = str(error).split(" (KS_")[0]
        raise ExpressionError(f"{reason[:1].lower()}{reason[1:]}: {text}") from None
    if written.prefix_dropped and code[:1] == b"\x66":
        code = code[1:]
    if written.mnemonic == "nop" and written.memory is not None:
        code = _long_nop(code)
    decoded = list(_capstones[bits].disasm(written.prefix + code, 0))
    if len(decoded) != 1 or decoded[0].size != len(code) + len(written.prefix):
        raise ExpressionError(f"no such instruction{' with this prefix' if written.prefix else ''}: {text}")
    if difference := _difference(written, decoded[0], displacement):
        raise ExpressionError(f"can't encode {text}: {difference}")
    return code


def _long_nop(code: bytes) -> bytes:
    """Keystone makes 0F 18 /4 of it, which is a NOP only by chance; the NOP is 0F 1F /0 (SDM vol. 2, NOP)."""
    opcode = code[:5].find(b"\x0f\x18")  # behind prefixes
    if opcode < 0:
        return code
    return code[:opcode] + bytes([0x0F, 0x1F, code[opcode + 2] & 0xC7]) + code[opcode + 3 :]


def _difference(written: Written, decoded: capstone.CsInsn, displacement: int) -> str:
    """How the decoded instruction's operands differ from the written ones, "" if they don't."""
    found = decoded.operands
    named = {decoded.reg_name(operand.reg) for operand in found if operand.type == capstone.x86.X86_OP_REG}
    numbers = [operand.imm for operand in found if operand.type == capstone.x86.X86_OP_IMM]
    for operand in written.operands:
        if isinstance(operand, Register) and written.mnemonic not in ("lar", "lsl"):
            # MOV DS, AX without its useless prefix reads as MOV DS, EAX.
            same = {operand.name, f"e{operand.name}"} if written.prefix_dropped else {operand.name}
            if not same & named and operand.size != 10:
                return f"{operand.name} isn't used by {decoded.mnemonic} {decoded.op_str}"
        elif isinstance(operand, Immediate):
            wanted = immediate_value(operand, written.value, written.width)
            bits = 8 * written.width if written.width in (1, 2, 4, 8) else 64
            if numbers and not any((wanted - number) % (1 << bits) == 0 for number in numbers):
                return f"{wanted:#x} becomes {decoded.mnemonic} {decoded.op_str}"
        elif isinstance(operand, Memory) and (
            difference := _memory_difference(written, operand, decoded, displacement)
        ):
            return difference
    return ""


def _memory_difference(written: Written, memory: Memory, decoded: capstone.CsInsn, displacement: int) -> str:
    found = [operand for operand in decoded.operands if operand.type == capstone.x86.X86_OP_MEM]
    if len(found) != 1:
        return f"it becomes {decoded.mnemonic} {decoded.op_str}"
    scales: dict[str, int] = {}
    for register, scale in ((found[0].mem.base, 1), (found[0].mem.index, found[0].mem.scale)):
        if register:
            name = decoded.reg_name(register)
            scales[name] = scales.get(name, 0) + scale
    wanted: dict[str, int] = {"rip": 1} if written.rip_relative else {}
    for name, scale in memory.registers:
        wanted[name] = wanted.get(name, 0) + scale
    limit = 1 << (8 * (memory.address_size or written.bits // 8))
    if {name: scale for name, scale in scales.items() if name[1:] != "iz"} != wanted:
        return f"it becomes {decoded.mnemonic} {decoded.op_str}"
    if (found[0].mem.disp - displacement) % limit:
        return f"it becomes {decoded.mnemonic} {decoded.op_str}"
    sized = memory.size in _SIZE_NAMES and memory.size != 6 and not written.far_offset
    if sized and memory.size != found[0].size:
        return f"the operand has {found[0].size} bytes"
    return ""
