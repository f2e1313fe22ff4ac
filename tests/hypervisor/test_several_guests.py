"""Several guests on one host, each with an emulation program and a hypervisor instance of its own.

Whatever the others are and do, each prints what it prints alone; one that comes to grief takes nobody with it.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from itertools import pairwise

import pytest

from hvproto import bundled
from hvproto.bundled import kernel_path
from hvproto.errors import MachineError, NoMemory, TripleFault, Unsupported
from hvproto.events import Decoupled, EventBus, GuestHalted, HostFunction
from hvproto.hypervisor.accommodation import accommodate
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.pool import PoolExhausted
from hvproto.hypervisor.session import GuestNeverRan, Session
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.images.multiboot_info import BootOptions
from hvproto.machine.ram import MIB

LIMIT = 400_000_000


@cache
def image(name: str) -> Image:
    return load_image(str(bundled.folder() / f"{name}.asm"))


class Together:
    """Guests on one host, to the end of all of them."""

    def __init__(self, *guests: Image, plan: str = "mirrored", memory: int = 16 * MIB) -> None:
        self.events: list[str] = []
        bus = EventBus()
        bus.subscribe(lambda event: self.events.append(event.to_json()), Decoupled, HostFunction, GuestHalted)
        needs = accommodate(len(guests), memory)
        self.session = Session(
            image("host"), list(guests), Plan.parse(plan), ram_size=needs.ram_size, options=needs.options, bus=bus
        )
        self.error: Exception | None = None
        self.status: int | None = None
        try:
            self.status = self.session.run(LIMIT)
        except Exception as error:
            self.error = error
        self.failures = self.session.hypervisor.failures
        said = self.session.machine.debug_output.decode()
        assert "host: ticks=" in said, f"the host has not come to its end: {self.error}"
        assert int(said.split("ticks=")[1].split()[0]) == self.session.machine.board.pit.raised

    def output(self, number: int) -> str:
        return self.session.hypervisor.guests[number].output.decode("latin-1")


@cache
def alone(name: str, plan: str = "mirrored") -> tuple[str, int | None]:
    """What a bundled guest prints, and its status, when it has the host to itself."""
    run = Together(image(name), plan=plan)
    return run.output(0), run.session.guests[0].status


def check_like_alone(run: Together, *names: str, plan: str = "mirrored") -> None:
    for number, name in enumerate(names):
        guest = run.session.hypervisor.guests[number]
        assert (run.output(number), guest.status) == alone(name, plan), f"guest {number}, {name}"


@pytest.mark.parametrize("names", [
    ("guest", "hello"), ("guest", "guest"), ("hello", "guest64", "triple", "boot/bootsector"),
])  # fmt: skip
def test_each_prints_what_it_prints_alone(names: tuple[str, ...]) -> None:
    run = Together(*map(image, names))
    assert all(len(alone(name)[0]) > 10 for name in names if name != "triple")
    check_like_alone(run, *names)
    statuses = [guest.status for guest in run.session.guests if guest.status]
    if "triple" in names:
        assert isinstance(run.error, TripleFault) and run.error.where.symbol == "last_words"
        assert list(run.failures) == [names.index("triple")]
    else:
        assert (run.error, run.status) == (None, statuses[0] if statuses else 0)


def test_they_take_turns() -> None:
    """The second one does not wait until the first has ended."""
    run = Together(image("guest"), image("guest64"))
    turns = [line for line in run.events if '"Decoupled"' in line]
    changes = sum('"guest": 0' in one and '"guest": 1' in other for one, other in pairwise(turns))
    assert changes > 5
    check_like_alone(run, "guest", "guest64")
    frames = [{hpa >> 12 for hpa in guest.memory.frames} for guest in run.session.guests]
    frames += [{hpa >> 12 for hpa in guest.region.frames} for guest in run.session.guests
               if isinstance(guest, MirroredGuest)]  # fmt: skip
    assert len(frames) == 4 and len(set().union(*frames)) == sum(map(len, frames))  # nobody shares anything


@pytest.mark.parametrize("plan", ["mirrored", "application"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_that_crashes_harms_none(place: int, plan: str) -> None:
    names = ["hello", "guest"]
    names.insert(place, "triple")
    run = Together(*map(image, names), plan=plan)
    assert isinstance(run.error, TripleFault)
    assert list(run.failures) == [place]
    check_like_alone(run, *names, plan=plan)


def test_the_first_status_that_is_not_0_is_the_runs() -> None:
    body = ".origin 0x100000\nmov al, {}\nout 0xf4, al\nhlt"
    three, seven = assemble_text(body.format(3)), assemble_text(body.format(7))
    run = Together(image("hello"), seven, three)
    assert (run.error, run.status) == (None, 15)
    assert run.session.machine.exit_value == 7  # the host says the same


def test_one_that_needs_more_than_there_is() -> None:
    """A fetch where there is no memory, a kernel that does not fit, and a pool that is too small, beside a good one."""
    nowhere = assemble_text(".origin 0x100000\nmov eax, 0x8000000\njmp eax")
    large = assemble_text(".origin 0x1800000\nhlt")
    run = Together(image("hello"), nowhere, image("hello"), large)
    assert isinstance(run.error, NoMemory)
    assert sorted(run.failures) == [1, 3] and "24 MiB" in str(run.failures[3])
    check_like_alone(run, "hello")
    assert run.output(2) == alone("hello")[0]


def test_a_pool_that_is_used_up_ends_one_guest_only() -> None:
    needs = accommodate(2)
    session = Session(image("host"), [image("guest"), image("hello")], Plan.parse("mirrored"),
                      ram_size=needs.ram_size, options=needs.options)  # fmt: skip

    def leave_little(guest: object) -> None:
        if isinstance(guest, MirroredGuest) and guest.number == 0:
            pool = guest.space.pool
            while pool.free > 2:
                pool.allocate()

    session.hypervisor.on_guest = leave_little
    with pytest.raises(PoolExhausted):
        session.run(LIMIT)
    assert session.guests[1].output.decode() == alone("hello")[0]


def test_two_runs_are_identical() -> None:
    names = ("guest", "boot/bootsector", "triple", "guest64")
    one, other = (Together(*map(image, names)) for _ in range(2))
    assert len(one.events) > 500
    assert one.events == other.events
    assert one.session.machine.processor.now == other.session.machine.processor.now


def test_events_say_whose_they_are() -> None:
    run = Together(image("hello"), image("hello"))
    for event in ("Decoupled", "HostFunction", "GuestHalted"):
        lines = [line for line in run.events if f'"{event}"' in line]
        for number in (0, 1):
            assert any(f'"guest": {number}' in line for line in lines)


# -- what two guests could get wrong between them ------------------------------------------------


DESCRIPTORS = """
; Variables in the page of the descriptor table, which is stored to for longer than the host lets us have the processor;
; then a descriptor gets another base, and FS must be loaded with that one, a block later.
.origin 0x100000
        mov esp, 0x180000
        lgdt [pointer]
        xor ebp, ebp
