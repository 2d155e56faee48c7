# SPDX-License-Identifier: Apache-2.0
"""Environments that step together: each one's episodes are recorded as if it had been alone."""

from __future__ import annotations

import copy
import os
import pickle

import dm_env
import gymnasium
import helpers
import hypothesis
import numpy as np
import processes
import pytest
from dm_env import specs
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import strategies as st

import envlogger
from envlogger import errors, step_data
from envlogger.backends import in_memory_backend, schedulers
from envlogger.testing.comparison import assert_same

_NEXT, _SAME, _DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
_MODES = pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.value)

_OBSERVATIONS = spaces.Dict(
    vector=spaces.Box(-1, 1, (3,), np.float32),
    nested=spaces.Tuple((spaces.Discrete(5), spaces.Text(4))),
    sequence=spaces.Sequence(spaces.Box(0, 1, (2,), np.float64)),
)


class _Alone(gymnasium.Env):
    """Episodes of lengths that its seed says; keeps what came to pass, as EnvLogger would record it."""

    def __init__(self, observation_space=_OBSERVATIONS, lengths=(1, 5)):
        self.observation_space = copy.deepcopy(observation_space)
        self.action_space = spaces.Dict(a=spaces.Discrete(7), b=spaces.Box(-1, 1, (2,)))
        self.episodes = []
        self._lengths = lengths

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self._left = int(self.np_random.integers(*self._lengths, endpoint=True))
        observation, info = self.observation_space.sample(), {"left": self._left}
        self.episodes.append([(dm_env.restart(observation), None, info)])
        return observation, info

    def step(self, action):
        self._left -= 1
        is_last = self._left == 0
        terminated = is_last and bool(self.np_random.integers(2))
        observation, reward = self.observation_space.sample(), float(self.np_random.normal())
        info = {"left": self._left, "deep": {"array": np.arange(2.0) + self._left}}
        if is_last:
            info["only_at_the_end"] = 0.5
        timestep = dm_env.TimeStep(
            dm_env.StepType.LAST if is_last else dm_env.StepType.MID,
            reward,
            0.0 if terminated else 1.0,
            observation,
        )
        self.episodes[-1].append((timestep, copy.deepcopy(action), info))
        return observation, reward, terminated, is_last and not terminated, info

    def render(self):
        return np.full((2, 2), self._left, np.uint8)


def _play(envs, num_steps, seed=0):
    """Steps at random; resets those that have ended where nobody else does. Returns all results."""
    envs.action_space.seed(seed)
    results = [envs.reset(seed=seed)]
    for _ in range(num_steps):
        results.append(envs.step(envs.action_space.sample()))
        is_over = results[-1][2] | results[-1][3]
        if envs.metadata["autoreset_mode"] is _DISABLED and is_over.any():
            results.append(envs.reset(options={"reset_mask": is_over}))
    return results


def _by_stream(directory):
    """Returns the episodes of each stream, in order."""
    streams: dict[str, list[tuple[str, list[step_data.StepData]]]] = {}
    with envlogger.Reader(directory) as reader:
        ids = [episode["episode_id"].decode() for episode in helpers.data_source(directory)]
        for episode_id, episode in zip(ids, reader.episodes, strict=True):
            stream, row = episode_id.split("-")[-2:]
            streams.setdefault(stream, []).append((row, list(episode)))
    assert list(map(int, sorted(streams))) == list(range(len(streams)))
    return [[steps for _, steps in sorted(streams[name])] for name in sorted(streams)]


def _values(timestep, action):
    """Returns a step without the kinds of numbers, which batching changes (np.float64 for float)."""

    def plain(nest):
        if isinstance(nest, dict):
            return {key: plain(value) for key, value in nest.items()}
        if isinstance(nest, tuple | list):
            return [plain(value) for value in nest]
        return nest if nest is None or isinstance(nest, str) else np.asarray(nest)

    return plain([timestep.step_type, timestep.reward, timestep.discount]), plain(
        [timestep.observation, action]
    )


