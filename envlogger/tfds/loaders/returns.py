# SPDX-License-Identifier: Apache-2.0
"""N-step returns of a chunk of episodes; `transition_loader` says which."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from envlogger import errors
from envlogger.tfds.loaders import episode_rows
from envlogger.tfds.loaders.columns import Column, Tensor


@dataclasses.dataclass(frozen=True)
class Signals:
    """The columns that returns are computed from.

    Attributes:
      rewards: One, or those of a nested dict.
      discounts: None, one for all rewards, or one for each reward.
      terminal: `is_terminal`, if there is one.
    """

    rewards: Sequence[Column]
    discounts: Sequence[Column]
    terminal: Column | None

    def all(self) -> list[Column]:
        """Returns all the columns."""
        return [*self.rewards, *self.discounts, *([self.terminal] if self.terminal else [])]

    def discount_of(self, reward: Column) -> int | None:
        """Returns the index of the discount that goes with a reward; None if there is none."""
        for index, discount in enumerate(self.discounts):
            if len(discount.path) == 1 or discount.path[1:] == reward.path[1:]:
                return index
        return None

    def check(self, where: str) -> None:
        """Refuses what no return can be computed from.

        Raises:
          UnsupportedValueError: A column does not hold numbers of one shape, or a discount does not fit
            its reward.
        """
        for column in (*self.rewards, *self.discounts):
            shape, dtype = column.feature.shape, column.feature.np_dtype
            kind = dtype.kind if isinstance(dtype, np.dtype) else np.dtype(dtype).kind
            if column.rank or None in shape or (kind not in "biuf" and dtype != tf.bfloat16):
                raise errors.UnsupportedValueError(
                    f"transitions: {column.name} of {where}: got {column.feature}, expected numbers of "
                    "one shape. Use `windows` and compute returns from them."
                )
        for reward in self.rewards:
            index = self.discount_of(reward)
            if self.discounts and index is None:
                raise errors.UnsupportedValueError(
                    f"transitions: {reward.name} of {where}: there is no discount of its own. Expected "
                    "one discount, or one for each reward. Use `windows` and compute returns from them."
                )
            shape = self.discounts[index].feature.shape if index is not None else ()
            if shape not in ((), reward.feature.shape):
                raise errors.UnsupportedValueError(
                    f"transitions: {reward.name} of {where}: got discounts of shape {shape} for rewards "
                    f"of shape {reward.feature.shape}, expected scalars or the same shape. Use "
                    "`windows` and compute returns from them."
                )


@dataclasses.dataclass(frozen=True)
class Returns:
    """The transitions of a chunk of episodes.

    Attributes:
      at: (E, 2) int64: the rows that each transition starts and stops at.
      is_last: (E,) bool: whether the second row is the last one of the episode.
      is_terminal: (E,) bool: whether it is terminal.
      rewards: (E, ...): R, of each reward.
      discounts: (E, ...): D, of each discount; where the dataset has none, of one that is 1.
    """

    at: Tensor
    is_last: Tensor
    is_terminal: Tensor
    rewards: tuple[Tensor, ...]
    discounts: tuple[Tensor, ...]


def n_step(
    signals: Signals, values: dict[str, Tensor], lengths: Tensor, n: int, gamma: float
) -> Returns:
    """Returns the transitions of all episodes of a chunk.

    Args:
      signals: The columns.
      values: Their values by name: (N, ...).
      lengths: (n,) int64: the number of steps of each episode.
      n: How many rewards to sum up.
      gamma: The agent's discount.
    """
    episode, position = episode_rows.members(lengths)
    start = tf.where(position < tf.gather(lengths - 1, episode))[:, 0]
    last = tf.gather(tf.cumsum(lengths) - 1, tf.gather(episode, start))
    stop = tf.minimum(start + n, last)

    rewards = [values[column.name] for column in signals.rewards]
    discounts = [values[column.name] for column in signals.discounts] or [
        tf.ones_like(episode, tf.float32)
    ]
    if n == 1:
        # As they are: TensorFlow's threads take subnormal numbers for zero when they calculate.
        sums = [tf.gather(x, start) for x in rewards]
        weights = [tf.gather(x, start) for x in discounts]
        if gamma != 1:
            weights = [gamma * tf.cast(x, tf.float64) for x in weights]
    else:
        which = [signals.discount_of(column) or 0 for column in signals.rewards]
        sums, weights = _discounted_sums(rewards, discounts, which, start, stop, last, gamma)

    is_terminal = tf.zeros_like(start, tf.bool)
    if signals.terminal:
        is_terminal = tf.gather(tf.cast(values[signals.terminal.name], tf.bool), stop)
    weights = [tf.where(_like(is_terminal, w), tf.zeros_like(w), w) for w in weights]
    dtypes = [_result_dtype(column) for column in signals.discounts] or [tf.float32]
    return Returns(
        tf.stack([start, stop], axis=1),
        tf.equal(stop, last),
        is_terminal,
        tuple(_round(x, _result_dtype(c)) for x, c in zip(sums, signals.rewards, strict=True)),
        tuple(_round(x, dtype) for x, dtype in zip(weights, dtypes, strict=True)),
    )


def _discounted_sums(
    rewards: Sequence[Tensor],
    discounts: Sequence[Tensor],
    which: Sequence[int],
    start: Tensor,
    stop: Tensor,
    last: Tensor,
    gamma: float,
) -> tuple[list[Tensor], list[Tensor]]:
    """Returns sums of discounted rewards, and the discount after each of them, as float64.

    Args:
      rewards: (N, ...) each.
      discounts: (N, ...) each.
      which: The index of the discount for each reward.
      start: (E,) int64: the row that each sum starts with.
      stop: The row that it ends before.
      last: The last row of its episode.
      gamma: The agent's discount.
    """
    rewards = [tf.cast(x, tf.float64) for x in rewards]
    # Beforehand: a product of three is what TensorFlow's optimizer would reorder.
    discounts = [gamma * tf.cast(x, tf.float64) for x in discounts]

    def add_step(k: Tensor, sums: list[Tensor], weights: list[Tensor]) -> Any:
        at = tf.minimum(start + k, last)
        is_within = start + k < stop
        sums = [
            tf.where(_like(is_within, x), x + _like(weights[i], x) * tf.gather(reward, at), x)
            for x, reward, i in zip(sums, rewards, which, strict=True)
        ]
        weights = [
            tf.where(_like(is_within, x), x * tf.gather(discount, at), x)
            for x, discount in zip(weights, discounts, strict=True)
        ]
        return k + 1, sums, weights

    sums = [tf.gather(x, start) for x in rewards]
    weights = [tf.gather(x, start) for x in discounts]
    longest = tf.reduce_max(tf.concat([stop - start, [1]], 0))
    loop = (tf.constant(1, tf.int64), sums, weights)
    _, sums, weights = tf.while_loop(lambda k, *_: k < longest, add_step, loop)
    return sums, weights


def _like(values: Tensor, other: Tensor) -> Tensor:
    """Appends dimensions, until `values` has as many as `other`."""
    missing = other.shape.rank - values.shape.rank
    return tf.reshape(values, tf.concat([tf.shape(values), tf.ones(missing, tf.int32)], 0))


def _round(values: Tensor, dtype: Any) -> Tensor:
    """Returns values in another dtype, rounded once.

    TensorFlow casts float64 to 16 bits by way of float32. There, the last bit is set if the number is not
    exact ("round to odd"), so that the second rounding sees on which side of a tie it lies.
    """
    if values.dtype != tf.float64 or dtype not in (tf.float16, tf.bfloat16):
        return tf.cast(values, dtype)
    nearest = tf.cast(values, tf.float32)
    again = tf.cast(nearest, tf.float64)
    bits = tf.bitcast(nearest, tf.int32)
    truncated = bits - tf.cast(tf.abs(again) > tf.abs(values), tf.int32)
    odd = tf.bitwise.bitwise_or(truncated, tf.cast(again != values, tf.int32))
    return tf.cast(tf.bitcast(odd, tf.float32), dtype)


def _result_dtype(column: Column) -> Any:
    dtype = column.feature.tf_dtype
    if dtype.is_floating:
        return dtype
    return tf.as_dtype(np.result_type(dtype.as_numpy_dtype, np.float32))
