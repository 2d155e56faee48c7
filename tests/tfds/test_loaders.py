# SPDX-License-Identifier: Apache-2.0
"""Order, slices, shuffling, transitions and windows; stock TFDS and numpy are the oracles."""

from __future__ import annotations

import itertools
import os
import pathlib
import subprocess
import sys
import warnings

import helpers
import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
    import tensorflow as tf
    import tensorflow_datasets as tfds

import envlogger.tfds
from envlogger import errors
from envlogger.tfds import loaders
from envlogger.tfds.loaders import sources

F = tfds.features
Shuffle = envlogger.tfds.Shuffle
IN_ORDER = tfds.ReadConfig(interleave_cycle_length=1)
LENGTHS = [1, 5, 2, 9, 3, 3, 7, 1, 4, 6, 2, 8]

_STEP = {
    "observation": {"id": np.int64, "x": F.Tensor(shape=(2,), dtype=np.float64, encoding="bytes")},
    "action": np.int64,
    "reward": np.float32,
    "discount": np.float32,
    "is_first": np.bool_,
    "is_last": np.bool_,
    "is_terminal": np.bool_,
}


def _episode(index, length):
    rng = np.random.default_rng(index)
    steps = [
        {
            "observation": {"id": 100 * index + t, "x": rng.standard_normal(2)},
            "action": int(rng.integers(5)),
            "reward": np.float32(rng.standard_normal()),
            "discount": np.float32(rng.choice([0.5, 1.0])),
            "is_first": t == 0,
            "is_last": t == length - 1,
            # Every other episode is truncated.
            "is_terminal": t == length - 1 and index % 2 == 0,
        }
        for t in range(length)
    ]
    return {"steps": steps, "episode_id": f"episode {index}"}


def _write(
    path, lengths=LENGTHS, first=0, step=_STEP, file_format="array_record", split="train", make=None
):
    """Writes a dataset of five episodes per shard; returns its directory."""
    path.mkdir(parents=True, exist_ok=True)
    features = F.FeaturesDict({"steps": F.Dataset(step), "episode_id": F.Text()})
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="toy", version=tfds.core.Version("1.0.0"), data_dir=str(path), module_name=""
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=5, file_format=file_format)
    writer.initialize_splits([split])
    for index, length in enumerate(lengths, first):
        episode = _episode(index, length)
        if make is not None:
            episode["steps"] = [make(item) for item in episode["steps"]]
        episode["steps"] = [{key: item[key] for key in step} for item in episode["steps"]]
        writer.add_examples({split: [episode]})
    writer.close_all()
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="module", params=["array_record", "tfrecord"])
def any_format(root, request):
    return _write(root / request.param / "toy" / "1.0.0", file_format=request.param)


@pytest.fixture(scope="module")
def directory(root):
    return _write(root / "main" / "toy" / "1.0.0")


@pytest.fixture(scope="module")
def numpy_episodes():
    """The episodes in recorded order, as columns of numpy arrays."""
    return [_columns(_episode(i, length)["steps"]) for i, length in enumerate(LENGTHS)]


def _columns(steps):
    flat = [{**step, **step["observation"]} for step in steps]
    columns = {key: np.array([step[key] for step in flat]) for key in flat[0]}
    columns["reward"] = columns["reward"].astype(np.float32)
    columns["discount"] = columns["discount"].astype(np.float32)
    return columns


def _ids(dataset):
    return [int(i) for step in dataset for i in np.ravel(step["observation"]["id"])]


def _stock_ids(path, split="train", **kwargs):
    builder = path if isinstance(path, tfds.core.DatasetBuilder) else _builder(path)
    dataset = builder.as_dataset(split=split, **kwargs)
    return _ids(dataset.flat_map(lambda episode: episode["steps"]))


def _builder(path):
    return tfds.builder_from_directory(path)


ALL_IDS = [100 * i + t for i, length in enumerate(LENGTHS) for t in range(length)]


# Order


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
    assert _ids(envlogger.tfds.steps(any_format, split)) == _stock_ids(any_format, split)


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
    ids=str,
)
def test_read_config_is_obeyed(any_format, options):
    config = tfds.ReadConfig(**options)

    got = _ids(envlogger.tfds.steps(any_format, read_config=config, batch_size=4))

    assert got == _stock_ids(any_format, read_config=config)


