# SPDX-License-Identifier: Apache-2.0
"""Many small ArrayRecord shards, which are interleaved without a pipeline for each.

TFDS's own reader of TFRecord is the oracle for the order.
"""

from __future__ import annotations

import os
import types

import array_record_library
import array_records
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tf_reading
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.core import reader as tfds_reader

from envlogger.tfds import small_shards

_LENGTHS = [7, 40, 1, 16, 17, 32, 2, *[3, 1] * 20]
_COUNT = sum(_LENGTHS)


@pytest.fixture(scope="module")
def shard_lengths():
    return _LENGTHS


@pytest.fixture
def pipelines(monkeypatch):
    """A list that gets the path of each shard that has a pipeline of its own from here on."""
    paths = []
    make = array_records.ADAPTER.make_tf_data

    def spy(filename, buffer_size=None):
        paths.append(filename)
        return make(filename, buffer_size)

    monkeypatch.setattr(array_records.ADAPTER, "make_tf_data", spy)
    return paths


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"override_buffer_size": 1},
        {"override_buffer_size": 100, "interleave_cycle_length": 3, "interleave_block_length": 2},
        {"interleave_cycle_length": 1, "interleave_block_length": None},
        {"interleave_cycle_length": 100, "interleave_block_length": 1},
        {
            "num_parallel_calls_for_interleave_files": None,
            "shuffle_reshuffle_each_iteration": False,
        },
    ],
    ids=str,
)
@array_records.ONE_AT_A_TIME
def test_order_is_that_of_tfrecord(builder, oracle, pipelines, options, shuffle):
    config = tfds.ReadConfig(shuffle_seed=3, **options)

    dataset, expected = (
        b.as_dataset(split="train", read_config=config, shuffle_files=shuffle)
        for b in (builder, oracle)
    )

    assert pipelines == []
    # Twice: the files are shuffled anew for each epoch.
    for _ in range(2):
        assert array_records.indices(dataset) == array_records.indices(expected)
    assert dataset.cardinality() == _COUNT


@pytest.mark.parametrize(
    "split", ["train[5:]", "train[:-3]", "train[10%:90%]", "train[30:]+train[:60]"]
)
def test_slices(builder, oracle, pipelines, split):
    dataset = builder.as_dataset(split=split)

    assert pipelines == []
    assert array_records.indices(dataset) == array_records.indices(oracle.as_dataset(split=split))


def test_shuffled_without_a_seed(builder, pipelines):
    dataset = builder.as_dataset(split="train", shuffle_files=True)

    first, second = array_records.indices(dataset), array_records.indices(dataset)

    assert pipelines == []
    assert first != second
    assert sorted(first) == sorted(second) == list(range(_COUNT))


@pytest.mark.parametrize(
    "options",
    [
        {"add_tfds_id": True},
        {"experimental_interleave_sort_fn": lambda files: files[::-1]},
        {"interleave_cycle_length": None},
        {"input_context": tf.distribute.InputContext(2, 1)},
    ],
    ids=",".join,
)
def test_what_tfds_does_itself(builder, oracle, pipelines, options):
    config = tfds.ReadConfig(**options)

    dataset = builder.as_dataset(split="train", read_config=config)

    assert pipelines != []
    assert array_records.indices(dataset) == array_records.indices(
        oracle.as_dataset(split="train", read_config=config)
    )


def test_repeated_file_names(builder, oracle):
    config = tfds.ReadConfig(repeat_filenames=True, assert_cardinality=False)

    dataset, expected = (
        b.as_dataset(split="train", read_config=config).take(3 * _COUNT) for b in (builder, oracle)
    )

    assert array_records.indices(dataset) == array_records.indices(expected)


@pytest.mark.parametrize("position", [0, 1, 25, 60, _COUNT - 1, _COUNT])
@pytest.mark.parametrize("batch_bytes", [1, 100, None])
def test_checkpointed_iterator_continues_where_it_was(builder, tmp_path, position, batch_bytes):
    def iterator():
        config = tfds.ReadConfig(override_buffer_size=batch_bytes, shuffle_seed=1)
        dataset = builder.as_dataset(split="train", read_config=config, shuffle_files=True)
        return iter(dataset.map(lambda episode: episode["index"]))

    saved = iterator()
    for _ in range(position):
        next(saved)
    restored = tf_reading.restore(saved, iterator(), tmp_path)

    rest = [int(index) for index in restored]
    assert rest == [int(index) for index in saved]
    assert len(rest) == _COUNT - position


