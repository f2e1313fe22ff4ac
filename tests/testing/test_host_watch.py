"""What is done to the host while it is decoupled is noticed; what isn't done, isn't."""

from __future__ import annotations

import pytest

from hvproto.processor.settings import Setting
from hvproto.testing import Exit, Hv, SettingRestored
from hvproto.testing.comparison import Difference
from hvproto.testing.host_watch import HostWatch


@pytest.fixture
def guest(assemble):  # type: ignore[no-untyped-def]
    return assemble.kernel('.include "hvproto/assert.asm"\nsidt [0x170000]\nSYNC 1\nDONE')


@pytest.mark.plan("mirrored", "direct")
def test_a_host_that_nobody_touches(hv: Hv) -> None:
    watch = HostWatch(hv)
    assert hv.run() == 0
    watch.check()


@pytest.mark.parametrize("place", ["ticks", "an empty page"])
def test_a_byte_that_the_hypervisor_changes(hv: Hv, place: str) -> None:
    at = hv.session.machine.ram.size - 0x3000 if place != "ticks" else _symbol(hv, place)
    assert place == "ticks" or not any(hv.machine.ram.view[at & ~0xFFF : (at | 0xFFF) + 1])
    watch = HostWatch(hv)

    @hv.on(Exit)
    def meddle(_seen: Exit) -> None:
        hv.machine.ram.view[at] = 0xA5

    hv.run()
    with pytest.raises(Difference, match=f"the host's memory at HPA {at & ~0xFFF:#x} has changed") as raised:
        watch.check()
    assert raised.value.kind == "host" and meddle.calls > 0


def _symbol(hv: Hv, name: str) -> int:
    (image,) = hv.machine.images.values()
    return image.symbols[name]


def test_a_setting_that_comes_back_as_another(hv: Hv) -> None:
    watch = HostWatch(hv)
    tsd = 1 << 2  # RDTSC is for ring 0 only: the host at ring 0 sees nothing of it

    @hv.on(SettingRestored, setting="IDTR")  # the last one
    def meddle(_event: SettingRestored) -> None:
        processor = hv.machine.processor
        processor.write_setting(Setting.CR4, processor.control(Setting.CR4) | tsd)

    hv.run()
    with pytest.raises(Difference, match="the host's CR4 was"):
        watch.check()
    assert meddle.calls > 0
