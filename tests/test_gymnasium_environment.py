# SPDX-License-Identifier: Apache-2.0
"""Gymnasium environments: what is recorded is what Gymnasium's own loop sees."""

from __future__ import annotations

import gc
import itertools
import unittest
import warnings

import dm_env
import gymnasium
import helpers
import hypothesis
import numpy as np
import processes
import pytest
from dm_env import specs, test_utils
from gymnasium import spaces
from hypothesis import strategies as st

import envlogger
from envlogger import errors, step_data
from envlogger.converters import gymnasium_spaces, spec_codec
from envlogger.converters.varying_array import VaryingArray
from envlogger.testing.comparison import assert_same

_REAL = {
    "cartpole": ("CartPole-v1", {}),
    "cartpole_cut": ("CartPole-v1", {"max_episode_steps": 5}),
    "cheetah": ("HalfCheetah-v5", {"max_episode_steps": 40}),
    "minigrid": ("minigrid:MiniGrid-DoorKey-5x5-v0", {"max_episode_steps": 60}),
}


_SEEDS = (7, None, None)


@pytest.fixture(autouse=True)
def _in_a_scratch_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to a file there


def _make(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, about their age
        env_id, kwargs = _REAL[name]
        env = gymnasium.make(env_id, **kwargs)
    env.action_space.seed(3)
    return env


def _loop(env, seeds):
    """Plays as Gymnasium's documents do; returns each episode's results, of `reset` first."""
    episodes = []
    for seed in seeds:
        observation, info = env.reset(seed=seed)
        seen, is_over = [(None, observation, None, False, False, info)], False
        while not is_over:
            action = env.action_space.sample()
            observation, reward, terminated, truncated, info = env.step(action)
            seen.append((action, observation, reward, terminated, truncated, info))
            is_over = terminated or truncated
        episodes.append(seen)
    return episodes


def _record(env, seeds, directory):
    """Plays what `_loop` plays, and records it."""
    with envlogger.EnvLogger(
        envlogger.GymnasiumEnvironment(env, seed=seeds),
        step_fn=lambda timestep, action, env: {"info": env.info},
        data_directory=directory,
        helper=False,
    ) as logger:
        helpers.play_whole(logger, len(seeds), lambda _: env.action_space.sample())


def _logged(episode):
    """Returns the steps that must be recorded of what a loop saw."""
    steps = []
    for action, observation, reward, terminated, truncated, info in episode:
        if action is None:
            timestep = dm_env.restart(observation)
        else:
            kind = dm_env.StepType.LAST if terminated or truncated else dm_env.StepType.MID
            timestep = dm_env.TimeStep(kind, reward, 0.0 if terminated else 1.0, observation)
        steps.append(step_data.StepData(timestep, action, {"info": info}))
    return steps


@pytest.mark.parametrize("name", _REAL)
def test_what_is_recorded_is_what_the_loop_saw(name, tmp_path):
    expected = _loop(_make(name), _SEEDS)

    _record(_make(name), _SEEDS, tmp_path / "data")

    found = helpers.read(tmp_path / "data")
    for got, wanted in zip(found, map(_logged, expected), strict=True):
        for one, other in zip(got, wanted, strict=True):
            # The order of the keys is that of the space.
            if isinstance(other.timestep.observation, dict):
                keys = one.timestep.observation
                ordered = {key: other.timestep.observation[key] for key in keys}
                other = other._replace(timestep=other.timestep._replace(observation=ordered))
            assert_same(one, other)
    ends = [(episode[-1][3], episode[-1][4]) for episode in expected]
    terminal = [episode[-1]["is_terminal"] for episode in helpers.source_steps(tmp_path / "data")]
    assert terminal == [terminated for terminated, _ in ends]


def test_both_kinds_of_ends_are_among_the_real_ones():
    ends = {
        (episode[-1][3], episode[-1][4]) for name in _REAL for episode in _loop(_make(name), _SEEDS)
    }

    assert {(True, False), (False, True)} <= ends


class TestDmEnvSays(test_utils.EnvironmentTestMixin, unittest.TestCase):
    def make_object_under_test(self):
        return envlogger.GymnasiumEnvironment(_make("cartpole"), seed=0)


# --- spaces --------------------------------------------------------------------------------------

_DTYPES = ["float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"]
_shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)


def _box(dtype, shape):
    low, high = (0, 1) if dtype == "bool" else (0, 100)
    return spaces.Box(low, high, shape, np.dtype(dtype))


