"""mirror = the guest's mappings + the region, after any sequence of page-table edits that a guest makes itself.

The guest is real code that carries out a list of operations; after each of them, and on the way, both views of its
mirror are compared with an independent walk of its tables in RAM.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hvproto.addresses import GPA, PAGE_SIZE
from hvproto.errors import NoMemory
from hvproto.hypervisor.mirror import MIRRORED, REGION
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image, Segment
from tests.hypervisor.stage import MEMORY, Stage, bare

P, W, U, A, D, PS = 1, 2, 4, 0x20, 0x40, 0x80
NX = 1 << 63
ROOTS = (0x110000, 0x111000)
KERNEL_TABLE = 0x112000
TABLES = (0x114000, 0x115000, 0x116000)
DATA = (0x180000, 0x181000, 0x182000, 0x183000)
SLOTS = (1, 2, 0x300, 0x3FE, 0x3FF)
INDICES = (1, 2, 0x200, 0x3F9, 0x3FA, 0x3FB, 0x3FC, 0x3FD, 0x3FE, 0x3FF)
OPERATIONS = 0x120000

_KERNEL = """
.origin 0x100000
.entry start
start:
    cli
    mov esp, 0x10f000
    lgdt [gdt_pointer]
    lidt [idt_pointer]
    mov eax, 0x110000
    mov cr3, eax
    mov eax, cr4
    or eax, 0x10                        ; PSE
    mov cr4, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    mov esi, 0x120000
next:
    out 0xed, al                        ; nothing is there: an exit, at which the mirror is looked at
    mov eax, cr3                        ; only then: alone, the processor may go by what it remembers until now
    mov cr3, eax
    mov eax, [esi]
    mov edi, [esi + 4]
    mov edx, [esi + 8]
    add esi, 12
    jmp dword ptr [kinds + eax*4]
store:
    mov [edi], edx
    jmp next
store_byte:
    mov [edi], dl
    jmp next
store_pair:
    mov [pair], edx
    mov [pair + 4], edx
    fild qword ptr [pair]
    fistp qword ptr [edi]
    jmp next
load_root:
    mov cr3, edx
    jmp next
invalidate:
    invlpg [edi]
    jmp next
read:
    mov eax, [edi]
    add [checksum], eax
    jmp next
finish:
    cli
    hlt
page_fault:
    inc dword ptr [faults]
    add esp, 4
    mov dword ptr [esp], offset next
    iret
.align 8
kinds: .long finish, store, store_byte, store_pair, load_root, invalidate, read
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .long gdt
idt_pointer:
    .word 0x7f
    .long idt
faults: .long 0
checksum: .long 0
pair: .quad 0
.align 8
idt:
    .space 14 * 8
    .word (page_fault & 0xffff), 8, 0x8e00, (page_fault >> 16)
    .space 8
