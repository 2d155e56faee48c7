# SPDX-License-Identifier: Apache-2.0
"""Bad values give an error that says where, what was got and what was expected; and whatever was
recorded before it stays readable. What is merely odd is kept."""

from __future__ import annotations

import typing
import warnings

import bad_input
import dm_env
import helpers
import numpy as np
import pytest
from dm_env import specs

from envlogger import errors
from envlogger.testing.comparison import assert_same

GOOD = helpers.GOOD


# --- values that change ------------------------------------------------------------------------------

_VALUES = [
    (0.5, np.float32(0.5), "float32 of shape ()", "float64 of shape ()"),
    (np.float32(0.5), 0.1, "float64 of shape () (value 0.1)", "float32 of shape ()"),
    (np.int32(1), np.int64(1), "int64 of shape ()", "int32 of shape ()"),
    (np.zeros(2), np.zeros((2, 1)), "float64 of shape (2, 1)", "float64 of shape (2,)"),
    (np.zeros(2), np.zeros(2, ">f4"), "float32 of shape (2,)", "float64 of shape (2,)"),
    (np.zeros(2, np.uint8), np.zeros(2, bool), "bool of shape (2,)", "uint8 of shape (2,)"),
    (1.0, "x", "string of shape ()", "float64 of shape ()"),
    ("x", 1.0, "float64 of shape ()", "string of shape ()"),
    ({"a": 1.0}, {"a": 1.0, "b": 2.0}, "new: {slot}/b", "missing: none"),
    ({"a": 1.0, "b": 2.0}, {"a": 1.0}, "new: none", "missing: {slot}/b"),
    ({"a": 1.0}, {"a": {"c": 1.0}}, "{slot}/a", "a dict of values"),
    ((1.0, 2.0), (1.0,), "new: none", "missing: {slot}/1"),
]


@pytest.mark.parametrize(("good", "bad", "got", "expected"), _VALUES)
@pytest.mark.parametrize("slot", ["observation", "action", "reward", "discount"])
def test_a_value_that_changes(tmp_path, slot, good, bad, got, expected):
    def step(value, kind=dm_env.StepType.MID):
        fields = {"observation": 0.0, "reward": 0.0, "discount": 1.0}
        if slot != "action":
            fields[slot] = value
        return dm_env.TimeStep(kind, fields["reward"], fields["discount"], fields["observation"])

    first = helpers.first(good if slot == "observation" else 0.0)
    whole = [first, step(good), step(good, dm_env.StepType.LAST)]
    broken = [first, step(good), step(bad)]
    act = good if slot == "action" else 0
    actions = [[act, act], [act, bad if slot == "action" else 0]]

    raised = bad_input.record_until_error(
        tmp_path, [whole, broken], errors.ValueMismatchError, actions=actions
    )

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, slot, got.format(slot=slot), expected.format(slot=slot))
    helpers.check_message(raised, "data_directory")
    bad_input.check_kept(tmp_path, [whole, broken[:2]], [actions[0], [act]])


@pytest.mark.parametrize(
    ("good", "bad", "got", "expected"),
    [values for values in _VALUES if not isinstance(values[0], dict | tuple)],
)
def test_metadata_that_changes(tmp_path, good, bad, got, expected):
    values = iter([good, good, good, good, bad])

    raised = bad_input.record_until_error(
        tmp_path, [GOOD, GOOD], errors.ValueMismatchError, step_fn=lambda *_: {"m": next(values)}
    )

    helpers.check_message(raised, f"m: got {got}", f"expected {expected}")
    assert [len(episode) for episode in helpers.read(tmp_path)] == [3, 1]
    assert_same([s.custom_data for s in helpers.read(tmp_path)[0]], [{"m": good}] * 3)


def test_episode_metadata_that_changes(tmp_path):
    values = iter([1.0, 1.0, 1.0, "x"])

    raised = bad_input.record_until_error(
        tmp_path, [GOOD, GOOD], errors.ValueMismatchError, episode_fn=lambda *_: {"m": next(values)}
    )

    helpers.check_message(raised, "m: got string", "expected float64", "data_directory")
    assert helpers.read_metadata(tmp_path) == [{"m": 1.0}, None]


def test_an_image_without_a_pixel(tmp_path):
    images = [np.zeros((height, 4, 3), np.uint8) for height in (3, 5, 0)]
    steps = [helpers.first(images[0]), *map(helpers.mid, images[1:])]

    raised = bad_input.record_until_error(tmp_path, [steps], errors.ValueMismatchError)

    helpers.check_message(raised, "observation: got uint8 of shape (0, 4, 3)", "image_format='raw'")
    bad_input.check_kept(tmp_path, [steps[:2]])


