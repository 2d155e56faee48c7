# SPDX-License-Identifier: Apache-2.0
"""Records two environments, loads them back with `tfds.load`, prints and draws what is in them.

    make demo

Records what is missing of 20 episodes of dm_control's walker-walk and 200 episodes of bsuite's catch,
played by a random agent: everything at first, nothing the second time.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

# Read when the packages are imported: nothing is rendered here, and TensorFlow is to keep quiet.
os.environ.setdefault("MUJOCO_GL", "disabled")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bsuite
import demo_loading
import demo_report
import dm_env
import numpy as np
import tqdm
from dm_control import suite
from dm_env import specs

import envlogger
from envlogger import environment_logger

_VERSION = "1.0.0"
_SEED = 20


@dataclasses.dataclass(frozen=True)
class Task:
    """What to record: an environment, made from a seed, and the callback for its steps."""

    name: str
    make_env: Callable[[int], dm_env.Environment]
    step_fn: environment_logger.Callback


TASKS = (
    Task(
        "walker_walk",
        lambda seed: suite.load("walker", "walk", task_kwargs={"random": seed}),
        lambda timestep, action, env: {"speed": env.physics.horizontal_velocity()},
    ),
    Task(
        "bsuite_catch",
        lambda seed: bsuite.load("catch", {"seed": seed}),  # catch/0, but for the seed
        lambda timestep, action, env: {"total_regret": env.bsuite_info()["total_regret"]},
    ),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the demo as the command line says."""
    parser = argparse.ArgumentParser(description="Records two environments and loads them back.")
    parser.add_argument("--data_directory", default="demo_data", help="where (%(default)s)")
    parser.add_argument("--walker_episodes", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--catch_episodes", type=int, default=200, help="(%(default)s)")
    args = parser.parse_args(argv)
    if min(args.walker_episodes, args.catch_episodes) < 1:
        parser.error("--walker_episodes, --catch_episodes: expected at least 1 of each")

    try:
        for task, num_episodes in zip(
            TASKS, (args.walker_episodes, args.catch_episodes), strict=True
        ):
            directory = pathlib.Path(args.data_directory, task.name, _VERSION)
            record_missing(task, directory, num_episodes)
    except envlogger.errors.EnvLoggerError as error:
        sys.exit(f"error: {error}")

    demo_loading.import_tensorflow_quietly()
    runs = []
    for task in TASKS:
        dataset = demo_loading.load(task.name, args.data_directory)
        run = demo_loading.collect(task.name, dataset)
        demo_report.print_dataset(run, dataset.element_spec)
        runs.append(run)
    demo_report.print_totals(runs)
    picture = pathlib.Path(args.data_directory, "report.png")
    demo_report.draw(runs, picture)
    print(f"\nDrew {picture}")


def record_missing(task: Task, directory: pathlib.Path, num_episodes: int) -> None:
    """Records as many episodes as the directory lacks."""
    num_there = count_episodes(directory)
    if num_there >= num_episodes:
        print(f"{directory}: {num_there} episodes are there; remove the directory to record anew")
        return

    # A seed of their own for the episodes of each session, which would be the first ones again.
    seed = _SEED + num_there
    env = task.make_env(seed)
    rng = np.random.default_rng(seed)
    with envlogger.EnvLogger(
        env,
        step_fn=task.step_fn,
        episode_fn=EpisodeNotes(num_there),
        metadata={"agent": "random", "environment": task.name},
        data_directory=directory,
    ) as env:
        for _ in tqdm.trange(
            num_there, num_episodes, desc=str(directory), unit="episode", disable=None
        ):
            timestep = env.reset()
            while not timestep.last():
                timestep = env.step(random_action(env.action_spec(), rng))
    print(f"{directory}: recorded {num_episodes - num_there} episodes")


def count_episodes(directory: pathlib.Path) -> int:
    """Returns how many episodes were recorded so far; 0 where nothing was."""
    if not (directory / "dataset_info.json").exists():
        return 0
    with envlogger.Reader(directory) as reader:
        return len(reader.episodes)


def random_action(spec: specs.BoundedArray, rng: np.random.Generator) -> Any:
    """Returns an action within bounds, all equally likely."""
    if isinstance(spec, specs.DiscreteArray):
        return spec.dtype.type(rng.integers(spec.num_values))
    return rng.uniform(spec.minimum, spec.maximum, spec.shape).astype(spec.dtype)


class EpisodeNotes:
    """An `episode_fn`: numbers the episodes and sums up their rewards."""

    def __init__(self, first_number: int) -> None:
        self._number = first_number - 1
        self._return = 0.0

    def __call__(
        self, timestep: dm_env.TimeStep, action: Any, env: dm_env.Environment
    ) -> dict[str, Any]:
        """Returns what is to be recorded with the episode, as of this step."""
        if timestep.first():
            self._number += 1
            self._return = 0.0
        else:
            self._return += float(timestep.reward)
        return {"number": self._number, "return": self._return}


if __name__ == "__main__":
    main()
