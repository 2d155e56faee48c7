# SPDX-License-Identifier: Apache-2.0
"""Logs that EnvLogger 1.x wrote, bit by bit; and what is left of them after a kill, or damage."""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import os
import pickle
import shutil
import sys
import warnings

import damage
import helpers
import numpy as np
import pytest
import riegeli_samples as samples

import envlogger
from envlogger import errors
from envlogger.backends import riegeli_backend_reader
from envlogger.riegeli import log, read_ahead, records_file, storage, values_file
from envlogger.testing.comparison import assert_same


def _same(got, expected):
    assert_same(helpers.sort_keys(got), helpers.sort_keys(expected))


@pytest.fixture
def copy_of(tmp_path):
    """Copies a log, so that it can be changed; returns it and its only shard."""

    def copy(case):
        target = shutil.copytree(samples.log(case), tmp_path / case)
        return target, next((path for path in target.iterdir() if path.is_dir()), None)

    return copy


@pytest.mark.parametrize("case", samples.CASES)
def test_gives_what_envlogger_gave(case):
    expected = samples.Expected(case)
    with envlogger.Reader(samples.log(case)) as reader:
        _same(list(reader.steps), expected.steps)
        assert [len(episode) for episode in reader.episodes] == expected.episode_lengths
        _same(list(reader.episode_metadata()), expected.episode_metadata)
        _same(reader.metadata(), expected.metadata)
        for name in ("observation_spec", "action_spec", "reward_spec", "discount_spec"):
            _same(getattr(reader, name)(), expected.spec(name))


@pytest.mark.parametrize("case", ["catch_shards", "nested", "opt_transpose_smallchunk", "dtypes"])
def test_gives_the_same_in_any_order(case):
    expected = samples.Expected(case)
    reader = envlogger.Reader(samples.log(case))
    for i in np.random.default_rng(0).integers(len(reader.steps), size=100).tolist():
        _same(reader.steps[i], expected.steps[i])
    for episode, steps in zip(reversed(reader.episodes), expected.episodes[::-1], strict=True):
        _same(list(episode), steps)


@pytest.mark.parametrize("case", samples.KILLED)
def test_what_a_killed_writer_left_is_all_there(case):
    expected = samples.Expected(case)
    num_episodes, num_shown = samples.KILLED[case]
    with pytest.warns(log.LogWarning, match="its writer was killed"):
        reader, _ = _open(samples.log(case))
    episodes = [list(episode) for episode in reader.episodes]
    assert (len(episodes), len(expected.episode_lengths)) == (num_episodes, num_shown)
    _same(list(reader.steps), expected.steps)
    # Each step is in one episode, which begins with FIRST and has no other.
    _same([step for episode in episodes for step in episode], expected.steps)
    for episode in episodes:
        assert [step.timestep.first() for step in episode] == [True] + [False] * (len(episode) - 1)
    metadata = list(reader.episode_metadata())
    _same([value for value in metadata if value is not None],
          [value for value in expected.episode_metadata if value is not None])  # fmt: skip


def test_steps_that_were_not_indexed_are_there(copy_of):
    directory, shard = copy_of("flush_each25")
    expected = samples.Expected("flush_each25")
    for name in (log.STEP_OFFSETS, log.EPISODE_INDEX):
        _cut_to_chunks(shard / name, 2)  # signature, first flush
    with pytest.warns(log.LogWarning, match="not in the index"):
        reader, lengths = _open(directory)
    assert lengths == expected.episode_lengths
    _same(list(reader.steps), expected.steps)
    metadata = list(reader.episode_metadata())
    _same(metadata[:1], expected.episode_metadata[:1])
    assert metadata[-1] is None


