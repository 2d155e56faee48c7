# SPDX-License-Identifier: Apache-2.0
"""The wrapper's contract."""

from __future__ import annotations

import copy
import gc
import pickle
from collections import namedtuple

import dm_env
import helpers
import numpy as np
import pytest

import envlogger
from envlogger import environment_logger, errors
from envlogger.backends import in_memory_backend, schedulers, tfds_backend_writer
from envlogger.environment_wrapper import EnvironmentWrapper
from envlogger.testing import catch_env
from envlogger.testing.comparison import assert_same

GOOD = [helpers.first(), helpers.mid(), helpers.last()]


def _logger(path, episodes, action=0, **kwargs):
    return envlogger.EnvLogger(
        helpers.ScriptedEnv(episodes, action), data_directory=str(path), helper=False, **kwargs
    )


def _expected(*episodes):
    return [helpers.expected_steps(steps, list(range(len(steps) - 1))) for steps in episodes]


# --- an environment like any other -------------------------------------------------------------------


@pytest.mark.parametrize("helper", [True, False])
def test_a_run_of_a_real_environment(tmp_path, helper):
    path = tmp_path / "catch" / "1.0.0"
    expected = []
    with envlogger.EnvLogger(catch_env.Catch(), data_directory=path, helper=helper) as env:
        assert isinstance(env, dm_env.Environment)
        for episode in range(3):
            timestep = env.reset()
            expected.append([envlogger.StepData(timestep, None, None)])
            while not timestep.last():
                action = (episode + len(expected[-1])) % 3
                timestep = env.step(action)
                expected[-1].append(envlogger.StepData(timestep, action, None))

    assert_same(helpers.read(path), expected)


def test_it_returns_the_timesteps_of_the_environment(tmp_path):
    episodes = copy.deepcopy([GOOD])
    with _logger(tmp_path, episodes) as logger:
        assert logger.reset() is episodes[0][0]
        assert logger.step(5) is episodes[0][1]
        assert logger.step(6) is episodes[0][2]
        assert logger.actions == [5, 6]


def test_attributes_are_those_of_the_environment(tmp_path):
    with _logger(tmp_path, [GOOD]) as logger:
        assert logger.num_closed == 0
        assert logger.observation_spec() == helpers.spec_of(0.0)
        assert logger.action_spec() == helpers.spec_of(0)
        assert logger.reward_spec() == helpers.spec_of(0.0)
        assert logger.discount_spec() == helpers.spec_of(0.0)
        with pytest.raises(AttributeError):
            logger.no_such_attribute  # noqa: B018


def test_closing_closes_the_environment_once(tmp_path):
    env = helpers.ScriptedEnv([GOOD])
    logger = envlogger.EnvLogger(env, data_directory=tmp_path, helper=False)
    helpers.play(logger, [[0, 1]])

    logger.close()
    logger.close()

    assert env.num_closed == 1
    assert_same(helpers.read(tmp_path), _expected(GOOD))


def test_nothing_can_be_recorded_after_closing(tmp_path):
    logger = _logger(tmp_path, [GOOD, GOOD])
    helpers.play(logger, [[0, 1]])
    logger.close()

    with pytest.raises(errors.EnvLoggerError, match=r"closed.*Make a new EnvLogger"):
        logger.reset()

    assert_same(helpers.read(tmp_path), _expected(GOOD))


def test_step_resets_after_last_and_at_the_start(tmp_path):
    with _logger(tmp_path, [GOOD, GOOD]) as logger:
        steps = [logger.step(action) for action in (9, 0, 1, 8, 0, 1)]

    assert [step.step_type.name for step in steps] == ["FIRST", "MID", "LAST"] * 2
    assert_same(helpers.read(tmp_path), _expected(GOOD, GOOD))


def test_metadata_of_the_caller_is_not_changed(tmp_path):
    metadata = {"agent": {"name": "random"}}
    with _logger(tmp_path, [GOOD], metadata=metadata) as logger:
        helpers.play(logger, [[0, 1]])

    assert metadata == {"agent": {"name": "random"}}
    with envlogger.Reader(tmp_path) as reader:
        assert reader.metadata()["agent"] == {"name": "random"}


