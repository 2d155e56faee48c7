# SPDX-License-Identifier: Apache-2.0
"""Environments in the manner of dm_env that step together: their arrays have a leading dimension."""

from __future__ import annotations

import batched
import dm_env
import numpy as np
import pytest
from dm_env import specs

import envlogger
from envlogger import step_data
from envlogger.testing.comparison import assert_same


@pytest.mark.parametrize("has_batched_specs", [True, False])
def test_arrays_with_a_leading_dimension(has_batched_specs, tmp_path):
    count = 4
    with envlogger.BatchedEnvLogger(
        batched.Counters(count, has_batched_specs),
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
    for i, stream in enumerate(batched.by_stream(tmp_path / "a")):
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


class _Lists(dm_env.Environment):
    """Two environments whose nests are lists; so are the values of one of their leaves."""

    def __init__(self, has_batched_specs):
        self._shape = (2,) if has_batched_specs else ()
        if not has_batched_specs:
            self.num_envs = 2

    def reset(self):
        return self._timestep(0, [0, 0])

    def step(self, actions):
        return self._timestep(1, actions[1]["b"])

    def _timestep(self, kind, values):
        a, b = np.array([[0.0, -0.0], [1.0, 2.0]], np.float32), np.asarray(values, np.int64)
        reward = [np.array([0.1, 0.2]), [0.3, 0.4]]
        return dm_env.TimeStep(np.full(2, kind), reward, [1.0, 0.5], [a, ([b], {"c": [-a, b + 1]})])

    def observation_spec(self):
        a, b = specs.Array((*self._shape, 2), np.float32), specs.Array(self._shape, np.int64)
        return [a, ([b], {"c": [a, b]})]

    def action_spec(self):
        return [specs.Array(self._shape, np.int64), {"b": specs.Array(self._shape, np.int64)}]

    def reward_spec(self):
        return [specs.Array(self._shape, np.float64)] * 2

    def discount_spec(self):
        return specs.BoundedArray(self._shape, np.float64, 0.0, 1.0)


@pytest.mark.parametrize("has_batched_specs", [True, False])
def test_lists_are_nests_where_the_spec_says_so(has_batched_specs, tmp_path):
    with envlogger.BatchedEnvLogger(
        _Lists(has_batched_specs), data_directory=tmp_path / "a", helper=False
    ) as logger:
        logger.reset()
        logger.step([np.array([3, 4]), {"b": [5, 6]}])

    for i, stream in enumerate(batched.by_stream(tmp_path / "a")):
        a = np.array([[0.0, -0.0], [1.0, 2.0]][i], np.float32)

        def observation(b, a=a):
            return [a, ([np.int64(b)], {"c": [-a, np.int64(b + 1)]})]

        reward = [np.float64([0.1, 0.2][i]), np.float64([0.3, 0.4][i])]
        discount = np.float64([1.0, 0.5][i])
        last = dm_env.TimeStep(dm_env.StepType.MID, reward, discount, observation(5 + i))
        action = [np.int64(3 + i), {"b": np.int64(5 + i)}]
        first = step_data.StepData(dm_env.restart(observation(0)), None, None)
        assert_same(stream, [[first, step_data.StepData(last, action, None)]])


def _fail(timestep):
    raise IndexError("no")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda timestep: timestep._replace(step_type=timestep.step_type[:-1]),
        lambda timestep: timestep._replace(discount=timestep.discount[:-1]),
        lambda timestep: timestep._replace(
            observation={"state": timestep.observation["state"][1:]}
        ),
        _fail,
    ],
    ids=["step_type", "discount", "observation", "error"],
)
def test_a_refused_batch_leaves_a_gap_in_all_streams(spoil, tmp_path):
    count = 3

    class Spoilt(batched.Counters):
        def _timestep(self, kinds):
            timestep = super()._timestep(kinds)
            return spoil(timestep) if self._steps[2] == 2 else timestep

    with envlogger.BatchedEnvLogger(
        Spoilt(count), data_directory=tmp_path / "a", helper=False
    ) as logger:
        logger.reset()
        logger.step(np.full(count, 7))
        with pytest.raises((ValueError, IndexError)):
            logger.step(np.full(count, 8))
        for _ in range(2):
            logger.step(np.full(count, 9))

    streams = batched.by_stream(tmp_path / "a")
    states = [
        [[s.timestep.observation["state"] for s in steps] for steps in stream] for stream in streams
    ]
    begin = [[0.0, 0.0], [1.0, 7.0]]
    expected = [
        [begin, [[0.0, 0.0], [1.0, 9.0]]],
        [begin, [[3.0, 9.0]], [[0.0, 0.0]]],
        [begin, [[3.0, 9.0], [4.0, 9.0]]],
    ]
    assert_same(states, [[list(map(np.array, steps)) for steps in stream] for stream in expected])
    kinds = [[[int(s.timestep.step_type) for s in steps] for steps in stream] for stream in streams]
    assert kinds == [[[0, 1], [0, 1]], [[0, 1], [2], [0]], [[0, 1], [1, 2]]]


def test_an_error_in_step_fn_leaves_a_gap_in_those_streams_only(tmp_path):
    count, calls = 3, iter(range(100))

    def step_fn(timestep, action, env):
        if next(calls) == count * 2 + 1:  # the second stream, in the second step
            raise RuntimeError("no")

    with envlogger.BatchedEnvLogger(
        batched.Counters(count), step_fn, data_directory=tmp_path / "a", helper=False
    ) as logger:
        logger.reset()
        logger.step(np.zeros(count, int))
        with pytest.raises(RuntimeError, match="no"):
            logger.step(np.zeros(count, int))
        logger.step(np.zeros(count, int))

    streams = batched.by_stream(tmp_path / "a")
    kinds = [[[int(s.timestep.step_type) for s in steps] for steps in stream] for stream in streams]
    assert kinds == [[[0, 1, 2], [0]], [[0, 1], [2]], [[0, 1], [1]]]