round:  mov ecx, 60000
1:      inc dword ptr [counter]
        dec ecx
        jnz 1b
        lea eax, [values + ebp*4]
        mov [gdt + 0x1a], ax
        jmp load
load:   mov eax, 0x18
        mov fs, ax
        mov eax, fs:[0]
        mov edx, ebp
        not edx
        cmp eax, edx
        jne wrong
        inc ebp
        cmp ebp, 24
        jb round
        mov eax, [counter]
        cmp eax, 24 * 60000
        jne wrong
        mov al, 'y'
        out 0xe9, al
        cli
        hlt
wrong:  mov al, 'n'
        out 0xe9, al
        cli
        hlt
values:
        .long -1, -2, -3, -4, -5, -6, -7, -8, -9, -10, -11, -12, -13, -14, -15, -16, -17, -18, -19, -20, -21, -22, -23, -24
pointer: .word 0x1f
        .long gdt
.align 4096
        .space {before}
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cf93100000ffff
counter: .long 0
.align 4096
"""


def test_descriptor_tables_that_share_pages_with_variables() -> None:
    one, other = (assemble_text(DESCRIPTORS.replace("{before}", place)) for place in ("0", "0x800"))
    run = Together(one, other)
    assert run.error is None
    assert [run.output(number) for number in (0, 1)] == ["y", "y"]


REWRITTEN = """
; One of two has its PUSHF, which traps, overwritten by NOPs; the other must go on to trap at the same address.
.origin 0x100000
        mov esp, 0x180000
        cli
        xor ebp, ebp
round:  mov ecx, {delay}
1:      dec ecx
        jnz 1b
        call place
        cmp ebp, {overwrite}
        jne 2f
        mov dword ptr [place], 0x00c39090   ; NOP, NOP, RET
2:      inc ebp
        cmp ebp, 40
        jb round
        mov al, 'y'
        out 0xe9, al
        cli
        hlt
wrong:  mov al, 'n'
        out 0xe9, al
        cli
        hlt
.align 4096
place:  pushf
        pop eax
        ret
"""


def test_code_at_the_same_address_that_changes_in_one_of_them() -> None:
    """The guest that keeps its PUSHF has IF = 0. It sees that only if it traps: the real IF, which is the host's, is 1."""
    check = REWRITTEN.replace(
        "        call place\n", "        call place\n        test eax, 0x200\n        jnz wrong\n"
    )
    keeps = assemble_text(check.replace("{delay}", "30000").replace("{overwrite}", "1000"))
    changes = assemble_text(REWRITTEN.replace("{delay}", "9000").replace("{overwrite}", "20"))
    for guests in ((keeps, changes), (changes, keeps)):
        run = Together(*guests)
        assert [run.output(number) for number in (0, 1)] == ["y", "y"]


