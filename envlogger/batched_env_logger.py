# SPDX-License-Identifier: Apache-2.0
"""The wrapper that records environments which step together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import dm_env

from envlogger import batched_environments, closing, environment_logger, environment_wrapper, errors
from envlogger.backends import backend_type
from envlogger.converters import spec_codec

StreamCallback: TypeAlias = Callable[[dm_env.TimeStep, Any, "StreamView"], Any]


class StreamView:
    """One of the environments, as `step_fn` and `episode_fn` see it.

    Attributes:
      env: The environment as a whole.
      stream: Which one of it this is, from 0.
    """

    def __init__(self, env: Any, stream: int) -> None:
        self.env = env
        self.stream = stream
        self._infos: Mapping[str, Any] | None = None
        self._frames: list[Any] = []

    @property
    def info(self) -> dict[str, Any]:
        """What this environment gave as its info with the step; {} where there is none."""
        return batched_environments.split_infos(self._infos, self.stream)

    def render(self) -> Any:
        """Returns this environment's frame; the whole renders once for all of them."""
        if not self._frames:
            self._frames.append(self.env.render())
        return self._frames[0][self.stream]

    def _show(self, infos: Mapping[str, Any] | None, frames: list[Any]) -> None:
        self._infos, self._frames = infos, frames


class BatchedEnvLogger(environment_wrapper.Forwarding, closing.Closing):
    """Records every step of N environments that step together, each one's episodes for themselves.

        envs = gymnasium.make_vec("CartPole-v1", num_envs=64)
        with envlogger.BatchedEnvLogger(envs, data_directory="data/cartpole/1.0.0") as envs:
            observations, infos = envs.reset(seed=1)
            for _ in range(1000):
                observations, rewards, terminations, truncations, infos = envs.step(policy(...))

    Its `reset` and `step` are those of the environment, as is all else but `close`. In the dataset, an
    episode is that of a single environment, as if that had been logged alone; with more than one the
    `episode_id` ends with the number of the stream and that of the row.

    Args:
      env: A `gymnasium.vector.VectorEnv`, in any autoreset mode; or an environment in the manner of
        dm_env whose arrays have a leading dimension N (`batched_environments.DmEnvBatches` says which).
        Closing the logger closes it.
      step_fn: Called for each environment's step, N times where all step, as that of `EnvLogger` is;
        in the place of the environment it gets a `StreamView`, which has `info`, `render()`, `stream` and
        `env`.
      episode_fn: Called likewise; see `EnvLogger`.
      metadata: See `EnvLogger`.
      backend: See `EnvLogger`. The TFDS backend records each step before `step` returns; a backend of
        another kind gets each episode as a whole, once the stream's next one begins.
      **backend_kwargs: Arguments of the backend, such as `data_directory`. `max_backlog_bytes` is for
        all streams together; each stream has a copy of the `scheduler`.

    Raises:
      OptionError, NameConflictError, DatasetError, ValueMismatchError: As the backend says, or the
        environment is of no such kind.
      MissingExtraError: It is one of Gymnasium, which is not installed.
    """

    def __init__(
        self,
        env: Any,
        step_fn: StreamCallback | None = None,
        episode_fn: StreamCallback | None = None,
        metadata: Mapping[str, Any] | None = None,
        backend: environment_logger.Backend = backend_type.BackendType.TFDS,
        **backend_kwargs: Any,
    ) -> None:
        self._environment = env
        self._step_fn = step_fn
        self._episode_fn = episode_fn
        self._is_plain = step_fn is None and episode_fn is None
        self._is_closed = False
        self._batches = _batches(env)
        count = self._batches.num_streams
        # After an error a stream's steps no longer join up: what follows is an episode of its own.
        self._has_gap = [False] * count
        metadata = {
            **(metadata or {}),
            "environment_specs": spec_codec.encode_environment_specs(self._batches),
        }
        kwargs = {**backend_kwargs, "metadata": metadata}
        if backend is backend_type.BackendType.TFDS:
            kwargs["num_streams"] = count
        self._backend = environment_logger.make_backend(backend, kwargs)
        self._writers = self._backend.streams(count)
        self._records = [writer.recorder() for writer in self._writers]
        self._streams = [StreamView(env, stream) for stream in range(count)]

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> Any:
        """Resets the environments and records their first steps; episodes under way end here.

        Args:
          seed: For vector environments of Gymnasium, which take it.
          options: Likewise; with `reset_mask`, bool (N,), only the environments that it names.

        Returns:
          What the environment returned.
        """
        return self._log(self._batches.reset, seed, options)

    def step(self, actions: Any) -> Any:
        """Takes a step in all environments and records it.

        Args:
          actions: What the environment takes: as a rule, arrays with a leading N.

        Returns:
          What the environment returned.
        """
        return self._log(self._batches.step, actions)

    def flush(self) -> None:
        """Makes what was recorded as safe as the backend can; does nothing where it has no such."""
        self._backend.flush()

    def close(self) -> None:
        """Publishes what was recorded and closes the environment. May be called more than once.

        An error does not keep the other streams from being closed: the first one is raised at the end.
        """
        if self._is_closed:
            return
        self._is_closed = True
        failures: list[BaseException] = []
        for each in (self._environment, *self._writers, self._backend):
            try:
                each.close()
            except BaseException as error:
                failures.append(error)
        if failures:
            for later in failures[1:]:
                failures[0].add_note(f"Closing went on, and there was {later!r}, too.")
            raise failures[0]

    def _log(
        self, call: Callable[..., tuple[Any, list[batched_environments.Entry]]], *args: Any
    ) -> Any:
        """Calls `reset` or `step` of the batches and records the entries; returns the result."""
        # Until the entries are known: where an error comes instead, environments may have stepped.
        has_gap, self._has_gap = self._has_gap, [True] * len(self._streams)
        result, entries = call(*args)
        num_recorded, frames = 0, list[Any]()
        try:
            for stream, timestep, action, is_new_episode, infos in entries:
                custom_data = None
                if not self._is_plain:
                    self._streams[stream]._show(infos, frames)
                    if self._step_fn is not None:
                        custom_data = self._step_fn(timestep, action, self._streams[stream])
                is_new_episode = is_new_episode or has_gap[stream]
                self._records[stream](timestep, action, custom_data, is_new_episode)
                has_gap[stream] = False
                num_recorded += 1
                if self._episode_fn is not None:
                    value = self._episode_fn(timestep, action, self._streams[stream])
                    if value is not None:
                        self._writers[stream].set_episode_metadata(value)
        finally:
            for entry in entries[num_recorded:]:  # an error kept these from being recorded
                has_gap[entry.stream] = True
            self._has_gap = has_gap
        return result


def _batches(
    env: Any,
) -> batched_environments.GymnasiumBatches | batched_environments.DmEnvBatches:
    if hasattr(env, "single_observation_space"):
        return batched_environments.GymnasiumBatches(env)
    if hasattr(env, "observation_spec"):
        return batched_environments.DmEnvBatches(env)
    raise errors.OptionError(
        f"env: got {env!r}, expected a gymnasium.vector.VectorEnv, or an environment in the manner of "
        "dm_env. For one that does not step with others there is EnvLogger."
    )


__all__ = ["BatchedEnvLogger", "StreamView"]
