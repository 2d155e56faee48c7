# SPDX-License-Identifier: Apache-2.0
"""Seals episodes: encodes them, writes them to a shard, publishes the shard when it is full."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from envlogger.tfds import dataset, dataset_files, episode, schema, shards


class Sealer:
    """Turns the episodes of one session into published shards of one split.

    Args:
      target: The dataset.
      split: The split that the episodes go to.
      session: What `metadata.json` is to say about the session; has an `id`.
      of: The schema of the episodes; extended in place, here by masks and by what other writers add.
      max_episodes_per_file: How many episodes a shard has at most.
      metadata: The caller's metadata, with `environment_specs`.
      template: Gives description and citation to a dataset that is new.
    """

    def __init__(
        self,
        target: dataset.DatasetDirectory,
        split: str,
        session: Mapping[str, Any],
        of: schema.Schema,
        max_episodes_per_file: int,
        metadata: Mapping[str, Any],
        template: dataset_files.Info | None = None,
    ) -> None:
        self._target = target
        self._split = split
        self._session = session
        self._schema = of
        self._max_episodes_per_file = max_episodes_per_file
        self._metadata = metadata
        self._template = template
        self._writer: shards.ShardWriter | None = None
        self._shard_schema = of.copy()  # the schema of the records in the open shard
        self._step_counts: list[int] = []

    def add(self, finished: episode.Episode) -> None:
        """Adds an episode to the open shard, and publishes the shard if that fills it."""
        self._add_masks(finished)
        record = episode.encode(finished, self._schema)
        if self._writer is not None and not _covers(self._shard_schema, self._schema):
            self._widen_open_shard()
        if self._writer is None:
            self._shard_schema = self._schema.copy()
            self._writer = shards.ShardWriter(self._shard_path())
        self._writer.add(record)
        self._step_counts.append(len(finished))
        if len(self._step_counts) >= self._max_episodes_per_file:
            self.publish()

    def publish(self) -> None:
        """Publishes the episodes in the open shard, if there are any."""
        if self._writer is None:
            return
        writer, counts = self._writer, self._step_counts
        self._writer, self._step_counts = None, []
        writer.close()
        merged = self._target.publish(
            self._split,
            writer.path,
            counts,
            self._shard_schema,
            self._session,
            metadata=self._metadata,
            template=self._template,
        )
        for feature in merged.steps.values():
            self._schema.steps.setdefault(feature.path, feature)
        for feature in merged.episode.values():
            self._schema.episode.setdefault(feature.path, feature)

    def _add_masks(self, finished: episode.Episode) -> None:
        in_steps, in_episode = episode.masks(finished, self._schema)
        for path in in_steps:
            self._add_mask(path, to_episode=False)
        for path in in_episode:
            self._add_mask(path, to_episode=True)

    def _add_mask(self, path: tuple[str, ...], *, to_episode: bool) -> None:
        known = self._schema.episode if to_episode else self._schema.steps
        if (schema.PRESENT, *path) not in known:
            self._schema.add_mask(path, to_episode=to_episode)

    def _widen_open_shard(self) -> None:
        """Gives the episodes of the open shard the features that turned up after them."""
        assert self._writer is not None
        finished, count = self._writer, self._writer.num_records
        finished.close()
        self._writer = shards.ShardWriter(f"{finished.path}.wide")
        for record in shards.read_all(finished.path, count):
            self._writer.add(episode.adapt(record, self._shard_schema, self._schema))
        os.unlink(finished.path)
        self._shard_schema = self._schema.copy()

    def _shard_path(self) -> str:
        return os.path.join(self._target.session_path(self._session["id"]), "shard")


def _covers(have: schema.Schema, want: schema.Schema) -> bool:
    return want.steps.keys() <= have.steps.keys() and want.episode.keys() <= have.episode.keys()
