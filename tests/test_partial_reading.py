# SPDX-License-Identifier: Apache-2.0
"""Steps of large episodes, which are read from the middle of a record."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import random
import shutil
import tracemalloc

import damage
import helpers
import numpy as np
import pytest

import envlogger
from envlogger import errors, zstd
from envlogger.backends import tfds_backend_reader
from envlogger.testing.comparison import assert_same
from envlogger.tfds import shard_files, shards

STEPS = 12
# (image_format, format of the shards): what TFRecord holds is never compressed.
KINDS = [
    ("raw", "array_record"),
    ("png", "array_record"),
    ("raw", "tfrecord"),
    ("jpeg", "tfrecord"),
]


def _noise(rng, *shape):
    return rng.integers(0, 256, shape, np.uint8)


def _observation(number, t):
    rng = np.random.default_rng([number, t])
    return {
        # Across the blocks of 64 KiB that ArrayRecord has, larger than one, and not worth it.
        "left": _noise(rng, 240, 250, 3),
        "right": _noise(rng, 60, 61, 3),
        "small": _noise(rng, 7, 3, 3),
        "position": rng.normal(size=5),
        "depth": rng.normal(size=(40, 41)),
        "text": "é" * (t % 3),
        "id": number * STEPS + t,
    }


def _episode(number):
    return [
        helpers.first(_observation(number, 0)),
        *(helpers.mid(_observation(number, t)) for t in range(1, STEPS - 1)),
        helpers.last(_observation(number, STEPS - 1)),
    ]


@pytest.fixture(scope="module", params=KINDS, ids=" in ".join)
def run(request, tmp_path_factory):
    """Four episodes of 3 MB each; and their steps, as they are read when all of them are."""
    image_format, file_format = request.param
    path = tmp_path_factory.mktemp("run") / "robot" / "1.0.0"
    helpers.record(
        path, [_episode(n) for n in range(4)], image_format=image_format, max_episodes_per_file=3
    )
    if file_format == "tfrecord":
        path = path.parent.parent / "converted" / "1.0.0"
        envlogger.convert(path.parent.parent / "robot" / "1.0.0", path, file_format=file_format)
    return path, [step for episode in helpers.read(path) for step in episode]


@pytest.fixture
def whole(monkeypatch):
    """Episodes that are read as a whole."""
    owner = tfds_backend_reader.TFDSBackendReader
    return helpers.spy(monkeypatch, owner, "_episode", lambda reader, index: index)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_steps_at_random_are_those_in_order(run, whole, cache_bytes):
    path, steps = run
    chosen = list(range(len(steps))) * 2
    random.Random(0).shuffle(chosen)
    with envlogger.Reader(path, cache_bytes=cache_bytes) as reader:
        for i in chosen:
            assert_same(reader.steps[i], steps[i])
    assert whole == []


def test_rows_of_columns_are_those_of_all(run, whole):
    path, _ = run
    with envlogger.Reader(path) as reader:
        episodes = [reader.episodes[n].columns() for n in range(4)]
    del whole[:]
    with envlogger.Reader(path) as reader:
        for number, expected in enumerate(episodes):
            episode = reader.episodes[number]
            for rows in (slice(3, 7), slice(None, None, -5), [0, 11, 4, 4], []):
                found = episode.columns(rows=rows)
                assert_same(found["observation"], _rows(expected["observation"], rows))
            assert_same(episode.columns(["reward"])["reward"], expected["reward"])
            assert [s.timestep.observation["id"] for s in episode[3:6]] == [
                number * STEPS + t for t in (3, 4, 5)
            ]
    assert whole == []


def _rows(columns, rows):
    return {name: column[rows] for name, column in columns.items()}


def test_only_a_part_is_read(run):
    path, steps = run
    size = sum(file.stat().st_size for file in pathlib.Path(path).glob("*record-*"))
    with envlogger.Reader(path) as reader:
        reader.steps[0]  # opens the first shard
        before = _bytes_read()
        for i in (5, 17, 29):
            assert_same(reader.steps[i], steps[i])
        assert _bytes_read() - before < 0.2 * size


def _bytes_read():
    with open("/proc/self/io") as file:
        return int(dict(line.split(": ") for line in file)["rchar"])


def test_what_is_given_is_the_callers(run):
    path, steps = run
    with envlogger.Reader(path) as reader:
        for _ in range(2):
            for name in ("left", "right", "small", "position", "depth"):
                value = reader.steps[7].timestep.observation[name]
                assert_same(value, steps[7].timestep.observation[name])
                value[:] = 1
            column = reader.episodes[0].columns(rows=[7])["observation"]["left"]
            assert_same(column[0], steps[7].timestep.observation["left"])
            column[:] = 1


def test_an_episode_read_in_part_can_be_read_as_a_whole(run, whole):
    path, steps = run
    with envlogger.Reader(path) as reader:
        reader.steps[1], reader.episodes[0][2]
        assert whole == []
        assert_same(list(reader.episodes[0]), steps[:STEPS])
        assert_same(reader.steps[1], steps[1])
        assert set(whole) == {0}


def test_forked_workers_read_parts_too(run):
    path, steps = run
    with envlogger.Reader(path) as reader:
        assert_same(reader.steps[20], steps[20])
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_check, args=(reader, steps))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert_same(reader.steps[21], steps[21])


def _check(reader, steps):
    for i in (20, 3, 33):
        assert_same(reader.steps[i], steps[i])


def test_a_shard_that_was_cut_off_while_it_was_open(run, tmp_path):
    path, steps = run
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    (shard, *_) = sorted(copy.glob("*record-*"))
    with envlogger.Reader(copy) as reader:
        assert_same(reader.steps[5], steps[5])
        os.truncate(shard, shard.stat().st_size // 2)
        with pytest.raises(errors.CorruptDatasetError) as raised:
            reader.steps[2 * STEPS + 5]
        helpers.check_message(raised, str(shard))
        assert_same(reader.steps[6], steps[6])
        assert_same(reader.steps[3 * STEPS], steps[3 * STEPS])  # of another shard


def test_a_shard_that_is_replaced_by_one_with_another_feature(tmp_path):
    path = tmp_path / "robot" / "1.0.0"
    helpers.record(path, [_episode(n) for n in range(3)], image_format="raw")
    (steps,) = [[s for e in helpers.read(path) for s in e]]
    (shard,) = path.glob("*record-*")
    before = shard.stat()
    with envlogger.Reader(path) as reader:
        assert_same(reader.steps[2 * STEPS + 3], steps[2 * STEPS + 3])
        helpers.record(path, [_episode(3)], image_format="raw", step_fn=lambda *_: {"late": 1})
        assert shard.stat().st_ino != before.st_ino
        assert shard_files.compression_of(str(shard), 3) is shards.Compression.NONE
        reader._backend._pool._idle_for_parts.clear()  # as when other shards were opened meanwhile
        for i in (2 * STEPS + 3, 2 * STEPS + 9, STEPS + 1):
            assert_same(reader.steps[i], steps[i])


def test_a_row_of_another_size_is_named(tmp_path):
    path = tmp_path / "robot" / "1.0.0"
    helpers.record(path, [_episode(0)], image_format="raw")
    (shard,) = path.glob("*record-*")
    damage.resize_row(shard, _observation(0, 6)["left"].tobytes())
    with envlogger.Reader(path) as reader:
        assert reader.steps[5].timestep.observation["id"] == 5
        with pytest.raises(errors.CorruptDatasetError) as raised:
            reader.steps[6]
        helpers.check_message(raised, str(shard), "elements are not of 180000 bytes each")
        with pytest.raises(errors.CorruptDatasetError):  # the hash is another
            list(reader.episodes[0])


def test_episodes_that_compress_are_read_as_a_whole(tmp_path, whole):
    path = tmp_path / "still" / "1.0.0"
    still = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    helpers.record(path, [[helpers.first(still), *[helpers.mid(still)] * 20, helpers.last(still)]])
    (shard,) = path.glob("*record-*")
    assert shard.stat().st_size < shards._TRIAL_BYTES
    with envlogger.Reader(path) as reader:
        assert_same(reader.steps[9].timestep.observation, still)
    assert whole == [0]


def test_episodes_that_compress_are_decompressed_here_once_their_hashes_were_compared(
    tmp_path, monkeypatch
):
    def frame(number, t):
        return np.full((200, 250, 3), 10 * number + t, np.uint8)

    path = tmp_path / "1.0.0"
    episodes = [
        [helpers.first(frame(n, 0)), *(helpers.mid(frame(n, t)) for t in range(1, STEPS))]
        for n in range(3)
    ]
    helpers.record(path, episodes, image_format="raw")
    by_library = helpers.spy(monkeypatch, shards.ShardReader, "read", lambda reader, index: index)
    with envlogger.Reader(path, cache_bytes=0) as reader:
        for _ in range(3):
            for i in (3, STEPS + 4, 2 * STEPS + 5, 0):
                number, t = divmod(i, STEPS)
                step = reader.steps[i]
                assert_same(step.timestep.observation, frame(number, t))
                step.timestep.observation[:] = 0  # it is the caller's
        assert sorted(by_library) == [0, 1, 2]
        assert_same(reader.episodes[1].columns()["observation"][4], frame(1, 4))


def test_a_step_of_an_episode_that_compresses_needs_no_more_of_it_than_lies_before(
    tmp_path, monkeypatch
):
    # An image comes before all other fields in the alphabet, and behind them in the record.
    def see(data, start, stop):
        return stop

    frames = np.random.default_rng(0).integers(0, 3, (STEPS, 200, 250, 3), np.uint8)
    step = [{"a_camera": frame, "z_place": np.full(2, t / 7)} for t, frame in enumerate(frames)]
    path = tmp_path / "1.0.0"
    helpers.record(
        path, [[helpers.first(step[0]), *map(helpers.mid, step[1:])]], image_format="raw"
    )
    stops = helpers.spy(monkeypatch, zstd.LazyBytes, "_part", see)
    size = frames[0].nbytes
    with envlogger.Reader(path, cache_bytes=0) as reader:
        logged = list(reader.episodes[0])  # compares the hash
        for t in (2, 9, 0):
            stops.clear()
            reader._backend._cache.clear()
            assert_same(reader.steps[t], logged[t])
            assert (t + 1) * size < max(stops) < (t + 2) * size
        # What is small was kept the first time, and is nobody's to change.
        assert len(stops) == 1
        reader.steps[0].timestep.observation["z_place"][...] = 7
        assert_same(reader.steps[0].timestep.observation, step[0])


def test_columns_are_all_that_is_kept_of_a_large_episode(tmp_path):
    frames = np.random.default_rng(0).integers(0, 3, (STEPS, 200, 250, 3), np.uint8)
    path = tmp_path / "1.0.0"
    helpers.record(
        path, [[helpers.first(frames[0]), *map(helpers.mid, frames[1:])]], image_format="raw"
    )
    with envlogger.Reader(path) as reader:
        for _ in range(2):
            tracemalloc.start()
            columns = reader.episodes[0].columns()
            kept = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            assert_same(columns["observation"], frames)
            assert kept < 1.1 * frames.nbytes
        list(reader.steps)  # which are kept; their columns can still be had
        assert_same(reader.episodes[0].columns(), columns)


def test_whole_columns_are_read_in_parts_once_their_hashes_were_compared(run, whole):
    path, _ = run
    with envlogger.Reader(path, cache_bytes=0) as reader:
        before = [reader.episodes[n].columns() for n in range(4)]
        assert whole == [0, 1, 2, 3]
        for number, expected in enumerate(before):
            assert_same(reader.episodes[number].columns(), expected)
    assert whole == [0, 1, 2, 3]


def test_counting_the_steps_of_others_reads_little(run, tmp_path, whole):
    path, steps = run
    copy = tmp_path / "copy"
    shutil.copytree(path, copy, ignore=shutil.ignore_patterns(".envlogger"))
    with envlogger.Reader(copy) as reader:
        before = _bytes_read()
        assert len(reader.steps) == len(steps)
        assert _bytes_read() - before < 1e6
    assert whole == []
