# SPDX-License-Identifier: Apache-2.0
"""Datasets in ArrayRecord as tf.data reads them: TFDS's own TFRecord reader is the oracle for order,
`tfds.data_source` for content."""

from __future__ import annotations

import itertools

import array_records
import foreign
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tf_reading
from tensorflow_datasets.core import file_adapters


def test_nested_steps_equal_those_of_data_source(tmp_path):
    builder = tfds.builder_from_directory(array_records.write(tmp_path, nested=True))
    dataset = builder.as_dataset(split="train", read_config=tf_reading.IN_ORDER)

    source = builder.as_data_source(split="train")

    assert len(source) == sum(array_records.SHARD_LENGTHS)
    for expected, got in zip(source, dataset, strict=True):
        assert got["index"].numpy() == expected["index"]
        assert got["text"].numpy() == expected["text"]
        for step, expected_step in zip(got["steps"], expected["steps"], strict=True):
            assert step["observation"].dtype == tf.float32
            np.testing.assert_array_equal(step["observation"], expected_step["observation"])
            assert step["action"].numpy() == expected_step["action"]


SPLITS = [
    "train",
    "all",
    "train[:10%]",
    "train[37%:81%]",
    "train[5:8]",
    "train[:1]",
    "train[-3:]",
    "train[7:47]",
    "train[:2shard]",
    "train[3shard:]",
    "train[60:]+train[:5]",
    tfds.core.ReadInstruction("train", from_=20, to=70, unit="abs"),
    tfds.core.ReadInstruction("train", from_=33, to=66, unit="%", rounding="pct1_dropremainder"),
    *tfds.even_splits("train", 3),
]


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_slices(builder, oracle, split):
    # Some batches have one record, others several.
    config = tfds.ReadConfig(override_buffer_size=60)

    dataset = builder.as_dataset(split=split, read_config=config)

    indices = array_records.indices(dataset)
    assert indices == array_records.indices(oracle.as_dataset(split=split, read_config=config))
    assert sorted(indices) == sorted(e["index"] for e in builder.as_data_source(split=split))
    assert dataset.cardinality() == len(indices)


def test_in_recorded_order_with_one_shard_at_a_time(builder):
    dataset = builder.as_dataset(split="train", read_config=tf_reading.IN_ORDER)

    assert array_records.indices(dataset) == list(range(sum(array_records.SHARD_LENGTHS)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"interleave_cycle_length": 3, "interleave_block_length": 2},
        {"interleave_cycle_length": None, "interleave_block_length": 1},
        {"num_parallel_calls_for_interleave_files": 2, "override_buffer_size": 20},
        {"num_parallel_calls_for_interleave_files": None, "override_buffer_size": 300},
        {"experimental_interleave_sort_fn": lambda files: files[::-1]},
    ],
    ids=",".join,
)
@pytest.mark.parametrize("shuffle", [False, True])
@array_records.ONE_AT_A_TIME
def test_interleaving_and_shuffling(builder, oracle, options, shuffle):
    config = tfds.ReadConfig(shuffle_seed=3, **options)

    dataset = builder.as_dataset(split="train", read_config=config, shuffle_files=shuffle)
    expected = oracle.as_dataset(split="train", read_config=config, shuffle_files=shuffle)

    # Twice: the files are shuffled anew for each epoch.
    assert [array_records.indices(dataset), array_records.indices(dataset)] == [
        array_records.indices(expected),
        array_records.indices(expected),
    ]


@pytest.mark.parametrize("split", ["train", "train[5:45]"])
def test_tfds_id(builder, split):
    config = tfds.ReadConfig(add_tfds_id=True, interleave_cycle_length=2)

    dataset = builder.as_dataset(split=split, read_config=config)

    starts = dict(
        zip(
            (path.name for path in array_records.shards(builder.data_dir)),
            itertools.accumulate(array_records.SHARD_LENGTHS, initial=0),
            strict=False,
        )
    )
    for episode in dataset:
        shard, position = episode["tfds_id"].numpy().decode().split("__")
        assert episode["index"] == starts[shard] + int(position)


def test_input_context(builder, oracle):
    def read(builder, pipeline):
        context = tf.distribute.InputContext(num_input_pipelines=2, input_pipeline_id=pipeline)
        config = tfds.ReadConfig(input_context=context)
        return array_records.indices(builder.as_dataset(split="train", read_config=config))

    assert [read(builder, 0), read(builder, 1)] == [read(oracle, 0), read(oracle, 1)]


def test_inside_tf_function(builder):
    @tf.function
    def total():
        result = tf.constant(0, tf.int64)
        for episode in builder.as_dataset(split="train[3:50]"):
            result += episode["index"]
        return result

    assert total() == total() == sum(range(3, 50))


@pytest.mark.parametrize(
    ("position", "batch_bytes"), [(0, 1), (50, 1), (1, 300), (50, 300), (99, 300), (8, None)]
)
def test_checkpointed_iterator_continues_where_it_was(builder, tmp_path, position, batch_bytes):
    def iterator():
        config = tfds.ReadConfig(override_buffer_size=batch_bytes, interleave_block_length=3)
        dataset = builder.as_dataset(split="train", read_config=config)
        return iter(dataset.map(lambda episode: episode["index"]))

    saved = iterator()
    for _ in range(position):
        next(saved)
    restored = tf_reading.restore(saved, iterator(), tmp_path)

    rest = [int(index) for index in restored]
    assert rest == [int(index) for index in saved]
    assert len(rest) == sum(array_records.SHARD_LENGTHS) - position


def test_load_and_builder_from_directories(directories, tmp_path):
    root = directories["array_record"].parent.parent
    other = array_records.write(tmp_path / "other", shard_lengths=[5, 6], first=100)

    loaded = tfds.load("toy:1.0.0", split="train[98:]", data_dir=root)
    both = tfds.builder_from_directories([directories["array_record"], other])

    assert array_records.indices(loaded) == [98, 99]
    dataset = both.as_dataset(split="train[97:104]", read_config=tf_reading.IN_ORDER)
    assert array_records.indices(dataset) == list(range(97, 104))


def test_sequential_writer(tmp_path):
    episodes = [array_records.make_episode(i, nested=True) for i in range(10)]
    foreign.write(
        tmp_path, array_records.STEP, episodes, "array_record", array_records.EPISODE, per_shard=4
    )

    dataset = tfds.builder_from_directory(tmp_path).as_dataset(
        split="train", read_config=tf_reading.IN_ORDER
    )

    assert array_records.indices(dataset) == list(range(10))


def test_what_convert_format_does_with_a_shard(builder, tmp_path):
    path = array_records.shards(builder.data_dir)[1]
    tfrecord = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.TFRECORD]

    rows = enumerate(row.numpy() for row in array_records.ADAPTER.make_tf_data(filename=path))
    tfrecord.write_examples(path=tmp_path / "converted", iterator=rows)
    rows = enumerate(row.numpy() for row in tfrecord.make_tf_data(tmp_path / "converted"))
    array_records.ADAPTER.write_examples(path=tmp_path / "back", iterator=rows)

    assert array_records.records(tmp_path / "back") == array_records.records(path)
