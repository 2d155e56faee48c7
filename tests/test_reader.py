# SPDX-License-Identifier: Apache-2.0
"""The Reader's contract. That it gives back what was logged is shown in `test_round_trip.py`."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pickle
import shutil
import struct

import foreign
import helpers
import numpy as np
import pytest
from dm_env import specs

import envlogger
from envlogger import errors
from envlogger.backends import in_memory_backend, tfds_backend_reader
from envlogger.testing import catch_env
from envlogger.testing.comparison import assert_same
from envlogger.tfds import index_file


def _episode(number, length=4):
    """Returns timesteps whose observations tell which they are."""
    steps = [helpers.mid(np.array([number, i], np.int32), float(i)) for i in range(length)]
    return [helpers.first(steps[0].observation), *steps[1:-1], helpers.last(steps[-1].observation)]


EPISODES = [_episode(n, length) for n, length in enumerate((4, 2, 5, 3))]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of four episodes in three shards."""
    path = tmp_path_factory.mktemp("run") / "catch" / "1.0.0"
    numbers = iter(range(100))
    helpers.record(
        path,
        EPISODES,
        max_episodes_per_file=2,
        metadata={"agent": "random", "sizes": (1, 2)},
        episode_fn=lambda timestep, *_: {"n": next(numbers)} if timestep.last() else None,
    )
    helpers.record(path, [_episode(9)], split_name="eval")
    return path


def _ids(steps):
    return [tuple(step.timestep.observation.tolist()) for step in steps]


ALL = [(n, i) for n, episode in enumerate(EPISODES) for i in range(len(episode))]


def test_steps_and_episodes(run):
    with envlogger.Reader(run, "train") as reader:
        assert len(reader.steps) == 14
        assert len(reader.episodes) == 4
        assert _ids(reader.steps) == ALL
        assert [_ids(episode) for episode in reader.episodes] == [
            [(n, i) for i in range(len(e))] for n, e in enumerate(EPISODES)
        ]
        assert _ids([reader.steps[-1], reader.steps[5], reader.steps[np.int64(0)]]) == [
            (3, 2),
            (1, 1),
            (0, 0),
        ]
        assert _ids(reader.steps[3:6]) == ALL[3:6]
        assert _ids(reader.steps[::-3]) == ALL[::-3]
        assert len(reader.episodes[-1]) == 3
        assert _ids(reader.episodes[2][-2:]) == [(2, 3), (2, 4)]
        assert [len(episode) for episode in reader.episodes[1:]] == [2, 5, 3]


@pytest.mark.parametrize("index", [14, -15, 10**9])
def test_indices_out_of_range(run, index):
    with envlogger.Reader(run, "train") as reader:
        with pytest.raises(IndexError, match=f"{index} is out of range: there are 14"):
            reader.steps[index]
        with pytest.raises(IndexError):
            reader.episodes[index]
        with pytest.raises(IndexError):
            reader.episodes[0][index]


def test_loops_that_nest_or_break_off(run):
    with envlogger.Reader(run, "train") as reader:
        for episode in reader.episodes:
            for _ in episode:
                break
        pairs = [(_ids(one), _ids(other)) for one in reader.episodes for other in reader.episodes]
        assert len(pairs) == 16
        assert len(set(map(str, pairs))) == 16


def test_episode_metadata(run):
    with envlogger.Reader(run, "train") as reader:
        assert len(reader.episode_metadata()) == 4
        assert list(reader.episode_metadata()) == [{"n": n} for n in range(4)]
        assert reader.episode_metadata()[-1] == {"n": 3}


def test_metadata_and_specs(run):
    with envlogger.Reader(run) as reader:
        metadata = reader.metadata()
        assert metadata["agent"] == "random"
        assert metadata["sizes"] == (1, 2)
        assert set(metadata) == {"agent", "sizes", "environment_specs"}
        assert reader.observation_spec() == specs.Array((2,), np.int32)
        assert reader.action_spec() == specs.Array((), np.int64)
        assert reader.reward_spec() == specs.Array((), np.float64)
        assert reader.discount_spec() == specs.Array((), np.float64)
        metadata.clear()
        assert reader.metadata()["agent"] == "random"


def test_splits(run):
    with envlogger.Reader(run, "eval") as reader:
        assert _ids(reader.steps) == [(9, i) for i in range(4)]
    with envlogger.Reader(run) as reader:
        assert _ids(reader.steps) == [(9, i) for i in range(4)] + ALL


def test_a_split_that_is_not_there(run):
    with pytest.raises(errors.OptionError) as raised:
        envlogger.Reader(run, "test")

    helpers.check_message(raised, "split: got 'test'", "'eval', 'train'")


