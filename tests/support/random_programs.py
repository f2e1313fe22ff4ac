"""Short random programs for ring 3, with a kernel around them that records every exception into RAM.

A program is a row of slots of 16 bytes. Whatever happens in a slot, the handler records it and goes on with the
next one, so that a program always comes to its end, or to that of its allowance of events.
"""

from __future__ import annotations

from functools import cache

from hypothesis import strategies as st

from hvproto.images.assembly import assemble_text
from hvproto.processor.settings import CR0_ET, CR0_PE, CR0_PG, CR0_WP, CR4_OSFXSR, Setting
from tests.support.bench import (
    ABSENT_CODE,
    ABSENT_DATA,
    ABSENT_STACK,
    BITMAP,
    CODE0,
    DATA,
    DATA0,
    STUBS,
    USER_STACK,
    Bench,
)
from tests.support.page_tables import CR3, LOW_TABLE, identity

SLOT = 16
PROGRAM = 0x30000
HANDLER = 0x2C000
EVENTS = 0x60000
EVENTS_END = 0x68000
EVENT_SIZE = 64
END_VECTOR = 0x7F
READ_ONLY, KERNEL_ONLY, ABSENT = 0x14000, 0x15000, 0x16000
SHORT_IDT = 0x80

KERNEL = f"""
.macro WITHOUT_ERROR vector
stub\\vector:
        push 0
        push \\vector
        jmp common
.endm

common: pushad
        push ds
        push es
        mov eax, {DATA0}
        mov ds, eax
        mov es, eax
        cld
        mov edi, [events]
        mov ecx, 12
        lea esi, [esp + 8]
        rep movsd                  ; registers, vector, error code, EIP, CS ...
        mov esi, [esp + 60]
        mov [edi - 4], esi         ; EFLAGS last
        mov eax, [esp + 64]        ; the interrupted ESP and SS
        mov [edi], eax
        mov eax, [esp + 68]
        mov [edi + 4], eax
        mov eax, cr2
        mov [edi + 8], eax
        mov ax, [esp + 4]          ; DS and ES
        shl eax, 16
        mov ax, [esp]
        mov [edi + 12], eax
        add edi, 16
        mov [events], edi
        cmp edi, {EVENTS_END}
        jae over
        mov eax, [esp + 48]        ; EIP
        and eax, {~(SLOT - 1) & 0xFFFFFFFF}
        add eax, {SLOT}
        cmp eax, {PROGRAM}
        jb wild
        cmp eax, [last]
        jbe good
wild:   mov eax, [last]
good:   mov [esp + 48], eax
        and dword ptr [esp + 56], {~0x100 & 0xFFFFFFFF}
        pop es
        pop ds
        popad
        add esp, 8
        iretd
over:   cli
        hlt
        jmp over
events: .long {EVENTS}
last:   .long 0
"""


@cache
def assembled(text: str) -> bytes:
    """The bytes of one slot's code, which must not depend on where it lies."""
    data = assemble_text(text, origin=0x1000).segments[0].data
    assert len(data) <= SLOT, text
    return data


@cache
def _kernel() -> tuple[bytes, int, int]:
    image = assemble_text(KERNEL, origin=HANDLER)
    return image.segments[0].data, image.symbols["common"], image.symbols["last"]


