# SPDX-License-Identifier: Apache-2.0
"""Step log and dataset against plain lists, whoever crashes, reopens, flushes or reads when."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from typing import Any

import dm_env
import numpy as np
import pytest
import recorder
import repeatable
from crash import checks
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

import envlogger
from envlogger import step_data
from envlogger.testing.comparison import assert_same

_SLOTS = st.sampled_from([0, 1])


@dataclasses.dataclass
class Episode:
    """An episode as it must be found."""

    steps: list[step_data.StepData]
    metadata: Any = None
    is_invalid: bool = False


@dataclasses.dataclass
class Session:
    """What one writer has recorded.

    Attributes:
      number: Which session it is.
      episodes: The episodes so far.
      num_safe: How many of these must be in the dataset by now.
      process: What records; None once it has ended.
    """

    number: int
    process: recorder.Recorder | None
    episodes: list[Episode] = dataclasses.field(default_factory=list)
    num_safe: int = 0

    @property
    def is_under_way(self) -> bool:
        """Whether the last episode has not come to its end."""
        return bool(self.episodes) and not self.episodes[-1].steps[-1].timestep.last()


class StepLogMachine(RuleBasedStateMachine):
    """Two writers at most, one after the other or at the same time."""

    recorders: recorder.Recorders

    def __init__(self) -> None:
        super().__init__()
        self._root = tempfile.mkdtemp(dir=_fast_directory())
        self._directory = os.path.join(self._root, "log", "1.0.0")
        self._open: dict[int, Session] = {}
        self._sessions: list[Session] = []
        self._num_calls = 0

    def teardown(self) -> None:
        try:
            for slot in list(self._open):
                self.crash(slot)
            if any(session.episodes for session in self._sessions):
                self.recover()
        finally:
            shutil.rmtree(self._root, ignore_errors=True)

    @rule(
        slot=_SLOTS,
        helper=st.booleans(),
        max_episodes=st.sampled_from([1, 2, 1000]),
    )
    def open(self, slot: int, helper: bool, max_episodes: int) -> None:
        if slot in self._open:
            return
        options = {"helper": helper, "max_episodes_per_file": max_episodes}
        process = self.recorders.start(self._directory, **options)
        self._open[slot] = Session(len(self._sessions), process)
        self._sessions.append(self._open[slot])
        self._recovered()

    @precondition(lambda self: self._open)
    @rule(slot=_SLOTS, metadata=st.sampled_from([None, {"note": "begun"}]))
    def reset(self, slot: int, metadata: Any) -> None:
        if slot in self._open:
            session = self._open[slot]
            timestep = dm_env.restart(self._observation())
            session.episodes.append(Episode([]))
            self._call(session, "reset", timestep, None, {}, metadata)

    @precondition(lambda self: self._open)
    @rule(
        slot=_SLOTS,
        count=st.sampled_from([1, 1, 2, 40]),
        is_last=st.booleans(),
        is_terminal=st.booleans(),
        late=st.sampled_from([{}, {}, {"late": 1.5}, {"later": "ä" * 3}]),
        metadata=st.sampled_from([None, None, {"note": "x"}, {"return": 2.5, "note": ""}]),
    )
    def step(
        self, slot: int, count: int, is_last: bool, is_terminal: bool, late: Any, metadata: Any
    ) -> None:
        session = self._open.get(slot)
        if session is None or not session.is_under_way:
            return
        for i in range(count):
            step_type = dm_env.StepType.MID
            discount = 1.0
            if is_last and i == count - 1:
                step_type, discount = dm_env.StepType.LAST, 0.0 if is_terminal else 1.0
            reward = float(self._num_calls) + 0.1
            timestep = dm_env.TimeStep(step_type, reward, discount, self._observation())
            self._call(session, "step", timestep, np.int32(self._num_calls), late, metadata)

    @precondition(lambda self: self._open)
    @rule(slot=_SLOTS)
    def flush(self, slot: int) -> None:
        if slot in self._open:
            session = self._open[slot]
            assert session.process is not None
            session.process.flush()
            # An episode is finished once another has begun.
            session.num_safe = max(len(session.episodes) - 1, session.num_safe)

    @precondition(lambda self: self._open)
    @rule(slot=_SLOTS)
    def close(self, slot: int) -> None:
        if slot in self._open:
            session = self._open.pop(slot)
            assert session.process is not None
            session.process.close()
            session.num_safe = len(session.episodes)

    @precondition(lambda self: self._open)
    @rule(slot=_SLOTS)
    def crash(self, slot: int) -> None:
        if slot in self._open:
            session = self._open.pop(slot)
            assert session.process is not None
            if session.is_under_way:
                session.episodes[-1].is_invalid = True
            session.process.kill()

    @precondition(lambda self: any(session.episodes for session in self._sessions))
    @rule()
    def recover(self) -> None:
        report = envlogger.recover(self._directory)
        assert not report.failed
        assert len(report.live) == len(self._open)
        self._recovered()

    @rule()
    def read(self) -> None:
        self._check()

    def _recovered(self) -> None:
        """Notes that what dead sessions left must be there now."""
        for session in self._sessions:
            if session not in self._open.values():
                session.num_safe = len(session.episodes)
        self._check()

    def _call(
        self, session: Session, name: str, timestep: Any, action: Any, late: Any, metadata: Any
    ) -> None:
        custom = {"session": session.number, "n": self._num_calls, **late}
        self._num_calls += 1
        assert session.process is not None
        result = session.process.call(name, timestep, action, custom, metadata)
        assert_same(result, timestep)
        session.episodes[-1].steps.append(step_data.StepData(timestep, action, custom))
        if metadata is not None:
            session.episodes[-1].metadata = metadata

    def _observation(self) -> Any:
        rng = np.random.default_rng(self._num_calls)
        return {
            "pixels": rng.integers(0, 256, (3, 2, 3), np.uint8),
            "state": (rng.normal(size=2), np.float32(rng.normal())),
            "text": "x" * int(rng.integers(4)),
        }

    def _found(self) -> dict[int, list[Episode]]:
        """Returns the episodes in the dataset by session."""
        found: dict[int, list[Episode]] = {}
        if not os.path.exists(self._directory):
            return found
        with envlogger.Reader(self._directory) as reader:
            episodes = [list(episode) for episode in reader.episodes]
            metadata = list(reader.episode_metadata())
        flags = checks.load_flags(self._directory)
        for steps, value, record in zip(episodes, metadata, flags, strict=False):
            checks.check_flags(steps, record)
            episode = Episode(steps, value, record["invalid"])
            found.setdefault(steps[0].custom_data["session"], []).append(episode)
        return found

    def _check(self) -> None:
        found = self._found()
        for session in self._sessions:
            episodes = found.pop(session.number, [])
            assert len(episodes) >= session.num_safe
            assert len(episodes) <= len(session.episodes)
            for got, expected in zip(episodes, session.episodes, strict=False):
                assert_same(got.steps, expected.steps)
                assert_same(got.metadata, expected.metadata)
                assert got.is_invalid == expected.is_invalid
        assert not found


def _fast_directory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture
def recorders():
    started = recorder.Recorders()
    yield started
    started.close()


def test_datasets_are_what_lists_are(recorders):
    StepLogMachine.recorders = recorders
    run_state_machine_as_test(
        StepLogMachine,
        settings=repeatable.settings(100, stateful_step_count=30),
    )