"""
KIND = {name: number for number, name in enumerate(("end", "store", "byte", "pair", "root", "invalidate", "read"))}


def _image(operations: list[tuple[str, int, int]]) -> Image:
    program = assemble_text(_KERNEL)
    raw = b"".join(struct.pack("<III", KIND[kind], where, value) for kind, where, value in [*operations, ("end", 0, 0)])
    places = {OPERATIONS: raw}
    table = b"".join(struct.pack("<I", page << 12 | 3) for page in range(MEMORY >> 12))
    places[KERNEL_TABLE] = table
    for root in ROOTS:
        places[root] = struct.pack("<I", KERNEL_TABLE | 3)
    more = tuple(Segment(GPA(at), data, len(data)) for at, data in sorted(places.items()))
    return replace(program, segments=(*program.segments, *more))


# -- the independent walk ----------------------------------------------------------------------


def mappings(ram: bytes, root: int) -> dict[int, tuple[int, bool, bool, bool, bool]]:
    """linear page -> (frame, writable, user, accessed, dirty) of a 2-level table with PSE, read from bytes."""
    found = {}

    def entry(at: int) -> int:
        return struct.unpack_from("<I", ram, at)[0] if at + 4 <= len(ram) else 0

    for slot in range(1024):
        upper = entry(root + slot * 4)
        if not upper & P:
            continue
        for index in range(1024):
            linear = slot << 22 | index << 12
            if upper & PS:
                lower, frame = upper, (upper & 0xFFC00000) + (index << 12) + ((upper >> 13 & 0xFF) << 32)
                both = upper
            else:
                lower = entry((upper & 0xFFFFF000) + index * 4)
                if not lower & P:
                    continue
                frame, both = lower & 0xFFFFF000, upper & lower
            found[linear] = frame, bool(both & W), bool(both & U), bool(both & A), bool(lower & D)
    return found


def check_mirror(stage: Stage) -> None:
    """Both views hold exactly the guest's mappings and the region."""
    guest = stage.guest
    if guest.mirror.mode.format is None:
        return
    ram = stage.guest_ram()
    region = guest.space.region
    expected = mappings(ram, guest.mirror.mode.cr3 & 0xFFFFF000)
    places = {region.base + n * PAGE_SIZE: frame for n, frame in enumerate(region.frames)}
    assert not places.keys() & expected.keys(), "the region overlaps a mapping of the guest"
    for view, kernel in ((guest.mirror.kernel, True), (guest.mirror.user, False)):
        entries = dict(view.entries())
        for linear, frame in places.items():
            entry = entries.pop(linear)
            assert entry & REGION and entry & P and not entry & U and entry & 0xFFFFFFFFFF000 == frame
        wanted = {linear: page for linear, page in expected.items() if page[0] < MEMORY and (kernel or page[2])}
        assert entries.keys() == wanted.keys()
        for linear, (frame, writable, _, accessed, dirty) in wanted.items():
            entry = entries[linear]
            assert entry & MIRRORED and not entry & REGION and entry & U
            assert entry & 0xFFFFFFFFFF000 == stage.memory.to_host(frame)
            assert not entry & P or accessed, f"{linear:#x} is open though it was never accessed"
            assert not entry & W or (writable and dirty), f"{linear:#x} can be written to"


def run_checked(image: Image, engine: str | None = None, seed: int = 1) -> Stage:
    """Run a guest; its mirror is checked whenever it comes by port 0xed, and at the end."""
    stage = Stage(image, engine, seed=seed, pool_pages=200)
    guest = stage.guest
    plain = guest.write

    def write(port: int, size: int, value: int) -> None:
        if port == 0xED:
            check_mirror(stage)
        plain(port, size, value)

    guest.write = write  # type: ignore[method-assign]
    stage.run(4_000_000)
    check_mirror(stage)
    stage.check_host_untouched()
    return stage


# -- what a guest may do -----------------------------------------------------------------------

_flags = st.sampled_from((0, P, P | W, P | U, P | W | U, P | W | A, P | W | U | A | D, W | U | A | D, P | A))
_frames = st.sampled_from((*DATA, *TABLES, *ROOTS))
_values = st.builds(lambda frame, flags: frame | flags, _frames, _flags)
_upper = st.one_of(
    _values,
    st.builds(lambda table, flags: table | flags, st.sampled_from((*TABLES, *ROOTS)), _flags),
    st.builds(lambda frame, flags: frame | flags | PS, st.sampled_from((0, 0x400000, 0x80000000)), _flags),
)
_upper_places = st.builds(lambda root, slot: root + slot * 4, st.sampled_from(ROOTS), st.sampled_from(SLOTS))
_lower_places = st.builds(lambda table, index: table + index * 4, st.sampled_from(TABLES), st.sampled_from(INDICES))
_linear = st.builds(
    lambda slot, index, at: slot << 22 | index << 12 | at * 4,
    st.sampled_from(SLOTS), st.sampled_from(INDICES), st.integers(2, 1022),
)  # fmt: skip
_operations = st.one_of(
    st.tuples(st.just("store"), _upper_places, _upper),
    st.tuples(st.just("store"), _lower_places, _values),
    st.tuples(st.just("byte"), _lower_places, st.sampled_from((0, P, P | W, P | W | U | A | D))),
    st.tuples(st.just("byte"), _upper_places, st.sampled_from((0, P, P | W, P | W | U | A | D))),
    st.tuples(st.just("pair"), st.one_of(_lower_places, _upper_places), _values),
    st.tuples(st.just("store"), st.builds(int.__sub__, _lower_places, st.integers(1, 3)), _values),
    st.tuples(st.just("root"), st.just(0), st.sampled_from(ROOTS)),
    st.tuples(st.just("invalidate"), _linear, st.just(0)),
    st.tuples(st.just("read"), _linear, st.just(0)),
    st.tuples(st.just("store"), _linear, _values),
)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.target),
)
@given(st.lists(_operations, min_size=1, max_size=30), st.integers(0, 5))
def test_mirror_is_the_guests_mappings_and_the_region(operations: list[tuple[str, int, int]], seed: int) -> None:
    image = _image(operations)
    stage = run_checked(image, seed=seed)
    alone = bare(image, limit=4_000_000)
    assert stage.error is None or isinstance(stage.error, NoMemory)
    assert type(stage.error) is type(alone.error)
    assert stage.guest_ram() == alone.guest_ram()


