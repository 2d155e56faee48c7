# SPDX-License-Identifier: Apache-2.0
"""The environments that are recorded: four from a pool of prepared values, and two real ones."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from benchmarks import images
from benchmarks.games import Catch
from benchmarks.plan import EPISODE_STEPS


@dataclasses.dataclass
class Workload:
    """An environment, and the actions that are taken in it."""

    environment: TimedEnvironment
    actions: Iterator[Any]


class TimedEnvironment(dm_env.Environment):
    """Knows how much of a step was its own: what is left is the logger's.

    `own_ns` is the time of the last call, and `cpu_ns` the CPU time of all of them. A pooled
    environment that is busy until a deadline counts the time until the deadline, so that being
    kept from the CPU beyond it is on the logger's account.
    """

    own_ns = 0
    cpu_ns = 0


class PooledEnvironment(TimedEnvironment):
    """Goes through prepared timesteps, in turn and for ever; busy for `busy_ns` at each."""

    def __init__(
        self, timesteps: list[dm_env.TimeStep], observation: Any, action: specs.Array, busy_ns: int
    ) -> None:
        self._observation_spec = observation
        self._action_spec = action
        self._advance = itertools.cycle(timesteps).__next__
        self.own_ns = busy_ns

    def reset(self) -> dm_env.TimeStep:
        """Goes to the next FIRST timestep: where the last episode is over, the very next."""
        timestep = self.step(None)
        while not timestep.first():
            timestep = self._advance()
        return timestep

    def step(self, action: Any) -> dm_env.TimeStep:
        """Returns the next timestep."""
        if self.own_ns:
            self.cpu_ns += be_busy(self.own_ns)
        return self._advance()

    def observation_spec(self) -> Any:
        """Returns the spec, or the dict of specs, of the observation."""
        return self._observation_spec

    def action_spec(self) -> specs.Array:
        """Returns the spec of the action."""
        return self._action_spec


class CutEnvironment(dm_env.Environment):
    """Ends each episode after so many timesteps, whatever the pool of a workload says."""

    def __init__(self, environment: dm_env.Environment, episode_steps: int) -> None:
        self._environment = environment
        self._steps = episode_steps
        self._left = 0

    def reset(self) -> dm_env.TimeStep:
        """Begins an episode."""
        self._left = self._steps - 1
        return dm_env.restart(self._environment.step(None).observation)

    def step(self, action: Any) -> dm_env.TimeStep:
        """Takes a step."""
        self._left -= 1
        observation = self._environment.step(action).observation
        end = dm_env.transition if self._left else dm_env.truncation
        return end(1.0, observation)

    def observation_spec(self) -> Any:
        """Returns the workload's."""
        return self._environment.observation_spec()

    def action_spec(self) -> specs.Array:
        """Returns the workload's."""
        return self._environment.action_spec()


class RealEnvironment(TimedEnvironment):
    """Times the calls of the environment it wraps; sleeps `sleep_s` in each."""

    def __init__(self, environment: dm_env.Environment, sleep_s: float = 0.0) -> None:
        self._environment = environment
        self._sleep_s = sleep_s

    def reset(self) -> dm_env.TimeStep:
        """Resets the environment."""
        return self._timed(self._environment.reset)

    def step(self, action: Any) -> dm_env.TimeStep:
        """Takes a step in the environment."""
        return self._timed(self._environment.step, action)

    def observation_spec(self) -> Any:
        """Returns the environment's."""
        return self._environment.observation_spec()

    def action_spec(self) -> specs.Array:
        """Returns the environment's."""
        return self._environment.action_spec()

    def _timed(self, call: Callable[..., dm_env.TimeStep], *args: Any) -> dm_env.TimeStep:
        start, cpu = time.perf_counter_ns(), time.thread_time_ns()
        timestep = call(*args)
        if self._sleep_s:
            time.sleep(self._sleep_s)
        self.cpu_ns += time.thread_time_ns() - cpu
        self.own_ns = time.perf_counter_ns() - start
        return timestep


def be_busy(duration_ns: int) -> int:
    """Keeps the CPU busy until `duration_ns` from now; returns the CPU time used, in ns."""
    end = time.perf_counter_ns() + duration_ns - _OVERSHOOT_NS
    cpu = time.thread_time_ns()
    while time.perf_counter_ns() < end:
        pass
    return time.thread_time_ns() - cpu


def _calibrate() -> int:
    """Returns by how much `be_busy` comes late, measured."""
    late = []
    for _ in range(500):
        start = time.perf_counter_ns()
        be_busy(10_000)
        late.append(time.perf_counter_ns() - start - 10_000)
    return max(int(np.median(late)), 0)


