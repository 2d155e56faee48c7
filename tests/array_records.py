# SPDX-License-Identifier: Apache-2.0
"""Datasets in ArrayRecord, as TFDS writes them; and what tf.data reads of them."""

from __future__ import annotations

import itertools
import pathlib

import foreign
import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import file_adapters

import envlogger.tfds  # noqa: F401 (which makes tf.data read them)

F = tfds.features
SHARD_LENGTHS = [7, 40, 1, 33, 19]
# The features of an episode, and those of its steps where it is to be nested.
EPISODE = {"index": np.int64, "text": F.Text()}
STEP = {"observation": F.Tensor(shape=(2,), dtype=np.float32), "action": np.int64}

ADAPTER = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD]

# TFDS itself passes TensorFlow what it warns of.
ONE_AT_A_TIME = pytest.mark.filterwarnings("ignore:The `deterministic` argument has no effect")


def make_episode(index, nested):
    """Returns the episode of a number, with steps where it is to be nested."""
    episode = {"index": index, "text": "x" * (index % 7 * 20)}
    if nested:
        episode["steps"] = [
            {"observation": np.full(2, index + t / 10, np.float32), "action": t}
            for t in range(index % 4)
        ]
    return episode


def write(
    directory, file_format="array_record", shard_lengths=SHARD_LENGTHS, first=0, nested=False
):
    """Writes a dataset of the given number of episodes per shard; returns its directory."""
    features = F.FeaturesDict({**EPISODE, **({"steps": F.Dataset(STEP)} if nested else {})})
    paths = foreign.describe(directory, features, file_format, shard_lengths)
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat(file_format)]
    index = itertools.count(first)
    for path, length in zip(paths, shard_lengths, strict=True):
        episodes = [make_episode(i, nested) for i in itertools.islice(index, length)]
        examples = [serializer.serialize_example(features.encode_example(e)) for e in episodes]
        adapter.write_examples(path, enumerate(examples))
    return directory


def indices(dataset):
    """Returns the numbers of the episodes of a tf.data dataset."""
    return [int(index) for index in dataset.map(lambda episode: episode["index"])]


def shards(directory):
    """Returns the paths of a dataset's shards."""
    return sorted(pathlib.Path(directory).glob("*.array_record-*"))


def records(path, **kwargs):
    """Returns the records of a shard, as tf.data reads them."""
    return list(ADAPTER.make_tf_data(path, **kwargs).as_numpy_iterator())
