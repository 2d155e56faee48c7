# SPDX-License-Identifier: Apache-2.0
"""Transitions and windows by index; `envlogger.tfds.transitions` and `windows` are the oracles."""

from __future__ import annotations

import pickle
import resource
import warnings

import helpers
import numpy as np
import processes
import pytest

import envlogger
from envlogger import errors
from envlogger.backends import in_memory_backend
from envlogger.testing.comparison import assert_same
from envlogger.tfds import images

LENGTHS = (4, 2, 7, 1, 3, 9)


def _timesteps(number, length):
    rng = np.random.default_rng(number)

    def observation(t):
        image = np.full((4, 4, 3), 10 * number + t, np.uint8)
        return {"id": np.array([number, t], np.int32), "camera": image, "x": rng.standard_normal(2)}

    steps = [helpers.first(observation(0))]
    for t in range(1, length):
        reward, discount = rng.standard_normal(), float(rng.choice([0.5, 1.0]))
        make = helpers.last if t == length - 1 else helpers.mid
        # Every other episode is truncated.
        is_over = t == length - 1 and number % 2 == 0
        steps.append(make(observation(t), reward, 0.0 if is_over else discount))
    return steps


EPISODES = [_timesteps(number, length) for number, length in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "toy" / "1.0.0"
    helpers.record(
        path,
        EPISODES,
        max_episodes_per_file=2,
        step_fn=lambda timestep, *_: {"note": "é" * int(timestep.observation["id"][1])},
    )
    return path


def _tf(loader, path, **options):
    """Returns what a tf.data loader gives in recorded order, as a list of numpy values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
        import tensorflow_datasets as tfds
        import tf_reading

        import envlogger.tfds

        load = getattr(envlogger.tfds, loader)
        return list(tfds.as_numpy(load(path, read_config=tf_reading.IN_ORDER, **options)))


def _check(dataset, expected):
    """Compares a dataset, in order and at random, with what tf.data gives."""
    assert len(dataset) == len(expected)
    helpers.assert_same_leaves(list(dataset), expected)
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    helpers.assert_same_leaves(list(dataset.__getitems__(order)), [expected[i] for i in order])


# --- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_step", [1, 2, 3, 100])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_transitions_are_those_of_tf_data(run, n_step, gamma):
    expected = _tf("transitions", run, n_step=n_step, gamma=gamma)

    dataset = envlogger.Transitions(run, n_step=n_step, gamma=gamma)

    assert len(expected) == sum(length - 1 for length in LENGTHS)
    _check(dataset, expected)


def test_fields_of_transitions(run):
    fields = ["observation/camera", "note", "is_first", "reward"]
    expected = _tf("transitions", run, n_step=2, fields=fields)

    dataset = envlogger.Transitions(run, n_step=2, fields=fields)

    _check(dataset, expected)
    assert set(dataset[0]["next_observation"]) == {"camera"}


@pytest.mark.parametrize(
    ("length", "stride", "pad"),
    [(1, None, False), (3, None, False), (3, 2, True), (2, 5, True), (4, 1, True), (20, 3, True)],
)
def test_windows_are_those_of_tf_data(run, length, stride, pad):
    expected = _tf("windows", run, length=length, stride=stride, pad=pad)

    dataset = envlogger.Windows(run, length=length, stride=stride, pad=pad)

    _check(dataset, expected)


def test_windows_of_values_that_vary(tmp_path):
    episode = [helpers.first(np.arange(1)), helpers.mid(np.arange(2)), helpers.last(np.arange(3))]
    helpers.record(tmp_path, [episode])

    first, second = envlogger.Windows(tmp_path, length=2, pad=True, fields=["observation"])

    assert [row.tolist() for row in first["observation"]] == [[0], [0, 1]]
    assert [row.tolist() for row in second["observation"]] == [[0, 1, 2], []]
    assert second["mask"].tolist() == [True, False]


def test_items_of_any_backend(run):
    writer = in_memory_backend.InMemoryBackendWriter()
    with envlogger.EnvLogger(helpers.ScriptedEnv(EPISODES), backend=writer) as logger:
        helpers.play(logger, helpers.count_up(EPISODES))

    for got, expected in zip(
        envlogger.Transitions(writer, n_step=2), envlogger.Transitions(run, n_step=2), strict=True
    ):
        assert_same(helpers.sort_keys(got), helpers.sort_keys(expected))


def test_items_belong_to_the_caller(run):
    for dataset in (envlogger.Transitions(run), envlogger.Windows(run, length=2)):
        before = pickle.dumps(dataset[0])
        item = dataset[0]
        item["observation"]["camera"][...] = 77
        item["observation"]["id"][...] = 77
        assert pickle.dumps(dataset[0]) == before


def test_an_episode_is_read_once_for_a_batch(run, monkeypatch):
    decoded = helpers.spy(monkeypatch, images, "decode")
    dataset = envlogger.Transitions(envlogger.Reader(run, cache_bytes=0))
    decoded.clear()

    dataset[1]
    assert len(decoded) == 2
    dataset[1]
    assert len(decoded) == 2  # they are kept
    windows = envlogger.Windows(run, length=3, stride=1)
    decoded.clear()
    windows.__getitems__([2, 3, 4])  # overlapping, of one episode
    assert len(decoded) == 5


# --- indices and options ----------------------------------------------------------------------------


@pytest.mark.parametrize("index", [20, -21, 10**12])
def test_indices_out_of_range(run, index):
    dataset = envlogger.Transitions(run)

    with pytest.raises(IndexError, match=f"Transitions: index {index} .*there are 20 items"):
        dataset[index]
    with pytest.raises(IndexError):
        dataset.__getitems__([0, index])
    with pytest.raises(TypeError):
        dataset[0.5]


def test_indices_of_any_kind(run):
    dataset = envlogger.Transitions(run)

    assert_same(dataset[-1], dataset[19])
    assert_same(dataset[np.int32(3)], dataset[3])
    assert dataset.__getitems__([]) == []
    assert_same(dataset.__getitems__(np.array([3, 3])), [dataset[3], dataset[3]])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: envlogger.Transitions(p, n_step=0), errors.OptionError, "n_step: got 0"),
        (lambda p: envlogger.Transitions(p, gamma=1.5), errors.OptionError, "gamma: got 1.5"),
        (lambda p: envlogger.Transitions(p, fields=["no"]), errors.OptionError, "fields: got 'no'"),
        (
            lambda p: envlogger.Transitions(p, fields="action"),
            errors.OptionError,
            "a list of names",
        ),
        (lambda p: envlogger.Transitions(p, fields=[]), errors.OptionError, "fields: got none"),
        (lambda p: envlogger.Windows(p, length=1, fields=3), errors.OptionError, "got 3, expected"),
        (lambda p: envlogger.Transitions(p, "test"), errors.OptionError, "split: got 'test'"),
        (
            lambda p: envlogger.Transitions(envlogger.Reader(p), "train"),
            errors.OptionError,
            "beside a Reader",
        ),
        (lambda p: envlogger.Transitions(p / "no"), errors.DatasetError, "dataset_info.json"),
        (lambda p: envlogger.Windows(p, length=0), errors.OptionError, "length: got 0"),
        (lambda p: envlogger.Windows(p, length=2, stride=0), errors.OptionError, "stride: got 0"),
        (lambda p: envlogger.Windows(p, length=2, pad="x"), errors.OptionError, "pad: got 'x'"),
        (lambda p: envlogger.Windows(p, length=2, pad=None), errors.OptionError, "pad: got None"),
        (
            lambda p: envlogger.Windows(p, length=10),
            errors.OptionError,
            "length: got 10, but the longest episode has 9 steps.*pad=True",
        ),
        (
            lambda p: envlogger.Windows(p, length=2, fields=["no"]),
            errors.OptionError,
            "fields: got 'no'",
        ),
    ],
)
def test_options_that_are_not_allowed(run, make, error, message):
    with pytest.raises(error, match=message):
        make(run)


def _in_memory(first, *others, action=0, custom=None):
    writer = in_memory_backend.InMemoryBackendWriter()
    env = helpers.ScriptedEnv([[first, *others]], action)
    with envlogger.EnvLogger(env, backend=writer, step_fn=lambda *_: custom) as logger:
        helpers.play(logger, [[action] * len(others)])
    return writer


@pytest.mark.parametrize(
    ("writer", "error", "message"),
    [
        (
            _in_memory(helpers.first(), helpers.last(reward=None)),
            errors.DatasetError,
            "no field 'reward', only .*is_first",
        ),
        (_in_memory(helpers.first(), helpers.last(), action=None), errors.DatasetError, "'action'"),
        (
            _in_memory(helpers.first(), helpers.last(reward="x")),
            errors.UnsupportedValueError,
            "reward: got values of dtype object",
        ),
        (
            _in_memory(helpers.first(), helpers.last(reward=1.0, discount=np.ones(2))),
            errors.UnsupportedValueError,
            "discounts of shape",
        ),
        (
            _in_memory(helpers.first(), helpers.last(reward={"a": 1.0}, discount={"b": 1.0})),
            errors.UnsupportedValueError,
            "reward/a: there is no discount of its own",
        ),
    ],
)
def test_signals_that_no_return_can_be_computed_from(writer, error, message):
    with pytest.raises(error, match=message):
        envlogger.Transitions(writer)


def test_names_that_are_taken():
    writer = _in_memory(helpers.first(), helpers.last(), custom={"mask": 1, "next_is_last": 2})

    with pytest.raises(errors.NameConflictError, match="'mask'"):
        envlogger.Windows(writer, length=1)
    with pytest.raises(errors.NameConflictError, match="'next_is_last'"):
        envlogger.Transitions(writer, fields=["next_is_last"])
    assert len(envlogger.Windows(writer, length=1, fields=["reward"])) == 2


def test_no_episodes():
    writer = in_memory_backend.InMemoryBackendWriter()

    assert len(envlogger.Transitions(writer)) == 0
    assert list(envlogger.Windows(writer, length=5)) == []


# --- PyTorch and Grain ------------------------------------------------------------------------------


def test_no_framework_is_imported(run):
    program = (
        "import sys, envlogger;"
        "envlogger.Transitions('.')[0]; envlogger.Windows('.', length=2)[0];"
        "print(*{'torch', 'grain', 'jax', 'tensorflow', 'tensorflow_datasets'} & sys.modules.keys())"
    )
    assert processes.python(program, cwd=run).stdout.split() == []


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork"), (2, "spawn")])
def test_pytorch(run, workers, method):
    import torch
    from torch.utils import data

    dataset = envlogger.Transitions(
        envlogger.Reader(run, cache_bytes=0), gamma=0.9, fields=["observation", "action"]
    )
    expected = [dataset[i] for i in range(len(dataset))]
    loader = data.DataLoader(
        dataset,
        batch_size=6,
        shuffle=True,
        generator=torch.Generator().manual_seed(1),
        num_workers=workers,
        multiprocessing_context=method,
    )

    for _ in range(2):  # epochs
        batches = list(loader)
        assert [len(batch["reward"]) for batch in batches] == [6, 6, 6, 2]
        found = {}
        for batch in batches:
            for i, place in enumerate(batch["observation"]["id"].tolist()):
                found[tuple(place)] = {
                    key: batch[key][i] for key in ("action", "reward", "discount")
                }
                assert bool((batch["observation"]["camera"][i] == 10 * place[0] + place[1]).all())
                assert place[1] + 1 == int(batch["next_observation"]["id"][i, 1])
        assert len(found) == len(dataset)
        for item in expected:
            got = found[tuple(item["observation"]["id"].tolist())]
            assert got == {key: item[key] for key in got}
        assert batch["observation"]["x"].dtype == torch.float64


def test_pytorch_windows(run):
    from torch.utils import data

    loader = data.DataLoader(
        envlogger.Windows(run, length=4, pad=True, fields=["observation", "reward"]), batch_size=3
    )
    batches = list(loader)
    assert tuple(batches[0]["observation"]["camera"].shape) == (3, 4, 4, 4, 3)
    assert sum(int(batch["mask"].sum()) for batch in batches) == sum(LENGTHS)


@pytest.mark.parametrize("workers", [0, 2])
def test_grain(run, workers):
    import grain
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # Grain's workers ask for flags, which programs of absl parse
    transitions = envlogger.Transitions(run, fields=["observation", "action"])
    dataset = grain.MapDataset.source(transitions).shuffle(seed=1).batch(5).to_iter_dataset()
    if workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))

    ids = [tuple(place) for batch in dataset for place in batch["observation"]["id"].tolist()]

    expected = [(n, t) for n, length in enumerate(LENGTHS) for t in range(length - 1)]
    assert sorted(ids) == expected
    assert ids != expected


def test_memory_stays_flat_over_epochs(run):
    from torch.utils import data

    dataset = envlogger.Transitions(envlogger.Reader(run, cache_bytes=10_000))
    loader = data.DataLoader(dataset, batch_size=4, shuffle=True)
    peaks = []
    for epoch in range(150):
        for _ in loader:
            pass
        if epoch in (30, 149):
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert peaks[1] - peaks[0] < 4096  # KiB