_leaves = st.one_of(
    st.builds(_box, st.sampled_from(_DTYPES), _shapes),
    st.builds(
        lambda shape, dtype: spaces.Box(-np.inf, np.inf, shape, np.dtype(dtype)),
        _shapes,
        st.sampled_from(["float32", "float64"]),
    ),
    st.builds(
        lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 9), st.integers(-9, 9)
    ),
    st.builds(
        lambda nvec, start: spaces.MultiDiscrete(nvec, start=np.full_like(nvec, start)),
        st.lists(st.integers(1, 9), min_size=1, max_size=3).map(np.array),
        st.integers(-3, 3),
    ),
    st.builds(spaces.MultiBinary, st.one_of(st.integers(1, 4), st.just((2, 3)))),
    st.builds(lambda length: spaces.Text(length, charset="abcä☃ "), st.integers(1, 9)),
)
_flat = st.one_of(
    _leaves,
    st.lists(_leaves, min_size=1, max_size=3).map(spaces.Tuple),
    st.dictionaries(st.sampled_from("abc"), _leaves, min_size=1).map(spaces.Dict),
)
_sequences = st.builds(spaces.Sequence, _flat, stack=st.booleans())
_spaces = st.recursive(
    st.one_of(_leaves, _sequences),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(spaces.Dict),
    ),
    max_leaves=4,
)


class _Sampler(gymnasium.Env):
    """Observes samples of a space; remembers what it observed and the actions that it got."""

    def __init__(self, observation_space, action_space=None, length=4):
        self.observation_space = observation_space
        self.action_space = action_space or spaces.Discrete(2)
        self.seen, self.actions, self._length = [], [], length
        self.resets = []

    def reset(self, *, seed=None, options=None):
        self.resets.append((seed, options))
        self._count = 0
        return self._observe(), {"is_first": True}

    def step(self, action):
        self._count += 1
        self.actions.append(action)
        return self._observe(), 0.5, False, self._count == self._length, {"count": self._count}

    def _observe(self):
        self.seen.append(self.observation_space.sample())
        return self.seen[-1]


def _validate(spec, value):
    if isinstance(spec, dict):
        assert spec.keys() == value.keys()
        for key, item in spec.items():
            _validate(item, value[key])
    elif isinstance(spec, tuple):
        for item, part in zip(spec, value, strict=True):
            _validate(item, part)
    else:
        spec.validate(value)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(_spaces, _spaces, st.integers(0, 99))
def test_any_space_is_recorded_bit_for_bit(observation_space, action_space, seed):
    observation_space.seed(seed)
    action_space.seed(seed)
    gym_env = _Sampler(observation_space, action_space)
    env = envlogger.GymnasiumEnvironment(gym_env)
    to_action = gymnasium_spaces.to_spec_form(action_space)
    samples = [action_space.sample() for _ in range(8)]
    actions = [to_action(sample) for sample in samples]
    with helpers.scratch() as directory:
        with envlogger.EnvLogger(env, data_directory=directory + "/a", helper=False) as logger:
            timesteps = helpers.play(logger, [actions[:4], actions[4:]])
        found = [step for episode in helpers.read(directory + "/a") for step in episode]
        with envlogger.Reader(directory + "/a") as reader:
            assert_same(
                spec_codec.encode(reader.observation_spec()),
                spec_codec.encode(env.observation_spec()),
            )

    played = [timestep for episode in timesteps for timestep in episode]
    expected_actions = [None, *actions[:4], None, *actions[4:]]
    for step, timestep, action in zip(found, played, expected_actions, strict=True):
        _validate(env.observation_spec(), timestep.observation)
        if action is not None:
            _validate(env.action_spec(), action)
        assert_same(step, step_data.StepData(timestep, action))
    # There and back again; what the environment got is what the agent sampled.
    back = gymnasium_spaces.from_spec_form(observation_space)
    for timestep, seen in zip(played, gym_env.seen, strict=True):
        assert_same(_plain(back(timestep.observation)), _plain(seen))
    for got, sample in zip(gym_env.actions, samples, strict=True):
        assert_same(_plain(got), _plain(sample))