def test_recorded_order_with_one_file_at_a_time(directory):
    assert _ids(envlogger.tfds.steps(directory, read_config=IN_ORDER)) == ALL_IDS


def test_files_are_shuffled_as_tfds_does(directory):
    config = tfds.ReadConfig(interleave_cycle_length=1, shuffle_seed=5)
    expected = _builder(directory).as_dataset(split="train", shuffle_files=True, read_config=config)
    expected = expected.flat_map(lambda episode: episode["steps"])

    by_config = envlogger.tfds.steps(directory, shuffle=Shuffle(files=True), read_config=config)
    by_seed = envlogger.tfds.steps(
        directory, shuffle=Shuffle(files=True, seed=5), read_config=IN_ORDER
    )

    orders = [_ids(expected), _ids(expected)]  # two epochs
    assert orders[0] != orders[1]
    assert [_ids(by_config), _ids(by_config)] == orders
    assert [_ids(by_seed), _ids(by_seed)] == orders
    assert IN_ORDER.shuffle_seed is None  # the caller's is not changed


def _first_ids(ids):
    return [i for i in ids if i % 100 == 0]


@pytest.mark.parametrize("batch_size", [None, 4])
def test_episodes_are_shuffled_whole(directory, batch_size):
    def load(seed):
        shuffle = Shuffle(episodes=100, seed=seed)
        return _ids(envlogger.tfds.steps(directory, shuffle=shuffle, batch_size=batch_size))

    ids = load(1)

    assert sorted(ids) == ALL_IDS
    assert _first_ids(ids) != _first_ids(ALL_IDS)
    by_episode = [list(group) for _, group in itertools.groupby(ids, key=lambda i: i // 100)]
    assert sorted(map(len, by_episode)) == sorted(LENGTHS)
    assert all(group == sorted(group) for group in by_episode)
    assert load(1) == ids
    assert load(2) != ids


@pytest.mark.parametrize("batch_size", [None, 4])
def test_steps_are_shuffled(directory, batch_size):
    def load(seed):
        shuffle = Shuffle(steps=30, seed=seed)
        return envlogger.tfds.steps(directory, shuffle=shuffle, batch_size=batch_size)

    dataset = load(1)
    ids, second_epoch = _ids(dataset), _ids(dataset)

    assert sorted(ids) == sorted(second_epoch) == ALL_IDS
    assert ids != second_epoch
    assert all(ids[t] // 100 <= 9 for t in range(3))  # the buffer is not larger than it was to be
    assert _ids(load(1)) == ids
    assert _ids(load(2)) != ids


def test_without_a_seed_the_order_differs(directory):
    shuffle = Shuffle(files=True, episodes=100, steps=100)
    dataset = envlogger.tfds.steps(directory, shuffle=shuffle)

    assert _ids(dataset) != _ids(dataset)


def test_steps_of_several_episodes_alternate(directory):
    config = IN_ORDER
    ids = _ids(envlogger.tfds.steps(directory, interleave=3, read_config=config, batch_size=4))

    expected = []
    for start in range(0, len(LENGTHS), 3):
        group = range(start, start + 3)
        for t in range(max(LENGTHS[start : start + 3])):
            expected += [100 * i + t for i in group if t < LENGTHS[i]]
    assert ids == expected
    assert ids[:5] == [0, 100, 200, 101, 201]


def test_a_list_is_read_one_after_the_other(root, directory):
    other = _write(root / "other" / "toy" / "1.0.0", [3, 2], first=50, file_format="tfrecord")

    ids = _ids(envlogger.tfds.steps([directory, _builder(other)], read_config=IN_ORDER))
    slices = _ids(
        envlogger.tfds.steps((other, directory), "train[:1]", read_config=IN_ORDER, batch_size=3)
    )

    assert ids == [*ALL_IDS, 5000, 5001, 5002, 5100, 5101]
    assert slices == [5000, 5001, 5002, 0]


def test_a_list_is_mixed_at_random_with_its_files(root, directory):
    other = _write(root / "many" / "toy" / "1.0.0", [1] * 12, first=50)
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
    other = _write(root / "second" / "toy" / "1.0.0", [2], first=50)
    builder = tfds.builder_from_directories([str(directory), str(other)])

    ids = _ids(envlogger.tfds.steps(builder, "train[11:]", read_config=IN_ORDER))

    assert ids == [*range(1100, 1108), 5000, 5001]


def test_filenames_are_repeated(directory):
    config = tfds.ReadConfig(repeat_filenames=True, assert_cardinality=False)

    dataset = envlogger.tfds.steps(directory, read_config=config).take(100)

    assert len(_ids(dataset)) == 100


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
    path = tf.train.Checkpoint(iterator=saved).write(os.fspath(tmp_path / "checkpoint"))
    restored = iterator()
    tf.train.Checkpoint(iterator=restored).read(path).assert_consumed()

    rest = _ids(restored)
    assert rest == _ids(saved)
    assert rest


# Episodes


def test_episodes_have_columns_and_their_own_fields(directory, numpy_episodes):
    dataset = envlogger.tfds.episodes(str(directory), read_config=IN_ORDER)

    for index, (episode, expected) in enumerate(zip(dataset, numpy_episodes, strict=True)):
        assert episode["episode_id"] == f"episode {index}"
        assert episode["steps"].keys() == _STEP.keys()
        np.testing.assert_array_equal(episode["steps"]["observation"]["x"], expected["x"])
        np.testing.assert_array_equal(episode["steps"]["reward"], expected["reward"])
        assert episode["steps"]["reward"].dtype == tf.float32


def test_episodes_know_their_tfds_id(directory):
    config = tfds.ReadConfig(add_tfds_id=True, interleave_cycle_length=1)

    dataset = envlogger.tfds.episodes(directory, read_config=config)

    expected = _builder(directory).as_dataset(split="train", read_config=config)
    ids = [episode["tfds_id"].numpy() for episode in dataset]
    assert ids == [episode["tfds_id"].numpy() for episode in expected]
    assert envlogger.tfds.steps(directory, read_config=config).element_spec.keys() == _STEP.keys()


def test_only_what_was_chosen_is_loaded(directory):
    episodes = envlogger.tfds.episodes(
        directory, fields=["observation/x", "is_first"], episode_fields=[]
    )
    steps = envlogger.tfds.steps(directory, fields=["observation"])

    assert episodes.element_spec.keys() == {"steps"}
    assert episodes.element_spec["steps"].keys() == {"observation", "is_first"}
    assert episodes.element_spec["steps"]["observation"].keys() == {"x"}
    assert steps.element_spec.keys() == {"observation"}
    assert steps.element_spec["observation"].keys() == {"id", "x"}


# Transitions


def _expected_transitions(episode, n, gamma):
    """Computes transitions by the definition in the docstring, in float64."""
    last = len(episode["reward"]) - 1
    reward = episode["reward"].astype(np.float64)
    discount = episode["discount"].astype(np.float64)
    result = []
    for t in range(last):
        m = min(n, last - t)
        total = sum(gamma**k * np.prod(discount[t : t + k]) * reward[t + k] for k in range(m))
        rest = gamma**m * np.prod(discount[t : t + m])
        is_terminal = bool(episode["is_terminal"][t + m])
        result.append(
            {
                "observation": (episode["id"][t], episode["x"][t]),
                "next_observation": (episode["id"][t + m], episode["x"][t + m]),
                "action": episode["action"][t],
                "reward": total,
                "discount": 0.0 if is_terminal else rest,
                "next_is_last": t + m == last,
                "next_is_terminal": is_terminal,
            }
        )
    return result


@pytest.mark.parametrize(
    ("n", "gamma", "options"),
    [
        (1, 1.0, {}),
        (1, 0.9, {"batch_size": 4}),
        (2, 1.0, {"shuffle": Shuffle(steps=1)}),
        (3, 0.9, {}),
        (100, 0.5, {"shuffle": Shuffle(steps=1), "batch_size": 4}),
    ],
    ids=str,
)
def test_transitions_are_what_the_docstring_says(directory, numpy_episodes, n, gamma, options):
    dataset = envlogger.tfds.transitions(
        directory, n_step=n, gamma=gamma, read_config=IN_ORDER, **options
    )
    if "batch_size" in options:
        dataset = dataset.unbatch()

    expected = [t for episode in numpy_episodes for t in _expected_transitions(episode, n, gamma)]
    got = list(dataset.as_numpy_iterator())
    assert len(got) == len(expected) == sum(LENGTHS) - len(LENGTHS)
    for transition, wanted in zip(got, expected, strict=True):
        assert transition.keys() == wanted.keys()
        for key in ("observation", "next_observation"):
            assert transition[key]["id"] == wanted[key][0]
            np.testing.assert_array_equal(transition[key]["x"], wanted[key][1])
        for key in ("action", "next_is_last", "next_is_terminal"):
            assert transition[key] == wanted[key]
        for key in ("reward", "discount"):
            assert transition[key].dtype == np.float32
            np.testing.assert_allclose(transition[key], wanted[key], rtol=1e-6)


def test_one_step_rewards_keep_every_bit(tmp_path):
    rewards = np.array([-0.0, 0.1, np.nan, np.inf, -1e-45], np.float32)
    path = _write(tmp_path, [6], make=lambda step: {**step, "reward": rewards[_id(step) % 5]})

    dataset = envlogger.tfds.transitions(path)

    got = np.array([transition["reward"].numpy() for transition in dataset])
    assert got.tobytes() == rewards.tobytes()


def _id(step):
    return step["observation"]["id"] % 100


def test_no_transition_leaves_the_last_step_or_crosses_episodes(directory):
    for transition in envlogger.tfds.transitions(directory, n_step=3, interleave=4):
        start, stop = (transition[key]["id"] for key in ("observation", "next_observation"))
        assert start // 100 == stop // 100
        assert 1 <= stop - start <= 3
        assert stop - start == 3 or transition["next_is_last"]


def test_a_truncated_episode_goes_on_and_a_terminated_one_does_not(tmp_path):
    # As in many datasets, the discount is 1 even where the episode terminates.
    path = _write(tmp_path, [3, 3], make=lambda step: {**step, "discount": 1.0})

    dataset = envlogger.tfds.transitions(path, n_step=2, gamma=0.5, read_config=IN_ORDER)

    got = [(float(t["discount"]), bool(t["next_is_terminal"])) for t in dataset]
    assert got == [(0, True), (0, True), (0.25, False), (0.5, False)]


@pytest.mark.parametrize("lacking", ["discount", "is_terminal"])
def test_transitions_without_discount_or_without_terminal_flag(tmp_path, lacking):
    step = {key: item for key, item in _STEP.items() if key != lacking}
    path = _write(tmp_path, [3, 3], step=step)
    episodes = [_columns(_episode(i, 3)["steps"]) for i in range(2)]
    for episode in episodes:
        episode[lacking] = np.ones(3, np.float32) if lacking == "discount" else np.zeros(3, bool)

    dataset = envlogger.tfds.transitions(path, n_step=2, gamma=0.5, read_config=IN_ORDER)

    expected = [t for e in episodes for t in _expected_transitions(e, 2, 0.5)]
    for got, wanted in zip(dataset, expected, strict=True):
        assert got["discount"].dtype == tf.float32
        np.testing.assert_allclose(got["discount"], wanted["discount"], rtol=1e-6)
        assert bool(got["next_is_terminal"]) == wanted["next_is_terminal"]


def test_rewards_and_discounts_may_be_nested_and_arrays(tmp_path):
    pair = F.Tensor(shape=(2,), dtype=np.float64, encoding="bytes")
    signal = {"a": np.int32, "b": pair}
    step = {**_STEP, "reward": signal, "discount": {"a": np.float32, "b": np.float32}}

    def make(item):
        r, d = item["reward"], item["discount"]
        reward = {"a": _id(item), "b": np.array([r, 2 * r], np.float64)}
        return {**item, "reward": reward, "discount": {"a": 1.0, "b": d}}

    path = _write(tmp_path, [4], step=step, make=make)
    [episode] = [_columns(_episode(0, 4)["steps"])]
    expected = _expected_transitions(episode, 2, 0.5)

    for t, got in enumerate(envlogger.tfds.transitions(path, n_step=2, gamma=0.5)):
        total = expected[t]["reward"]
        np.testing.assert_allclose(got["reward"]["b"], [total, 2 * total])
        assert got["reward"]["b"].dtype == got["reward"]["a"].dtype == tf.float64
        assert got["reward"]["a"] == t + (0.5 * (t + 1) if t < 2 else 0)
        np.testing.assert_allclose(got["discount"]["b"], expected[t]["discount"])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(np.bool_, "float32"), (np.int16, "float32"), (np.int64, "float64"), (np.float16, "float16")],
)
def test_dtypes_of_rewards(tmp_path, dtype, expected):
    step = {**_STEP, "reward": dtype}
    path = _write(tmp_path, [3], step=step, make=lambda item: {**item, "reward": dtype(1)})

    dataset = envlogger.tfds.transitions(path, n_step=2)

    assert dataset.element_spec["reward"].dtype.name == expected
    assert [float(t["reward"]) for t in dataset] == [1.5, 1]  # discounts of 0.5


def test_chosen_fields_are_those_of_the_first_step(directory, numpy_episodes):
    dataset = envlogger.tfds.transitions(
        directory, n_step=2, fields=["observation/id", "is_first", "reward"], read_config=IN_ORDER
    )

    assert dataset.element_spec.keys() == {
        *("observation", "next_observation", "is_first", "reward"),
        *("discount", "next_is_last", "next_is_terminal"),
    }
    assert dataset.element_spec["next_observation"].keys() == {"id"}
    firsts = [bool(t["is_first"]) for t in dataset]
    assert firsts == [t == 0 for e in numpy_episodes for t in range(len(e["id"]) - 1)]


def test_returns_need_no_other_field(directory):
    dataset = envlogger.tfds.transitions(directory, fields=["reward"])

    assert "observation" not in dataset.element_spec
    assert len(list(dataset)) == sum(LENGTHS) - len(LENGTHS)


def test_transitions_of_a_recorded_run(tmp_path):
    first, mid, last = helpers.first, helpers.mid, helpers.last
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    helpers.record(
        tmp_path / "run",
        [
            [first(pixels[0]), mid(pixels[1], reward=0.5), last(pixels[2], reward=-1.0)],
            [first(pixels[3]), last(pixels[0], reward=2.0, discount=1.0)],  # a time limit
            [first(pixels[1]), mid(pixels[2], reward=3.0)],  # left by reset()
        ],
        [[4, 5], [6], [7]],
    )

    got = list(envlogger.tfds.transitions(tmp_path / "run", read_config=IN_ORDER))

    assert [int(t["action"]) for t in got] == [4, 5, 6, 7]
    assert [float(t["reward"]) for t in got] == [0.5, -1, 2, 3]
    assert [float(t["discount"]) for t in got] == [1, 0, 1, 1]
    assert [bool(t["next_is_terminal"]) for t in got] == [False, True, False, False]
    assert [bool(t["next_is_last"]) for t in got] == [False, True, True, True]
    for t, (start, stop) in zip(got, [(0, 1), (1, 2), (3, 0), (1, 2)], strict=True):
        np.testing.assert_array_equal(t["observation"], pixels[start])
        np.testing.assert_array_equal(t["next_observation"], pixels[stop])


# Windows


def _expected_windows(length, stride, pad):
    windows = []
    for i, steps in enumerate(LENGTHS):
        for start in range(0, steps, stride):
            is_full = start + length <= steps
            is_needed = start == 0 or start - stride + length < steps
            if is_full or (pad and is_needed):
                stop = min(start + length, steps)
                windows.append([100 * i + t for t in range(start, stop)])
    return windows


@pytest.mark.parametrize(
    ("length", "stride", "pad", "batch_size"),
    [
        *[(1, None, False, None), (1, 4, True, 7), (20, None, False, 7), (20, 3, True, None)],
        *[(3, stride, pad, None) for stride in (None, 1) for pad in (False, True)],
        *[(3, stride, pad, 7) for stride in (2, 4) for pad in (False, True)],
    ],
)
def test_windows(directory, length, stride, pad, batch_size):
    dataset = envlogger.tfds.windows(
        directory,
        length=length,
        stride=stride,
        pad=pad,
        fields=["observation"],
        batch_size=batch_size,
        read_config=IN_ORDER,
    )

    if batch_size:
        dataset = dataset.unbatch()
    got = []
    for window in dataset:
        mask, ids = window["mask"].numpy(), window["observation"]["id"].numpy()
        assert mask.shape == ids.shape == (length,)
        assert not ids[~mask].any()
        assert not window["observation"]["x"].numpy()[~mask].any()
        got.append(ids[mask].tolist())
    assert got == _expected_windows(length, stride or length, pad)


@pytest.mark.parametrize("options", [{"interleave": 4}, {"shuffle": Shuffle(steps=50)}], ids=str)
@pytest.mark.parametrize("stride", [1, 5])
def test_windows_in_another_order(directory, stride, options):
    dataset = envlogger.tfds.windows(directory, length=3, stride=stride, pad=True, **options)

    got = [window["observation"]["id"].numpy()[window["mask"].numpy()] for window in dataset]

    expected = _expected_windows(3, stride, pad=True)
    got = [ids.tolist() for ids in got]
    assert sorted(got) == expected
    assert got != expected


def test_windows_of_long_episodes_come_in_blocks(tmp_path, monkeypatch):
    from envlogger.tfds.loaders import blocks

    monkeypatch.setattr(blocks, "_BLOCK_ELEMENTS", 7)
    path = _write(tmp_path, [100])

    for stride in (1, 9):
        dataset = envlogger.tfds.windows(path, length=5, stride=stride, fields=["observation/id"])
        starts = [int(window["observation"]["id"][0]) for window in dataset]
        assert starts == list(range(0, 96, stride))


def test_only_images_of_windows_are_decoded(tmp_path):
    # All other images are none, so that it would show.
    step = {"image": F.Image(shape=(2, 2, 3))}
    image = np.full((2, 2, 3), 9, np.uint8)

    def make(item):
        return {"image": image if _id(item) % 10 < 2 else b"no image"}

    path = _write(tmp_path, [40], step=step, make=make)

    for shuffle in (None, Shuffle(steps=3)):
        windows = envlogger.tfds.windows(path, length=2, stride=10, shuffle=shuffle)
        assert [int(window["image"].numpy().min()) for window in windows] == [9] * 4
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(envlogger.tfds.steps(path))


# Bad input


def test_a_dataset_without_reward(tmp_path):
    path = _write(tmp_path, [2], step={k: v for k, v in _STEP.items() if k != "reward"})

    with pytest.raises(errors.DatasetError) as raised:
        envlogger.tfds.transitions(path)
    helpers.check_message(
        raised, "transitions", str(path), "no field 'reward'", "action", "`windows`"
    )
    assert len(list(envlogger.tfds.windows(path, length=2))) == 1


def test_a_dataset_that_does_not_tell_how_episodes_end(tmp_path):
    step = {k: v for k, v in _STEP.items() if k not in ("discount", "is_terminal")}
    path = _write(tmp_path, [2], step=step)

    with pytest.raises(errors.DatasetError, match=r"no field 'discount' or 'is_terminal'"):
        envlogger.tfds.transitions(path)


@pytest.mark.parametrize("lacking", ["observation", "action"])
def test_a_dataset_without_observation_or_action(tmp_path, lacking):
    path = _write(tmp_path, [2], step={k: v for k, v in _STEP.items() if k != lacking}, make=dict)

    with pytest.raises(errors.DatasetError, match=f"no field '{lacking}'.*pass `fields`"):
        envlogger.tfds.transitions(path)
    assert len(list(envlogger.tfds.transitions(path, fields=["is_first"]))) == 1


@pytest.mark.parametrize(
    ("reward", "discount", "message"),
    [
        (F.Text(), np.float32, "reward of .*: got Text.*expected numbers"),
        (F.Sequence(np.float32), np.float32, "reward of .*expected numbers"),
        (
            np.float32,
            F.Tensor(shape=(2,), dtype=np.float32),
            r"got discounts of shape \(2,\) for rewards of shape \(\)",
        ),
        ({"a": np.float32}, {"b": np.float32}, "reward/a of .*: there is no discount of its own"),
    ],
    ids=str,
)
def test_signals_that_no_return_can_be_computed_from(tmp_path, reward, discount, message):
    path = _write(tmp_path, [], step={**_STEP, "reward": reward, "discount": discount})
    _pretend_one_episode(path)

    with pytest.raises(errors.UnsupportedValueError, match=message):
        envlogger.tfds.transitions(path)


def _pretend_one_episode(path):
    info = path / "dataset_info.json"
    splits = '"splits": [{"name": "train", "shardLengths": ["1"]}]'
    info.write_text(
        '{"name": "toy", "version": "1.0.0", "fileFormat": "array_record", ' + splits + "}"
    )


@pytest.mark.parametrize("name", ["next_observation", "next_is_last"])
def test_fields_that_transitions_make_themselves(tmp_path, name):
    path = _write(tmp_path, [2], step={**_STEP, name: np.int64}, make=lambda s: {**s, name: 1})

    with pytest.raises(errors.NameConflictError, match=f"have a field '{name}'"):
        envlogger.tfds.transitions(path, fields=["observation", "action", name])
    assert len(list(envlogger.tfds.transitions(path))) == 1


def test_a_field_that_is_called_as_the_mask_is(tmp_path):
    path = _write(tmp_path, [2], step={**_STEP, "mask": np.int64}, make=lambda s: {**s, "mask": 1})

    with pytest.raises(errors.NameConflictError, match="have a field 'mask'"):
        envlogger.tfds.windows(path, length=2)


@pytest.mark.parametrize(
    ("loader", "options", "message"),
    [
        ("steps", {"split": "test"}, r"split: got 'test', expected .*\('train'\)"),
        ("steps", {"split": "train[:1%]x"}, r"split: got 'train\[:1%\]x'"),
        ("steps", {"split": "train[5:5]"}, r"split: got 'train\[5:5\]', which holds no episode"),
        ("steps", {"split": 3}, r"split: got 3, expected"),
        ("episodes", {"split": None}, r"split: got None, expected"),
        ("steps", {"fields": ["rewards"]}, r"steps: fields: got 'rewards', .* have only: action, "),
        ("steps", {"fields": ["observation/y"]}, r"got 'observation/y'"),
        (
            "windows",
            {"fields": "reward", "length": 2},
            r"windows: fields: got 'reward', expected a",
        ),
        ("steps", {"fields": []}, r"fields: got none"),
        ("episodes", {"episode_fields": ["id"]}, r"episode_fields: got 'id'.*only: .*episode_id"),
        ("episodes", {"episode_fields": "episode_id"}, r"got 'episode_id', expected a list"),
        ("episodes", {"shuffle": Shuffle(steps=2)}, r"episodes: got Shuffle\(steps=...\)"),
        ("transitions", {"n_step": 0}, r"n_step: got 0, expected an integer of at least 1"),
        ("transitions", {"n_step": 1.0}, r"n_step: got 1.0, expected an integer"),
        ("transitions", {"gamma": 1.5}, r"gamma: got 1.5, expected a number in \[0, 1\]"),
        ("transitions", {"gamma": "1"}, r"gamma: got '1', expected a number in \[0, 1\]"),
        ("windows", {"length": 0}, r"length: got 0"),
        ("windows", {"length": 2, "stride": 0}, r"stride: got 0"),
        ("steps", {"batch_size": 0}, r"batch_size: got 0"),
        ("steps", {"interleave": True}, r"interleave: got True"),
        ("steps", {"shuffle": 100}, r"shuffle: got 100, expected a Shuffle"),
        ("steps", {"read_config": {}}, r"read_config: got \{\}, expected a ReadConfig"),
    ],
    ids=str,
)
def test_options_that_are_not_allowed(directory, loader, options, message):
    with pytest.raises(errors.OptionError, match=message):
        getattr(envlogger.tfds, loader)(directory, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": 1}, "Shuffle.files: got 1, expected a bool"),
        ({"episodes": -1}, "Shuffle.episodes: got -1, expected an integer of at least 0"),
        ({"steps": 1.5}, "Shuffle.steps: got 1.5"),
        ({"seed": "x"}, "Shuffle.seed: got 'x', expected an integer"),
    ],
    ids=str,
)
def test_what_cannot_be_shuffled(options, message):
    with pytest.raises(errors.OptionError, match=message):
        Shuffle(**options)


