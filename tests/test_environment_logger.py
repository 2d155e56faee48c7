# SPDX-License-Identifier: Apache-2.0
"""The wrapper's contract."""

from __future__ import annotations

import copy
import pickle

import dm_env
import helpers
import numpy as np
import pytest

import envlogger
from envlogger import environment_logger, errors
from envlogger.environment_wrapper import EnvironmentWrapper
from envlogger.testing import catch_env
from envlogger.testing.comparison import assert_same

GOOD = helpers.GOOD


# --- an environment like any other -------------------------------------------------------------------


@pytest.mark.parametrize("helper", [True, False])
def test_a_run_of_a_real_environment(tmp_path, helper):
    path = tmp_path / "catch" / "1.0.0"
    expected = []
    with envlogger.EnvLogger(catch_env.Catch(), data_directory=path, helper=helper) as env:
        assert isinstance(env, dm_env.Environment)
        for episode in range(3):
            timestep = env.reset()
            expected.append([envlogger.StepData(timestep, None, None)])
            while not timestep.last():
                action = (episode + len(expected[-1])) % 3
                timestep = env.step(action)
                expected[-1].append(envlogger.StepData(timestep, action, None))

    assert_same(helpers.read(path), expected)


def test_it_returns_the_timesteps_of_the_environment(tmp_path):
    episodes = copy.deepcopy([GOOD])
    with helpers.scripted_logger(tmp_path, episodes) as logger:
        assert logger.reset() is episodes[0][0]
        assert logger.step(5) is episodes[0][1]
        assert logger.step(6) is episodes[0][2]
        assert logger.actions == [5, 6]


def test_attributes_are_those_of_the_environment(tmp_path):
    with helpers.scripted_logger(tmp_path, [GOOD]) as logger:
        assert logger.num_closed == 0
        assert logger.observation_spec() == helpers.spec_of(0.0)
        assert logger.action_spec() == helpers.spec_of(0)
        assert logger.reward_spec() == helpers.spec_of(0.0)
        assert logger.discount_spec() == helpers.spec_of(0.0)
        with pytest.raises(AttributeError):
            logger.no_such_attribute  # noqa: B018


def test_closing_closes_the_environment_once(tmp_path):
    env = helpers.ScriptedEnv([GOOD])
    logger = envlogger.EnvLogger(env, data_directory=tmp_path, helper=False)
    helpers.play(logger, [[0, 1]])

    logger.close()
    logger.close()

    assert env.num_closed == 1
    assert_same(helpers.read(tmp_path), helpers.expected_run(GOOD))


def test_nothing_can_be_recorded_after_closing(tmp_path):
    logger = helpers.scripted_logger(tmp_path, [GOOD, GOOD])
    helpers.play(logger, [[0, 1]])
    logger.close()

    with pytest.raises(errors.EnvLoggerError, match=r"closed.*Make a new EnvLogger"):
        logger.reset()

    assert_same(helpers.read(tmp_path), helpers.expected_run(GOOD))


def test_step_resets_after_last_and_at_the_start(tmp_path):
    with helpers.scripted_logger(tmp_path, [GOOD, GOOD]) as logger:
        steps = [logger.step(action) for action in (9, 0, 1, 8, 0, 1)]

    assert [step.step_type.name for step in steps] == ["FIRST", "MID", "LAST"] * 2
    assert_same(helpers.read(tmp_path), helpers.expected_run(GOOD, GOOD))


def test_metadata_of_the_caller_is_not_changed(tmp_path):
    metadata = {"agent": {"name": "random"}}
    with helpers.scripted_logger(tmp_path, [GOOD], metadata=metadata) as logger:
        helpers.play(logger, [[0, 1]])

    assert metadata == {"agent": {"name": "random"}}
    with envlogger.Reader(tmp_path) as reader:
        assert reader.metadata()["agent"] == {"name": "random"}


