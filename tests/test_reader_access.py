# SPDX-License-Identifier: Apache-2.0
"""How Reader gets at the data: lazily, by column, from threads and processes, from many shards."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import threading

import helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envlogger
from envlogger import errors
from envlogger.backends import in_memory_backend
from envlogger.testing.comparison import assert_same
from envlogger.tfds import images, index_file, lru, shards, stored_episode


def _observation(number, t):
    image = np.full((6, 5, 3), 10 * number + t, np.uint8)
    image[0, 0] = (number, t, 0)
    return {"id": np.array([number, t], np.int32), "camera": image, "nested": (float(t), "é")}


def _episode(number, length):
    rewards = [None, *(number + t / 3 for t in range(1, length))]
    steps = [helpers.first(_observation(number, 0))]
    steps += [helpers.mid(_observation(number, t), rewards[t]) for t in range(1, length - 1)]
    if length > 1:
        steps.append(helpers.last(_observation(number, length - 1), rewards[-1]))
    return steps


LENGTHS = (4, 2, 7, 1, 3, 9)
EPISODES = [_episode(number, length) for number, length in enumerate(LENGTHS)]
ALL = [(n, t) for n, length in enumerate(LENGTHS) for t in range(length)]
FIELDS = {"step_fn": lambda timestep, *_: {"note": "x" * int(timestep.observation["nested"][0])}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Six episodes, two to a shard."""
    path = tmp_path_factory.mktemp("run") / "camera" / "1.0.0"
    helpers.record(path, EPISODES, max_episodes_per_file=2, **FIELDS)
    return path


def _ids(steps):
    return [tuple(step.timestep.observation["id"].tolist()) for step in steps]


# --- steps ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.none() | st.integers(-30, 30),
    st.none() | st.integers(-30, 30),
    st.none() | st.integers(-9, 9).filter(bool),
    st.sampled_from([0, 1000, 1 << 20]),
)
def test_slices_are_those_of_a_list(run, start, stop, step, cache_bytes):
    with envlogger.Reader(run, cache_bytes=cache_bytes) as reader:
        chosen = slice(start, stop, step)
        assert _ids(reader.steps[chosen]) == ALL[chosen]
        assert [len(e) for e in reader.episodes[chosen]] == list(LENGTHS)[chosen]
        episode = reader.episodes[5]
        assert _ids(episode[chosen]) == [(5, t) for t in range(9)][chosen]
        assert _ids(reversed(episode)) == [(5, t) for t in reversed(range(9))]


def test_however_a_step_is_reached_it_is_the_same(run, monkeypatch):
    with envlogger.Reader(run) as reader:
        expected = [step for episode in reader.episodes for step in episode]
        assert_same(list(reader.steps), expected)
        assert_same([reader.steps[i] for i in range(len(ALL))], expected)
    monkeypatch.setattr(stored_episode, "_STRETCH_BYTES", 1)  # built one by one
    with envlogger.Reader(run) as reader:
        assert_same(list(reader.steps), expected)


def test_steps_share_nothing(run):
    with envlogger.Reader(run) as reader:
        for step in reader.steps:
            for array in (step.timestep.observation["id"], step.timestep.observation["camera"]):
                assert array.flags.writeable
                assert array.flags.aligned
                array[...] = 0
        assert _ids(reader.steps) == ALL


def test_only_the_images_of_a_step_are_decoded(run, monkeypatch):
    decoded = helpers.spy(monkeypatch, images, "decode")
    with envlogger.Reader(run) as reader:
        len(reader.steps), reader.steps[5].timestep
        assert len(decoded) == 1
        reader.episodes[5].columns(["observation/id", "reward"])
        assert len(decoded) == 1
        reader.episodes[5].columns(["observation"], rows=[2, 8, -1])  # the last twice
        assert len(decoded) == 3
        list(reader.episodes[5][1:3])
        assert len(decoded) == 5
        reader.steps[5], reader.episodes[5][8], reader.episodes[5].columns(rows=[2])
        assert len(decoded) == 5  # they are kept


# --- the cache --------------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch):
    """The number of each record in its shard, as they are read."""
    return helpers.spy(monkeypatch, shards.ShardReader, "read", lambda reader, index: index)


