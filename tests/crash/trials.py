# SPDX-License-Identifier: Apache-2.0
"""Kills at random times: the writer, its helper, or both; in one session after another."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Sequence

from envlogger.tfds import dataset

from . import checks, recording, scripts
from .nursery import Nursery
from .recording import Outcome, Plan

# Long enough that only a process that hangs takes so long.
_PATIENCE = 120.0


def run_trial(nursery: Nursery, number: int, root: str) -> str:
    """Runs a trial; its number determines all but the times.

    Args:
      nursery: What starts the processes.
      number: The trial.
      root: An empty directory.

    Returns:
      What was killed.

    Raises:
      LossError: The dataset is not what it must be.
    """
    rng = random.Random(number)
    directory = os.path.join(root, *rng.choice([("catch", "1.0.0"), ("log",)]))
    kind = rng.choice(scripts.KINDS)
    image_format = rng.choice(["png", "raw"])
    outcomes: list[Outcome] = []
    story: list[str] = []
    for _ in range(rng.randint(1, 3)):
        writers = [
            _Writer(
                nursery,
                directory,
                root,
                _plan(rng, kind, image_format, number * 100 + len(outcomes) + i),
            )
            for i in range(rng.choice([1, 1, 1, 2]))
        ]
        for writer in writers:
            if not outcomes:
                # The first two rows show which shapes vary.
                _wait_for(lambda writer=writer: len(writer.outcome.acknowledged) > 1)
            story.append(writer.end(rng))
        if rng.random() < 0.5 and all(writer.has_helper for writer in writers):
            # Helpers that live need no recovery.
            _wait_for(lambda: not _sessions(directory))
            outcomes += [writer.outcome for writer in writers]
            checks.check_all(directory, outcomes)
        else:
            outcomes += [writer.outcome for writer in writers]
    check_recovery(nursery, directory, root, outcomes, with_tfds=rng.random() < 0.2)
    return "; ".join(story)


def check_recovery(
    nursery: Nursery,
    directory: str,
    root: str,
    outcomes: Sequence[Outcome],
    *,
    with_tfds: bool = False,
) -> None:
    """Raises unless the dataset can be read now, and all is there once it was recovered."""
    checks.check_readable(directory, outcomes, with_tfds=with_tfds)
    _recover(nursery, directory, os.path.join(root, "report"))
    checks.check_all(directory, outcomes, with_tfds=with_tfds)
    before = _snapshot(directory)
    found = _recover(nursery, directory, os.path.join(root, "report2"))
    if found or _snapshot(directory) != before:
        raise checks.LossError(f"a second recovery did something: {found}")


def _recover(nursery: Nursery, directory: str, report: str) -> list[str]:
    if nursery.run(recording.recover, directory, report) != 0:
        raise checks.LossError("the recovery failed")
    if not os.path.exists(report):
        return []
    with open(report, encoding="utf-8") as file:
        found = json.load(file)
    if found["failed"] or found["live"]:
        raise checks.LossError(f"the recovery says: {found}")
    return list(found["recovered"])


def _snapshot(directory: str) -> dict[str, bytes]:
    found = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, directory)] = file.read()
    return found


def _plan(rng: random.Random, kind: str, image_format: str, seed: int) -> Plan:
    options = {
        "max_episodes_per_file": rng.choice([1, 2, 7, 50]),
        "helper": rng.random() < 0.85,
        "image_format": image_format,
        "sync_interval": rng.choice([None, None, 0.05]),
    }
    if rng.random() < 0.2:
        options["max_backlog_bytes"] = 200_000
    return Plan(
        kind,
        seed,
        num_calls=rng.choice([200, 1000, 1000]),
        options=options,
        segment_bytes=rng.choice([16 << 10, 64 << 10, 4 << 20]),
        flush_every=rng.choice([0, 0, 0, 37]),
        pause=rng.choice([0.0, 0.0002, 0.001]),
    )


class _Writer:
    """A recording process."""

    def __init__(self, nursery: Nursery, directory: str, root: str, plan: Plan) -> None:
        self._nursery = nursery
        self._plan = plan
        self._notes = os.path.join(root, f"notes-{plan.seed}")
        self._pid = nursery.start(recording.record, directory, self._notes, plan)
        self.has_helper = False

    def end(self, rng: random.Random) -> str:
        """Lets it record for a while and then kills it, or lets it close; returns which."""
        whom = rng.choice(["writer", "writer", "helper", "both", "both", "nobody"])
        time.sleep(rng.uniform(0, rng.choice([0.02, 0.2, 0.8])))
        if whom == "helper":
            for _ in range(rng.randint(1, 4)):
                _kill(self._helpers())
                time.sleep(rng.uniform(0, 0.4))
        helpers = self._helpers()
        if whom == "both" and rng.random() < 0.5:
            _kill(helpers)
            time.sleep(rng.choice([0, 0.001, 0.02]))
        survives = whom == "nobody" or (whom == "helper" and rng.random() < 0.5)
        if not survives:
            os.kill(self._pid, signal.SIGKILL)
        if whom == "both":
            _kill(helpers)
        status = self._nursery.wait(self._pid)
        if status not in (0, -signal.SIGKILL):
            raise checks.LossError(f"the writer ended with {status}")
        self.has_helper = whom == "writer" and bool(helpers)
        return f"{whom}{' (the writer closed)' if survives else ''}"

    @property
    def outcome(self) -> Outcome:
        """What it acknowledged."""
        return recording.outcome(self._notes, self._plan)

    def _helpers(self) -> list[int]:
        try:
            with open(f"/proc/{self._pid}/task/{self._pid}/children") as file:
                return list(map(int, file.read().split()))
        except (FileNotFoundError, ProcessLookupError):
            return []


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _sessions(directory: str) -> list[str]:
    found: list[str] = []
    # In this order: the first publication renames the one to the other, and it may come in between.
    for path in (dataset.staging_path(directory), directory):
        with contextlib.suppress(FileNotFoundError):
            found += os.listdir(os.path.join(path, dataset.STATE, "sessions"))
    return found


def _wait_for(condition: object) -> None:
    assert callable(condition)
    give_up = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            raise checks.LossError("what was waited for has not come")
        time.sleep(0.02)
