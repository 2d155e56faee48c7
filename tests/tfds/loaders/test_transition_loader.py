# SPDX-License-Identifier: Apache-2.0
"""Transitions, against the definition in the docstring, computed by numpy."""

from __future__ import annotations

import warnings

import helpers
import ml_dtypes
import numbered
import numpy as np
import pytest
import tf_reading

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
    import tensorflow as tf
    import tensorflow_datasets as tfds

import envlogger.tfds
from envlogger.testing.comparison import assert_same

F = tfds.features
Shuffle = envlogger.tfds.Shuffle


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
        directory, n_step=n, gamma=gamma, read_config=tf_reading.IN_ORDER, **options
    )
    if "batch_size" in options:
        dataset = dataset.unbatch()

    expected = [t for episode in numpy_episodes for t in _expected_transitions(episode, n, gamma)]
    got = list(dataset.as_numpy_iterator())
    assert len(got) == len(expected) == sum(numbered.LENGTHS) - len(numbered.LENGTHS)
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
    path = numbered.write(
        tmp_path, [6], make=lambda step: {**step, "reward": rewards[numbered.number_of(step) % 5]}
    )

    dataset = envlogger.tfds.transitions(path)

    got = np.array([transition["reward"].numpy() for transition in dataset])
    assert got.tobytes() == rewards.tobytes()


def test_no_transition_leaves_the_last_step_or_crosses_episodes(directory):
    for transition in envlogger.tfds.transitions(directory, n_step=3, interleave=4):
        start, stop = (transition[key]["id"] for key in ("observation", "next_observation"))
        assert start // 100 == stop // 100
        assert 1 <= stop - start <= 3
        assert stop - start == 3 or transition["next_is_last"]


def test_a_truncated_episode_goes_on_and_a_terminated_one_does_not(tmp_path):
    # As in many datasets, the discount is 1 even where the episode terminates.
    path = numbered.write(tmp_path, [3, 3], make=lambda step: {**step, "discount": 1.0})

    dataset = envlogger.tfds.transitions(path, n_step=2, gamma=0.5, read_config=tf_reading.IN_ORDER)

    got = [(float(t["discount"]), bool(t["next_is_terminal"])) for t in dataset]
    assert got == [(0, True), (0, True), (0.25, False), (0.5, False)]


@pytest.mark.parametrize("lacking", ["discount", "is_terminal"])
def test_transitions_without_discount_or_without_terminal_flag(tmp_path, lacking):
    path = numbered.write(tmp_path, [3, 3], step=numbered.without(lacking))
    episodes = [numbered.columns(numbered.make_episode(i, 3)["steps"]) for i in range(2)]
    for episode in episodes:
        episode[lacking] = np.ones(3, np.float32) if lacking == "discount" else np.zeros(3, bool)

    dataset = envlogger.tfds.transitions(path, n_step=2, gamma=0.5, read_config=tf_reading.IN_ORDER)

    expected = [t for e in episodes for t in _expected_transitions(e, 2, 0.5)]
    for got, wanted in zip(dataset, expected, strict=True):
        assert got["discount"].dtype == tf.float32
        np.testing.assert_allclose(got["discount"], wanted["discount"], rtol=1e-6)
        assert bool(got["next_is_terminal"]) == wanted["next_is_terminal"]


def test_rewards_and_discounts_may_be_nested_and_arrays(tmp_path):
    pair = F.Tensor(shape=(2,), dtype=np.float64, encoding="bytes")
    signal = {"a": np.int32, "b": pair}
    step = {**numbered.STEP, "reward": signal, "discount": {"a": np.float32, "b": np.float32}}

    def make(item):
        r, d = item["reward"], item["discount"]
        reward = {"a": numbered.number_of(item), "b": np.array([r, 2 * r], np.float64)}
        return {**item, "reward": reward, "discount": {"a": 1.0, "b": d}}

    path = numbered.write(tmp_path, [4], step=step, make=make)
    [episode] = [numbered.columns(numbered.make_episode(0, 4)["steps"])]
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
    step = {**numbered.STEP, "reward": dtype}
    path = numbered.write(tmp_path, [3], step=step, make=lambda item: {**item, "reward": dtype(1)})

    dataset = envlogger.tfds.transitions(path, n_step=2)

    assert dataset.element_spec["reward"].dtype.name == expected
    assert [float(t["reward"]) for t in dataset] == [1.5, 1]  # discounts of 0.5


def _assert_same_as_by_index(directory, **options):
    expected = envlogger.Transitions(directory, **options)
    dataset = envlogger.tfds.transitions(directory, read_config=tf_reading.IN_ORDER, **options)
    got = list(dataset)
    assert len(got) == len(expected) > 0
    for found, wanted in zip(got, expected, strict=True):
        assert found.keys() == wanted.keys()
        assert_same({key: found[key].numpy()[()] for key in wanted}, wanted)