def test_episodes_are_kept_within_a_bound(run, reads):
    with envlogger.Reader(run, cache_bytes=1 << 20) as reader:
        for _ in range(3):
            list(reader.steps), reader.steps[3], reader.episodes[5].columns()
        assert len(reads) == 6
        reader.close()
        list(reader.steps)
        assert len(reads) == 12
    reads.clear()
    with envlogger.Reader(run, cache_bytes=0) as reader:
        for t in range(9):
            assert _ids([reader.episodes[5][t]]) == [(5, t)]
        assert len(reads) == 1  # the last one stays
        list(reader.steps)
        list(reader.steps)
        assert len(reads) == 1 + 6 + 6


def test_what_was_used_last_stays():
    gone = []
    cache = lru.LruCache(10, gone.append)

    for key in "abc":
        cache.put(key, key.upper(), 4)
    assert (gone, cache.get("a"), cache.get("b")) == (["A"], None, "B")
    cache.put("d", "D", 4)
    assert (gone, cache.get("b"), cache.get("c")) == (["A", "C"], "B", None)
    cache.put("b", "B2", 1)
    assert (gone, cache.pop("b"), cache.get("b")) == (["A", "C", "B"], "B2", None)
    cache.put("e", "E", 100)
    assert (gone, cache.get("e")) == (["A", "C", "B", "D"], "E")
    cache.clear()
    assert gone == ["A", "C", "B", "D", "E"]


@pytest.mark.parametrize("value", [-1, 1.5, None, "1", True])
def test_a_cache_of_no_size(run, value):
    with pytest.raises(errors.OptionError, match=r"cache_bytes: got .*expected an integer of at"):
        envlogger.Reader(run, cache_bytes=value)


def test_memory_stays_flat(run):
    with envlogger.Reader(run, cache_bytes=20_000) as reader:
        peaks = []
        for epoch in range(12):
            for _ in range(20):
                list(reader.steps)
                [episode.columns() for episode in reader.episodes]
            if epoch in (3, 11):
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert peaks[1] - peaks[0] < 4096  # KiB


# --- columns ----------------------------------------------------------------------------------------


def test_columns_are_the_steps_of_rlds(run):
    expected = helpers.source_steps(run)

    with envlogger.Reader(run) as reader:
        for episode, steps in zip(reader.episodes, expected, strict=True):
            columns = helpers.flat(episode.columns())
            assert columns.keys() == helpers.flat(steps[0]).keys()
            for path, column in columns.items():
                rows = [helpers.flat(step)[path] for step in steps]
                kind = object if isinstance(rows[0], bytes) else None
                assert_same(column, np.array(rows, kind))
                assert column.flags.owndata or column.base.flags.owndata
                assert column.flags.writeable


def test_columns_of_any_backend_are_the_same(run):
    writer = in_memory_backend.InMemoryBackendWriter()
    env = helpers.ScriptedEnv(EPISODES)
    with envlogger.EnvLogger(env, backend=writer, **FIELDS) as logger:
        helpers.play(logger, helpers.count_up(EPISODES))

    with envlogger.Reader(run) as reader, envlogger.Reader(writer) as others:
        for episode, other in zip(reader.episodes, others.episodes, strict=True):
            columns, expected = helpers.flat(other.columns()), helpers.flat(episode.columns())
            if len(episode) == 1:  # nothing shows that there are actions at all
                expected = {path: expected[path] for path in columns}
            assert columns.keys() == expected.keys()
            for path, column in columns.items():
                assert column.tolist() == expected[path].tolist()
            some = other.columns(["reward", "observation/id"], rows=[0]) if len(episode) > 1 else {}
            assert set(helpers.flat(some)) <= {("reward",), ("observation", "id")}


