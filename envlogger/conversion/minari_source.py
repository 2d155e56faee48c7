# SPDX-License-Identifier: Apache-2.0
"""Minari datasets as a source.

    Minari      observations[0]  observations[1]  ...  observations[T]
                actions[0]       ...              actions[T-1]
                rewards[0]       ...              rewards[T-1]
                infos[0]         infos[1]         ...  infos[T]

    step        0 (FIRST)        1                ...  T (LAST)
    action      None             actions[0]            actions[T-1]
    reward      None             rewards[0]            rewards[T-1]
    discount    None             1.0                   0.0 where it was terminated, or else 1.0

An episode that was neither terminated nor truncated ends without a LAST step. Infos are the metadata of
the steps; what Minari says of an episode (id, seed, options and so on) is that of the episode.
"""

from __future__ import annotations

import functools
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from envlogger import errors, step_data
from envlogger.conversion import sources
from envlogger.converters import spec_codec

# In `<dataset>/data/`; Minari takes the path of that directory.
_DATA = "data"
_METADATA = "metadata.json"


def find(path: str) -> str | None:
    """Returns the directory with the data of a Minari dataset at a path, or None if there is none."""
    for directory in (os.path.join(path, _DATA), path):
        try:
            with open(os.path.join(directory, _METADATA), encoding="utf-8") as file:
                content = json.load(file)
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and "minari_version" in content:
            return directory
    # Old versions of Minari, which have no JSON, are told by their file.
    for directory in (os.path.join(path, _DATA), path):
        if os.path.isfile(os.path.join(directory, "main_data.hdf5")):
            return directory
    return None


class MinariSource(sources.StepSource):
    """A Minari dataset.

    Args:
      path: Its directory: what `minari.load_dataset(id).storage.data_path` says, or the one above.

    Raises:
      MissingExtraError: Minari, or what it reads the files with, is not installed.
      CorruptDatasetError: Minari cannot read it.
    """

    kind = "a Minari dataset"
    _REPLACED = frozenset((_METADATA,))

    def __init__(self, path: str) -> None:
        try:
            from minari.dataset.minari_storage import MinariStorage
        except ImportError as error:
            raise errors.MissingExtraError("minari", "minari", "Converting it") from error
        directory = find(path)
        assert directory is not None, "whoever makes one has looked"
        super().__init__(path, directory)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Gymnasium's, about environments that are old
                self._storage = MinariStorage.read(directory)
                self._facts = _plain(MinariStorage.read_raw_metadata(directory))
                self._num_episodes = int(self._facts["total_episodes"])
        except ImportError as error:
            raise errors.MissingExtraError("minari", "minari", "Reading it") from error
        except Exception as error:
            raise errors.CorruptDatasetError(
                f"{path}: Minari cannot read the dataset: {error!r}."
            ) from error

    @functools.cached_property
    def metadata(self) -> Mapping[str, Any]:
        """What Minari says of the dataset, and its spaces as encoded specs."""
        named = {
            "observation_spec": _spec_of(self._storage.observation_space),
            "action_spec": _spec_of(self._storage.action_space),
            "reward_spec": specs.Array((), np.float64, "reward"),
            "discount_spec": specs.BoundedArray((), np.float64, 0.0, 1.0, "discount"),
        }
        encoded = {
            name: spec_codec.encode(spec) for name, spec in named.items() if spec is not None
        }
        return {"minari": self._facts, "environment_specs": encoded}

    @property
    def num_episodes(self) -> int:
        """How many episodes there are."""
        return self._num_episodes

    def episode(self, index: int) -> tuple[Iterator[step_data.StepData], Any]:
        """Returns the steps of an episode, and its metadata."""
        try:
            (found,) = self._storage.get_episodes([index])
            (metadata,) = self._storage.get_episode_metadata([index])
            return steps_of(found), dict(metadata)
        except (OSError, KeyError, ValueError, IndexError) as error:
            raise errors.CorruptDatasetError(
                f"{self.path}: Minari cannot read episode {index}: {error!r}."
            ) from error

    def close(self) -> None:
        """Does nothing: Minari opens its files for each episode."""


def steps_of(episode: Mapping[str, Any]) -> Iterator[step_data.StepData]:
    """Yields an episode of T actions, as Minari's storage gives it, as T + 1 steps."""
    count = len(episode["rewards"])
    infos = episode["infos"]
    if infos is not None:
        infos = dict(infos)
    for t in range(count + 1):
        observation = nth(episode["observations"], t)
        custom_data = None if infos is None else nth(infos, t)
        if t == 0:
            yield step_data.StepData(dm_env.restart(observation), None, custom_data)
            continue
        is_terminated = bool(episode["terminations"][t - 1])
        is_last = is_terminated or bool(episode["truncations"][t - 1])
        kind = dm_env.StepType.LAST if is_last and t == count else dm_env.StepType.MID
        timestep = dm_env.TimeStep(
            kind, episode["rewards"][t - 1], 0.0 if is_terminated else 1.0, observation
        )
        yield step_data.StepData(timestep, nth(episode["actions"], t - 1), custom_data)


def nth(tree: Any, index: int) -> Any:
    """Returns what the arrays and lists of a nest hold at an index, nested likewise."""
    if isinstance(tree, Mapping):
        return {key: nth(value, index) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(nth(value, index) for value in tree)
    return tree[index]


def _spec_of(space: Any) -> Any:
    """Returns the spec of a space; None for one that dm_env has no spec for."""
    from envlogger.converters import gymnasium_spaces

    try:
        return gymnasium_spaces.to_spec(space)
    except errors.UnsupportedValueError:
        return None


def _plain(value: Any) -> Any:
    """Returns metadata in a form that JSON has: Minari gives authors, say, as a set."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value