@pytest.mark.parametrize("clone", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_cannot_be_pickled(tmp_path, clone):
    with _logger(tmp_path, [GOOD]) as logger:
        with pytest.raises(TypeError, match="environment factory") as raised:
            clone(logger)
        helpers.check_message(raised, "EnvLogger", "construct the EnvLogger from it")
        helpers.play(logger, [[0, 1]])

    assert_same(helpers.read(tmp_path), _expected(GOOD))


def test_loggers_can_be_wrapped(tmp_path):
    with EnvironmentWrapper(_logger(tmp_path, [GOOD])) as env:
        helpers.play(env, [[0, 1]])

    assert_same(helpers.read(tmp_path), _expected(GOOD))


def test_the_module_has_its_old_name():
    assert environment_logger.EnvLogger is envlogger.EnvLogger


# --- backends ----------------------------------------------------------------------------------------


def test_writing_riegeli_names_the_way_to_go(tmp_path):
    with pytest.raises(errors.OptionError) as raised:
        _logger(tmp_path, [GOOD], backend=envlogger.BackendType.RIEGELI)

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, "BackendType.RIEGELI", "Leave", "out to write a TFDS dataset")


@pytest.mark.parametrize("backend", ["tfds", None, 3])
def test_backends_that_are_none(tmp_path, backend):
    with pytest.raises(errors.OptionError, match=r"backend: got .*expected a BackendType"):
        _logger(tmp_path, [GOOD], backend=backend)


def test_a_backend_that_is_there(tmp_path):
    backend = tfds_backend_writer.TFDSBackendWriter(str(tmp_path), helper=False)
    with envlogger.EnvLogger(helpers.ScriptedEnv([GOOD]), backend=backend) as logger:
        helpers.play(logger, [[0, 1]])

    assert_same(helpers.read(tmp_path), _expected(GOOD))


def test_a_backend_from_a_callable():
    made = []

    def make(**kwargs):
        made.append((kwargs, in_memory_backend.InMemoryBackendWriter(metadata=kwargs["metadata"])))
        return made[0][1]

    with envlogger.EnvLogger(
        helpers.ScriptedEnv([GOOD]), metadata={"a": 1}, backend=make, anything=3
    ) as logger:
        helpers.play(logger, [[0, 1]])

    kwargs, backend = made[0]
    assert kwargs["anything"] == 3
    assert kwargs["metadata"]["a"] == 1
    assert "observation_spec" in kwargs["metadata"]["environment_specs"]
    assert_same(backend.steps, _expected(GOOD)[0])


def _record_into(backend, path):
    """Records a run with everything in it; returns the backend if it is in memory."""
    rng = np.random.default_rng(0)
    episodes = []
    for length in (3, 1, 4, 2):
        values = [
            {"image": rng.integers(0, 255, (6, 5, 3), np.uint8), "text": "x" * i, "n": (i, [i])}
            for i in range(length)
        ]
        steps = [helpers.first(values[0]), *(helpers.mid(value, 0.5) for value in values[1:])]
        if length > 2:
            steps[-1] = helpers.last(values[-1])
        episodes.append(steps)
    numbers = iter(range(1000))
    written = []

    def make(**kwargs):
        written.append(backend(**kwargs, **path))
        return written[0]

    with envlogger.EnvLogger(
        helpers.ScriptedEnv(episodes),
        step_fn=lambda *_: {"n": next(numbers)} if next(numbers) % 4 else None,
        episode_fn=lambda timestep, *_: [next(numbers)] if timestep.last() else None,
        metadata={"agent": b"random"},
        backend=make,
        scheduler=schedulers.NStepScheduler(2),
    ) as logger:
        helpers.play(logger, [list(range(len(steps) - 1)) for steps in episodes])
    return written[0]


def test_the_backend_in_memory_holds_the_same(tmp_path):
    memory = _record_into(in_memory_backend.InMemoryBackendWriter, {})
    _record_into(
        tfds_backend_writer.TFDSBackendWriter, {"data_directory": tmp_path, "helper": False}
    )

    with envlogger.Reader(memory) as one, envlogger.Reader(tmp_path) as other:
        assert_same(list(other.steps), list(one.steps))
        assert_same([list(e) for e in other.episodes], [list(e) for e in one.episodes])
        assert_same(list(other.episode_metadata()), list(one.episode_metadata()))
        assert other.metadata()["agent"] == one.metadata()["agent"]
        assert other.observation_spec() == one.observation_spec()
        assert other.action_spec() == one.action_spec()


# --- step_fn and episode_fn --------------------------------------------------------------------------

_Point = namedtuple("_Point", "x y")

