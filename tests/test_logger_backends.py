# SPDX-License-Identifier: Apache-2.0
"""Backends that a logger writes to, and schedulers that choose what it writes."""

from __future__ import annotations

import helpers
import numpy as np
import pytest

import envlogger
from envlogger import errors
from envlogger.backends import in_memory_backend, schedulers, tfds_backend_writer
from envlogger.testing.comparison import assert_same

GOOD = helpers.GOOD


# --- backends ----------------------------------------------------------------------------------------


def test_writing_riegeli_names_the_way_to_go(tmp_path):
    with pytest.raises(errors.OptionError) as raised:
        helpers.scripted_logger(tmp_path, [GOOD], backend=envlogger.BackendType.RIEGELI)

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, "BackendType.RIEGELI", "Leave", "out to write a TFDS dataset")


@pytest.mark.parametrize("backend", ["tfds", None, 3])
def test_backends_that_are_none(tmp_path, backend):
    with pytest.raises(errors.OptionError, match=r"backend: got .*expected a BackendType"):
        helpers.scripted_logger(tmp_path, [GOOD], backend=backend)


def test_a_backend_that_is_there(tmp_path):
    backend = tfds_backend_writer.TFDSBackendWriter(str(tmp_path), helper=False)
    with envlogger.EnvLogger(helpers.ScriptedEnv([GOOD]), backend=backend) as logger:
        helpers.play(logger, [[0, 1]])

    assert_same(helpers.read(tmp_path), helpers.expected_run(GOOD))


@pytest.mark.parametrize(
    "unused", [{"data_directory": "x"}, {"metadata": {"agent": "random"}}, {"bogus": 1}], ids=str
)
def test_what_a_backend_that_is_there_does_not_see(unused):
    backend = in_memory_backend.InMemoryBackendWriter()

    with pytest.raises(errors.OptionError) as raised:
        envlogger.EnvLogger(helpers.ScriptedEnv([GOOD]), backend=backend, **unused)

    helpers.check_message(raised, next(iter(unused)), "Pass them to InMemoryBackendWriter")


def test_a_backend_from_a_callable():
    made = []

    def make(**kwargs):
        made.append((kwargs, in_memory_backend.InMemoryBackendWriter(metadata=kwargs["metadata"])))
        return made[0][1]

    with envlogger.EnvLogger(
        helpers.ScriptedEnv([GOOD]), metadata={"a": 1}, backend=make, anything=3
    ) as logger:
        helpers.play(logger, [[0, 1]])

    kwargs, backend = made[0]
    assert kwargs["anything"] == 3
    assert kwargs["metadata"]["a"] == 1
    assert "observation_spec" in kwargs["metadata"]["environment_specs"]
    assert_same(backend.steps, helpers.expected_run(GOOD)[0])


def _record_into(backend, path):
    """Records a run with everything in it; returns the backend if it is in memory."""
    rng = np.random.default_rng(0)
    episodes = []
    for length in (3, 1, 4, 2):
        values = [
            {"image": rng.integers(0, 255, (6, 5, 3), np.uint8), "text": "x" * i, "n": (i, [i])}
            for i in range(length)
        ]
        steps = [helpers.first(values[0]), *(helpers.mid(value, 0.5) for value in values[1:])]
        if length > 2:
            steps[-1] = helpers.last(values[-1])
        episodes.append(steps)
    numbers = iter(range(1000))
    written = []

    def make(**kwargs):
        written.append(backend(**kwargs, **path))
        return written[0]

    with envlogger.EnvLogger(
        helpers.ScriptedEnv(episodes),
        step_fn=lambda *_: {"n": next(numbers)} if next(numbers) % 4 else None,
        episode_fn=lambda timestep, *_: [next(numbers)] if timestep.last() else None,
        metadata={"agent": b"random"},
        backend=make,
        scheduler=schedulers.NStepScheduler(2),
    ) as logger:
        helpers.play(logger, helpers.count_up(episodes))
    return written[0]


def test_the_backend_in_memory_holds_the_same(tmp_path):
    memory = _record_into(in_memory_backend.InMemoryBackendWriter, {})
    _record_into(
        tfds_backend_writer.TFDSBackendWriter, {"data_directory": tmp_path, "helper": False}
    )

    with envlogger.Reader(memory) as one, envlogger.Reader(tmp_path) as other:
        assert_same(list(other.steps), list(one.steps))
        assert_same([list(e) for e in other.episodes], [list(e) for e in one.episodes])
        assert_same(list(other.episode_metadata()), list(one.episode_metadata()))
        assert other.metadata()["agent"] == one.metadata()["agent"]
        assert other.observation_spec() == one.observation_spec()
        assert other.action_spec() == one.action_spec()


# --- schedulers --------------------------------------------------------------------------------------


def test_a_scheduler_chooses_the_steps(tmp_path):
    long = [helpers.first(0.0), *(helpers.mid(float(i)) for i in range(1, 7)), helpers.last(7.0)]
    with helpers.scripted_logger(
        tmp_path, [long, long], scheduler=schedulers.NStepScheduler(3)
    ) as logger:
        helpers.play(logger, [list(range(7))] * 2)

    got = helpers.read(tmp_path)

    assert [[s.timestep.observation for s in episode] for episode in got] == [
        [0.0, 3.0, 6.0],
        [1.0, 4.0, 7.0],
    ]
    expected = helpers.expected_steps(long, list(range(7)))
    assert_same(got, [expected[0:8:3], expected[1:8:3]])
    first, second = helpers.source_steps(tmp_path)
    assert [bool(s["is_first"]) for s in first] == [True, False, False]
    assert not any(s["is_first"] for s in second)


def test_a_scheduler_chooses_the_episodes(tmp_path):
    numbers = iter(range(100))
    helpers.record(
        tmp_path,
        [GOOD] * 5,
        scheduler=schedulers.ListEpisodeScheduler([1, 4]),
        episode_fn=lambda *_: next(numbers),
    )

    assert_same(helpers.read(tmp_path), helpers.expected_run(GOOD, GOOD))
    assert helpers.read_metadata(tmp_path) == [5, 14]
