# SPDX-License-Identifier: Apache-2.0
"""One episode, as columns; and its `tf.train.Example`, in the alignment of RLDS.

    logged row      0 (FIRST)      1             2             3 (LAST)
    observation     o0             o1            o2            o3
    action, reward  -              a1, r1        a2, r2        a3, r3

    RLDS step       0              1             2             3
    observation     o0             o1            o2            o3
    action, reward  a1, r1         a2, r2        a3, r3        padding
    is_first        True           False         False         False
    is_last         False          False         False         True

A row is what one call of `reset()` or `step()` gave; what `step_fn` made of it stays with its
observation. The last step is always `is_last`, however the episode ended; it is `is_terminal` only
where the environment ended it with discount 0.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping
from typing import Any

import dm_env
import numpy as np
import numpy.typing as npt

from envlogger import errors, step_data
from envlogger.converters import json_codec
from envlogger.tfds import example, features, schema, structure
from envlogger.tfds.features import Column, Encoding, Feature
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


@dataclasses.dataclass
class Row:
    """One logged step: the structure of each of `SLOTS`, and the leaves of them all."""

    step_type: int
    structures: tuple[Structure, ...]
    leaves: Leaves


@dataclasses.dataclass
class Episode:
    """An episode of T rows.

    Attributes:
      episode_id: Unique across datasets.
      end: How it ended.
      step_types: uint8 (T,).
      structures: The structures that occur in it, each for all `SLOTS`.
      structure_ids: int64 (T,): which of them a row has.
      columns: T rows for each feature of the steps, aligned as logged; padding where a row has none.
      metadata_structure: What `episode_fn` returned last; None for nothing.
      metadata: The leaves of that.
    """

    episode_id: str
    end: End
    step_types: npt.NDArray[np.uint8]
    structures: list[tuple[Structure, ...]]
    structure_ids: npt.NDArray[np.int64]
    columns: dict[Path, Column]
    metadata_structure: Structure = None
    metadata: Leaves = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        """Returns the number of steps."""
        return len(self.step_types)

    def step(self, index: int) -> step_data.StepData:
        """Returns a step as it was logged."""

        def leaf(path: Path) -> Any:
            return _own(self.columns[path][index])

        structures = self.structures[self.structure_ids[index]]
        observation, action, reward, discount, custom_data = (
            structure.unflatten(value, slot_path(name, value), leaf)
            for name, value in zip(SLOTS, structures, strict=True)
        )
        step_type = dm_env.StepType(int(self.step_types[index]))
        timestep = dm_env.TimeStep(step_type, reward, discount, observation)
        return step_data.StepData(timestep, action, custom_data)

    def metadata_value(self) -> Any:
        """Returns what `episode_fn` returned last, or None."""
        value = self.metadata_structure
        path = slot_path(schema.CUSTOM_DATA, value)
        return structure.unflatten(value, path, lambda path: _own(self.metadata[path]))

    def present(self, path: Path) -> npt.NDArray[np.bool_]:
        """Returns for each row whether it has a value at `path`, bool (T,)."""
        has = [path in paths for paths in map(_paths, self.structures)]
        return np.array(has, np.bool_)[self.structure_ids]


def slot_path(slot: str, value: Structure) -> Path:
    """Returns where the leaves of a slot begin: custom dicts lie directly in the step or episode."""
    return () if slot == schema.CUSTOM_DATA and isinstance(value, dict) else (slot,)


def masks(episode: Episode, of: schema.Schema) -> tuple[list[Path], list[Path]]:
    """Returns the paths of steps and of episodes that need a mask: somewhere they hold padding."""
    steps = [
        path
        for path in of.steps
        if path[0] not in (schema.IS_FIRST, schema.IS_LAST, schema.IS_TERMINAL, schema.PRESENT)
        and not episode.present(path)[1 if path[0] in schema.SHIFTED else 0 :].all()
    ]
    filled = [f.path for f in of.metadata_features() if not schema.is_ours(f)]
    return steps, [path for path in filled if path not in episode.metadata]


# --- Example ---------------------------------------------------------------------------------------


def encode(episode: Episode, of: schema.Schema) -> bytes:
    """Returns the record of an episode.

    Raises:
      ValueMismatchError: The schema lacks a feature that the episode has.
    """
    known = of.steps.keys()
    if unknown := episode.columns.keys() - known:
        names = ", ".join(sorted(map(errors.format_path, unknown)))
        raise errors.ValueMismatchError(
            f"{names}: got values that the dataset has no feature for. "
            "Record into another data_directory."
        )
    raw: dict[str, example.RawFeature] = {}
    for feature in of.steps.values():
        column = _rlds_column(episode, feature)
        name = "/".join((schema.STEPS, *feature.path))
        for suffix, value in features.encode_column(feature, column, nested=True).items():
            raw[name + suffix] = value
    for feature in of.episode.values():
        row = _episode_column(episode, feature)
        for suffix, value in features.encode_column(feature, row, nested=False).items():
            raw["/".join(feature.path) + suffix] = value
    return example.serialize(raw)


def decode(record: bytes, of: schema.Schema) -> Episode:
    """Returns the episode in a record; the twin of `encode`.

    Records of other writers, which say nothing of types and nesting, give dicts of numpy values.

    Raises:
      CorruptDatasetError: The record does not hold what the schema says.
    """
    raw = example.parse(record)
    try:
        return _decode(raw, of)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise errors.CorruptDatasetError(
            f"A record of {len(record)} bytes does not hold an episode: {error!r}."
        ) from error


def _decode(raw: Mapping[str, example.RawFeature], of: schema.Schema) -> Episode:
    restore = _read_restore(raw)
    steps = {
        feature.path: features.decode_column(
            feature, raw, "/".join((schema.STEPS, *feature.path)), nested=True
        )
        for feature in of.steps.values()
        if feature.path[0] != schema.PRESENT
    }
    metadata = {
        feature.path: features.decode_column(feature, raw, "/".join(feature.path), nested=False)[0]
        for feature in of.metadata_features()
    }
    counts = {len(column) for column in steps.values()}
    if len(counts) > 1:
        raise ValueError(f"its features have different numbers of steps, {sorted(counts)}")
    count = max(counts, default=0)
    end = End(restore.get("end", _foreign_end(steps)))
    columns = {
        path: _logged_column(column, of.steps[path], restore.get("first", {}))
        for path, column in steps.items()
        if path[0] not in (schema.IS_FIRST, schema.IS_LAST, schema.IS_TERMINAL)
    }
    if "structures" in restore:
        structures = [tuple(map(structure.from_json, row)) for row in restore["structures"]]
        runs = np.array(restore["runs"], np.int64).reshape(-1, 2)
        if not (runs[:, 1].sum() == count and (runs[:, 0] < len(structures)).all()):
            raise ValueError(f"it has {count} steps, but structures for {runs[:, 1].sum()}")
        metadata_structure = structure.from_json(restore["metadata"])
    else:
        structures = _foreign_structures(columns)
        runs = np.array([(0, 1), (1, count - 1)] if count else [], np.int64).reshape(-1, 2)
        metadata_structure = _nest({path: _foreign_code(value) for path, value in metadata.items()})
    return Episode(
        episode_id=_text(raw.get(schema.EPISODE_ID)),
        end=end,
        step_types=_step_types(steps.get((schema.IS_FIRST,)), count, end),
        structures=structures,
        structure_ids=np.repeat(runs[:, 0], runs[:, 1]),
        columns=columns,
        metadata_structure=metadata_structure,
        metadata=metadata,
    )


def adapt(record: bytes, have: schema.Schema, want: schema.Schema) -> bytes:
    """Returns a record with padding for the features that `want` has and `have` has not.

    Serialized protobuf messages join: a record and the Example of one more feature, end to end, are
    the record with that feature.
    """
    count = count_steps(record, have)
    raw: dict[str, example.RawFeature] = {}
    for feature in want.steps.values():
        if feature.path not in have.steps:
            column = feature.zeros(count)
            if feature.path[0] == schema.PRESENT:
                present = np.full(count, feature.path[1:] in have.steps)
                column = _shift(feature.path[1:], present, np.zeros(1, np.bool_))
            name = "/".join((schema.STEPS, *feature.path))
            for suffix, value in features.encode_column(feature, column, nested=True).items():
                raw[name + suffix] = value
    for feature in want.episode.values():
        if feature.path not in have.episode:
            row = feature.zeros(1)
            if feature.path[0] == schema.PRESENT:
                row = np.array([feature.path[1:] in have.episode])
            for suffix, value in features.encode_column(feature, row, nested=False).items():
                raw["/".join(feature.path) + suffix] = value
    return record + example.serialize(raw) if raw else record


def count_steps(record: bytes, of: schema.Schema) -> int:
    """Returns the number of steps in a record, decoding one column only."""
    raw = example.parse(record)
    flag = of.steps.get((schema.IS_FIRST,)) or next(iter(of.steps.values()))
    name = "/".join((schema.STEPS, *flag.path))
    return len(features.decode_column(flag, raw, name, nested=True))


def _rlds_column(episode: Episode, feature: Feature) -> Column:
    path = feature.path
    count = len(episode)
    if path == (schema.IS_FIRST,):
        return np.asarray(episode.step_types == FIRST_STEP)
    if path == (schema.IS_LAST,):
        return np.asarray(np.arange(count) == count - 1)
    if path == (schema.IS_TERMINAL,):
        return np.asarray((np.arange(count) == count - 1) & _is_terminal(episode))
    if path[0] == schema.PRESENT:
        return _shift(path[1:], episode.present(path[1:]), np.zeros(1, np.bool_))
    column = episode.columns.get(path)
    if column is None:
        return feature.zeros(count)
    return _shift(path, column, feature.zeros(1))


def _shift(path: Path, column: Column, padding: Column) -> Column:
    """Moves what came of an action to the step in which it was taken; pads the last step."""
    if path[0] not in schema.SHIFTED:
        return column
    if isinstance(column, list):
        return [*column[1:], *padding]
    return np.concatenate([column[1:], np.asarray(padding)])


def _logged_column(column: Column, feature: Feature, first: Mapping[str, Any]) -> Column:
    """Undoes `_shift`."""
    if feature.path[0] not in schema.SHIFTED:
        return column
    name = "/".join(feature.path)
    head = feature.zeros(1)
    if name in first:
        shape = [-1 if dim is None else dim for dim in feature.shape]
        # [()] takes the string out of an array of one, which numpy would put into `head` as it is.
        head[0] = np.array(json_codec.decode(first[name]), feature.dtype).reshape(shape)[()]
    if isinstance(column, list):
        return [*head, *column[:-1]]
    return np.concatenate([np.asarray(head), column[:-1]])


def _episode_column(episode: Episode, feature: Feature) -> Column:
    path = feature.path
    if path in episode.metadata:
        value: Any = episode.metadata[path][()]
    elif path == (schema.EPISODE_ID,) and schema.is_ours(feature):
        value = episode.episode_id.encode()
    elif path == (schema.INVALID,) and schema.is_ours(feature):
        value = episode.end is End.KILLED
    elif path == (schema.RESTORE,):
        value = _write_restore(episode)
    elif path[0] == schema.PRESENT:
        value = path[1:] in episode.metadata
    else:
        return feature.zeros(1)
    if feature.is_ragged:
        return [np.asarray(value)]
    column = np.asarray(feature.zeros(1))
    column[0] = value
    return column


def _is_terminal(episode: Episode) -> bool:
    """Whether the environment ended the episode, and said that nothing comes after: discount 0."""
    if episode.end is not End.LAST:
        return False
    paths = _paths(episode.structures[episode.structure_ids[-1]])
    discounts = [episode.columns[path][-1] for path in paths if path[0] == schema.DISCOUNT]
    return bool(discounts) and not any(np.any(value != 0) for value in discounts)


def _paths(structures: tuple[Structure, ...]) -> set[Path]:
    return {
        path
        for name, value in zip(SLOTS, structures, strict=True)
        for path in structure.leaf_paths(value, slot_path(name, value))
    }


# --- what restores the logged values ---------------------------------------------------------------


def _write_restore(episode: Episode) -> bytes:
    """Returns the JSON of the feature `envlogger`; `docs/format.md` describes it."""
    ids = episode.structure_ids
    starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
    lengths = np.diff(np.append(starts, len(ids)))
    restore: dict[str, Any] = {
        "end": episode.end.value,
        "structures": [list(map(structure.to_json, row)) for row in episode.structures],
        "runs": np.stack([ids[starts], lengths], axis=1).reshape(-1).tolist(),
        "metadata": structure.to_json(episode.metadata_structure),
    }
    # The action, reward and discount of the first row have no place in RLDS. As a rule they are
    # None; an environment that gives some, or a scheduler that skips steps, finds them again.
    paths = [path for path in _paths(episode.structures[ids[0]]) if path[0] in schema.SHIFTED]
    if paths:
        restore["first"] = {
            "/".join(path): json_codec.encode(_bytes_to_list(episode.columns[path][0]))
            for path in sorted(paths)
        }
    return json.dumps(restore, separators=(",", ":")).encode()


def _read_restore(raw: Mapping[str, example.RawFeature]) -> dict[str, Any]:
    text = _text(raw.get(schema.RESTORE))
    restore: dict[str, Any] = json.loads(text) if text else {}
    return restore


def _text(raw: example.RawFeature | None) -> str:
    if raw is None or raw.kind != example.BYTES_LIST:
        return ""
    items = example.decode_bytes(raw)
    return str(items[0], "utf-8", "replace") if items else ""


def _bytes_to_list(row: Any) -> Any:
    """Returns a row as a value for JSON: object arrays of bytes as nested lists."""
    array = np.asarray(row, _dtype_of(row))
    return array.tolist() if array.dtype == features.STRING else array


def _own(row: Any) -> npt.NDArray[Any]:
    """Returns a row of a column as an array that may be written to without changing the column."""
    return row.copy() if isinstance(row, np.ndarray) else np.asarray(row, _dtype_of(row))


def _dtype_of(row: Any) -> Any:
    return features.STRING if isinstance(row, bytes) else None


def _step_types(is_first: Column | None, count: int, end: End) -> npt.NDArray[np.uint8]:
    step_types = np.full(count, MID_STEP, np.uint8)
    if is_first is None:
        step_types[:1] = FIRST_STEP
    else:
        step_types[np.asarray(is_first, np.bool_)] = FIRST_STEP
    if end is End.LAST:
        step_types[-1:] = LAST_STEP
    return step_types


# --- records of other writers ----------------------------------------------------------------------


def _foreign_end(steps: Mapping[Path, Column]) -> str:
    flags = steps.get((schema.IS_LAST,))
    return End.LAST.value if flags is None or bool(np.any(flags)) else End.RESET.value


def _foreign_structures(columns: Mapping[Path, Column]) -> list[tuple[Structure, ...]]:
    """Returns the structures of the first row, which has no action, and of all the others."""
    codes = {path: _foreign_code(column[0]) for path, column in columns.items() if len(column)}
    tree: dict[str, Any] = _nest(codes) or {}
    slots = [tree.pop(name, None) for name in SLOTS[:-1]]
    custom = tree or None
    return [(slots[0], None, None, None, custom), (*slots, custom)]


def _foreign_code(row: Any) -> str:
    if np.ndim(row):
        return "a"
    return "y" if _dtype_of(row) == features.STRING or np.asarray(row).dtype == object else "g"


def _nest(leaves: Mapping[Path, str]) -> Structure:
    tree: dict[str, Any] = {}
    for path, code in leaves.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = code
    return tree or None


__all__ = ["SLOTS", "Encoding", "End", "Episode", "Row", "count_steps", "decode", "encode", "masks"]