def test_copies_are_independent(run):
    with envlogger.Reader(run) as reader:
        twin = reader.copy()
        reader.close()
        assert _ids(twin.steps) == [(9, i) for i in range(4)] + ALL
        assert twin.observation_spec() == reader.observation_spec()
        twin.close()


def test_closing_twice(run):
    reader = envlogger.Reader(run)
    reader.close()
    reader.close()


def test_what_was_read_may_be_written_to(run):
    with envlogger.Reader(run) as reader:
        reader.steps[0].timestep.observation[:] = 77
        assert _ids(reader.steps[:1]) == [(9, 0)]


def test_steps_can_be_pickled(run):
    with envlogger.Reader(run) as reader:
        assert_same(pickle.loads(pickle.dumps(list(reader.steps))), list(reader.steps))


def test_paths_of_any_kind(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    monkeypatch.setenv("HOME", str(run.parent))
    for path in (run, str(run), "1.0.0", "./1.0.0/", "~/1.0.0"):
        with envlogger.Reader(path) as reader:
            monkeypatch.chdir("/")
            assert len(reader.steps) == 18
        monkeypatch.chdir(run.parent)


def test_threads_may_share_a_reader(run):
    with envlogger.Reader(run, "train") as reader, concurrent.futures.ThreadPoolExecutor(8) as pool:
        indices = np.random.default_rng(0).integers(0, 14, 2000)
        found = list(pool.map(lambda i: reader.steps[i], indices))
        assert _ids(found) == [ALL[i] for i in indices]


def test_backends(run):
    backend = tfds_backend_reader.TFDSBackendReader(run)
    with envlogger.Reader(backend=backend) as reader:
        assert len(reader.steps) == 18
    with envlogger.Reader(run, backend=envlogger.BackendType.TFDS) as reader:
        assert len(reader.steps) == 18
    writer = in_memory_backend.InMemoryBackendWriter()
    assert len(envlogger.Reader(writer).steps) == 0
    with pytest.raises(errors.OptionError, match=r"backend: got .*expected a BackendReader"):
        envlogger.Reader(run, backend=envlogger.BackendType.IN_MEMORY)


def test_options_of_backends_that_have_none(run):
    writer = in_memory_backend.InMemoryBackendWriter()
    backend = tfds_backend_reader.TFDSBackendReader(run)
    with pytest.raises(errors.OptionError, match="split: got 'test', expected None for a run in"):
        envlogger.Reader(writer, "test")
    with pytest.raises(errors.OptionError, match="split: got 'eval', expected None for a Backend"):
        envlogger.Reader(split="eval", backend=backend)
    with pytest.raises(errors.OptionError, match="cache_bytes: got 'x', expected an integer"):
        envlogger.Reader(writer, cache_bytes="x")


@pytest.mark.parametrize("directory", [5, None, [], b"run", ""], ids=repr)
def test_what_is_no_directory(directory):
    for use in (
        envlogger.Reader,
        lambda d: envlogger.Windows(d, length=1),
        envlogger.recover,
        envlogger.convert,
        lambda d: envlogger.EnvLogger(catch_env.Catch(), data_directory=d),
    ):
        with pytest.raises(errors.OptionError) as raised:
            use(directory)
        helpers.check_message(raised, f"got {directory!r}, expected a directory")


# --- what is damaged or missing ----------------------------------------------------------------------


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def _shard(path, index=0, split="train"):
    return path / f"catch-{split}.array_record-{index:05d}"


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "metadata.json"])
@pytest.mark.parametrize("content", [b"", b'{"a":', b"\xff", b"[]", b'"x"'])
def test_a_json_that_is_damaged_is_named(copy, name, content):
    (copy / name).write_bytes(content)

    with pytest.raises(errors.CorruptDatasetError) as raised:
        envlogger.Reader(copy)

    assert isinstance(raised.value, OSError)
    helpers.check_message(raised, str(copy / name), "Restore it from a copy")


def test_features_that_are_missing_are_named(copy):
    (copy / "features.json").unlink()

    with pytest.raises(errors.CorruptDatasetError) as raised:
        envlogger.Reader(copy)

    helpers.check_message(raised, str(copy / "features.json"), "missing")


def test_a_dataset_without_metadata_can_be_read(copy):
    (copy / "metadata.json").unlink()

    with envlogger.Reader(copy, "train") as reader:
        assert _ids(reader.steps) == ALL
        assert reader.metadata() == {}
        assert reader.observation_spec() is None


def test_specs_that_are_damaged(copy):
    node = json.loads((copy / "metadata.json").read_text())
    node["environment_specs"]["action_spec"]["dtype"] = "nonsense"
    (copy / "metadata.json").write_text(json.dumps(node))

    with pytest.raises(errors.CorruptDatasetError, match=r"environment_specs.*metadata\.json"):
        envlogger.Reader(copy)


