# SPDX-License-Identifier: Apache-2.0
"""One episode, as columns.

A row is what one call of `reset()` or `step()` gave. Columns are aligned as logged: the action of a
row led to its observation. `record` puts them into the alignment of RLDS. The rows of an `EpisodeWriter`
are steps of RLDS already; their pattern says so.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import dm_env
import numpy as np
import numpy.typing as npt

from envlogger.tfds import features, schema, structure
from envlogger.tfds.features import Chunks, Column
from envlogger.tfds.structure import Leaves, Path, Structure

# The fields of a row, in the order in which its structure names them. `custom_data` is the value of
# `step_fn`: a dict's keys are features of the step, anything else is kept under one name.
SLOTS = (schema.OBSERVATION, schema.ACTION, schema.REWARD, schema.DISCOUNT, schema.CUSTOM_DATA)

FIRST_STEP, MID_STEP, LAST_STEP = (int(kind) for kind in dm_env.StepType)


class End(enum.Enum):
    """How an episode ended."""

    LAST = "last"  # the environment said so
    RESET = "reset"  # it was reset, or the logger closed, before that
    SPLIT = "split"  # it goes on in the next record: it is too large for one
    KILLED = "killed"  # the process died
    OPEN = "open"  # whoever gave it as a whole said that its last step is not `is_last`


@dataclasses.dataclass
class Row:
    """One logged step: the structure of each of `SLOTS`, and the leaves of them all."""

    step_type: int
    structures: tuple[Structure, ...]
    leaves: Leaves


class Pattern:
    """Which structures the rows of an episode have; many episodes have one in common.

    Args:
      structures: Structures, each for all `SLOTS`.
      runs: (place in `structures`, number of rows) of each stretch of rows that are alike.
      is_aligned: Whether the rows are steps of RLDS: the action of a row is the one taken in it.
    """

    def __init__(
        self,
        structures: Sequence[tuple[Structure, ...]],
        runs: Sequence[tuple[int, int]],
        *,
        is_aligned: bool = False,
    ) -> None:
        self.is_aligned = is_aligned
        used = list(dict.fromkeys(number for number, _ in runs))
        self.structures = [structures[number] for number in used]
        self.runs = [(used.index(number), count) for number, count in runs]
        self._paths = [_paths(item) for item in self.structures]
        self._present: dict[Path, npt.NDArray[np.bool_]] = {}
        self._masked: dict[Path, bool] = {}

    def __len__(self) -> int:
        """Returns the number of rows."""
        return sum(count for _, count in self.runs)

    @functools.cached_property
    def ids(self) -> npt.NDArray[np.int64]:
        """The place in `structures` of each row's, (T,)."""
        runs = np.array(self.runs, np.int64).reshape(-1, 2)
        return np.repeat(runs[:, 0], runs[:, 1])

    @functools.cached_property
    def first_paths(self) -> list[Path]:
        """The paths that the first row has for what came of an action, if RLDS has no place for it."""
        if self.is_aligned:
            return []
        return sorted(p for p in self._paths[self.runs[0][0]] if p[0] in schema.SHIFTED)

    @functools.cached_property
    def last_discounts(self) -> list[Path]:
        """The paths of the last row's discount."""
        return [p for p in self._paths[self.runs[-1][0]] if p[0] == schema.DISCOUNT]

    @functools.cached_property
    def json(self) -> str:
        """The structures and runs as JSON, to be put into an object."""
        structures = [list(map(structure.to_json, item)) for item in self.structures]
        runs = [number for run in self.runs for number in run]
        return f'"structures":{_dumps(structures)},"runs":{_dumps(runs)}'

    def present(self, path: Path) -> npt.NDArray[np.bool_]:
        """Returns for each row whether it has a value at `path`, bool (T,)."""
        if path not in self._present:
            has = np.array([path in paths for paths in self._paths], np.bool_)
            self._present[path] = has[self.ids]
        return self._present[path]

    def lacks(self, path: Path) -> bool:
        """Returns whether a step, other than as the padding of RLDS, has no value at `path`."""
        if path not in self._masked:
            start = 1 if self.is_shifted(path) else 0
            self._masked[path] = not bool(self.present(path)[start:].all())
        return self._masked[path]

    def is_shifted(self, path: Path) -> bool:
        """Returns whether a row's value at `path` belongs to the step before it."""
        return path[0] in schema.SHIFTED and not self.is_aligned


class Given(NamedTuple):
    """What the caller said of an episode whose rows are steps of RLDS."""

    is_first: bool
    is_terminal: bool


@dataclasses.dataclass
class Episode:
    """An episode of T rows.

    Attributes:
      episode_id: Unique across datasets.
      end: How it ended.
      step_types: uint8 (T,).
      pattern: Which structure each row has.
      columns: T rows for each feature of the steps, aligned as logged. Where a row has no value
        there is padding, but what came of an action may hold anything in a first row without.
      metadata_structure: What `episode_fn` returned last; None for nothing.
      metadata: The leaves of that.
      keeps_types: Whether the record is to list the step types: those of a log that was converted need
        not be FIRST, MID, …, LAST.
      given: For rows that are aligned, what the step types do not say.
    """

    episode_id: str
    end: End
    step_types: npt.NDArray[np.uint8]
    pattern: Pattern
    columns: dict[Path, Column | Chunks]
    metadata_structure: Structure = None
    metadata: Leaves = dataclasses.field(default_factory=dict)
    keeps_types: bool = False
    given: Given | None = None

    def __len__(self) -> int:
        """Returns the number of steps."""
        return len(self.step_types)


def slot_path(slot: str, value: Structure) -> Path:
    """Returns where the leaves of a slot begin: custom dicts lie directly in the step or episode."""
    return () if slot == schema.CUSTOM_DATA and isinstance(value, dict) else (slot,)


def _paths(structures: tuple[Structure, ...]) -> set[Path]:
    return {
        path
        for name, value in zip(SLOTS, structures, strict=True)
        for path in structure.leaf_paths(value, slot_path(name, value))
    }


def dtype_of(row: Any) -> Any:
    """Returns the dtype to make an array of a row with: object for bytes, numpy's choice otherwise."""
    return features.STRING if isinstance(row, bytes) else None


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
