# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import pickle
import unittest

import dm_env
import numpy as np
import pytest
from dm_env import specs, test_utils

from envlogger import environment_wrapper
from envlogger.testing import catch_env


class _Recorder(dm_env.Environment):
    """Answers each call with its name, so that a test sees which one arrived."""

    def __init__(self):
        self.physics = "inner"
        self._secret = "private"
        self.closed = False

    def reset(self):
        return dm_env.restart("reset")

    def step(self, action):
        return dm_env.transition(reward=0.0, observation=("step", action))

    def observation_spec(self):
        return "observation_spec"

    def action_spec(self):
        return "action_spec"

    def reward_spec(self):
        return "reward_spec"

    def discount_spec(self):
        return "discount_spec"

    def close(self):
        self.closed = True

    def __len__(self):
        return 7


def test_forwards_the_environments_methods():
    wrapper = environment_wrapper.EnvironmentWrapper(_Recorder())

    assert wrapper.reset().observation == "reset"
    assert wrapper.step(5).observation == ("step", 5)
    for name in ("observation_spec", "action_spec", "reward_spec", "discount_spec"):
        assert getattr(wrapper, name)() == name


def test_leaving_the_context_closes_the_wrapped_environment():
    inner = _Recorder()

    with environment_wrapper.EnvironmentWrapper(inner) as wrapper:
        wrapper.reset()
        assert not inner.closed

    assert inner.closed


def test_forwards_attributes_it_lacks_through_several_wrappers():
    wrapper = environment_wrapper.EnvironmentWrapper(
        environment_wrapper.EnvironmentWrapper(_Recorder())
    )

    assert wrapper.physics == "inner"
    assert wrapper._secret == "private"
    with pytest.raises(AttributeError, match="no_such_thing"):
        wrapper.no_such_thing  # noqa: B018


def test_special_names_are_not_forwarded():
    wrapper = environment_wrapper.EnvironmentWrapper(_Recorder())

    with pytest.raises(AttributeError, match="__len__"):
        wrapper.__len__  # noqa: B018
    assert np.asarray(wrapper, dtype=object).shape == ()


def test_lookup_before_init_raises_instead_of_recursing():
    wrapper = environment_wrapper.EnvironmentWrapper.__new__(environment_wrapper.EnvironmentWrapper)

    for name in ("_environment", "physics", "__deepcopy__"):
        with pytest.raises(AttributeError):
            getattr(wrapper, name)
    assert not hasattr(wrapper, "physics")


@pytest.mark.parametrize(
    "duplicate",
    [*(lambda env, p=p: pickle.dumps(env, p) for p in range(6)), copy.copy, copy.deepcopy],
)
def test_pickling_and_copying_say_what_to_do_instead(duplicate):
    class Mine(environment_wrapper.EnvironmentWrapper):
        pass

    with pytest.raises(TypeError, match=r"Mine instances cannot be serialized/pickled.*factory"):
        duplicate(Mine(_Recorder()))


def test_unpickling_is_refused():
    wrapper = environment_wrapper.EnvironmentWrapper(_Recorder())

    with pytest.raises(TypeError, match="factory"):
        wrapper.__setstate__({})


def test_default_specs_of_dm_env_come_from_the_wrapped_environment():
    class TwoRewards(catch_env.Catch):
        def reward_spec(self):
            return specs.Array((2,), np.float32)

    wrapper = environment_wrapper.EnvironmentWrapper(TwoRewards())

    assert wrapper.reward_spec().shape == (2,)


class WrappedCatchConformsToDmEnvTest(test_utils.EnvironmentTestMixin, unittest.TestCase):
    def make_object_under_test(self):
        return environment_wrapper.EnvironmentWrapper(catch_env.Catch())
