# SPDX-License-Identifier: Apache-2.0
"""An environment that plays a script, and short ways to record and to read."""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

import envlogger
from envlogger import step_data
from envlogger.testing.comparison import assert_same


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """Gives a directory in memory, where there is one: what is recorded there needs no disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as path:
        yield path


def first(observation: Any = 0.0) -> dm_env.TimeStep:
    return dm_env.restart(observation)


def mid(observation: Any = 0.0, reward: Any = 1.0, discount: Any = 1.0) -> dm_env.TimeStep:
    return dm_env.transition(reward, observation, discount)


def last(observation: Any = 0.0, reward: Any = 1.0, discount: Any = 0.0) -> dm_env.TimeStep:
    return dm_env.TimeStep(dm_env.StepType.LAST, reward, discount, observation)


# An episode like any other.
GOOD = [first(), mid(), last()]


def spec_of(value: Any) -> Any:
    """Returns the nest of specs that a value conforms to; without what is None."""
    if isinstance(value, Mapping):
        return {key: spec_of(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return type(value)({} if item is None else spec_of(item) for item in value)
    if isinstance(value, str | bytes):
        return specs.StringArray((), bytes if isinstance(value, bytes) else str)
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        return specs.StringArray(array.shape)
    return specs.Array(array.shape, array.dtype)


class ScriptedEnv(dm_env.Environment):
    """Plays episodes: the timesteps of one after the other; `reset()` goes on to the next.

    Its specs are those of the first values that it gives.

    Args:
      episodes: The timesteps. Each begins with FIRST; one without LAST must be left by `reset()`.
      action: An action, for its spec.
    """

    def __init__(self, episodes: Sequence[Sequence[dm_env.TimeStep]], action: Any = 0) -> None:
        self._episodes = iter(episodes)
        self._observation = episodes[0][0].observation if episodes else 0.0
        later = (step for episode in episodes for step in episode if not step.first())
        self._model = next(later, mid())
        self._action = action
        self.num_closed = 0
        self.actions: list[Any] = []

    def reset(self) -> dm_env.TimeStep:
        self._steps = iter(next(self._episodes))
        return next(self._steps)

    def step(self, action: Any) -> dm_env.TimeStep:
        self.actions.append(action)
        return next(self._steps)

    def close(self) -> None:
        self.num_closed += 1

    def observation_spec(self) -> Any:
        return {} if self._observation is None else spec_of(self._observation)

    def action_spec(self) -> Any:
        return {} if self._action is None else spec_of(self._action)

    def reward_spec(self) -> Any:
        value = self._model.reward
        return {} if value is None else spec_of(value)

    def discount_spec(self) -> Any:
        value = self._model.discount
        return {} if value is None else spec_of(value)


def count_up(episodes: Sequence[Sequence[dm_env.TimeStep]]) -> list[list[int]]:
    """Returns actions for episodes: 0, 1, 2, … in each of them."""
    return [list(range(len(episode) - 1)) for episode in episodes]


def play(env: dm_env.Environment, actions: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Resets once for each item, and steps with its actions; returns deep copies of the timesteps."""
    played = []
    for episode in actions:
        timesteps = [copy.deepcopy(env.reset())]
        timesteps += [copy.deepcopy(env.step(action)) for action in episode]
        played.append(timesteps)
    return played


def play_whole(
    env: dm_env.Environment, num_episodes: int, choose: Callable[[int], Any] = lambda number: 1
) -> None:
    """Plays episodes to their ends; `choose` gives each action, by the number of the episode."""
    for number in range(num_episodes):
        timestep = env.reset()
        while not timestep.last():
            timestep = env.step(choose(number))


def logger(path: Any, env: dm_env.Environment, **kwargs: Any) -> envlogger.EnvLogger:
    """Returns a logger whose steps this process seals: starting another takes longer than most tests."""
    return envlogger.EnvLogger(env, data_directory=str(path), **{"helper": False, **kwargs})


def scripted_logger(
    path: Any, episodes: Sequence[Sequence[dm_env.TimeStep]], action: Any = 0, **kwargs: Any
) -> envlogger.EnvLogger:
    """Returns a logger, as `logger` does, around a `ScriptedEnv`."""
    return logger(path, ScriptedEnv(episodes, action), **kwargs)


