# SPDX-License-Identifier: Apache-2.0
"""Opens a session in a dataset: recovers what is left there, and sees to it that the new one fits."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

from envlogger import errors
from envlogger.converters import json_codec, spec_codec
from envlogger.options import check_count, check_path
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
from envlogger.tfds.dataset_files import Info

# It is the name of a directory and part of `episode_id`.
_SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def open_session(
    data_directory: str | os.PathLike[str],
    *,
    metadata: Mapping[str, Any],
    given: schema.Schema | None,
    about: Info | None,
    max_episodes_per_file: int,
    split_name: str | None,
    version: str | None,
    dataset_name: str | None,
    image_format: str,
    max_backlog_bytes: int,
    sync_interval: float | None,
    helper: bool,
    is_aligned: bool,
    session_id: str | None = None,
    num_streams: int = 1,
) -> writing_session.WritingSession:
    """Returns a session that records into a dataset, which is made if it is not there.

    Args:
      data_directory: Where the dataset is or shall be.
      metadata: The caller's, for `metadata.json`; `environment_specs` holds encoded specs.
      given: The features, if the caller gave them.
      about: Name, description and citation, if the caller gave them.
      max_episodes_per_file: The number of episodes after which a shard is published.
      split_name: The split that the episodes go to; None for 'train'.
      version: The dataset's version; None for the directory's, or '0.0.1'.
      dataset_name: The dataset's name; None for that in `about`, or the directory's.
      image_format: How uint8 images are stored.
      max_backlog_bytes: How much of the step log may wait to be sealed.
      sync_interval: Seconds after which rows are made to survive a loss of power; None for never.
      helper: Whether a helper process seals the episodes.
      is_aligned: Whether rows are steps of RLDS.
      session_id: The session's id; None for one that is unique across datasets.
      num_streams: How many environments step together.

    Raises:
      OptionError: An argument is not allowed.
      NameConflictError: A key of the metadata is reserved.
      DatasetError: The directory cannot be used.
      ValueMismatchError: The specs or the features are not those of the dataset in the directory.
    """
    split = split_name or "train"
    dataset_files.check_split_name(split)
    max_episodes_per_file = check_count("max_episodes_per_file", max_episodes_per_file)
    max_backlog_bytes = check_count("max_backlog_bytes", max_backlog_bytes)
    _check_options(sync_interval, image_format, session_id)
    if dataset.OURS in metadata:
        raise errors.NameConflictError(
            f"metadata: got the key {dataset.OURS!r}, which is reserved. Rename it."
        )
    json_codec.encode(dict(metadata))  # refuses, before anything is written, what cannot be
    name = dataset_name or (about.identity.name if about else None)

    target = dataset.DatasetDirectory(data_directory, name, version)
    try:
        recovery.recover_sessions(target)
        existing = target.contents()
        if existing is not None and not existing.info.can_grow:
            raise errors.DatasetError(
                f"{target.directory}: got a dataset that a builder of TFDS made: the names of its shards "
                "say how many there are, so nothing can be appended. Use another data_directory, and "
                "build from both."
            )
        _check_is_new(session_id, target, existing)
        specs = metadata.get(dataset.ENVIRONMENT_SPECS) or {}
        of = given or schema.Schema(image_format=image_format)
        if existing is not None:
            of = _resume(existing, given, specs, image_format)
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
                },
                session_id=session_id,
            ),
            metadata=dict(metadata),
            about=about.description if about else "",
            citation=about.citation if about else "",
            is_aligned=is_aligned,
            num_streams=num_streams,
        )
        return writing_session.WritingSession(
            target,
            options,
            of,
            spec_codec.decode_environment_specs(specs),
            max_backlog_bytes=max_backlog_bytes,
            sync_interval=sync_interval,
            with_helper=helper,
        )
    except BaseException:
        target.close()
        raise


def check_is_empty(data_directory: str | os.PathLike[str]) -> None:
    """Refuses a directory that has episodes.

    Raises:
      OptionError: It has.
    """
    directory = check_path("data_directory", data_directory)
    if os.path.exists(os.path.join(directory, dataset_files.INFO)):
        raise errors.OptionError(
            f"overwrite: got True, but {directory} holds a dataset, and nothing is ever overwritten. "
            "Remove it before, or append to it with overwrite=False."
        )


def _check_options(sync_interval: float | None, image_format: str, session_id: str | None) -> None:
    is_number = isinstance(sync_interval, int | float) and not isinstance(sync_interval, bool)
    if sync_interval is not None and not (is_number and 0 < sync_interval < math.inf):
        raise errors.OptionError(
            f"sync_interval: got {sync_interval!r}, expected seconds, more than 0, such as 10.0; or None "
            "for never."
        )
    if image_format not in list(features.IMAGE_ENCODINGS):
        raise errors.OptionError(
            f"image_format: got {image_format!r}, expected one of "
            f"{', '.join(map(repr, features.IMAGE_ENCODINGS))}."
        )
    if session_id is not None and not (
        isinstance(session_id, str) and _SESSION_ID.fullmatch(session_id)
    ):
        raise errors.OptionError(
            f"session_id: got {session_id!r}, expected up to 100 letters, digits, '_', '.' and '-', "
            "with a letter or digit first."
        )


def _check_is_new(
    session_id: str | None, target: dataset.DatasetDirectory, existing: dataset.Contents | None
) -> None:
    ours = {} if existing is None else existing.metadata.get(dataset.OURS) or {}
    known = {described["id"] for described in ours.get("sessions", ())}
    if session_id in known.union(target.session_ids()):
        raise errors.OptionError(
            f"session_id: got {session_id!r}, but {target.directory} has episodes of a session of this "
            "id. Use another one, or leave it out."
        )


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
