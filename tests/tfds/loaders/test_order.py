# SPDX-License-Identifier: Apache-2.0
"""The order in which the loaders give steps: slices, shuffling and mixing; stock TFDS is the oracle."""

from __future__ import annotations

import itertools
import warnings

import numbered
import pytest
import tf_reading

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
    import tensorflow as tf
    import tensorflow_datasets as tfds

import envlogger.tfds
from envlogger.tfds.loaders import sources

Shuffle = envlogger.tfds.Shuffle
ALL_IDS = [100 * i + t for i, length in enumerate(numbered.LENGTHS) for t in range(length)]


def _stock_ids(path, split="train", **kwargs):
    builder = (
        path if isinstance(path, tfds.core.DatasetBuilder) else tfds.builder_from_directory(path)
    )
    dataset = builder.as_dataset(split=split, **kwargs)
    return numbered.ids(dataset.flat_map(lambda episode: episode["steps"]))


@pytest.mark.parametrize(
    "split",
    [
        "all",
        "train[:80%]",
        "train[10:]+train[:2]",
        tfds.core.ReadInstruction("train", from_=20, to=70, unit="%"),
    ],
    ids=str,
)
def test_slices_are_those_of_tfds(any_format, split):
    assert numbered.ids(envlogger.tfds.steps(any_format, split)) == _stock_ids(any_format, split)


@pytest.mark.parametrize(
    "options",
    [
        {"interleave_cycle_length": 1},
        {"interleave_cycle_length": 2, "interleave_block_length": 1},
        {"interleave_cycle_length": 3, "interleave_block_length": 2},
        {"override_buffer_size": 100, "num_parallel_calls_for_decode": 1},
        {"skip_prefetch": True},
        {"input_context": tf.distribute.InputContext(3, 1)},
    ],
    ids=",".join,
)
def test_read_config_is_obeyed(any_format, options):
    config = tfds.ReadConfig(**options)

    got = numbered.ids(envlogger.tfds.steps(any_format, read_config=config, batch_size=4))

    assert got == _stock_ids(any_format, read_config=config)


def test_recorded_order_with_one_file_at_a_time(directory):
    assert numbered.ids(envlogger.tfds.steps(directory, read_config=tf_reading.IN_ORDER)) == ALL_IDS


def test_files_are_shuffled_as_tfds_does(directory):
    config = tfds.ReadConfig(interleave_cycle_length=1, shuffle_seed=5)
    expected = tfds.builder_from_directory(directory).as_dataset(
        split="train", shuffle_files=True, read_config=config
    )
    expected = expected.flat_map(lambda episode: episode["steps"])

    by_config = envlogger.tfds.steps(directory, shuffle=Shuffle(files=True), read_config=config)
    by_seed = envlogger.tfds.steps(
        directory, shuffle=Shuffle(files=True, seed=5), read_config=tf_reading.IN_ORDER
    )

    orders = [numbered.ids(expected), numbered.ids(expected)]  # two epochs
    assert orders[0] != orders[1]
    assert [numbered.ids(by_config), numbered.ids(by_config)] == orders
    assert [numbered.ids(by_seed), numbered.ids(by_seed)] == orders
    assert tf_reading.IN_ORDER.shuffle_seed is None  # the caller's is not changed


def _first_ids(ids):
    return [i for i in ids if i % 100 == 0]


