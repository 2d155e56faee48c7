# SPDX-License-Identifier: Apache-2.0
"""Records a random agent that plays Catch.

    python examples/random_agent_catch.py --num_episodes=100 --trajectories_dir=/tmp/catch_data

Run it again and it appends. `examples/read_episodes.py` shows what was recorded.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np
import tqdm

import envlogger
from envlogger.testing import catch_env


def main(argv: Sequence[str] | None = None) -> None:
    """Records as the command line says."""
    parser = argparse.ArgumentParser(description="Records a random agent that plays Catch.")
    parser.add_argument(
        "--num_episodes", type=int, default=1000, help="how many episodes to record (%(default)s)"
    )
    parser.add_argument(
        "--trajectories_dir",
        default="/tmp/catch_data",
        help="the directory to record into (%(default)s)",
    )
    args = parser.parse_args(argv)
    if args.num_episodes < 1:
        parser.error(f"--num_episodes: got {args.num_episodes}, expected at least 1")

    try:
        record(args.num_episodes, args.trajectories_dir)
    except envlogger.errors.EnvLoggerError as error:
        sys.exit(f"error: {error}")
    print(f"Recorded {args.num_episodes} episodes to {args.trajectories_dir}")


def record(num_episodes: int, trajectories_dir: str) -> None:
    """Plays and records."""
    env = catch_env.Catch()
    rng = np.random.default_rng()
    num_actions = env.action_spec().num_values
    with envlogger.EnvLogger(
        env,
        data_directory=trajectories_dir,
        max_episodes_per_file=1000,
        metadata={
            "agent_type": "random",
            "env_type": type(env).__name__,
            "num_episodes": num_episodes,
        },
        step_fn=lambda timestep, action, env: {"timestamp": time.time()},
    ) as env:
        for _ in tqdm.trange(num_episodes, unit="episode", disable=None):
            timestep = env.reset()
            while not timestep.last():
                timestep = env.step(rng.integers(num_actions))


if __name__ == "__main__":
    main()
