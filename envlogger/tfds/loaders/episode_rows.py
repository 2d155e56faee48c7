# SPDX-License-Identifier: Apache-2.0
"""Which rows of a chunk are those of which episode, where the rows of n episodes lie one after the other.

Few ops: a pipeline starts the later, the more of them it has, and `tf.repeat` alone is some forty.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from envlogger.tfds.loaders.columns import Tensor


class Members(NamedTuple):
    """Where the elements of n episodes, E in all, belong.

    Attributes:
      episode: (E,) int64: of which episode each of them is.
      position: (E,) int64: its number there, from 0 on.
    """

    episode: Tensor
    position: Tensor


def starts_of(lengths: Tensor) -> Tensor:
    """Returns the row that each episode of a chunk starts at: (n,) int64."""
    return tf.cumsum(lengths, exclusive=True)


def members(counts: Tensor) -> Members:
    """Returns where elements belong.

    Args:
      counts: (n,) int64: how many elements each episode has.
    """
    numbers = tf.range(tf.reduce_sum(counts))
    episode = tf.searchsorted(tf.cumsum(counts), numbers, side="right", out_type=tf.int64)
    return Members(episode, numbers - tf.gather(starts_of(counts), episode))


def interleaved(elements: Members, interleave: int) -> Tensor:
    """Returns the order in which the elements of groups of `interleave` episodes alternate.

    Args:
      elements: Where they belong.
      interleave: How many episodes make a group.

    Returns:
      (E,) int64: numbers of elements: the first ones of all episodes of a group, then the second ones,
      and so on.
    """
    group = elements.episode // interleave
    longest = tf.reduce_max(tf.concat([elements.position, [0]], 0)) + 1
    return tf.argsort(group * longest + elements.position, stable=True)