@pytest.mark.parametrize("batch_size", [None, 4])
def test_episodes_are_shuffled_whole(directory, batch_size):
    def load(seed):
        shuffle = Shuffle(episodes=100, seed=seed)
        return numbered.ids(envlogger.tfds.steps(directory, shuffle=shuffle, batch_size=batch_size))

    ids = load(1)

    assert sorted(ids) == ALL_IDS
    assert _first_ids(ids) != _first_ids(ALL_IDS)
    by_episode = [list(group) for _, group in itertools.groupby(ids, key=lambda i: i // 100)]
    assert sorted(map(len, by_episode)) == sorted(numbered.LENGTHS)
    assert all(group == sorted(group) for group in by_episode)
    assert load(1) == ids
    assert load(2) != ids


@pytest.mark.parametrize("batch_size", [None, 4])
def test_steps_are_shuffled(directory, batch_size):
    def load(seed):
        shuffle = Shuffle(steps=30, seed=seed)
        return envlogger.tfds.steps(directory, shuffle=shuffle, batch_size=batch_size)

    dataset = load(1)
    ids, second_epoch = numbered.ids(dataset), numbered.ids(dataset)

    assert sorted(ids) == sorted(second_epoch) == ALL_IDS
    assert ids != second_epoch
    assert all(ids[t] // 100 <= 9 for t in range(3))  # the buffer is not larger than it was to be
    assert numbered.ids(load(1)) == ids
    assert numbered.ids(load(2)) != ids


def test_without_a_seed_the_order_differs(directory):
    shuffle = Shuffle(files=True, episodes=100, steps=100)
    dataset = envlogger.tfds.steps(directory, shuffle=shuffle)

    assert numbered.ids(dataset) != numbered.ids(dataset)


def test_steps_of_several_episodes_alternate(directory):
    config = tf_reading.IN_ORDER
    ids = numbered.ids(
        envlogger.tfds.steps(directory, interleave=3, read_config=config, batch_size=4)
    )

    expected = []
    for start in range(0, len(numbered.LENGTHS), 3):
        group = range(start, start + 3)
        for t in range(max(numbered.LENGTHS[start : start + 3])):
            expected += [100 * i + t for i in group if t < numbered.LENGTHS[i]]
    assert ids == expected
    assert ids[:5] == [0, 100, 200, 101, 201]


def test_a_list_is_read_one_after_the_other(root, directory):
    other = numbered.write(
        root / "other" / "toy" / "1.0.0", [3, 2], first=50, file_format="tfrecord"
    )

    ids = numbered.ids(
        envlogger.tfds.steps(
            [directory, tfds.builder_from_directory(other)], read_config=tf_reading.IN_ORDER
        )
    )
    slices = numbered.ids(
        envlogger.tfds.steps(
            (other, directory), "train[:1]", read_config=tf_reading.IN_ORDER, batch_size=3
        )
    )

    assert ids == [*ALL_IDS, 5000, 5001, 5002, 5100, 5101]
    assert slices == [5000, 5001, 5002, 0]


def test_a_list_is_mixed_at_random_with_its_files(root, directory):
    other = numbered.write(root / "many" / "toy" / "1.0.0", [1] * 12, first=50)
    shuffle = Shuffle(files=True, seed=3)

    dataset = envlogger.tfds.episodes([directory, other], shuffle=shuffle)

    ids = [int(episode["steps"]["observation"]["id"][0]) // 100 for episode in dataset]
    assert sorted(ids) == [*range(12), *range(50, 62)]
    switches = sum((a < 50) != (b < 50) for a, b in itertools.pairwise(ids))
    assert 4 < switches < 20
    again = [int(episode["steps"]["observation"]["id"][0]) // 100 for episode in dataset]
    assert sorted(again) == sorted(ids)


def test_files_of_many_episodes_are_parsed_in_chunks(directory):
    parts = sources.open_source(directory, "train", "steps")

    assert 1 < sources.chunk_size(parts, 1) <= 64
    assert sources.chunk_size(parts, 7) % 7 == 0


def test_builders_of_several_directories(root, directory):
    other = numbered.write(root / "second" / "toy" / "1.0.0", [2], first=50)
    builder = tfds.builder_from_directories([str(directory), str(other)])

    ids = numbered.ids(envlogger.tfds.steps(builder, "train[11:]", read_config=tf_reading.IN_ORDER))

    assert ids == [*range(1100, 1108), 5000, 5001]


def test_filenames_are_repeated(directory):
    config = tfds.ReadConfig(repeat_filenames=True, assert_cardinality=False)

    dataset = envlogger.tfds.steps(directory, read_config=config).take(100)

    assert len(numbered.ids(dataset)) == 100


@pytest.mark.parametrize(
    ("loader", "position"), [("steps", 0), ("steps", 1), ("transitions", 3), ("windows", 7)]
)
def test_an_iterator_is_saved_and_restored(directory, tmp_path, position, loader):
    def iterator():
        options = {"length": 2} if loader == "windows" else {}
        shuffle = Shuffle(episodes=5, steps=8, seed=1)
        load = getattr(envlogger.tfds, loader)
        return iter(load(directory, batch_size=3, shuffle=shuffle, **options))

    saved = iterator()
    for _ in range(position):
        next(saved)
    restored = tf_reading.restore(saved, iterator(), tmp_path)

    rest = numbered.ids(restored)
    assert rest == numbered.ids(saved)
    assert rest
