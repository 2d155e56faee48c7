# SPDX-License-Identifier: Apache-2.0
"""Large records of ArrayRecord as tf.data: the library compares them once, then they are read without it."""

from __future__ import annotations

import os

import array_record_library
import array_records
import damage
import helpers
import numpy as np
import pytest

from envlogger import memory
from envlogger.tfds import array_record_file


def _records():
    """Returns records of which every other is large, the one after the first by a byte."""
    rng = np.random.default_rng(0)
    sizes = [9, memory.LARGE, memory.LARGE - 1, memory.LARGE + 7, 20_000, 3 * memory.LARGE]
    return [rng.integers(0, 5, size, np.uint8).tobytes() for size in sizes]


def _write(path, records, options):
    array_record_library.write(path, records, f"group_size:1,{options}")


@pytest.fixture
def read_in_python(monkeypatch):
    """A list that gets the number of each record that is read without the library."""
    owner = array_record_file.ArrayRecordFile
    return helpers.spy(monkeypatch, owner, "read", lambda file, number: number)


@pytest.mark.parametrize("options", ["uncompressed", "zstd:1", "brotli:1", "snappy"])
def test_the_library_reads_a_large_record_once(tmp_path, read_in_python, options):
    path, records = tmp_path / "shard", _records()
    _write(path, records, options)

    assert array_records.records(path) == records
    assert read_in_python == []
    assert array_records.records(path) == records
    assert read_in_python == [i for i, record in enumerate(records) if len(record) >= memory.LARGE]


def test_a_file_in_its_place_is_compared_anew(tmp_path, read_in_python):
    path, records = tmp_path / "shard", _records()
    _write(path, records, "uncompressed")
    array_records.records(path)
    _write(tmp_path / "other", records[::-1], "uncompressed")
    os.replace(tmp_path / "other", path)

    assert array_records.records(path) == records[::-1]
    assert read_in_python == []


def test_a_byte_that_changes_is_found_the_first_time(tmp_path):
    path, records = tmp_path / "shard", _records()
    _write(path, records, "uncompressed")
    damage.flip(path, path.read_bytes().index(records[3][:1000]) + 500)

    with pytest.raises(Exception, match="record 3 cannot be read"):
        array_records.records(path)
