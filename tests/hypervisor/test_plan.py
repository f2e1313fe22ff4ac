"""Plans: the three built-in points, mixtures, and every way to get one wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.errors import PlanError
from hvproto.hypervisor.plan import BUILT_IN, Plan, Provider
from hvproto.processor.settings import Setting


@pytest.mark.parametrize(
    "name, provider", [("mirrored", Provider.HYPERVISOR), ("direct", Provider.GUEST), ("application", Provider.HOST)]
)
def test_built_in_plans_are_of_one_piece(name: str, provider: Provider) -> None:
    plan = Plan.parse(name)
    assert {plan.provider(setting) for setting in Setting} == {provider}
    assert {plan.route(vector) for vector in range(256)} == {provider}
    assert plan.replaced == (() if provider is Provider.HOST else tuple(Setting))


@given(
    st.sampled_from(sorted(BUILT_IN)),
    st.dictionaries(st.sampled_from(Setting), st.sampled_from(Provider)),
    st.dictionaries(st.integers(0, 255), st.sampled_from(Provider)),
)
def test_a_mixture_says_what_was_written(
    base: str, settings: dict[Setting, Provider], vectors: dict[int, Provider]
) -> None:
    changes = [f"{setting.name}={who}" for setting, who in settings.items()]
    changes += [f" vector.{number:#x} = {who.upper()} " for number, who in vectors.items()]
    plan = Plan.parse(",".join([base, *changes]))
    for setting in Setting:
        assert plan.provider(setting) is settings.get(setting, BUILT_IN[base].provider(setting))
    for vector in range(256):
        assert plan.route(vector) is vectors.get(vector, plan.provider(Setting.IDTR))
    assert plan.replaced == tuple(s for s in Setting if plan.provider(s) is not Provider.HOST)


@pytest.mark.parametrize("text, words", [
    ("", "unknown plan ''"), ("mirror", "unknown plan 'mirror'"), ("MIRRORED", "unknown plan"),
    ("mirrored,", "write SETTING=PROVIDER"), ("mirrored,IDTR", "write SETTING=PROVIDER"),
    ("mirrored,IDTR=", "unknown provider ''"), ("mirrored,IDTR=guests", "unknown provider 'guests'"),
    ("mirrored,XDTR=guest", "unknown setting 'XDTR'"), ("mirrored,=guest", "unknown setting ''"),
    ("mirrored,vector.256=host", "unknown vector '256'"), ("mirrored,vector.-1=host", "unknown vector '-1'"),
    ("mirrored,vector.=host", "unknown vector ''"), ("mirrored,vector.x=host", "unknown vector 'x'"),
    ("direct;IDTR=host", "unknown plan"),
])  # fmt: skip
def test_errors_say_what_and_what_there_is(text: str, words: str) -> None:
    with pytest.raises(PlanError) as caught:
        Plan.parse(text)
    assert words in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    "text",
    ["mirrored", "direct", "application",
     "application," + ",".join(f"{s.name}=guest" for s in Setting)],
)  # fmt: skip
def test_runnable(text: str) -> None:
    assert Plan.parse(text).guest_in_process == (text == "application")
    if text.startswith("application,"):
        assert Plan.parse(text).guest_at_ring0
    Plan.parse(text).check_runnable()


@pytest.mark.parametrize("text, words", [
    ("application,vector.0=guest", "IDTR=host"), ("mirrored,IDTR=guest", "IDTR=guest"), ("direct,CR3=hypervisor", "CR3=hypervisor"),
    ("mirrored,TR=host", "TR=host"), ("mirrored,LDTR=host", "LDTR=host"), ("direct,vector.14=host", "14"),
])  # fmt: skip
def test_not_runnable(text: str, words: str) -> None:
    with pytest.raises(PlanError) as caught:
        Plan.parse(text).check_runnable()
    assert words in str(caught.value)
