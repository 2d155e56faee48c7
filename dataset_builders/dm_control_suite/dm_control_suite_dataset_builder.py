# SPDX-License-Identifier: Apache-2.0
"""The tasks of the dm_control suite, played by a random policy, from state or from pixels."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

import envlogger.tfds

# As in `dm_control.suite.TASKS_BY_DOMAIN`, which is not needed to load what was built.
TASKS = {
    "acrobot": ("swingup", "swingup_sparse"),
    "ball_in_cup": ("catch",),
    "cartpole": (
        "balance",
        "balance_sparse",
        "swingup",
        "swingup_sparse",
        "two_poles",
        "three_poles",
    ),
    "cheetah": ("run",),
    "dog": ("stand", "walk", "trot", "run", "fetch"),
    "finger": ("spin", "turn_easy", "turn_hard"),
    "fish": ("upright", "swim"),
    "hopper": ("stand", "hop"),
    "humanoid": ("stand", "walk", "run", "run_pure_state"),
    "humanoid_CMU": ("stand", "walk", "run"),
    "lqr": ("lqr_2_1", "lqr_6_2"),
    "manipulator": ("bring_ball", "bring_peg", "insert_ball", "insert_peg"),
    "pendulum": ("swingup",),
    "point_mass": ("easy", "hard"),
    "quadruped": ("walk", "run", "escape", "fetch"),
    "reacher": ("easy", "hard"),
    "stacker": ("stack_2", "stack_4"),
    "swimmer": ("swimmer6", "swimmer15"),
    "walker": ("stand", "walk", "run"),
}
_PLAY = pathlib.Path(__file__).with_name("play.py")


@dataclasses.dataclass(eq=False, kw_only=True)
class DmControlConfig(tfds.core.BuilderConfig):
    """What is played.

    Attributes:
      domain: The suite's domain.
      task: The domain's task.
      pixels: Whether observations are camera images, uint8 (84, 84, 3), instead of the state.
      num_episodes: How many episodes.
      time_limit: Seconds of simulated time in an episode; None for the task's own.
      seed: Of the task and of the policy.
    """

    domain: str
    task: str
    pixels: bool = False
    num_episodes: int = 10
    time_limit: float | None = None
    seed: int = 0


def _config(domain: str, task: str, pixels: bool) -> DmControlConfig:
    end, what = ("_pixels", "camera images") if pixels else ("", "the state")
    return DmControlConfig(
        name=f"{domain}_{task}{end}".lower(),
        description=f"{domain}, {task}, with observations of {what}.",
        domain=domain,
        task=task,
        pixels=pixels,
    )


class Builder(envlogger.tfds.LoggedRunsBuilder):
    """The dataset `dm_control_suite`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS = [
        _config(domain, task, pixels)
        for domain, tasks in TASKS.items()
        for task in tasks
        for pixels in (False, True)
    ]

    def sources(self, dl_manager: Any, scratch: str) -> Sequence[str]:
        """Plays the episodes, in a process without TensorFlow: where Mesa renders, it bears none."""
        config = self.builder_config
        played = {
            "domain": config.domain,
            "task": config.task,
            "pixels": config.pixels,
            "num_episodes": config.num_episodes,
            "time_limit": config.time_limit,
            "seed": config.seed,
        }
        env = {"MUJOCO_GL": "egl" if config.pixels else "disabled", **os.environ}
        subprocess.run([sys.executable, _PLAY, scratch, json.dumps(played)], env=env, check=True)
        return [scratch]
