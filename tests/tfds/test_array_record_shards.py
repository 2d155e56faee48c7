# SPDX-License-Identifier: Apache-2.0
"""Shards in ArrayRecord as tf.data reads them: what is read of them, how many are open, and damage."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib

import array_record_library
import array_records
import damage
import helpers
import numpy as np
import processes
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from envlogger.tfds import record_batches


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return tfds.builder_from_directory(array_records.write(tmp_path_factory.mktemp("toy")))


def _open_shards():
    targets = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # a thread has closed it meanwhile
            # Not os.path.realpath: a file that was unlinked meanwhile has no path.
            targets.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [target for target in targets if "array_record" in target]


@pytest.fixture
def records_read(monkeypatch):
    """A list that gets the size of each read of each shard from here on."""
    sizes = []
    real_open = record_batches._open

    class CountingReader:
        def __init__(self, reader):
            self._reader = reader

        def read(self, *bounds):
            records = self._reader.read(*bounds)
            sizes.append(len(records) if bounds else 1)
            return records

        def __getattr__(self, name):
            return getattr(self._reader, name)

    monkeypatch.setattr(record_batches, "_READERS", record_batches._Readers(4))
    monkeypatch.setattr(record_batches, "_open", lambda path: CountingReader(real_open(path)))
    return sizes


# One shard


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    records = [b"%d" % i * (i % 5) for i in range(100)]
    return array_record_library.write(
        tmp_path_factory.mktemp("shard") / "shard.array_record", records
    )


@pytest.mark.parametrize(
    "filename", [os.fspath, pathlib.Path, lambda path: tf.constant(os.fspath(path))]
)
def test_filename(shard, filename):
    assert len(array_records.records(filename(shard))) == 100


@pytest.mark.parametrize("counts", [(0, 0), (3, 10), (99, 5), (100, 1), (200, 1), (-1, 3), (5, -1)])
def test_skip_and_take_are_those_of_tf_data(shard, counts):
    skip, take = counts
    dataset = array_records.ADAPTER.make_tf_data(shard, 20)
    expected = tf.data.Dataset.from_tensor_slices(array_records.records(shard))

    for mine, plain in [
        (dataset.skip(skip).take(tf.constant(take)), expected.skip(skip).take(take)),
        (dataset.take(skip).skip(tf.constant(take)), expected.take(skip).skip(take)),
    ]:
        assert list(mine.as_numpy_iterator()) == list(plain.as_numpy_iterator())


def test_skip_and_take_of_more_than_there_is(shard):
    dataset = array_records.ADAPTER.make_tf_data(shard)

    assert list(dataset.skip(1).skip(2**63 - 1)) == []
    assert len(list(dataset.skip(3).take(2**63 - 1).skip(2))) == 95


@pytest.mark.parametrize(
    ("split", "count"), [("train[5:8]", 3), ("train[-3:]", 3), ("train[10:20]", 10), ("train", 100)]
)
def test_skipped_records_are_not_read(builder, records_read, split, count):
    dataset = builder.as_dataset(split=split)

    assert records_read == []
    assert len(array_records.indices(dataset)) == count
    assert sum(records_read) == count


def test_batches_are_bounded_by_bytes(tmp_path):
    large = 200_000
    sizes = [10] * 300 + [large] * 20 + [0] * 50 + [9000] * 100 + [large] * 3 + [5] * 40
    records = [bytes([i % 256]) * size for i, size in enumerate(sizes)]
    path = os.fspath(array_record_library.write(tmp_path / "shard", records))
    budget = 100_000

    start, got = 0, []
    while start < len(sizes):
        reading = record_batches.Batch(budget)
        start, stop = reading.read(path, start, 2**63 - 1)
        batch = reading.records
        assert stop == len(sizes)
        # Of the last read, only the first record had to fit.
        assert sum(map(len, batch[:-8])) < budget
        if len(batch) > 1 and len(batch[0]) == large:
            assert len(batch[1]) < large
        got += batch

    assert got == records
    assert array_records.records(path, buffer_size=budget) == records


def test_a_jump_in_size_makes_a_batch_larger_by_few_records(tmp_path):
    records = [b"x" * 10] * 1000 + [b"y" * 1_000_000] * 20
    path = os.fspath(array_record_library.write(tmp_path / "shard", records))

    batch = record_batches.Batch(100_000)
    batch.read(path, 0, len(records))

    assert len(batch.records) == 1001


def test_empty_shard(tmp_path):
    path = array_record_library.write(tmp_path / "shard", [])

    assert array_records.ADAPTER.num_examples(path) == 0
    assert array_records.records(path) == []


def test_num_examples_reads_no_record(shard, records_read):
    assert array_records.ADAPTER.num_examples(shard) == 100
    assert records_read == []


# Files


def test_files_are_closed(builder):
    before = _open_shards()
    config = tfds.ReadConfig(override_buffer_size=1)

    array_records.indices(builder.as_dataset(split="train", read_config=config))
    array_records.indices(builder.as_dataset(split="train[:90%]", read_config=config))

    assert _open_shards() == before


@array_records.ONE_AT_A_TIME
def test_open_files_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(record_batches, "_READERS", record_batches._Readers(10))
    builder = tfds.builder_from_directory(array_records.write(tmp_path, shard_lengths=[3] * 60))
    before = len(_open_shards())

    # All shards are begun, and none is finished.
    config = tfds.ReadConfig(
        override_buffer_size=1,
        interleave_cycle_length=60,
        interleave_block_length=1,
        num_parallel_calls_for_interleave_files=None,
    )
    iterator = iter(builder.as_dataset(split="train", read_config=config))
    for _ in range(61):
        next(iterator)

    # A thread of tf.data that works ahead has one more in hand, till there is nothing left to do.
    processes.wait_for(lambda: 0 < len(_open_shards()) - before <= 10)


def test_large_shard_is_opened_once(shard, monkeypatch):
    opened = helpers.spy(monkeypatch, record_batches, "_open")

    assert len(array_records.records(shard, buffer_size=1)) == 100
    assert len(opened) == 1


def test_replaced_file_is_read_anew(tmp_path):
    path = array_record_library.write(tmp_path / "shard", [b"old"] * 10)
    iterator = array_records.ADAPTER.make_tf_data(path, 1).as_numpy_iterator()
    assert next(iterator) == b"old"  # An idle reader of the old file is left.

    os.replace(array_record_library.write(tmp_path / "new", [b"new"] * 10), path)

    assert array_records.records(path, buffer_size=1) == [b"new"] * 10


def test_many_threads(builder):
    expected = array_records.indices(builder.as_dataset(split="train"))
    config = tfds.ReadConfig(override_buffer_size=1)

    def read(_):
        return array_records.indices(builder.as_dataset(split="train", read_config=config))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(4))) == [expected] * 4


# Errors


@pytest.fixture
def small(tmp_path):
    return array_records.write(tmp_path, shard_lengths=[4, 4])


def _unfinished(path):
    # A writer that is alive, or was killed: what it wrote so far has no footer.
    os.truncate(path, 0)
    with open(path, "ab") as file:
        file.write(os.urandom(65536 * 2))


def _cut_short(path):
    os.truncate(path, 65536)


def _emptied(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("harm", [_unfinished, _cut_short, _emptied])
def test_unfinished_shard(small, harm):
    path = array_records.shards(small)[1]
    harm(path)
    builder = tfds.builder_from_directory(small)

    with pytest.raises(tf.errors.InvalidArgumentError, match="is not a finished") as error:
        list(builder.as_dataset(split="train"))

    assert os.fspath(path) in str(error.value)
    with pytest.raises(ValueError, match=r"not a finished.*Copy or write the shard again"):
        array_records.ADAPTER.num_examples(path)


def test_shard_of_a_writer_that_is_still_open(tmp_path):
    path = os.fspath(tmp_path / "shard")
    writer = array_record_module.ArrayRecordWriter(path, "group_size:1")
    writer.write(b"x" * 1000)

    with pytest.raises(tf.errors.InvalidArgumentError, match="shard is not a finished"):
        array_records.records(path)

    writer.close()
    assert len(array_records.records(path)) == 1


def test_missing_shard(small):
    path = array_records.shards(small)[1]
    path.unlink()
    builder = tfds.builder_from_directory(small)

    with pytest.raises(tf.errors.OpError, match=r"FileNotFoundError.*A shard is missing") as error:
        list(builder.as_dataset(split="train"))

    assert os.fspath(path) in str(error.value)
    with pytest.raises(FileNotFoundError, match="Copy it again"):
        array_records.ADAPTER.num_examples(path)


def test_damaged_shard(tmp_path):
    rng = np.random.default_rng(0)
    path = array_record_library.write(tmp_path / "shard", [rng.bytes(50_000) for _ in range(40)])
    damage.flip(path, path.stat().st_size // 2, bits=0xFF)

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"shard: record 20 cannot be read"):
        array_records.records(path)
    assert not [name for name in _open_shards() if name == os.fspath(path)]


@pytest.mark.parametrize("num_shards", [3, 40])
@pytest.mark.parametrize("buffer_size", [1, 300, None])
def test_who_ignores_errors_misses_what_is_damaged_only(tmp_path, num_shards, buffer_size):
    builder = tfds.builder_from_directory(
        array_records.write(tmp_path, shard_lengths=[4] * num_shards)
    )
    first, second, third = array_records.shards(tmp_path)[:3]
    damage.flip(first, first.read_bytes().index(b"index", 200) + 1)
    os.truncate(second, 0)
    third.unlink()
    config = tfds.ReadConfig(assert_cardinality=False, override_buffer_size=buffer_size)

    dataset = builder.as_dataset(split="train", read_config=config).ignore_errors()

    for _ in range(2):
        found = array_records.indices(dataset)
        assert sorted(found) == found
        assert found[3:] == list(range(12, 4 * num_shards))
        assert {0, 1, 2, 3} > set(found[:3])