def test_a_directory_that_is_no_dataset(tmp_path):
    for path in (tmp_path, tmp_path / "no"):
        with pytest.raises(errors.DatasetError) as raised:
            envlogger.Reader(path)

        helpers.check_message(raised, str(path), "no dataset_info.json", "Pass the directory")


def test_a_shard_that_is_missing_spoils_no_other(copy):
    _shard(copy, 0).unlink()

    with envlogger.Reader(copy, "train") as reader:
        assert _ids(reader.episodes[2]) == [(2, i) for i in range(5)]
        with pytest.raises(errors.CorruptDatasetError) as raised:
            reader.steps[0]

    helpers.check_message(raised, str(_shard(copy, 0)), "missing")


def test_a_shard_that_is_cut_off_is_named(copy):
    os.truncate(_shard(copy, 1), 65536)

    with envlogger.Reader(copy, "train") as reader:
        assert _ids(reader.episodes[0]) == [(0, i) for i in range(4)]
        with pytest.raises(errors.CorruptDatasetError) as raised:
            list(reader.episodes[3])

    helpers.check_message(raised, str(_shard(copy, 1)), "damaged")


@pytest.mark.parametrize("damage", ["remove", "cut", "zeros", "other numbers", "one bit", "moved"])
def test_without_a_sound_index_steps_are_counted(copy, damage):
    index = copy / ".envlogger" / "index" / "train"
    sound = index.read_bytes()
    if damage == "remove":
        shutil.rmtree(copy / ".envlogger")
    else:
        index.write_bytes(
            {
                "cut": sound[:9],
                "zeros": bytes(len(sound)),
                "other numbers": struct.pack("<4q", 4, 1, 6, 3),
                "one bit": sound[:17] + bytes([sound[17] ^ 4]) + sound[18:],
                "moved": sound[8:16] + sound[:8] + sound[16:],
            }[damage]
        )

    for _ in range(2):  # the second one reads what the first one has counted
        with envlogger.Reader(copy, "train") as reader:
            assert reader.episode_lengths().tolist() == [len(e) for e in reader.episodes]
            assert _ids(reader.steps) == ALL


def test_the_index_of_another_dataset_is_named(copy):
    state = copy / ".envlogger"
    index_file.write(str(state), "train", 0, [4, 1, 6, 3])

    with envlogger.Reader(copy, "train") as reader:
        assert _ids(reader.steps[:4]) == [(0, i) for i in range(4)]
        with pytest.raises(errors.CorruptDatasetError) as raised:
            list(reader.episodes[1])

    index = str(state / "index")
    helpers.check_message(raised, index, "episode 1 has 1 steps; it has 2", "Remove")


# --- datasets of others -----------------------------------------------------------------------------


def test_datasets_that_tfds_wrote(tmp_path):
    steps = [
        {
            "observation": {"x": np.full(2, t, np.float32)},
            "action": t,
            "reward": t / 2,
            "discount": 1.0,
            "is_first": t == 0,
            "is_last": t == 2,
            "is_terminal": False,
            "language": f"word {t}",
        }
        for t in range(3)
    ]
    episodes = [{"steps": steps[:n], "task": "walk"} for n in (3, 1)]
    step = {**foreign.RLDS, "language": foreign.F.Text()}
    foreign.write(tmp_path, step, episodes, "array_record", {"task": foreign.F.Text()})

    with envlogger.Reader(tmp_path) as reader:
        first, middle, last, single = reader.steps
        assert_same(first.timestep.observation, {"x": np.zeros(2, np.float32)})
        assert (first.action, first.timestep.reward) == (None, None)
        assert first.timestep.first()
        assert middle.timestep.mid()
        assert last.timestep.last()
        # The action beside the observation from which it was taken leads to the next timestep.
        assert_same([middle.action, last.action], [np.int32(0), np.int32(1)])
        assert_same(
            [middle.timestep.reward, last.timestep.reward], [np.float32(0), np.float32(0.5)]
        )
        assert_same(last.custom_data, {"language": b"word 2"})
        assert single.action is None
        assert list(reader.episode_metadata()) == [{"task": b"walk"}] * 2
        assert reader.action_spec() is None


def test_datasets_in_other_files_are_refused(copy):
    info = (copy / "dataset_info.json").read_text()
    (copy / "dataset_info.json").write_text(info.replace('"array_record"', '"parquet"'))

    with pytest.raises(errors.DatasetError, match=r"got a dataset in parquet files.*tfds\.load"):
        envlogger.Reader(copy)
