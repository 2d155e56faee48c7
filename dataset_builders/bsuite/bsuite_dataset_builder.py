# SPDX-License-Identifier: Apache-2.0
"""The experiments of bsuite, played by a random policy."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Iterator
from typing import Any

import dm_env
import numpy as np
import tensorflow_datasets as tfds

import envlogger.tfds
from envlogger import errors

# The experiments on MNIST are not among them: bsuite downloads what they need.
_FAMILIES = (
    "bandit",
    "bandit_noise",
    "bandit_scale",
    "cartpole",
    "cartpole_noise",
    "cartpole_scale",
    "cartpole_swingup",
    "catch",
    "catch_noise",
    "catch_scale",
    "deep_sea",
    "deep_sea_stochastic",
    "discounting_chain",
    "memory_len",
    "memory_size",
    "mountain_car",
    "mountain_car_noise",
    "mountain_car_scale",
    "umbrella_distract",
    "umbrella_length",
)


@dataclasses.dataclass(eq=False, kw_only=True)
class BsuiteConfig(tfds.core.BuilderConfig):
    """What is played.

    Attributes:
      family: The experiment, such as "deep_sea".
      setting: The first setting of the experiment's sweep that is played: 3 stands for "deep_sea/3". All that
        come behind it and have observations of the same shape are played as well.
      num_episodes: How many episodes of each setting.
      seed: Of the environments and of the policy.
    """

    family: str
    setting: int = 0
    num_episodes: int = 10
    seed: int = 0


class Builder(envlogger.tfds.LoggedRunsBuilder):
    """The dataset `bsuite`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS = [
        BsuiteConfig(name=family, family=family, description=f"The experiment {family}.")
        for family in _FAMILIES
    ]

    def sources(self, dl_manager: Any, scratch: str) -> Iterator[str]:
        """Plays the settings, a run for each."""
        config = self.builder_config
        for bsuite_id, env in _environments(config):
            name = bsuite_id.replace("/", "-")
            directory = os.path.join(scratch, name)
            _record(bsuite_id, env, directory, f"{name}-{config.seed}", config)
            yield directory


def _environments(config: BsuiteConfig) -> Iterator[tuple[str, dm_env.Environment]]:
    """Yields the settings of a family, as far as their observations have one shape.

    Raises:
      MissingExtraError: bsuite is not installed.
    """
    try:
        from bsuite import bsuite, sweep
        from bsuite.environments import deep_sea
    except ModuleNotFoundError as error:
        raise errors.MissingExtraError("bsuite", "bsuite", "Building this dataset") from error
    ids = [name for name in sweep.SWEEP if name.partition("/")[0] == config.family]
    shape = None
    for bsuite_id in ids[config.setting :]:
        setting = dict(sweep.SETTINGS[bsuite_id])
        load = bsuite.EXPERIMENT_NAME_TO_ENVIRONMENT[config.family]
        if config.family == "deep_sea_stochastic":  # its function takes no seed
            env = deep_sea.DeepSea(**setting, deterministic=False, seed=config.seed)
        elif "seed" in inspect.signature(load).parameters:
            env = load(**{**setting, "seed": config.seed})
        else:  # there is no chance in it
            env = load(**setting)
        shape = shape or env.observation_spec().shape
        if env.observation_spec().shape == shape:
            yield bsuite_id, env


def _record(
    bsuite_id: str, env: dm_env.Environment, directory: str, session_id: str, config: BsuiteConfig
) -> None:
    rng = np.random.default_rng(config.seed)
    num_actions = env.action_spec().num_values
    with envlogger.EnvLogger(
        env,
        data_directory=directory,
        metadata={"policy": "random", "seed": config.seed},
        episode_fn=lambda timestep, action, env: {"bsuite_id": bsuite_id},
        # So that the same seed gives the same bits.
        session_id=session_id,
        helper=False,
    ) as env:
        for _ in range(config.num_episodes):
            timestep = env.reset()
            while not timestep.last():
                timestep = env.step(int(rng.integers(num_actions)))
