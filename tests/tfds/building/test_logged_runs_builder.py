# SPDX-License-Identifier: Apache-2.0
"""Builders over logged runs, against what was logged."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import pathlib
import shutil

import helpers
import numpy as np
import pytest
import riegeli_samples
import runs_builders
import stored
import tensorflow_datasets as tfds

import envlogger
import envlogger.tfds
from envlogger import errors
from envlogger.testing import catch_env
from envlogger.testing.comparison import assert_same
from envlogger.tfds import dataset
from envlogger.tfds.building import planning
from envlogger.tfds.building.hooks import Hooks

pytestmark = pytest.mark.filterwarnings("ignore")  # TFDS's own

_DATA = pathlib.Path(__file__).parents[2]
_GOLDEN = _DATA / "golden" / "everything" / "1.0.0"
_FOREIGN = _DATA / "data" / "tfds_legacy"


def _record(path, seed, num_episodes=10, **options):
    """Records Catch, with float64, strings and numbers of episodes in the metadata."""
    rng = np.random.default_rng(seed)
    played = []
    with envlogger.EnvLogger(
        catch_env.Catch(rows=5, columns=3, seed=seed),
        step_fn=lambda timestep, action, env: {"noise": rng.normal(), "text": f"{seed}"},
        episode_fn=lambda timestep, action, env: {"number": len(played)},
        metadata={"agent": "random", "seed": seed},
        data_directory=str(path),
        max_episodes_per_file=4,
        session_id=f"run-{seed}",
        helper=False,
        **options,
    ) as env:
        while len(played) < num_episodes:
            timestep = env.reset()
            while not timestep.last():
                timestep = env.step(int(rng.integers(3)))
            played.append(timestep)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [_record(root / f"robot_{seed}" / "catch" / "1.0.0", seed) for seed in range(3)]


@pytest.fixture(scope="module")
def merged(runs, tmp_path_factory):
    return runs_builders.build(runs_builders.SplitRuns, tmp_path_factory.mktemp("merged"), runs)


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
    directory = runs_builders.build(runs_builders.Runs, tmp_path, [_GOLDEN])

    assert_same(helpers.read(directory), helpers.read(_GOLDEN))
    assert_same(helpers.read_metadata(directory), helpers.read_metadata(_GOLDEN))
    with envlogger.Reader(directory) as reader, envlogger.Reader(_GOLDEN) as source:
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
    source = _FOREIGN / "openx_style" / "1.0.0"
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
    source = tmp_path / "source" / "1.0.0"
    source.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "kind": tfds.features.ClassLabel(names=["walk", "run"]),
            "steps": tfds.features.Dataset({"is_first": np.bool_}),
        }
    )
    writer = tfds.core.SequentialWriter(
        tfds.core.DatasetInfo(
            builder=tfds.core.DatasetIdentity(
                name="source",
                version=tfds.core.Version("1.0.0"),
                data_dir=str(source),
                module_name="",
            ),
            features=features,
        ),
        max_examples_per_shard=2,
        file_format="array_record",
    )
    writer.initialize_splits(["train"])
    writer.add_examples({"train": [{"kind": "run", "steps": [{"is_first": True}]}]})
    writer.close_all()

    directory = runs_builders.build(runs_builders.Runs, tmp_path / "data", [source])
    kind = tfds.builder_from_directory(directory).info.features["kind"]
    assert kind.names == ["walk", "run"]


def test_logs_of_envlogger_1_are_built(tmp_path):
    cases = ("opt_brotli", "v13codec_catch", "nested")
    for case in cases:
        logs = [riegeli_samples.log(case)]
        directory = runs_builders.build(runs_builders.Runs, tmp_path / case, logs)
        expected = riegeli_samples.Expected(case)
        starts = np.cumsum([0, *expected.episode_lengths])
        steps = [expected.steps[a:b] for a, b in itertools.pairwise(starts)]
        got = helpers.read(directory)
        assert_same(riegeli_samples.sort_keys(got), riegeli_samples.sort_keys(steps))
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
    assert_same(riegeli_samples.sort_keys(got), riegeli_samples.sort_keys(expected))
    assert_same(helpers.read_metadata(directory), metadata)


def test_features_that_one_run_has_get_masks(tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    episode = [helpers.first(), helpers.mid(), helpers.last()]
    helpers.record(first, [episode], step_fn=lambda timestep, action, env: {"x": 1.5})
    helpers.record(second, [episode])

    directory = runs_builders.build(runs_builders.Runs, tmp_path / "data", [first, second])
    assert_same(helpers.read(directory), [*helpers.read(first), *helpers.read(second)])
    one, two = helpers.source_steps(directory)
    assert [step["present"]["x"] for step in one] == [True] * 3
    assert [step["present"]["x"] for step in two] == [False] * 3
    assert runs_builders.records(directory, "train")[0].startswith(
        runs_builders.records(first, "train")[0]
    )


# Splits


def test_splits_by_fraction_depend_on_ids_alone(runs, merged, tmp_path):
    def splits(directory):
        with_ids = tfds.builder_from_directory(str(directory)).as_data_source()
        return {e["episode_id"]: split for split, source in with_ids.items() for e in source}

    copy = tmp_path / "moved"
    envlogger.convert(runs[1], copy, file_format="tfrecord")
    fewer = runs_builders.build(runs_builders.SplitRuns, tmp_path / "data", [copy])

    assert len(splits(fewer)) == 10
    assert splits(fewer).items() <= splits(merged).items()


def test_fractions_are_what_they_say():
    choice = planning.Choice(Hooks(), {"a": 0.5, "b": 0.3, "c": 0.2})
    found = [choice.by_fraction(f"run-{i}") for i in range(10_000)]
    for split, fraction in choice.fractions.items():
        assert abs(found.count(split) / len(found) - fraction) < 0.02


def test_splits_by_rule(runs, tmp_path):
    directory = runs_builders.build(runs_builders.RuledRuns, tmp_path, runs)

    with envlogger.Reader(directory) as reader:
        assert len(reader.episodes) == 27  # without the first of each
    for seed in range(3):
        with envlogger.Reader(directory, f"seed_{seed}") as reader:
            assert [m["number"] for m in reader.episode_metadata()] == list(range(1, 10))
            assert reader.steps[0].custom_data["text"] == f"{seed}"
        sources = runs_builders.records(runs[seed], "train")
        assert runs_builders.records(directory, f"seed_{seed}") == sources[1:]


# Maps and filters


def test_maps_and_filters(runs, tmp_path):
    directory = runs_builders.build(runs_builders.ChangedRuns, tmp_path, runs[:2])

    expected = {}
    for run in runs[:2]:
        for number, (name, steps) in enumerate(runs_builders.by_id(run).items()):
            if number != 2:
                expected[name] = [_halved(step) for step in steps if step.action != 1]
    got = runs_builders.by_id(directory)
    assert list(got) == list(expected)
    assert_same(list(got.values()), list(expected.values()))
    assert helpers.read_metadata(directory) == [{"length": len(s)} for s in expected.values()]
    features = json.loads((directory / "features.json").read_text())["featuresDict"]["features"]
    steps = features["steps"]["sequence"]["feature"]["featuresDict"]["features"]
    assert steps["reward"]["tensor"] == {"shape": {}, "dtype": "float64", "encoding": "bytes"}
    with envlogger.Reader(directory) as reader:
        assert reader.metadata()["agent"] == "random"
        assert reader.observation_spec() is None  # a map may have changed it


def _halved(step):
    timestep = step.timestep
    if timestep.reward is not None:
        timestep = timestep._replace(reward=np.float64(timestep.reward / 2))
    return step._replace(timestep=timestep)


@pytest.mark.parametrize(
    "source", [_GOLDEN, _FOREIGN / "openx_style" / "1.0.0", riegeli_samples.log("dtypes")]
)
def test_what_a_map_leaves_as_it_is_stays_so(source, tmp_path):
    directory = runs_builders.build(runs_builders.MappedRuns, tmp_path, [source])

    with envlogger.Reader(directory) as reader, envlogger.Reader(source) as before:
        assert_same(
            riegeli_samples.sort_keys([list(episode) for episode in reader.episodes]),
            riegeli_samples.sort_keys([list(episode) for episode in before.episodes]),
        )
        assert len(reader.episodes) > 0


def test_episodes_whose_process_died_stay_invalid(tmp_path):
    killed = _DATA.parent / "dataset_builders" / "merge_runs" / "sample_data" / "robot_b"
    directory = runs_builders.build(runs_builders.MappedRuns, tmp_path, [killed])

    assert [e["invalid"] for e in helpers.data_source(directory)] == [False] * 12 + [True]


def test_episodes_with_ids_of_the_callers(tmp_path):
    """Ids that a caller gave need not be unique; the split goes by them all the same."""
    runs = [tmp_path / f"run_{number}" for number in range(2)]
    for number, run in enumerate(runs):
        with envlogger.tfds.EpisodeWriter(run) as writer:
            for name in "ab":
                steps = [
                    {"observation": np.float64(number), "action": np.int64(i)} for i in range(3)
                ]
                writer.add_episode(steps, {"episode_id": name, "number": number})

    copies = runs_builders.build(runs_builders.Runs, tmp_path / "data", runs)
    sources = [record for run in runs for record in runs_builders.records(run, "train")]
    assert runs_builders.records(copies, "train") == sources

    mapped = runs_builders.build(runs_builders.MappedRuns, tmp_path / "data", runs)
    assert_same(helpers.read(mapped), helpers.read(copies))
    assert helpers.read_metadata(mapped) == [{"number": number} for number in (0, 0, 1, 1)]
    assert [e["episode_id"] for e in helpers.data_source(mapped)] == [b"a", b"b"] * 2


@pytest.mark.parametrize("hook", ["map_step", "map_episode", "split_of"])
def test_hooks_that_return_nothing(hook, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(runs_builders.NothingRuns, hook, lambda self, item: None, raising=False)
    with pytest.raises((errors.UnsupportedValueError, errors.OptionError)) as raised:
        runs_builders.build(runs_builders.NothingRuns, tmp_path, runs)
    helpers.check_message(raised, hook, "got None", "filter_episode")


def test_rlds_tells_the_truth_where_the_last_step_is_left_out(tmp_path):
    run = tmp_path / "run"
    helpers.record(run, [[helpers.first(0.0), helpers.mid(1.0), helpers.last(2.0)]])  # actions 0, 1
    directory = runs_builders.build(runs_builders.ChangedRuns, tmp_path / "data", [run])

    (steps,) = helpers.source_steps(directory)
    assert [step["observation"] for step in steps] == [0.0, 1.0]
    assert [step["is_last"] for step in steps] == [False, True]
    assert [step["is_terminal"] for step in steps] == [False, False]


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

    assert runs_builders.contents(again) == runs_builders.contents(merged)


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
    before = runs_builders.contents(merged)
    with pytest.raises(errors.DatasetError, match="builder"):
        envlogger.EnvLogger(catch_env.Catch(5, 3), data_directory=str(merged), helper=False)
    assert runs_builders.contents(merged) == before


def test_tfrecord_can_be_added_to_what_was_built(runs, tmp_path):
    directory = runs_builders.build(runs_builders.Runs, tmp_path, runs)
    envlogger.convert(directory, file_format="tfrecord")

    assert len(list(directory.glob("*.tfrecord-00000-of-00001"))) == 1
    assert len(helpers.read(directory)) == len(helpers.tf_episodes(directory)) == 30


# Sources


def test_sources_are_found_below_directories_and_by_globs(runs, tmp_path):
    root = runs[0].parents[2]
    for number, source in enumerate([root, root / "robot_?", root / "**" / "1.0.0"]):
        directory = runs_builders.build(
            runs_builders.Runs, tmp_path / f"{number}", [source, runs[1]]
        )
        with envlogger.Reader(directory) as reader:
            assert len(reader.episodes) == 30


def test_links_to_runs_and_in_a_circle(runs, tmp_path):
    collected = tmp_path / "collected"
    collected.mkdir()
    (collected / "run").symlink_to(runs[0])
    (collected / "again").symlink_to(runs[0])
    (collected / "circle").symlink_to(collected)
    directory = runs_builders.build(runs_builders.Runs, tmp_path / "data", [collected])

    assert_same(helpers.read(directory), helpers.read(runs[0]))


def test_no_sources(tmp_path):
    for source in (tmp_path, tmp_path / "no*"):
        with pytest.raises(errors.DatasetError) as raised:
            runs_builders.build(runs_builders.Runs, tmp_path / "data", [source])
        helpers.check_message(raised, str(source), "there is no run", "directories")
    assert not list((tmp_path / "data").rglob("dataset_info.json"))


def test_an_episode_that_is_there_twice(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    with pytest.raises(errors.DatasetError) as raised:
        runs_builders.build(runs_builders.Runs, tmp_path / "data", [runs[0], copy])
    helpers.check_message(raised, str(copy), "run-0-000000000", str(runs[0]), "ignore_duplicates")

    directory = runs_builders.build(
        runs_builders.Runs, tmp_path / "data", [runs[0], copy], ignore_duplicates=True
    )
    assert_same(helpers.read(directory), helpers.read(runs[0]))


def test_a_split_without_episodes(tmp_path):
    run = _record(tmp_path / "run", 0, num_episodes=1)
    with pytest.raises(errors.DatasetError, match="of 1 episodes none falls into the split '"):
        runs_builders.build(runs_builders.SplitRuns, tmp_path / "data", [run])


def test_runs_that_do_not_fit(runs, tmp_path):
    other = tmp_path / "other"
    helpers.record(other, [[helpers.first(), helpers.last()]])
    with pytest.raises(errors.ValueMismatchError) as raised:
        runs_builders.build(runs_builders.Runs, tmp_path / "data", [runs[0], other])
    helpers.check_message(raised, str(other), "observation", "map_step")

    foreign = _FOREIGN / "openx_style" / "1.0.0"
    with pytest.raises(errors.ValueMismatchError) as raised:
        runs_builders.build(runs_builders.Runs, tmp_path / "data", [runs[0], foreign])
    helpers.check_message(raised, str(foreign), str(runs[0]), "map_step")


@pytest.mark.parametrize(
    "fractions", [{"train": 0.5}, {"train": 1.5, "test": -0.5}, {"train": 0.9, "all": 0.1}]
)
def test_fractions_that_are_none(fractions):
    with pytest.raises(errors.OptionError):
        planning.Choice(Hooks(), fractions)


def test_a_damaged_run(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    shard = min(copy.glob("*.array_record-*"))
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(errors.CorruptDatasetError, match=shard.name):
        runs_builders.build(runs_builders.Runs, tmp_path / "data", [copy])
    assert not list((tmp_path / "data").rglob("dataset_info.json"))