def test_a_log_that_ends_anywhere_is_read_so_far(copy_of):
    directory, _ = copy_of("opt_transpose_smallchunk")
    steps = samples.Expected("opt_transpose_smallchunk").steps
    shards = sorted(path for path in directory.iterdir() if path.is_dir())
    path = shards[1] / log.STEPS
    whole = path.read_bytes()
    first = len(envlogger.Reader(samples.log("opt_transpose_smallchunk")).steps) - 50
    counts = set()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.warns(log.LogWarning, match="are lost"):
            reader, _ = _open(directory)
        got = list(reader.steps)
        assert first <= len(got) < len(steps)
        _same(got, steps[: len(got)])
        assert sum(len(episode) for episode in reader.episodes) == len(got)
        counts.add(len(got))
    assert len(counts) > 3


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (log.STEP_OFFSETS, "200 steps were found without it"),
        (log.EPISODE_INDEX, "episodes begin at FIRST"),
        (log.METADATA, "the metadata of the log is not there"),
    ],
)
def test_a_file_that_is_not_there_is_no_obstacle(copy_of, name, says):
    directory, shard = copy_of("catch_default")
    expected = samples.Expected("catch_default")
    (directory if name == log.METADATA else shard).joinpath(name).unlink()
    with pytest.warns(log.LogWarning, match=says):
        reader, lengths = _open(directory)
    assert lengths == expected.episode_lengths
    _same(list(reader.steps), expected.steps)
    assert (reader.observation_spec() is None) == (name == log.METADATA)
    without = name == log.EPISODE_INDEX
    _same(list(reader.episode_metadata()), [None] * 20 if without else expected.episode_metadata)


def test_metadata_of_episodes_that_is_not_there_is_none(copy_of):
    directory, shard = copy_of("catch_default")
    (shard / log.EPISODE_METADATA).unlink()
    reader = envlogger.Reader(directory)
    with pytest.warns(log.LogWarning, match="metadata of an episode"):
        assert reader.episode_metadata()[3] is None


def test_without_steps_only_the_specs_are_there(copy_of):
    directory, shard = copy_of("catch_default")
    (shard / log.STEPS).unlink()
    with pytest.warns(log.LogWarning, match="steps .*are lost"):
        reader = envlogger.Reader(directory)
    assert (len(reader.steps), len(reader.episodes)) == (0, 0)
    assert reader.observation_spec().shape == (10, 5)


@pytest.mark.parametrize("name", [log.METADATA, log.STEP_OFFSETS, log.EPISODE_INDEX])
def test_damaged_indexes_and_metadata_are_errors_that_name_the_file(copy_of, name):
    directory, shard = copy_of("catch_default")
    path = (directory if name == log.METADATA else shard) / name
    damage.flip(path, -3)
    with pytest.raises(errors.CorruptDatasetError, match=rf"{path}, offset \d+: .* its hash"):
        envlogger.Reader(directory)


def test_a_damaged_chunk_costs_its_own_steps_only(copy_of):
    directory, _ = copy_of("opt_transpose_tinychunk")
    steps = samples.Expected("opt_transpose_tinychunk").steps
    path = sorted(directory.glob(f"*/{log.STEPS}"))[0]
    with records_file.RecordsFile(path) as file:
        chunk = list(file.scan())[5]
    damage.flip(path, chunk.begin + 45)
    reader = riegeli_backend_reader.RiegeliBackendReader(directory, verify=True)
    damaged = []
    for i, step in enumerate(steps):
        try:
            _same(reader.steps[i], step)
        except errors.CorruptDatasetError:
            damaged.append(i)
    assert len(damaged) == chunk.num_records > 0
    with pytest.raises(errors.CorruptDatasetError, match=f"{path}, offset {chunk.begin}: "):
        reader.steps[damaged[0]]


def test_data_hashes_are_checked_where_that_is_wanted(copy_of):
    directory, _ = copy_of("opt_uncompressed")
    path = sorted(directory.glob(f"*/{log.STEPS}"))[0]
    damage.flip(path, path.read_bytes().rindex(bytes(40)) + 20)  # in an observation
    unchecked = riegeli_backend_reader.RiegeliBackendReader(directory)
    assert len(list(unchecked.steps)) == 120
    checked = riegeli_backend_reader.RiegeliBackendReader(directory, verify=True)
    with pytest.raises(errors.CorruptDatasetError, match="does not fit its hash"):
        list(checked.steps)
    with pytest.raises(errors.CorruptDatasetError, match="does not fit its hash"):
        list(checked.copy().steps)


