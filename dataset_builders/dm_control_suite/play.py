# SPDX-License-Identifier: Apache-2.0
"""Plays a task of the dm_control suite under EnvLogger, by a random policy.

python play.py DIRECTORY '{"domain": "walker", "task": "walk", "pixels": false, "num_episodes": 10,
                           "time_limit": null, "seed": 0}'
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import dm_env
import numpy as np

import envlogger

_IMAGE_SIZE = 84  # pixels, as in the suite's benchmarks


def play(
    directory: str,
    *,
    domain: str,
    task: str,
    pixels: bool,
    num_episodes: int,
    time_limit: float | None,
    seed: int,
) -> None:
    """Records into a directory; see `DmControlConfig` for the rest."""
    env = _make(domain, task, pixels, time_limit, seed)
    rng = np.random.default_rng(seed)
    spec = env.action_spec()
    name = f"{domain}-{task}{'-pixels' if pixels else ''}"
    with envlogger.EnvLogger(
        env,
        data_directory=directory,
        metadata={"domain": domain, "task": task, "policy": "random", "seed": seed},
        # Simulated time, in seconds.
        step_fn=lambda timestep, action, env: {"time": env.physics.time()},
        # So that the same seed gives the same bits.
        session_id=f"{name}-{seed}",
        helper=False,
    ) as env:
        for _ in range(num_episodes):
            timestep = env.reset()
            while not timestep.last():
                timestep = env.step(rng.uniform(spec.minimum, spec.maximum, spec.shape))


def _make(
    domain: str, task: str, pixels: bool, time_limit: float | None, seed: int
) -> dm_env.Environment:
    try:
        suite: Any = importlib.import_module("dm_control.suite")
        wrapper: Any = importlib.import_module("dm_control.suite.wrappers.pixels")
    except ModuleNotFoundError as error:
        raise envlogger.errors.MissingExtraError(
            "dm_control", "dm-control", "Building this dataset"
        ) from error
    task_kwargs: dict[str, Any] = {"random": seed}
    if time_limit is not None:
        task_kwargs["time_limit"] = time_limit
    env = suite.load(domain, task, task_kwargs=task_kwargs)
    if pixels:
        size = {"height": _IMAGE_SIZE, "width": _IMAGE_SIZE, "camera_id": 0}
        env = wrapper.Wrapper(env, pixels_only=True, render_kwargs=size)
    return env


if __name__ == "__main__":
    play(sys.argv[1], **json.loads(sys.argv[2]))
