# SPDX-License-Identifier: Apache-2.0
"""A program that records an environment and, beside the dataset, pickles what it saw.

A program, because what renders must not share a process with TensorFlow: Mesa's LLVM and TensorFlow's
crash each other.

    python tests/record_environment.py NAME DATA_DIRECTORY PICKLE
"""

from __future__ import annotations

import copy
import os
import pathlib
import pickle
import sys
from collections.abc import Mapping

import numpy as np

import envlogger
from envlogger import step_data


def _make_walker():
    from dm_control import suite

    return suite.load("walker", "walk", task_kwargs={"random": 1, "time_limit": 1.0})


def _make_humanoid():
    from dm_control import suite

    return suite.load("humanoid", "run", task_kwargs={"random": 1, "time_limit": 0.25})


def _make_cartpole_with_camera():
    from dm_control import suite
    from dm_control.suite.wrappers import pixels

    env = suite.load("cartpole", "swingup", task_kwargs={"random": 1, "time_limit": 0.03})
    size = {"height": 48, "width": 64, "camera_id": 0}
    return pixels.Wrapper(env, pixels_only=False, render_kwargs=size)


def _make_catch():
    import bsuite

    return bsuite.load("catch", {"seed": 1})


def _physics_time(timestep, action, env):
    return {"time": env.physics.time()}


def _regret(timestep, action, env):
    return env.bsuite_info()


# Name -> environment, step_fn, MUJOCO_GL.
_ENVIRONMENTS = {
    "walker_walk": (_make_walker, _physics_time, "disabled"),
    "humanoid_run": (_make_humanoid, _physics_time, "disabled"),
    "cartpole_camera": (_make_cartpole_with_camera, _physics_time, "egl"),
    "bsuite_catch": (_make_catch, _regret, "disabled"),
}


def _main(name, data_directory, pickle_path):
    make_env, step_fn, mujoco_gl = _ENVIRONMENTS[name]
    os.environ.setdefault("MUJOCO_GL", mujoco_gl)
    env = make_env()
    specs = {
        slot: getattr(env, f"{slot}_spec")()
        for slot in ("observation", "action", "reward", "discount")
    }
    episodes = _record(env, step_fn, data_directory)
    heavy = {"tensorflow", "tensorflow_datasets"} & sys.modules.keys()
    assert not heavy, f"recording loaded {heavy}"
    pathlib.Path(pickle_path).write_bytes(pickle.dumps(_plain((episodes, specs))))


def _record(env, step_fn, data_directory):
    """Records two whole episodes and the start of a third; returns copies of what was logged."""
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
        data_directory=data_directory,
    ) as logger:
        for num_steps in (None, None, 2):
            episode = []
            timestep, action = logger.reset(), None
            while True:
                # A copy: no later step may change what was logged.
                logged = copy.deepcopy((timestep, action))
                episode.append(step_data.StepData(*logged, custom[-1]))
                if timestep.last() or len(episode) == num_steps:
                    break
                action = _random_action(logger.action_spec(), rng)
                timestep = logger.step(action)
            episodes.append(episode)
    return episodes


def _random_action(spec, rng):
    if hasattr(spec, "num_values"):
        return int(rng.integers(spec.num_values))
    return rng.uniform(spec.minimum, spec.maximum, spec.shape)


def _plain(value):
    """Returns a nest with dicts for all mappings: `Reader` knows no others."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = map(_plain, value)
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


if __name__ == "__main__":
    _main(*sys.argv[1:])