def test_values_belong_to_the_caller():
    reader = envlogger.Reader(samples.log("catch_default"))
    for again in range(3):
        steps = list(reader.steps)
        for step in steps:
            assert step.timestep.observation.sum() >= 0, again
            step.timestep.observation[:] = -1
            step.custom_data.clear()
    expected = samples.Expected("catch_default").steps
    _same(list(reader.steps), expected)


def test_it_can_be_pickled():
    with pytest.warns(log.LogWarning):
        reader, lengths = _open(samples.log("killed_flush10"))
    # What is missing was said; so this warns no more.
    twin = pickle.loads(pickle.dumps(reader))
    assert [len(episode) for episode in twin.episodes] == lengths
    assert twin.episode_lengths().tolist() == lengths
    _same(list(twin.steps), list(reader.steps))


@pytest.mark.parametrize("case", ["catch_shards", "opt_transpose_smallchunk"])
def test_slices_cross_shards(case):
    expected = samples.Expected(case).steps
    reader = envlogger.Reader(samples.log(case))
    for part in (slice(None), slice(15, 45), slice(3, 60, 7), slice(50, 5, -3), slice(9, 9)):
        _same(reader.steps[part], expected[part])
        _same(list(reversed(reader.steps))[part], expected[::-1][part])


def test_logs_have_no_splits():
    with pytest.raises(errors.OptionError, match="split: got 'train'"):
        envlogger.Reader(samples.log("catch_default"), "train")


@pytest.mark.parametrize("value", [-1, "1 GB", None])
def test_a_cache_of_no_size(value):
    with pytest.raises(errors.OptionError, match=r"cache_bytes: got .*expected an integer of at"):
        riegeli_backend_reader.RiegeliBackendReader(samples.log("catch_default"), cache_bytes=value)


def test_threads_may_share_it_and_copies_are_independent():
    expected = samples.Expected("nested").steps
    reader = envlogger.Reader(samples.log("nested"))
    copy = reader.copy()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for steps in pool.map(lambda _: list(reader.steps), range(8)):
            _same(steps, expected)
    reader.close()
    reader.close()
    _same(list(copy.steps), expected)


def test_opening_reads_no_steps(monkeypatch):
    owner = records_file.RecordsFile
    read = helpers.spy(monkeypatch, owner, "read", lambda file, chunk: file.path.name)
    reader = envlogger.Reader(samples.log("opt_transpose_smallchunk"))
    assert len(reader.steps) == 120
    assert log.STEPS not in read
    read.clear()
    assert reader.steps[60].timestep is not None
    assert read == [log.STEPS]


def _raw_images():
    path = next(samples.log("images").glob(f"*/{log.STEPS}"))
    with records_file.RecordsFile(path) as file:
        return [storage.decode(record) for _, record in file.read_all()]


