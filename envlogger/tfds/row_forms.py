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
import sys
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import dm_env
import numpy.typing as npt

from envlogger import errors
from envlogger.tfds import example, features, schema, structure
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

    def __len__(self) -> int: ...

    @property
    def step_types(self) -> tuple[dm_env.StepType, ...]:
        """The type of each row."""

    def stored(self, path: Path, start: int, stop: int) -> Any:
        """Returns what the steps [start, stop) have at a path: an array, or a list of them."""

    def first(self, path: Path) -> Any:
        """Returns what came of the action of the first row, which no step has; an array (1, ...)."""

    def column(self, path: Path, rows: Any) -> npt.NDArray[Any]:
        """Returns rows (a slice, or an array of indices) of a column, as an array of its own."""


# Returns the values of rows [start, stop) of an episode.
Values: TypeAlias = Callable[[Rows, int, int], Iterable[Any]]
# Where a stretch of rows starts, and the structures of its SLOTS.
_Start: TypeAlias = tuple[int, tuple[Structure, ...]]


class Stretch(NamedTuple):
    """A stretch of rows in which a slot has one structure.

    Attributes:
      start: Its first row.
      stop: The row behind its last one; for the last stretch beyond all rows.
      structure: The structure.
      path: Where its values are.
      values: Makes them.
    """

    start: int
    stop: int
    structure: Structure
    path: Path
    values: Values


@dataclasses.dataclass(frozen=True, eq=False)
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
def form_of(texts: bytes) -> Form | None:
    """Returns what the feature `envlogger` of a record says; None if it says nothing.

    Args:
      texts: The feature's list, as it lies in the record: the same one in many of them.

    Raises:
      CorruptDatasetError: It is not such a list, or what it says makes no sense.
    """
    try:
        items = example.decode_bytes(example.RawFeature(example.BYTES_LIST, texts))
        if not items or not items[0]:
            return None
        node = json.loads(bytes(items[0]))
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
        found: dict[int, tuple[Structure, Callable[[str, Path], Values]]] = {}
        before: Structure = None
        for start, structures in rows:
            value = structures[place]
            if not found or repr(value) != repr(before):  # equal dicts may differ in order
                if name not in schema.SHIFTED:
                    found[start] = value, _stored
                else:
                    if start == 0:
                        found[0] = value, _first
                    found[max(start, 1)] = value, _shifted
            before = value
        stretches = []
        for (start, (value, leaf)), stop in zip(
            found.items(), [*list(found)[1:], sys.maxsize], strict=True
        ):
            path = slot_path(name, value)
            stretches.append(Stretch(start, stop, value, path, _compile(value, path, leaf)))
        slots.append(stretches)
    return slots


def without(value: Structure, names: Container[str], path: Path = ()) -> Structure:
    """Returns a nest of dicts, with None for the leaves that a record does not have."""
    if isinstance(value, dict):
        return {key: without(item, names, (*path, key)) for key, item in value.items()}
    return value if "/".join(path) in names else None


def _stored(code: str, path: Path) -> Values:
    return lambda rows, start, stop: structure.decode_leaves(code, rows.stored(path, start, stop))


def _shifted(code: str, path: Path) -> Values:
    """What came of an action is stored in the step before."""
    return lambda rows, start, stop: structure.decode_leaves(
        code, rows.stored(path, start - 1, stop - 1)
    )


def _first(code: str, path: Path) -> Values:
    return lambda rows, start, stop: structure.decode_leaves(code, rows.first(path))


def _compile(value: Structure, path: Path, leaf: Callable[[str, Path], Values]) -> Values:
    """Returns a function that makes the values of consecutive rows of one structure.

    Args:
      value: The structure.
      path: Where the values are.
      leaf: Returns such a function for a leaf, from its code and path.
    """
    if value is None:
        return lambda rows, start, stop: itertools.repeat(None, stop - start)
    items = items_of(value)
    if items is None:
        return leaf(value, path)
    make = maker_of(value)
    parts = [_compile(item, (*path, str(key)), leaf) for key, item in items]
    if not parts:
        return lambda rows, start, stop: (make() for _ in range(start, stop))
    return lambda rows, start, stop: map(make, *[part(rows, start, stop) for part in parts])


def items_of(value: Structure) -> list[tuple[str | int, Structure]] | None:
    """Returns the keys and structures of what is in a structure; None for a leaf."""
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list | tuple) else None


def maker_of(value: Structure) -> Callable[..., Any]:
    """Returns what makes values of a structure of the values of its items."""
    if isinstance(value, dict):
        return _dict_maker(tuple(value))
    return _list if isinstance(value, list) else _tuple


def _list(*items: Any) -> list[Any]:
    return list(items)


def _tuple(*items: Any) -> tuple[Any, ...]:
    return items


@functools.lru_cache(maxsize=1024)
def _dict_maker(keys: tuple[str | int, ...]) -> Callable[..., dict[Any, Any]]:
    """Returns what makes a dict of values in the order of their keys.

    Written out, `lambda v0, v1: {'camera': v0, 'joints': v1}`, since that takes a third of the time of
    `dict(zip(keys, values))`: more than it takes to copy small values.
    """
    names = [f"v{i}" for i in range(len(keys))]
    pairs = [f"{key!r}: {name}" for key, name in zip(keys, names, strict=True)]
    made: Callable[..., dict[Any, Any]] = eval(f"lambda {', '.join(names)}: {{{', '.join(pairs)}}}")
    return made