def _check(directory, envs, info=False):
    """Compares what was recorded with what came to pass in each environment."""
    found = _by_stream(directory)
    assert len(found) == len(envs)
    for stream, env in zip(found, envs, strict=True):
        # An episode that was made by the very last step may be one of a reset alone.
        assert len(stream) == len(env.episodes)
        for got, expected in zip(stream, env.episodes, strict=True):
            assert len(got) == len(expected)
            for step, (timestep, action, known) in zip(got, expected, strict=True):
                sequence = timestep.observation["sequence"]
                stacked = np.stack(sequence) if sequence else np.zeros((0, 2))
                observation = {**timestep.observation, "sequence": stacked}
                expected_values = _values(timestep._replace(observation=observation), action)
                assert_same(_values(step.timestep, step.action), expected_values)
                if info:
                    left, deep = step.custom_data["left"], step.custom_data["deep"]
                    assert left == known["left"]
                    np.testing.assert_equal(deep, known.get("deep"))


@_MODES
@pytest.mark.parametrize("count", [1, 5])
def test_each_stream_is_whole(mode, count, tmp_path):
    envs = SyncVectorEnv([_Alone for _ in range(count)], autoreset_mode=mode)

    with envlogger.BatchedEnvLogger(
        envs,
        step_fn=lambda timestep, action, env: {
            "left": env.info["left"],
            "deep": env.info.get("deep"),
        },
        data_directory=tmp_path / "a",
        helper=False,
    ) as logger:
        results = _play(logger, 40)

    if count > 1:
        _check(tmp_path / "a", envs.envs, info=True)
    else:
        assert [len(steps) for steps in helpers.read(tmp_path / "a")] == list(
            map(len, envs.envs[0].episodes)
        )
    ends = [
        (episode["steps"], env)
        for episode, env in zip(helpers.data_source(tmp_path / "a"), range(10**6), strict=False)
    ]
    for steps, _ in ends:
        steps = list(steps)
        assert [step["is_first"] for step in steps] == [True] + [False] * (len(steps) - 1)
        assert [step["is_last"] for step in steps] == [False] * (len(steps) - 1) + [True]
    num_terminal = sum(step["is_terminal"] for steps, _ in ends for step in steps)
    done = [result for result in results if len(result) == 5]
    assert num_terminal == sum(int(result[2].sum()) for result in done) > 0


def _values_of(result):
    """Returns what a vector environment returned, without arrays of objects."""
    if isinstance(result, dict):
        return {key: _values_of(value) for key, value in result.items()}
    if isinstance(result, tuple | list):
        return list(map(_values_of, result))
    is_array = isinstance(result, np.ndarray) and result.dtype == object
    return _values_of(result.tolist()) if is_array else result


def test_without_a_logger_the_loop_sees_the_same():
    def results(wrap):
        envs = SyncVectorEnv([_Alone for _ in range(3)], autoreset_mode=_SAME)
        return _play(wrap(envs), 20, seed=4)

    with helpers.scratch() as directory:
        logged = results(
            lambda envs: envlogger.BatchedEnvLogger(
                envs, data_directory=directory + "/a", helper=False
            )
        )
    plain = results(lambda envs: envs)
    for got, expected in zip(logged, plain, strict=True):
        assert_same(_values_of(got), _values_of(expected))


@_MODES
def test_processes_of_gymnasium(mode, tmp_path):
    """The observations of AsyncVectorEnv are shared memory, which the next step overwrites."""

    def make(kind):
        return kind([lambda: gymnasium.make("CartPole-v1") for _ in range(3)], autoreset_mode=mode)

    for name, kind in (("sync", SyncVectorEnv), ("async", AsyncVectorEnv)):
        with envlogger.BatchedEnvLogger(
            make(kind), data_directory=tmp_path / name, helper=False
        ) as logger:
            _play(logger, 60, seed=5)

    assert_same(_by_stream(tmp_path / "async"), _by_stream(tmp_path / "sync"))
    lengths = [len(steps) for stream in _by_stream(tmp_path / "sync") for steps in stream]
    assert len(lengths) > 5


