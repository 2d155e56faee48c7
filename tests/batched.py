# SPDX-License-Identifier: Apache-2.0
"""Environments that step together, and what is recorded of each."""

from __future__ import annotations

import copy

import dm_env
import gymnasium
import helpers
import numpy as np
from dm_env import specs
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

import envlogger
from envlogger import step_data
from envlogger.testing.comparison import assert_same

_OBSERVATIONS = spaces.Dict(
    vector=spaces.Box(-1, 1, (3,), np.float32),
    nested=spaces.Tuple((spaces.Discrete(5), spaces.Text(4))),
    sequence=spaces.Sequence(spaces.Box(0, 1, (2,), np.float64)),
)


class Alone(gymnasium.Env):
    """Episodes of lengths that its seed says; keeps what came to pass, as EnvLogger would record it."""

    def __init__(self, observation_space=_OBSERVATIONS, lengths=(1, 5)):
        self.observation_space = copy.deepcopy(observation_space)
        self.action_space = spaces.Dict(a=spaces.Discrete(7), b=spaces.Box(-1, 1, (2,)))
        self.episodes = []
        self._lengths = lengths

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self._left = int(self.np_random.integers(*self._lengths, endpoint=True))
        observation, info = self.observation_space.sample(), {"left": self._left}
        self.episodes.append([(dm_env.restart(observation), None, info)])
        return observation, info

    def step(self, action):
        self._left -= 1
        is_last = self._left == 0
        terminated = is_last and bool(self.np_random.integers(2))
        observation, reward = self.observation_space.sample(), float(self.np_random.normal())
        info = {"left": self._left, "deep": {"array": np.arange(2.0) + self._left}}
        if is_last:
            info["only_at_the_end"] = 0.5
        timestep = dm_env.TimeStep(
            dm_env.StepType.LAST if is_last else dm_env.StepType.MID,
            reward,
            0.0 if terminated else 1.0,
            observation,
        )
        self.episodes[-1].append((timestep, copy.deepcopy(action), info))
        return observation, reward, terminated, is_last and not terminated, info

    def render(self):
        return np.full((2, 2), self._left, np.uint8)


class Counters(dm_env.Environment):
    """N counters; stream i ends at i + 2. Its arrays are the same ones at each step."""

    def __init__(self, count, has_batched_specs=True):
        self._count = count
        self._has_batched_specs = has_batched_specs
        if not has_batched_specs:
            self.num_envs = count
        self._state = np.zeros((count, 2))
        self._limits = np.arange(count) + 2

    def reset(self):
        self._state[:] = 0
        self._steps = np.zeros(self._count, int)
        return self._timestep(np.zeros(self._count, int))

    def step(self, actions):
        is_over = self._steps == self._limits
        self._steps = np.where(is_over, 0, self._steps + 1)
        self._state[:, 0], self._state[:, 1] = self._steps, np.where(is_over, 0, actions)
        kinds = np.where(is_over, 0, np.where(self._steps == self._limits, 2, 1))
        return self._timestep(kinds)

    def _timestep(self, kinds):
        reward = {"own": self._steps * 0.5}
        discount = np.where(kinds == 2, np.arange(self._count) % 2, 1.0)
        return dm_env.TimeStep(kinds, reward, discount, {"state": self._state})

    def _spec(self, shape, kind, *args):
        return kind((self._count, *shape) if self._has_batched_specs else shape, *args)

    def observation_spec(self):
        return {"state": self._spec((2,), specs.Array, np.float64)}

    def action_spec(self):
        return self._spec((), specs.BoundedArray, np.int64, 0, 9)

    def reward_spec(self):
        return {"own": self._spec((), specs.Array, np.float64)}

    def discount_spec(self):
        return self._spec((), specs.BoundedArray, np.float64, 0.0, 1.0)


def play(envs, num_steps, seed=0):
    """Steps at random; resets those that have ended where nobody else does. Returns all results."""
    envs.action_space.seed(seed)
    results = [envs.reset(seed=seed)]
    for _ in range(num_steps):
        results.append(envs.step(envs.action_space.sample()))
        is_over = results[-1][2] | results[-1][3]
        if envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED and is_over.any():
            results.append(envs.reset(options={"reset_mask": is_over}))
    return results


def by_stream(directory):
    """Returns the episodes of each stream, in order."""
    streams: dict[str, list[tuple[str, list[step_data.StepData]]]] = {}
    with envlogger.Reader(directory) as reader:
        ids = [episode["episode_id"].decode() for episode in helpers.data_source(directory)]
        for episode_id, episode in zip(ids, reader.episodes, strict=True):
            stream, row = episode_id.split("-")[-2:]
            streams.setdefault(stream, []).append((row, list(episode)))
    assert list(map(int, sorted(streams))) == list(range(len(streams)))
    return [[steps for _, steps in sorted(streams[name])] for name in sorted(streams)]


def values(timestep, action):
    """Returns a step without the kinds of numbers, which batching changes (np.float64 for float)."""

    def plain(nest):
        if isinstance(nest, dict):
            return {key: plain(value) for key, value in nest.items()}
        if isinstance(nest, tuple | list):
            return [plain(value) for value in nest]
        return nest if nest is None or isinstance(nest, str) else np.asarray(nest)

    return plain([timestep.step_type, timestep.reward, timestep.discount]), plain(
        [timestep.observation, action]
    )


def check(directory, envs, info=False):
    """Compares what was recorded with what came to pass in each environment."""
    found = by_stream(directory)
    assert len(found) == len(envs)
    for stream, env in zip(found, envs, strict=True):
        # An episode that was made by the very last step may be one of a reset alone.
        assert len(stream) == len(env.episodes)
        for got, expected in zip(stream, env.episodes, strict=True):
            assert len(got) == len(expected)
            for step, (timestep, action, known) in zip(got, expected, strict=True):
                sequence = timestep.observation["sequence"]
                stacked = np.stack(sequence) if sequence else np.zeros((0, 2))
                observation = {**timestep.observation, "sequence": stacked}
                expected_values = values(timestep._replace(observation=observation), action)
                assert_same(values(step.timestep, step.action), expected_values)
                if info:
                    left, deep = step.custom_data["left"], step.custom_data["deep"]
                    assert left == known["left"]
                    np.testing.assert_equal(deep, known.get("deep"))
