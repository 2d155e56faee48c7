# SPDX-License-Identifier: Apache-2.0
"""Datasets in ArrayRecord, as TFDS writes them; and what tf.data reads of them."""

from __future__ import annotations

import itertools
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import file_adapters

import envlogger.tfds  # noqa: F401 (which makes tf.data read them)

SHARD_LENGTHS = [7, 40, 1, 33, 19]
ADAPTER = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD]

IN_ORDER = tfds.ReadConfig(interleave_cycle_length=1)

# TFDS itself passes TensorFlow what it warns of.
ONE_AT_A_TIME = pytest.mark.filterwarnings("ignore:The `deterministic` argument has no effect")


def make_features(nested):
    """Returns the features of `make_episode`."""
    features = {"index": np.int64, "text": tfds.features.Text()}
    if nested:
        step = {
            "observation": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "action": np.int64,
        }
        features["steps"] = tfds.features.Dataset(step)
    return tfds.features.FeaturesDict(features)


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
    directory.mkdir(parents=True, exist_ok=True)
    features = make_features(nested)
    template = tfds.core.ShardedFileTemplate(
        data_dir=directory, dataset_name="toy", split="train", filetype_suffix=file_format
    )
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="toy", version=tfds.core.Version("1.0.0"), data_dir=directory, module_name=""
    )
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat(file_format)]
    index = itertools.count(first)
    for shard, length in enumerate(shard_lengths):
        path = template.sharded_filepath(shard_index=shard, num_shards=len(shard_lengths))
        episodes = [make_episode(i, nested) for i in itertools.islice(index, length)]
        examples = [serializer.serialize_example(features.encode_example(e)) for e in episodes]
        adapter.write_examples(path, enumerate(examples))
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    info.set_file_format(file_format)
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=shard_lengths, num_bytes=0, filename_template=template
    )
    info.set_splits(tfds.core.splits.SplitDict([split]))
    info.write_to_directory(directory)
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
