# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os

import helpers
import pytest
import tensorflow_datasets as tfds

from envlogger import errors
from envlogger.tfds import dataset_files
from envlogger.tfds.dataset_files import Identity, Info


@pytest.mark.parametrize(
    ("directory", "name", "version", "expected"),
    [
        ("/data/walker_walk/1.0.0", None, None, ("walker_walk", "1.0.0")),
        ("/data/walker_walk/1.0.0", "walker_walk", None, ("walker_walk", "1.0.0")),
        ("/data/walker_walk/1.0.0", None, "1.0.0", ("walker_walk", "1.0.0")),
        ("/data/catch", None, None, ("catch", "0.0.1")),
        ("/data/catch", "other", "2.3.4", ("other", "2.3.4")),
        ("/data/my-runs", None, None, ("envlogger_dataset", "0.0.1")),
        ("/data/Catch/1.0.0", None, None, ("envlogger_dataset", "0.0.1")),
        ("/data/catch/01.0.0", None, None, ("envlogger_dataset", "0.0.1")),
        ("/data/catch/1.0", "catch", "1.0.0", ("catch", "1.0.0")),
        ("/", None, None, ("envlogger_dataset", "0.0.1")),
    ],
)
def test_identity(directory, name, version, expected):
    assert dataset_files.identity_of(directory, name, version) == Identity(*expected)


@pytest.mark.parametrize(
    "name", ["", "Catch", "1catch", "_catch", "my-run", "a b", "a/b", "ключ", "a\n", "a" * 101, 3]
)
def test_illegal_names(name):
    with pytest.raises(errors.OptionError) as raised:
        dataset_files.identity_of("/data/x", name, None)

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, "dataset_name: got", repr(name), "expected", "such as")


@pytest.mark.parametrize(
    "version", ["", "1", "1.0", "01.0.0", "1.0.0.0", "v1.0.0", "1.0.x", "\u0661.0.0", 1.0]
)
def test_illegal_versions(version):
    with pytest.raises(errors.OptionError) as raised:
        dataset_files.identity_of("/data/x", None, version)

    helpers.check_message(raised, "version: got", repr(version), "expected", "such as '1.0.0'")


@pytest.mark.parametrize(
    "split", ["all", "", "a b", "train[:10%]", "a+b", "a/b", "-a", "a.b", "ü", "a" * 101]
)
def test_illegal_splits(split):
    with pytest.raises(errors.OptionError) as raised:
        dataset_files.check_split_name(split)

    helpers.check_message(raised, "split_name: got", repr(split), "expected", "Use a name such as")


@pytest.mark.parametrize("split", ["train", "test", "a-b_c", "0", "All", "a" * 100])
def test_legal_splits(split):
    dataset_files.check_split_name(split)


@pytest.mark.parametrize(("name", "version"), [("other", None), (None, "2.0.0")])
def test_a_directory_that_says_something_else(name, version):
    with pytest.raises(errors.OptionError) as raised:
        dataset_files.identity_of("/data/catch/1.0.0", name, version)

    helpers.check_message(raised, "/data/catch/1.0.0", "catch", "1.0.0", repr(name), repr(version))


def _info():
    return Info(
        Identity("catch", "1.2.3"),
        shard_lengths={"train": [5, 3], "test": [1]},
        shard_bytes={"train": 131072, "test": 65536},
        description="What it is.",
        citation="Somebody.",
    )


def test_info_comes_back():
    assert Info.from_json(json.loads(json.dumps(_info().to_json()))) == _info()


def test_tfds_reads_the_info_and_writes_the_same(tmp_path):
    node = _info().to_json()
    (tmp_path / "dataset_info.json").write_text(json.dumps(node))
    features = tfds.features.FeaturesDict({"steps": tfds.features.Dataset({})})
    features.save_config(str(tmp_path))

    builder = tfds.builder_from_directory(str(tmp_path))

    assert (builder.name, str(builder.version)) == ("catch", "1.2.3")
    assert builder.info.description == "What it is."
    assert builder.info.citation == "Somebody."
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 8,
        "test": 1,
    }
    assert [os.path.basename(path) for path in builder.info.splits["train"].filepaths] == [
        _info().shard_name("train", 0),
        _info().shard_name("train", 1),
    ]
    written = json.loads(builder.info.as_json)
    assert {**written, **node, "splits": None} == {**written, "splits": None}
    assert sorted(written["splits"], key=lambda s: s["name"]) == node["splits"]


def test_names_of_shards_of_other_writers():
    info = Info.from_json(
        {
            "name": "x",
            "version": "1.0.0",
            "fileFormat": "array_record",
            "splits": [{"name": "train", "shardLengths": ["2", "3"]}],
        }
    )

    assert info.shard_name("train", 1) == "x-train.array_record-00001-of-00002"
    assert info.file_format == "array_record"
    assert info.shard_lengths == {"train": [2, 3]}


def test_json_comes_back(tmp_path):
    path = str(tmp_path / "x.json")

    dataset_files.write_json(path, {"a": [1, None, "\ud800 ü"]})
    dataset_files.write_json(path, {"b": 1})

    assert dataset_files.read_json(path) == {"b": 1}
    assert os.listdir(tmp_path) == ["x.json"]


def test_json_that_cannot_be_written_leaves_the_old(tmp_path):
    path = str(tmp_path / "x.json")
    dataset_files.write_json(path, {"a": 1})

    for content in (object(), float("nan")):
        with pytest.raises((TypeError, ValueError)):
            dataset_files.write_json(path, content)

    assert dataset_files.read_json(path) == {"a": 1}


def test_a_missing_json(tmp_path):
    with pytest.raises(errors.CorruptDatasetError) as raised:
        dataset_files.read_json(str(tmp_path / "x.json"))

    assert isinstance(raised.value, OSError)
    helpers.check_message(raised, str(tmp_path / "x.json"), "missing", "Restore it from a copy")


@pytest.mark.parametrize("content", [b"", b'{"a": [1', b"\xff\xfe", b"{} x", b"[]"])
def test_a_damaged_json(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)

    with pytest.raises(errors.CorruptDatasetError) as raised:
        dataset_files.read_json(str(tmp_path / "x.json"))

    helpers.check_message(raised, str(tmp_path / "x.json"), "truncated or damaged", "Restore it")
