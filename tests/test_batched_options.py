# SPDX-License-Identifier: Apache-2.0
"""The options of EnvLogger where environments step together, and what cannot be recorded so."""

from __future__ import annotations

import pickle

import batched
import dm_env
import helpers
import numpy as np
import pytest
from dm_env import specs
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import envlogger
from envlogger import errors, step_data
from envlogger.backends import in_memory_backend, schedulers
from envlogger.testing.comparison import assert_same


def test_other_backends_get_whole_episodes():
    backend = in_memory_backend.InMemoryBackendWriter()
    envs = SyncVectorEnv([batched.Alone for _ in range(3)], autoreset_mode=AutoresetMode.NEXT_STEP)
    with envlogger.BatchedEnvLogger(
        envs,
        episode_fn=lambda timestep, action, env: [env.stream, timestep.last()],
        backend=backend,
    ) as logger:
        batched.play(logger, 15)

    reader = in_memory_backend.InMemoryBackendReader(backend)
    assert sum(map(len, reader.episodes)) == sum(
        len(episode) for env in envs.envs for episode in env.episodes
    )
    counts = [0, 0, 0]
    for episode, (stream, is_whole) in zip(reader.episodes, reader.episode_metadata(), strict=True):
        expected = envs.envs[stream].episodes[counts[stream]]
        counts[stream] += 1
        assert is_whole == expected[-1][0].last()
        for step, (timestep, _, _) in zip(episode, expected, strict=True):
            np.testing.assert_equal(
                step.timestep.observation["vector"], timestep.observation["vector"]
            )


def test_one_stream_that_cannot_be_closed_costs_the_others_nothing():
    class Failing(in_memory_backend.InMemoryBackendWriter):
        is_first, is_closed = True, False

        def _record_step(self, data, is_new_episode):
            if self.is_first:
                self.is_first = False
                raise OSError("of the first stream")
            super()._record_step(data, is_new_episode)

        def close(self):
            self.is_closed = True
            raise OSError("of the backend")

    backend = Failing()
    logger = envlogger.BatchedEnvLogger(batched.Counters(3), backend=backend)
    logger.reset()
    logger.step(np.arange(3))
    with pytest.raises(OSError, match="of the first stream") as caught:
        logger.close()
    logger.close()

    assert "of the backend" in caught.value.__notes__[0]
    assert backend.is_closed
    episodes = [
        [
            step_data.StepData(dm_env.restart({"state": np.zeros(2)}), None, None),
            step_data.StepData(
                dm_env.TimeStep(
                    dm_env.StepType.MID,
                    {"own": np.float64(0.5)},
                    np.float64(1.0),
                    {"state": np.array([1.0, stream])},
                ),
                np.int64(stream),
                None,
            ),
        ]
        for stream in (1, 2)
    ]
    reader = in_memory_backend.InMemoryBackendReader(backend)
    assert_same(list(map(list, reader.episodes)), episodes)


def test_each_stream_has_its_own_scheduler(tmp_path):
    class EverySecond:
        def __init__(self):
            self.count = 0

        def __call__(self, data):
            self.count += 1
            return self.count % 2 == 1

    with envlogger.BatchedEnvLogger(
        batched.Counters(3), data_directory=tmp_path / "a", helper=False, scheduler=EverySecond()
    ) as logger:
        logger.reset()
        for _ in range(5):
            logger.step(np.zeros(3, int))

    for i, stream in enumerate(batched.by_stream(tmp_path / "a")):
        steps = [int(step.timestep.observation["state"][0]) for steps in stream for step in steps]
        assert steps == [t % (i + 3) for t in range(6)][::2]
    assert schedulers.Scheduler is envlogger.Scheduler


def test_a_dataset_is_appended_to_and_flush_publishes(tmp_path):
    for number in range(2):
        with envlogger.BatchedEnvLogger(
            batched.Counters(3), data_directory=tmp_path / "a"
        ) as logger:
            logger.reset()
            for _ in range(2):
                logger.step(np.zeros(3, int))
            logger.flush()
            # Stream 0 has ended; the others have not.
            assert len(helpers.read(tmp_path / "a")) == number * 3 + 1

    assert sorted(map(len, helpers.read(tmp_path / "a"))) == [3] * 6


