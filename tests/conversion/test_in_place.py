# SPDX-License-Identifier: Apache-2.0
"""A second file format beside the first: stock TFDS reads both, writers go on with both."""

from __future__ import annotations

import json
import os
import shutil

import helpers
import processes
import pytest
import riegeli_samples
import sample_datasets
import snapshots

import envlogger
from envlogger import errors
from envlogger.conversion import in_place
from envlogger.testing import catch_env
from envlogger.testing.comparison import assert_same
from envlogger.tfds import shard_files

# Reads a dataset with TensorFlow, as somebody does who has never heard of this library.
_STOCK = """
import sys
sys.modules["envlogger"] = None
import tensorflow_datasets as tfds
root, name = sys.argv[1:]
def count(dataset):
    return sum(1 for episode in dataset for step in episode["steps"])
print(count(tfds.load(name, data_dir=root, split="train")))
directory = f"{root}/{name}/1.0.0"
for file_format in (None, "tfrecord"):
    builder = tfds.builder_from_directory(directory, file_format=file_format)
    print(count(builder.as_dataset(split="train")))
print(len(tfds.data_source(name, data_dir=root, split="train")))
"""


def _record(path, num_episodes=5, **options):
    with envlogger.EnvLogger(
        catch_env.Catch(rows=5, columns=3),
        data_directory=path,
        max_episodes_per_file=2,
        helper=False,
        **options,
    ) as env:
        helpers.play_whole(env, num_episodes)


def _check_shards(path):
    """Fails unless each shard is there in both formats, with the same records; returns how many."""
    info = json.loads((path / "dataset_info.json").read_text())
    assert (info["fileFormat"], info["alternativeFileFormats"]) == ("tfrecord", ["array_record"])
    found = 0
    for split in info["splits"]:
        for index, length in enumerate(map(int, split["shardLengths"])):
            records = []
            for file_format in ("array_record", "tfrecord"):
                name = f"{info['name']}-{split['name']}.{file_format}-{index:05d}"
                records.append(list(shard_files.read_all(str(path / name), file_format, length)))
            assert records[0] == records[1]
            found += 1
    names = [name for name in os.listdir(path) if "record-" in name]
    assert len(names) == 2 * found  # and nothing else
    return found


def test_stock_tfds_reads_both(tmp_path):
    path = tmp_path / "catch" / "1.0.0"
    _record(path)
    before = helpers.read(path)
    report = envlogger.convert(path, file_format="tfrecord")
    assert (report.num_episodes, report.formats) == (5, ("tfrecord", "array_record"))
    assert _check_shards(path) == 3
    assert_same(helpers.read(path), before)
    assert sorted(os.listdir(path / ".envlogger")) == ["index", "lock", "sessions"]
    counts = processes.python(_STOCK, tmp_path, "catch", timeout=200).stdout
    assert counts.split() == ["25", "25", "25", "5"]


def test_writers_go_on_with_both(tmp_path):
    path = tmp_path / "catch" / "1.0.0"
    _record(path, 3)
    envlogger.convert(path, path, file_format="tfrecord")
    _record(path, 3)
    assert _check_shards(path) == 4
    # A feature that turns up late goes into all shards, of both formats.
    _record(path, 1, step_fn=lambda *_: {"late": 1})
    assert _check_shards(path) == 5
    assert len(helpers.read(path)) == 7
    by_tf = [episode["steps"] for episode in helpers.tf_episodes(path)]
    for episodes in (helpers.source_steps(path), by_tf):
        late = [bool(steps[0]["present"]["late"]) for steps in episodes]
        assert sorted(late) == [False] * 6 + [True]


@pytest.mark.parametrize("workers", [1, 2])
def test_array_record_beside_tfrecord(workers, tmp_path):
    path = tmp_path / "openx_style" / "1.0.0"
    shutil.copytree(sample_datasets.OPENX, path)
    before = helpers.read(path)
    envlogger.convert(path, path, workers=workers)
    assert _check_shards(path) == 4
    assert_same(helpers.read(path), before)
    assert len(helpers.data_source(path, "val")) == 2
    assert helpers.data_source(path)[0]["steps"] is not None


def test_array_record_beside_tfrecord_of_a_log(tmp_path):
    """What `convert --format tfrecord` made is appended to once ArrayRecord is there as well."""
    path = tmp_path / "catch" / "1.0.0"
    log = riegeli_samples.log("catch_default")
    envlogger.convert(log, path, file_format="tfrecord", max_episodes_per_file=6)
    before = helpers.read(path)
    files = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}

    with pytest.raises(errors.DatasetError) as raised:
        helpers.logger(path, catch_env.Catch())

    helpers.check_message(
        raised, str(path), "tfrecord files alone", f"`envlogger convert {path}`", "another data_dir"
    )
    assert {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()} == files
    report = envlogger.convert(path)
    assert (report.num_episodes, report.formats) == (20, ("tfrecord", "array_record"))
    assert _check_shards(path) == 4
    assert_same(helpers.read(path), before)
    with helpers.logger(path, catch_env.Catch()) as env:
        timesteps = [env.reset(), *(env.step(1) for _ in range(9))]
    assert _check_shards(path) == 5
    expected = [*before, helpers.expected_steps(timesteps, [1] * 9)]
    assert_same(helpers.sort_keys(helpers.read(path)), helpers.sort_keys(expected))


def test_array_record_beside_tfrecord_of_an_own_dataset(tmp_path):
    source, path = tmp_path / "catch" / "1.0.0", tmp_path / "copy" / "1.0.0"
    _record(source)
    envlogger.convert(source, path, file_format="tfrecord")
    envlogger.convert(path, path)
    _record(path, 2)
    assert _check_shards(path) == 4
    assert_same(helpers.read(path)[:5], helpers.read(source))


def test_doing_it_again_does_nothing(tmp_path):
    path = tmp_path / "catch" / "1.0.0"
    _record(path)
    assert envlogger.convert(path, path).was_done
    assert not envlogger.convert(path, path, file_format="tfrecord").was_done
    before = snapshots.stamps(path)
    assert envlogger.convert(path, path, file_format="tfrecord").was_done
    assert snapshots.stamps(path) == before


def test_shards_that_writers_publish_meanwhile(tmp_path, monkeypatch):
    """They come, and change, after the first pass over them and before its end."""
    path = tmp_path / "catch" / "1.0.0"
    _record(path, 4)
    acquire = in_place.session.Lock.acquire
    todo = [lambda: _record(path, 3, step_fn=lambda *_: {"late": 1})]

    def acquire_late(self, **options):
        if self._path.endswith(".envlogger/lock") and len(todo) == 1:
            todo.pop()()
        return acquire(self, **options)

    copy = in_place._copy

    def copy_then_patch(*arguments):
        copy(*arguments)
        monkeypatch.setattr(in_place.session.Lock, "acquire", acquire_late)

    monkeypatch.setattr(in_place, "_copy", copy_then_patch)
    envlogger.convert(path, path, file_format="tfrecord")
    assert not todo
    assert _check_shards(path) == 4
    assert len(helpers.read(path)) == 7


def test_a_log_cannot_be_converted_in_place():
    log = riegeli_samples.log("catch_default")
    with pytest.raises(errors.DatasetError, match="cannot be converted in place"):
        envlogger.convert(log, file_format="tfrecord")
