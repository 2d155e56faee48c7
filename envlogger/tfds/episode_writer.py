# SPDX-License-Identifier: Apache-2.0
"""Writes episodes that no environment loop gave: of teleoperation, of a simulator, of another dataset."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import dm_env
import numpy as np

from envlogger import closing, errors, step_data
from envlogger.tfds import ds_config as ds_config_lib
from envlogger.tfds import opening, schema, step_log

_FIRST, _MID = dm_env.StepType.FIRST, dm_env.StepType.MID
_FLAGS = (schema.IS_FIRST, schema.IS_LAST, schema.IS_TERMINAL)
_FIELDS = frozenset((*_FLAGS, schema.OBSERVATION, schema.ACTION, schema.REWARD, schema.DISCOUNT))


class EpisodeWriter(closing.Closing):
    """Writes steps as RLDS has them, as a TFDS dataset that `tfds.load` reads.

        with envlogger.tfds.EpisodeWriter("data/pick/1.0.0") as writer:
            writer.add_episode(steps, {"episode_metadata": {"file_path": "a.npy"}})

            for step in teleoperation:  # or step by step
                writer.add_step(step)
            writer.end_episode({"success": True})

    A step is a dict with `observation`, `action` (the one taken in that observation), and `reward` and
    `discount` (what came of it); any other key, such as `language_instruction`, is metadata of the step.
    A field that is left out, or None, is not there. All values are stored as they are, those of the last
    step among them. Where a step does not have them, `is_first` and `is_last` are those of the episode's
    first and last step, and `is_terminal` is False.

    What holds for `EnvLogger` holds here: once a call has returned, what it recorded survives the death of
    the process, and many writers, of any kind, may record into one directory at the same time. An episode
    of `add_episode` is there as a whole, or not at all. Of one that is added step by step all steps are
    there; if the process dies before it has ended, it is `invalid`, and never `is_terminal`. (An episode of
    256 MiB and more goes into several records, and then there may be the first ones of them alone.)

    Args:
      data_directory: Where the dataset is or shall be. If it ends in `<name>/<x.y.z>`, the dataset
        has that name and version, and `tfds.load(name, data_dir=<the directory above name>)` finds
        it; `tfds.builder_from_directory` reads any other.
      ds_config: A `tfds.rlds.rlds_base.DatasetConfig` that names the dataset and gives its features;
        None infers them from the first steps.
      max_episodes_per_file: The number of episodes after which a shard is published.
      split_name: The split that the episodes go to; for several splits open several writers.
      version: The dataset's version, `x.y.z`; None for the directory's, or '0.0.1'.
      overwrite: As in `rlds`; but nothing is ever overwritten: True refuses a directory that has
        episodes, False appends to it.
      features: In place of `ds_config`, a `tfds.features.FeaturesDict` with `steps`, as a builder has it.
      metadata: What is known about the whole dataset, as for `EnvLogger`.
      dataset_name: The dataset's name; None for that of `ds_config`, or the directory's.
      image_format: How uint8 arrays (height, width, 1 or 3) are stored: "png" (lossless), "raw"
        (lossless, fast, large) or "jpeg" (lossy). Features that are given say it themselves.
      max_backlog_bytes: How much of the step log may wait to be sealed; above that, calls wait until
        the helper process has caught up.
      sync_interval: Seconds after which what was added is made to survive a loss of power, again
        and again; None leaves that to `flush()`.
      helper: Whether a helper process seals the episodes; otherwise this process does, in between.

    Raises:
      OptionError: An argument is not allowed.
      NameConflictError: A key of `metadata` is reserved.
      DatasetError: The directory cannot be used.
      ValueMismatchError: The features are not those of the dataset in the directory.
    """

    def __init__(
        self,
        data_directory: str | os.PathLike[str],
        ds_config: Any = None,
        max_episodes_per_file: int = 1000,
        split_name: str | None = "train",
        version: str | None = None,
        overwrite: bool = False,
        *,
        features: Any = None,
        metadata: Mapping[str, Any] | None = None,
        dataset_name: str | None = None,
        image_format: str = "png",
        max_backlog_bytes: int = 1 << 30,
        sync_interval: float | None = None,
        helper: bool = True,
    ) -> None:
        if ds_config is not None and features is not None:
            raise errors.OptionError(
                "features: got them beside a ds_config, expected one of the two."
            )
        given = None
        if ds_config is not None:
            given = ds_config_lib.to_schema(ds_config, image_format)
        elif features is not None:
            given = ds_config_lib.from_features(features, image_format)
        if overwrite:
            opening.check_is_empty(data_directory)
        self._session = opening.open_session(
            data_directory,
            metadata=metadata or {},
            given=given,
            about=None if ds_config is None else ds_config_lib.to_info(ds_config),
            max_episodes_per_file=max_episodes_per_file,
            split_name=split_name,
            version=version,
            dataset_name=dataset_name,
            image_format=image_format,
            max_backlog_bytes=max_backlog_bytes,
            sync_interval=sync_interval,
            helper=helper,
            is_aligned=True,
        )
        (self._stream,) = self._session.streams()
        self._num_steps = 0  # of the episode that is being added step by step
        self._has_ended = False  # whether its last step said so

    def add_episode(
        self, steps: Iterable[Mapping[str, Any]] | Mapping[str, Any], metadata: Any = None
    ) -> None:
        """Adds an episode, as a whole or not at all.

        Args:
          steps: The steps, at least one: dicts of values, numpy arrays or tensors. Or the episode as
            RLDS has it: a dict of the `steps` and its metadata.
          metadata: What is known about the episode: a dict, whose keys become features of the episode.

        Raises:
          ValueMismatchError: A value does not fit what was recorded before.
          UnsupportedValueError: A value cannot be stored.
          NameConflictError: A key is reserved or collides.
          OptionError: There are no steps; or an episode is being added step by step.
          OSError: There is no space on the disk.
        """
        if self._num_steps and not self._has_ended:
            raise errors.OptionError(
                f"add_episode: an episode is under way, to which add_step() has added {self._num_steps} "
                "steps. Call end_episode() first."
            )
        found: Any = steps
        if isinstance(steps, Mapping):
            found, metadata = _parts_of(steps, metadata)
        self._stream.record_episode(_rows(found), metadata)
        self._num_steps = 0

    def add_step(self, step: Mapping[str, Any], metadata: Any = None) -> None:
        """Adds a step to the episode under way, or begins one. Once this returns, the step is safe.

        An episode ends with a step that has `is_last` or `is_terminal`, with `end_episode()`, and before a
        step that has `is_first`. A step that is refused is not recorded, and the episode goes on.

        Args:
          step: The step.
          metadata: What is known about the episode so far; None leaves it as it was.

        Raises:
          ValueMismatchError, UnsupportedValueError, NameConflictError, OSError: As `add_episode` does.
        """
        flags = _flags_of(step)
        is_new = not self._num_steps or self._has_ended or flags.is_first is True
        data, bits = _row(step, flags, is_new)
        if flags.is_last:
            bits |= step_log.ENDED
        self._stream.record(data.timestep, data.action, data.custom_data, bits)
        self._num_steps = 1 if is_new else self._num_steps + 1
        self._has_ended = bool(flags.is_last)
        if metadata is not None:
            self._stream.set_episode_metadata(metadata)

    def end_episode(self, metadata: Any = None) -> None:
        """Ends the episode that `add_step` has added to. After a step with `is_last` it need not be called.

        Args:
          metadata: What is known about the episode; None leaves it as it was.

        Raises:
          OptionError: No step has been added since the last episode.
          ValueMismatchError, UnsupportedValueError, NameConflictError, OSError: As `add_episode` does;
            the episode goes on.
        """
        if not self._num_steps:
            raise errors.OptionError(
                "end_episode: no step has been added since the last episode ended, or was published "
                "by flush(). Call add_step() before."
            )
        if metadata is not None:
            self._stream.set_episode_metadata(metadata)
        if not self._has_ended:
            self._stream.end_episode()
        self._num_steps, self._has_ended = 0, False

    def flush(self) -> None:
        """Makes what was added survive a loss of power, and publishes the episodes that have ended.

        Raises:
          OSError: It could not be written.
        """
        self._session.flush()
        if self._has_ended:
            self._num_steps, self._has_ended = 0, False

    def close(self) -> None:
        """Publishes all that was added; an episode under way ends here. May be called more than once."""
        self._session.close()


class _Flags(NamedTuple):
    """What a step says; None where it does not."""

    is_first: bool | None
    is_last: bool | None
    is_terminal: bool | None


def _rows(steps: Iterable[Mapping[str, Any]]) -> Iterator[tuple[step_data.StepData, int]]:
    """Yields the rows of an episode, each before the next step is asked for: they may share a buffer."""
    has_ended = None
    for step in steps:
        flags = _flags_of(step)
        is_new = has_ended is None
        if has_ended:
            raise errors.ValueMismatchError(
                "is_last: got a step after one that has is_last or is_terminal, expected it in the last "
                "step alone. Add each episode by itself."
            )
        if flags.is_first and not is_new:
            raise errors.ValueMismatchError(
                "is_first: got True, expected it in the first step alone. Add each episode by itself."
            )
        has_ended = bool(flags.is_last)
        data, bits = _row(step, flags, is_new)
        yield data, bits | (step_log.NOT_LAST if flags.is_last is False else 0)
    if has_ended is None:
        raise errors.OptionError("steps: got none, expected at least one in an episode.")


def _row(
    step: Mapping[str, Any], flags: _Flags, is_new_episode: bool
) -> tuple[step_data.StepData, int]:
    """Returns what a session records of a step, and its bits."""
    bits = step_log.IS_TERMINAL if flags.is_terminal else 0
    step_type = _MID
    if is_new_episode:
        bits |= step_log.NEW_EPISODE
        if flags.is_first is not False:
            bits |= step_log.IS_FIRST
            step_type = _FIRST
    timestep = dm_env.TimeStep(
        step_type,
        step.get(schema.REWARD),
        step.get(schema.DISCOUNT),
        step.get(schema.OBSERVATION),
    )
    metadata = {key: value for key, value in step.items() if key not in _FIELDS}
    return step_data.StepData(timestep, step.get(schema.ACTION), metadata or None), bits


def _flags_of(step: Mapping[str, Any]) -> _Flags:
    if not isinstance(step, Mapping):
        raise errors.UnsupportedValueError(
            f"steps: got a step of type {type(step).__qualname__}, expected a dict with 'observation', "
            "'action' and so on."
        )
    is_first, is_last, is_terminal = (_flag(name, step.get(name)) for name in _FLAGS)
    if is_terminal and is_last is None:
        is_last = True
    if is_terminal and not is_last:
        raise errors.ValueMismatchError(
            "is_terminal: got True in a step whose is_last is False, expected it in the last step alone."
        )
    return _Flags(is_first, is_last, is_terminal)


def _flag(name: str, value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "biu" or array not in (0, 1):
        raise errors.ValueMismatchError(
            f"{name}: got {schema.describe(array.dtype, array.shape)} (value {value!r}), expected a bool."
        )
    return bool(array)


def _parts_of(episode: Mapping[str, Any], metadata: Any) -> tuple[Any, Any]:
    """Returns the steps and the metadata of an episode as RLDS has it."""
    if schema.STEPS not in episode:
        raise errors.OptionError(
            f"steps: got a dict without 'steps' ({', '.join(map(str, episode)) or 'empty'}), expected an "
            "iterable of steps, or an episode of RLDS."
        )
    rest = {key: value for key, value in episode.items() if key != schema.STEPS}
    if rest and metadata is not None:
        raise errors.OptionError(
            f"metadata: got it beside an episode that has metadata ({', '.join(map(str, rest))}). Give "
            "it in one place."
        )
    return episode[schema.STEPS], rest or metadata


__all__ = ["EpisodeWriter"]