def test_late_and_varying_values(tmp_path):
    """Another stream than the first may show that a dimension varies, or have a key first."""
    calls = iter(range(10**6))

    def step_fn(timestep, action, env):
        call = next(calls)
        data = {"ragged": np.arange(env.stream + 1 + call % 2)}
        if call > 100 and env.stream == 2:
            data["late"] = "x" * (call % 5)
        return data

    seen = []
    with envlogger.BatchedEnvLogger(
        batched.Counters(3),
        step_fn=lambda *args: seen.append((args[2].stream, step_fn(*args))) or seen[-1][1],
        data_directory=tmp_path / "a",
        max_episodes_per_file=4,
    ) as logger:
        logger.reset()
        for _ in range(80):
            logger.step(np.zeros(3, int))

    found = batched.by_stream(tmp_path / "a")
    for i, stream in enumerate(found):
        got = [step.custom_data for steps in stream for step in steps]
        assert_same(got, [data for of, data in seen if of == i])


class _Endless(batched.Counters):
    """Episodes without end, of which each step takes 8 KB."""

    def __init__(self, count):
        super().__init__(count)
        self._limits[:] = 10**6
        self._state = np.zeros((count, 1000))

    def observation_spec(self):
        return {"state": specs.Array((self._count, 1000), np.float64)}


@pytest.mark.parametrize("with_helper", [True, False])
def test_episodes_without_end_are_sealed_in_parts(with_helper, tmp_path):
    count, num_steps = 3, 600
    options = {"data_directory": tmp_path / "a", "max_backlog_bytes": 3 << 20}

    def record():
        with envlogger.BatchedEnvLogger(_Endless(count), helper=with_helper, **options) as logger:
            logger.reset()
            for number in range(num_steps):
                logger.step(np.full(count, number))

    with pytest.warns(UserWarning, match="of steps wait to be sealed"):
        record()

    for stream in batched.by_stream(tmp_path / "a"):
        assert len(stream) > 1
        assert [steps[0].timestep.first() for steps in stream] == [True] + [False] * (
            len(stream) - 1
        )
        steps = [step for steps in stream for step in steps]
        assert [step.action for step in steps] == [None, *range(num_steps)]
        states = [step.timestep.observation["state"][0] for step in steps]
        assert states == list(range(num_steps + 1))


def test_what_it_is_not_for(tmp_path):
    path = tmp_path / "a"
    envs = SyncVectorEnv([batched.Alone], autoreset_mode=AutoresetMode.NEXT_STEP)
    unclear = SyncVectorEnv([batched.Alone])
    unclear.metadata = {}
    single = batched.Counters(2)
    single.discount_spec = lambda: specs.Array((), float)
    for env, message in [
        (object(), "^env: got <object"),
        (unclear, "autoreset_mode'.: got None"),
        (single, "expected an array with a leading dimension N"),
    ]:
        with pytest.raises(errors.OptionError, match=message):
            envlogger.BatchedEnvLogger(env, data_directory=path)
    with (
        envlogger.BatchedEnvLogger(
            batched.Counters(2), data_directory=path, helper=False
        ) as logger,
        pytest.raises(errors.OptionError, match=r"^reset: got a seed"),
    ):
        logger.reset(seed=1)
    with pytest.raises(errors.OptionError, match="data_directory: got none"):
        envlogger.BatchedEnvLogger(envs)
    with pytest.raises(TypeError, match="cannot be serialized/pickled"):
        pickle.dumps(
            envlogger.BatchedEnvLogger(
                batched.Counters(2), backend=in_memory_backend.InMemoryBackendWriter
            )
        )
    one = envlogger.backends.tfds_backend_writer.TFDSBackendWriter(tmp_path / "b", helper=False)
    with pytest.raises(errors.OptionError, match="num_streams: got 1, expected 2"):
        envlogger.BatchedEnvLogger(batched.Counters(2), backend=one)
    one.close()
