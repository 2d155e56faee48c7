# SPDX-License-Identifier: Apache-2.0
"""The backend that writes a TFDS dataset in RLDS form, in ArrayRecord shards."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from typing import Any

import dm_env

from envlogger import errors, step_data
from envlogger import options as options_lib
from envlogger.backends import backend_writer, schedulers
from envlogger.tfds import dataset, opening, writing_session
from envlogger.tfds import ds_config as ds_config_lib


class _StreamWriter(backend_writer.BackendWriter):
    """Writes the steps of one environment to its stream of a session."""

    def __init__(
        self,
        stream: writing_session.Stream,
        metadata: Mapping[str, Any] | None,
        scheduler: schedulers.Scheduler | None,
    ) -> None:
        super().__init__(metadata=metadata, scheduler=scheduler)
        self._stream = stream

    def recorder(self) -> Callable[[dm_env.TimeStep, Any, Any, bool], None]:
        """Returns what is called at each step, without a StepData where nobody asks for one."""
        return self.record if self._scheduler is not None else self._stream.record

    def _record_step(self, data: step_data.StepData, is_new_episode: bool) -> None:
        self._stream.record(data.timestep, data.action, data.custom_data, is_new_episode)

    def _set_episode_metadata(self, data: Any) -> None:
        self._stream.set_episode_metadata(data)

    def set_episode_metadata(self, data: Any) -> None:
        """Sets the metadata of the episode under way, in place of what was set before."""
        if self._scheduler is not None:
            super().set_episode_metadata(data)
        else:
            self._stream.set_episode_metadata(data)

    def close(self) -> None:
        """Does nothing: the session is closed as a whole."""


class TFDSBackendWriter(_StreamWriter):
    """Writes what is logged as a TFDS dataset that `tfds.load` reads.

    The features are inferred from the environment and the values, unless `ds_config` gives them.
    Opening a directory that holds such a dataset already appends to it.

    Args:
      data_directory: Where the dataset is or shall be. If it ends in `<name>/<x.y.z>`, the dataset
        has that name and version, and `tfds.load(name, data_dir=<the directory above name>)` finds
        it; `tfds.builder_from_directory` reads any other.
      ds_config: A `tfds.rlds.rlds_base.DatasetConfig` that names the dataset and gives its
        features; None infers them.
      max_episodes_per_file: The number of episodes after which a shard is published.
      split_name: The split that the episodes go to; None for 'train'.
      version: The dataset's version, `x.y.z`; None for the directory's, or '0.0.1'.
      store_ds_metadata: Whether `metadata.json` keeps the caller's metadata. The environment's
        specs are always kept.
      dataset_name: The dataset's name; None for the directory's.
      image_format: How uint8 arrays (height, width, 1 or 3) are stored: "png" (lossless), "raw"
        (lossless, fast, large) or "jpeg" (lossy).
      max_backlog_bytes: How much of the step log may wait to be sealed; above that `step()` waits
        until the helper process has caught up.
      sync_interval: Seconds after which what was logged is made to survive a loss of power, again
        and again; None leaves that to `flush()`. The death of the process loses nothing anyhow.
      helper: Whether a helper process seals the episodes; otherwise this process does, in between.
      session_id: What the `episode_id` of each episode begins with; None makes one that is unique across
        datasets. With one of your own, and without a helper, the same run gives the same bits each time.
      num_streams: How many environments step together; `streams` has the writer of each.
      metadata: What is known about the whole dataset; `environment_specs` holds encoded specs.
      scheduler: Called with each `StepData`; where it returns False, the step is dropped.

    Raises:
      OptionError: An argument is not allowed.
      NameConflictError: A key of `metadata` is reserved.
      DatasetError: The directory cannot be used.
      ValueMismatchError: The environment's specs are not those of the dataset in the directory.
    """

    def __init__(
        self,
        data_directory: str | os.PathLike[str],
        ds_config: Any = None,
        max_episodes_per_file: int = 1000,
        split_name: str | None = None,
        version: str | None = None,
        store_ds_metadata: bool = True,
        *,
        dataset_name: str | None = None,
        image_format: str = "png",
        max_backlog_bytes: int = 1 << 30,
        sync_interval: float | None = None,
        helper: bool = True,
        session_id: str | None = None,
        num_streams: int = 1,
        metadata: Mapping[str, Any] | None = None,
        scheduler: schedulers.Scheduler | None = None,
    ) -> None:
        options_lib.check_count("num_streams", num_streams)
        keep = set(metadata or {}) if store_ds_metadata else {dataset.ENVIRONMENT_SPECS}
        self._session = opening.open_session(
            data_directory,
            metadata={k: v for k, v in (metadata or {}).items() if k in keep},
            given=None if ds_config is None else ds_config_lib.to_schema(ds_config, image_format),
            about=None if ds_config is None else ds_config_lib.to_info(ds_config),
            max_episodes_per_file=max_episodes_per_file,
            split_name=split_name,
            version=version,
            dataset_name=dataset_name,
            image_format=image_format,
            max_backlog_bytes=max_backlog_bytes,
            sync_interval=sync_interval,
            helper=helper,
            session_id=session_id,
            is_aligned=False,
            num_streams=num_streams,
        )
        self._streams = self._session.streams()
        super().__init__(self._streams[0], metadata, scheduler)

    def streams(self, count: int) -> list[backend_writer.BackendWriter]:
        """Returns the writers of environments that step together; each has a copy of the scheduler.

        Raises:
          OptionError: There are not as many as `num_streams` says.
        """
        if count != len(self._streams):
            raise errors.OptionError(
                f"num_streams: got {len(self._streams)}, expected {count}, which is how many "
                "environments step together."
            )
        return [
            _StreamWriter(stream, self.metadata(), copy.deepcopy(self._scheduler))
            for stream in self._streams
        ]

    def flush(self) -> None:
        """Makes what was logged survive a loss of power, and publishes the finished episodes.

        Raises:
          OSError: It could not be written.
        """
        self._session.flush()

    def close(self) -> None:
        """Publishes all that was recorded. May be called more than once."""
        self._session.close()