def _plain(value):
    """Returns a sample without the differences that Gymnasium leaves to chance."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value[()]
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    ("space", "spec"),
    [
        (spaces.Discrete(4), specs.DiscreteArray(4, np.int64)),
        (spaces.Discrete(4, start=-1), specs.BoundedArray((), np.int64, -1, 2)),
        (spaces.MultiBinary(2), specs.BoundedArray((2,), np.int8, 0, 1)),
        (
            spaces.MultiDiscrete([2, 3], start=[0, 1]),
            specs.BoundedArray((2,), np.int64, [0, 1], [1, 3]),
        ),
        (spaces.Text(3), specs.StringArray(())),
        (spaces.Sequence(spaces.Discrete(2)), VaryingArray((-1,), np.int64)),
        (
            spaces.Sequence(spaces.Dict(a=spaces.Box(0, 1, (2, 3)), b=spaces.Text(3)), stack=True),
            {"a": VaryingArray((-1, 2, 3), np.float32), "b": VaryingArray((-1,), object)},
        ),
    ],
)
def test_specs_of_spaces(space, spec):
    assert repr(gymnasium_spaces.to_spec(space)) == repr(spec)


def test_sequences_of_any_length_even_empty_ones(tmp_path):
    space = spaces.Sequence(spaces.Dict(a=spaces.Box(0, 1, (2,)), b=spaces.Text(3)))
    convert = gymnasium_spaces.to_spec_form(space)
    item = {"a": np.ones(2, np.float32), "b": "xy"}
    values = [(), (), (item,), (), (item, item, item)]
    env = _Sampler(space)
    env._observe = iter(values).__next__

    with envlogger.EnvLogger(
        envlogger.GymnasiumEnvironment(env), data_directory=tmp_path / "a", helper=False
    ) as logger:
        helpers.play(logger, [[0] * 4])

    (steps,) = helpers.read(tmp_path / "a")
    assert_same([step.timestep.observation for step in steps], list(map(convert, values)))


@pytest.mark.parametrize(
    ("space", "where"),
    [
        (spaces.Dict(x=spaces.Tuple((spaces.Graph(spaces.Discrete(2), None),))), "observation/x/0"),
        (spaces.OneOf((spaces.Discrete(2), spaces.Discrete(3))), "observation: got the space"),
        (spaces.Sequence(spaces.Sequence(spaces.Discrete(2))), "a Sequence in a Sequence"),
    ],
)
def test_spaces_without_a_spec(space, where):
    with pytest.raises(errors.UnsupportedValueError, match=where):
        envlogger.GymnasiumEnvironment(_Sampler(space))


@pytest.mark.parametrize("value", [{"a": 1}, {"a": 1, "b": 2, "c": 3}, [1, 2]])
def test_observations_that_are_not_nested_as_their_space_says(value):
    convert = gymnasium_spaces.to_spec_form(
        spaces.Dict(a=spaces.Discrete(2), b=spaces.Discrete(2)), ("observation",)
    )

    with pytest.raises(errors.ValueMismatchError, match=r"observation: got .* \['a', 'b'\]"):
        convert(value)


def test_values_take_the_dtype_of_their_space_where_that_is_exact():
    box = gymnasium_spaces.to_spec_form(spaces.Box(-9, 9, (2,), np.float32))
    number = gymnasium_spaces.to_spec_form(spaces.Box(0, 9, (), np.uint8))

    assert_same(box([1, 0.5]), np.array([1, 0.5], np.float32))
    assert_same(box(np.array([1, 2], np.float16)), np.array([1, 2], np.float32))
    assert_same(box(np.array([0.1, 0.2])), np.array([0.1, 0.2]))
    assert_same(number(7), np.uint8(7))
    assert_same(gymnasium_spaces.to_spec_form(spaces.Discrete(3))(2), 2)
    with pytest.raises(OverflowError):
        number(256)


def test_arrays_without_dimensions_become_scalars_for_the_environment():
    env = _Sampler(spaces.Discrete(2), spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(0, 1)))
    adapted = envlogger.GymnasiumEnvironment(env)
    adapted.reset()

    adapted.step({"a": np.array(1), "b": np.ones(1, np.float32)})

    assert_same(env.actions, [{"a": np.int64(1), "b": np.ones(1, np.float32)}])


# --- episodes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "seeds"),
    [
        (None, [None, None, None]),
        (5, [5, None, None]),
        (np.int64(5), [5, None, None]),
        ([4, None], [4, None, None]),
        (itertools.count(4), [4, 5, 6]),
    ],
)
def test_seeds_and_options(seed, seeds):
    env = _Sampler(spaces.Discrete(2))
    adapted = envlogger.GymnasiumEnvironment(env, seed=seed, options={"level": 3})
    given = []
    for _ in range(3):
        adapted.reset()
        given.append(adapted.seed)

    assert given == seeds
    assert env.resets == [(seed, {"level": 3}) for seed in seeds]


def test_a_step_after_the_last_one_resets():
    env = _Sampler(spaces.Discrete(2), length=2)
    adapted = envlogger.GymnasiumEnvironment(env)

    kinds = [adapted.step(0).step_type.name for _ in range(7)]

    assert kinds == ["FIRST", "MID", "LAST", "FIRST", "MID", "LAST", "FIRST"]
    assert len(env.actions) == 4


@pytest.mark.parametrize(
    ("terminated", "truncated", "kind", "discount"),
    [(0, 0, "MID", 0.9), (1, 0, "LAST", 0.0), (0, 1, "LAST", 0.9), (1, 1, "LAST", 0.0)],
)
def test_ends(terminated, truncated, kind, discount):
    env = _Sampler(spaces.Discrete(2))
    env.step = lambda action: (0, np.float32(2), np.bool_(terminated), np.bool_(truncated), {})
    adapted = envlogger.GymnasiumEnvironment(env, discount=0.9)
    adapted.reset()

    timestep = adapted.step(0)

    assert timestep.step_type.name == kind
    assert_same((timestep.reward, timestep.discount), (2.0, discount))


def test_bad_options():
    for arguments in ({"discount": 0.0}, {"discount": 1.5}, {"seed": 0.5}):
        (name,) = arguments
        with pytest.raises(errors.OptionError, match=f"^{name}: got"):
            envlogger.GymnasiumEnvironment(_Sampler(spaces.Discrete(2)), **arguments)


def test_frames_are_within_reach_of_step_fn(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = gymnasium.make("minigrid:MiniGrid-Empty-5x5-v0", render_mode="rgb_array")
    frames = []

    def step_fn(timestep, action, env):
        frames.append(env.render())
        return {"frame": frames[-1], "seed": env.seed}

    with envlogger.EnvLogger(
        envlogger.GymnasiumEnvironment(env, seed=1), step_fn, data_directory=tmp_path / "a"
    ) as logger:
        helpers.play(logger, [[0, 2]])

    (steps,) = helpers.read(tmp_path / "a")
    assert frames[0].std() > 1
    assert_same([step.custom_data["frame"] for step in steps], frames)
    assert [step.custom_data["seed"] for step in steps] == [1, 1, 1]


_WITHOUT = """
import sys
sys.modules["gymnasium"] = None
import envlogger
from envlogger import *
try:
    GymnasiumEnvironment(None)
