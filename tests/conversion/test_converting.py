# SPDX-License-Identifier: Apache-2.0
"""Converting logs and datasets into new directories: each step is compared, bits and Nones."""

from __future__ import annotations

import json
import os
import shutil
from typing import ClassVar

import damage
import dm_env
import helpers
import numpy as np
import processes
import pytest
import riegeli_samples
import sample_datasets
import snapshots

import envlogger
from envlogger import errors
from envlogger.conversion import riegeli_source, sources
from envlogger.riegeli import chunks
from envlogger.testing import catch_env
from envlogger.testing.comparison import assert_same

_EMPTY = {"catch_nothing", "killed_at_init", "killed_noflush"}
# Of those that differ in compression alone, one is enough here.
_LOGS = [
    case
    for case in (*riegeli_samples.CASES, *riegeli_samples.KILLED)
    if case not in _EMPTY and (case == "opt_zstd" or not case.startswith("opt_"))
]

pytestmark = pytest.mark.filterwarnings("ignore::envlogger.riegeli.log.LogWarning")


@pytest.fixture
def openx(tmp_path):
    """A dataset of others; a copy, since readers leave an index there."""
    return shutil.copytree(sample_datasets.OPENX, tmp_path / "openx_style" / "1.0.0")


def _assert_same_content(directory, source):
    """Compares all that two readers give; the keys of dicts may have another order."""
    with envlogger.Reader(directory) as got, envlogger.Reader(source) as expected:
        assert_same(helpers.sort_keys(list(got.steps)), helpers.sort_keys(list(expected.steps)))
        if len(expected.episodes):
            assert got.episode_lengths().tolist() == expected.episode_lengths().tolist()
            metadata = [list(map(helpers.sort_keys, r.episode_metadata())) for r in (got, expected)]
            assert_same(*metadata)
        assert_same(helpers.sort_keys(got.metadata()), helpers.sort_keys(expected.metadata()))
        for name in ("observation_spec", "action_spec", "reward_spec", "discount_spec"):
            assert repr(getattr(got, name)()) == repr(getattr(expected, name)())


@pytest.mark.parametrize("case", _LOGS)
def test_logs_of_envlogger_1(case, tmp_path):
    target = tmp_path / "log" / "1.0.0"
    report = envlogger.convert(riegeli_samples.log(case), target, max_episodes_per_file=2)
    _assert_same_content(target, riegeli_samples.log(case))
    assert report.num_episodes == len(helpers.data_source(target))
    assert os.listdir(tmp_path / "log") == ["1.0.0"]


@pytest.mark.parametrize("case", ["dtypes", "nested"])
def test_stock_tfds_reads_them(case, tmp_path):
    envlogger.convert(riegeli_samples.log(case), tmp_path / "x")
    with envlogger.Reader(tmp_path / "x") as reader:
        lengths = reader.episode_lengths().tolist()
    for episodes in (helpers.data_source(tmp_path / "x"), helpers.tf_episodes(tmp_path / "x")):
        assert [len(list(episode["steps"])) for episode in episodes] == lengths


@pytest.mark.parametrize("workers", [2, 3])
def test_by_several_processes(workers, tmp_path):
    for case in ("catch_default", "nested"):
        target = tmp_path / case / "1.0.0"
        envlogger.convert(
            riegeli_samples.log(case), target, workers=workers, max_episodes_per_file=3
        )
        _assert_same_content(target, riegeli_samples.log(case))


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
@pytest.mark.parametrize(
    "sample", [sample_datasets.CATCH, sample_datasets.OPENX], ids=lambda path: path.parent.name
)
def test_datasets_of_others_stay_as_they_are(sample, file_format, tmp_path):
    target = tmp_path / sample.relative_to(sample_datasets.OTHERS)
    source = shutil.copytree(sample, tmp_path / "source")
    envlogger.convert(source, target, file_format=file_format)
    _assert_same_content(target, source)
    assert (target / "features.json").read_bytes() == (source / "features.json").read_bytes()
    info, before = (
        json.loads((path / "dataset_info.json").read_text()) for path in (target, source)
    )
    assert info["fileFormat"] == file_format
    assert info.get("description") == before.get("description")
    assert [(s["name"], s["shardLengths"]) for s in info["splits"]] == [
        (s["name"], s["shardLengths"]) for s in before["splits"]
    ]
    expected = helpers.tf_episodes(source)
    assert_same(helpers.tf_episodes(target), expected)
    if file_format == "array_record":
        assert len(helpers.data_source(target)) == len(expected)


def test_another_name_is_told_to_tfds(openx, tmp_path):
    import tensorflow_datasets as tfds

    envlogger.convert(openx, tmp_path / "other" / "2.3.4")
    builder = tfds.builder("other", data_dir=tmp_path)
    assert (builder.info.name, str(builder.info.version)) == ("other", "2.3.4")
    assert len(builder.as_data_source("val")) == 2


