# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import resource
import signal

import helpers
import numpy as np
import pytest

from envlogger import errors
from envlogger.tfds import shard_files, shards

RECORDS = [b"", b"one", os.urandom(100_000), b"\0" * 1000]


def _write(path, records=RECORDS):
    writer = shards.ShardWriter(str(path))
    for record in records:
        writer.add(record)
    writer.close()
    return str(path)


def test_records_come_back(tmp_path):
    path = _write(tmp_path / "shard")

    assert list(shards.read_all(path, len(RECORDS))) == RECORDS
    reader = shards.ShardReader(path, len(RECORDS))
    assert [reader.read(i) for i in (2, 0, 3, 1, 1)] == [RECORDS[i] for i in (2, 0, 3, 1, 1)]
    reader.close()


def test_data_source_can_read_each_record_alone(tmp_path):
    from array_record.python import array_record_data_source

    path = _write(tmp_path / "shard")

    with array_record_data_source.ArrayRecordDataSource(path) as source:  # demands group_size:1
        assert [source[i] for i in range(len(RECORDS))] == RECORDS


def test_a_shard_replaces_the_file_that_was_there(tmp_path):
    path = _write(tmp_path / "shard")

    _write(path, [b"new"])

    assert list(shards.read_all(path, 1)) == [b"new"]


def test_what_is_abandoned_is_gone(tmp_path):
    writer = shards.ShardWriter(str(tmp_path / "shard"))
    writer.add(b"one")

    writer.abandon()
    writer.abandon()

    assert os.listdir(tmp_path) == []


def test_closing_twice(tmp_path):
    writer = shards.ShardWriter(str(tmp_path / "shard"))
    writer.add(b"one")

    writer.close()
    writer.close()

    assert list(shards.read_all(writer.path, 1)) == [b"one"]


def _fill(writer, num_records):
    for _ in range(num_records):  # the writer buffers 16 MiB
        writer.add(RECORDS[2])
    writer.close()


@pytest.mark.parametrize("num_records", [1, 400])
def test_a_full_disk_is_an_os_error(tmp_path, num_records):
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = shards.ShardWriter(str(tmp_path / "shard"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"the shard could not be written: .*Is the disk full"):
            _fill(writer, num_records)
        with pytest.raises(OSError, match="the shard could not be written"):
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    writer.abandon()


def test_a_directory_that_is_not_there_is_an_os_error(tmp_path):
    writer = shards.ShardWriter(str(tmp_path / "no" / "shard"))

    with pytest.raises(OSError, match="could not be written"):
        writer.add(b"one")


def test_a_missing_shard(tmp_path):
    with pytest.raises(errors.CorruptDatasetError) as raised:
        shards.ShardReader(str(tmp_path / "shard"), 3)

    assert isinstance(raised.value, OSError)
    helpers.check_message(raised, str(tmp_path / "shard"), "missing", "3", "Restore it from a copy")


@pytest.mark.parametrize("num_records", [0, 3, 5])
def test_another_number_of_records(tmp_path, num_records):
    path = _write(tmp_path / "shard")

    with pytest.raises(errors.CorruptDatasetError) as raised:
        shards.ShardReader(path, num_records)

    helpers.check_message(raised, path, "4 records", f"says {num_records}")


@pytest.mark.parametrize("size", [0, 100, 65_536, 131_072])
def test_a_shard_that_was_cut_off(tmp_path, size):
    path = _write(tmp_path / "shard")
    os.truncate(path, size)

    with pytest.raises(errors.CorruptDatasetError) as raised:
        list(shards.read_all(path, len(RECORDS)))

    helpers.check_message(raised, path, "damaged")


def test_a_damaged_record_spoils_no_other(tmp_path):
    path = _write(tmp_path / "shard")
    with open(path, "r+b") as file:  # the middle of the long record, which does not compress
        place = file.read().index(RECORDS[2][50_000:50_016])
        file.seek(place)
        file.write(b"\0" * 16)

    reader = shards.ShardReader(path, len(RECORDS))
    with pytest.raises(errors.CorruptDatasetError) as raised:
        reader.read(2)

    helpers.check_message(raised, path, "episode 2", "The other episodes can be read")
    assert [reader.read(i) for i in (0, 1, 3)] == [RECORDS[i] for i in (0, 1, 3)]


def _frames(rng, spread):
    return np.clip(rng.normal(128, spread, (100, 64, 64)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("spread", "compression"),
    [(60, shards.Compression.NONE), (5, shards.Compression.FULL), (0, shards.Compression.FULL)],
)
def test_what_compression_can_do_is_foreseen(spread, compression):
    record = _frames(np.random.default_rng(0), spread).tobytes()
    assert shards.choose_compression(record) is compression


def test_frames_that_repeat_are_compressed():
    frame = np.random.default_rng(0).bytes(100_000)
    assert shards.choose_compression(frame * 20) is shards.Compression.REPETITIONS


def test_a_short_record_is_compressed():
    assert shards.choose_compression(b"") is shards.Compression.FULL
    assert shards.choose_compression(bytes(range(100))) is shards.Compression.FULL


@pytest.mark.parametrize("compression", shards.Compression)
def test_each_compression_holds_the_same(tmp_path, compression):
    frame = np.random.default_rng(0).bytes(200_000)
    records = [frame * 20, frame, b""]
    writer = shards.ShardWriter(str(tmp_path / "shard"), compression)
    for record in records:
        writer.add(record)
    writer.close()

    assert list(shards.read_all(writer.path, 3)) == records
    is_plain = compression is shards.Compression.NONE
    found = shard_files.compression_of(writer.path, 3)
    assert found is (shards.Compression.NONE if is_plain else shards.Compression.FULL)
    has_repetitions = os.path.getsize(writer.path) > 700_000
    assert has_repetitions == is_plain