def test_environments_that_are_vectors_themselves(tmp_path):
    envs = gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="vector_entry_point")
    with envlogger.BatchedEnvLogger(envs, data_directory=tmp_path / "a", helper=False) as logger:
        results = _play(logger, 60)

    found = _by_stream(tmp_path / "a")
    for i, stream in enumerate(found):
        # All that was returned is there, once; a reset has no reward.
        steps = [step for steps in stream for step in steps]
        seen = [result[0][i] for result in results]
        assert_same([step.timestep.observation for step in steps], seen)
        rewards = [float(result[1][i]) for result in results[1:]]
        assert [step.timestep.reward or 0.0 for step in steps[1:]] == rewards
        assert len(stream) > 1
        assert all(steps[0].timestep.first() for steps in stream)
        assert all(steps[-1].timestep.last() for steps in stream[:-1])


def test_it_is_what_a_logger_for_each_would_record(tmp_path):
    envs = gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode="sync")
    with envlogger.BatchedEnvLogger(envs, data_directory=tmp_path / "all", helper=False) as logger:
        logger.action_space.seed(1)
        logger.reset(seed=7)
        actions, was_over = [], np.zeros(4, bool)
        for _ in range(50):
            chosen = logger.action_space.sample()
            actions.append(np.where(was_over, -1, chosen))
            result = logger.step(chosen)
            was_over = result[2] | result[3]
    for i in range(4):
        alone = envlogger.GymnasiumEnvironment(gymnasium.make("CartPole-v1"), seed=7 + i)
        path = tmp_path / str(i)
        with envlogger.EnvLogger(alone, data_directory=path, helper=False) as logger:
            logger.reset()
            for chosen in actions:
                if chosen[i] < 0:
                    logger.reset()
                else:
                    logger.step(chosen[i])

    found = _by_stream(tmp_path / "all")
    for i in range(4):
        expected = helpers.read(tmp_path / str(i))
        for got, wanted in zip(found[i], expected, strict=True):
            assert_same(
                [_values(s.timestep, s.action) for s in got],
                [_values(s.timestep, s.action) for s in wanted],
            )
        with envlogger.Reader(tmp_path / "all") as one, envlogger.Reader(tmp_path / "0") as other:
            assert one.observation_spec() == other.observation_spec()
            assert one.action_spec() == other.action_spec()
            assert one.reward_spec() == other.reward_spec()


@_MODES
def test_resets_in_the_middle(mode, tmp_path):
    envs = SyncVectorEnv([lambda: _Alone(lengths=(3, 9)) for _ in range(3)], autoreset_mode=mode)
    with envlogger.BatchedEnvLogger(envs, data_directory=tmp_path / "a", helper=False) as logger:
        logger.reset(seed=1)
        logger.step(envs.action_space.sample())
        logger.reset(options={"reset_mask": np.array([False, True, False])})
        logger.step(envs.action_space.sample())
        logger.reset()

    _check(tmp_path / "a", envs.envs)
    assert [len(env.episodes) for env in envs.envs] == [2, 3, 2]


def test_what_follows_an_end_that_was_not_reset_is_no_episode(tmp_path):
    class Lenient(gymnasium.vector.VectorEnv):
        def __init__(self):
            self.num_envs = 2
            self.single_observation_space = spaces.Box(-9, 9, ())
            self.single_action_space = spaces.Discrete(2)
            self.metadata = {"autoreset_mode": _DISABLED}

        def reset(self, *, seed=None, options=None):
            return np.zeros(2, np.float32), {}

        def step(self, actions):
            done = np.array([True, False])
            return np.ones(2, np.float32), np.zeros(2), done, ~np.ones(2, bool), {}

    with envlogger.BatchedEnvLogger(
        Lenient(), data_directory=tmp_path / "a", helper=False
    ) as logger:
        logger.reset()
        for _ in range(3):
            logger.step(np.zeros(2, int))

    assert [list(map(len, stream)) for stream in _by_stream(tmp_path / "a")] == [[2], [4]]


