# SPDX-License-Identifier: Apache-2.0
"""TFDS's SequentialWriter as EnvLogger's former TFDS backend drove it, and RLDS's EpisodeWriter."""

from __future__ import annotations

import sys
import types
from typing import Any

import dm_env
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from dm_env import specs

from benchmarks import recorders

_EPISODES_PER_FILE = 1000  # the default of both


class _RldsLogger(dm_env.Environment):
    """Builds RLDS steps out of timesteps; an episode is written when the next one begins."""

    def __init__(self, environment: dm_env.Environment, add_episode: Any, close: Any) -> None:
        self._environment = environment
        self._add_episode = add_episode
        self._close = close
        self._steps: list[dict[str, Any]] = []
        self._previous: dm_env.TimeStep | None = None
        self._action: Any = None

    def reset(self) -> dm_env.TimeStep:
        """Resets the environment and writes the episode before."""
        timestep = self._environment.reset()
        self._write()
        self._previous = timestep
        return timestep

    def step(self, action: Any) -> dm_env.TimeStep:
        """Takes a step."""
        timestep = self._environment.step(action)
        self._steps.append(_rlds_step(self._previous, action, timestep.reward, timestep.discount))
        self._previous = timestep
        self._action = action
        return timestep

    def observation_spec(self) -> Any:
        """Returns the environment's."""
        return self._environment.observation_spec()

    def action_spec(self) -> Any:
        """Returns the environment's."""
        return self._environment.action_spec()

    def close(self) -> None:
        """Writes the last episode and the metadata."""
        self._write()
        self._close()

    def _write(self) -> None:
        if self._previous is None:
            return
        last = self._previous
        padding = tf.nest.map_structure(
            np.zeros_like, (self._action, last.reward or 0.0, last.discount)
        )
        self._steps.append(_rlds_step(last, *padding))
        self._add_episode({"steps": self._steps})
        self._steps, self._previous = [], None


class SequentialWriter(recorders.Recorder):
    """The TFDS backend of EnvLogger 1.2 and before, less its wrapper's callbacks."""

    def open(self, environment: Any, directory: str) -> Any:
        """Records TFRecord files."""
        config = _dataset_config(environment)
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=config.name, version=tfds.core.Version("0.0.1"), data_dir=directory, module_name=""
        )
        info = tfds.rlds.rlds_base.build_info(config, identity)
        info.set_file_format("tfrecord")
        writer = tfds.core.SequentialWriter(info, _EPISODES_PER_FILE)
        writer.initialize_splits(["train"])
        return _RldsLogger(
            environment, lambda episode: writer.add_examples({"train": [episode]}), writer.close_all
        )


class EpisodeWriter(recorders.Recorder):
    """RLDS's own writer."""

    def __init__(self) -> None:
        _pretend_reverb()
        from rlds.tfds import episode_writer

        self._episode_writer = episode_writer

    def open(self, environment: Any, directory: str) -> Any:
        """Records TFRecord files."""
        writer = self._episode_writer.EpisodeWriter(
            directory, _dataset_config(environment), _EPISODES_PER_FILE
        )
        return _RldsLogger(environment, writer.add_episode, writer.close)


def _rlds_step(
    timestep: dm_env.TimeStep | None, action: Any, reward: Any, discount: Any
) -> dict[str, Any]:
    assert timestep is not None
    return {
        "action": action,
        "discount": discount,
        "is_first": timestep.first(),
        "is_last": timestep.last(),
        "is_terminal": timestep.last() and timestep.discount == 0.0,
        "observation": timestep.observation,
        "reward": reward,
    }


def _dataset_config(environment: dm_env.Environment) -> tfds.rlds.rlds_base.DatasetConfig:
    return tfds.rlds.rlds_base.DatasetConfig(
        name="benchmark",
        observation_info=_feature(environment.observation_spec()),
        action_info=_feature(environment.action_spec()),
        reward_info=np.float64,
        discount_info=np.float64,
    )


def _feature(spec: Any) -> Any:
    if not isinstance(spec, specs.Array):
        return {name: _feature(value) for name, value in spec.items()}
    if spec.dtype == np.uint8 and len(spec.shape) == 3 and spec.shape[-1] in (1, 3, 4):
        return tfds.features.Image(shape=spec.shape)
    return tfds.features.Tensor(shape=spec.shape, dtype=spec.dtype)


def _pretend_reverb() -> None:
    """Lets `import rlds` pass: it names classes of dm-reverb, which cannot load beside this TF."""
    reverb = types.ModuleType("reverb")
    writer = types.ModuleType("reverb.structured_writer")
    for name in ("Config", "Pattern", "ReferenceStep", "Condition"):
        setattr(writer, name, type(name, (), {}))
    reverb.structured_writer = writer  # type: ignore[attr-defined]
    sys.modules["reverb"], sys.modules["reverb.structured_writer"] = reverb, writer
