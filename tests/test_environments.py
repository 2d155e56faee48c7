# SPDX-License-Identifier: Apache-2.0
"""Real environments, recorded, and compared bit by bit in each of the ways to read them."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import bsuite
import helpers
import numpy as np
import pytest
import rendering
import tensorflow_datasets as tfds
from dm_control import suite
from dm_control.suite.wrappers import pixels

import envlogger
import envlogger.tfds
from envlogger import step_data
from envlogger.testing import comparison


def _walker(seed):
    return suite.load("walker", "walk", task_kwargs={"random": seed, "time_limit": 1.0})


def _humanoid(seed):
    return suite.load("humanoid", "run", task_kwargs={"random": seed, "time_limit": 0.25})


def _cartpole_with_camera(seed):
    env = suite.load("cartpole", "swingup", task_kwargs={"random": seed, "time_limit": 0.03})
    size = {"height": 48, "width": 64, "camera_id": 0}
    return pixels.Wrapper(env, pixels_only=False, render_kwargs=size)


def _catch(seed):
    return bsuite.load("catch", {"seed": seed})


def _physics_time(timestep, action, env):
    return {"time": env.physics.time()}


def _regret(timestep, action, env):
    return env.bsuite_info()


@pytest.fixture(
    params=[
        pytest.param(("walker_walk", _walker, _physics_time), id="walker-walk"),
        pytest.param(("humanoid_run", _humanoid, _physics_time), id="humanoid-run"),
        pytest.param(
            ("cartpole_camera", _cartpole_with_camera, _physics_time),
            id="cartpole-camera",
            marks=rendering.needs_rendering,
        ),
        pytest.param(("bsuite_catch", _catch, _regret), id="bsuite-catch"),
    ],
)
def run(request, tmp_path):
    """Two whole episodes and the start of a third: the directory, and what was logged."""
    name, make_env, step_fn = request.param
    directory = tmp_path / name / "1.0.0"
    env = make_env(seed=1)
    rng = np.random.default_rng(1)
    custom = []

    def log_custom(timestep, action, env):
        custom.append(copy.deepcopy(step_fn(timestep, action, env)))
        return custom[-1]

    episodes = []
    with envlogger.EnvLogger(
        env,
        step_fn=log_custom,
        episode_fn=lambda timestep, action, env: {"number": len(episodes), "agent": "random"},
        data_directory=directory,
    ) as logger:
        for num_steps in (None, None, 2):
            episodes.append([])
            timestep, action = logger.reset(), None
            while True:
                # A copy: no later step may change what was logged.
                logged = copy.deepcopy((timestep, action))
                episodes[-1].append(step_data.StepData(*logged, custom[-1]))
                if timestep.last() or len(episodes[-1]) == num_steps:
                    break
                action = _random_action(logger.action_spec(), rng)
                timestep = logger.step(action)
    return name, tmp_path, directory, _plain(episodes)


def _random_action(spec, rng):
    if hasattr(spec, "num_values"):
        return int(rng.integers(spec.num_values))
    return rng.uniform(spec.minimum, spec.maximum, spec.shape)


def _plain(value):
    """Returns a nest with dicts for all mappings: `Reader` knows no others."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_plain, value))
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def test_reader_gives_back_what_was_logged(run):
    _, _, directory, episodes = run

    comparison.assert_same(helpers.read(directory), episodes)
    assert [metadata["number"] for metadata in helpers.read_metadata(directory)] == [0, 1, 2]


def test_specs_are_those_of_the_environment(run, request):
    name, _, directory, _ = run
    env = {
        "walker_walk": _walker,
        "humanoid_run": _humanoid,
        "cartpole_camera": _cartpole_with_camera,
        "bsuite_catch": _catch,
    }[name](seed=1)

    with envlogger.Reader(directory) as reader:
        for slot in ("observation", "action", "reward", "discount"):
            got, expected = (getattr(x, f"{slot}_spec")() for x in (reader, env))
            assert got == _plain(expected)


def test_data_source_gives_rlds_steps(run):
    name, root, _, episodes = run

    source = tfds.data_source(name, data_dir=root, split="train")

    assert len(source) == len(episodes)
    for got, logged in zip(source, episodes, strict=True):
        assert got["agent"] == b"random"
        assert not got["invalid"]
        _assert_same_leaves(list(got["steps"]), _rlds_steps(logged))


def test_tf_data_gives_rlds_steps(run):
    name, root, _, episodes = run

    dataset = tfds.load(name, data_dir=root, split="train")

    assert len(dataset) == len(episodes)
    for got, logged in zip(tfds.as_numpy(dataset), episodes, strict=True):
        assert got["agent"] == b"random"
        assert not got["invalid"]
        _assert_same_leaves(list(got["steps"]), _rlds_steps(logged))


def _rlds_steps(episode):
    """Returns an episode's steps in RLDS's alignment: what was done at t, and what came of it."""
    padding = _zeros(episode[1])
    steps = []
    for step, following in zip(episode, [*episode[1:], None], strict=True):
        is_last = following is None
        following = following or padding
        steps.append(
            {
                "observation": step.timestep.observation,
                "action": following.action,
                "reward": following.timestep.reward,
                "discount": following.timestep.discount,
                "is_first": step.timestep.first(),
                "is_last": is_last,
                "is_terminal": step.timestep.last() and step.timestep.discount == 0,
                **step.custom_data,
            }
        )
    return steps


def _zeros(step):
    reward, discount, action = (
        np.zeros_like(value)
        for value in (step.timestep.reward, step.timestep.discount, step.action)
    )
    return step_data.StepData(step.timestep._replace(reward=reward, discount=discount), action)


def _assert_same_leaves(got, expected):
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for key in expected:
            _assert_same_leaves(got[key], expected[key])
    elif isinstance(expected, list):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            _assert_same_leaves(one, other)
    else:
        comparison.assert_same(np.asarray(got), np.asarray(expected))
