# SPDX-License-Identifier: Apache-2.0
"""Catch, played by a random and by an optimal policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

import envlogger.tfds
from envlogger.testing import catch_env

_LEFT, _STAY, _RIGHT = range(3)


@dataclasses.dataclass(eq=False, kw_only=True)
class CatchConfig(tfds.core.BuilderConfig):
    """What is played.

    Attributes:
      policy: "random", which moves as it likes, or "optimal", which goes to where the ball falls.
      num_episodes: How many episodes.
      seed: Of the environment and of the policy.
    """

    policy: str
    num_episodes: int = 200
    seed: int = 0


class Builder(envlogger.tfds.LoggedRunsBuilder):
    """The dataset `catch`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS = [
        CatchConfig(name="random", policy="random", description="Each action is drawn uniformly."),
        CatchConfig(name="optimal", policy="optimal", description="Each ball is caught."),
    ]
    SPLITS = {"train": 0.9, "test": 0.1}

    def sources(self, dl_manager: Any, scratch: str) -> Sequence[str]:
        """Plays the episodes."""
        config = self.builder_config
        policy = _policies(config.seed)[config.policy]
        with envlogger.EnvLogger(
            catch_env.Catch(seed=config.seed),
            data_directory=scratch,
            metadata={"policy": config.policy, "seed": config.seed},
            episode_fn=lambda timestep, action, env: (
                {"return": timestep.reward} if timestep.last() else None
            ),
            # So that the same seed gives the same bits.
            session_id=f"catch-{config.policy}-{config.seed}",
            helper=False,
        ) as env:
            for _ in range(config.num_episodes):
                timestep = env.reset()
                while not timestep.last():
                    timestep = env.step(policy(timestep.observation))
        return [scratch]


def _policies(seed: int) -> dict[str, Callable[[Any], int]]:
    """Returns the policies by name: functions from a board, float32 (10, 5), to an action."""
    rng = np.random.default_rng(seed)

    def random(board: Any) -> int:
        return int(rng.integers(_LEFT, _RIGHT + 1))

    def optimal(board: Any) -> int:
        ball, paddle = int(board[:-1].argmax()) % board.shape[1], int(board[-1].argmax())
        return _STAY + int(np.sign(ball - paddle))

    return {"random": random, "optimal": optimal}