def prepare(engine: str, slots: list[bytes], *, paging: bool = True) -> Bench:
    """A bench at the first slot of a program, in ring 3."""
    bench = Bench(engine)
    data, common, last = _kernel()
    bench.view[HANDLER : HANDLER + len(data)] = data
    for vector in range(256):
        at = STUBS + 16 * vector
        code = (b"" if vector in (8, 10, 11, 12, 13, 14, 17) else b"\x6a\x00") + b"\x68" + vector.to_bytes(4, "little")
        code += b"\xe9" + ((common - (at + len(code) + 5)) & 0xFFFF_FFFF).to_bytes(4, "little")
        bench.view[at : at + len(code)] = code
        if vector not in (3, 4) and vector < 0x30:
            bench.gate(vector, dpl=0)
    bench.view[STUBS + 16 * END_VECTOR] = 0xF4
    bench.gate(0x30, trap=True)
    bench.gate(0x31, dpl=2)
    bench.gate(0x32, present=False)
    bench.gate(0x33, ABSENT_CODE)
    bench.gate(0x34, 0x800)
    bench.gate(0x35, DATA0)
    bench.gate(0x36, 0)
    for index in range(0, 0x4000, 4):
        bench.store(DATA + index, 0x9E3779B9 * (index + 1))
    bench.view[BITMAP + 0x60 // 8] = 0xFA  # ports 0x60 and 0x62 are open
    program = b"".join(slot.ljust(SLOT, b"\x90") for slot in slots)
    end = PROGRAM + len(program)
    program += bytes((0xCD, END_VECTOR))
    bench.view[PROGRAM : PROGRAM + len(program)] = program
    bench.store(last, end)
    bench.ring(3)
    bench.cpu.write_setting(Setting.CR4, bench.cpu.control(Setting.CR4) | CR4_OSFXSR)
    if paging:
        identity(bench)
        bench.cpu.write_setting(Setting.CR4, CR4_OSFXSR)
        # The kernel's own pages are out of the program's reach.
        for page in range(256):
            if page << 12 not in (USER_STACK - 0x1000, *range(DATA, DATA + 0x4000, 0x1000), PROGRAM):
                bench.store(LOW_TABLE + 4 * page, page << 12 | 0x63)
        bench.store(LOW_TABLE + 4 * (READ_ONLY >> 12), READ_ONLY | 5)
        bench.store(LOW_TABLE + 4 * (KERNEL_ONLY >> 12), KERNEL_ONLY | 3)
        bench.store(LOW_TABLE + 4 * (ABSENT >> 12), 0)
        bench.cpu.write_setting(Setting.CR3, CR3)
        bench.cpu.write_setting(Setting.CR0, CR0_PE | CR0_ET | CR0_PG | CR0_WP)
    bench.set(eip=PROGRAM, esp=USER_STACK, esi=DATA + 0x40, edi=DATA + 0x80, eax=1, ecx=3, edx=0x60, ebx=7)
    return bench


def events_of(bench: Bench) -> list[tuple[int, int, int]]:
    """(vector, error code, EIP) of what the kernel has recorded."""
    found = []
    for at in range(EVENTS, EVENTS_END, EVENT_SIZE):
        words = bench.load(at, 16)
        if not words[10]:
            break
        found.append((words[8], words[9], words[10]))
    return found


# -- programs --------------------------------------------------------------------------------

REGISTERS = ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi")
register = st.sampled_from(REGISTERS)
place = st.sampled_from(
    (DATA, DATA + 0x40, DATA + 0xFFE, DATA + 0xFFF, READ_ONLY, READ_ONLY - 2, KERNEL_ONLY, KERNEL_ONLY + 0xFFE, ABSENT,
     ABSENT - 1, ABSENT + 0xFFF, 0x8000_0000, 0xFFFF_FFFE)
)  # fmt: skip
small = st.integers(0, 255)
number = st.one_of(st.sampled_from((0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)), st.integers(0, 0xFFFF_FFFF))
selector = st.sampled_from((0, 3, CODE0, DATA0, 0x1B, 0x23, 0x20, 0x28, 0x30, ABSENT_CODE | 3, ABSENT_DATA, ABSENT_STACK,
                            0x5B, 0x1000, 0x0F, 0x68))  # fmt: skip

FIXED = (
    "ud2", "int3", "int 3", "into", "int 4", "cli", "sti", "hlt", "iretd", "ret", "leave", "nop", "clts", "invlpg [eax]",
    "mov eax, cr0", "mov cr3, eax", "rdmsr", "lgdt [esi]", "lidt [esi]", "lmsw ax", "ltr ax", "popfd", "pushfd", "popad",
    "pushad", "push ds\npop es", "pop ds", "pop ss", "xor ecx, ecx\ndiv ecx", "div bl", "idiv ecx", "aam 0", "cpuid",
    "stc", "std", "cld", "cmc", "lahf", "sahf", "cdq", "cbw", "xlatb", "stosb", "stosd", "rep stosb", "rep movsd",
    "repe cmpsb", "repne scasb", "lodsd", "in al, 0x60", "in al, 0x61", "in eax, dx", "out dx, al", "out 0x61, al",
    "outsb", "rep outsb", "fldpi", "fld1", "faddp", "fstp dword ptr [edi]", "fninit", "movups xmm0, [esi]",
    "movups [edi], xmm0", "addps xmm0, xmm0", "movaps xmm1, xmm0", "verr ax", "lar eax, eax", "lsl ecx, ecx",
    "sgdt [edi]", "str ax", "smsw eax", "call eax", "jmp ebx", "call [esi]", "jmp 0x08:0x30000", "jmp 0x1b:0x30000",
    "call 0x28:0", "jmp 0x3b:0", "enter 16, 0", "enter 4, 2", "bswap eax", "lock cmpxchg8b [edi]", ".byte 0xf0, 0x90",
    ".byte 0x0f, 0xff", ".byte 0xd6", "pushfd\nor dword ptr [esp], 0x100\npopfd", "arpl ax, bx", "daa", "aas",
    "bound eax, [esi]", "rdtsc\nmov edx, 0x60\nxor eax, eax", "mov eax, [esp - 4]", "xadd [edi], eax",
)  # fmt: skip


def _formatted(template: str, **parts: st.SearchStrategy[object]) -> st.SearchStrategy[bytes]:
    return st.fixed_dictionaries(parts).map(lambda values: assembled(template.format(**values)))


slot = st.one_of(
    st.sampled_from(FIXED).map(assembled),
    _formatted("mov {r}, {n}", r=register, n=number),
    _formatted("mov esp, {n}", n=st.one_of(place, st.just(USER_STACK), st.just(USER_STACK - 64))),
    _formatted("mov {r}, {p}", r=register, p=place),
    _formatted("{op} {r}, {q}", op=st.sampled_from(("add", "sbb", "xor", "imul", "cmp", "test")), r=register, q=register),
    _formatted("{op} {r}, {n}", op=st.sampled_from(("add", "adc", "sub", "and", "or", "cmp")), r=register, n=number),
    _formatted("{op} {r}, cl", op=st.sampled_from(("shl", "sar", "rol", "rcr")), r=register),
    _formatted("mov {r}, [{p}]", r=register, p=place),
    _formatted("mov [{p}], {r}", r=register, p=place),
    _formatted("{op} [{p}], {r}", op=st.sampled_from(("add", "xchg", "lock xadd", "bts", "lock cmpxchg")), r=register,
               p=place),
    _formatted("push dword ptr [{p}]", p=place),
    _formatted("pop dword ptr [{p}]", p=place),
    _formatted("push {r}\npop {q}", r=register, q=register),
    _formatted("mov eax, {s}\nmov {x}, ax", s=selector, x=st.sampled_from(("ds", "es", "fs", "gs", "ss"))),
    _formatted("int {n}", n=st.one_of(st.sampled_from((0, 3, 4, 13, 14, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x40)),
                                      small.filter(lambda n: n != END_VECTOR))),
    # Jumps over slots, forwards and (a few times, ECX counts) backwards.
    st.integers(0, 3).map(lambda n: bytes((0xEB, 14 + 16 * n))),
    st.tuples(st.sampled_from((0x74, 0x75, 0x7C, 0x72)), st.integers(0, 3)).map(
        lambda t: bytes((t[0], 14 + 16 * t[1]))
    ),
    st.integers(0, 3).map(lambda n: assembled("and ecx, 7") + bytes((0xE2, 256 - 5 - 16 * n))),
    st.binary(min_size=1, max_size=8),
)  # fmt: skip
programs = st.one_of(st.lists(slot, min_size=1, max_size=6), st.lists(slot, min_size=16, max_size=40))