@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.int64]
)
def test_returns_are_rounded_as_numpy_rounds_them(tmp_path, dtype):
    rng = np.random.default_rng(7)
    with envlogger.tfds.EpisodeWriter(tmp_path) as writer:
        for count in (30, 1, 2, 17):
            rewards = (rng.standard_normal(count) * 2.0 ** rng.integers(-12, 14, count)).astype(
                dtype
            )
            discounts = rng.choice([0.3, 0.9, 1.0], count).astype(
                np.float32 if np.issubdtype(dtype, np.integer) else dtype
            )
            writer.add_episode(
                [
                    {"observation": i, "action": 0, "reward": reward, "discount": discount}
                    for i, (reward, discount) in enumerate(zip(rewards, discounts, strict=True))
                ]
            )

    for n_step, gamma in ((1, 1.0), (1, 0.9), (2, 0.99), (5, 0.97), (40, 0.9)):
        _assert_same_as_by_index(tmp_path, n_step=n_step, gamma=gamma)


@pytest.mark.parametrize("value", ["overflow", "tie"])
def test_returns_at_the_bounds_of_float16(tmp_path, value):
    # A sum at which float16 rounds up, by so little that float32 does not hold it; one that is infinite.
    rewards = {"tie": (1.0, 2.0**-11, 2.0**-24), "overflow": (60000.0, 6000.0, -np.inf)}[value]
    with envlogger.tfds.EpisodeWriter(tmp_path) as writer:
        steps = [
            {"observation": 0, "action": 0, "reward": np.float16(x), "discount": np.float16(1)}
            for x in (*rewards, 0)
        ]
        writer.add_episode(steps)

    for n_step in (2, 3):
        with np.errstate(over="ignore"):
            _assert_same_as_by_index(tmp_path, n_step=n_step, gamma=1.0)
    [first, *_] = envlogger.tfds.transitions(tmp_path, n_step=3)
    assert first["reward"].numpy() == {"tie": 1 + 2.0**-10, "overflow": -np.inf}[value]


@pytest.mark.parametrize(
    "options", [{}, {"shuffle": Shuffle(steps=1)}, {"interleave": 1, "batch_size": 3}], ids=str
)
def test_observations_that_vary_in_shape(tmp_path, options):
    vary = {
        "flat": F.Tensor(shape=(None,), dtype=np.float32, encoding="bytes"),
        "inner": F.Tensor(shape=(2, None), dtype=np.int32, encoding="bytes"),
        "texts": F.Sequence(F.Text()),
    }
    step = {**numbered.STEP, "observation": vary}

    def make(item):
        number = numbered.number_of(item)
        count = number % 3
        observation = {
            "flat": np.full(count, number, np.float32),
            "inner": np.full((2, count), number, np.int32),
            "texts": [f"{number}"] * count,
        }
        return {**item, "observation": observation}

    path = numbered.write(tmp_path, [4, 1, 3], step=step, make=make)
    dataset = envlogger.tfds.transitions(path, n_step=2, read_config=tf_reading.IN_ORDER, **options)
    if "batch_size" in options:
        dataset = dataset.unbatch()

    got = [(_to_lists(t["observation"]), _to_lists(t["next_observation"])) for t in dataset]

    by_index = envlogger.Transitions(path, n_step=2)
    assert len(got) == len(by_index) == 5
    for (first, second), wanted in zip(got, by_index, strict=True):
        assert first == _to_lists(wanted["observation"])
        assert second == _to_lists(wanted["next_observation"])


def _to_lists(observation):
    lists = {}
    for key, value in observation.items():
        is_ragged = isinstance(value, tf.RaggedTensor)
        lists[key] = value.to_list() if is_ragged else np.asarray(value).tolist()
    return lists


def test_chosen_fields_are_those_of_the_first_step(directory, numpy_episodes):
    dataset = envlogger.tfds.transitions(
        directory,
        n_step=2,
        fields=["observation/id", "is_first", "reward"],
        read_config=tf_reading.IN_ORDER,
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
    assert len(list(dataset)) == sum(numbered.LENGTHS) - len(numbered.LENGTHS)


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

    got = list(envlogger.tfds.transitions(tmp_path / "run", read_config=tf_reading.IN_ORDER))

    assert [int(t["action"]) for t in got] == [4, 5, 6, 7]
    assert [float(t["reward"]) for t in got] == [0.5, -1, 2, 3]
    assert [float(t["discount"]) for t in got] == [1, 0, 1, 1]
    assert [bool(t["next_is_terminal"]) for t in got] == [False, True, False, False]
    assert [bool(t["next_is_last"]) for t in got] == [False, True, True, True]
    for t, (start, stop) in zip(got, [(0, 1), (1, 2), (3, 0), (1, 2)], strict=True):
        np.testing.assert_array_equal(t["observation"], pixels[start])
        np.testing.assert_array_equal(t["next_observation"], pixels[stop])