def test_an_integer_that_a_float_does_not_hold(tmp_path):
    # Also where it is the first value: the spec says float64.
    steps = [helpers.first(), helpers.mid(reward=2**53 + 1)]
    env = helpers.ScriptedEnv([steps])
    env.reward_spec = lambda: specs.Array((), np.float64)

    with helpers.logger(tmp_path, env) as logger:
        logger.reset()
        with pytest.raises(errors.ValueMismatchError) as raised:
            logger.step(0)

    helpers.check_message(raised, "reward: got int64", str(2**53 + 1), "expected float64")
    bad_input.check_kept(tmp_path, [steps[:1]])


@pytest.mark.parametrize("step_type", [7, None, "MID"])
# The later steps of an episode take the compiled path.
@pytest.mark.parametrize("num_good", [1, 2, 40])
def test_what_is_no_step_type(tmp_path, step_type, num_good):
    good = [GOOD[0], *[GOOD[1]] * (num_good - 1)]
    env = helpers.ScriptedEnv([[*good, GOOD[1]._replace(step_type=step_type)]])

    with helpers.logger(tmp_path, env) as logger:
        logger.reset()
        for action in range(num_good - 1):
            logger.step(action)
        with pytest.raises(errors.UnsupportedValueError) as raised:
            logger.step(0)

    helpers.check_message(raised, f"step_type: got {step_type!r}", "FIRST, MID or LAST")
    bad_input.check_kept(tmp_path, [good])


def test_time_steps_with_more_fields(tmp_path):
    class Longer(typing.NamedTuple):
        step_type: typing.Any
        reward: typing.Any
        discount: typing.Any
        observation: typing.Any
        extras: typing.Any
        first, mid, last = dm_env.TimeStep.first, dm_env.TimeStep.mid, dm_env.TimeStep.last

    helpers.record(tmp_path, [[Longer(*step, {"x": 1}) for step in GOOD]] * 2)

    bad_input.check_kept(tmp_path, [GOOD] * 2)


def test_after_an_error_an_episode_begins(tmp_path):
    steps = [
        helpers.first(),
        helpers.mid(1.0),
        helpers.mid("bad"),
        helpers.mid(3.0),
        helpers.last(4.0),
    ]
    with helpers.logger(tmp_path, helpers.ScriptedEnv([steps, GOOD])) as logger:
        logger.reset()
        logger.step(0)
        with pytest.raises(errors.ValueMismatchError):
            logger.step(1)
        logger.step(2)
        logger.step(3)
        helpers.play(logger, [[0, 1]])

    got = helpers.read(tmp_path)

    assert [len(episode) for episode in got] == [2, 2, 3]
    assert [step.timestep.observation for step in got[1]] == [3.0, 4.0]
    assert [step.timestep.step_type.name for step in got[1]] == ["MID", "LAST"]


# --- values of any kind ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16"])
def test_nan_and_infinities_are_kept(tmp_path, dtype):
    value = np.array([np.nan, np.inf, -np.inf, -0.0]).astype(dtype)
    steps = [helpers.first(value), helpers.mid(value, float("nan"), float("inf"))]

    helpers.record(tmp_path, [steps])

    bad_input.check_kept(tmp_path, [steps])
    assert np.array_equal(
        helpers.source_steps(tmp_path)[0][0]["observation"], value, equal_nan=True
    )


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (np.array([1, "a"], object), "an object array of int, str"),
        (np.array([{}, None], object), "an object array of NoneType, dict"),
        (np.ma.masked_array([1.0], [True]), "numpy.ma.MaskedArray"),
        (np.zeros(2, "f4,i4"), "an array of dtype"),
        ({1.0, 2.0}, "builtins.set"),
        (object(), "builtins.object"),
        (2**70, "the int 1180591620717411303424"),
    ],
)
@pytest.mark.parametrize("slot", ["observation", "action", "reward", "step_fn"])
def test_values_that_cannot_be_stored(tmp_path, slot, value, got):
    steps = [
        helpers.first(),
        helpers.mid(
            {"a": value} if slot == "observation" else 0.0,
            {"a": value} if slot == "reward" else 0.0,
        ),
    ]
    calls = iter([None, None, None, None, {"a": value}])
    env = helpers.ScriptedEnv([GOOD, steps])
    with helpers.logger(
        tmp_path, env, step_fn=(lambda *_: next(calls)) if slot == "step_fn" else None
    ) as logger:
        helpers.play(logger, [[0, 1]])
        logger.reset()
        with pytest.raises(errors.UnsupportedValueError) as raised:
            logger.step({"a": value} if slot == "action" else 0)

    assert isinstance(raised.value, TypeError)
    helpers.check_message(raised, "a: got " if slot == "step_fn" else f"{slot}/a: got ", got)
    bad_input.check_kept(tmp_path, [GOOD, steps[:1]])