@pytest.mark.parametrize("source", [None, 3, [], [None]], ids=str)
def test_sources_that_are_none(source):
    with pytest.raises(errors.OptionError, match=r"steps: got an? "):
        envlogger.tfds.steps(source)


def test_a_directory_without_a_dataset(tmp_path):
    with pytest.raises(
        errors.DatasetError, match=r"no dataset_info.json.*such as data/catch/1.0.0"
    ):
        envlogger.tfds.steps(tmp_path)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_damaged_json(tmp_path, name):
    path = _write(tmp_path, [1])
    (path / name).write_text('{"name": ')

    with pytest.raises(errors.CorruptDatasetError, match=f"{tmp_path}: .*{name}"):
        envlogger.tfds.steps(path)


def test_a_dataset_without_steps(tmp_path):
    features = F.FeaturesDict({"image": F.Image()})
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="toy", version=tfds.core.Version("1.0.0"), data_dir=str(tmp_path), module_name=""
    )
    tfds.core.DatasetInfo(builder=identity, features=features).write_to_directory(tmp_path)
    _pretend_one_episode(tmp_path)

    with pytest.raises(errors.DatasetError, match="no nested feature 'steps'"):
        envlogger.tfds.steps(tmp_path)


def test_datasets_of_a_list_that_differ(root, directory):
    step = {**_STEP, "action": np.float32}
    other = _write(root / "float" / "toy" / "1.0.0", [2], step=step)

    with pytest.raises(errors.DatasetError) as raised:
        envlogger.tfds.steps([directory, other])
    helpers.check_message(raised, str(other), "'action'", str(directory), "fields=[...]")
    assert len(_ids(envlogger.tfds.steps([directory, other], fields=["observation"]))) == 53


