# SPDX-License-Identifier: Apache-2.0
"""Sessions that record into one directory, one after the other and at once; and what they publish."""

from __future__ import annotations

import gc
import os
import signal

import helpers
import numpy as np
import processes
import pytest

import envlogger
from envlogger import errors
from envlogger.testing.comparison import assert_same
from envlogger.tfds import dataset, dataset_files, schema

GOOD = helpers.GOOD


def test_sessions_append(tmp_path):
    path = tmp_path / "catch" / "1.0.0"
    for n in range(3):
        helpers.record(path, [[helpers.first(float(n)), *GOOD[1:]]] * 2, max_episodes_per_file=3)
    helpers.record(path, [GOOD], split_name="eval", metadata={"more": 1})

    got = [steps[0].timestep.observation for steps in helpers.read(path, "train")]

    assert got == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    assert len(helpers.read(path, "eval")) == 1
    assert len(helpers.source_steps(path, "train+eval")) == 7
    assert len(helpers.tf_episodes(path, "train[2:4]+eval")) == 3
    ids = [episode["episode_id"] for episode in helpers.data_source(path, "all")]
    assert len(set(ids)) == 7
    with envlogger.Reader(path) as reader:
        assert reader.metadata()["more"] == 1


def test_a_session_may_add_features(tmp_path):
    helpers.record(tmp_path, [GOOD])
    helpers.record(tmp_path, [GOOD], step_fn=lambda *_: {"t": 1})
    helpers.record(tmp_path, [GOOD], episode_fn=lambda *_: "good")
    helpers.record(tmp_path, [GOOD])

    assert [[s.custom_data for s in e] for e in helpers.read(tmp_path)] == [
        [None] * 3,
        [{"t": 1}] * 3,
        [None] * 3,
        [None] * 3,
    ]
    assert helpers.read_metadata(tmp_path) == [None, None, "good", None]
    assert [int(step["t"]) for steps in helpers.source_steps(tmp_path) for step in steps] == (
        [0] * 3 + [1] * 3 + [0] * 6
    )


def test_values_that_vary_still_vary_in_the_next_session(tmp_path):
    def steps(*lengths):
        values = [{"a": np.arange(n, dtype=np.uint32), "b": np.full(n, "x")} for n in lengths]
        return [helpers.first(values[0]), *map(helpers.mid, values[1:])]

    one, other = steps(1, 2, 0), steps(3, 3, 5)
    helpers.record(tmp_path, [one])
    env = helpers.ScriptedEnv([other])
    env.observation_spec = helpers.ScriptedEnv([one]).observation_spec
    with envlogger.EnvLogger(env, data_directory=tmp_path, helper=False) as logger:
        helpers.play(logger, [[0, 1]])

    assert_same(helpers.read(tmp_path), helpers.expected_run(one, other))


def _values(dtype, *lengths):
    values = [(np.arange(n) % 2).astype(dtype) for n in lengths]
    return [helpers.first(values[0]), *map(helpers.mid, values[1:-1]), helpers.last(values[-1])]


@pytest.mark.parametrize("dtype", ["bool", "i2", "u4", "i8", "f4", "f8", "c8", "S2", "U3"])
def test_values_of_one_shape_beside_a_writer_whose_values_vary(tmp_path, dtype):
    same, varying = _values(dtype, 1, 1, 1), _values(dtype, 1, 2, 0, 1)
    # Both begin before there is a dataset.
    one, other = (helpers.scripted_logger(tmp_path, [e] * 2) for e in (same, varying))
    helpers.play(one, [[0, 1]] * 2)
    helpers.play(other, [[0, 1, 2]] * 2)
    other.close()
    one.close()

    assert_same(helpers.read(tmp_path), helpers.expected_run(varying, varying, same, same))
    found = [step["observation"] for steps in helpers.source_steps(tmp_path) for step in steps]
    assert_same(
        [np.asarray(value).astype(dtype) for value in found],
        [step.observation for step in (*varying, *varying, *same, *same)],
    )


