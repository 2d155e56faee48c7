# SPDX-License-Identifier: Apache-2.0
"""Images of large episodes, which the loaders leave on disk until they are decoded."""

from __future__ import annotations

import itertools
import os
import shutil
import warnings

import damage
import helpers
import numbered
import numpy as np
import pytest
import tf_reading
from helpers import assert_same_leaves

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
    import tensorflow as tf
    import tensorflow_datasets as tfds

import envlogger
import envlogger.tfds
from envlogger import errors
from envlogger.conversion import converting
from envlogger.tfds import shard_pool
from envlogger.tfds.loaders import columns, on_disk, sources

SIDE = 160
LENGTHS = [36, 40, 34, 38]  # of 77 KB each, or 34 as JPEG: more than a megabyte an episode


def _record(path, image_format):
    """Records frames like no other."""
    rng = np.random.default_rng(0)

    def see():
        frame = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        return {"camera": frame, "place": rng.standard_normal(3)}

    episodes = [
        [
            helpers.first(see()),
            *(helpers.mid(see(), float(t)) for t in range(1, length - 1)),
            helpers.last(see()),
        ]
        for length in LENGTHS
    ]
    helpers.record(path, episodes, image_format=image_format, max_episodes_per_file=2)


@pytest.fixture(scope="module", params=["raw", "png", "jpeg", "tfrecord"])
def directory(tmp_path_factory, request):
    root = tmp_path_factory.mktemp("runs")
    path = os.fspath(root / "run" / "1.0.0")
    _record(path, "raw" if request.param == "tfrecord" else request.param)
    if request.param == "tfrecord":
        source, path = path, os.fspath(root / "copy" / "1.0.0")
        converting.convert(source, path, file_format="tfrecord")
    return path


@pytest.fixture(scope="module")
def stock(directory):
    """The steps of each episode, as stock TFDS reads them, in the order of recording."""
    builder = tfds.builder_from_directory(directory)
    episodes = builder.as_dataset(split="train", read_config=tf_reading.IN_ORDER)
    return [[tf.nest.map_structure(np.asarray, step) for step in e["steps"]] for e in episodes]


def _stack(steps):
    return tf.nest.map_structure(lambda *values: np.stack(values), *steps)


def _on_disk(directory, split="train"):
    parts = sources.open_source(directory, split, "steps")
    chosen = on_disk.leave_on_disk(parts, columns.open_columns(parts, None, "steps"))
    return [column.name for column in chosen if column.on_disk is not None]


def test_only_images_stay_on_disk(directory):
    assert _on_disk(directory) == ["observation/camera"]


@pytest.mark.parametrize("options", [{}, {"batch_size": 32}, {"shuffle": 1}], ids=str)
def test_steps(directory, stock, options):
    if "shuffle" in options:
        options = {"shuffle": envlogger.tfds.Shuffle(steps=1)}
    expected = [step for steps in stock for step in steps]
    got = list(envlogger.tfds.steps(directory, read_config=tf_reading.IN_ORDER, **options))

    if "batch_size" in options:
        assert_same_leaves(
            _stack(expected), tf.nest.map_structure(lambda *x: np.concatenate(x), *got)
        )
    else:
        assert_same_leaves(got, expected)


def test_episodes_with_their_ids_and_fields(directory, stock):
    config = tfds.ReadConfig(interleave_cycle_length=1, add_tfds_id=True)
    got = list(envlogger.tfds.episodes(directory, read_config=config))
    builder = tfds.builder_from_directory(directory)
    expected = list(builder.as_dataset(split="train", read_config=config))

    for one, other, steps in zip(got, expected, stock, strict=True):
        assert_same_leaves(one.pop("steps"), _stack(steps))
        other.pop("steps")
        assert_same_leaves(one, other)


def test_slices(directory):
    split = "train[:1]+train[3:]"
    builder = tfds.builder_from_directory(directory)
    stock = builder.as_dataset(split=split, read_config=tf_reading.IN_ORDER)
    expected = [_stack([*e["steps"].as_numpy_iterator()]) for e in stock]
    got = [
        e["steps"]
        for e in envlogger.tfds.episodes(directory, split, read_config=tf_reading.IN_ORDER)
    ]

    assert_same_leaves(got, expected)


