# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import dm_env
import numpy as np
import pytest
from dm_env import specs, test_utils

from envlogger.testing import catch_env

LEFT, STAY, RIGHT = 0, 1, 2


def _ball_columns(env, num_episodes):
    return [int(np.argmax(env.reset().observation[0])) for _ in range(num_episodes)]


class CatchConformsToDmEnvTest(test_utils.EnvironmentTestMixin, unittest.TestCase):
    def make_object_under_test(self):
        return catch_env.Catch()

    def make_action_sequence(self):
        rng = np.random.default_rng(0)
        for _ in range(50):
            yield rng.integers(3)


def test_draws_what_envlogger_1_drew():
    # From `np.random.RandomState(1).randint(5)`, which EnvLogger 1.x called once per reset.
    assert _ball_columns(catch_env.Catch(seed=1), 12) == [3, 4, 0, 1, 3, 0, 0, 1, 4, 4, 1, 2]


def test_episode_has_one_timestep_per_row_and_one_draw_per_reset():
    env = catch_env.Catch(rows=4, columns=3)
    expected_columns = _ball_columns(catch_env.Catch(rows=4, columns=3), 5)

    for column in expected_columns:
        timestep = env.step(STAY)
        assert timestep.first()
        for row in range(1, 4):
            assert not timestep.last()
            timestep = env.step(STAY)
            assert timestep.observation[row, column] == 1
        assert timestep.last()


def test_specs():
    env = catch_env.Catch(rows=4, columns=3)

    assert env.observation_spec() == specs.BoundedArray((4, 3), np.float32, 0, 1)
    assert env.observation_spec().name == "board"
    assert env.action_spec() == specs.DiscreteArray(3, dtype=np.int64)
    assert env.action_spec().name == "action"
    assert env.reward_spec() == specs.Array((), np.float64)


@pytest.mark.parametrize(("column", "reward"), [(0, -1.0), (1, 1.0), (2, -1.0)])
def test_reward_and_discount(column, reward):
    env = catch_env.Catch(rows=3, columns=3)
    while np.argmax(env.reset().observation[0]) != column:
        pass

    middle, last = env.step(STAY), env.step(STAY)

    assert middle == dm_env.transition(reward=0.0, observation=middle.observation)
    assert last == dm_env.termination(reward=reward, observation=last.observation)


def test_walls_stop_the_paddle():
    env = catch_env.Catch(rows=6, columns=3)
    env.reset()

    paddle = [int(np.argmax(env.step(a).observation[5])) for a in (LEFT, LEFT, RIGHT, RIGHT)]

    assert paddle == [0, 0, 1, 2]


def test_observations_are_not_reused():
    env = catch_env.Catch()
    first = env.reset().observation
    before = first.copy()

    env.step(RIGHT)

    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize("action", [1, np.int64(1), np.array(1, np.int32), np.uint8(1)])
def test_takes_any_integer(action):
    env = catch_env.Catch()
    env.reset()

    assert env.step(action).mid()


@pytest.mark.parametrize("action", [-1, 3])
def test_other_actions_are_refused(action):
    env = catch_env.Catch()
    env.reset()

    with pytest.raises(ValueError, match=rf"\[0, 3\), got {action}"):
        env.step(action)


@pytest.mark.parametrize(("rows", "columns"), [(1, 5), (10, 0)])
def test_too_small_a_board_is_refused(rows, columns):
    with pytest.raises(ValueError, match=f"{rows} x {columns}"):
        catch_env.Catch(rows, columns)