@pytest.mark.parametrize("clone", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_cannot_be_pickled(tmp_path, clone):
    with helpers.scripted_logger(tmp_path, [GOOD]) as logger:
        with pytest.raises(TypeError, match="environment factory") as raised:
            clone(logger)
        helpers.check_message(raised, "EnvLogger", "construct the EnvLogger from it")
        helpers.play(logger, [[0, 1]])

    assert_same(helpers.read(tmp_path), helpers.expected_run(GOOD))


def test_loggers_can_be_wrapped(tmp_path):
    with EnvironmentWrapper(helpers.scripted_logger(tmp_path, [GOOD])) as env:
        helpers.play(env, [[0, 1]])

    assert_same(helpers.read(tmp_path), helpers.expected_run(GOOD))


def test_the_module_has_its_old_name():
    assert environment_logger.EnvLogger is envlogger.EnvLogger


# --- what environments do ----------------------------------------------------------------------------


class _ReusesItsBuffers(dm_env.Environment):
    """Counts in one buffer, as simulators do."""

    def __init__(self):
        self._state = {"count": np.zeros(2, np.int64), "words": np.array(["0"], object)}

    def _next(self, make, *args):
        self._state["count"] += 1
        self._state["words"][0] = str(int(self._state["count"][0]))
        return make(*args, observation=self._state)

    def reset(self):
        return self._next(dm_env.restart)

    def step(self, action):
        action[:] += 1
        return self._next(dm_env.transition, 0.5)

    def observation_spec(self):
        return helpers.spec_of(self._state)

    def action_spec(self):
        return helpers.spec_of(np.zeros(2))


def test_buffers_may_be_reused(tmp_path):
    action = np.zeros(2)
    with envlogger.EnvLogger(_ReusesItsBuffers(), data_directory=tmp_path, helper=False) as env:
        env.reset()
        for _ in range(50):
            env.step(action)
            action[:] *= 2

    (steps,) = helpers.read(tmp_path)
    assert [int(s.timestep.observation["count"][1]) for s in steps] == list(range(1, 52))
    assert [s.timestep.observation["words"][0] for s in steps] == list(map(str, range(1, 52)))
    expected = 0.0
    for step in steps[1:]:
        expected += 1
        assert step.action.tolist() == [expected] * 2
        expected *= 2


def test_observations_that_are_views(tmp_path):
    big = np.arange(64, dtype=np.float32).reshape(8, 8)
    steps = []
    for make in (helpers.first, helpers.mid, helpers.last):
        view = big.T[::2, ::-3]
        view.flags.writeable = False
        steps.append(make({"view": view, "broadcast": np.broadcast_to(np.int8(3), (2, 2))}))

    helpers.record(tmp_path, [steps])

    assert_same(helpers.read(tmp_path), helpers.expected_run(steps))


def test_large_arrays(tmp_path):
    rng = np.random.default_rng(0)
    steps = [
        make({"x": rng.random((500, 1000)), "y": rng.integers(0, 255, (600, 800, 3), np.uint8)})
        for make in (helpers.first, helpers.mid, helpers.mid, helpers.last)
    ]

    helpers.record(tmp_path, [steps])

    assert_same(helpers.read(tmp_path), helpers.expected_run(steps))


def test_first_from_step_begins_an_episode(tmp_path):
    steps = [*GOOD[:2], helpers.first(5.0), helpers.mid(6.0), helpers.last(7.0)]
    with helpers.scripted_logger(tmp_path, [steps]) as logger:
        helpers.play(logger, [[0, 1, 2, 3]])

    got = helpers.read(tmp_path)

    assert [[s.timestep.step_type.name for s in episode] for episode in got] == [
        ["FIRST", "MID"],
        ["FIRST", "MID", "LAST"],
    ]
    assert got[1][0].action == 1  # what step() was called with


def test_an_abandoned_episode_is_kept(tmp_path):
    episodes = [GOOD[:2], GOOD[:1], GOOD, GOOD[:2]]
    helpers.record(tmp_path, episodes)

    assert_same(helpers.read(tmp_path), helpers.expected_run(*episodes))
    for steps in helpers.source_steps(tmp_path):
        assert [bool(s["is_last"]) for s in steps] == [False] * (len(steps) - 1) + [True]
    assert [bool(steps[-1]["is_terminal"]) for steps in helpers.source_steps(tmp_path)] == [
        False,
        False,
        True,
        False,
    ]


def test_an_environment_without_observations(tmp_path):
    steps = [helpers.first(None), helpers.mid(None), helpers.last(None)]

    helpers.record(tmp_path, [steps])

    assert_same(helpers.read(tmp_path), helpers.expected_run(steps))
    assert [len(steps) for steps in helpers.source_steps(tmp_path)] == [3]


def test_an_integer_reward_where_the_spec_says_float(tmp_path):
    steps = [helpers.first(), helpers.mid(0.0, 0), helpers.mid(0.0, 0.5), helpers.last(0.0, 1)]
    env = helpers.ScriptedEnv([steps])
    env.reward_spec = lambda: helpers.spec_of(0.5)
    with envlogger.EnvLogger(env, data_directory=tmp_path, helper=False) as logger:
        helpers.play(logger, [[0, 1, 2]])

    assert_same(helpers.read(tmp_path), helpers.expected_run(steps))