# -- memory --------------------------------------------------------------------------------------

SIZE_OF_MEMORY = """
.origin 0x100000
        mov esp, 0x180000
        mov eax, [ebx + 8]                  ; KiB from 1 MiB on, as the loader says
        mov [upper], eax
        shl eax, 10
        add eax, 0x100000                   ; the end of memory
        mov dword ptr [eax - 4], 0x5ca1ab1e
        mov ecx, [eax - 4]
        mov [last], ecx
        mov ecx, [eax]
        mov [behind], ecx
        mov esi, 0x200000                   ; a word in every MiB, to find each again
1:      mov [esi], esi
        add esi, 0x100000
        cmp esi, eax
        jb 1b
        mov esi, 0x200000
2:      cmp [esi], esi
        jne wrong
        add esi, 0x100000
        cmp esi, eax
        jb 2b
        mov al, 'y'
        out 0xe9, al
wrong:  cli
        hlt
upper:  .long 0
last:   .long 0
behind: .long 0
"""


@pytest.mark.parametrize("guests", [1, 2])
@pytest.mark.parametrize("size", [8, 24, 30, 64, 256])
def test_a_guest_sees_the_memory_that_it_was_given(size: int, guests: int) -> None:
    kernel = assemble_text(SIZE_OF_MEMORY)
    run = Together(*[kernel] * guests, memory=size * MIB)
    assert run.error is None
    for guest in run.session.guests:
        assert guest.output == b"y"
        found = guest.memory.read(kernel.symbols["upper"], 12)
        assert found is not None
        assert list(memoryview(found).cast("I")) == [(size - 1) << 10, 0x5CA1AB1E, 0xFFFF_FFFF]


@pytest.mark.parametrize("size", [16, 32])
def test_the_first_guest_can_be_direct_up_to_32_mib(size: int) -> None:
    run = Together(image("guest"), plan="direct", memory=size * MIB)
    assert (run.error, run.output(0)) == (None, alone("guest", "direct")[0])


def test_only_the_first_guest_can_be_direct() -> None:
    run = Together(image("guest"), image("hello"), plan="direct")
    assert isinstance(run.error, Unsupported) and "plan direct" in str(run.error)
    assert list(run.failures) == [1]
    check_like_alone(run, "guest", plan="direct")


GROWTH = """
import sys
from pathlib import Path
from hvproto.bundled import kernel_path
from hvproto.hypervisor.accommodation import accommodate
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.session import Session
from hvproto.images.load import load_image
count = int(sys.argv[1])
needs = accommodate(count)
guest = load_image(str(kernel_path("hello")))
session = Session(load_image(str(kernel_path("host"))), [guest] * count, Plan.parse("mirrored"),
                  ram_size=needs.ram_size, options=needs.options)
assert session.run(400_000_000) == 0
fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
print(int(fields["VmRSS"].split()[0]))
"""


def test_a_further_guest_costs_little_memory() -> None:
    """At most 8 MiB of the process's memory above the guest's own, of which this one touches next to nothing."""
    one, five = (
        int(subprocess.run([sys.executable, "-c", GROWTH, str(count)], capture_output=True, check=True).stdout)
        for count in (1, 5)
    )
    assert (five - one) / 4 <= 8 << 10  # KiB


# -- what can't be had ---------------------------------------------------------------------------


@pytest.mark.parametrize(("guests", "memory"), [(0, 16), (17, 16), (1, 0), (1, 2048), (16, 128)])
def test_what_no_machine_has_room_for(guests: int, memory: int) -> None:
    with pytest.raises(MachineError):
        accommodate(guests, memory * MIB)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("guests=2", "too little memory"), ("memory=64", "too little memory"), ("memory=2048 guests=16", "too little"),
        ("guests=0", "from 1 to 16"), ("guests=17", "from 1 to 16"), ("memory=0", "1 to 2048"), ("memory=4000", "2048"),
    ],
)  # fmt: skip
def test_a_host_that_has_no_room_says_so(line: str, words: str) -> None:
    host = load_image(str(kernel_path("host")))
    session = Session(host, [image("hello")], Plan.parse("mirrored"), options=BootOptions(line))
    with pytest.raises(GuestNeverRan):
        session.run(LIMIT)
    assert words in session.machine.debug_output.decode()


def test_words_that_the_host_does_not_know_are_nothing_to_it() -> None:
    options = BootOptions("quiet guest=7 memory guests=1 xmemory=99  memory=16")
    session = Session(image("host"), [image("hello")], Plan.parse("mirrored"), options=options)
    assert session.run(LIMIT) == 0
    assert session.guests[0].output.decode() == alone("hello")[0]
