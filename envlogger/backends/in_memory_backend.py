# SPDX-License-Identifier: Apache-2.0
"""A backend that keeps all steps in lists of this process, for tests and small experiments."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

from envlogger import step_data
from envlogger.backends import backend_reader, backend_writer, schedulers


class InMemoryBackendWriter(backend_writer.BackendWriter):
    """Keeps deep copies of steps and episode metadata, as they were at the time of the call.

    Attributes:
        steps: All recorded steps.
        episode_start_indices: For each episode, the index in `steps` of its first step.
        episode_metadata: From the index of an episode, from 0, to its metadata. Episodes without
            have no entry.

    Args:
        metadata: See `BackendWriter`.
        scheduler: See `BackendWriter`.
    """

    def __init__(
        self,
        metadata: Mapping[str, Any] | None = None,
        scheduler: schedulers.Scheduler | None = None,
    ) -> None:
        super().__init__(metadata=metadata, scheduler=scheduler)
        self.steps: list[step_data.StepData] = []
        self.episode_start_indices: list[int] = []
        self.episode_metadata: dict[int, Any] = {}

    def _record_step(self, data: step_data.StepData, is_new_episode: bool) -> None:
        recorded = copy.deepcopy(data)  # First: it may fail, and then nothing has changed.
        if is_new_episode:
            self.episode_start_indices.append(len(self.steps))
        self.steps.append(recorded)

    def _set_episode_metadata(self, data: Any) -> None:
        self.episode_metadata[len(self.episode_start_indices) - 1] = copy.deepcopy(data)

    def close(self) -> None:
        """Does nothing: the steps stay readable for as long as the writer lives."""


class InMemoryBackendReader(backend_reader.BackendReader):
    """Reads what an `InMemoryBackendWriter` holds, including what it records later.

    The steps are the writer's own, not copies.

    Args:
        in_memory_backend_writer: The writer, closed or not.
    """

    def __init__(self, in_memory_backend_writer: InMemoryBackendWriter) -> None:
        self._backend = in_memory_backend_writer

    def _get_num_steps(self) -> int:
        return len(self._backend.steps)

    def _get_nth_step(self, i: int) -> step_data.StepData:
        return self._backend.steps[i]

    def _get_num_episodes(self) -> int:
        return len(self._backend.episode_start_indices)

    def _get_nth_episode_info(
        self, i: int, include_metadata: bool = False
    ) -> backend_reader.EpisodeInfo:
        starts = self._backend.episode_start_indices
        end = starts[i + 1] if i + 1 < len(starts) else len(self._backend.steps)
        return backend_reader.EpisodeInfo(
            start=starts[i],
            num_steps=end - starts[i],
            metadata=self._backend.episode_metadata.get(i) if include_metadata else None,
        )

    def _copy(self) -> Self:
        return type(self)(self._backend)

    def metadata(self) -> dict[str, Any] | None:
        """Returns the writer's metadata, or None if it has none."""
        return self._backend.metadata()

    def close(self) -> None:
        """Does nothing: the data is the writer's."""
