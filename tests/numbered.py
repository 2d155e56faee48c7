# SPDX-License-Identifier: Apache-2.0
"""Datasets whose steps are numbered, and the numbers of what loaders give."""

from __future__ import annotations

import warnings

import foreign
import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
    import tensorflow_datasets as tfds

F = tfds.features
LENGTHS = [1, 5, 2, 9, 3, 3, 7, 1, 4, 6, 2, 8]

STEP = {
    "observation": {"id": np.int64, "x": F.Tensor(shape=(2,), dtype=np.float64, encoding="bytes")},
    "action": np.int64,
    "reward": np.float32,
    "discount": np.float32,
    "is_first": np.bool_,
    "is_last": np.bool_,
    "is_terminal": np.bool_,
}


def without(*names):
    """Returns the features of steps, without some."""
    return {key: feature for key, feature in STEP.items() if key not in names}


def make_episode(index, length):
    """Returns the episode of a number, in the form of RLDS; its steps are numbered from 100 times that."""
    rng = np.random.default_rng(index)
    steps = [
        {
            "observation": {"id": 100 * index + t, "x": rng.standard_normal(2)},
            "action": int(rng.integers(5)),
            "reward": np.float32(rng.standard_normal()),
            "discount": np.float32(rng.choice([0.5, 1.0])),
            "is_first": t == 0,
            "is_last": t == length - 1,
            # Every other episode is truncated.
            "is_terminal": t == length - 1 and index % 2 == 0,
        }
        for t in range(length)
    ]
    return {"steps": steps, "episode_id": f"episode {index}"}


def write(path, lengths=LENGTHS, first=0, step=STEP, file_format="array_record", make=None):
    """Writes a dataset of five episodes per shard; returns its directory."""
    episodes = []
    for index, length in enumerate(lengths, first):
        episode = make_episode(index, length)
        if make is not None:
            episode["steps"] = [make(item) for item in episode["steps"]]
        episode["steps"] = [{key: item[key] for key in step} for item in episode["steps"]]
        episodes.append(episode)
    return foreign.write(path, step, episodes, file_format, {"episode_id": F.Text()}, per_shard=5)


def columns(steps):
    """Returns steps as columns of numpy arrays, those of observations among them."""
    flat = [{**step, **step["observation"]} for step in steps]
    columns = {key: np.array([step[key] for step in flat]) for key in flat[0]}
    columns["reward"] = columns["reward"].astype(np.float32)
    columns["discount"] = columns["discount"].astype(np.float32)
    return columns


def windows(num_steps, length, stride, pad=True):
    """Returns the windows that an episode has, as slices of its steps; those to be padded are shorter."""
    starts = range(0, num_steps, stride)
    full = [t for t in starts if t + length <= num_steps]
    # Those that reach over the end, as long as the one before does not reach it.
    needed = [t for t in starts if t == 0 or t - stride + length < num_steps]
    return [slice(t, min(t + length, num_steps)) for t in (needed if pad else full)]


def ids(dataset):
    """Returns the numbers of all steps of a tf.data dataset, batched or not."""
    return [int(i) for step in dataset for i in np.ravel(step["observation"]["id"])]


def number_of(step):
    """Returns the number of a step in its episode."""
    return step["observation"]["id"] % 100