def test_info_and_frames_and_episode_metadata(tmp_path):
    envs = SyncVectorEnv([_Alone for _ in range(3)], autoreset_mode=_SAME)
    with envlogger.BatchedEnvLogger(
        envs,
        step_fn=lambda timestep, action, env: {"info": env.info, "frame": env.render()},
        episode_fn=lambda timestep, action, env: {"stream": env.stream, "last": timestep.last()},
        metadata={"agent": "random"},
        data_directory=tmp_path / "a",
        helper=False,
    ) as logger:
        _play(logger, 12)

    with envlogger.Reader(tmp_path / "a") as reader:
        assert reader.metadata()["agent"] == "random"
        by_stream = {0: 0, 1: 0, 2: 0}
        for episode, metadata in zip(reader.episodes, reader.episode_metadata(), strict=True):
            expected = envs.envs[metadata["stream"]].episodes[by_stream[metadata["stream"]]]
            by_stream[metadata["stream"]] += 1
            assert metadata["last"] == episode[-1].timestep.last()
            for step, (timestep, _, info) in zip(episode, expected, strict=True):
                np.testing.assert_equal(step.custom_data["info"], info)
                assert step.custom_data["frame"].shape == (2, 2)
                assert timestep.first() == step.timestep.first()


# --- in the manner of dm_env ---------------------------------------------------------------------


class _Counters(dm_env.Environment):
    """N counters; stream i ends at i + 2. Its arrays are the same ones at each step."""

    def __init__(self, count, has_batched_specs=True):
        self._count = count
        self._has_batched_specs = has_batched_specs
        if not has_batched_specs:
            self.num_envs = count
        self._state = np.zeros((count, 2))
        self._limits = np.arange(count) + 2

    def reset(self):
        self._state[:] = 0
        self._steps = np.zeros(self._count, int)
        return self._timestep(np.zeros(self._count, int))

    def step(self, actions):
        is_over = self._steps == self._limits
        self._steps = np.where(is_over, 0, self._steps + 1)
        self._state[:, 0], self._state[:, 1] = self._steps, np.where(is_over, 0, actions)
        kinds = np.where(is_over, 0, np.where(self._steps == self._limits, 2, 1))
        return self._timestep(kinds)

    def _timestep(self, kinds):
        reward = {"own": self._steps * 0.5}
        discount = np.where(kinds == 2, np.arange(self._count) % 2, 1.0)
        return dm_env.TimeStep(kinds, reward, discount, {"state": self._state})

    def _spec(self, shape, kind, *args):
        return kind((self._count, *shape) if self._has_batched_specs else shape, *args)

    def observation_spec(self):
        return {"state": self._spec((2,), specs.Array, np.float64)}

    def action_spec(self):
        return self._spec((), specs.BoundedArray, np.int64, 0, 9)

    def reward_spec(self):
        return {"own": self._spec((), specs.Array, np.float64)}

    def discount_spec(self):
        return self._spec((), specs.BoundedArray, np.float64, 0.0, 1.0)


@pytest.mark.parametrize("has_batched_specs", [True, False])
def test_arrays_with_a_leading_dimension(has_batched_specs, tmp_path):
    count = 4
    with envlogger.BatchedEnvLogger(
        _Counters(count, has_batched_specs),
        step_fn=lambda timestep, action, env: env.stream,
        data_directory=tmp_path / "a",
        helper=False,
    ) as logger:
        logger.reset()
        for number in range(20):
            logger.step(np.full(count, number % 10))

    with envlogger.Reader(tmp_path / "a") as reader:
        assert reader.observation_spec() == {"state": specs.Array((2,), np.float64)}
        assert reader.action_spec() == specs.BoundedArray((), np.int64, 0, 9)
        assert reader.reward_spec() == {"own": specs.Array((), np.float64)}
    for i, stream in enumerate(_by_stream(tmp_path / "a")):
        assert {step.custom_data for steps in stream for step in steps} == {i}
        number = -1  # of the call
        for steps in stream:
            for t, step in enumerate(steps):
                kind = dm_env.StepType(0 if t == 0 else 2 if t == i + 2 else 1)
                action = None if t == 0 else np.int64(number % 10)
                timestep = dm_env.TimeStep(
                    kind,
                    None if t == 0 else {"own": np.float64(t * 0.5)},
                    None if t == 0 else np.float64(i % 2 if kind == 2 else 1.0),
                    {"state": np.array([t, action or 0], np.float64)},
                )
                assert_same(step, step_data.StepData(timestep, action, i))
                number += 1
        assert number == 20