VALUES = [
    {"a": 1},
    {"a": {"b": 0.5, "c": ["x", (b"y",)]}},
    {},
    0.5,
    3,
    True,
    "text",
    b"\0bytes",
    np.arange(3, dtype=np.int16),
    np.float16(0.5),
    np.array(["a", "bc"]),
    [1.0, 2.0],
    (1, "a"),
    [],
    [{"a": 1}, None],
    None,
]


@pytest.mark.parametrize("value", VALUES)
def test_metadata_of_any_kind(tmp_path, value):
    helpers.record(tmp_path, [GOOD, GOOD], step_fn=lambda *_: value, episode_fn=lambda *_: value)

    for episode in helpers.read(tmp_path):
        assert_same([step.custom_data for step in episode], [value] * 3)
    assert_same(helpers.read_metadata(tmp_path), [value] * 2)


def test_the_callbacks_see_what_is_logged(tmp_path):
    seen = []
    env = helpers.ScriptedEnv([GOOD])
    with envlogger.EnvLogger(
        env,
        data_directory=tmp_path,
        helper=False,
        step_fn=lambda *args: seen.append(("step", *args)),
        episode_fn=lambda *args: seen.append(("episode", *args)),
    ) as logger:
        helpers.play(logger, [[7, 8]])

    expected = [
        (name, timestep, action)
        for timestep, action in zip(GOOD, [None, 7, 8], strict=True)
        for name in ("step", "episode")
    ]
    assert [call[:3] for call in seen] == expected
    assert all(call[3] is env for call in seen)


def test_keys_become_features(tmp_path):
    helpers.record(
        tmp_path,
        [GOOD],
        step_fn=lambda *_: {"clock": 3, "nested": {"x": "y"}},
        episode_fn=lambda *_: {"score": 0.5},
    )

    (episode,) = helpers.data_source(tmp_path)
    assert episode["score"] == 0.5
    assert [step["clock"] for step in episode["steps"]] == [3, 3, 3]
    assert [step["nested"]["x"] for step in episode["steps"]] == [b"y"] * 3
    assert not episode["invalid"]


def test_the_last_value_that_is_not_none_is_kept(tmp_path):
    values = iter([1, 2, None, None, None, None, None, 5, 6])

    helpers.record(tmp_path, [GOOD] * 3, episode_fn=lambda *_: next(values))

    assert_same(helpers.read_metadata(tmp_path), [2, None, 6])


def test_metadata_may_change_its_nesting(tmp_path):
    values = iter([{"a": 1}, {"b": 2}, None, [1.0], {"a": 2, "c": {"d": 3}}, 1.0])
    expected = [{"a": 1}, {"b": 2}, None, [1.0], {"a": 2, "c": {"d": 3}}]

    with _logger(tmp_path, [GOOD, GOOD], step_fn=lambda *_: next(values)) as logger:
        helpers.play(logger, [[0, 1], [0]])

    assert_same([s.custom_data for e in helpers.read(tmp_path) for s in e], expected)


def test_features_that_turn_up_later(tmp_path):
    steps = iter([{"a": 1}, None, {"a": 2}, {"a": 3}, {"a": 4, "b": "x"}, None])
    episodes = iter([None, None, None, None, None, {"score": 7}])

    helpers.record(
        tmp_path,
        [GOOD, GOOD],
        max_episodes_per_file=1,
        step_fn=lambda *_: next(steps),
        episode_fn=lambda *_: next(episodes),
    )

    assert [[s.custom_data for s in e] for e in helpers.read(tmp_path)] == [
        [{"a": 1}, None, {"a": 2}],
        [{"a": 3}, {"a": 4, "b": "x"}, None],
    ]
    assert helpers.read_metadata(tmp_path) == [None, {"score": 7}]
    for episodes in (helpers.data_source(tmp_path), helpers.tf_episodes(tmp_path)):
        first, second = list(episodes)
        assert not first["present"]["score"]
        assert (second["present"]["score"], second["score"]) == (True, 7)
        one, two = list(first["steps"]), list(second["steps"])
        assert [bool(s["present"]["a"]) for s in one + two] == [
            True,
            False,
            True,
            True,
            True,
            False,
        ]
        assert [bool(s["present"]["b"]) for s in one + two] == [False] * 4 + [True, False]
        assert [s["a"] for s in one + two] == [1, 0, 2, 3, 4, 0]
        assert [s["b"] for s in one + two] == [b""] * 4 + [b"x", b""]