def test_datasets_of_a_list_with_other_fields(root, directory):
    step = {k: v for k, v in _STEP.items() if k != "is_first"}
    other = _write(root / "less" / "toy" / "1.0.0", [2], step=step)

    for pair in ([directory, other], [other, directory]):
        with pytest.raises(errors.DatasetError, match=r"'is_first' is not stored as in"):
            envlogger.tfds.steps(pair)


def test_a_missing_shard(tmp_path):
    path = _write(tmp_path, [1, 2])
    [shard] = path.glob("toy-train*")
    shard.unlink()

    with pytest.raises(errors.CorruptDatasetError, match=f"{shard.name}: this shard is missing"):
        envlogger.tfds.steps(path)


def test_a_record_whose_columns_differ_in_length(tmp_path):
    path = _write(tmp_path, [3])
    [shard] = path.glob("toy-train*")
    adapter = tfds.core.file_adapters.ADAPTER_FOR_FORMAT[
        tfds.core.file_adapters.FileFormat.ARRAY_RECORD
    ]
    [record] = [r.numpy() for r in adapter.make_tf_data(str(shard))]
    example = tf.train.Example.FromString(record)
    del example.features.feature["steps/action"].int64_list.value[-1]
    adapter.write_examples(shard, enumerate([example.SerializeToString()]))

    with pytest.raises(tf.errors.InvalidArgumentError, match="fields of an episode differ in len"):
        list(envlogger.tfds.steps(path))
    assert len(list(envlogger.tfds.steps(path, fields=["reward"]))) == 3


# Imports


def test_the_package_tells_what_it_has():
    names = set(loaders.__all__) | {"import_rlds"}

    assert names <= set(dir(envlogger.tfds))
    with pytest.raises(AttributeError, match=r"'envlogger.tfds' has no attribute 'nothing'"):
        _ = envlogger.tfds.nothing


def test_without_tensorflow_the_extra_is_named(tmp_path):
    program = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import envlogger.tfds\n"
        "try: envlogger.tfds.steps\n"
        "except envlogger.errors.MissingExtraError as e: print(e)\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=pathlib.Path(envlogger.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert "pip install 'envlogger[tensorflow]'" in result.stdout
