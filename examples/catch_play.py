# SPDX-License-Identifier: Apache-2.0
"""Catch, recorded and played: what the examples that learn from a log have in common."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import dm_env
import numpy as np
import tqdm

import envlogger
from envlogger.testing import catch_env

# From an observation, float32 (10, 5), to an action.
Policy = Callable[[Any], int]

NUM_ACTIONS = 3


def record(log: pathlib.Path, num_episodes: int, seed: int) -> None:
    """Records a random agent; an existing log is used as it is."""
    if (log / "dataset_info.json").exists():
        print(f"Using the log in {log}")
        return
    policy = random_policy(seed)
    with envlogger.EnvLogger(catch_env.Catch(seed=seed), data_directory=log) as env:
        for _ in tqdm.trange(num_episodes, desc="Recording", unit="episode", disable=None):
            run_episode(env, policy)


def run_episode(env: dm_env.Environment, policy: Policy) -> float:
    """Plays an episode; returns the sum of its rewards."""
    timestep, total = env.reset(), 0.0
    while not timestep.last():
        timestep = env.step(policy(timestep.observation))
        total += timestep.reward
    return total


def play(policy: Policy, num_episodes: int, seed: int) -> float:
    """Returns the mean return of a policy, in episodes other than the recorded ones."""
    env = catch_env.Catch(seed=seed + 1)
    return float(np.mean([run_episode(env, policy) for _ in range(num_episodes)]))


def random_policy(seed: int) -> Policy:
    """Returns a policy that looks at nothing."""
    rng = np.random.default_rng(seed)
    return lambda observation: int(rng.integers(NUM_ACTIONS))
