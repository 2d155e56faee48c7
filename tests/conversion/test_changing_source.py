# SPDX-License-Identifier: Apache-2.0
"""Sources that change while they are converted: somebody writes to them, for real."""

from __future__ import annotations

import gc
import json
import os
import shutil
import warnings

import gymnasium
import helpers
import numpy as np
import pytest
import riegeli_samples
from gymnasium import spaces

import envlogger
from envlogger import errors
from envlogger.conversion import pool
from envlogger.conversion.work import WorkDirectory
from envlogger.testing import catch_env
from envlogger.testing.comparison import assert_same

pytestmark = pytest.mark.filterwarnings("ignore::envlogger.riegeli.log.LogWarning")


@pytest.fixture
def meanwhile(monkeypatch):
    """Has something done once the first task is done."""

    def have_done(action):
        todo = [action]
        add = WorkDirectory.add

        def add_then_act(*arguments):
            add(*arguments)
            if todo:
                todo.pop()()

        monkeypatch.setattr(WorkDirectory, "add", add_then_act)

    return have_done


@pytest.fixture
def before_tasks(monkeypatch):
    """Has something done once the source has been opened, and no worker begun."""

    def have_done(action):
        todo = [action]
        run = pool.run

        def act_then_run(*arguments):
            if todo:
                todo.pop()()
            return run(*arguments)

        monkeypatch.setattr(pool, "run", act_then_run)

    return have_done


@pytest.fixture
def log(tmp_path):
    """A log of several sessions."""
    path = tmp_path / "log"
    shutil.copytree(riegeli_samples.log("catch_shards"), path)
    assert len(_sessions(path)) > 2
    return path


def _sessions(log):
    return sorted(path for path in log.iterdir() if path.is_dir())


def _read(path):
    return helpers.sort_keys(helpers.read(path))


def _refused(*parts, source, target, **options):
    with pytest.raises(errors.DatasetError) as raised:
        envlogger.convert(source, target, **options)
    helpers.check_message(raised, str(source), str(target), *parts)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_log_gets_another_session(workers, log, tmp_path, meanwhile):
    target = tmp_path / "catch" / "1.0.0"
    new = log / "29990101T000000000000"
    before = _read(log)
    meanwhile(lambda: shutil.copytree(_sessions(log)[0], new))
    counts = f"{len(before)} episodes, and {len(before) + len(_first_session(log))} now"
    options = {"source": log, "target": target, "workers": workers, "max_episodes_per_file": 3}

    _refused("has changed", f"{new.name}/", "is new", counts, "into a new destination", **options)

    assert os.listdir(target.parent) == ["1.0.0"]
    assert_same(_read(target), before)
    assert len(helpers.data_source(target)) == len(before)
    # The same once more says what is there; elsewhere it makes all of it.
    _refused("before it changed", "Use another destination", **options)
    assert_same(_read(target), before)
    envlogger.convert(log, tmp_path / "whole" / "1.0.0")
    assert_same(_read(tmp_path / "whole" / "1.0.0"), _read(log))
    assert len(_read(log)) > len(before)


def _first_session(log):
    """Returns the episodes of the first session."""
    place = log.parent / "first"
    place.mkdir()
    shutil.copy(log / "metadata.riegeli", place)
    shutil.copytree(_sessions(log)[0], place / "one")
    return _read(place)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_session_of_a_log_grows(workers, log, tmp_path, before_tasks):
    """So what comes behind it has other numbers, before a worker has begun; it is there once all the same."""
    target = tmp_path / "catch" / "1.0.0"
    first = _sessions(log)[0]
    whole = {path: path.read_bytes() for path in first.iterdir()}
    for path, content in whole.items():
        path.write_bytes(content[:64])  # the file's signature, and no record
    before = _read(log)

    def grow():
        for path, content in whole.items():
            path.write_bytes(content)

    before_tasks(grow)
    _refused(
        f"{first.name}/episode_index.riegeli has grown from 64 to",
        source=log,
        target=target,
        workers=workers,
        max_episodes_per_file=1,
    )
    assert_same(_read(target), before)
    assert len(_read(log)) > len(before)


@pytest.mark.parametrize("how", ["another one", "gone"])
def test_a_file_of_a_log_is_replaced(how, log, tmp_path, meanwhile):
    target = tmp_path / "catch" / "1.0.0"
    expected = _read(log)
    steps = _sessions(log)[0] / "steps.riegeli"
    content = steps.read_bytes()

    def replace():
        steps.unlink()
        if how == "another one":
            steps.write_bytes(content)

    meanwhile(replace)
    options = {"source": log, "target": target, "max_episodes_per_file": 100}
    _refused("was changed", f"steps.riegeli is {how}", "Remove", **options)
    staging = tmp_path / "catch" / "incomplete.envlogger_convert_1.0.0"
    assert os.listdir(target.parent) == [staging.name]
    steps.write_bytes(content)
    with pytest.raises(errors.DatasetError, match="source has changed since"):
        envlogger.convert(log, target, max_episodes_per_file=100)
    shutil.rmtree(staging)
    envlogger.convert(log, target)
    assert_same(_read(target), expected)