def test_missing_values_have_a_mask(tmp_path):
    notes = iter([None, np.arange(2), np.arange(0), None, None, np.arange(3)])
    episode = [helpers.first(), helpers.mid(reward=2.0), helpers.last()]
    helpers.record(tmp_path, [episode] * 2, step_fn=lambda *_: {"note": next(notes)})
    writer = in_memory_backend.InMemoryBackendWriter()
    notes = iter([None, np.arange(2), np.arange(0), None, None, np.arange(3)])
    env = helpers.ScriptedEnv([episode] * 2)
    with envlogger.EnvLogger(
        env, backend=writer, step_fn=lambda *_: {"note": next(notes)}
    ) as logger:
        helpers.play(logger, [[0, 1]] * 2)

    for source in (tmp_path, writer):
        with envlogger.Reader(source) as reader:
            one, other = (episode.columns() for episode in reader.episodes)
        assert one["present"]["note"].tolist() == [False, True, True]
        assert other["present"]["note"].tolist() == [False, False, True]
        assert one["note"][1].tolist() == [0, 1]
        assert other["note"][2].tolist() == [0, 1, 2]
        assert one["reward"].tolist() == [2.0, 1.0, 0.0]
        assert one["is_terminal"].tolist() == one["is_last"].tolist() == [False, False, True]


@pytest.mark.parametrize("fields", [["no"], ["observation/no"], ["obs"], "reward", [1], [None]])
def test_fields_that_are_not_there(run, fields):
    with envlogger.Reader(run) as reader, pytest.raises(errors.OptionError) as raised:
        reader.episodes[0].columns(fields)

    helpers.check_message(raised, "fields: got ")


@pytest.mark.parametrize("rows", [[4], [-5], np.array([0, 100])])
def test_rows_out_of_range(run, rows):
    with (
        envlogger.Reader(run) as reader,
        pytest.raises(IndexError, match="the episode has 4 steps"),
    ):
        reader.episodes[0].columns(rows=rows)


@pytest.mark.parametrize("rows", ["a", [0.5], [[1]], 3, [True]])
def test_rows_of_another_kind(run, rows):
    with envlogger.Reader(run) as reader, pytest.raises(errors.OptionError, match="rows: got "):
        reader.episodes[0].columns(rows=rows)


# --- threads and processes --------------------------------------------------------------------------


