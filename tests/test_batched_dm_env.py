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