# A buffer of 1 takes the way that shuffled elements take, and keeps the order.
@pytest.mark.parametrize(("stride", "buffer"), [(2, 0), (2, 1), (7, 0)])
def test_windows(directory, stock, stride, buffer):
    got = envlogger.tfds.windows(
        directory,
        length=5,
        stride=stride,
        pad=True,
        shuffle=envlogger.tfds.Shuffle(steps=buffer),
        read_config=tf_reading.IN_ORDER,
    )
    windows = [
        steps[chosen] for steps in stock for chosen in numbered.windows(len(steps), 5, stride)
    ]
    for window, chosen in zip(got.as_numpy_iterator(), windows, strict=True):
        mask = window.pop("mask")
        assert mask.tolist() == [True] * len(chosen) + [False] * (5 - len(chosen))
        assert_same_leaves(
            tf.nest.map_structure(lambda value, m=mask: value[m], window), _stack(chosen)
        )
        assert not np.any(window["observation"]["camera"][~mask])


def test_transitions(directory, stock):
    got = list(envlogger.tfds.transitions(directory, read_config=tf_reading.IN_ORDER))
    pairs = [pair for steps in stock for pair in itertools.pairwise(steps)]

    assert len(got) == len(pairs)
    for transition, (first, second) in zip(got, pairs, strict=True):
        assert_same_leaves(transition["observation"], first["observation"])
        assert_same_leaves(transition["next_observation"], second["observation"])
        assert transition["reward"] == first["reward"]


@pytest.mark.parametrize(
    ("load", "options", "buffer"),
    [
        (envlogger.tfds.transitions, {"n_step": 2}, 0),
        (envlogger.tfds.windows, {"length": 5, "stride": 2, "pad": True, "interleave": 2}, 1),
        (envlogger.tfds.windows, {"length": 5, "stride": 7}, 0),
    ],
    ids=["transitions", "shuffled", "apart"],
)
def test_batches_hold_what_single_elements_do(directory, load, options, buffer):
    options = options | {"read_config": tf_reading.IN_ORDER}
    single = list(load(directory, **options))
    shuffle = envlogger.tfds.Shuffle(steps=buffer)
    batches = list(load(directory, batch_size=8, shuffle=shuffle, **options))

    assert [len(batch[next(iter(batch))]) for batch in batches[:-1]] == [8] * (len(batches) - 1)
    assert_same_leaves(
        tf.nest.map_structure(lambda *parts: np.concatenate(parts), *batches), _stack(single)
    )


def test_batches_stay_as_they_are(directory):
    dataset = envlogger.tfds.steps(directory, batch_size=24, read_config=tf_reading.IN_ORDER)
    kept, copies = [], []
    for _ in range(3):
        for i, batch in enumerate(dataset):
            if i % 2:
                kept.append(batch["observation"]["camera"].numpy())
                copies.append(kept[-1].copy())

    assert all(np.array_equal(one, other) for one, other in zip(kept, copies, strict=True))


def test_all_is_shuffled_and_nothing_is_lost(directory, stock):
    shuffle = envlogger.tfds.Shuffle(files=True, episodes=3, steps=100, seed=1)
    got = list(envlogger.tfds.steps(directory, shuffle=shuffle, interleave=2))
    expected = [step for steps in stock for step in steps]

    def key(step):
        return np.asarray(step["observation"]["place"]).tobytes()

    assert [key(step) for step in got] != [key(step) for step in expected]
    assert_same_leaves(sorted(got, key=key), sorted(expected, key=key))


def test_images_alone(directory, stock):
    got = envlogger.tfds.steps(
        directory, fields=["observation/camera"], read_config=tf_reading.IN_ORDER
    )

    expected = [step["observation"]["camera"] for steps in stock for step in steps]
    assert_same_leaves([step["observation"]["camera"] for step in got], expected)


def test_a_list_of_datasets(directory, stock, tmp_path):
    copy = tmp_path / "other" / "1.0.0"
    shutil.copytree(directory, copy)
    got = envlogger.tfds.steps([directory, copy], read_config=tf_reading.IN_ORDER)

    expected = [step for steps in stock for step in steps]
    assert_same_leaves(list(got), expected * 2)


