# SPDX-License-Identifier: Apache-2.0
"""What is played: calls of `reset()` and `step()` with values that a seed determines."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from envlogger import step_data

KINDS = ("catch", "rich")


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of `reset()` or `step()`.

    Attributes:
      number: Which call of the session it is.
      episode: Which episode of the session it belongs to.
      data: What is to be recorded.
      metadata: What `episode_fn` returns.
    """

    number: int
    episode: int
    data: step_data.StepData
    metadata: Any

    @property
    def is_reset(self) -> bool:
        return self.data.timestep.first()


def calls(kind: str, seed: int) -> Iterator[Call]:
    """Yields the calls of a session, without end. No two of them hold the same values."""
    rng = np.random.default_rng(seed)
    number = episode = 0
    while True:
        length = int(rng.integers(2, 14))
        # What is left early by a reset has no LAST. The first two rows of the first episode show
        # which dimensions vary.
        shortest = 1 if episode else 2
        stop = length if rng.random() < 0.7 else int(rng.integers(shortest, length + 1))
        for t in range(stop):
            if t == 0:
                step_type, reward, discount, action = dm_env.StepType.FIRST, None, None, None
            else:
                is_last = t == length - 1
                step_type = dm_env.StepType.LAST if is_last else dm_env.StepType.MID
                reward = float(rng.normal())
                discount = float(is_last and rng.integers(2)) if is_last else 1.0
                action = _action(kind, rng)
            timestep = dm_env.TimeStep(
                step_type, reward, discount, _observation(kind, rng, number, t)
            )
            custom: dict[str, Any] = {"session": seed, "n": number}
            if kind == "rich" and number > 20 + seed % 40:
                custom["late"] = float(rng.normal())
            data = step_data.StepData(timestep, action, custom)
            yield Call(number, episode, data, _metadata(kind, rng, number, episode))
            number += 1
        episode += 1


def _observation(kind: str, rng: np.random.Generator, number: int, t: int) -> Any:
    if kind == "catch":
        return rng.integers(0, 256, (10, 20), np.uint8).view(np.float32)
    return {
        "image": rng.integers(0, 256, (12, 8, 3), np.uint8),
        "arm": {"joints": rng.normal(size=3), "time": np.float32(rng.normal())},
        "text": f"step {t} von № {number}" * int(rng.integers(3)),
        "ragged": rng.integers(0, 1000, 1 + number % 4, np.int16),
    }


def _action(kind: str, rng: np.random.Generator) -> Any:
    if kind == "catch":
        return int(rng.integers(3))
    return {"move": rng.normal(size=2).astype(np.float32), "grip": bool(rng.integers(2))}


def _metadata(kind: str, rng: np.random.Generator, number: int, episode: int) -> Any:
    if kind == "catch":
        return {"last": number}
    if rng.random() < 0.6:
        return None
    # Some fill a segment's heap.
    note = f"episode {episode}, " * (3000 if rng.random() < 0.1 else 1)
    value = {"note": note, "return": float(rng.normal())}
    if episode > 4:
        value["late"] = number
    return value


class ScriptEnv(dm_env.Environment):
    """Plays the calls of a session, whatever the actions are."""

    def __init__(self, kind: str, seed: int) -> None:
        self._calls = calls(kind, seed)
        self._model = [call.data for call, _ in zip(calls(kind, seed), range(50), strict=False)]
        self.call: Call | None = None

    def reset(self) -> dm_env.TimeStep:
        self.call = next(self._calls)
        return self.call.data.timestep

    def step(self, action: Any) -> dm_env.TimeStep:
        return self.reset()

    def observation_spec(self) -> Any:
        return _spec(self._model[0].timestep.observation)

    def action_spec(self) -> Any:
        return _spec(next(data.action for data in self._model if data.action is not None))

    def reward_spec(self) -> Any:
        return specs.Array((), np.float64)

    def discount_spec(self) -> Any:
        return specs.Array((), np.float64)


def step_fn(timestep: dm_env.TimeStep, action: Any, env: ScriptEnv) -> Any:
    assert env.call is not None
    return env.call.data.custom_data


def episode_fn(timestep: dm_env.TimeStep, action: Any, env: ScriptEnv) -> Any:
    assert env.call is not None
    return env.call.metadata


def _spec(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _spec(item) for key, item in value.items()}
    if isinstance(value, str):
        return specs.StringArray((), str)
    array = np.asarray(value)
    return specs.Array(array.shape, array.dtype)


class Script:
    """The calls of a session by their number."""

    def __init__(self, kind: str, seed: int) -> None:
        self._iterator = calls(kind, seed)
        self._known: list[Call] = []

    def __getitem__(self, number: int) -> Call:
        while len(self._known) <= number:
            self._known.append(next(self._iterator))
        return self._known[number]


@functools.lru_cache(maxsize=8)
def script(kind: str, seed: int) -> Script:
    return Script(kind, seed)
