# SPDX-License-Identifier: Apache-2.0
"""Builders over logged runs, against what was logged."""

from __future__ import annotations

import contextlib
import io

import foreign
import helpers
import numpy as np
import pytest
import riegeli_samples
import runs_builders
import sample_datasets
import snapshots
import stored
import tensorflow_datasets as tfds

import envlogger
import envlogger.tfds
from envlogger import errors
from envlogger.testing import catch_env
from envlogger.testing.comparison import assert_same
from envlogger.tfds import dataset

pytestmark = pytest.mark.filterwarnings("ignore")  # TFDS's own


def _logged(runs):
    return {name: steps for run in runs for name, steps in runs_builders.by_id(run).items()}


# Copies


def test_reader_gives_back_what_was_logged(runs, merged):
    got = runs_builders.by_id(merged)
    expected = _logged(runs)

    assert len(expected) == 30
    assert got.keys() == expected.keys()
    for name, steps in expected.items():
        assert_same(got[name], steps)
    with envlogger.Reader(merged) as reader, envlogger.Reader(runs[0]) as run:
        for spec in ("observation_spec", "action_spec", "reward_spec", "discount_spec"):
            assert getattr(reader, spec)() == getattr(run, spec)()


def test_records_and_features_are_copied(runs, merged):
    sources = [record for run in runs for record in runs_builders.records(run, "train")]
    copies = {split: runs_builders.records(merged, split) for split in ("train", "test")}

    assert sorted(copies["train"] + copies["test"]) == sorted(sources)
    for records in copies.values():  # in the order of the sources
        assert [sources.index(record) for record in records] == sorted(map(sources.index, records))
    assert runs_builders.bare_features(merged) == runs_builders.bare_features(runs[0])


def test_records_are_not_decoded(runs, tmp_path, monkeypatch):
    def decode(self, record, where):
        raise AssertionError("a record was decoded")

    monkeypatch.setattr("envlogger.tfds.stored_episode.Decoder.decode", decode)
    runs_builders.build(runs_builders.SplitRuns, tmp_path, runs)


def test_everything_that_can_be_logged_is_copied(tmp_path):
    directory = runs_builders.build(runs_builders.Runs, tmp_path, [sample_datasets.GOLDEN])

    assert_same(helpers.read(directory), helpers.read(sample_datasets.GOLDEN))
    assert_same(helpers.read_metadata(directory), helpers.read_metadata(sample_datasets.GOLDEN))
    with envlogger.Reader(directory) as reader, envlogger.Reader(sample_datasets.GOLDEN) as source:
        assert_same(reader.metadata(), source.metadata())


def test_tfds_reads_what_was_logged(merged):
    for split in ("train", "test"):
        with envlogger.Reader(merged, split) as reader:
            run, metadata = list(map(list, reader.episodes)), list(reader.episode_metadata())
        root = merged.parents[2]
        source = tfds.data_source("split_runs/all", data_dir=root, split=split)
        stored.check(list(source), run, metadata, is_numpy_path=True)
        loaded = tfds.as_numpy(tfds.load("split_runs/all", data_dir=root, split=split))
        episodes = [{**episode, "steps": list(episode["steps"])} for episode in loaded]
        stored.check(episodes, run, metadata, is_numpy_path=False)


def test_datasets_of_others_are_copied(tmp_path):
    source = sample_datasets.OPENX
    directory = runs_builders.build(runs_builders.Runs, tmp_path, [source])

    assert runs_builders.bare_features(directory) == runs_builders.bare_features(source)
    for split in ("train", "val"):
        assert runs_builders.records(directory, split) == runs_builders.records(source, split)
    before = tfds.as_numpy(tfds.builder_from_directory(source).as_dataset(split="train"))
    after = tfds.as_numpy(tfds.builder_from_directory(directory).as_dataset(split="train"))
    for one, other in zip(after, before, strict=True):
        assert_same(list(one.pop("steps")), list(other.pop("steps")))
        assert_same(one, other)


def test_names_of_labels_are_taken_over(tmp_path):
    source = foreign.write(
        tmp_path / "source" / "1.0.0",
        {"is_first": np.bool_},
        [{"kind": "run", "steps": [{"is_first": True}]}],
        "array_record",
        {"kind": tfds.features.ClassLabel(names=["walk", "run"])},
    )

    directory = runs_builders.build(runs_builders.Runs, tmp_path / "data", [source])
    kind = tfds.builder_from_directory(directory).info.features["kind"]
    assert kind.names == ["walk", "run"]


def test_logs_of_envlogger_1_are_built(tmp_path):
    cases = ("opt_brotli", "v13codec_catch", "nested")
    for case in cases:
        logs = [riegeli_samples.log(case)]
        directory = runs_builders.build(runs_builders.Runs, tmp_path / case, logs)
        expected = riegeli_samples.Expected(case)
        got = helpers.read(directory)
        assert_same(helpers.sort_keys(got), helpers.sort_keys(expected.episodes))
        assert_same(helpers.read_metadata(directory), expected.episode_metadata)