def test_a_list_of_which_one_is_not_to_be_read_in_parts(directory, stock, tmp_path):
    small = tmp_path / "small" / "1.0.0"
    features = tfds.builder_from_directory(directory).info.features
    features = tfds.features.FeaturesDict({"steps": features["steps"]})
    steps = [tf.nest.map_structure(np.asarray, step) for step in stock[0][:2]]
    with envlogger.tfds.EpisodeWriter(small, features=features, image_format="raw") as writer:
        writer.add_episode(steps)
    got = list(envlogger.tfds.steps([directory, small], fields=["observation"]))

    assert len(got) == sum(LENGTHS) + 2
    assert_same_leaves(got[-1]["observation"]["place"], stock[0][1]["observation"]["place"])


def test_an_iterator_is_saved_and_restored(directory, stock, tmp_path):
    def iterator():
        return iter(envlogger.tfds.steps(directory, batch_size=8, read_config=tf_reading.IN_ORDER))

    first = iterator()
    for _ in range(9):
        next(first)
    second = tf_reading.restore(first, iterator(), tmp_path)

    assert_same_leaves(next(second), next(first))


def _count_bytes(monkeypatch):
    """Counts the bytes that are read at places in files."""
    counts = []

    def wrap(function):
        def read(*args):
            found = function(*args)
            counts.append(found if isinstance(found, int) else len(found))
            return found

        return read

    for name in ("pread", "preadv"):
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))
    return counts


def test_what_no_window_holds_is_not_read(directory, monkeypatch):
    files = [os.path.join(directory, name) for name in os.listdir(directory) if "train" in name]
    dataset = envlogger.tfds.windows(directory, length=2, stride=1000)
    counts = _count_bytes(monkeypatch)
    windows = list(dataset)

    assert len(windows) == len(LENGTHS)
    assert 0 < sum(counts) < 0.2 * sum(map(os.path.getsize, files))


@pytest.fixture
def last(directory, tmp_path):
    """The last shard of a copy of the dataset."""
    (path,) = shutil.copytree(directory, tmp_path / "1.0.0").glob("*train*00001*")
    return path


def test_a_missing_shard(last):
    os.unlink(last)
    with pytest.raises((errors.CorruptDatasetError, tf.errors.OpError), match="record-00001"):
        list(envlogger.tfds.steps(last.parent))


def test_a_shard_that_was_cut_off(last):
    os.truncate(last, os.path.getsize(last) // 3)
    with pytest.raises(tf.errors.OpError, match="record-00001"):
        list(envlogger.tfds.steps(last.parent))


@pytest.mark.parametrize("load", [envlogger.tfds.steps, envlogger.tfds.episodes])
def test_a_pixel_that_is_not_what_it_was(last, load):
    damage.flip(last, last.stat().st_size // 2)
    with pytest.raises(tf.errors.OpError, match="record-00001"):
        list(load(last.parent))


def test_images_that_are_no_images(tmp_path, monkeypatch):
    _record(tmp_path / "1.0.0", "png")
    (path,) = (tmp_path / "1.0.0").glob("*train*00000*")
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT", len(data) // 2)
    data[at + 50 : at + 60] = bytes(10)
    path.write_bytes(data)
    monkeypatch.setattr(shard_pool.ShardPool, "compare", lambda pool, index: None)
    with pytest.raises(tf.errors.OpError, match=r"record-00000.*observation/camera"):
        list(envlogger.tfds.steps(tmp_path / "1.0.0"))


def test_a_row_of_another_size(tmp_path, monkeypatch):
    _record(tmp_path / "1.0.0", "raw")
    (path,) = (tmp_path / "1.0.0").glob("*train*00000*")
    with envlogger.Reader(tmp_path / "1.0.0") as reader:
        damage.resize_row(path, reader.steps[9].timestep.observation["camera"].tobytes())
    monkeypatch.setattr(shard_pool.ShardPool, "compare", lambda pool, index: None)
    with pytest.raises(tf.errors.OpError, match=r"observation/camera.*not of 76800 bytes each"):
        list(envlogger.tfds.steps(tmp_path / "1.0.0"))