def test_an_error_in_step_fn_leaves_a_gap_in_those_streams_only(tmp_path):
    count, calls = 3, iter(range(100))

    def step_fn(timestep, action, env):
        if next(calls) == count * 2 + 1:  # the second stream, in the second step
            raise RuntimeError("no")

    with envlogger.BatchedEnvLogger(
        _Counters(count), step_fn, data_directory=tmp_path / "a", helper=False
    ) as logger:
        logger.reset()
        logger.step(np.zeros(count, int))
        with pytest.raises(RuntimeError, match="no"):
            logger.step(np.zeros(count, int))
        logger.step(np.zeros(count, int))

    streams = _by_stream(tmp_path / "a")
    kinds = [[[int(s.timestep.step_type) for s in steps] for steps in stream] for stream in streams]
    assert kinds == [[[0, 1, 2], [0]], [[0, 1], [2]], [[0, 1], [1]]]


def test_wrappers_of_gymnasium_and_no_steps_at_all(tmp_path):
    envs = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 2, autoreset_mode=_NEXT)
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs)
    with envlogger.BatchedEnvLogger(
        wrapped,
        episode_fn=lambda timestep, action, env: env.info.get("episode"),
        data_directory=tmp_path / "a",
        helper=False,
    ) as logger:
        _play(logger, 50)
    with envlogger.BatchedEnvLogger(envs, data_directory=tmp_path / "b", helper=False) as logger:
        assert logger.num_envs == 2  # what it lacks is the environment's

    with envlogger.Reader(tmp_path / "a") as reader:
        whole = [episode for episode in reader.episodes if episode[-1].timestep.last()]
        assert len(whole) > 1
        for episode, metadata in zip(reader.episodes, reader.episode_metadata(), strict=True):
            if episode[-1].timestep.last():
                assert metadata["l"] == metadata["r"] == len(episode) - 1
            else:
                assert metadata is None
    assert not (tmp_path / "b" / "dataset_info.json").exists()


# --- the options of EnvLogger ----------------------------------------------------------------------


def test_other_backends_get_whole_episodes():
    backend = in_memory_backend.InMemoryBackendWriter()
    envs = SyncVectorEnv([_Alone for _ in range(3)], autoreset_mode=_NEXT)
    with envlogger.BatchedEnvLogger(
        envs,
        episode_fn=lambda timestep, action, env: [env.stream, timestep.last()],
        backend=backend,
    ) as logger:
        _play(logger, 15)

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


def test_each_stream_has_its_own_scheduler(tmp_path):
    class EverySecond:
        def __init__(self):
            self.count = 0

        def __call__(self, data):
            self.count += 1
            return self.count % 2 == 1

    with envlogger.BatchedEnvLogger(
        _Counters(3), data_directory=tmp_path / "a", helper=False, scheduler=EverySecond()
    ) as logger:
        logger.reset()
        for _ in range(5):
            logger.step(np.zeros(3, int))

    for i, stream in enumerate(_by_stream(tmp_path / "a")):
        steps = [int(step.timestep.observation["state"][0]) for steps in stream for step in steps]
        assert steps == [t % (i + 3) for t in range(6)][::2]
    assert schedulers.Scheduler is envlogger.Scheduler


def test_a_dataset_is_appended_to_and_flush_publishes(tmp_path):
    for number in range(2):
        with envlogger.BatchedEnvLogger(_Counters(3), data_directory=tmp_path / "a") as logger:
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
        _Counters(3),
        step_fn=lambda *args: seen.append((args[2].stream, step_fn(*args))) or seen[-1][1],
        data_directory=tmp_path / "a",
        max_episodes_per_file=4,
    ) as logger:
        logger.reset()
        for _ in range(80):
            logger.step(np.zeros(3, int))

    found = _by_stream(tmp_path / "a")
    for i, stream in enumerate(found):
        got = [step.custom_data for steps in stream for step in steps]
        assert_same(got, [data for of, data in seen if of == i])


