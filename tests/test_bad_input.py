# SPDX-License-Identifier: Apache-2.0
"""Bad input gives an error that says where, what was got, what was expected and what to do; and
whatever was recorded before it stays readable."""

from __future__ import annotations

import json
import os
import warnings

import dm_env
import helpers
import numpy as np
import pytest
from dm_env import specs

import envlogger
from envlogger import errors
from envlogger.testing.comparison import assert_same

GOOD = [helpers.first(), helpers.mid(), helpers.last()]


def _logger(path, env, **kwargs):
    return envlogger.EnvLogger(env, data_directory=str(path), helper=False, **kwargs)


def _check_kept(path, episodes, actions=None):
    """Checks what Reader and tfds.data_source find."""
    actions = actions or [list(range(len(episode) - 1)) for episode in episodes]
    assert_same(
        helpers.read(path),
        [helpers.expected_steps(e, a) for e, a in zip(episodes, actions, strict=True)],
    )
    assert [len(steps) for steps in helpers.source_steps(path)] == [len(e) for e in episodes]


def _record_until_error(path, episodes, error, *, actions=None, **kwargs):
    """Plays episodes until an error comes, and returns it; closes properly."""
    if actions is None:
        actions = [list(range(len(episode) - 1)) for episode in episodes]
    env = helpers.ScriptedEnv(episodes, actions[0][0])
    with _logger(path, env, **kwargs) as logger, pytest.raises(error) as raised:
        helpers.play(logger, actions)
    return raised


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

    raised = _record_until_error(
        tmp_path, [whole, broken], errors.ValueMismatchError, actions=actions
    )

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, slot, got.format(slot=slot), expected.format(slot=slot))
    helpers.check_message(raised, "data_directory")
    _check_kept(tmp_path, [whole, broken[:2]], [actions[0], [act]])


@pytest.mark.parametrize(
    ("good", "bad", "got", "expected"),
    [values for values in _VALUES if not isinstance(values[0], dict | tuple)],
)
def test_metadata_that_changes(tmp_path, good, bad, got, expected):
    values = iter([good, good, good, good, bad])

    raised = _record_until_error(
        tmp_path, [GOOD, GOOD], errors.ValueMismatchError, step_fn=lambda *_: {"m": next(values)}
    )

    helpers.check_message(raised, f"m: got {got}", f"expected {expected}")
    assert [len(episode) for episode in helpers.read(tmp_path)] == [3, 1]
    assert_same([s.custom_data for s in helpers.read(tmp_path)[0]], [{"m": good}] * 3)


def test_episode_metadata_that_changes(tmp_path):
    values = iter([1.0, 1.0, 1.0, "x"])

    raised = _record_until_error(
        tmp_path, [GOOD, GOOD], errors.ValueMismatchError, episode_fn=lambda *_: {"m": next(values)}
    )

    helpers.check_message(raised, "m: got string", "expected float64", "data_directory")
    assert helpers.read_metadata(tmp_path) == [{"m": 1.0}, None]


def test_after_an_error_an_episode_begins(tmp_path):
    steps = [
        helpers.first(),
        helpers.mid(1.0),
        helpers.mid("bad"),
        helpers.mid(3.0),
        helpers.last(4.0),
    ]
    with _logger(tmp_path, helpers.ScriptedEnv([steps, GOOD])) as logger:
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

    _check_kept(tmp_path, [steps])
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
    with _logger(
        tmp_path, env, step_fn=(lambda *_: next(calls)) if slot == "step_fn" else None
    ) as logger:
        helpers.play(logger, [[0, 1]])
        logger.reset()
        with pytest.raises(errors.UnsupportedValueError) as raised:
            logger.step({"a": value} if slot == "action" else 0)

    assert isinstance(raised.value, TypeError)
    helpers.check_message(raised, "a: got " if slot == "step_fn" else f"{slot}/a: got ", got)
    _check_kept(tmp_path, [GOOD, steps[:1]])


def test_object_arrays_of_text_are_kept(tmp_path):
    words = np.array(["one", "three", "ü\0"], object)
    steps = [helpers.first({"words": words}), helpers.last({"words": words[::-1]})]

    helpers.record(tmp_path, [steps])

    _check_kept(tmp_path, [steps])


