"""The story of a run for a person, told as it happens: a subscriber of events that writes a `Page`.

What matters is told in full the first time and in a line afterwards. What comes in crowds is
gathered: the pieces of a printed line, page faults at one instruction, exits that the guest never
notices, page-table writes that collide with nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from hvproto import events
from hvproto.cli.counts import Counts, vector_name
from hvproto.cli.page import GUEST, HOST, HYPERVISOR, Page, make_console
from hvproto.cli.several import names_of
from hvproto.events import Event
from hvproto.hypervisor.plan import Plan
from hvproto.images.image import Image

_KEY = (
    "Below: who has the processor (>> where it changes hands), the step's number in figures 2 and 4 of WO 02/50664, "
    "and what happens. Exits are what the hypervisor handles out of the guest's sight; they are only counted."
)

LONGEST_LINE = 2000
"""After so many bytes without a newline, what a kernel has printed so far is shown."""

TITLES = {
    0: "divide error", 1: "debug", 3: "breakpoint", 4: "overflow", 5: "bound range", 6: "invalid opcode",
    7: "no coprocessor", 8: "double fault", 10: "invalid TSS", 11: "segment not present", 12: "stack fault",
    13: "general protection", 14: "page fault", 16: "x87 error", 17: "alignment check", 19: "SIMD error",
}  # fmt: skip


class Story:
    """Tells a run. ``on_event`` subscribes to the bus; the two others get a kernel's output."""

    def __init__(self, plan: Plan, host: Image, guests: Sequence[Image], *, verbose: bool = False) -> None:
        self.console = make_console()
        self.counts = Counts()
        self._plan, self._host, self._guests = plan, host, guests
        self._names = [f"[{name}]" for name in names_of(guests)] if len(guests) > 1 else []
        self.present: Callable[[], int] = lambda: 0
        """The number of the guest that what is happening is about."""
        self._verbose = verbose
        self._page = Page(self.console)
        self._saved: dict[str, events.SettingSaved] = {}
        self._replaced: list[events.SettingReplaced] = []
        self._restored: list[events.SettingRestored] = []
        self._store: events.PageTableWrite | None = None
        self._recoupling_untold = False
        self._writing = False
        self._pieces: list[list[int]] = [[] for _ in guests]
        """Numbers of the recouplings in which the pieces of each guest's present line were printed."""
        self._hosts_line = bytearray()
        self._lines = [bytearray() for _ in guests]
        self._handled: Counter[str] = Counter()
        self._harmless = 0
        self._last: events.ExceptionTaken | None = None
        self._alike: list[events.ExceptionTaken] = []

    # -- the frame ---------------------------------------------------------------------------

    def begin(self) -> None:
        """What is about to run, and how to read what follows."""
        say = self.console.print
        say(f"host   {self._host.path}", soft_wrap=True)
        for number, guest in enumerate(self._guests):
            say(f"guest  {self._name(number)}{guest.path}", soft_wrap=True)
        say(f"plan   {self._plan.name}", soft_wrap=True)
        self._page.note(_KEY)
        self._page.chapter(HOST, "the HOST has the processor: power on")

    def end(self) -> None:
        """Tell what is still untold."""
        self._end_lines()
        if self._hosts_line:
            self._show_hosts_line()
        self._settle()
        if self._handled:
            self._page.say(HYPERVISOR, f"{self._exits()} handled since then")
            self._handled.clear()
        self.console.print()

    def on_event(self, event: Event) -> None:
        self.counts.on_event(event)
        match event:
            case events.SettingSaved():
                self._saved[event.setting] = event
            case events.SettingReplaced():
                self._replaced.append(event)
            case events.SettingRestored():
                self._restored.append(event)
            case events.Decoupled():
                self._decoupled(event)
            case events.Recoupled():
                self._recoupled(event)
            case events.HostFunction():
                self._host_function(event)
            case events.ExceptionTaken():
                self._exception(event)
            case events.PageTableWrite():
                self._store = event
            case events.NoConflict():
                self._no_conflict(event)
            case events.Conflict():
                self._conflict(event)
            case events.Relocated():
                self._relocated(event)
            case events.GuestHalted():
                self._end_lines()
                name = self._name(event.guest)
                self._tell(GUEST, f"the guest {name}has ended: {event.reason}, status {event.status}")
            case events.Shutdown():
                self._end_lines()
                self._settle()
                self._page.chapter(event.world, f"the end, at cycle {event.at:,}: {event.reason}")
            case _:
                pass

    def _tell(self, owner: str, text: str, step: str = "") -> None:
        self._settle()
        self._page.say(owner, text, step)

    def _settle(self) -> None:
        """Before anything else is told: what was gathered."""
        if self._alike:
            alike, self._alike = self._alike, []
            places = [event.cr2 for event in alike if event.cr2 is not None]
            span = f", CR2 from {places[0]:#010x} to {places[-1]:#010x}" if places else ""
            teller = GUEST if alike[0].route == "direct" else HYPERVISOR
            self._page.say(teller, f"... and {len(alike):,} more of these{span}")
            self._page.owner = GUEST
        self._last = None
        if self._harmless:
            stores, self._harmless = self._harmless, 0
            what = "1 more store" if stores == 1 else f"{stores:,} more stores"
            self._page.say(HYPERVISOR, f"{what} to the guest's page tables, no conflict: nothing moves", "40/44")
            self._page.owner = GUEST

    # -- figure 2: coupling ------------------------------------------------------------------

    def _decoupled(self, event: events.Decoupled) -> None:
        number, saved, replaced = self.counts.decouplings, self._saved, self._replaced
        self._saved, self._replaced = {}, []
        writing, self._writing = self._writing, False
        if number == 1 or self._verbose:
            self._settle()
            self._page.chapter(
                HYPERVISOR, f"the HYPERVISOR decouples the host: decoupling {number}, cycle {event.at:,}"
            )
            self._page.say(HYPERVISOR, "reads the host's settings from the processor", "24")
            self._page.say(HYPERVISOR, "saves them to RAM, each with its register's identification", "26")
            self._page.say(HYPERVISOR, "loads others in their place", "28")
            rows = []
            for change in sorted(replaced, key=lambda change: saved[change.setting].register_id):
                record = saved[change.setting]
                place = f"{record.place:#010x}"
                rows.append((str(record.register_id), change.setting, change.old, place, change.new))
            providers = " and ".join(sorted({change.provider for change in replaced}))
            self._page.table(("id", "register", "the host's", "saved at", f"now the {providers}'s"), rows)
            self._page.chapter(GUEST, f"the GUEST {self._name(event.guest)}has the processor")
        elif not writing:
            self._tell(GUEST, f"decoupling {number}: the guest {self._name(event.guest)}goes on", "24-28")

    def _recoupled(self, event: events.Recoupled) -> None:
        number, restored = self.counts.recouplings, self._restored
        self._restored = []
        if number == 1 or self._verbose:
            self._settle()
            how = "for a while" if event.temporary else "again"
            self._page.chapter(HYPERVISOR, f"the host is recoupled {how}: recoupling {number}, cycle {event.at:,}")
            self._page.say(HYPERVISOR, "reads the host's settings back from RAM and restores them", "30")
            rows = [(each.setting, each.old, each.new, f"{each.place:#010x}") for each in restored]
            self._page.table(("register", "until now", "restored: the host's", "read from"), rows)
            self._page.chapter(HOST, f"the HOST has the processor: {event.reason}")
        elif event.temporary:
            self._recoupling_untold = True  # which function it is for is said next
        else:
            self._tell_recoupling(event.reason)

    def _tell_recoupling(self, reason: str) -> None:
        handled = f"; {self._exits()} before it" if self._handled else ""
        self._handled.clear()
        self._tell(HOST, f"recoupling {self.counts.recouplings}: {reason}{handled}", "30")

    def _host_function(self, event: events.HostFunction) -> None:
        untold, self._recoupling_untold = self._recoupling_untold, False
        if event.name == "write":
            if event.phase == "begin":
                self._writing = not self._verbose
                self._pieces[event.guest].append(self.counts.recouplings)
                if not untold and (self._verbose or self.counts.decouplings):
                    self._tell(HOST, "host function: write a piece of the guest's text")
        elif event.phase == "begin":
            if untold:
                self._tell_recoupling(f"host function {event.name}, {event.detail}")
            else:
                self._tell(HOST, f"host function {event.name}, {event.detail}")
        else:
            self._tell(HOST, f"{event.name}, {event.detail}: done by the host's driver")

    # -- what the kernels print --------------------------------------------------------------

    def guest_output(self, number: int, data: bytes) -> None:
        """What a guest has printed, once the host's driver has printed it."""
        line = self._lines[number]
        for byte in data:
            if byte != 0x0A:
                line.append(byte)
            if byte == 0x0A or len(line) >= LONGEST_LINE:
                self._show_line(number)

    def host_console(self, byte: int) -> None:
        """A byte on the host's debug console."""
        if byte != 0x0A:
            self._hosts_line.append(byte)
        if byte == 0x0A or len(self._hosts_line) >= LONGEST_LINE:
            self._show_hosts_line()

    def _name(self, number: int) -> str:
        """What is said of a guest to tell it from others, with a space behind it; nothing if it is alone."""
        return f"{self._names[number]} " if self._names else ""

    def _show_hosts_line(self) -> None:
        line = bytes(self._hosts_line)
        self._hosts_line.clear()
        self._settle()
        self._page.printed(HOST, line)

    def _end_lines(self) -> None:
        for number, line in enumerate(self._lines):
            if line:
                self._show_line(number)

    def _show_line(self, number: int) -> None:
        line = self._name(number).encode() + self._lines[number]
        self._lines[number].clear()
        self._settle()
        self._page.printed(GUEST, line)
        if self._pieces[number]:
            pieces, self._pieces[number] = self._pieces[number], []
            first, last = pieces[0], pieces[-1]
            numbers = f"recoupling {first}" if first == last else f"recouplings {first}-{last}"
            if not self.counts.decouplings:
                numbers = "no recoupling: it has the processor"
            how = "at once" if len(pieces) == 1 else f"in {len(pieces)} pieces"
            handled = f"; {self._exits()}" if self._handled else ""
            self._handled.clear()
            self._page.say(HOST, f"printed that {how} ({numbers}){handled}", "30/28" if self.counts.decouplings else "")
            self._page.owner = GUEST

    # -- exceptions --------------------------------------------------------------------------

    def _exception(self, event: events.ExceptionTaken) -> None:
        if event.route == "handle":
            self._handled[event.detail or vector_name(event)] += 1
            if self._verbose:
                self._tell(HYPERVISOR, f"{self._describe(event)}: {event.detail}, handled out of the guest's sight")
                self._page.owner = GUEST
            return
        if self._last is not None and self._is_alike(event, self._last) and not self._verbose:
            self._alike.append(event)
            return
        if event.route == "direct":
            self._tell(GUEST, f"{self._describe(event)}: the processor itself calls the guest's handler")
        elif event.route == "host":
            self._tell(HOST, f"{self._describe(event)}: by the host's kernel and a signal to the guest's handler")
        else:
            self._tell(HYPERVISOR, f"{self._describe(event)}: reflected to the guest")
        self._page.owner = GUEST
        self._last = event

    @staticmethod
    def _is_alike(one: events.ExceptionTaken, other: events.ExceptionTaken) -> bool:
        return (one.route, one.vector, one.error_code, one.eip, one.detail) == (
            other.route, other.vector, other.error_code, other.eip, other.detail,
        )  # fmt: skip

    def _describe(self, event: events.ExceptionTaken) -> str:
        name = vector_name(event)
        parts = [f"{name} {TITLES[event.vector]}" if name.startswith("#") and event.vector in TITLES else name]
        if event.error_code is not None:
            parts.append(f"error code {event.error_code:#x}")
        if event.cr2 is not None:
            parts.append(f"CR2 {event.cr2:#010x}")
        if event.eip is not None:
            symbol = self._guests[self.present()].symbols.name_at(event.eip)
            parts.append(f"at EIP {event.eip:#010x}" + (f" ({symbol})" if symbol else ""))
        return ", ".join(parts)

    def _exits(self) -> str:
        total = sum(self._handled.values())
        return f"{total:,} {'exit' if total == 1 else 'exits'}"

    # -- figure 4: mapping -------------------------------------------------------------------

    def _no_conflict(self, event: events.NoConflict) -> None:
        if self.counts.no_conflicts == 1 or self._verbose:
            self._tell(HYPERVISOR, f"a store to the page table at GPA {event.gpa:#010x}{self._stored()}", "40")
            self._tell(HYPERVISOR, "no conflict with the region: nothing moves", "44")
            self._page.owner = GUEST
        else:
            self._harmless += 1
        self._store = None

    def _conflict(self, event: events.Conflict) -> None:
        in_full = self.counts.conflicts == 1 or self._verbose
        # A conflict may also come with a page table that is loaded as a whole: no store, no step 40.
        self._tell(HYPERVISOR, event.cause + (self._stored() if in_full else ""), "40" if self._store else "")
        self._store = None
        number = self.counts.conflicts
        self._tell(HYPERVISOR, f"conflict {number}: this maps GVA {event.address:#010x}, the region's", "42")

    def _stored(self) -> str:
        store = self._store
        return f": {store.size} bytes, now {store.value:#x}" if store is not None else ""

    def _relocated(self, event: events.Relocated) -> None:
        moved = f"the region moves from {event.old:#010x} to {event.new:#010x}"
        if self.counts.relocations == 1 or self._verbose:
            moved += f", {event.pages} pages; the guest's own table stays as it is, bit for bit"
        self._tell(HYPERVISOR, moved, "46")
        self._page.owner = GUEST
