"""One scenario, run in a worker: everything that is checked is checked here, with the kit's own means."""

from __future__ import annotations

import gc
import threading
import traceback
from collections import OrderedDict
from pathlib import Path

from hvproto.campaign.generated import Generated
from hvproto.campaign.scenario import (
    AS_ALONE,
    FAILED,
    HARMLESS,
    PASSED,
    Result,
    Scenario,
    check_expectation,
)
from hvproto.errors import BadInput, HookError, RunError, World
from hvproto.hypervisor.exit_view import Exit
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.relocation import DEFAULT_POLICY
from hvproto.testing.comparison import Alone, Difference, Ending, assert_as_alone, run_alone
from hvproto.testing.host_watch import HostWatch
from hvproto.testing.hv import Hv
from hvproto.testing.relocate import Never, Relocator, parse_schedule

_ONE_AT_A_TIME = threading.Lock()
"""A worker of a cluster may have several threads; the engine's callbacks and the cache are for one."""
_KEPT = 64
"""Control experiments that a worker keeps: a guest's scenarios come one after the other."""
_alone: OrderedDict[object, Alone] = OrderedDict()


def perform(scenario: Scenario) -> Result:
    """Run a scenario to its end. Raises BadInput only: whatever else happens is a result."""
    with _ONE_AT_A_TIME:
        if not gc.get_freeze_count():
            gc.freeze()  # what is loaded stays, and needn't be looked through after each scenario
        try:
            return _perform(scenario)
        except BadInput:
            raise
        except Exception as problem:  # a defect of ours, and the very thing that campaigns look for
            return Result(scenario.number, FAILED, type(problem).__name__, f"defect {_place(problem)}", _told(problem))
        finally:
            gc.collect()  # a machine is a circle of objects around 64 MiB


def _perform(scenario: Scenario) -> Result:
    plan = Plan.parse(scenario.plan)
    policy = DEFAULT_POLICY if scenario.policy is None else scenario.policy.make()()
    hv = Hv(scenario.host, scenario.image, scenario.plan, policy=policy)
    watch = None if plan.guest_in_process else HostWatch(hv)
    schedule = parse_schedule(scenario.relocation, scenario.seed)
    relocator = Relocator(schedule)
    if not isinstance(schedule, Never):
        hv.on(Exit)(relocator)
    for handler in scenario.handlers:
        hv.on(Exit)(handler.make())
    ending = Ending.of(lambda: hv.run(cycles=scenario.hosted_limit))
    kind, detail = "", ""
    try:
        if watch is not None:
            watch.check()
        _check(scenario, hv, ending)
    except Difference as difference:
        kind, detail = _kind(difference, ending), str(difference)
    return Result(
        scenario.number, FAILED if kind else PASSED, str(ending), kind, detail, hv.now, len(hv.events), relocator.made
    )


def _check(scenario: Scenario, hv: Hv, ending: Ending) -> None:
    """Raises Difference unless the scenario ended as it should."""
    error = ending.error
    if isinstance(error, HookError):
        raise Difference("hook", f"{error}{_cause(error)}")
    if isinstance(error, RunError) and error.where.world is not World.GUEST and not ending.at_limit:
        raise Difference("world", f"not the guest's own affair: {error}")
    if type(error).__name__ in scenario.allow:
        return
    status = check_expectation(scenario.expect)
    if status is not None:
        if ending.status != status:
            reason = f": {error}" if error else ""
            raise Difference("status", f"status {status} was expected, it ended with {ending}{reason}")
    elif scenario.expect == AS_ALONE:
        assert_as_alone(hv, ending, _alone_of(scenario, hv.guest.memory.size))
    elif scenario.expect == HARMLESS and isinstance(error, AssertionError):
        raise Difference("assertion", str(error))


def _alone_of(scenario: Scenario, size: int) -> Alone:
    """The control experiment of a guest, which its scenarios share."""
    guest = scenario.guest
    key = guest if isinstance(guest, Generated) else (guest.segments, guest.entry, guest.disk)
    whole = (key, size, scenario.limit)
    if whole not in _alone:
        _alone[whole] = run_alone(scenario.image, size, cycles=scenario.limit)
        if len(_alone) > _KEPT:
            _alone.popitem(last=False)
    return _alone[whole]


def _kind(difference: Difference, ending: Ending) -> str:
    if difference.kind in ("status", "hook", "world", "error"):
        return f"{difference.kind}: {ending}"
    return difference.kind


def _cause(error: HookError) -> str:
    cause = error.__cause__
    return f"\n{''.join(traceback.format_tb(cause.__traceback__))}".rstrip() if cause is not None else ""


def _told(problem: Exception) -> str:
    return f"{type(problem).__name__}: {problem}\nat {_place(problem)}"


def _place(problem: Exception) -> str:
    """Where an exception was raised: the file's name only, which is the same on every machine."""
    last = traceback.extract_tb(problem.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"