def test_metadata_of_varying_length(tmp_path):
    words = iter([["a"], [], ["b", "c"], ["d"], ["e"], []])
    helpers.record(
        tmp_path, [GOOD, GOOD], step_fn=lambda *_: {"words": np.array(next(words), object)}
    )

    got = [list(s.custom_data["words"]) for e in helpers.read(tmp_path) for s in e]

    assert got == [["a"], [], ["b", "c"], ["d"], ["e"], []]


def test_episode_metadata_of_varying_length(tmp_path):
    history = []

    def collect(timestep, *_):
        if timestep.first():
            history.clear()
        history.append(len(history) + 0.5)
        return {"history": np.array(history)}

    episodes = [GOOD, GOOD[:2], [*GOOD[:2], *GOOD[1:]]]
    helpers.record(tmp_path, episodes, episode_fn=collect)

    expected = [{"history": np.arange(len(episode)) + 0.5} for episode in episodes]
    assert_same(helpers.read_metadata(tmp_path), expected)
    assert [e["history"].tolist() for e in helpers.tf_episodes(tmp_path)] == [
        e["history"].tolist() for e in expected
    ]


def test_what_callbacks_return_is_copied(tmp_path):
    value = np.zeros(3)

    def reuse(*_):
        value[:] += 1
        return {"v": value}

    helpers.record(tmp_path, [GOOD], step_fn=reuse)

    got = [step.custom_data["v"].tolist() for step in helpers.read(tmp_path)[0]]
    assert got == [[1.0] * 3, [2.0] * 3, [3.0] * 3]


# --- what environments do ----------------------------------------------------------------------------


class _ReusesItsBuffers(dm_env.Environment):
    """Counts in one buffer, as simulators do."""

    def __init__(self):
        self._state = {"count": np.zeros(2, np.int64), "words": np.array(["0"], object)}

    def _next(self, make, *args):
        self._state["count"] += 1
        self._state["words"][0] = str(int(self._state["count"][0]))
        return make(*args, observation=self._state)

    def reset(self):
        return self._next(dm_env.restart)

    def step(self, action):
        action[:] += 1
        return self._next(dm_env.transition, 0.5)

    def observation_spec(self):
        return helpers.spec_of(self._state)

    def action_spec(self):
        return helpers.spec_of(np.zeros(2))


def test_buffers_may_be_reused(tmp_path):
    action = np.zeros(2)
    with envlogger.EnvLogger(_ReusesItsBuffers(), data_directory=tmp_path, helper=False) as env:
        env.reset()
        for _ in range(50):
            env.step(action)
            action[:] *= 2

    (steps,) = helpers.read(tmp_path)
    assert [int(s.timestep.observation["count"][1]) for s in steps] == list(range(1, 52))
    assert [s.timestep.observation["words"][0] for s in steps] == list(map(str, range(1, 52)))
    expected = 0.0
    for step in steps[1:]:
        expected += 1
        assert step.action.tolist() == [expected] * 2
        expected *= 2


def test_observations_that_are_views(tmp_path):
    big = np.arange(64, dtype=np.float32).reshape(8, 8)
    steps = []
    for make in (helpers.first, helpers.mid, helpers.last):
        view = big.T[::2, ::-3]
        view.flags.writeable = False
        steps.append(make({"view": view, "broadcast": np.broadcast_to(np.int8(3), (2, 2))}))

    helpers.record(tmp_path, [steps])

    assert_same(helpers.read(tmp_path), _expected(steps))


def test_large_arrays(tmp_path):
    rng = np.random.default_rng(0)
    steps = [
        make({"x": rng.random((500, 1000)), "y": rng.integers(0, 255, (600, 800, 3), np.uint8)})
        for make in (helpers.first, helpers.mid, helpers.mid, helpers.last)
    ]

    helpers.record(tmp_path, [steps])

    assert_same(helpers.read(tmp_path), _expected(steps))


def test_first_from_step_begins_an_episode(tmp_path):
    steps = [*GOOD[:2], helpers.first(5.0), helpers.mid(6.0), helpers.last(7.0)]
    with _logger(tmp_path, [steps]) as logger:
        helpers.play(logger, [[0, 1, 2, 3]])

    got = helpers.read(tmp_path)

    assert [[s.timestep.step_type.name for s in episode] for episode in got] == [
        ["FIRST", "MID"],
        ["FIRST", "MID", "LAST"],
    ]
    assert got[1][0].action == 1  # what step() was called with