def _record(path, num_episodes=7, **options):
    options = {"max_episodes_per_file": 3, "helper": False, **options}
    with envlogger.EnvLogger(
        catch_env.Catch(rows=5, columns=3),
        data_directory=path,
        metadata={"agent": "none", "tuple": (1, None)},
        step_fn=lambda timestep, action, env: {"n": timestep.reward},
        episode_fn=lambda timestep, action, env: {"return": timestep.reward},
        **options,
    ) as env:
        helpers.play_whole(env, num_episodes, lambda number: number % 3)


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_own_datasets_are_copied(file_format, tmp_path):
    source, target = tmp_path / "catch" / "1.0.0", tmp_path / "copy" / "2.0.0"
    _record(source)
    envlogger.convert(source, target, file_format=file_format)
    _assert_same_content(target, source)
    found, expected = (
        (path / ".envlogger" / "index" / "train").read_bytes() for path in (target, source)
    )
    assert found == expected
    if file_format == "array_record":
        _record(target, 2)
        assert [len(episode) for episode in helpers.read(target)] == [5] * 9


def test_recording_goes_on_where_a_log_ended(tmp_path):
    log = riegeli_samples.log("catch_shards")
    target = tmp_path / "catch" / "1.0.0"
    envlogger.convert(log, target)
    with (
        envlogger.Reader(log) as reader,
        envlogger.EnvLogger(_Replayed(reader), data_directory=target, helper=False) as env,
    ):
        steps = list(reader.steps)
        for step in steps[:10]:
            env.step(step.action)
    found = [step for episode in helpers.read(target) for step in episode]
    assert_same(found, [*steps, *steps[:10]])


class _Replayed(dm_env.Environment):
    """Gives the steps of a log again, whatever is done."""

    def __init__(self, reader):
        self._steps = iter(list(reader.steps))
        self.observation_spec, self.action_spec = reader.observation_spec, reader.action_spec
        self.reward_spec, self.discount_spec = reader.reward_spec, reader.discount_spec

    observation_spec = action_spec = None  # which are abstract

    def reset(self):
        return next(self._steps).timestep

    def step(self, action):
        return next(self._steps).timestep


class _Late(sources.StepSource):
    """A source whose features turn up late: stands for a log without one."""

    kind = "a test"

    def __init__(self, path=""):
        self.path = str(path)

    metadata: ClassVar = {}
    num_episodes = 12
    num_bytes = 0

    def episode(self, index):
        observation = np.zeros(3 if index < 9 else 4, np.float32)
        custom_data = {"a": index} if index < 7 else {"a": index + 0.5, "late": "x"}
        steps = [
            envlogger.StepData(helpers.first(observation), None, custom_data),
            envlogger.StepData(helpers.last(observation), 1, None if index == 10 else custom_data),
        ]
        return iter(steps), None if index < 11 else {"success": True}

    def state(self):
        return 1

    def change(self):
        return None

    def close(self):
        pass


def _convert_all_of(kind, target, per_task, monkeypatch):
    """Converts a source of a kind; fails unless all of its episodes come back."""
    monkeypatch.setattr("envlogger.conversion.opening.open_source", kind)
    envlogger.convert("anything", target, max_episodes_per_file=per_task)
    expected = [kind().episode(index) for index in range(kind.num_episodes)]
    with envlogger.Reader(target) as reader:
        assert_same([list(episode) for episode in reader.episodes], [list(e) for e, _ in expected])
        assert_same(list(reader.episode_metadata()), [metadata for _, metadata in expected])


@pytest.mark.parametrize("per_task", [1, 5, 100])
def test_features_that_turn_up_late(per_task, tmp_path, monkeypatch):
    target = tmp_path / "late" / "1.0.0"
    _convert_all_of(_Late, target, per_task, monkeypatch)
    episodes = list(helpers.data_source(target))
    assert [bool(episode["present"]["success"]) for episode in episodes] == [False] * 11 + [True]
    late = [step["present"]["late"] for step in episodes[6]["steps"]]
    assert late == [False, False]
    assert len(helpers.tf_episodes(target)) == 12


class _Distinct(_Late):
    """Each episode has a key of its own, and so has each step."""

    num_episodes = 30

    def episode(self, index):
        data = [{f"step{index}_{t}": np.float32(t)} for t in range(2)]
        steps = [
            envlogger.StepData(helpers.first(), None, data[0]),
            envlogger.StepData(helpers.last(), 1, data[1]),
        ]
        return iter(steps), {f"key{index}": index}


@pytest.mark.parametrize("per_task", [4, 100])
def test_many_keys(per_task, tmp_path, monkeypatch):
    target = tmp_path / "distinct" / "1.0.0"
    _convert_all_of(_Distinct, target, per_task, monkeypatch)
    for index, episode in enumerate(helpers.data_source(target)):
        present = [number for number in range(30) if episode["present"][f"key{number}"]]
        assert (present, episode[f"key{index}"]) == ([index], index)
        assert episode[f"key{(index + 1) % 30}"] == 0


def test_doing_it_again_does_nothing(tmp_path):
    target = tmp_path / "x"
    log = riegeli_samples.log("catch_default")
    first = envlogger.convert(log, target)
    before = snapshots.stamps(target)
    again = envlogger.convert(log, target)
    assert (first.was_done, again.was_done) == (False, True)
    assert snapshots.stamps(target) == before