@pytest.mark.parametrize(
    "operations",
    [
        pytest.param([("store", ROOTS[0] + 4 * 0x3FF, ROOTS[0] | 3), ("read", 0xFFFFF004, 0),
                      ("store", 0xFFFFF004, TABLES[0] | 3), ("store", 0xFFC01008, DATA[0] | 3),
                      ("store", 0x402008, 77)], id="recursive"),
        pytest.param([("store", ROOTS[0] + 4, TABLES[0] | 3), ("store", ROOTS[0] + 8, TABLES[0] | 1),
                      ("store", TABLES[0] + 4, DATA[0] | 7), ("store", 0x401010, 5), ("store", 0x801010, 6),
                      ("read", 0x801010, 0)], id="shared table"),
        pytest.param([("store", ROOTS[0] + 4 * 0x3FF, 0x83), ("store", ROOTS[0] + 4 * 0x3FE, 0x83),
                      ("store", ROOTS[0] + 4 * 0x3FF, 0), ("store", ROOTS[0] + 4 * 0x3FE, 0)], id="large pages at the top"),
        pytest.param([("store", ROOTS[1] + 4 * 0x3FF, TABLES[0] | 3), ("store", TABLES[0] + 0xFEC, DATA[0] | 3),
                      ("root", 0, ROOTS[1]), ("root", 0, ROOTS[0]), ("store", TABLES[0] + 0xFE4, DATA[1] | 3),
                      ("root", 0, ROOTS[1]), ("read", 0xFFFF9008, 0)], id="another root over the region"),
        pytest.param([("store", ROOTS[0] + 4, TABLES[0] | 3), ("store", TABLES[0] + 4, TABLES[0] | 3),
                      ("store", 0x401008, DATA[2] | 3), ("store", 0x402010, 9), ("store", 0x401004, DATA[1] | 1),
                      ("read", 0x401008, 0)], id="a table that maps itself as data"),
    ],
)  # fmt: skip
def test_known_shapes(operations: list[tuple[str, int, int]], engine: str) -> None:
    image = _image(operations)
    stage = run_checked(image, engine)
    alone = bare(image, engine, limit=4_000_000)
    assert stage.error is None and alone.error is None
    assert stage.guest_ram() == alone.guest_ram()


def test_the_check_can_fail() -> None:
    stage = run_checked(_image([("store", ROOTS[0] + 4, TABLES[0] | 3), ("store", TABLES[0] + 4, DATA[0] | 3)]))
    view = stage.guest.mirror.kernel
    entry = view.set(0x401000, 0)
    with pytest.raises(AssertionError):
        check_mirror(stage)
    view.set(0x401000, entry ^ 0x1000)
    with pytest.raises(AssertionError):
        check_mirror(stage)
    view.set(0x401000, entry | P)
    with pytest.raises(AssertionError):
        check_mirror(stage)