def test_an_abandoned_episode_is_kept(tmp_path):
    episodes = [GOOD[:2], GOOD[:1], GOOD, GOOD[:2]]
    helpers.record(tmp_path, episodes)

    assert_same(helpers.read(tmp_path), _expected(*episodes))
    for steps in helpers.source_steps(tmp_path):
        assert [bool(s["is_last"]) for s in steps] == [False] * (len(steps) - 1) + [True]
    assert [bool(steps[-1]["is_terminal"]) for steps in helpers.source_steps(tmp_path)] == [
        False,
        False,
        True,
        False,
    ]


def test_an_environment_without_observations(tmp_path):
    steps = [helpers.first(None), helpers.mid(None), helpers.last(None)]

    helpers.record(tmp_path, [steps])

    assert_same(helpers.read(tmp_path), _expected(steps))
    assert [len(steps) for steps in helpers.source_steps(tmp_path)] == [3]


def test_an_integer_reward_where_the_spec_says_float(tmp_path):
    steps = [helpers.first(), helpers.mid(0.0, 0), helpers.mid(0.0, 0.5), helpers.last(0.0, 1)]
    env = helpers.ScriptedEnv([steps])
    env.reward_spec = lambda: helpers.spec_of(0.5)
    with envlogger.EnvLogger(env, data_directory=tmp_path, helper=False) as logger:
        helpers.play(logger, [[0, 1, 2]])

    assert_same(helpers.read(tmp_path), _expected(steps))


# --- schedulers --------------------------------------------------------------------------------------


def test_a_scheduler_chooses_the_steps(tmp_path):
    long = [helpers.first(0.0), *(helpers.mid(float(i)) for i in range(1, 7)), helpers.last(7.0)]
    with _logger(tmp_path, [long, long], scheduler=schedulers.NStepScheduler(3)) as logger:
        helpers.play(logger, [list(range(7))] * 2)

    got = helpers.read(tmp_path)

    assert [[s.timestep.observation for s in episode] for episode in got] == [
        [0.0, 3.0, 6.0],
        [1.0, 4.0, 7.0],
    ]
    expected = helpers.expected_steps(long, list(range(7)))
    assert_same(got, [expected[0:8:3], expected[1:8:3]])
    first, second = helpers.source_steps(tmp_path)
    assert [bool(s["is_first"]) for s in first] == [True, False, False]
    assert not any(s["is_first"] for s in second)


def test_a_scheduler_chooses_the_episodes(tmp_path):
    numbers = iter(range(100))
    helpers.record(
        tmp_path,
        [GOOD] * 5,
        scheduler=schedulers.ListEpisodeScheduler([1, 4]),
        episode_fn=lambda *_: next(numbers),
    )

    assert_same(helpers.read(tmp_path), _expected(GOOD, GOOD))
    assert helpers.read_metadata(tmp_path) == [5, 14]


# --- sessions ----------------------------------------------------------------------------------------


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

    assert_same(helpers.read(tmp_path), _expected(one, other))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
@pytest.mark.parametrize("dtype", ["U4", "S2", "u4", "f8", "u1"])
def test_values_without_elements_in_two_sessions(tmp_path, shape, dtype):
    value = np.zeros(shape, dtype)
    steps = [helpers.first(value), helpers.mid(value), helpers.last(value)]

    helpers.record(tmp_path, [steps])
    helpers.record(tmp_path, [steps])

    assert_same(helpers.read(tmp_path), _expected(steps, steps))


def test_several_loggers_at_once(tmp_path):
    loggers = [
        _logger(tmp_path, [[helpers.first(float(n)), *GOOD[1:]]] * 4, max_episodes_per_file=2)
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
    one = _logger(tmp_path, [GOOD], step_fn=lambda *_: {"a": 1})
    other = _logger(tmp_path, [GOOD], step_fn=lambda *_: {"b": "x"})
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
    with _logger(tmp_path, [GOOD, GOOD]) as logger:
        helpers.play(logger, [[0, 1]])
        logger.reset()
        logger.flush()
        assert_same(helpers.read(tmp_path), _expected(GOOD))
    assert_same(helpers.read(tmp_path), _expected(GOOD, GOOD[:1]))


def test_a_logger_that_nobody_closes_loses_nothing(tmp_path):
    logger = _logger(tmp_path, [GOOD])
    helpers.play(logger, [[0, 1]])
    del logger
    gc.collect()

    assert_same(helpers.read(tmp_path), _expected(GOOD))


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