def test_what_is_read_ahead_is_the_same(monkeypatch):
    monkeypatch.setattr(read_ahead, "_DEPTH", 2)
    expected = [value[0][3] for value in _raw_images()]
    assert expected[0].nbytes > 20_000
    reader = envlogger.Reader(samples.log("images"))
    for _ in range(2):
        assert_same([step.timestep.observation for step in reader.steps], expected)
        reader.close()
    # Whoever comes after a fork has none of the threads.
    iterator = iter(reader.steps)
    for i in range(len(expected) // 2):
        assert_same(next(iterator).timestep.observation, expected[i])
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads: just that
        child = context.Process(target=_check_rest, args=(iterator, expected[i + 1 :]))
        child.start()
    child.join(60)
    assert child.exitcode == 0
    _check_rest(iterator, expected[i + 1 :])


def _check_rest(iterator, expected):
    assert_same([step.timestep.observation for step in iterator], expected)


def test_damage_that_was_read_ahead_is_told_where_it_is(copy_of, monkeypatch):
    monkeypatch.setattr(read_ahead, "_DEPTH", 4)
    directory, shard = copy_of("images")
    with records_file.RecordsFile(shard / log.STEPS) as file:
        chunks = [chunk for chunk in file.scan() if chunk.num_records]
    assert len(chunks) > 2
    damage.flip(shard / log.STEPS, chunks[-1].begin + 60)
    reader = riegeli_backend_reader.RiegeliBackendReader(directory, verify=True)
    whole = len(reader.steps) - chunks[-1].num_records
    iterator = iter(reader.steps)
    assert all(next(iterator).timestep is not None for _ in range(whole))
    with pytest.raises(errors.CorruptDatasetError, match=f"offset {chunks[-1].begin}: "):
        next(iterator)


def test_what_takes_little_time_to_decompress_is_not_read_ahead(monkeypatch):
    monkeypatch.setattr(read_ahead, "_DEPTH", 2)
    monkeypatch.setattr(read_ahead, "_threads", None)
    reader = envlogger.Reader(samples.log("opt_transpose_smallchunk"))
    assert len(list(reader.steps)) == 120
    with pytest.raises(TypeError):
        list(envlogger.Reader(samples.log("images")).steps)


def test_chunks_that_were_passed_in_order_are_dropped(monkeypatch):
    monkeypatch.setattr(values_file, "_IN_ORDER_BYTES", 0)
    cache = values_file.ChunkCache(1 << 30)
    path = next(samples.log("opt_transpose_smallchunk").glob(f"*/{log.STEPS}"))
    kept = []
    with values_file.ValuesFile(path, cache) as file:
        found = [chunk for chunk in file.scan() if chunk.num_records]
        assert len(found) > 3
        for order in (found, found[::-1]):
            for chunk in order:
                assert file.read_value(chunk.begin) is not None
            kept.append(len(cache._chunks))
            cache.clear()
    assert kept == [1, len(found)]
    assert cache.last is None


def test_many_shards_need_few_open_files():
    reader = envlogger.Reader(samples.log("catch_shards"))
    gc.collect()  # of readers before it
    before = len(os.listdir("/proc/self/fd"))
    assert len(list(reader.steps)) == 70
    assert len(os.listdir("/proc/self/fd")) - before <= 4
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_backend_can_be_named(tmp_path):
    directory = samples.log("catch_default")
    reader = envlogger.Reader(directory, backend=envlogger.BackendType.RIEGELI)
    assert len(reader.steps) == 200
    with pytest.raises(errors.DatasetError, match=r"without metadata\.riegeli"):
        envlogger.Reader(tmp_path, backend=envlogger.BackendType.RIEGELI)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "brotli", None)

    with pytest.raises(errors.MissingExtraError, match=r"pip install 'envlogger\[riegeli\]'"):
        envlogger.Reader(samples.log("catch_default"))


def test_steps_that_are_no_steps_are_errors(copy_of):
    directory, shard = copy_of("catch_default")
    shutil.copy(directory / log.METADATA, shard / log.STEPS)
    (shard / log.STEP_OFFSETS).unlink()
    (shard / log.EPISODE_INDEX).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", log.LogWarning)
        reader = envlogger.Reader(directory)
        assert (len(reader.steps), len(reader.episodes)) == (1, 0)
    with pytest.raises(errors.CorruptDatasetError, match=r"expected a step, \(timestep, action"):
        reader.steps[0]


def _open(directory):
    """Returns a reader and the lengths of the episodes; looking at these may warn, too."""
    reader = envlogger.Reader(directory)
    return reader, [len(episode) for episode in reader.episodes]


def _cut_to_chunks(path, count):
    with records_file.RecordsFile(path) as file:
        end = list(file.scan())[count].begin
    os.truncate(path, end)
