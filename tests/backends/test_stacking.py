# SPDX-License-Identifier: Apache-2.0
"""Columns of steps that no features bind: in memory, and in logs of EnvLogger 1.x."""

from __future__ import annotations

import dm_env
import numpy as np
import pytest

from envlogger import errors, step_data
from envlogger.backends import stacking
from envlogger.testing.comparison import assert_same


def _steps(rewards, observations=None, custom=None):
    """Returns an episode with these rewards, which is a step longer."""
    count = len(rewards) + 1
    observations = observations or [np.float32(0)] * count
    custom = custom or [None] * count
    kinds = [dm_env.StepType.FIRST, *[dm_env.StepType.MID] * (count - 2), dm_env.StepType.LAST]
    return [
        step_data.StepData(
            dm_env.TimeStep(
                kinds[t],
                rewards[t - 1] if t else None,
                float(t < count - 1) if t else None,
                observations[t],
            ),
            np.int64(t) if t else None,
            custom[t],
        )
        for t in range(count)
    ]


def _column(values):
    """Returns the column of observations."""
    steps = _steps([0.0] * (len(values) - 1), values)
    return stacking.stack(steps, ["observation"], slice(None))["observation"]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 0.5, 1], np.float64),
        ([np.float32(0.1), np.float64(0.1)], np.float64),
        ([np.uint8(255), np.int8(-1)], np.int16),
        ([True, 2], np.int64),
        ([2**53, 0.5], np.float64),
        ([np.zeros(2, np.uint8), np.full(2, 70_000)], np.int64),
        ([np.float32(0), 1 + 2j], np.complex128),
    ],
)
def test_a_column_has_a_dtype_that_holds_all_values(values, dtype):
    column = _column(values)

    assert column.dtype == dtype
    assert column.shape == (len(values), *np.shape(values[0]))
    for got, value in zip(column, values, strict=True):
        assert_same(got, np.asarray(value, dtype)[()])


@pytest.mark.parametrize(
    "values",
    [
        [2**53 + 1, 0.5],
        [0, "zero"],
        ["a", np.zeros(2)],
        [np.uint64(2**64 - 1), np.int64(-1)],
    ],
)
def test_what_no_dtype_holds_is_kept_as_objects(values):
    column = _column([*values, None])

    assert column.dtype == object
    assert column[-1] is None
    for got, value in zip(column, values, strict=False):
        assert_same(got, value.encode() if isinstance(value, str) else np.asarray(value)[()])


def test_rows_of_different_shape_and_dtype():
    column = _column([np.zeros(2, np.float32), np.ones(3, np.float64)])

    assert [row.dtype for row in column] == [np.float64, np.float64]
    assert [row.tolist() for row in column] == [[0, 0], [1, 1, 1]]


def test_rewards_that_begin_with_an_int():
    columns = stacking.stack(_steps([0, 0, 0.5, 1]), None, slice(None))

    assert_same(columns["reward"], np.array([0, 0, 0.5, 1, 0]))


def test_a_value_here_and_a_dict_there_has_no_column():
    steps = _steps([0.5, 1.0], [np.float32(0), {"a": 1}, np.float32(2)])
    with pytest.raises(errors.ValueMismatchError, match=r"^observation: got both .* convert"):
        stacking.stack(steps, None, slice(None))

    assert_same(stacking.stack(steps, ["reward"], slice(None)), {"reward": np.array([0.5, 1.0, 0])})


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ({1: 0, "1": 0}, errors.NameConflictError, "Two values are named"),
        (2**70, errors.UnsupportedValueError, "expected one of 64 bits"),
    ],
)
def test_what_has_no_column_is_named_and_other_fields_are_there(value, error, message):
    steps = _steps([0.5], custom=[None, {"key": value}])
    with pytest.raises(error, match=rf"^custom_data: .*{message}.*`envlogger convert`"):
        stacking.stack(steps, None, slice(None))
    for field in ("reward", "is_last", "observation"):
        assert list(stacking.stack(steps, [field], slice(None))) == [field]


def test_custom_data_with_the_names_of_rlds_lies_apart():
    steps = _steps([0.5], custom=[{"reward": 7}, {"reward": 8}])
    columns = stacking.stack(steps, None, slice(None))

    assert_same(columns["reward"], np.array([0.5, 0]))
    assert_same(columns["custom_data"], {"reward": np.array([7, 8])})


def test_an_unknown_field():
    with pytest.raises(errors.OptionError, match="got 'speed', but the steps have only: is_first"):
        stacking.stack(_steps([0.5]), ["speed"], slice(None))