# --- names -------------------------------------------------------------------------------------------


_RESERVED = (
    *("observation", "action", "reward", "discount", "is_first", "is_last", "is_terminal", "steps"),
    *("custom_data", "present", "envlogger", "steps/x"),
)


@pytest.mark.parametrize("name", _RESERVED)
@pytest.mark.parametrize("source", ["step_fn", "episode_fn"])
def test_reserved_names(tmp_path, source, name):
    values = iter([None, None, None, {name: 1}])

    raised = _record_until_error(
        tmp_path, [GOOD, GOOD], errors.NameConflictError, **{source: lambda *_: next(values)}
    )

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, f"{name}: got", source, "reserved", "Rename it")
    assert_same(helpers.read(tmp_path)[0], helpers.expected_steps(GOOD, [0, 1]))


def test_reserved_names_of_the_dataset(tmp_path):
    with pytest.raises(errors.NameConflictError) as raised:
        _logger(tmp_path, helpers.ScriptedEnv([GOOD]), metadata={"envlogger": 1})

    helpers.check_message(raised, "metadata", "'envlogger'", "reserved", "Rename it")
    assert not (tmp_path / "dataset_info.json").exists()


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a/b": 1}, {"a": {"b": 2}}), ({"a": {"b/c": 1}}, {"a/b": {"c": 2}}), ({1: 1}, {"1": 2})],
)
@pytest.mark.parametrize("source", ["observation", "step_fn", "episode_fn"])
def test_names_that_collide(tmp_path, source, one, other):
    both = {**one, **other}
    values = iter([None, None, None, both])
    good = {"x": 0.0} if source == "observation" else 0.0
    steps = [helpers.first(good), helpers.mid(good), helpers.last(good)]
    kwargs = {}
    if source == "observation":
        broken = [helpers.first(both), helpers.mid(both)]
        path = tmp_path / "other"
    else:
        broken, path = steps, tmp_path
        kwargs = {source: lambda *_: next(values)}
    episodes = [broken] if source == "observation" else [steps, broken]

    raised = _record_until_error(path, episodes, errors.NameConflictError, **kwargs)

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, "Rename one of them")
    if source != "observation":
        assert_same(helpers.read(path)[0], helpers.expected_steps(steps, [0, 1]))


@pytest.mark.parametrize(
    "key", ["a/b", "with space", "ключ", "🙂", 0, -3, "_", "a.b", "a\nb", "%s"]
)
def test_keys_of_any_kind(tmp_path, key):
    value = {"in": {key: np.float32(1)}, key: 2}
    steps = [helpers.first(value), helpers.last(value)]

    helpers.record(tmp_path, [steps], episode_fn=lambda *_: {key: "x"}, step_fn=lambda *_: {key: 1})

    assert_same(helpers.read(tmp_path), [helpers.expected_steps(steps, [0], [{key: 1}, {key: 1}])])
    assert helpers.read_metadata(tmp_path) == [{key: "x"}]
    stored = helpers.source_steps(tmp_path)[0][0]
    assert stored["observation"]["in"][str(key)] == 1
    assert stored[str(key)] == 1
    (episode,) = helpers.tf_episodes(tmp_path)
    assert episode[str(key)] == b"x"
    assert episode["steps"][0]["observation"][str(key)] == 2


@pytest.mark.parametrize("key", ["", True, 1.5, None, (1, 2), "\ud800"])
def test_keys_that_cannot_be_names(tmp_path, key):
    values = iter([None, None, None, {key: 1}])

    raised = _record_until_error(
        tmp_path, [GOOD, GOOD], errors.NameConflictError, step_fn=lambda *_: next(values)
    )

    helpers.check_message(raised, f"got the key {key!r}", "expected", "Rename it")
    _check_kept(tmp_path, [GOOD])


# --- an environment that breaks its word -------------------------------------------------------------


class _Liar(helpers.ScriptedEnv):
    def observation_spec(self):
        return {"a": specs.Array((3,), np.float32), "b": specs.Array((), np.int32)}