def test_logs_and_datasets_are_merged(tmp_path):
    """The features of both, with masks for what only one of them has."""
    log, run = riegeli_samples.log("opt_brotli"), tmp_path / "run"
    helpers.record(run, [[helpers.first(np.zeros((10, 5), np.float32))]])
    directory = runs_builders.build(runs_builders.Runs, tmp_path / "data", [run, log])

    got = helpers.read(directory)
    with envlogger.Reader(log) as reader:
        expected = [*helpers.read(run), *map(list, reader.episodes)]
        metadata = [*helpers.read_metadata(run), *reader.episode_metadata()]
    assert_same(helpers.sort_keys(got), helpers.sort_keys(expected))
    assert_same(helpers.read_metadata(directory), metadata)


def test_features_that_one_run_has_get_masks(tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    helpers.record(first, [helpers.GOOD], step_fn=lambda timestep, action, env: {"x": 1.5})
    helpers.record(second, [helpers.GOOD])

    directory = runs_builders.build(runs_builders.Runs, tmp_path / "data", [first, second])
    assert_same(helpers.read(directory), [*helpers.read(first), *helpers.read(second)])
    one, two = helpers.source_steps(directory)
    assert [step["present"]["x"] for step in one] == [True] * 3
    assert [step["present"]["x"] for step in two] == [False] * 3
    assert runs_builders.records(directory, "train")[0].startswith(
        runs_builders.records(first, "train")[0]
    )


# What TFDS makes of it


def test_page(merged):
    info = tfds.builder_from_directory(str(merged)).info
    steps = info.features["steps"]
    assert info.description == "Splits by fraction."
    for name in ("observation", "action", "reward", "discount", "is_first", "is_last"):
        assert steps[name].doc.desc
    assert steps["is_terminal"].doc.desc
    assert info.features["steps"].doc.desc
    assert info.features["episode_id"].doc.desc
    assert (info.splits["train"].num_examples + info.splits["test"].num_examples) == 30


def test_as_dataframe_and_benchmark(merged):
    builder = tfds.builder_from_directory(str(merged))
    frame = tfds.as_dataframe(builder.as_dataset(split="train").take(3), builder.info)
    assert len(frame) == 3
    assert "episode_id" in frame.columns
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        result = tfds.benchmark(builder.as_dataset(split="train"), num_iter=5)
    assert result.stats is not None


def test_same_sources_give_the_same_bits(runs, merged, tmp_path):
    again = runs_builders.build(runs_builders.SplitRuns, tmp_path, runs)

    assert snapshots.contents(again) == snapshots.contents(merged)


def test_shards(runs, tmp_path):
    directory = runs_builders.build(runs_builders.Runs, tmp_path, runs, num_shards=7)

    lengths = dataset.load(str(directory)).info.shard_lengths["train"]
    assert (len(lengths), sum(lengths)) == (7, 30)
    assert len(list(directory.glob("*.array_record-*-of-00007"))) == 7
    with envlogger.Reader(directory) as reader:
        assert reader.episode_lengths().tolist() == [5] * 30


def test_at_most_some_episodes(runs, tmp_path):
    directory = runs_builders.build(runs_builders.Runs, tmp_path, runs, max_examples_per_split=2)

    assert_same(helpers.read(directory), helpers.read(runs[0])[:2])


def test_metadata_of_runs_is_kept(runs, merged):
    with envlogger.Reader(merged) as reader:
        metadata = reader.metadata()
    assert metadata["agent"] == "random"
    assert metadata["runs"] == [{"sessions": [f"run-{i}"], "seed": i} for i in range(3)]


def test_what_was_built_can_be_built_from(runs, merged, tmp_path):
    again = runs_builders.build(runs_builders.Runs, tmp_path, [merged])

    for split in ("train", "test"):
        assert_same(helpers.read(again, split), helpers.read(merged, split))
    with envlogger.Reader(merged) as source, envlogger.Reader(again) as reader:
        assert_same(reader.metadata(), source.metadata())


def test_nothing_is_appended_to_what_was_built(merged):
    before = snapshots.contents(merged)
    with pytest.raises(errors.DatasetError, match="builder"):
        envlogger.EnvLogger(catch_env.Catch(5, 3), data_directory=str(merged), helper=False)
    assert snapshots.contents(merged) == before


def test_tfrecord_can_be_added_to_what_was_built(runs, tmp_path):
    directory = runs_builders.build(runs_builders.Runs, tmp_path, runs)
    envlogger.convert(directory, file_format="tfrecord")

    assert len(list(directory.glob("*.tfrecord-00000-of-00001"))) == 1
    assert len(helpers.read(directory)) == len(helpers.tf_episodes(directory)) == 30