def test_other_files_in_a_log_are_no_change(log):
    """The destination may be among them."""
    expected = _read(log)
    envlogger.convert(log, log / "new" / "1.0.0")
    assert_same(_read(log / "new" / "1.0.0"), expected)
    assert envlogger.convert(log, log / "new" / "1.0.0").was_done


class _Toy(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(3)
    count = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        return self._observe(), 0.5, self.count % 3 == 0, False, {}

    def _observe(self):
        self.count += 1
        return np.full(3, self.count / 100, np.float32)


@pytest.fixture(params=["hdf5", "arrow"])
def minari_dataset(request, tmp_path, monkeypatch):
    """A dataset, and a function that adds episodes to it."""
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari's, of what it was not told
        open_ones = [minari.DataCollector(_Toy(), data_format=request.param)]
        _play(open_ones[0])
        open_ones.append(open_ones[0].create_dataset("toy/grows-v0", author="me"))

        def add():
            collector, made = open_ones
            _play(collector)
            collector.add_to_dataset(made)

        yield tmp_path / "minari" / "toy" / "grows-v0", add
        open_ones[0].close()
        open_ones.clear()  # their temporary directories are removed by their finalizers
        gc.collect()


def _play(env):
    for _ in range(4):
        env.reset()
        while not env.step(1)[2]:
            pass


@pytest.mark.parametrize("workers", [1, 2])
def test_a_minari_dataset_grows(workers, minari_dataset, tmp_path, before_tasks):
    source, add = minari_dataset
    target, whole = tmp_path / "toy" / "1.0.0", tmp_path / "whole" / "1.0.0"
    envlogger.convert(source, whole)
    before_tasks(add)  # later HDF5 would have it locked
    _refused(
        "has changed",
        "4 episodes, and 8 now",
        source=source,
        target=target,
        workers=workers,
        max_episodes_per_file=2,
    )
    assert_same(helpers.read(target), helpers.read(whole))


def _record(path, num_episodes, **options):
    with helpers.logger(
        path, catch_env.Catch(rows=5, columns=3), max_episodes_per_file=2, **options
    ) as env:
        helpers.play_whole(env, num_episodes)


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_dataset_grows(workers, file_format, tmp_path, meanwhile):
    """The new episodes have a feature that those before get as well, in their shards and JSON."""
    source, target = tmp_path / "catch" / "1.0.0", tmp_path / "copy" / "1.0.0"
    _record(source, 6)
    before = helpers.read(source)
    features = (source / "features.json").read_bytes()
    meanwhile(lambda: _record(source, 3, step_fn=lambda *_: {"late": 1}))
    options = {"source": source, "target": target, "file_format": file_format, "workers": workers}

    _refused(
        "has changed", "dataset_info.json and features.json", "6 episodes, and 9 now", **options
    )

    assert_same(helpers.read(target), before)
    assert (target / "features.json").read_bytes() == features
    assert [len(episode["steps"]) for episode in helpers.tf_episodes(target)] == [5] * 6
    _refused("before it changed", "Use another destination", **options)
    report = envlogger.convert(source, tmp_path / "whole" / "1.0.0", file_format=file_format)
    assert report.num_episodes == 9
    assert_same(helpers.read(tmp_path / "whole" / "1.0.0"), helpers.read(source))


def test_a_shard_that_changes_meanwhile_is_copied_again(tmp_path, meanwhile):
    source, target = tmp_path / "catch" / "1.0.0", tmp_path / "copy" / "1.0.0"
    other = tmp_path / "other" / "catch" / "1.0.0"
    _record(source, 4)
    _record(other, 2)
    name = "catch-train.array_record-00000"
    meanwhile(lambda: os.replace(other / name, source / name))
    envlogger.convert(source, target)
    assert_same(helpers.read(target), helpers.read(source))
    ids = [episode["episode_id"] for episode in helpers.data_source(target)]
    assert ids == [episode["episode_id"] for episode in helpers.data_source(source)]


def test_a_dataset_loses_episodes(tmp_path, meanwhile):
    source, target = tmp_path / "catch" / "1.0.0", tmp_path / "copy" / "1.0.0"
    _record(source, 6)
    path = source / "dataset_info.json"
    content = json.loads(path.read_text())
    whole = path.read_bytes()
    content["splits"][0]["shardLengths"].pop()
    meanwhile(lambda: path.write_text(json.dumps(content)))
    _refused("was changed", "another dataset_info.json", "Remove", source=source, target=target)
    assert not target.exists()
    path.write_bytes(whole)
    envlogger.convert(source, target)
    assert_same(helpers.read(target), helpers.read(source))


def test_a_destination_that_was_converted_otherwise(log, tmp_path):
    target = tmp_path / "catch" / "1.0.0"
    envlogger.convert(log, target, file_format="tfrecord")
    options = {"source": log, "target": target}
    _refused("was converted from", "format 'tfrecord'", "Use another", **options)
    _refused("format 'tfrecord', max_episodes_per_file 1000", max_episodes_per_file=2, **options)
    assert envlogger.convert(log, target, file_format="tfrecord").was_done
