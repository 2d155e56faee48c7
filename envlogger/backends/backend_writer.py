# SPDX-License-Identifier: Apache-2.0
"""The interface of what stores steps."""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

import dm_env

from envlogger import closing, step_data
from envlogger.backends import schedulers

_NOTHING: Final = object()


class BackendWriter(closing.Closing):
    """Takes the steps of one environment and stores them.

    To write a backend, override `_record_step`, `_set_episode_metadata` and `close`. They are
    called in this order:

        _record_step(o0, is_new_episode=True)       an episode begins
        _set_episode_metadata(...)                  any number of times; the last value counts
        _record_step(o1, is_new_episode=False)
        ...
        _record_step(o0, is_new_episode=True)       the next one; the last may lack its LAST step
        ...
        close()

    Duties:

    * *Ownership.* What is passed in belongs to the caller, who may change it once the call has
      returned: environments reuse their observation buffers. What is kept longer must be copied.
    * *Threads.* One writer serves one environment; its methods are called from one thread at a
      time, and it need not be safe for more. It need not survive a fork or pickling.
    * *Errors.* An exception from `_record_step` reaches whoever called `env.step()`. It means that
      the step was not recorded.
    * *Closing.* `close()` may be called more than once. There is no `__del__` that calls it: when
      Python would run that is anyone's guess, and by then half of what it needs may be gone.

    Args:
        metadata: What is known about the whole dataset. The writer keeps a (shallow) copy.
        scheduler: Called with each step, before it is recorded; where it returns False, the step is
            dropped. None records all. It sees every step of every episode.
    """

    # Defaults on the class, for subclasses that call `super().__init__` late, or never.
    _scheduler: schedulers.Scheduler | None = None
    _metadata: dict[str, Any] | None = None
    # True from the start of an episode until one of its steps has been recorded.
    _awaits_episode: bool = True
    _held_episode_metadata: object = _NOTHING

    def __init__(
        self,
        metadata: Mapping[str, Any] | None = None,
        scheduler: schedulers.Scheduler | None = None,
    ) -> None:
        self._metadata = None if metadata is None else dict(metadata)
        self._scheduler = scheduler

    def record_step(self, data: step_data.StepData, is_new_episode: bool) -> None:
        """Records one step, if the scheduler wants it.

        Args:
            data: What the environment took and gave.
            is_new_episode: True if `data` is the first step of an episode. If the scheduler drops
                that step, the first one that it keeps of the episode begins it: steps never run on
                into the episode before.
        """
        if is_new_episode:
            self._awaits_episode = True
            self._held_episode_metadata = _NOTHING
        if self._scheduler is not None and not self._scheduler(data):
            return
        self._record_step(data, self._awaits_episode)
        self._awaits_episode = False
        if self._held_episode_metadata is not _NOTHING:
            held, self._held_episode_metadata = self._held_episode_metadata, _NOTHING
            self._set_episode_metadata(held)

    def record(
        self, timestep: dm_env.TimeStep, action: Any, custom_data: Any, is_new_episode: bool
    ) -> None:
        """Records one step, given by its parts.

        Args:
            timestep: What the environment returned.
            action: What led to it; None for `reset()`.
            custom_data: What `step_fn` returned.
            is_new_episode: True if this is the first step of an episode.
        """
        self.record_step(step_data.StepData(timestep, action, custom_data), is_new_episode)

    def recorder(self) -> Callable[[dm_env.TimeStep, Any, Any, bool], None]:
        """Returns what `EnvLogger` calls at each step: `record`, or something that does the same."""
        return self.record

    def streams(self, count: int) -> list[BackendWriter]:
        """Returns writers for environments that step together, whose episodes come to this one.

        A backend that cannot take the steps of several episodes at a time gets them episode by
        episode, when the next one of the environment begins or the writer of the stream is closed.

        Args:
            count: How many environments there are.
        """
        return [EpisodeBuffer(self) for _ in range(count)]

    def set_episode_metadata(self, data: Any) -> None:
        """Sets the metadata of the episode under way, in place of what was set before.

        While the scheduler has dropped all steps of the episode, the value waits for the first one
        that is recorded; if none is, neither is the value. It never goes to another episode.

        Args:
            data: What `episode_fn` returned.
        """
        if self._awaits_episode:
            self._held_episode_metadata = copy.deepcopy(data)  # The caller may change it.
        else:
            self._set_episode_metadata(data)

    def metadata(self) -> dict[str, Any] | None:
        """Returns the dataset's metadata as it was passed in, or None if it was None."""
        return self._metadata

    @abc.abstractmethod
    def _record_step(self, data: step_data.StepData, is_new_episode: bool) -> None:
        """Stores one step.

        Args:
            data: The step. It belongs to the caller: copy what outlives this call.
            is_new_episode: True for the first recorded step of each episode (that need not be a
                FIRST step), and therefore in the very first call.
        """

    # Not abstract: backends written for EnvLogger 1.x override `set_episode_metadata` instead.
    def _set_episode_metadata(self, data: Any) -> None:
        """Stores metadata for the episode of the step that was recorded last.

        Args:
            data: The value. It belongs to the caller: copy what outlives this call.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must override _set_episode_metadata() to take what episode_fn "
            "returns."
        )

    def flush(self) -> None:
        """Makes what was recorded as safe as the backend can; does nothing where it has no such."""

    @abc.abstractmethod
    def close(self) -> None:
        """Makes what was recorded readable for others, and releases all resources."""


class EpisodeBuffer(BackendWriter):
    """Holds back the episode of one environment of several, for a backend that takes one at a time.

    It passes on each episode as a whole, once the next one begins or this is closed.

    What is held back is lost with the process.

    Args:
        target: The backend.
    """

    def __init__(self, target: BackendWriter) -> None:
        super().__init__(metadata=target.metadata())
        self._target = target
        self._steps: list[step_data.StepData] = []
        self._episode_metadata: list[Any] = []  # none, or one

    def _record_step(self, data: step_data.StepData, is_new_episode: bool) -> None:
        held = copy.deepcopy(data)
        if is_new_episode:
            self._pass_on()
        self._steps.append(held)

    def _set_episode_metadata(self, data: Any) -> None:
        self._episode_metadata = [copy.deepcopy(data)]

    def close(self) -> None:
        """Passes on the episode under way."""
        self._pass_on()

    def _pass_on(self) -> None:
        steps, self._steps = self._steps, []
        metadata, self._episode_metadata = self._episode_metadata, []
        for index, data in enumerate(steps):
            self._target.record_step(data, index == 0)
        for value in metadata:
            self._target.set_episode_metadata(value)