def record(
    path: Any,
    episodes: Sequence[Sequence[dm_env.TimeStep]],
    actions: Sequence[Sequence[Any]] | None = None,
    **kwargs: Any,
) -> None:
    """Records scripted episodes by `logger`; the actions are 0, 1, 2, … unless they are given."""
    actions = count_up(episodes) if actions is None else actions
    action = next((a for episode in actions for a in episode), 0)
    with scripted_logger(path, episodes, action, **kwargs) as env:
        play(env, actions)


def read(path: Any, split: str | None = None) -> list[list[step_data.StepData]]:
    """Returns all the steps of all episodes."""
    with envlogger.Reader(str(path), split) as reader:
        return [list(episode) for episode in reader.episodes]


def read_metadata(path: Any) -> list[Any]:
    """Returns the metadata of all episodes."""
    with envlogger.Reader(str(path)) as reader:
        return list(reader.episode_metadata())


def expected_steps(
    timesteps: Sequence[dm_env.TimeStep],
    actions: Sequence[Any],
    custom: Sequence[Any] | None = None,
) -> list[step_data.StepData]:
    """Returns what is logged of an episode."""
    custom = custom or [None] * len(timesteps)
    return [
        step_data.StepData(timestep, action, data)
        for timestep, action, data in zip(timesteps, [None, *actions], custom, strict=True)
    ]


def expected_run(*episodes: Sequence[dm_env.TimeStep]) -> list[list[step_data.StepData]]:
    """Returns what is logged of episodes whose actions are 0, 1, 2, …."""
    return list(map(expected_steps, episodes, count_up(episodes)))


def data_source(path: Any, split: str = "train") -> Any:
    """Returns the dataset as stock TFDS reads it without TensorFlow."""
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(str(path)).as_data_source(split)


def source_steps(path: Any, split: str = "train") -> list[list[Any]]:
    """Returns the steps of each episode from `data_source`."""
    return [list(episode["steps"]) for episode in data_source(path, split)]


def tf_episodes(path: Any, split: str = "train") -> list[dict[str, Any]]:
    """Returns the episodes as tf.data reads them, as numpy; `steps` as a list."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
        import tensorflow_datasets as tfds

        import envlogger.tfds  # noqa: F401

        dataset = tfds.builder_from_directory(str(path)).as_dataset(split=split)
        episodes = []
        for episode in tfds.as_numpy(dataset):
            episodes.append({**episode, "steps": list(episode["steps"])})
    return episodes


def flat(tree: Any, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    """Returns the leaves of a nest of dicts by path."""
    if not isinstance(tree, dict):
        return {path: tree}
    return {k: leaf for key, item in tree.items() for k, leaf in flat(item, (*path, key)).items()}


def sort_keys(value: Any) -> Any:
    """Returns a value with the keys of its dicts in order."""
    if isinstance(value, dict):
        return {key: sort_keys(value[key]) for key in sorted(value, key=repr)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(sort_keys, value))
    return type(value)(map(sort_keys, value)) if isinstance(value, list | tuple) else value


def assert_same_leaves(got: Any, expected: Any) -> None:
    """Fails unless nests of dicts and lists have the same leaves, as arrays: dtype, shape and bits."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for key, item in expected.items():
            assert_same_leaves(got[key], item)
    elif isinstance(expected, list):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same_leaves(one, other)
    elif isinstance(expected, bytes):
        assert got == expected  # an array would drop the NULs at the end
    else:
        assert_same(np.asarray(got), np.asarray(expected))


def spy(
    monkeypatch: Any,
    owner: Any,
    name: str,
    note: Callable[..., Any] = lambda *arguments: arguments,
) -> list[Any]:
    """Returns a list that gets, from here on, what `note` makes of the positional arguments of each call."""
    noted: list[Any] = []
    function = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        noted.append(note(*arguments))
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, call)
    return noted


def check_message(raised: Any, *parts: str) -> None:
    """Fails unless the message of an error, as `pytest.raises` caught it, has all the parts."""
    message = str(raised.value)
    missing = [part for part in parts if part not in message]
    assert not missing, f"{missing} not in {message!r}"