def test_metadata_that_cannot_be_stored(tmp_path):
    with pytest.raises(errors.UnsupportedValueError) as raised:
        helpers.logger(tmp_path, helpers.ScriptedEnv([GOOD]), metadata={"agent": object()})

    helpers.check_message(raised, "'agent'", "builtins.object", "supported are", "Convert it")
    assert not (tmp_path / "dataset_info.json").exists()


def test_specs_that_cannot_be_stored(tmp_path):
    env = helpers.ScriptedEnv([GOOD])
    env.action_spec = lambda: {"grip": None}

    with pytest.raises(errors.UnsupportedValueError) as raised:
        helpers.logger(tmp_path, env)

    helpers.check_message(raised, "'action_spec/grip'", "NoneType", "supported are")
    assert not (tmp_path / "dataset_info.json").exists()


def test_object_arrays_of_text_are_kept(tmp_path):
    words = np.array(["one", "three", "ü\0"], object)
    steps = [helpers.first({"words": words}), helpers.last({"words": words[::-1]})]

    helpers.record(tmp_path, [steps])

    bad_input.check_kept(tmp_path, [steps])


# --- an environment that breaks its word -------------------------------------------------------------


class _Liar(helpers.ScriptedEnv):
    def observation_spec(self):
        return {"a": specs.Array((3,), np.float32), "b": specs.Array((), np.int32)}


def test_values_that_differ_from_the_specs_are_recorded_as_they_are(tmp_path):
    value = {"a": np.zeros(2, np.float64), "b": np.int32(0)}
    steps = [helpers.first(value), helpers.mid(value), helpers.last(value)]
    with (
        pytest.warns(UserWarning, match="differs from its specs") as warned,
        helpers.logger(tmp_path, _Liar([steps, steps])) as logger,
    ):
        helpers.play(logger, [[0, 1], [0, 1]])

    assert len(warned) == 1
    message = str(warned[0].message)
    assert (
        "observation/a: got float64 of shape (2,), the spec says float32 of shape (3,)" in message
    )
    assert "observation/b" not in message
    bad_input.check_kept(tmp_path, [steps, steps])


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(3, ">f4"),
        np.zeros(3, "M8[s]"),
        np.zeros((2, 0), ">u4"),
        np.array(["ab", "c"]),
        np.array([b"ab"]),
        np.zeros((3, 0), "U2"),
        np.zeros(3, np.longlong),
        np.zeros(2, "c8"),
        "text",
        b"bytes",
        True,
        3,
        0.5,
        1j,
    ],
)
def test_values_that_are_as_the_specs_say_give_no_warning(tmp_path, value):
    steps = [helpers.first(value), helpers.last(value)]
    env = helpers.ScriptedEnv([steps])
    if isinstance(value, np.ndarray):
        env.observation_spec = lambda: specs.Array(value.shape, value.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with helpers.logger(tmp_path, env) as logger:
            helpers.play(logger, [[0]])

    bad_input.check_kept(tmp_path, [steps])


def _play_twice(path, steps):
    with helpers.logger(path, helpers.ScriptedEnv([steps, steps])) as logger:
        helpers.play(logger, [[0, 1], [0, 1]])


def test_a_reward_on_first_is_kept_for_the_reader(tmp_path):
    first = dm_env.TimeStep(dm_env.StepType.FIRST, 7.5, 0.25, 0.0)
    steps = [first, helpers.mid(0.0, 1.5, 0.5), helpers.last(0.0, 2.5)]
    with pytest.warns(UserWarning, match="reward and discount: got a value on a FIRST") as warned:
        _play_twice(tmp_path, steps)

    assert len(warned) == 1
    bad_input.check_kept(tmp_path, [steps, steps])
    stored = helpers.source_steps(tmp_path)[0]
    assert [float(step["reward"]) for step in stored] == [1.5, 2.5, 0.0]
    assert [float(step["discount"]) for step in stored] == [0.5, 0.0, 0.0]


def test_what_breaks_the_protocol_is_still_kept(tmp_path):
    # No FIRST; MID steps without reward or discount; FIRST from step(); LAST from reset().
    episodes = [
        [helpers.mid(0.0), helpers.mid(1.0, None, None), helpers.last(2.0)],
        [helpers.last(3.0)],
    ]
    with helpers.logger(tmp_path, helpers.ScriptedEnv(episodes)) as logger:
        helpers.play(logger, [[0, 1], []])

    bad_input.check_kept(tmp_path, episodes)