class _Endless(_Counters):
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

    for stream in _by_stream(tmp_path / "a"):
        assert len(stream) > 1
        assert [steps[0].timestep.first() for steps in stream] == [True] + [False] * (
            len(stream) - 1
        )
        steps = [step for steps in stream for step in steps]
        assert [step.action for step in steps] == [None, *range(num_steps)]
        states = [step.timestep.observation["state"][0] for step in steps]
        assert states == list(range(num_steps + 1))


_lengths = st.lists(st.integers(1, 4), min_size=2, max_size=4)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    st.sampled_from(list(AutoresetMode)),
    _lengths,
    st.lists(st.integers(0, 2), max_size=12),
    st.integers(0, 99),
)
def test_any_sequence_of_calls(mode, lengths, calls, seed):
    envs = SyncVectorEnv(
        [lambda length=length: _Alone(lengths=(length, length)) for length in lengths],
        autoreset_mode=mode,
    )
    is_over = np.zeros(len(lengths), bool)
    envs.action_space.seed(seed)
    with helpers.scratch() as directory:
        with envlogger.BatchedEnvLogger(
            envs, data_directory=directory + "/a", helper=False
        ) as logger:
            logger.reset(seed=seed)
            for call in calls:
                if mode is _DISABLED and is_over.any():
                    logger.reset(options={"reset_mask": is_over})
                if call == 0:
                    logger.reset()
                    is_over[:] = False
                else:
                    result = logger.step(envs.action_space.sample())
                    is_over = result[2] | result[3]
        _check(directory + "/a", envs.envs)


# --- errors --------------------------------------------------------------------------------------


def test_what_it_is_not_for(tmp_path):
    path = tmp_path / "a"
    envs = SyncVectorEnv([_Alone], autoreset_mode=_NEXT)
    unclear = SyncVectorEnv([_Alone])
    unclear.metadata = {}
    single = _Counters(2)
    single.discount_spec = lambda: specs.Array((), float)
    for env, message in [
        (object(), "^env: got <object"),
        (unclear, "autoreset_mode'.: got None"),
        (single, "expected an array with a leading dimension N"),
    ]:
        with pytest.raises(errors.OptionError, match=message):
            envlogger.BatchedEnvLogger(env, data_directory=path)
    with (
        envlogger.BatchedEnvLogger(_Counters(2), data_directory=path, helper=False) as logger,
        pytest.raises(errors.OptionError, match=r"^reset: got a seed"),
    ):
        logger.reset(seed=1)
    with pytest.raises(errors.OptionError, match="data_directory: got none"):
        envlogger.BatchedEnvLogger(envs)
    with pytest.raises(TypeError, match="cannot be serialized/pickled"):
        pickle.dumps(
            envlogger.BatchedEnvLogger(
                _Counters(2), backend=in_memory_backend.InMemoryBackendWriter
            )
        )
    one = envlogger.backends.tfds_backend_writer.TFDSBackendWriter(tmp_path / "b", helper=False)
    with pytest.raises(errors.OptionError, match="num_streams: got 1, expected 2"):
        envlogger.BatchedEnvLogger(_Counters(2), backend=one)
    one.close()


# --- many ----------------------------------------------------------------------------------------

_MANY = """
import itertools, os, sys
import dm_env
import numpy as np
from dm_env import specs

class Many(dm_env.Environment):
    num_envs = 64

    def __init__(self):
        self._steps = np.zeros(64, int)
        self._lengths = np.arange(64) % 7 + 3
        self._calls = 0

    def reset(self):
        return self._timestep(np.zeros(64, int))

    def step(self, actions):
        self._calls += 1
        self._steps = np.where(self._steps == self._lengths, 0, self._steps + 1)
        kinds = np.where(self._steps == 0, 0, np.where(self._steps == self._lengths, 2, 1))
        return self._timestep(kinds)

    def _timestep(self, kinds):
        observation = np.full((64, 20), self._calls, np.float32)
        observation[:, 1] = np.arange(64)
        return dm_env.TimeStep(kinds, np.ones(64), np.ones(64), observation)

    def observation_spec(self):
        return specs.Array((20,), np.float32)

    def action_spec(self):
        return specs.DiscreteArray(3, np.int64)

    def reward_spec(self):
        return specs.Array((), float)

    def discount_spec(self):
        return specs.BoundedArray((), float, 0, 1)

def open_descriptors():
    return len(os.listdir("/proc/self/fd"))
"""

