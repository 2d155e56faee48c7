# SPDX-License-Identifier: Apache-2.0
"""Transitions by index, for PyTorch, Grain and plain numpy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from envlogger import episode_items, errors
from envlogger.episode_items import Item
from envlogger.options import check_count, check_fraction
from envlogger.tfds import schema
from envlogger.tfds.structure import Path

_NEXT_OBSERVATION = "next_observation"
_NEXT_IS_LAST = "next_is_last"
_NEXT_IS_TERMINAL = "next_is_terminal"

_MADE_HERE = (_NEXT_OBSERVATION, _NEXT_IS_LAST, _NEXT_IS_TERMINAL)
_SIGNALS = (schema.REWARD, schema.DISCOUNT, schema.IS_TERMINAL)
_DEFAULT_FIELDS = (schema.OBSERVATION, schema.ACTION)


class Transitions(episode_items.EpisodeItems):
    """A map-style dataset of transitions: what an agent needs to learn from a step.

        dataset = envlogger.Transitions("data/catch/1.0.0", gamma=0.99)
        dataset[0]["observation"], dataset[0]["action"], dataset[0]["next_observation"]
        torch.utils.data.DataLoader(dataset, batch_size=256, shuffle=True)
        grain.MapDataset.source(dataset).shuffle(seed=1).batch(256)

    Its values are those of `envlogger.tfds.transitions`, as numpy; JPEG images differ by little, as
    decoders do, and subnormal numbers are calculated with. Step t of an episode of T steps
    (t < T - 1) makes one transition; with n = `n_step`, g = `gamma` and m = min(n, T - 1 - t):

        observation       o_t
        action            a_t
        reward            R = r_t + g d_t r_t+1 + ... + g^(m-1) d_t ... d_t+m-2 r_t+m-1
        discount          D = g^m d_t ... d_t+m-1, or 0 if step t + m is terminal
        next_observation  o_t+m
        next_is_last      whether t + m = T - 1
        next_is_terminal  whether step t + m is terminal

    so that R + D * V(next_observation) estimates the return. R and D are computed in float64 and
    rounded once. Only the images of steps t and t + m are decoded.

    A dataset without `discount` is read as if it were 1 everywhere; one without `is_terminal` as if
    `discount` told all. Threads may share it; it can be pickled, and used after a fork.

    Args:
      source: The directory of a dataset, or a `Reader`, whose `cache_bytes` says how much memory to
        take.
      split: The split to read, where `source` is a directory; None for all of them.
      n_step: How many rewards to sum up.
      gamma: The discount of the agent, on top of the environment's; in [0, 1].
      fields: The fields of step t, such as `observation/camera`; `observation`, or a part of it, is
        given of step t + m, too. By default `observation` and `action`. The others of the table are
        there in any case.

    Raises:
      OptionError: An argument has a value that is not allowed; there is no such split or field.
      DatasetError: The directory is not a dataset in RLDS form. The steps have no reward; or neither
        discount nor is_terminal, so that termination cannot be told from truncation; or no
        observation or action, and `fields` is not given.
      UnsupportedValueError: Rewards or discounts are no numbers, vary in shape, or don't fit each other.
    """

    def __init__(
        self,
        source: episode_items.Source,
        split: str | None = None,
        *,
        n_step: int = 1,
        gamma: float = 1.0,
        fields: Sequence[str] | None = None,
    ) -> None:
        self._n_step = check_count("n_step", n_step)
        self._gamma = check_fraction("gamma", gamma)
        super().__init__(source, split)
        self._lengths = self._reader.episode_lengths()
        self._fields: list[str] = []
        self._observation: list[str] = []
        self._signals: list[str] = []
        if len(self._lengths):
            self._choose(fields)

    def _count(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.maximum(lengths - 1, 0)

    def _cut(self, episode: int, numbers: npt.NDArray[np.int64]) -> Iterable[Item]:
        steps = self._reader.episodes[episode]
        last = int(self._lengths[episode]) - 1
        stop = np.minimum(numbers + self._n_step, last)
        batch = steps.columns(self._fields, numbers) if self._fields else {}
        signals = episode_items.leaves(steps.columns(self._signals))
        is_terminal = np.zeros(len(numbers), np.bool_)
        if (schema.IS_TERMINAL,) in signals:
            is_terminal = signals.pop((schema.IS_TERMINAL,)).astype(np.bool_)[stop]
        for path, values in _returns(signals, numbers, stop, self._n_step, self._gamma).items():
            if path[0] == schema.DISCOUNT:
                values[is_terminal] = 0
            node = batch
            for key in path[:-1]:
                node = node.setdefault(key, {})
            node[path[-1]] = values
        if self._observation:
            following = steps.columns(self._observation, stop)
            batch[_NEXT_OBSERVATION] = following[schema.OBSERVATION]
        batch[_NEXT_IS_LAST] = stop == last
        batch[_NEXT_IS_TERMINAL] = is_terminal
        return (episode_items.nth(batch, i) for i in range(len(numbers)))

    def _choose(self, fields: Sequence[str] | None) -> None:
        """Finds out which fields to read, from a step; refuses what cannot be."""
        step = self._reader.episodes[0].columns(rows=slice(0, 1))
        needed = [schema.REWARD, *(_DEFAULT_FIELDS if fields is None else ())]
        for name in needed:
            if name not in step:
                raise errors.DatasetError(_lacks(repr(name), step))
        if schema.DISCOUNT not in step and schema.IS_TERMINAL not in step:
            raise errors.DatasetError(_lacks("'discount' or 'is_terminal'", step))
        names = list(_DEFAULT_FIELDS if fields is None else fields)
        chosen = self._reader.episodes[0].columns(names if fields is None else fields, slice(0, 1))
        for name in chosen:
            if name in _MADE_HERE:
                raise errors.NameConflictError(
                    f"Transitions: the steps have a field {name!r}, which is the name of a field of "
                    "the transition. Leave it out of `fields`."
                )
        self._fields = [n for n in names if n.split("/")[0] not in (schema.REWARD, schema.DISCOUNT)]
        self._observation = [n for n in self._fields if n.split("/")[0] == schema.OBSERVATION]
        self._signals = [name for name in _SIGNALS if name in step]
        signals = {name: step[name] for name in (schema.REWARD, schema.DISCOUNT) if name in step}
        _check(episode_items.leaves(signals))


def _lacks(name: str, step: Mapping[str, Any]) -> str:
    return (
        f"Transitions: the steps have no field {name}, only {', '.join(step)}. Use `Windows`, which "
        "needs none, or pass `fields` to load others."
    )


def _check(signals: Mapping[Path, npt.NDArray[Any]]) -> None:
    """Refuses rewards and discounts that no return can be computed from."""
    discounts = {path: values for path, values in signals.items() if path[0] == schema.DISCOUNT}
    for path, values in signals.items():
        name = errors.format_path(path)
        if values.dtype.kind not in "biuf" and values.dtype.name != "bfloat16":
            raise errors.UnsupportedValueError(
                f"Transitions: {name}: got values of dtype {values.dtype}, expected numbers of one "
                "shape. Use `Windows` and compute returns from them."
            )
        discount = _discount_of(path, discounts)
        if discounts and path[0] == schema.REWARD and discount is None:
            raise errors.UnsupportedValueError(
                f"Transitions: {name}: there is no discount of its own. Expected one discount, or one "
                "for each reward. Use `Windows` and compute returns from them."
            )
        if discount is not None and discount.shape not in ((1,), values.shape):
            raise errors.UnsupportedValueError(
                f"Transitions: {name}: got discounts of shape {discount.shape[1:]} for rewards of "
                f"shape {values.shape[1:]}, expected scalars or the same shape. Use `Windows` and "
                "compute returns from them."
            )


def _discount_of(path: Path, discounts: Mapping[Path, npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
    """Returns the discount that goes with a reward; None if there is none."""
    for other, values in discounts.items():
        if len(other) == 1 or other[1:] == path[1:]:
            return values
    return None


def _returns(
    signals: Mapping[Path, npt.NDArray[Any]],
    start: npt.NDArray[np.int64],
    stop: npt.NDArray[np.int64],
    n_step: int,
    gamma: float,
) -> dict[Path, npt.NDArray[Any]]:
    """Returns R of each reward and D of each discount, (E, ...), before termination is seen to.

    Args:
      signals: The columns of rewards and discounts, (T, ...).
      start: The step that each transition starts with, (E,).
      stop: The step that it ends before, (E,).
      n_step: How many rewards to sum up.
      gamma: The agent's discount.
    """
    discounts = {path: values for path, values in signals.items() if path[0] == schema.DISCOUNT}
    if not discounts:
        length = len(next(iter(signals.values())))
        discounts = {(schema.DISCOUNT,): np.ones(length, np.float32)}
    results: dict[Path, npt.NDArray[Any]] = {}
    for path, rewards in signals.items():
        if path[0] == schema.REWARD:
            discount = _discount_of(path, discounts)
            assert discount is not None, "checked when the dataset was opened"
            total, _ = _discounted_sum(rewards, discount, start, stop, n_step, gamma)
            results[path] = total.astype(_result_dtype(rewards.dtype))
    for path, discount in discounts.items():
        if n_step == 1 and gamma == 1:
            weight = discount[start]
        else:
            _, weight = _discounted_sum(discount, discount, start, stop, n_step, gamma)
        results[path] = weight.astype(_result_dtype(discount.dtype))
    return results


def _discounted_sum(
    rewards: npt.NDArray[Any],
    discounts: npt.NDArray[Any],
    start: npt.NDArray[np.int64],
    stop: npt.NDArray[np.int64],
    n_step: int,
    gamma: float,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Returns sums of discounted rewards, and the discount after each of them."""
    weight = gamma * discounts[start].astype(np.float64)
    if n_step == 1:
        return rewards[start], weight  # every bit of it
    total = rewards[start].astype(np.float64)
    for k in range(1, int((stop - start).max(initial=1))):
        within = np.flatnonzero(start + k < stop)
        at = start[within] + k
        total[within] += _like(weight[within], total) * rewards[at].astype(np.float64)
        weight[within] *= gamma * discounts[at].astype(np.float64)
    return total, weight


def _like(values: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Appends dimensions, until `values` has as many as `other`."""
    return values.reshape(values.shape + (1,) * (other.ndim - values.ndim))


def _result_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Returns the dtype of a return: whole numbers become floats that hold them, if any does."""
    return np.result_type(dtype, np.float32) if dtype.kind in "biu" else dtype
