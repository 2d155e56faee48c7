# SPDX-License-Identifier: Apache-2.0
"""The backend that writes a TFDS dataset in RLDS form, in ArrayRecord shards."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import dm_env

from envlogger import errors, step_data
from envlogger.backends import backend_writer, schedulers
from envlogger.converters import json_codec, spec_codec
from envlogger.tfds import (
    dataset,
    dataset_files,
    features,
    recorder,
    recovery,
    schema,
    session,
    writing_session,
)
from envlogger.tfds import ds_config as ds_config_lib


class TFDSBackendWriter(backend_writer.BackendWriter):
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
      metadata: What is known about the whole dataset; `environment_specs` holds encoded specs.
      scheduler: Called with each `StepData`; where it returns False, the step is dropped.

    Raises:
      OptionError: An argument is not allowed.
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
        metadata: Mapping[str, Any] | None = None,
        scheduler: schedulers.Scheduler | None = None,
    ) -> None:
        super().__init__(metadata=metadata, scheduler=scheduler)
        split = split_name or "train"
        dataset_files.check_split_name(split)
        _check_options(max_episodes_per_file, image_format)
        kept = _kept_metadata(metadata or {}, store_ds_metadata)
        given = None if ds_config is None else ds_config_lib.to_schema(ds_config, image_format)
        about = None if ds_config is None else ds_config_lib.to_info(ds_config)
        name = dataset_name or (about.identity.name if about else None)

        target = dataset.DatasetDirectory(os.fspath(data_directory), name, version)
        try:
            recovery.recover_sessions(target)
            existing = target.contents()
            specs = kept.get(dataset.ENVIRONMENT_SPECS) or {}
            of = given or schema.Schema(image_format=image_format)
            if existing is not None:
                of = _resume(existing, given, specs, image_format)
            decoded = spec_codec.decode_environment_specs(specs)
            options = session.Options(
                identity=target.identity,
                split=split,
                max_episodes_per_file=max_episodes_per_file,
                image_format=image_format,
                description=session.describe(
                    {
                        "split_name": split,
                        "max_episodes_per_file": max_episodes_per_file,
                        "image_format": image_format,
                    }
                ),
                metadata=kept,
                about=about.description if about else "",
                citation=about.citation if about else "",
            )
            self._session = writing_session.WritingSession(
                target,
                options,
                of,
                decoded,
                max_backlog_bytes=max_backlog_bytes,
                sync_interval=sync_interval,
                with_helper=helper,
            )
        except BaseException:
            target.close()
            raise

    def recorder(self) -> Callable[[dm_env.TimeStep, Any, Any, bool], None]:
        """Returns what `EnvLogger` calls at each step, without a StepData where nobody asks for one."""
        return self.record if self._scheduler is not None else self._session.record

    def _record_step(self, data: step_data.StepData, is_new_episode: bool) -> None:
        self._session.record(data.timestep, data.action, data.custom_data, is_new_episode)

    def _set_episode_metadata(self, data: Any) -> None:
        self._session.set_episode_metadata(data)

    def set_episode_metadata(self, data: Any) -> None:
        """Sets the metadata of the episode under way, in place of what was set before."""
        if self._scheduler is not None:
            super().set_episode_metadata(data)
        else:
            self._session.set_episode_metadata(data)

    def flush(self) -> None:
        """Makes what was logged survive a loss of power, and publishes the finished episodes.

        Raises:
          OSError: It could not be written.
        """
        self._session.flush()

    def close(self) -> None:
        """Publishes all that was recorded. May be called more than once."""
        self._session.close()


def _check_options(max_episodes_per_file: int, image_format: str) -> None:
    if max_episodes_per_file < 1:
        raise errors.OptionError(
            f"max_episodes_per_file: got {max_episodes_per_file}, expected at least 1."
        )
    if image_format not in features.IMAGE_ENCODINGS:
        raise errors.OptionError(
            f"image_format: got {image_format!r}, expected one of "
            f"{', '.join(map(repr, features.IMAGE_ENCODINGS))}."
        )


def _kept_metadata(metadata: Mapping[str, Any], store: bool) -> dict[str, Any]:
    """Returns what goes into metadata.json; refuses, before anything is written, what cannot."""
    if dataset.OURS in metadata:
        raise errors.NameConflictError(
            f"metadata: got the key {dataset.OURS!r}, which is reserved. Rename it."
        )
    keep = set(metadata) if store else {dataset.ENVIRONMENT_SPECS}
    kept = {key: value for key, value in metadata.items() if key in keep}
    json_codec.encode(kept)
    return kept


def _resume(
    existing: dataset.Contents,
    given: schema.Schema | None,
    specs: Mapping[str, Any],
    image_format: str,
) -> schema.Schema:
    """Returns the schema with which an existing dataset goes on."""
    before = spec_codec.decode_environment_specs(
        existing.metadata.get(dataset.ENVIRONMENT_SPECS) or {}
    )
    now = spec_codec.decode_environment_specs(specs)
    differences: list[str] = []
    for name, old in before.items():
        if old is not None and now[name] is not None:
            differences += _compare_specs(name.removesuffix("_spec"), old, now[name])
    if differences:
        raise errors.ValueMismatchError(
            "The environment does not fit the dataset in data_directory, which stays as it was. "
            + "; ".join(differences)
            + ". Use another data_directory."
        )
    resumed = existing.schema
    resumed.image_format = image_format
    if given is not None:
        resumed = schema.merge(given, resumed)
        resumed.is_given = True
    return resumed


def _compare_specs(slot: str, old: Any, new: Any) -> list[str]:
    """Returns how two specs differ in nesting, shape or dtype; bounds and names may differ."""
    olds = recorder.spec_leaves(old, (slot,))
    news = recorder.spec_leaves(new, (slot,))
    found = []
    for path in sorted(olds.keys() | news.keys()):
        one, other = olds.get(path), news.get(path)
        if one is None or other is None:
            got, expected = ("nothing" if s is None else _describe_spec(s) for s in (other, one))
        elif one.shape == other.shape and one.dtype == other.dtype:
            continue
        else:
            got, expected = _describe_spec(other), _describe_spec(one)
        found.append(f"{errors.format_path(path)}: got {got}, expected {expected}")
    return found


def _describe_spec(spec: Any) -> str:
    return f"{spec.dtype} of shape {spec.shape}"