_OVERSHOOT_NS = 0
_OVERSHOOT_NS = _calibrate()


def make(name: str, busy_ns: int, seed: int, episode_steps: int = EPISODE_STEPS) -> Workload:
    """Returns the workload called `name`; the pooled ones are busy for `busy_ns` at each step."""
    rng = np.random.default_rng(seed)
    if name in _POOLS:
        observations, observation_spec, actions, action_spec = _POOLS[name](rng)
        pool = _timesteps(observations, rng, episode_steps)
        environment: TimedEnvironment = PooledEnvironment(
            pool, observation_spec, action_spec, busy_ns
        )
        return Workload(environment, itertools.cycle(actions))
    if name == "catch-100hz":
        environment = RealEnvironment(Catch(seed), sleep_s=0.01)
        return Workload(environment, itertools.cycle(list(rng.integers(0, 3, 1000))))
    if name == "humanoid":
        from dm_control import suite  # only where it is run

        real = suite.load("humanoid", "walk", task_kwargs={"random": seed})
        actions = list(rng.uniform(-1, 1, (1000, *real.action_spec().shape)))
        return Workload(RealEnvironment(real), itertools.cycle(actions))
    raise ValueError(f"name: got {name!r}, expected one of benchmarks.plan.WORKLOADS.")


def _timesteps(
    observations: list[Any], rng: np.random.Generator, episode_steps: int
) -> list[dm_env.TimeStep]:
    """Returns the observations as timesteps of whole episodes."""
    timesteps = []
    for i, observation in enumerate(observations):
        if i % episode_steps == 0:
            timesteps.append(dm_env.restart(observation))
        elif i % episode_steps == episode_steps - 1:
            timesteps.append(dm_env.termination(float(rng.integers(0, 2)), observation))
        else:
            timesteps.append(dm_env.transition(float(rng.integers(0, 2)), observation))
    return timesteps


def _catch(rng: np.random.Generator) -> tuple[Any, ...]:
    game = Catch(int(rng.integers(1 << 30)))
    actions = list(rng.integers(0, 3, 2000))
    observations = [game.step(action).observation for action in actions]
    return observations, game.observation_spec(), actions, game.action_spec()


def _control(rng: np.random.Generator) -> tuple[Any, ...]:
    sizes = {"joint_angles": 24, "velocity": 27, "touch": 6}
    values = {name: rng.standard_normal((2000, size)) for name, size in sizes.items()}
    for value in values.values():  # neighbours in time are alike
        for i in range(1, len(value)):
            value[i] = 0.95 * value[i - 1] + 0.3 * value[i]
    observations = [{name: value[i].copy() for name, value in values.items()} for i in range(2000)]
    spec = {name: specs.Array((size,), np.float64, name) for name, size in sizes.items()}
    actions = list(rng.uniform(-1, 1, (1000, 21)))
    return observations, spec, actions, _action_spec(21)


def _atari(rng: np.random.Generator) -> tuple[Any, ...]:
    frames = images.arcade_frames(rng, 503)
    observations = [np.ascontiguousarray(np.moveaxis(frames[i : i + 4], 0, -1)) for i in range(500)]
    spec = specs.BoundedArray((84, 84, 4), np.uint8, 0, 255, "screens")
    action_spec = specs.DiscreteArray(4, np.int64, "action")
    return observations, spec, list(rng.integers(0, 4, 1000)), action_spec


def _robot(rng: np.random.Generator) -> tuple[Any, ...]:
    front = images.natural_frames(rng, EPISODE_STEPS, 256)
    wrist = images.natural_frames(rng, EPISODE_STEPS, 128)
    state = np.cumsum(rng.standard_normal((EPISODE_STEPS, 14), np.float32), axis=0)
    observations = [
        {"front": front[i], "wrist": wrist[i], "state": state[i]} for i in range(EPISODE_STEPS)
    ]
    spec = {
        "front": specs.BoundedArray((256, 256, 3), np.uint8, 0, 255, "front"),
        "wrist": specs.BoundedArray((128, 128, 3), np.uint8, 0, 255, "wrist"),
        "state": specs.Array((14,), np.float32, "state"),
    }
    actions = list(rng.uniform(-1, 1, (1000, 7)).astype(np.float32))
    return observations, spec, actions, _action_spec(7, np.float32)


def _action_spec(size: int, dtype: Any = np.float64) -> specs.BoundedArray:
    return specs.BoundedArray((size,), dtype, -1, 1, "action")


_POOLS = {"catch": _catch, "control": _control, "atari": _atari, "robot": _robot}
