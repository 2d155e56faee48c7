# SPDX-License-Identifier: Apache-2.0
"""ArrayRecord files as a forked process reads them; ArrayRecord's own library wrote them."""

from __future__ import annotations

import os

import array_record_library
import helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envlogger import errors
from envlogger.tfds.array_record_file import ArrayRecordFile

_OPTIONS = (
    "group_size:1,zstd:1",
    "group_size:1,uncompressed",
    "group_size:3,brotli:1",
    "group_size:1,snappy",
)


def _write(path, records, options=_OPTIONS[0]):
    return array_record_library.write(str(path), records, options)


def _read(path, count):
    file = ArrayRecordFile(path, count)
    try:
        return [file.read(i) for i in range(count)]
    finally:
        file.close()


@settings(deadline=None, max_examples=60)
@given(
    # Around the size of a block, of which 24 bytes are a header.
    st.lists(st.integers(0, 300) | st.integers(65_300, 65_700) | st.just(200_000), max_size=8),
    st.sampled_from(_OPTIONS),
    st.booleans(),
)
def test_records_come_back(sizes, options, is_random):
    rng = np.random.default_rng(len(sizes))
    records = [rng.bytes(size) if is_random else bytes(size) for size in sizes]
    with helpers.scratch() as folder:
        path = _write(os.path.join(folder, "shard"), records, options)

        assert _read(path, len(records)) == records


def test_large_records_that_are_not_compressed(tmp_path):
    records = [os.urandom(size) for size in (3_000_000, 524_288, 524_287)]
    path = _write(tmp_path / "shard", records, "group_size:1,uncompressed")

    assert _read(path, 3) == records

    file = ArrayRecordFile(path, 3)
    position, size, _ = file._places[1]
    os.truncate(path, position + size // 2)
    with pytest.raises(errors.CorruptDatasetError) as raised:
        file.read(1)
    helpers.check_message(raised, path, "episode 1", "ends within it")
    assert file.read(0) == records[0]
    file.close()


def test_many_small_records(tmp_path):
    records = [b"", *(str(i).encode() for i in range(5000))]

    assert _read(_write(tmp_path / "shard", records), len(records)) == records
    packed = _write(tmp_path / "packed", [b""] * 5000, "group_size:1000,zstd:1")
    assert _read(packed, 5000) == [b""] * 5000


@pytest.mark.parametrize("count", [65472, 65480, 65496, 65497])
def test_a_chunk_that_has_more_records_than_bytes(tmp_path, count):
    # The next one does not begin so many bytes behind its begin, 64, if that is in a block's header.
    records = [b""] * count + [b"after"]
    path = _write(tmp_path / "shard", records, f"group_size:{count},zstd:1")

    file = ArrayRecordFile(path, count + 1)
    assert [file.read(index) for index in (0, count - 1, count)] == [b"", b"", b"after"]
    file.close()


def test_a_missing_file(tmp_path):
    with pytest.raises(errors.CorruptDatasetError) as raised:
        ArrayRecordFile(str(tmp_path / "shard"), 3)

    helpers.check_message(raised, str(tmp_path / "shard"), "missing", "3 episodes")


@pytest.mark.parametrize("size", [0, 10, 100, 3000])
def test_a_file_that_is_cut_off(tmp_path, size):
    path = _write(tmp_path / "shard", [os.urandom(1000)] * 4)
    os.truncate(path, size)

    with pytest.raises(errors.CorruptDatasetError) as raised:
        ArrayRecordFile(path, 4)

    helpers.check_message(raised, path, "damaged or was not finished", "says 4")


@pytest.mark.parametrize("field", [8, 25], ids=["size", "number of records"])
def test_a_chunk_that_says_it_is_longer_than_the_file(tmp_path, field):
    path = _write(tmp_path / "shard", [os.urandom(1000)] * 4)
    file = ArrayRecordFile(path, 4)
    last, _, _ = file._places[3]
    file.close()
    with open(path, "r+b") as damaged:
        damaged.seek(last - 40 + field)  # in the chunk's header
        damaged.write((10**6).to_bytes(7, "little"))

    with pytest.raises(
        errors.CorruptDatasetError, match=r"finished; 3 records can be read.* says 4"
    ):
        ArrayRecordFile(path, 4)


@pytest.mark.parametrize("codec", ["zstd:1", "brotli:3", "snappy"])
def test_a_record_whose_compressed_data_is_damaged(tmp_path, codec):
    record = bytes(range(256)) * 40
    path = _write(tmp_path / "shard", [record] * 2, f"group_size:1,{codec}")
    file = ArrayRecordFile(path, 2)
    position, size, _ = file._places[0]
    with open(path, "r+b") as damaged:
        damaged.seek(position + 6)  # the compression and the sizes are as they were
        data = damaged.read(size - 6)
        damaged.seek(position + 6)
        damaged.write(bytes(byte ^ 0xFF for byte in data))

    for read in (file.read, file.open, lambda index: file.read_part(index, 0, 10)):
        with pytest.raises(errors.CorruptDatasetError) as raised:
            read(0)
        helpers.check_message(raised, path, "episode 0")
    assert file.read(1) == record
    file.close()


def test_a_record_that_cannot_be_decompressed_spoils_no_other(tmp_path):
    records = [bytes([i]) * 3000 for i in range(3)]
    path = _write(tmp_path / "shard", records)
    file = ArrayRecordFile(path, 3)
    position, size, _ = file._places[1]
    with open(path, "r+b") as damaged:
        damaged.seek(position)
        damaged.write(os.urandom(size))

    with pytest.raises(errors.CorruptDatasetError) as raised:
        file.read(1)
    helpers.check_message(raised, path, "episode 1", "other episodes can be read")
    assert [file.read(0), file.read(2)] == [records[0], records[2]]
    file.close()
    file.close()