def test_values_that_differ_from_the_specs_are_recorded_as_they_are(tmp_path):
    value = {"a": np.zeros(2, np.float64), "b": np.int32(0)}
    steps = [helpers.first(value), helpers.mid(value), helpers.last(value)]
    with (
        pytest.warns(UserWarning, match="differs from its specs") as warned,
        _logger(tmp_path, _Liar([steps, steps])) as logger,
    ):
        helpers.play(logger, [[0, 1], [0, 1]])

    assert len(warned) == 1
    message = str(warned[0].message)
    assert (
        "observation/a: got float64 of shape (2,), the spec says float32 of shape (3,)" in message
    )
    assert "observation/b" not in message
    _check_kept(tmp_path, [steps, steps])


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
        with _logger(tmp_path, env) as logger:
            helpers.play(logger, [[0]])

    _check_kept(tmp_path, [steps])


def _play_twice(path, steps):
    with _logger(path, helpers.ScriptedEnv([steps, steps])) as logger:
        helpers.play(logger, [[0, 1], [0, 1]])


def test_a_reward_on_first_is_kept_for_the_reader(tmp_path):
    first = dm_env.TimeStep(dm_env.StepType.FIRST, 7.5, 0.25, 0.0)
    steps = [first, helpers.mid(0.0, 1.5, 0.5), helpers.last(0.0, 2.5)]
    with pytest.warns(UserWarning, match="reward and discount: got a value on a FIRST") as warned:
        _play_twice(tmp_path, steps)

    assert len(warned) == 1
    _check_kept(tmp_path, [steps, steps])
    stored = helpers.source_steps(tmp_path)[0]
    assert [float(step["reward"]) for step in stored] == [1.5, 2.5, 0.0]
    assert [float(step["discount"]) for step in stored] == [0.5, 0.0, 0.0]


def test_what_breaks_the_protocol_is_still_kept(tmp_path):
    # No FIRST; MID steps without reward or discount; FIRST from step(); LAST from reset().
    episodes = [
        [helpers.mid(0.0), helpers.mid(1.0, None, None), helpers.last(2.0)],
        [helpers.last(3.0)],
    ]
    with _logger(tmp_path, helpers.ScriptedEnv(episodes)) as logger:
        helpers.play(logger, [[0, 1], []])

    _check_kept(tmp_path, episodes)


# --- directories -------------------------------------------------------------------------------------


def _tree(path):
    return {
        str(file.relative_to(path)): file.read_bytes() if file.is_file() else None
        for file in sorted(path.rglob("*"))
    }


def test_a_directory_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")

    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(errors.DatasetError) as raised:
            _logger(path, helpers.ScriptedEnv([GOOD]))

        assert isinstance(raised.value, OSError)
        helpers.check_message(raised, str(path), "data_directory")
    assert (tmp_path / "file").read_text() == "x"


def test_a_directory_that_cannot_be_made():
    with pytest.raises(errors.DatasetError) as raised:
        _logger("/proc/nowhere/runs", helpers.ScriptedEnv([GOOD]))

    helpers.check_message(raised, "/proc/nowhere/runs", "cannot be made", "Use a data_directory")


def test_a_directory_that_is_not_writable(tmp_path, monkeypatch):
    # The tests may run as root, who may write anywhere.
    monkeypatch.setattr(os, "access", lambda *_, **__: False)

    with pytest.raises(errors.DatasetError) as raised:
        _logger(tmp_path, helpers.ScriptedEnv([GOOD]))

    helpers.check_message(raised, str(tmp_path), "not writable", "Use a data_directory")


def test_a_directory_that_holds_something_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    before = _tree(tmp_path)

    with pytest.raises(errors.DatasetError) as raised:
        _logger(tmp_path, helpers.ScriptedEnv([GOOD]))

    helpers.check_message(raised, str(tmp_path), "thesis.tex", "Use a new or empty data_directory")
    assert _tree(tmp_path) == before


def test_a_dataset_of_another_tool(tmp_path):
    (tmp_path / "dataset_info.json").write_text(
        json.dumps({"name": "x", "version": "1.0.0", "fileFormat": "tfrecord", "splits": []})
    )
    (tmp_path / "features.json").write_text(
        json.dumps(
            {
                "featuresDict": {
                    "features": {"steps": {"sequence": {"feature": {"featuresDict": {}}}}}
                }
            }
        )
    )

    with pytest.raises(errors.DatasetError) as raised:
        _logger(tmp_path, helpers.ScriptedEnv([GOOD]))

    helpers.check_message(raised, str(tmp_path), "another tool", "Use another data_directory")


