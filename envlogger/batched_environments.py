# SPDX-License-Identifier: Apache-2.0
"""Environments that step together: what a batch says about each of them.

A batch is what `reset` or `step` of the whole returned. Each class here takes it apart into entries, the
steps of single environments, in the order in which they came to pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import dm_env
import numpy as np
import numpy.typing as npt
from dm_env import specs

from envlogger import errors

_FIRST, _LAST = int(dm_env.StepType.FIRST), int(dm_env.StepType.LAST)
_STEP_TYPES = tuple(dm_env.StepType)


class Entry(NamedTuple):
    """A step of one of the environments.

    Attributes:
      stream: Which of them it is, from 0.
      timestep: What it returned.
      action: What led to that; None on FIRST.
      is_new_episode: Whether an episode begins.
      infos: The infos of all of them; None where there are none.
    """

    stream: int
    timestep: dm_env.TimeStep
    action: Any
    is_new_episode: bool
    infos: Mapping[str, Any] | None


class GymnasiumBatches:
    """A vector environment of Gymnasium.

    What follows on the end of an episode depends on its autoreset mode:

        NEXT_STEP   the step after is a reset: its action is ignored, a new episode begins
        SAME_STEP   that very step resets: the last observation is `infos["final_obs"]`, the one that
                    was returned begins the next episode
        DISABLED    nothing, until `reset(options={"reset_mask": …})`

    Args:
      env: The environment.

    Attributes:
      num_streams: How many environments there are.

    Raises:
      MissingExtraError: Gymnasium is not installed.
      OptionError: The environment does not say what its autoreset mode is.
      UnsupportedValueError: There is no spec for one of its spaces.
    """

    def __init__(self, env: Any) -> None:
        try:
            from gymnasium.vector import AutoresetMode

            from envlogger.converters import gymnasium_spaces
        except ImportError as error:
            raise errors.MissingExtraError(
                "gymnasium", "gymnasium", "Recording vector environments"
            ) from error
        mode = env.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise errors.OptionError(
                f"env.metadata['autoreset_mode']: got {mode!r}, expected a member of "
                "gymnasium.vector.AutoresetMode. Set it to what the environment does."
            )
        self._env = env
        self._is_same_step = mode is AutoresetMode.SAME_STEP
        self._is_disabled = mode is AutoresetMode.DISABLED
        self.num_streams = int(env.num_envs)
        # Whether an episode of the stream has ended, or none has begun.
        self._is_over = np.ones(self.num_streams, np.bool_)
        self._spaces = gymnasium_spaces
        observation, action = env.single_observation_space, env.single_action_space
        self._observation_spec = gymnasium_spaces.to_spec(observation, ("observation",))
        self._action_spec = gymnasium_spaces.to_spec(action, ("action",))
        self._observations = gymnasium_spaces.items(observation)
        self._actions = gymnasium_spaces.items(action)
        self._convert = gymnasium_spaces.to_spec_form(observation, ("observation",))
        self._convert_action = gymnasium_spaces.to_spec_form(action, ("action",))

    def reset(
        self, seed: int | Sequence[int | None] | None, options: dict[str, Any] | None
    ) -> tuple[Any, list[Entry]]:
        """Resets the environment; returns what it returned, and the entries."""
        mask = None if options is None else options.get("reset_mask")  # it may be taken out
        mask = np.ones(self.num_streams, np.bool_) if mask is None else np.array(mask, np.bool_)
        result = self._env.reset(seed=seed, options=options)
        self._is_over[mask] = False
        observations = self._observations(result[0])
        return result, [
            self._first(i, observations[i], result[1]) for i in np.flatnonzero(mask).tolist()
        ]

    def step(self, actions: Any) -> tuple[Any, list[Entry]]:
        """Steps the environment; returns what it returned, and the entries."""
        result = self._env.step(actions)
        batch, rewards, terminations, truncations, infos = result
        was_over = self._is_over.tolist()
        terminated = np.asarray(terminations).tolist()
        ends = np.logical_or(terminations, truncations)
        # Before anything is refused: the environment has stepped all the same.
        if self._is_disabled:
            self._is_over |= ends
        else:
            self._is_over = ends & ~self._is_over & (not self._is_same_step)
        observations, each_action = self._observations(batch), self._actions(actions)
        rewards = list(np.asarray(rewards, np.float64))
        entries = []
        for i, is_end in enumerate(ends.tolist()):
            if was_over[i]:
                if not self._is_disabled:
                    entries.append(self._first(i, observations[i], infos))
                continue
            is_reset = is_end and self._is_same_step
            timestep = dm_env.TimeStep(
                dm_env.StepType.LAST if is_end else dm_env.StepType.MID,
                rewards[i],
                0.0 if terminated[i] else 1.0,
                self._convert(_final(infos, i) if is_reset else observations[i]),
            )
            action = self._convert_action(each_action[i])
            known = infos.get("final_info") if is_reset else infos
            entries.append(Entry(i, timestep, action, False, known))
            if is_reset:
                entries.append(self._first(i, observations[i], infos))
        return result, entries

    def _first(self, stream: int, observation: Any, infos: Mapping[str, Any]) -> Entry:
        return Entry(stream, dm_env.restart(self._convert(observation)), None, True, infos)

    def observation_spec(self) -> Any:
        """Returns the nest of specs that observations of one environment conform to."""
        return self._observation_spec

    def action_spec(self) -> Any:
        """Returns the nest of specs that actions of one environment conform to."""
        return self._action_spec

    def reward_spec(self) -> Any:
        """Returns the spec of rewards."""
        return self._spaces.reward_spec()

    def discount_spec(self) -> Any:
        """Returns the spec of discounts."""
        return self._spaces.discount_spec()


class DmEnvBatches:
    """An environment in the manner of dm_env whose arrays have a leading dimension N.

    `reset()` and `step(actions)` return a `TimeStep` of which `step_type`, `reward`, `discount` and
    `observation` are nests of arrays (N, ...). A list is a nest where the spec has a list or tuple in its
    place; elsewhere it is N values. As in dm_env, the step after a LAST one begins an episode and ignores
    its action; what stands for reward and discount where `step_type` is FIRST is not recorded.

    Args:
      env: The environment. Its specs have the leading N, too; or they are those of a single environment,
        and its attribute `num_envs` or `batch_size` is N.

    Attributes:
      num_streams: How many environments there are: N.

    Raises:
      OptionError: It cannot be told what N is.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        shape = next((leaf.shape for leaf in _leaves(env.discount_spec())), ())
        self._has_batched_specs = len(shape) > 0
        count = shape[0] if shape else None
        for name in ("num_envs", "batch_size"):
            count = getattr(env, name, None) if count is None else count
        if count is None:
            raise errors.OptionError(
                f"env.discount_spec(): got {env.discount_spec()}, expected an array with a leading "
                "dimension N. Give all specs that dimension, or the environment an attribute `num_envs`."
            )
        self.num_streams = int(count)
        self._specs = (
            env.reward_spec(),
            env.discount_spec(),
            env.observation_spec(),
            env.action_spec(),
        )
        # Whether an episode of the stream has ended, or none has begun.
        self._is_over = [True] * self.num_streams

    def reset(self, seed: Any, options: Any) -> tuple[Any, list[Entry]]:
        """Resets the environment; returns what it returned, and the entries."""
        if seed is not None or options is not None:
            raise errors.OptionError(
                "reset: got a seed or options, which only vector environments of Gymnasium take."
            )
        result = self._env.reset()
        return result, self._entries(result, None)

    def step(self, actions: Any) -> tuple[Any, list[Entry]]:
        """Steps the environment; returns what it returned, and the entries."""
        result = self._env.step(actions)
        return result, self._entries(result, actions)

    def _entries(self, batch: dm_env.TimeStep, actions: Any) -> list[Entry]:
        step_types = np.asarray(batch.step_type).tolist()
        if len(step_types) != self.num_streams:
            raise errors.ValueMismatchError(
                f"step_type: got {len(step_types)} of them, expected {self.num_streams}, one for each "
                "environment."
            )
        nests = (batch.reward, batch.discount, batch.observation, actions)
        rows = zip(
            step_types,
            *(
                _items(nest, spec, self.num_streams)
                for nest, spec in zip(nests, self._specs, strict=True)
            ),
            strict=True,
        )
        entries = []
        for i, (step_type, reward, discount, observation, action) in enumerate(rows):
            if step_type == _FIRST:
                entries.append(Entry(i, dm_env.restart(observation), None, True, None))
            else:
                timestep = dm_env.TimeStep(_STEP_TYPES[step_type], reward, discount, observation)
                entries.append(Entry(i, timestep, action, self._is_over[i], None))
            self._is_over[i] = step_type == _LAST
        return entries

    def observation_spec(self) -> Any:
        """Returns the nest of specs that observations of one environment conform to."""
        return self._spec(self._env.observation_spec())

    def action_spec(self) -> Any:
        """Returns the nest of specs that actions of one environment conform to."""
        return self._spec(self._env.action_spec())

    def reward_spec(self) -> Any:
        """Returns the nest of specs that rewards of one environment conform to."""
        return self._spec(self._env.reward_spec())

    def discount_spec(self) -> Any:
        """Returns the nest of specs that discounts of one environment conform to."""
        return self._spec(self._env.discount_spec())

    def _spec(self, spec: Any) -> Any:
        return _spec_of_one(spec) if self._has_batched_specs else spec


