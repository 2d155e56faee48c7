# SPDX-License-Identifier: Apache-2.0
"""Minari's DataCollector around a Gymnasium view of a dm_env.Environment."""

from __future__ import annotations

import os
from typing import Any

import dm_env
import gymnasium
import jax  # noqa: F401  Minari would import it at its first step: so it counts as start-up
import minari
import numpy as np
from dm_env import specs

from benchmarks import recorders


class _GymView(gymnasium.Env):
    def __init__(self, environment: dm_env.Environment) -> None:
        self._environment = environment
        self.observation_space = _space(environment.observation_spec())
        self.action_space = _space(environment.action_spec())

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self._environment.reset().observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        timestep = self._environment.step(action)
        is_over = timestep.last() and timestep.discount == 0.0
        return (
            timestep.observation,
            timestep.reward or 0.0,
            is_over,
            timestep.last() and not is_over,
            {},
        )


class Minari(recorders.Recorder):
    """Minari with its defaults: HDF5, images as (lossy) JPEG. Its reset seeds the environment."""

    @staticmethod
    def is_last(result: tuple[Any, ...]) -> bool:
        """Tells whether a Gymnasium result ends the episode; `reset` returns two values."""
        return len(result) == 5 and (result[2] or result[3])

    def bare(self, environment: dm_env.Environment) -> Any:
        """Returns the Gymnasium environment."""
        return _GymView(environment)

    def open(self, environment: Any, directory: str) -> Any:
        """Records into Minari's local storage, put into `directory`."""
        os.environ["MINARI_DATASETS_PATH"] = directory
        return minari.DataCollector(environment)

    def close(self, recorded: Any) -> None:
        """Makes the dataset out of what was collected."""
        recorded.create_dataset("benchmark-v0", description="benchmark", algorithm_name="random")
        recorded.close()


def _space(spec: Any) -> gymnasium.Space:
    if not isinstance(spec, specs.Array):
        return gymnasium.spaces.Dict({name: _space(value) for name, value in spec.items()})
    if isinstance(spec, specs.DiscreteArray):
        return gymnasium.spaces.Discrete(spec.num_values)
    is_bounded = isinstance(spec, specs.BoundedArray)
    low = np.broadcast_to(spec.minimum if is_bounded else -np.inf, spec.shape).astype(spec.dtype)
    high = np.broadcast_to(spec.maximum if is_bounded else np.inf, spec.shape).astype(spec.dtype)
    return gymnasium.spaces.Box(low, high, spec.shape, spec.dtype)
