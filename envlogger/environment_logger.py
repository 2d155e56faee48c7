# SPDX-License-Identifier: Apache-2.0
"""The wrapper that records what an agent and an environment do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import dm_env

from envlogger import environment_wrapper, errors
from envlogger.backends import backend_type, backend_writer, tfds_backend_writer
from envlogger.converters import spec_codec

Callback: TypeAlias = Callable[[dm_env.TimeStep, Any, dm_env.Environment], Any]
Backend: TypeAlias = (
    backend_writer.BackendWriter
    | backend_type.BackendType
    | Callable[..., backend_writer.BackendWriter]
)

_FIRST, _LAST = int(dm_env.StepType.FIRST), int(dm_env.StepType.LAST)


class EnvLogger(environment_wrapper.EnvironmentWrapper):
    """A `dm_env.Environment` that records every step of the one it wraps.

        with envlogger.EnvLogger(env, data_directory="data/catch/1.0.0") as env:
            timestep = env.reset()
            while not timestep.last():
                timestep = env.step(policy(timestep))

    With `backend=BackendType.TFDS`, the keyword arguments are those of `TFDSBackendWriter`.

    Args:
      env: The environment. Closing the logger closes it.
      step_fn: Called at each `reset()` and `step()` with the timestep, the action (None for
        `reset()`) and the environment; what it returns, None apart, is recorded with the step. The
        keys of a dict become features of the step.
      episode_fn: Called likewise; what it returned last in an episode, None apart, is recorded with
        the episode. The keys of a dict become features of the episode.
      metadata: What is known about the whole dataset: dicts, lists, tuples, numbers, strings and
        arrays. The caller's dict is not changed.
      backend: A `BackendType`; a `BackendWriter`, which has its own metadata; or a callable that returns one and
        is called with `backend_kwargs` and `metadata`.
      **backend_kwargs: Arguments of the backend, such as `data_directory`.

    Raises:
      OptionError, NameConflictError, DatasetError, ValueMismatchError: As the backend says.
    """

    def __init__(
        self,
        env: dm_env.Environment,
        step_fn: Callback | None = None,
        episode_fn: Callback | None = None,
        metadata: Mapping[str, Any] | None = None,
        backend: Backend = backend_type.BackendType.TFDS,
        **backend_kwargs: Any,
    ) -> None:
        super().__init__(env)
        self._step_fn = step_fn
        self._episode_fn = episode_fn
        self._is_plain = step_fn is None and episode_fn is None
        self._reset_next_step = True
        # After an error the steps no longer join up: what follows is an episode of its own.
        self._has_gap = False
        self._is_closed = False
        metadata = {
            **(metadata or {}),
            "environment_specs": spec_codec.encode_environment_specs(env),
        }
        self._backend = make_backend(backend, {**backend_kwargs, "metadata": metadata})
        self._record = self._backend.recorder()

    def reset(self) -> dm_env.TimeStep:
        """Resets the environment and records its first step; an episode under way ends here."""
        timestep = self._environment.reset()
        self._reset_next_step = timestep.step_type == _LAST
        self._log(timestep, None, True)
        return timestep

    def step(self, action: Any) -> dm_env.TimeStep:
        """Takes a step and records it; after a LAST step, and at the start, resets instead."""
        if self._reset_next_step:
            return self.reset()
        timestep = self._environment.step(action)
        step_type = timestep.step_type
        self._reset_next_step = step_type == _LAST
        # An environment that resets by itself says so by FIRST.
        is_new_episode = step_type == _FIRST or self._has_gap
        if self._is_plain:  # what `_log` does, without the call: this is where the time goes
            self._has_gap = True
            self._record(timestep, action, None, is_new_episode)
            self._has_gap = False
        else:
            self._log(timestep, action, is_new_episode)
        return timestep

    def flush(self) -> None:
        """Makes what was recorded as safe as the backend can; does nothing where it has no such."""
        self._backend.flush()

    def close(self) -> None:
        """Publishes what was recorded and closes the environment. May be called more than once."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._environment.close()
        finally:
            self._backend.close()

    def _log(self, timestep: dm_env.TimeStep, action: Any, is_new_episode: bool) -> None:
        self._has_gap = True  # until it is recorded
        custom_data = None
        if self._step_fn is not None:
            custom_data = self._step_fn(timestep, action, self._environment)
        self._record(timestep, action, custom_data, is_new_episode)
        self._has_gap = False
        if self._episode_fn is not None:
            value = self._episode_fn(timestep, action, self._environment)
            if value is not None:
                self._backend.set_episode_metadata(value)


def make_backend(backend: Backend, kwargs: dict[str, Any]) -> backend_writer.BackendWriter:
    """Returns the backend that a logger was asked for.

    Args:
      backend: See `EnvLogger`.
      kwargs: The backend's arguments, `metadata` among them.

    Raises:
      OptionError: There is no such backend; or an argument is missing, or of no use.
    """
    if isinstance(backend, backend_writer.BackendWriter):
        unused = [name for name in kwargs if name != "metadata"]
        if kwargs["metadata"].keys() - {"environment_specs"}:
            unused.append("metadata")
        if unused:
            raise errors.OptionError(
                f"{', '.join(unused)}: got them beside a backend that is there already and does not see "
                f"them. Pass them to {type(backend).__name__}."
            )
        return backend
    if backend is backend_type.BackendType.TFDS:
        if "data_directory" not in kwargs:
            raise errors.OptionError(
                "data_directory: got none, expected the directory to log into, such as "
                "data_directory='data/catch/1.0.0'."
            )
        return tfds_backend_writer.TFDSBackendWriter(**kwargs)
    if backend is backend_type.BackendType.IN_MEMORY:
        from envlogger.backends import in_memory_backend  # with what reads, which others don't need

        return in_memory_backend.InMemoryBackendWriter(**kwargs)
    if backend is backend_type.BackendType.RIEGELI:
        raise errors.OptionError(
            "backend: got BackendType.RIEGELI, but Riegeli logs are no longer written. Leave "
            "`backend` out to write a TFDS dataset; envlogger.Reader reads it in the same way."
        )
    if callable(backend):
        return backend(**kwargs)
    raise errors.OptionError(
        f"backend: got {backend!r}, expected a BackendType, a BackendWriter or a callable that "
        "returns one."
    )


__all__ = ["EnvLogger"]