# --- what cannot be -------------------------------------------------------------------------------


def _refused(kind, *parts, source, target, **options):
    with pytest.raises(kind) as raised:
        envlogger.convert(source, target, **options)
    helpers.check_message(raised, *parts)


@pytest.mark.parametrize("case", sorted(_EMPTY))
def test_a_log_without_steps_is_an_error(case, tmp_path):
    log = riegeli_samples.log(case)
    _refused(errors.DatasetError, "no episode", source=log, target=tmp_path / "new" / "x")
    assert os.listdir(tmp_path) == []


def test_a_source_that_is_none(tmp_path):
    target = tmp_path / "new"
    _refused(errors.DatasetError, "no such directory", source=tmp_path / "no", target=target)
    (tmp_path / "file").write_text("")
    _refused(errors.DatasetError, "it is a file", source=tmp_path / "file", target=target)
    (tmp_path / "empty").mkdir()
    _refused(errors.DatasetError, "nothing that can be", source=tmp_path / "empty", target=target)
    _record(tmp_path / "catch" / "1.0.0", 1)
    _refused(errors.DatasetError, "Is it", "1.0.0", source=tmp_path / "catch", target=target)
    assert not target.exists()


def test_a_destination_that_holds_something(tmp_path):
    log = riegeli_samples.log("catch_default")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thing").write_text("mine")
    _refused(errors.DatasetError, "something else", "thing", source=log, target=tmp_path / "x")
    _refused(errors.DatasetError, "got a file", source=log, target=tmp_path / "x" / "thing")
    _record(tmp_path / "catch" / "1.0.0", 1)
    _refused(errors.DatasetError, "something else", source=log, target=tmp_path / "catch" / "1.0.0")
    assert (tmp_path / "x" / "thing").read_text() == "mine"


def test_options_that_are_not_allowed(tmp_path):
    log, target = riegeli_samples.log("catch_default"), tmp_path / "x"
    _refused(errors.OptionError, "parquet", source=log, target=target, file_format="parquet")
    _refused(errors.OptionError, "workers", source=log, target=target, workers=0)
    _refused(errors.OptionError, "max_episodes", source=log, target=target, max_episodes_per_file=0)
    assert os.listdir(tmp_path) == []


def test_a_dataset_of_another_form(openx, tmp_path):
    features = json.loads((openx / "features.json").read_text())
    features["featuresDict"]["features"]["other"] = features["featuresDict"]["features"].pop(
        "steps"
    )
    (openx / "features.json").write_text(json.dumps(features))
    _refused(errors.DatasetError, "steps", "RLDS", source=openx, target=tmp_path / "x")
    info = json.loads((openx / "dataset_info.json").read_text())
    (openx / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "parquet"}))
    _refused(errors.DatasetError, "parquet", source=openx, target=tmp_path / "x")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_source(openx, workers, tmp_path):
    shard = openx / "openx_style-train.tfrecord-00001"
    damage.flip(shard, shard.stat().st_size // 2)
    target = tmp_path / "x"
    _refused(errors.CorruptDatasetError, shard.name, source=openx, target=target, workers=workers)
    assert not target.exists()
    shutil.copy(sample_datasets.OPENX / shard.name, shard)
    envlogger.convert(openx, target)  # goes on
    _assert_same_content(target, openx)


def test_a_source_that_has_changed_since(tmp_path):
    log = tmp_path / "log"
    shutil.copytree(riegeli_samples.log("catch_default"), log)
    target = tmp_path / "new" / "1.0.0"
    steps = next(log.glob("*/steps.riegeli"))
    whole = steps.read_bytes()
    steps.write_bytes(whole[:200] + bytes(50) + whole[250:])
    _refused(errors.CorruptDatasetError, "steps.riegeli", source=log, target=target)
    steps.write_bytes(whole)
    _refused(errors.DatasetError, "has changed", "remove", source=log, target=target)
    shutil.rmtree(target.parent / "incomplete.envlogger_convert_1.0.0")
    envlogger.convert(log, target)
    _assert_same_content(target, log)


_SMALL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
from envlogger.cli import main
sys.exit(main.main(["convert", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_a_full_disk(openx, file_format, tmp_path):
    target = tmp_path / "x"
    result = processes.python(_SMALL_DISK, openx, target, "--format", file_format, status=1)
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert not target.exists()
    envlogger.convert(openx, target, file_format=file_format)
    _assert_same_content(target, openx)


def test_a_chunk_may_be_larger_than_readers_take_by_themselves(tmp_path, monkeypatch):
    log = riegeli_samples.log("catch_default")
    assert riegeli_source._MAX_CHUNK_BYTES > chunks.MAX_CHUNK_BYTES
    monkeypatch.setattr(riegeli_source, "_MAX_CHUNK_BYTES", 1)
    with pytest.raises(errors.CorruptDatasetError, match="max_chunk_bytes"):
        envlogger.convert(log, tmp_path / "copy" / "1.0.0")