@pytest.mark.parametrize(
    ("observation", "action", "got"),
    [
        (np.zeros(3), 0, "observation: got float64 of shape (3,), expected float64 of shape ()"),
        (np.float32(0), 0, "observation: got float32 of shape (), expected float64 of shape ()"),
        ({"a": 0.0}, 0, "observation/a: got float64 of shape (), expected nothing"),
        (0.0, 0.5, "action: got float64 of shape (), expected int64 of shape ()"),
        (0.0, (0, 1), "action/0: got int64 of shape (), expected nothing"),
    ],
)
def test_a_dataset_of_another_schema_stays_as_it_was(tmp_path, observation, action, got):
    helpers.record(tmp_path, [GOOD])
    before = _tree(tmp_path)
    env = helpers.ScriptedEnv([[helpers.first(observation), helpers.last(observation)]], action)

    with pytest.raises(errors.ValueMismatchError) as raised:
        _logger(tmp_path, env)

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, got, "stays as it was", "Use another data_directory")
    assert _tree(tmp_path) == before
    _check_kept(tmp_path, [GOOD])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("split_name", "all"),
        ("split_name", "a b"),
        ("dataset_name", "My-Dataset"),
        ("version", "1.0"),
        ("max_episodes_per_file", 0),
        ("image_format", "gif"),
    ],
)
def test_illegal_options(tmp_path, option, value):
    with pytest.raises(errors.OptionError) as raised:
        _logger(tmp_path / "runs", helpers.ScriptedEnv([GOOD]), **{option: value})

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, f"{option}: got {value!r}", "expected")
    assert not (tmp_path / "runs").exists()


def test_no_directory_at_all():
    with pytest.raises(errors.OptionError, match="data_directory: got none, expected"):
        envlogger.EnvLogger(helpers.ScriptedEnv([GOOD]))


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "metadata.json"])
def test_a_dataset_that_is_damaged_is_not_appended_to(tmp_path, name):
    helpers.record(tmp_path, [GOOD])
    (tmp_path / name).write_text('{"a')
    before = _tree(tmp_path)

    with pytest.raises(errors.CorruptDatasetError) as raised:
        _logger(tmp_path, helpers.ScriptedEnv([GOOD]))

    helpers.check_message(raised, name, "truncated or damaged", "Restore it from a copy")
    assert _tree(tmp_path) == before


# --- exceptions --------------------------------------------------------------------------------------


class _OopsError(Exception):
    pass


def _raise(*_):
    raise _OopsError


class _Failing(helpers.ScriptedEnv):
    """Fails at the second step of the second episode."""

    def __init__(self, episodes):
        super().__init__(episodes)
        self._count = 0

    def step(self, action):
        self._count += 1
        if self._count == 4:
            raise _OopsError
        return super().step(action)


@pytest.mark.parametrize("source", ["env", "step_fn", "episode_fn", "scheduler"])
def test_exceptions_pass_and_what_was_recorded_stays(tmp_path, source):
    calls = iter(range(100))

    def fail(*_):
        if next(calls) == 5:
            raise _OopsError
        return True if source == "scheduler" else None

    env = _Failing([GOOD, GOOD]) if source == "env" else helpers.ScriptedEnv([GOOD, GOOD])
    kwargs = {} if source == "env" else {source: fail}
    with pytest.raises(_OopsError), _logger(tmp_path, env, **kwargs) as logger:
        helpers.play(logger, [[0, 1], [0, 1]])

    # episode_fn is called when the step is recorded.
    _check_kept(tmp_path, [GOOD, GOOD if source == "episode_fn" else GOOD[:2]])


def test_an_exception_in_close_of_the_environment(tmp_path):
    env = helpers.ScriptedEnv([GOOD])
    env.close = _raise
    logger = _logger(tmp_path, env)
    helpers.play(logger, [[0, 1]])

    with pytest.raises(_OopsError):
        logger.close()

    _check_kept(tmp_path, [GOOD])