_PLAY = """
envs = envlogger.BatchedEnvLogger(Many(), data_directory=directory, **options)
envs.reset()
os.write(notes, b".")
while True:
    envs.step(np.zeros(64, int))
    os.write(notes, b".")
"""


def _numbers(directory):
    """Returns the numbers of the calls that each stream has, in the order of the dataset, by episode."""
    streams = [[] for _ in range(64)]
    with envlogger.Reader(directory) as reader:
        for episode in reader.episodes:
            observation = episode.columns()["observation"]
            (stream,) = set(observation[:, 1].tolist())
            streams[int(stream)].append(observation[:, 0].tolist())
    return streams


def _flat(episodes):
    return [number for episode in episodes for number in episode]


@pytest.mark.parametrize("with_helper", [True, False])
@pytest.mark.parametrize("num_calls", [3, 150])
def test_every_step_that_returned_is_there_after_a_kill(with_helper, num_calls, tmp_path):
    directory = tmp_path / "many" / "1.0.0"
    # So that shards are published on the way.
    options = f"options = dict(helper={with_helper}, max_episodes_per_file=300)\n"
    program = processes.Program(_MANY + options + _PLAY, directory, tmp_path)
    program.wait_for_calls(num_calls)
    if with_helper:
        processes.kill(program.wait_for_helper())
    program.kill()

    acknowledged = program.num_acknowledged
    envlogger.recover(directory)

    for stream, episodes in enumerate(_numbers(directory)):
        # Of the call that was under way the first streams may have been recorded.
        numbers = _flat(episodes)
        assert numbers in (list(range(acknowledged)), list(range(acknowledged + 1)))
        assert all(len(episode) == stream % 7 + 4 for episode in episodes[:-1])
    assert processes.sessions(directory) == []


def test_one_helper_recovers_what_its_writer_left(tmp_path):
    directory = tmp_path / "many" / "1.0.0"
    program = processes.Program(_MANY + "options = {}\n" + _PLAY, directory, tmp_path)
    program.wait_for_calls(50)
    assert len(processes.children(program.process.pid)) == 1
    program.kill()

    processes.wait_for(lambda: processes.sessions(directory) == [])

    expected = list(range(program.num_acknowledged))
    assert all(_flat(episodes)[: len(expected)] == expected for episodes in _numbers(directory))


_BOUNDS = """
before = open_descriptors()
envs = envlogger.BatchedEnvLogger(Many(), data_directory=directory, max_backlog_bytes=48 << 20)
envs.reset()
most, descriptors = 0, 0
for call in range(600):
    envs.step(np.zeros(64, int))
    if call % 50 == 0:
        descriptors = max(descriptors, open_descriptors() - before)
        path = envs._backend._session._sealing.directory
        sizes = []
        for name in os.listdir(path):
            if name.startswith("segment-"):
                sizes.append(os.path.getsize(os.path.join(path, name)))
        most = max(most, sum(sizes))
envs.close()
assert 0 < most <= 48 << 20, most
# What is mapped takes one each.
assert 0 < descriptors <= 512 + 16, descriptors
assert open_descriptors() <= before + 1
"""


def test_sixty_four_streams_take_bounded_space_and_descriptors(tmp_path):
    directory = tmp_path / "many" / "1.0.0"

    program = processes.run(_MANY + _BOUNDS, directory, tmp_path)

    assert program.stderr == ""
    assert all(_flat(episodes) == list(range(601)) for episodes in _numbers(directory))
    # Shards are those of the whole, not of each stream.
    assert len([name for name in os.listdir(directory) if "array_record" in name]) < 64
