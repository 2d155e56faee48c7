# SPDX-License-Identifier: Apache-2.0
"""Records a random agent in an environment of Gymnasium.

    python examples/log_gymnasium.py --env=CartPole-v1 --episodes=10
    python examples/log_gymnasium.py --env=HalfCheetah-v5 --info
    python examples/log_gymnasium.py --env=minigrid:MiniGrid-DoorKey-5x5-v0
    python examples/log_gymnasium.py --env=CartPole-v1 --frames

Run it again, with another seed, and it appends. Needs `pip install 'envlogger[gymnasium]'`, and what the
environment needs: `gymnasium[mujoco]` or `minigrid`, say; for `--frames` of CartPole
`gymnasium[classic-control]`.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from typing import Any

import dm_env
import tqdm

import envlogger


def main(argv: Sequence[str] | None = None) -> None:
    """Records as the command line says."""
    parser = argparse.ArgumentParser(
        description="Records a random agent in an environment of Gymnasium."
    )
    parser.add_argument(
        "--env",
        default="CartPole-v1",
        help="its id; <module>:<id> where a module must be imported for it (%(default)s)",
    )
    parser.add_argument(
        "--episodes", type=int, default=10, help="how many episodes to record (%(default)s)"
    )
    parser.add_argument("--data_directory", help="the directory to record into (data/<env>/1.0.0)")
    parser.add_argument("--seed", type=int, default=0, help="of task and agent (%(default)s)")
    parser.add_argument("--info", action="store_true", help="also record each step's info")
    parser.add_argument("--frames", action="store_true", help="also record each step's image")
    args = parser.parse_args(argv)
    if args.episodes < 1:
        parser.error(f"--episodes: got {args.episodes}, expected at least 1")
    name = re.sub(r"\W+", "_", args.env.rpartition(":")[2]).lower()
    directory = args.data_directory or f"data/{name}/1.0.0"

    try:
        env = make_env(args.env, args.frames, args.seed)
        record(env, args.episodes, directory, vars(args))
    except (envlogger.errors.EnvLoggerError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"Recorded {args.episodes} episodes to {directory}")


def make_env(name: str, frames: bool, seed: int) -> dm_env.Environment:
    """Returns an environment.

    Raises:
      MissingExtraError: Gymnasium is not installed.
      ValueError: Gymnasium cannot make that environment.
    """
    try:
        gymnasium: Any = importlib.import_module("gymnasium")
    except ModuleNotFoundError as error:
        raise envlogger.errors.MissingExtraError(
            "gymnasium", "gymnasium", "This example"
        ) from error
    try:
        env = gymnasium.make(name, render_mode="rgb_array" if frames else None)
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(f"--env: Gymnasium cannot make {name!r}: {error}") from error
    env.action_space.seed(seed)
    return envlogger.GymnasiumEnvironment(env, seed=seed)


def record(
    env: dm_env.Environment, num_episodes: int, directory: str, metadata: dict[str, Any]
) -> None:
    """Plays and records."""

    def step_fn(timestep: dm_env.TimeStep, action: Any, env: Any) -> dict[str, Any]:
        data: dict[str, Any] = {}
        if metadata["info"]:
            data["info"] = env.info
        if metadata["frames"]:
            data["frame"] = env.render()
        return data

    sample = env.env.action_space.sample
    with envlogger.EnvLogger(
        env, data_directory=directory, metadata={"agent": "random", **metadata}, step_fn=step_fn
    ) as env:
        for _ in tqdm.trange(num_episodes, unit="episode", disable=None):
            timestep = env.reset()
            while not timestep.last():
                timestep = env.step(sample())


if __name__ == "__main__":
    main()
