# SPDX-License-Identifier: Apache-2.0
"""Exceptions of environments and callbacks pass, and whatever was recorded before them stays."""

from __future__ import annotations

import pickle

import bad_input
import helpers
import pytest

from envlogger import errors

GOOD = helpers.GOOD


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
    with pytest.raises(_OopsError), helpers.logger(tmp_path, env, **kwargs) as logger:
        helpers.play(logger, [[0, 1], [0, 1]])

    # episode_fn is called when the step is recorded.
    bad_input.check_kept(tmp_path, [GOOD, GOOD if source == "episode_fn" else GOOD[:2]])


def test_an_exception_in_close_of_the_environment(tmp_path):
    env = helpers.ScriptedEnv([GOOD])
    env.close = _raise
    logger = helpers.logger(tmp_path, env)
    helpers.play(logger, [[0, 1]])

    with pytest.raises(_OopsError):
        logger.close()

    bad_input.check_kept(tmp_path, [GOOD])


def test_errors_reach_other_processes():
    for error in (
        errors.ValueMismatchError("a"),
        errors.UnsupportedValueError("b"),
        errors.NameConflictError("c"),
        errors.OptionError("d"),
        errors.DatasetError("e"),
        errors.CorruptDatasetError("f"),
        errors.MissingExtraError("torch", "torch", "Training"),
    ):
        copy = pickle.loads(pickle.dumps(error))

        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)