def test_few_or_large_shards_have_pipelines_of_their_own(tmp_path, pipelines):
    few = array_records.write(tmp_path / "few", shard_lengths=[1] * 31)
    large = array_records.write(tmp_path / "large", shard_lengths=[1] * 32)
    rng = np.random.default_rng(0)
    for path in array_records.shards(large):
        array_record_library.write(path, [rng.bytes(600_000)])

    for directory in (few, large):
        pipelines.clear()
        tfds.builder_from_directory(directory).as_dataset(split="train")
        assert pipelines != []


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Shards of 0 to 6 records, by their number of records; each record is "shard/record"."""
    root = tmp_path_factory.mktemp("numbered")

    def shard(number, count):
        path = root / f"{number}-{count}"
        if not path.exists():
            array_record_library.write(path, [b"%d/%d" % (number, i) for i in range(count)])
        return os.fspath(path)

    return shard


@settings(max_examples=60, deadline=None)
@given(
    files=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 3)), max_size=9),
    cycle_length=st.integers(1, 5),
    block_length=st.integers(1, 4),
    batch_bytes=st.sampled_from([1, 10, 1000]),
)
def test_interleaving_is_that_of_tf_data(numbered, files, cycle_length, block_length, batch_bytes):
    instructions = []
    for number, (count, skip, less) in enumerate(files):
        skip = min(skip, count)
        take = max(count - skip - less, 0)
        instructions.append(
            types.SimpleNamespace(
                filename=numbered(number, count), skip=skip, take=take, examples_in_shard=count
            )
        )
    starts = np.array([[i.skip, i.skip + i.take] for i in instructions], np.int64).reshape(-1, 2)
    expected = (
        tf.data.Dataset.from_tensor_slices(starts)
        .enumerate()
        .interleave(
            lambda number, range_: tf.data.Dataset.range(range_[0], range_[1]).map(
                lambda record: tf.stack([number, record])
            ),
            cycle_length,
            block_length,
        )
    )

    interleaving = small_shards.Interleaving(instructions, block_length, batch_bytes)
    state, got = interleaving.start(cycle_length), []
    order = np.arange(len(instructions))
    while True:
        batch, state = interleaving.read(order, np.array(state, np.int64))
        if not batch.records:
            break
        assert sum(map(len, batch.records[:-1])) < batch_bytes
        got += batch.records

    assert got == [b"%d/%d" % tuple(pair) for pair in expected.as_numpy_iterator()]


# Errors


@pytest.fixture
def small(tmp_path):
    return array_records.write(tmp_path, shard_lengths=[2] * 40)


def test_missing_shard(small):
    dataset = tfds.builder_from_directory(small).as_dataset(split="train")
    path = array_records.shards(small)[20]
    path.unlink()

    with pytest.raises(tf.errors.OpError, match=r"FileNotFoundError.*A shard is missing") as error:
        list(dataset)

    assert os.fspath(path) in str(error.value)


def test_shard_that_is_missing_from_the_beginning(small):
    path = array_records.shards(small)[20]
    path.unlink()

    with pytest.raises(tf.errors.OpError, match=r"FileNotFoundError.*A shard is missing"):
        list(tfds.builder_from_directory(small).as_dataset(split="train"))


def test_shard_of_another_length(small):
    paths = array_records.shards(small)
    records = array_records.records(paths[7])
    os.replace(array_record_library.write(small / "other", records[:1]), paths[7])

    with pytest.raises(
        tf.errors.OpError, match=r"has 1 records.* says 2\. .*copy it again"
    ) as error:
        list(tfds.builder_from_directory(small).as_dataset(split="train"))

    assert os.fspath(paths[7]) in str(error.value)


def test_another_version_of_tfds_is_left_alone():
    def read_files(file_instructions, read_config):
        del file_instructions, read_config

    reader = types.SimpleNamespace(_read_files=read_files)

    small_shards.extend(reader)

    assert reader._read_files is read_files


def test_extended_once():
    read_files = tfds_reader._read_files

    small_shards.extend(tfds_reader)

    assert tfds_reader._read_files is read_files
