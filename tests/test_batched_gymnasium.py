# SPDX-License-Identifier: Apache-2.0
"""Gymnasium's vectors of environments: each one's episodes are recorded as if it had been alone."""

from __future__ import annotations

import batched
import gymnasium
import helpers
import hypothesis
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorWrapper
from hypothesis import strategies as st

import envlogger
from envlogger.testing.comparison import assert_same

_NEXT, _SAME, _DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
_MODES = pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.value)


@_MODES
@pytest.mark.parametrize("count", [1, 5])
def test_each_stream_is_whole(mode, count, tmp_path):
    envs = SyncVectorEnv([batched.Alone for _ in range(count)], autoreset_mode=mode)

    with envlogger.BatchedEnvLogger(
        envs,
        step_fn=lambda timestep, action, env: {
            "left": env.info["left"],
            "deep": env.info.get("deep"),
        },
        data_directory=tmp_path / "a",
        helper=False,
    ) as logger:
        results = batched.play(logger, 40)

    if count > 1:
        batched.check(tmp_path / "a", envs.envs, info=True)
    else:
        assert [len(steps) for steps in helpers.read(tmp_path / "a")] == list(
            map(len, envs.envs[0].episodes)
        )
    episodes = helpers.source_steps(tmp_path / "a")
    for steps in episodes:
        assert [step["is_first"] for step in steps] == [True] + [False] * (len(steps) - 1)
        assert [step["is_last"] for step in steps] == [False] * (len(steps) - 1) + [True]
    num_terminal = sum(step["is_terminal"] for steps in episodes for step in steps)
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
        envs = SyncVectorEnv([batched.Alone for _ in range(3)], autoreset_mode=_SAME)
        return batched.play(wrap(envs), 20, seed=4)

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
            batched.play(logger, 60, seed=5)

    assert_same(batched.by_stream(tmp_path / "async"), batched.by_stream(tmp_path / "sync"))
    lengths = [len(steps) for stream in batched.by_stream(tmp_path / "sync") for steps in stream]
    assert len(lengths) > 5


class _RefusedOnce(VectorWrapper):
    """The rewards of its second step are no numbers; what that step made is taken from `episodes`."""

    num_steps = 0

    def step(self, actions):
        self.num_steps += 1
        if self.num_steps != 2:
            return super().step(actions)
        known = [list(map(len, env.episodes)) for env in self.env.envs]
        observations, _, *others = super().step(actions)
        for env, lengths in zip(self.env.envs, known, strict=True):
            kept = [steps[:end] for steps, end in zip(env.episodes, lengths, strict=False)]
            env.episodes = [*kept, []]  # what follows is an episode of its own
        return observations, np.array(["x", "y", "z"]), *others


@_MODES
def test_a_refused_batch_leaves_a_gap_in_all_streams(mode, tmp_path):
    envs = SyncVectorEnv(
        [lambda n=n: batched.Alone(lengths=(n, n)) for n in (1, 2, 5)], autoreset_mode=mode
    )
    envs.action_space.seed(0)
    with envlogger.BatchedEnvLogger(
        _RefusedOnce(envs), data_directory=tmp_path / "a", helper=False
    ) as logger:
        logger.reset(seed=0)
        for number in range(8):
            if number == 1:
                with pytest.raises(ValueError, match="could not convert"):
                    logger.step(envs.action_space.sample())
            else:
                logger.step(envs.action_space.sample())
            is_over = np.array([env._left == 0 for env in envs.envs])
            if mode is _DISABLED and is_over.any():
                logger.reset(options={"reset_mask": is_over})

    for env in envs.envs:
        env.episodes = list(filter(None, env.episodes))
    batched.check(tmp_path / "a", envs.envs)


def test_environments_that_are_vectors_themselves(tmp_path):
    envs = gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="vector_entry_point")
    with envlogger.BatchedEnvLogger(envs, data_directory=tmp_path / "a", helper=False) as logger:
        results = batched.play(logger, 60)

    found = batched.by_stream(tmp_path / "a")
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

    found = batched.by_stream(tmp_path / "all")
    for i in range(4):
        expected = helpers.read(tmp_path / str(i))
        for got, wanted in zip(found[i], expected, strict=True):
            assert_same(
                [batched.values(s.timestep, s.action) for s in got],
                [batched.values(s.timestep, s.action) for s in wanted],
            )
        with envlogger.Reader(tmp_path / "all") as one, envlogger.Reader(tmp_path / "0") as other:
            assert one.observation_spec() == other.observation_spec()
            assert one.action_spec() == other.action_spec()
            assert one.reward_spec() == other.reward_spec()


@_MODES
def test_resets_in_the_middle(mode, tmp_path):
    envs = SyncVectorEnv(
        [lambda: batched.Alone(lengths=(3, 9)) for _ in range(3)], autoreset_mode=mode
    )
    with envlogger.BatchedEnvLogger(envs, data_directory=tmp_path / "a", helper=False) as logger:
        logger.reset(seed=1)
        logger.step(envs.action_space.sample())
        logger.reset(options={"reset_mask": np.array([False, True, False])})
        logger.step(envs.action_space.sample())
        logger.reset()

    batched.check(tmp_path / "a", envs.envs)
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

    assert [list(map(len, stream)) for stream in batched.by_stream(tmp_path / "a")] == [[2], [4]]


def test_info_and_frames_and_episode_metadata(tmp_path):
    envs = SyncVectorEnv([batched.Alone for _ in range(3)], autoreset_mode=_SAME)
    with envlogger.BatchedEnvLogger(
        envs,
        step_fn=lambda timestep, action, env: {"info": env.info, "frame": env.render()},
        episode_fn=lambda timestep, action, env: {"stream": env.stream, "last": timestep.last()},
        metadata={"agent": "random"},
        data_directory=tmp_path / "a",
        helper=False,
    ) as logger:
        batched.play(logger, 12)

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


def test_wrappers_of_gymnasium_and_no_steps_at_all(tmp_path):
    envs = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 2, autoreset_mode=_NEXT)
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs)
    with envlogger.BatchedEnvLogger(
        wrapped,
        episode_fn=lambda timestep, action, env: env.info.get("episode"),
        data_directory=tmp_path / "a",
        helper=False,
    ) as logger:
        batched.play(logger, 50)
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
        [lambda length=length: batched.Alone(lengths=(length, length)) for length in lengths],
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
        batched.check(directory + "/a", envs.envs)
