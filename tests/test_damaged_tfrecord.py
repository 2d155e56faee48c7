# SPDX-License-Identifier: Apache-2.0
"""TFRecord shards that are missing or damaged: an error says which, and other episodes can be read."""

from __future__ import annotations

import json
import struct

import damage
import foreign
import helpers
import pytest

import envlogger
from envlogger import errors


@pytest.fixture
def others(tmp_path):
    return foreign.write_shards(tmp_path / "others" / "1.0.0")


def _shard(path, index):
    return path / f"toy-train.tfrecord-{index:05d}"


def test_a_tfrecord_that_is_missing_spoils_no_other(others):
    _shard(others, 1).unlink()

    with envlogger.Reader(others) as reader:
        assert len(reader.episodes[0]) == 3
        with pytest.raises(errors.CorruptDatasetError) as raised:
            reader.episodes[2][0]

    helpers.check_message(raised, str(_shard(others, 1)), "missing", "2 episodes", "Restore it")


@pytest.mark.parametrize("size", [0, 5, 100, -1, -20])
def test_a_tfrecord_that_is_cut_off(others, size):
    data = _shard(others, 0).read_bytes()
    _shard(others, 0).write_bytes(data[:size])

    with envlogger.Reader(others) as reader:
        with pytest.raises(errors.CorruptDatasetError) as raised:
            list(reader.episodes[0])
        assert len(list(reader.episodes[2])) == 4

    helpers.check_message(raised, str(_shard(others, 0)), "damaged or was not finished", "says 2")


def test_a_tfrecord_with_a_damaged_record_spoils_no_other(others):
    (length,) = struct.unpack_from("<Q", _shard(others, 0).read_bytes())
    damage.flip(_shard(others, 0), 12 + length // 2)

    with envlogger.Reader(others) as reader:
        with pytest.raises(errors.CorruptDatasetError) as raised:
            list(reader.episodes[0])
        assert len(list(reader.episodes[1])) == 1

    helpers.check_message(raised, str(_shard(others, 0)), "episode 0", "other episodes can be read")


@pytest.mark.parametrize("place", [0, 7, 8, 11])
def test_a_tfrecord_with_a_damaged_length(others, place):
    damage.flip(_shard(others, 0), place, bits=0xFF)

    with envlogger.Reader(others) as reader, pytest.raises(errors.CorruptDatasetError) as raised:
        list(reader.episodes[0])

    helpers.check_message(raised, str(_shard(others, 0)), "damaged")


def test_a_record_that_lacks_a_feature_names_it(others):
    features = json.loads((others / "features.json").read_text())
    entries = features["featuresDict"]["features"]["steps"]["sequence"]["feature"]
    entries["featuresDict"]["features"]["camera"] = entries["featuresDict"]["features"]["reward"]
    (others / "features.json").write_text(json.dumps(features))

    with envlogger.Reader(others) as reader:
        assert reader.episodes[0].columns(["reward"])["reward"].shape == (3,)
        for read in (reader.episodes[0].columns, lambda: reader.episodes[0][0]):
            with pytest.raises(errors.CorruptDatasetError) as raised:
                read()
            helpers.check_message(
                raised, str(_shard(others, 0)), "steps/camera", "not in the record"
            )
