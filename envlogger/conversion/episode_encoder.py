# SPDX-License-Identifier: Apache-2.0
"""Turns episodes, given as steps, into the records of a dataset.

This is the part of a conversion that deals with one episode. It needs nothing but the episode and a
schema, so it runs in this process, in others, or on other machines:

    encoder = EpisodeEncoder(schema.Schema())
    records = [encoder.encode(id, steps, metadata) for …]    if `version` has changed: once more
    encoder.schema                                           unite the schemas of all parts of a log,
                                                             and encode again where a part's differs
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from envlogger import step_data
from envlogger.conversion.columns import Columns, Flattener, MixedError
from envlogger.conversion.growing_schema import FeatureTable, WidenedError
from envlogger.tfds import episode, features, record, schema, structure
from envlogger.tfds.episode import SLOTS, End, Episode, Pattern
from envlogger.tfds.features import Chunks, Column, Feature
from envlogger.tfds.structure import Leaves, Path, Structure

_MAX_PATTERNS = 1024

# Rows that look alike: how many, their structure for each of SLOTS, and their leaves.
_Run: TypeAlias = tuple[int, tuple[Structure, ...], Columns]


class EpisodeEncoder:
    """Encodes episodes; its schema grows as they need it.

    Args:
      of: What is known of the features; it is not changed.

    Attributes:
      version: A number that changes when records encoded before do not fit the schema any more.
    """

    def __init__(self, of: schema.Schema) -> None:
        self._schema = of.copy()
        self._steps = FeatureTable(self._schema, to_episode=False)
        self._metadata = FeatureTable(self._schema, to_episode=True)
        self._flatten_steps = Flattener(self._steps)
        self._flatten_metadata = Flattener(self._metadata)
        self._patterns: dict[tuple[tuple[str, int], ...], Pattern] = {}
        self._encoder = record.Encoder(self._schema.copy())
        self._encoded = self._schema.copy()
        self.version = 0

    @property
    def schema(self) -> schema.Schema:
        """The features of all that was encoded."""
        return self._schema.copy()

    def encode(
        self,
        episode_id: str,
        steps: Sequence[step_data.StepData],
        metadata: Any = None,
        end: End = End.RESET,
    ) -> bytes:
        """Returns the record of an episode, or of a part of one.

        Args:
          episode_id: Unique across datasets.
          steps: Its steps; at least one.
          metadata: What `episode_fn` returned.
          end: How it ended, unless its last step is LAST.

        Raises:
          UnsupportedValueError: A value is of a type that no log or dataset can hold.
        """
        built = self.fit(episode_id, steps, metadata, end)
        return self._encoder.encode(built)

    def fit(
        self,
        episode_id: str,
        steps: Sequence[step_data.StepData],
        metadata: Any = None,
        end: End = End.RESET,
    ) -> Episode:
        """Does what `encode` does to the schema, which takes less time; returns what would be encoded."""
        if steps[-1].timestep.last():
            end = End.LAST
        step_types = np.array([int(step.timestep.step_type) for step in steps], np.uint8)
        runs = self._runs_of(steps)
        shape, leaves = self._metadata_of(metadata)
        pattern = self._pattern([(count, structures) for count, structures, _ in runs])
        built = Episode(
            episode_id=episode_id,
            end=end,
            step_types=step_types,
            pattern=pattern,
            columns=self._columns(runs),
            metadata_structure=shape,
            metadata=leaves,
            keeps_types=not _are_in_order(step_types),
        )
        self._follow_schema()
        for table, paths in zip(
            (self._steps, self._metadata), self._encoder.masks(built), strict=True
        ):
            for path in paths:
                table.add_mask(path)
        self._follow_schema()
        return built

    def _follow_schema(self) -> None:
        """Makes the encoder anew where the schema has changed."""
        if (self._schema.steps, self._schema.episode) != (
            self._encoded.steps,
            self._encoded.episode,
        ):
            self._encoded = self._schema.copy()
            self._encoder = record.Encoder(self._encoded)
            self.version += 1

    def _runs_of(self, steps: Sequence[step_data.StepData]) -> list[_Run]:
        slots = [
            [step.timestep.observation for step in steps],
            [step.action for step in steps],
            [step.timestep.reward for step in steps],
            [step.timestep.discount for step in steps],
            [step.custom_data for step in steps],
        ]
        while True:
            try:
                # As a rule the first row alone lacks an action, a reward and a discount.
                first = self._split([slot[:1] for slot in slots])
                return first + self._split([slot[1:] for slot in slots])
            except WidenedError:
                continue

    def _split(self, slots: list[list[Any]]) -> list[_Run]:
        """Returns rows in as few runs as halving them gives."""
        count = len(slots[0])
        if not count:
            return []
        columns: Columns = {}
        try:
            structures = tuple(
                self._flatten_steps.flatten_slot(name, values, columns)
                for name, values in zip(SLOTS, slots, strict=True)
            )
        except MixedError:
            half = count // 2
            return self._split([slot[:half] for slot in slots]) + self._split(
                [slot[half:] for slot in slots]
            )
        return [(count, structures, columns)]

    def _metadata_of(self, value: Any) -> tuple[Structure, Leaves]:
        while True:
            columns: Columns = {}
            try:
                shape = self._flatten_metadata.flatten_slot(schema.CUSTOM_DATA, [value], columns)
            except WidenedError:
                continue
            return shape, {path: _leaf(column) for path, column in columns.items()}

    def _pattern(self, runs: list[tuple[int, tuple[Structure, ...]]]) -> Pattern:
        """Returns the pattern of rows; those of a log are few, and kept."""
        names: list[tuple[str, int]] = []
        known: dict[str, tuple[Structure, ...]] = {}
        for count, structures in runs:
            name = json.dumps([structure.to_json(item) for item in structures])
            known[name] = structures
            if names and names[-1][0] == name:
                count += names.pop()[1]
            names.append((name, count))
        key = tuple(names)
        if key not in self._patterns:
            if len(self._patterns) >= _MAX_PATTERNS:
                self._patterns.clear()
            numbers = {name: number for number, name in enumerate(known)}
            self._patterns[key] = Pattern(
                list(known.values()), [(numbers[name], count) for name, count in names]
            )
        return self._patterns[key]

    def _columns(self, runs: list[_Run]) -> dict[Path, Column | Chunks]:
        paths = dict.fromkeys(path for _, _, columns in runs for path in columns)
        return {path: _join(self._steps.features[path], runs) for path in paths}


def _are_in_order(step_types: npt.NDArray[np.uint8]) -> bool:
    """Whether only the first step is FIRST, if any, and only the last is LAST."""
    inner = step_types[1:-1]
    is_inner_mid = bool((inner == episode.MID_STEP).all())
    is_one = len(step_types) == 1
    begins = is_one or step_types[0] != episode.LAST_STEP
    return is_inner_mid and begins and (is_one or step_types[-1] != episode.FIRST_STEP)


def _leaf(column: Column) -> Any:
    """Returns the one row of a column as an array."""
    row = column[0]
    return np.array(row, episode.dtype_of(row))


def _join(feature: Feature, runs: list[_Run]) -> Column | Chunks:
    """Returns the rows of a leaf, with padding where a run does not have it."""
    path = feature.path
    parts = [
        columns[path] if path in columns else feature.zeros(count) for count, _, columns in runs
    ]
    if feature.is_ragged:
        return [_row(item, feature) for part in parts for item in part]
    arrays = [np.asarray(part, feature.dtype) for part in parts]
    if feature.is_large and len(arrays) > 1:
        return Chunks(arrays)  # images are not copied to bring them together
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _row(item: Any, feature: Feature) -> Any:
    return np.asarray(item, feature.dtype)


def parts_of(
    steps: Iterable[step_data.StepData], max_bytes: int
) -> Iterator[tuple[list[step_data.StepData], End]]:
    """Yields the steps of an episode; in parts, if they take more memory than a record should have.

    Args:
      steps: The steps.
      max_bytes: How much a part may take, about.
    """
    part: list[step_data.StepData] = []
    size = step_bytes = 0
    for number, step in enumerate(steps):
        if number % 16 == 0 or step_bytes > _LARGE_STEP:
            step_bytes = _size(step)
        if part and size + step_bytes > max_bytes:
            yield part, End.SPLIT
            part, size = [], 0
        part.append(step)
        size += step_bytes
    if part:
        yield part, End.RESET


# Steps that are larger are measured each.
_LARGE_STEP = 1 << 16


def _size(value: Any) -> int:
    """Returns about how many bytes a nest takes in a record."""
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    if isinstance(value, np.ndarray) and value.dtype != features.STRING:
        return int(value.nbytes)
    return len(value) if isinstance(value, str | bytes) else 8


__all__ = ["EpisodeEncoder", "parts_of"]
