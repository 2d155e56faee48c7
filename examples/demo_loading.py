# SPDX-License-Identifier: Apache-2.0
"""The demo's datasets, loaded as tf.data and gathered as numpy arrays."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds
from absl import logging

import envlogger.tfds  # noqa: F401 (with it, tfds.load reads ArrayRecord)


@dataclasses.dataclass(frozen=True)
class Run:
    """A dataset's episodes, in the order in which they were recorded.

    Attributes:
      name: Of the dataset.
      returns: float64 (num_episodes,). Sums of rewards.
      lengths: int64 (num_episodes,). Numbers of transitions, one less than steps.
      num_terminal: How many episodes ended in a terminal state; the others were cut off.
      steps: Of the first episode: the values by path, such as `observation/height`; each array has
        the steps along its first axis.
      metadata: Of the first episode.
    """

    name: str
    returns: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int64]
    num_terminal: int
    steps: dict[str, npt.NDArray[Any]]
    metadata: dict[str, Any]


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow without what it writes to stderr before its log level takes effect."""
    logging.set_verbosity(logging.ERROR)  # TFDS warns of itself
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def load(name: str, data_directory: str) -> Any:
    """Returns the dataset as a `tf.data.Dataset` of episodes."""
    return tfds.load(name, data_dir=data_directory, split="train")


def collect(name: str, dataset: Any) -> Run:
    """Goes once through a dataset of episodes."""
    numbers, returns, lengths, num_terminal = [], [], [], 0
    first: dict[str, Any] = {}
    # Each episode's steps as one batch, which is faster than one by one.
    whole = dataset.map(
        lambda episode: {**episode, "steps": episode["steps"].batch(10**6).get_single_element()}
    )
    for episode in whole.as_numpy_iterator():
        steps = flatten(episode["steps"])
        numbers.append(int(episode["number"]))
        # The last step's reward is padding: no action was taken in it.
        returns.append(float(steps["reward"][:-1].sum()))
        lengths.append(len(steps["reward"]) - 1)
        num_terminal += int(steps["is_terminal"][-1])
        if numbers[-1] == 0:
            first = {"steps": steps, **{k: v for k, v in episode.items() if k != "steps"}}
    # tf.data reads several records at a time, which shuffles the episodes a little.
    order = np.argsort(numbers)
    return Run(
        name,
        np.array(returns)[order],
        np.array(lengths)[order],
        num_terminal,
        first.pop("steps"),
        first,
    )


def flatten(nest: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested dicts by path."""
    leaves = {}
    for key, value in nest.items():
        if isinstance(value, dict):
            leaves.update(flatten(value, f"{prefix}{key}/"))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