@pytest.mark.parametrize("dtype", ["bool", "i2", "u4", "f4", "f8", "S2", "image"])
def test_a_finished_shard_of_values_of_one_shape_is_stored_anew(tmp_path, dtype):
    def values(*lengths):
        if dtype != "image":
            return _values(dtype, *lengths)
        images = [np.full((n, 9, 3), n, np.uint8) for n in lengths]
        return [helpers.first(images[0]), *map(helpers.mid, images[1:])]

    same = values(1, 1, 1)
    for name, episode in (("one", same), ("other", values(1, 2, 3))):
        episode_fn = {"n": episode[-1].observation}
        helpers.record(tmp_path / name, [episode], episode_fn=lambda *_, found=episode_fn: found)
    path = tmp_path / "one"
    have = dataset.load(path).schema
    want = schema.with_varying(have, dataset.load(tmp_path / "other").schema)
    assert want.steps["observation",].is_ragged
    (shard,) = path.glob("*train*")
    dataset.adapt_shard(os.fspath(shard), 1, have, want)
    dataset_files.write_json(os.fspath(path / dataset_files.FEATURES), want.to_json())

    assert_same(helpers.read(path), helpers.expected_run(same))
    assert_same(helpers.read_metadata(path), [{"n": same[-1].observation}])
    [found] = helpers.source_steps(path)
    expected = [step.observation for step in same]
    assert_same([np.asarray(s["observation"], expected[0].dtype) for s in found], expected)


