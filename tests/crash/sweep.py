# SPDX-License-Identifier: Apache-2.0
"""Strikes at each sub-step of publishing, one after the other."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from collections.abc import Callable, Iterator

from . import checks, recording, trials
from .faults import FULL, KILL, KILL_BOTH, Faults, fork_helpers
from .nursery import Nursery
from .recording import Outcome, Plan

_INLINE = {"helper": False, "max_episodes_per_file": 2}


@dataclasses.dataclass(frozen=True)
class Scenario:
    """Something that is done to a dataset, and struck.

    Attributes:
      directory: Where the dataset is, below an empty directory.
      before: Sessions that are there already; each with the fault it ended by, if it did.
      plan: The session that is struck; None for a recovery.
      kind: What strikes it.
      with_helper: Whether it is the helper process that is struck.
    """

    directory: str
    before: tuple[tuple[Plan, str], ...] = ()
    plan: Plan | None = None
    kind: str = KILL
    with_helper: bool = False


def _plan(seed: int, num_calls: int, **options: object) -> Plan:
    return Plan("rich", seed, num_calls, {**_INLINE, **options}, segment_bytes=16 << 10)


_WITH_HELPER = {"helper": True}
_STAGED = "catch/1.0.0"
_SMALL = (_plan(1, 18), "")  # without the features that turn up late

SCENARIOS = {
    "first publish": Scenario("log", plan=_plan(1, 18)),
    "first publish of a version": Scenario(_STAGED, plan=_plan(1, 18)),
    "later publish": Scenario("log", (_SMALL,), _plan(2, 18)),
    "publish that adds features": Scenario("log", (_SMALL,), _plan(3, 60, max_episodes_per_file=9)),
    "recovery": Scenario(
        _STAGED,
        (_SMALL, (_plan(2, 30), "replace("), (_plan(3, 70), "add")),
    ),
    "helper": Scenario(_STAGED, (_SMALL,), _plan(3, 60, **_WITH_HELPER), with_helper=True),
    "helper and writer": Scenario(
        _STAGED, (), _plan(3, 60, **_WITH_HELPER), kind=KILL_BOTH, with_helper=True
    ),
    "full disk": Scenario("log", (_SMALL,), _plan(3, 40), kind=FULL),
    "full disk of a helper": Scenario(
        _STAGED, (), _plan(3, 40, **_WITH_HELPER), kind=FULL, with_helper=True
    ),
}


def run_scenario(
    nursery: Nursery, name: str, root: str, *, every: int = 1
) -> Iterator[tuple[str, str]]:
    """Yields, for each sub-step, what it was and what went wrong then: "" for nothing.

    Args:
      nursery: What starts the processes.
      name: One of `SCENARIOS`.
      root: An empty directory.
      every: Leave out all but each so-many-th.
    """
    scenario = SCENARIOS[name]
    template = os.path.join(root, "template")
    os.makedirs(template)
    outcomes = []
    for plan, fault in scenario.before:
        notes = os.path.join(template, f"notes-{plan.seed}")
        report = os.path.join(template, "fault")
        directory = os.path.join(template, scenario.directory)
        nursery.run(_record, directory, notes, plan, Faults(10**9, KILL, report, match=fault))
        outcomes.append(recording.outcome(notes, plan))
        if bool(fault) == outcomes[-1].is_closed:
            raise checks.LossError(f"{name}: the session {plan.seed} did not end as it should")
    number = 1
    while True:
        place = os.path.join(root, "place")
        shutil.copytree(template, place)
        report = os.path.join(place, "fault")
        faults = Faults(number, scenario.kind, report)
        status = _act(nursery, scenario, place, faults)
        with open(report, encoding="utf-8") as file:
            label = file.read().strip()
        if not label:
            shutil.rmtree(place)
            return
        problem = ""
        try:
            if status not in (0, -signal.SIGKILL):
                raise checks.LossError(f"the process ended with {status}")
            _check(nursery, scenario, place, outcomes)
        except AssertionError as error:
            problem = str(error)
        except Exception as error:
            problem = repr(error)
        shutil.rmtree(place)
        yield f"{name}, {number}: {label}", problem
        number += every


def _act(nursery: Nursery, scenario: Scenario, place: str, faults: Faults) -> int:
    directory = os.path.join(place, scenario.directory)
    plan = scenario.plan
    if plan is None:
        nursery.run(_recover, directory, os.path.join(place, "first"), faults)
        return nursery.run(_recover, directory, os.path.join(place, "second"), faults)
    notes = os.path.join(place, f"notes-{plan.seed}")
    action: Callable[..., None] = _record_with_helper if scenario.with_helper else _record
    return nursery.run(action, directory, notes, plan, faults)


def _check(nursery: Nursery, scenario: Scenario, place: str, before: list[Outcome]) -> None:
    outcomes = list(before)
    if scenario.plan is not None:
        notes = os.path.join(place, f"notes-{scenario.plan.seed}")
        outcomes.append(recording.outcome(notes, scenario.plan))
    directory = os.path.join(place, scenario.directory)
    trials.check_recovery(nursery, directory, place, outcomes, with_tfds=True)


def _record(directory: str, notes: str, plan: Plan, faults: Faults) -> None:
    faults.arm()
    recording.record(directory, notes, plan)


def _record_with_helper(directory: str, notes: str, plan: Plan, faults: Faults) -> None:
    fork_helpers(faults)
    recording.record(directory, notes, plan)


def _recover(directory: str, report: str, faults: Faults) -> None:
    faults.arm()
    recording.recover(directory, report)
