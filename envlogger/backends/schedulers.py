# SPDX-License-Identifier: Apache-2.0
"""Schedulers decide which steps are recorded.

A scheduler is any callable that takes a `StepData` and returns True if that step is to be recorded.
Those in this module keep state: each must see every step of one environment, in order and from one
thread, and belongs to one backend. The step schedulers don't look at the step and may be called
without one.
"""

from __future__ import annotations

import datetime
import operator
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from envlogger import errors, step_data
from envlogger.options import check_count, check_fraction

Scheduler = Callable[[step_data.StepData], bool]


class NStepScheduler:
    """True for one step in `step_interval`, beginning with the first.

    Args:
        step_interval: At least 1, which is every step.

    Raises:
        OptionError: If `step_interval` is not an integer of at least 1.
    """

    def __init__(self, step_interval: int) -> None:
        self._interval = check_count("step_interval", step_interval)
        self._next_step = 0

    def __call__(self, data: step_data.StepData | None = None) -> bool:
        """Counts this step and says whether to record it."""
        step = self._next_step
        self._next_step += 1
        return step % self._interval == 0


class BernoulliStepScheduler:
    """True with a given probability, drawn anew for each step.

    Args:
        keep_probability: In [0, 1].
        seed: Equal seeds give equal decisions; None gives others in every run.

    Raises:
        OptionError: If `keep_probability` is not a number in [0, 1].
    """

    def __init__(self, keep_probability: float, seed: int | None = None) -> None:
        self._keep_probability = check_fraction("keep_probability", keep_probability)
        self._rng = np.random.default_rng(seed)

    def __call__(self, data: step_data.StepData | None = None) -> bool:
        """Draws, and says whether to record this step."""
        return self._rng.random() < self._keep_probability


class ListStepScheduler:
    """True for the steps listed, counted from 0 over all episodes.

    Args:
        desired_steps: Integers in any order, repeated or not; for example
            `np.unique(np.logspace(0, 6, 50, dtype=np.int64))`.

    Raises:
        OptionError: If an element, or the dtype of the array, is not an integer; or if `desired_steps`
            is empty.
    """

    def __init__(self, desired_steps: Sequence[int] | np.ndarray[Any, Any]) -> None:
        self._desired_steps = _indices("desired_steps", desired_steps)
        self._next_step = 0

    def __call__(self, data: step_data.StepData | None = None) -> bool:
        """Counts this step and says whether to record it."""
        step = self._next_step
        self._next_step += 1
        return step in self._desired_steps


class TimeScheduler:
    """True if `interval` has passed since it was last True, or since it was constructed.

    Args:
        interval: A timedelta, or seconds.
        clock: Returns seconds and never goes back.

    Raises:
        OptionError: If `interval` is not a positive time.
    """

    def __init__(
        self,
        interval: datetime.timedelta | float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = _seconds("interval", interval)
        self._clock = clock
        self._last_true = clock()

    def __call__(self, data: step_data.StepData | None = None) -> bool:
        """Reads the clock and says whether the interval has passed."""
        now = self._clock()
        if now - self._last_true < self._seconds:
            return False
        self._last_true = now
        return True


class _EpisodeCounter:
    """Tells where episodes begin.

    A FIRST step begins one, whether or not the previous episode came to its LAST: an agent may
    reset early. So does the step after a LAST one, and the very first step.
    """

    def __init__(self) -> None:
        self.index = -1  # Of the episode under way, from 0.
        self._under_way = False

    def starts_episode(self, data: step_data.StepData) -> bool:
        """Takes the next step and returns True if it is the first of an episode."""
        starts = data.timestep.first() or not self._under_way
        self._under_way = not data.timestep.last()
        self.index += starts
        return bool(starts)


class NEpisodeScheduler:
    """True for all steps of one episode in `episode_interval`, beginning with the first.

    Args:
        episode_interval: At least 1, which is every episode.

    Raises:
        OptionError: If `episode_interval` is not an integer of at least 1.
    """

    def __init__(self, episode_interval: int) -> None:
        self._interval = check_count("episode_interval", episode_interval)
        self._episodes = _EpisodeCounter()

    def __call__(self, data: step_data.StepData) -> bool:
        """Says whether to record this step's episode."""
        self._episodes.starts_episode(data)
        return self._episodes.index % self._interval == 0


class BernoulliEpisodeScheduler:
    """True with a given probability, drawn anew for each episode and kept for all of its steps.

    Args:
        keep_probability: In [0, 1].
        seed: Equal seeds give equal decisions; None gives others in every run.

    Raises:
        OptionError: If `keep_probability` is not a number in [0, 1].
    """

    def __init__(self, keep_probability: float, seed: int | None = None) -> None:
        self._keep_probability = check_fraction("keep_probability", keep_probability)
        self._rng = np.random.default_rng(seed)
        self._episodes = _EpisodeCounter()
        self._keep = False

    def __call__(self, data: step_data.StepData) -> bool:
        """Says whether to record this step's episode."""
        if self._episodes.starts_episode(data):
            self._keep = self._rng.random() < self._keep_probability
        return self._keep


class ListEpisodeScheduler:
    """True for all steps of the episodes listed, counted from 0.

    Args:
        desired_episodes: Integers in any order, repeated or not.

    Raises:
        OptionError: If an element, or the dtype of the array, is not an integer; or if `desired_episodes`
            is empty.
    """

    def __init__(self, desired_episodes: Sequence[int] | np.ndarray[Any, Any]) -> None:
        self._desired_episodes = _indices("desired_episodes", desired_episodes)
        self._episodes = _EpisodeCounter()

    def __call__(self, data: step_data.StepData) -> bool:
        """Says whether to record this step's episode."""
        self._episodes.starts_episode(data)
        return self._episodes.index in self._desired_episodes


def _seconds(name: str, value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, datetime.timedelta) else value
    # `not … > 0`: NaN is not, either.
    if not isinstance(seconds, int | float | np.integer | np.floating) or not seconds > 0:
        raise errors.OptionError(
            f"{name}: got {value!r}, expected a timedelta, or seconds, of more than 0."
        )
    return float(seconds)


def _indices(name: str, values: Sequence[int] | np.ndarray[Any, Any]) -> frozenset[int]:
    if isinstance(values, np.ndarray) and values.dtype.kind not in "iu":
        raise errors.OptionError(
            f"{name}: got an array of {values.dtype}, expected one of integers. Cast it with "
            ".astype(np.int64)."
        )
    try:
        indices = frozenset(operator.index(value) for value in values)
    except TypeError as error:
        raise errors.OptionError(
            f"{name}: got {values!r}, expected a sequence of integers."
        ) from error
    if not indices:
        raise errors.OptionError(
            f"{name}: got none, expected at least one: nothing would ever be recorded."
        )
    return indices
