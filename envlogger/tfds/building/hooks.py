# SPDX-License-Identifier: Apache-2.0
"""What a builder may say of each step and each episode."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from envlogger import errors, step_data

_Value = TypeVar("_Value")


@dataclasses.dataclass(frozen=True)
class LoggedEpisode:
    """An episode, as the hooks of a builder see it. Its steps are decoded when they are asked for.

    Attributes:
      episode_id: Its id; where the run has none, a digest of the episode.
      steps: Its steps, as `envlogger.Reader` gives them.
      metadata: What `episode_fn` returned last, or None; without the id, if that was in it.
      invalid: Whether what recorded it died in it.
      split: The split that it is in where it comes from.
      run: The directory of the run that it comes from.
      run_metadata: The metadata of that run, as `Reader.metadata()` gives it.
    """

    episode_id: str
    steps: Sequence[step_data.StepData]
    metadata: Any
    invalid: bool
    split: str
    run: str
    run_metadata: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Hooks:
    """The functions of a builder that are called; None for those that it does not have.

    Attributes:
      filter_episode: Whether an episode is taken.
      filter_step: Whether a step is taken.
      map_step: Returns the step that is stored instead.
      map_episode: Returns the episode that is stored instead.
      split_of: Returns the split that an episode goes to.
    """

    filter_episode: Callable[[LoggedEpisode], bool] | None = None
    filter_step: Callable[[step_data.StepData], bool] | None = None
    map_step: Callable[[step_data.StepData], step_data.StepData] | None = None
    map_episode: Callable[[LoggedEpisode], LoggedEpisode] | None = None
    split_of: Callable[[LoggedEpisode], str] | None = None

    @property
    def change_records(self) -> bool:
        """Whether what is stored is not what was recorded, so that episodes are encoded anew."""
        return any((self.filter_step, self.map_step, self.map_episode))

    def change(self, episode: LoggedEpisode) -> LoggedEpisode | None:
        """Returns the episode that is stored instead of another; None if it is left out.

        Raises:
          UnsupportedValueError: A map returned something else.
        """
        if self.filter_episode is not None and not self.filter_episode(episode):
            return None
        steps = episode.steps
        if self.filter_step is not None:
            steps = [step for step in steps if self.filter_step(step)]
        if self.map_step is not None:
            steps = [
                _checked("map_step", self.map_step(step), step_data.StepData) for step in steps
            ]
        episode = dataclasses.replace(episode, steps=steps)
        if self.map_episode is None:
            return episode
        return _checked("map_episode", self.map_episode(episode), LoggedEpisode)


def _checked(hook: str, value: Any, kind: type[_Value]) -> _Value:
    if not isinstance(value, kind):
        raise errors.UnsupportedValueError(
            f"{hook}: got {value!r}, expected a {kind.__name__}. To leave something out, use "
            "filter_step or filter_episode."
        )
    return value


__all__ = ["Hooks", "LoggedEpisode"]