def test_threads_share_a_reader(run):
    rng = np.random.default_rng(0)
    with (
        envlogger.Reader(run, cache_bytes=3000) as reader,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        indices = rng.integers(0, len(ALL), 600)
        assert _ids(pool.map(lambda i: reader.steps[i], indices)) == [ALL[i] for i in indices]
        numbers = rng.integers(0, 6, 200)
        columns = pool.map(lambda n: reader.episodes[n].columns(), numbers)
        for n, found in zip(numbers, columns, strict=True):
            assert found["observation"]["id"].tolist() == [[n, t] for t in range(LENGTHS[n])]


def _read_all(reader, queue):
    queue.put(_ids(reader.steps) + _ids(reader.steps[::-1]))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_get_a_reader(run, method):
    context = multiprocessing.get_context(method)
    with envlogger.Reader(run, cache_bytes=0) as reader:
        assert _ids(reader.steps[:1]) == ALL[:1]  # files are open
        queue = context.Queue()
        workers = [context.Process(target=_read_all, args=(reader, queue)) for _ in range(2)]
        for worker in workers:
            worker.start()
        found = [queue.get(timeout=60) for _ in workers]
        for worker in workers:
            worker.join(60)
        assert found == [ALL + ALL[::-1]] * 2
        assert [worker.exitcode for worker in workers] == [0, 0]
        assert _ids(reader.steps) == ALL


def _read_in_threads(reader, queue):
    for _ in range(5):
        threads = [threading.Thread(target=list, args=(reader.steps,)) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _read_all(reader, queue)


def test_threads_of_a_fork_may_come_and_go(run):
    # ArrayRecord's own library dies there, if it was used before the fork.
    with envlogger.Reader(run, cache_bytes=0) as reader:
        list(reader.steps)
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        worker = context.Process(target=_read_in_threads, args=(reader, queue))
        worker.start()
        assert [queue.get(timeout=60) for _ in range(5)] == [ALL + ALL[::-1]] * 5
        worker.join(60)
        assert worker.exitcode == 0


def test_a_fork_amid_reading_does_not_hang(run):
    stop = threading.Event()
    with envlogger.Reader(run, cache_bytes=3000) as reader:

        def read_on():
            while not stop.is_set():
                list(reader.steps)

        threads = [threading.Thread(target=read_on) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            context = multiprocessing.get_context("fork")
            for _ in range(5):
                queue = context.Queue()
                worker = context.Process(target=_read_all, args=(reader, queue))
                worker.start()
                assert queue.get(timeout=60) == ALL + ALL[::-1]
                worker.join(60)
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_a_pickled_reader_keeps_its_episodes(tmp_path):
    helpers.record(tmp_path, EPISODES[:2], split_name="b")
    reader = envlogger.Reader(tmp_path)
    len(reader.steps)
    helpers.record(tmp_path, EPISODES[2:4], split_name="a")

    twin = pickle.loads(pickle.dumps(reader))

    assert _ids(twin.steps) == _ids(reader.steps) == ALL[:6]
    assert twin.action_spec() == reader.action_spec()
    assert_same(twin.metadata(), reader.metadata())
    assert len(envlogger.Reader(tmp_path).steps) == 14


# --- many shards, and more to come ------------------------------------------------------------------


def test_ten_thousand_shards(run, tmp_path):
    path = tmp_path / "many"
    shutil.copytree(run, path)
    count = 10_000
    info = json.loads((path / "dataset_info.json").read_text())
    (split,) = info["splits"]
    names = [f"camera-train.array_record-{i:05d}" for i in range(count)]
    for name in names[3:]:
        os.link(path / names[0], path / name)
    split["shardLengths"] = ["2"] * count
    (path / "dataset_info.json").write_text(json.dumps(info))
    index_file.write(str(path / ".envlogger"), "train", 0, LENGTHS + LENGTHS[:2] * (count - 3))

    before = len(os.listdir("/proc/self/fd"))
    with envlogger.Reader(path, cache_bytes=0) as reader:
        assert len(os.listdir("/proc/self/fd")) == before  # opening it opens no shard
        assert len(reader.episodes) == 2 * count
        assert len(reader.steps) == 26 + 6 * (count - 3)
        for i in np.random.default_rng(1).integers(6, 2 * count, 300).tolist():
            assert _ids(reader.episodes[i]) == [(i % 2, t) for t in range(LENGTHS[i % 2])]
        assert len(os.listdir("/proc/self/fd")) <= before + 64
        twin = pickle.loads(pickle.dumps(reader))
        assert _ids([twin.steps[-1]]) == [(1, 1)]
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_live_dataset_is_refreshed(tmp_path):
    helpers.record(tmp_path, EPISODES[:2])
    reader = envlogger.Reader(tmp_path)
    assert _ids(reader.steps) == ALL[:6]
    kept = reader.episodes
    reader.refresh()
    assert len(reader.episodes) == 2
    helpers.record(tmp_path, EPISODES[2:3], step_fn=lambda *_: {"new": 1})

    assert len(reader.episodes) == 2
    assert _ids(reader.steps) == ALL[:6]
    reader.refresh()

    assert len(reader.episodes) == len(kept) == 3
    assert _ids(reader.steps) == ALL[:13]
    assert [step.custom_data for step in reader.steps[5:7]] == [None, {"new": 1}]
    assert reader.episodes[0].columns()["present"]["new"].tolist() == [False] * 4
    assert reader.episode_lengths().tolist() == [4, 2, 7]
    reader.close()


def test_a_reader_of_many_sessions_sees_all_of_them_when_refreshed(tmp_path):
    with helpers.scripted_logger(tmp_path, EPISODES) as logger:
        helpers.play(logger, [[0, 1, 2]])
        logger.flush()
        helpers.play(logger, [[0]])
    reader = envlogger.Reader(tmp_path)
    helpers.record(tmp_path, EPISODES[2:])
    reader.refresh()
    assert _ids(reader.steps) == ALL
    reader.close()


def test_in_memory_runs_are_always_fresh():
    writer = in_memory_backend.InMemoryBackendWriter()
    reader = envlogger.Reader(writer)
    with envlogger.EnvLogger(helpers.ScriptedEnv(EPISODES), backend=writer) as logger:
        helpers.play(logger, [[0, 1, 2], [0]])
    reader.refresh()
    assert _ids(reader.steps) == ALL[:6]
    assert reader.episode_lengths().tolist() == [4, 2]