def test_a_dead_writer_that_had_one_step_beside_one_whose_values_vary(tmp_path):
    varying = _values("i2", 1, 2, 3)
    other = helpers.scripted_logger(tmp_path / "1.0.0", [varying])
    program = """
        import os, signal, sys, helpers, numpy as np
        env = helpers.scripted_logger(sys.argv[1], [[helpers.first(np.zeros(1, "i2"))]])
        env.reset()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    tests = os.path.dirname(helpers.__file__)
    processes.python(
        program, tmp_path / "1.0.0", status=-signal.SIGKILL, env={**os.environ, "PYTHONPATH": tests}
    )
    with other:
        helpers.play(other, [[0, 1]])

    report = envlogger.recover(tmp_path / "1.0.0")

    assert (len(report.recovered), report.failed) == (1, {})
    first = helpers.first(np.zeros(1, "i2"))
    assert_same(helpers.read(tmp_path / "1.0.0"), helpers.expected_run(varying, [first]))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
@pytest.mark.parametrize("dtype", ["U4", "S2", "u4", "f8", "u1"])
def test_values_without_elements_in_two_sessions(tmp_path, shape, dtype):
    value = np.zeros(shape, dtype)
    steps = [helpers.first(value), helpers.mid(value), helpers.last(value)]

    helpers.record(tmp_path, [steps])
    helpers.record(tmp_path, [steps])

    assert_same(helpers.read(tmp_path), helpers.expected_run(steps, steps))


def test_several_loggers_at_once(tmp_path):
    loggers = [
        helpers.scripted_logger(
            tmp_path, [[helpers.first(float(n)), *GOOD[1:]]] * 4, max_episodes_per_file=2
        )
        for n in range(3)
    ]
    for _ in range(4):
        for logger in loggers:
            helpers.play(logger, [[0, 1]])
    for logger in loggers:
        logger.close()

    found = sorted(steps[0].timestep.observation for steps in helpers.read(tmp_path))
    assert found == [0.0] * 4 + [1.0] * 4 + [2.0] * 4


def test_loggers_at_once_that_add_different_features(tmp_path):
    one = helpers.scripted_logger(tmp_path, [GOOD], step_fn=lambda *_: {"a": 1})
    other = helpers.scripted_logger(tmp_path, [GOOD], step_fn=lambda *_: {"b": "x"})
    for logger in (one, other):
        helpers.play(logger, [[0, 1]])
    for logger in (one, other):
        logger.close()

    assert [[s.custom_data for s in e] for e in helpers.read(tmp_path)] == [
        [{"a": 1}] * 3,
        [{"b": "x"}] * 3,
    ]
    assert [bool(s["present"]["b"]) for e in helpers.source_steps(tmp_path) for s in e] == (
        [False] * 3 + [True] * 3
    )


def test_flush_publishes_what_is_finished(tmp_path):
    with helpers.scripted_logger(tmp_path, [GOOD, GOOD]) as logger:
        helpers.play(logger, [[0, 1]])
        logger.reset()
        logger.flush()
        assert_same(helpers.read(tmp_path), helpers.expected_run(GOOD))
    assert_same(helpers.read(tmp_path), helpers.expected_run(GOOD, GOOD[:1]))


def test_a_logger_that_nobody_closes_loses_nothing(tmp_path):
    logger = helpers.scripted_logger(tmp_path, [GOOD])
    helpers.play(logger, [[0, 1]])
    del logger
    gc.collect()

    assert_same(helpers.read(tmp_path), helpers.expected_run(GOOD))


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [({}, "runs"), ({"dataset_name": "other", "version": "2.0.1"}, "other")],
)
def test_names_and_versions(tmp_path, kwargs, name):
    import tensorflow_datasets as tfds

    helpers.record(tmp_path / "deep" / "runs", [GOOD], **kwargs)

    builder = tfds.builder_from_directory(str(tmp_path / "deep" / "runs"))
    assert builder.name == name
    assert str(builder.version) == kwargs.get("version", "0.0.1")


def test_tfds_load_finds_it_by_name(tmp_path):
    import tensorflow_datasets as tfds

    helpers.record(tmp_path / "catch" / "1.2.0", [GOOD])

    assert len(tfds.data_source("catch", data_dir=str(tmp_path), split="train")) == 1
    assert (
        tfds.builder("catch:1.2.0", data_dir=str(tmp_path)).info.splits["train"].num_examples == 1
    )


@pytest.mark.parametrize("image_format", ["png", "raw", "jpeg"])
def test_image_formats(tmp_path, image_format):
    rng = np.random.default_rng(0)
    image = np.repeat(np.repeat(rng.integers(0, 255, (4, 5, 3), np.uint8), 8, 0), 8, 1)
    steps = [helpers.first(image), helpers.last(image)]
    helpers.record(tmp_path, [steps], image_format=image_format)

    got = helpers.read(tmp_path)[0][0].timestep.observation

    if image_format == "jpeg":
        assert np.abs(got.astype(int) - image).mean() < 12
    else:
        assert_same(got, image)
        assert_same(helpers.source_steps(tmp_path)[0][0]["observation"], image)
    tf_image = helpers.tf_episodes(tmp_path)[0]["steps"][0]["observation"]
    assert tf_image.shape == image.shape
    assert np.abs(tf_image.astype(int) - got).max() <= (40 if image_format == "jpeg" else 0)


@pytest.mark.parametrize("helper", [True, False])
def test_a_shape_is_fixed_once_the_first_episode_is_over(tmp_path, helper):
    env = helpers.ScriptedEnv([[helpers.first(), helpers.last()]] * 2, np.zeros(1))
    with envlogger.EnvLogger(env, data_directory=tmp_path, helper=helper) as logger:
        helpers.play(logger, [[np.zeros(1)]])
        logger.reset()
        logger.flush()  # publishes the first episode, in whose schema the action has one element
        with pytest.raises(errors.ValueMismatchError) as raised:
            logger.step(np.zeros(2))

    helpers.check_message(
        raised, "action: got float64 of shape (2,)", "expected float64 of shape (1,)"
    )
    assert [len(episode) for episode in helpers.read(tmp_path)] == [2, 1]


@pytest.mark.parametrize("helper", [True, False])
def test_flush_publishes_the_episode_that_has_just_ended(tmp_path, helper):
    env = helpers.ScriptedEnv([GOOD] * 3)
    with envlogger.EnvLogger(env, data_directory=tmp_path, helper=helper) as logger:
        for count in (1, 2):
            helpers.play(logger, [[0] * (len(GOOD) - 1)])
            logger.flush()
            assert len(helpers.read(tmp_path)) == count
        logger.reset()
        logger.flush()
        assert len(helpers.read(tmp_path)) == 2
    assert [len(episode) for episode in helpers.read(tmp_path)] == [len(GOOD), len(GOOD), 1]
