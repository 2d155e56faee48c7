# SPDX-License-Identifier: Apache-2.0
"""How the values of a record were logged: their types and nesting, which TFDS's features do not keep.

`record` writes it into the feature `envlogger` of each record, as JSON. What is made of it here builds
the values of a stretch of rows from stretches of columns; since most episodes are alike, it is made
once for all of them.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import dm_env

from envlogger import errors
from envlogger.tfds import features, schema, structure
from envlogger.tfds.episode import SLOTS, End, slot_path
from envlogger.tfds.features import Feature
from envlogger.tfds.structure import Path, Structure

# What the decoders raise where a record holds something else than they expect.
DAMAGE = (
    errors.CorruptDatasetError,
    AttributeError,
    LookupError,
    OverflowError,
    TypeError,
    ValueError,
)

_FLAGS = (schema.IS_FIRST, schema.IS_LAST, schema.IS_TERMINAL)


class Rows(Protocol):
    """The rows of an episode, as they are stored."""

    def logged(self, path: Path, start: int, stop: int) -> Any:
        """Returns what the logged rows [start, stop) have at a path: an array, or a list of them."""


# Returns the values of rows [start, stop) of an episode.
Values: TypeAlias = Callable[[Rows, int, int], Iterable[Any]]
# A stretch of rows in which a slot has one structure: where it starts, and what makes its values.
Stretch: TypeAlias = tuple[int, Values]
# Where a stretch of rows starts, and the structures of its SLOTS.
_Start: TypeAlias = tuple[int, tuple[Structure, ...]]


@dataclasses.dataclass(frozen=True)
class Form:
    """What a record says of how its values were logged; many records say the same.

    Attributes:
      end: How the episode ended; None where the record does not say.
      num_steps: How many rows there are; None where the record does not say.
      slots: For each of SLOTS its stretches. For what came of an action, the first row is a stretch of
        its own.
      first: The action, reward and discount of the first row, by path, as JSON.
      metadata: The structure of the episode's metadata.
      step_types: The type of each row; None where it follows from the flags and `end`.
      is_aligned: Whether the rows were steps of RLDS, as those of other writers are.
    """

    end: End | None
    num_steps: int | None
    slots: Sequence[Sequence[Stretch]]
    first: Mapping[str, Any]
    metadata: Structure
    step_types: tuple[dm_env.StepType, ...] | None = None
    is_aligned: bool = False


@functools.lru_cache(maxsize=1024)
def form_of(text: bytes) -> Form:
    """Returns what the feature `envlogger` of a record says."""
    try:
        node = json.loads(text)
        structures = [tuple(map(structure.from_json, row)) for row in node["structures"]]
        numbers, counts = node["runs"][::2], node["runs"][1::2]
        starts = [0, *itertools.accumulate(counts)]
        rows = [(start, structures[number]) for start, number in zip(starts, numbers, strict=False)]
        is_aligned = bool(node.get("aligned", False))
        if is_aligned:
            rows = _as_logged(rows)
        return Form(
            End(node["end"]),
            starts[-1],
            _stretches(rows),
            node.get("first", {}),
            structure.from_json(node["metadata"]),
            tuple(map(dm_env.StepType, node["types"])) if "types" in node else None,
            is_aligned,
        )
    except DAMAGE as error:
        raise errors.CorruptDatasetError(
            f"{schema.RESTORE}: a record does not say how its values were logged: {error!r}."
        ) from error


def foreign_form(of: schema.Schema) -> Form:
    """Returns how records of other writers are read: as dicts of numpy values.

    What is in the step besides the fields of RLDS is custom data.
    """
    leaves = {f.path: _foreign_code(f) for f in of.steps.values() if f.path[0] not in _FLAGS}
    tree = structure.nest(leaves)
    slots = [tree.pop(name, None) for name in SLOTS[:-1]]
    rows = _as_logged([(0, (*slots, tree or None))])
    metadata = structure.nest({f.path: _foreign_code(f) for f in of.metadata_features()})
    return Form(None, None, _stretches(rows), {}, metadata or None, is_aligned=True)


def _foreign_code(feature: Feature) -> str:
    if feature.shape:
        return "a"
    return "y" if feature.dtype == features.STRING else "g"


def _as_logged(rows: Sequence[_Start]) -> list[_Start]:
    """Returns the structures that logged rows have, from those of the steps of RLDS.

    A row has the action, reward and discount of the step before it; the first one has none. Those of
    the last step have no place in logged rows.
    """
    found: list[_Start] = []
    before: tuple[Structure, ...] = (None,) * len(SLOTS)
    for start, structures in rows:
        for row, came in ((start, before), (start + 1, structures)):
            if found and found[-1][0] == row:
                found.pop()  # a stretch of one row
            mixed = (
                old if name in schema.SHIFTED else new
                for name, old, new in zip(SLOTS, came, structures, strict=True)
            )
            found.append((row, tuple(mixed)))
        before = structures
    return found


def _stretches(rows: Sequence[_Start]) -> list[list[Stretch]]:
    """Returns the stretches of each slot.

    Args:
      rows: Where each stretch of rows starts whose structures are the same, and these structures.
    """
    slots = []
    for place, name in enumerate(SLOTS):
        stretches: list[Stretch] = []
        before: Structure = None
        for start, structures in rows:
            value = structures[place]
            if not stretches or repr(value) != repr(before):  # equal dicts may differ in order
                stretches.append((start, _compile(value, slot_path(name, value))))
            if start == 0 and name in schema.SHIFTED:
                stretches.append((1, stretches[0][1]))
            before = value
        slots.append(stretches)
    return slots


def without(value: Structure, names: Container[str], path: Path = ()) -> Structure:
    """Returns a nest of dicts, with None for the leaves that a record does not have."""
    if isinstance(value, dict):
        return {key: without(item, names, (*path, key)) for key, item in value.items()}
    return value if "/".join(path) in names else None


def _compile(value: Structure, path: Path) -> Values:
    """Returns a function that makes the values of consecutive rows of one structure."""
    if value is None:
        return lambda episode, start, stop: itertools.repeat(None, stop - start)
    if isinstance(value, dict):
        keys = list(value)
        parts = [_compile(item, (*path, str(key))) for key, item in value.items()]
        if not parts:
            return lambda episode, start, stop: ({} for _ in range(start, stop))
        return lambda episode, start, stop: (
            dict(zip(keys, row, strict=True))
            for row in zip(*[part(episode, start, stop) for part in parts], strict=False)
        )
    if isinstance(value, list | tuple):
        kind = type(value)
        parts = [_compile(item, (*path, str(i))) for i, item in enumerate(value)]
        if not parts:
            return lambda episode, start, stop: (kind() for _ in range(start, stop))
        return lambda episode, start, stop: map(
            kind, zip(*[part(episode, start, stop) for part in parts], strict=False)
        )
    code: str = value
    return lambda episode, start, stop: structure.decode_leaves(
        code, episode.logged(path, start, stop)
    )