except envlogger.errors.MissingExtraError as error:
    print(error)
"""


def test_without_the_extra():
    assert "pip install 'envlogger[gymnasium]'" in processes.python(_WITHOUT).stdout


# --- Minari --------------------------------------------------------------------------------------


def _collect(name):
    """Records by Minari; returns where that is, and the episodes."""
    import minari

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari's, of what it was not told
        collector = minari.DataCollector(_make(name))
        # Where it is given no seed, it makes one.
        _loop(collector, (7, 8, 9))
        made = collector.create_dataset("real/run-v0", algorithm_name="random")
        collector.close()
        path, episodes = made.storage.data_path, [*map(_columns_of_minari, made.iterate_episodes())]
        del collector, made  # whose temporary directories are removed by their finalizers
        gc.collect()
    return path, episodes


@pytest.mark.parametrize("name", ["cartpole", "cartpole_cut", "cheetah"])
def test_minari_collects_the_same(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    path, collected = _collect(name)
    env = _make(name)

    _record(env, (7, 8, 9), tmp_path / "ours")
    envlogger.convert(path, tmp_path / "converted")

    with envlogger.Reader(tmp_path / "ours") as reader:
        assert_same(list(map(_columns, reader.episodes)), collected)
    with envlogger.Reader(tmp_path / "converted") as reader:
        assert_same(list(map(_columns, reader.episodes)), collected)
        adapted = envlogger.GymnasiumEnvironment(env)
        assert reader.observation_spec() == adapted.observation_spec()
        assert reader.action_spec() == adapted.action_spec()


def _columns(episode):
    steps = list(episode)
    ends = [step.timestep.last() for step in steps[1:]]
    terminations = [
        end and step.timestep.discount == 0 for end, step in zip(ends, steps[1:], strict=True)
    ]
    return {
        "observations": np.stack([step.timestep.observation for step in steps]),
        "actions": np.stack([step.action for step in steps[1:]]),
        "rewards": np.array([step.timestep.reward for step in steps[1:]]),
        "terminations": terminations,
        "truncations": [end != terminal for end, terminal in zip(ends, terminations, strict=True)],
    }


def _columns_of_minari(episode):
    return {
        "observations": episode.observations,
        "actions": episode.actions,
        "rewards": episode.rewards,
        "terminations": episode.terminations.tolist(),
        "truncations": episode.truncations.tolist(),
    }
