# SPDX-License-Identifier: Apache-2.0
"""Records a random agent in any task of the dm_control suite.

    python examples/log_dm_control.py --domain=walker --task=walk --episodes=10
    python examples/log_dm_control.py --domain=cartpole --task=swingup --pixels

Run it again, with another seed, and it appends. Needs `pip install 'envlogger[dm-control]'` and, on
Python 3.13, `pip install --no-deps dm_control`.

Camera observations are rendered by EGL, unless the environment variable MUJOCO_GL names another way
(glfw, osmesa). Where Mesa does that in software, the process must not import TensorFlow: their copies of
LLVM crash each other. Recording doesn't import it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import dm_env
import numpy as np
import tqdm

import envlogger

_IMAGE_SIZE = 84  # pixels, as in the suite's benchmarks


def main(argv: Sequence[str] | None = None) -> None:
    """Records as the command line says."""
    parser = argparse.ArgumentParser(
        description="Records a random agent in a task of the dm_control suite."
    )
    parser.add_argument("--domain", default="walker", help="the suite's domain (%(default)s)")
    parser.add_argument("--task", default="walk", help="the domain's task (%(default)s)")
    parser.add_argument(
        "--episodes", type=int, default=10, help="how many episodes to record (%(default)s)"
    )
    parser.add_argument(
        "--data_directory", help="the directory to record into (data/<domain>_<task>/1.0.0)"
    )
    parser.add_argument(
        "--pixels",
        action="store_true",
        help=f"also record a camera image, {_IMAGE_SIZE} x {_IMAGE_SIZE}, at each step",
    )
    parser.add_argument(
        "--time_limit", type=float, help="seconds of simulated time in an episode (the task's own)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of task and agent (%(default)s)")
    args = parser.parse_args(argv)
    if args.episodes < 1:
        parser.error(f"--episodes: got {args.episodes}, expected at least 1")
    kind = "_pixels" if args.pixels else ""
    directory = args.data_directory or f"data/{args.domain}_{args.task}{kind}/1.0.0"

    try:
        env = make_env(args.domain, args.task, args.pixels, args.time_limit, args.seed)
        record(env, args.episodes, directory, vars(args))
    except (envlogger.errors.EnvLoggerError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"Recorded {args.episodes} episodes to {directory}")


def make_env(
    domain: str, task: str, pixels: bool, time_limit: float | None, seed: int
) -> dm_env.Environment:
    """Returns a task of the suite, with camera observations if asked for.

    Raises:
      MissingExtraError: dm_control is not installed.
      ValueError: There is no such task.
    """
    # dm_control reads it when imported. Without camera observations no renderer is needed.
    os.environ.setdefault("MUJOCO_GL", "egl" if pixels else "disabled")
    try:
        suite: Any = importlib.import_module("dm_control.suite")
        pixels_wrapper: Any = importlib.import_module("dm_control.suite.wrappers.pixels")
    except ModuleNotFoundError as error:
        raise envlogger.errors.MissingExtraError(
            "dm_control", "dm-control", "This example"
        ) from error

    if domain not in suite.TASKS_BY_DOMAIN:
        raise ValueError(
            f"--domain: got {domain!r}, expected one of {', '.join(sorted(suite.TASKS_BY_DOMAIN))}"
        )
    if task not in suite.TASKS_BY_DOMAIN[domain]:
        tasks = ", ".join(sorted(suite.TASKS_BY_DOMAIN[domain]))
        raise ValueError(f"--task: got {task!r}, expected one of {tasks}")
    task_kwargs: dict[str, Any] = {"random": seed}
    if time_limit is not None:
        task_kwargs["time_limit"] = time_limit
    env = suite.load(domain, task, task_kwargs=task_kwargs)
    if pixels:
        size = {"height": _IMAGE_SIZE, "width": _IMAGE_SIZE, "camera_id": 0}
        env = pixels_wrapper.Wrapper(env, pixels_only=False, render_kwargs=size)
    return env


def record(
    env: dm_env.Environment, num_episodes: int, directory: str, metadata: dict[str, Any]
) -> None:
    """Plays and records."""
    rng = np.random.default_rng(metadata["seed"])
    spec = env.action_spec()
    with envlogger.EnvLogger(
        env,
        data_directory=directory,
        metadata={"agent": "random", **metadata},
        # Simulated time, in seconds.
        step_fn=lambda timestep, action, env: {"time": env.physics.time()},
    ) as env:
        for _ in tqdm.trange(num_episodes, unit="episode", disable=None):
            timestep = env.reset()
            while not timestep.last():
                timestep = env.step(rng.uniform(spec.minimum, spec.maximum, spec.shape))


if __name__ == "__main__":
    main()