def split_infos(infos: Mapping[str, Any] | None, index: int) -> dict[str, Any]:
    """Returns the info of one environment: what has no entry in its mask was not there."""
    found: dict[str, Any] = {}
    for key, value in (infos or {}).items():
        if key in ("final_obs", "final_info") or (key.startswith("_") and key[1:] in (infos or {})):
            continue
        mask = None if infos is None else infos.get(f"_{key}")
        if mask is None or mask[index]:
            found[key] = split_infos(value, index) if isinstance(value, Mapping) else value[index]
    return found


def _final(infos: Mapping[str, Any], index: int) -> Any:
    final = infos.get("final_obs")
    if final is None:
        raise errors.ValueMismatchError(
            f"infos: got the keys {sorted(infos)}, expected 'final_obs', in which a vector environment "
            "that resets in the same step gives the last observation. Correct its autoreset_mode."
        )
    return final[index]


def _leaves(nest: Any) -> Iterator[Any]:
    if isinstance(nest, Mapping):
        nest = list(nest.values())
    if isinstance(nest, list | tuple):
        for part in nest:
            yield from _leaves(part)
    else:
        yield nest


def _items(nest: Any, spec: Any, count: int) -> Sequence[Any]:
    """Returns the N parts of a nest of arrays (N, ...); those of other libraries are converted."""
    if nest is None:
        return [None] * count
    if isinstance(nest, Mapping):
        parts = [_items(value, _part(spec, key), count) for key, value in nest.items()]
        return [dict(zip(nest, [part[i] for part in parts], strict=True)) for i in range(count)]
    # Where the spec is no nest, a list is the N values themselves.
    if isinstance(nest, tuple) or (isinstance(nest, list) and isinstance(spec, tuple | list)):
        parts = [_items(value, _part(spec, index), count) for index, value in enumerate(nest)]
        kind = list if isinstance(nest, list) else tuple
        return [kind(part[i] for part in parts) for i in range(count)]
    return list(np.asarray(nest))


def _part(spec: Any, key: Any) -> Any:
    """Returns a part of a nest of specs; None where only the values have such a part."""
    try:
        return spec[key]
    except (LookupError, TypeError):
        return None


def _spec_of_one(spec: Any) -> Any:
    if isinstance(spec, Mapping):
        return {key: _spec_of_one(value) for key, value in spec.items()}
    if isinstance(spec, tuple | list):
        return type(spec)(map(_spec_of_one, spec))
    shape = spec.shape[1:]
    if isinstance(spec, specs.StringArray):
        return specs.StringArray(shape, spec.string_type, spec.name)
    if not isinstance(spec, specs.BoundedArray):
        return specs.Array(shape, spec.dtype, spec.name)

    def one(bound: Any, reduce: np.ufunc) -> npt.NDArray[Any]:
        return np.asarray(reduce.reduce(np.broadcast_to(bound, spec.shape), axis=0))

    low, high = one(spec.minimum, np.minimum), one(spec.maximum, np.maximum)
    return specs.BoundedArray(shape, spec.dtype, low, high, spec.name)


__all__ = ["DmEnvBatches", "Entry", "GymnasiumBatches", "split_infos"]
