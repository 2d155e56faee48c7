# SPDX-License-Identifier: Apache-2.0
"""An episode as a `tf.train.Example`, in the alignment of RLDS.

    logged row      0 (FIRST)      1             2             3 (LAST)
    observation     o0             o1            o2            o3
    action, reward  -              a1, r1        a2, r2        a3, r3

    RLDS step       0              1             2             3
    observation     o0             o1            o2            o3
    action, reward  a1, r1         a2, r2        a3, r3        padding
    is_first        True           False         False         False
    is_last         False          False         False         True

What `step_fn` made of a row stays with its observation. The last step is always `is_last`, however
the episode ended; it is `is_terminal` only where the environment ended it with discount 0.

Rows that are steps of RLDS already are not shifted, and their last one is no padding: `Pattern.is_aligned`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from envlogger import errors
from envlogger.converters import json_codec
from envlogger.tfds import example, features, schema, structure, template
from envlogger.tfds.episode import (
    FIRST_STEP,
    End,
    Episode,
    Pattern,
    dtype_of,
)
from envlogger.tfds.features import Chunks, Column, Feature
from envlogger.tfds.structure import Path

_FLAGS = (schema.IS_FIRST, schema.IS_LAST, schema.IS_TERMINAL)
_TEXTS = ((schema.EPISODE_ID,), (schema.RESTORE,))
_MAX_KINDS = 1024
_MAX_TEMPLATES = 16

# (is_first, is_last, is_terminal), of the first step and of the last.
_Ends: TypeAlias = tuple[bool, bool, bool]
_Kind: TypeAlias = tuple[Pattern, End, _Ends]


class Encoder:
    """Encodes episodes of one schema.

    Args:
      of: The schema; it must not change meanwhile.
    """

    def __init__(self, of: schema.Schema) -> None:
        self._paths = of.steps.keys()
        self._steps = [
            (feature, "/".join((schema.STEPS, *path)), feature.zeros(1))
            for path, feature in of.steps.items()
        ]
        self._episode = [(feature, "/".join(path)) for path, feature in of.episode.items()]
        self._metadata = [f.path for f in of.metadata_features() if not schema.is_ours(f)]
        known_id = of.episode.get((schema.EPISODE_ID,))
        self._has_templates = known_id is not None and schema.is_ours(known_id)
        # By what the record of an episode depends on beside the values of its columns. A template is
        # made when such an episode comes for the second time; None where that cannot be.
        self._templates: dict[_Kind, template.Template | None] = {}
        self._seen: set[_Kind] = set()
        # Masks and padding of the episodes' features: most of what a record has, where each episode has
        # keys of its own.
        self._constants: dict[tuple[str, bool], dict[str, example.RawFeature]] = {}

    def masks(self, episode: Episode) -> tuple[list[Path], list[Path]]:
        """Returns the paths of steps and of episodes that need a mask: there is padding."""
        lacks = episode.pattern.lacks
        steps = [
            path
            for path in self._paths
            if path[0] not in _FLAGS and path[0] != schema.PRESENT and lacks(path)
        ]
        return steps, [path for path in self._metadata if path not in episode.metadata]

    def encode(self, episode: Episode) -> bytes:
        """Returns the record of an episode.

        Raises:
          ValueMismatchError: The schema lacks a feature that the episode has.
        """
        if unknown := episode.columns.keys() - self._paths:
            names = ", ".join(sorted(map(errors.format_path, unknown)))
            raise errors.ValueMismatchError(
                f"{names}: got values that the dataset has no feature for. "
                "Record into another data_directory."
            )
        ends = _ends(episode)
        kind = (episode.pattern, episode.end, ends)
        is_plain = episode.metadata_structure is None and not (
            episode.pattern.first_paths or episode.keeps_types
        )
        if is_plain and (known := self._templates.get(kind)) is not None:
            record = known.fill(episode)
            if record is not None:
                return record
        raw = self._raw(episode, ends)
        if is_plain and self._has_templates:
            self._learn(kind, episode, raw)
        return example.serialize(raw)

    def _learn(self, kind: _Kind, episode: Episode, raw: Mapping[str, example.RawFeature]) -> None:
        if kind not in self._seen:
            if len(self._seen) >= _MAX_KINDS:
                self._seen.clear()
                self._templates.clear()
            self._seen.add(kind)
        elif kind not in self._templates and len(self._templates) < _MAX_TEMPLATES:
            columns = [(f, name) for f, name, _ in self._steps if f.path in episode.columns]
            self._templates[kind] = template.make(episode, raw, columns, schema.EPISODE_ID)

    def _raw(self, episode: Episode, ends: _Ends) -> dict[str, example.RawFeature]:
        raw: dict[str, example.RawFeature] = {}
        for feature, name, padding in self._steps:
            if feature.path[0] in _FLAGS:
                raw[name] = _flag(feature.path[0], len(episode), ends)
                continue
            chunks = _rlds_column(episode, feature, padding)
            for suffix, value in features.encode_column(feature, *chunks, nested=True).items():
                raw[name + suffix] = value
        for feature, name in self._episode:
            is_given = feature.path in episode.metadata
            if feature.path in _TEXTS and schema.is_ours(feature) and not is_given:
                is_id = feature.path == (schema.EPISODE_ID,)
                text = episode.episode_id if is_id else _restore(episode)
                raw[name] = example.bytes_feature([text.encode()])
                continue
            if is_given or feature.path == (schema.INVALID,):
                raw.update(_encode_metadata(episode, feature, name))
                continue
            is_present = feature.path[0] == schema.PRESENT and feature.path[1:] in episode.metadata
            constant = self._constants.get((name, is_present))
            if constant is None:
                constant = _encode_metadata(episode, feature, name)
                self._constants[name, is_present] = constant
            raw.update(constant)
        # Images come last: whoever reads a step of a compressed record need not decompress what is behind.
        return dict(
            sorted(raw.items(), key=lambda item: example.is_large(item[1].kind, item[1].size))
        )


def encode(episode: Episode, of: schema.Schema) -> bytes:
    """Returns the record of an episode; for many of one schema an `Encoder` is faster."""
    return Encoder(of).encode(episode)


def adapt(record: bytes, have: schema.Schema, want: schema.Schema) -> bytes:
    """Returns a record with padding for the features that `want` has and `have` has not.

    What `want` encodes in another way, since it may vary in shape there, is stored anew. Else the record stays
    as it is: serialized protobuf messages join, so a record and the Example of one more feature, end to end,
    are the record with that feature.
    """
    parsed = example.parse(record)
    anew = _stored_anew(parsed, have, want)
    if anew is not None:
        record = example.serialize(anew)
    count = _count_steps(parsed, have)
    is_aligned = _is_aligned(parsed)
    raw: dict[str, example.RawFeature] = {}
    for feature in want.steps.values():
        if feature.path not in have.steps:
            chunks: tuple[Column, ...] = (feature.zeros(count),)
            if feature.path[0] == schema.PRESENT:
                present = np.full(count, feature.path[1:] in have.steps)
                if feature.path[1] in schema.SHIFTED and not is_aligned:
                    present[-1] = False  # the last step's is padding
                chunks = (present,)
            name = "/".join((schema.STEPS, *feature.path))
            for suffix, value in features.encode_column(feature, *chunks, nested=True).items():
                raw[name + suffix] = value
    for feature in want.episode.values():
        if feature.path not in have.episode:
            row = feature.zeros(1)
            if feature.path[0] == schema.PRESENT:
                row = np.array([feature.path[1:] in have.episode])
            for suffix, value in features.encode_column(feature, row, nested=False).items():
                raw["/".join(feature.path) + suffix] = value
    return record + example.serialize(raw) if raw else record


def _stored_anew(
    parsed: Mapping[str, example.RawFeature], have: schema.Schema, want: schema.Schema
) -> dict[str, example.RawFeature] | None:
    """Returns the features of an Example, encoded as `want` has them; None if they are that already."""
    anew = dict(parsed)
    for nested, known, wanted in (
        (True, have.steps, want.steps),
        (False, have.episode, want.episode),
    ):
        for path, feature in wanted.items():
            if path in known and known[path].encoding is not feature.encoding:
                name = "/".join((schema.STEPS, *path) if nested else path)
                rows = list(features.decode_column(known[path], parsed, name, nested=nested))
                del anew[name]
                for suffix, value in features.encode_column(feature, rows, nested=nested).items():
                    anew[name + suffix] = value
    return anew if anew != parsed else None


def count_steps(record: bytes, of: schema.Schema) -> int:
    """Returns the number of steps in a record of this library."""
    return _count_steps(example.parse(record), of)


def _count_steps(raw: Mapping[str, example.RawFeature], of: schema.Schema) -> int:
    flag = of.steps[(schema.IS_FIRST,)]
    return len(features.decode_column(flag, raw, f"{schema.STEPS}/{schema.IS_FIRST}", nested=True))


def _is_aligned(raw: Mapping[str, example.RawFeature]) -> bool:
    """Whether the rows of a record were steps of RLDS."""
    items = example.decode_bytes(raw[schema.RESTORE])
    return bool(json.loads(bytes(items[0])).get("aligned", False))


def _flag(name: str, count: int, ends: _Ends) -> example.RawFeature:
    is_first = name == schema.IS_FIRST
    return _flags(count, 0 if is_first else count - 1, ends[_FLAGS.index(name)])


@functools.lru_cache(maxsize=4096)
def _flags(count: int, place: int, value: bool) -> example.RawFeature:
    """Returns flags that are all False, but for one."""
    flags = np.zeros(count, np.bool_)
    flags[place] = value
    return example.int64_feature(flags)


def _rlds_column(episode: Episode, feature: Feature, padding: Column) -> tuple[Column, ...]:
    """Returns the steps' values of a feature, in one or more chunks."""
    path = feature.path
    if path[0] == schema.PRESENT:
        present = episode.pattern.present(path[1:])
        return _shift(episode, path[1:], present, np.zeros(1, np.bool_))
    column = episode.columns.get(path)
    if column is None:
        return (feature.zeros(len(episode)),)
    return _shift(episode, path, column, padding)


def _shift(
    episode: Episode, path: Path, column: Column | Chunks, padding: Column
) -> tuple[Column, ...]:
    """Moves what came of an action to the step in which it was taken; pads the last step."""
    chunks = column if isinstance(column, Chunks) else (column,)
    if not episode.pattern.is_shifted(path):
        return tuple(chunks)
    return (chunks[0][1:], *chunks[1:], padding)


def _end(column: Column | Chunks, index: int) -> Any:
    """Returns the first row of a column (0), or the last (-1)."""
    return column[index][index] if isinstance(column, Chunks) else column[index]


def _encode_metadata(
    episode: Episode, feature: Feature, name: str
) -> dict[str, example.RawFeature]:
    row = _episode_column(episode, feature)
    encoded = features.encode_column(feature, row, nested=False)
    return {name + suffix: value for suffix, value in encoded.items()}


def _episode_column(episode: Episode, feature: Feature) -> Column:
    path = feature.path
    is_ours = path == (schema.INVALID,) and schema.is_ours(feature)
    value: Any
    if is_ours and episode.end is End.KILLED:
        value = True
    elif path in episode.metadata:
        value = episode.metadata[path][()]
    elif is_ours:
        value = False
    elif path[0] == schema.PRESENT:
        value = path[1:] in episode.metadata
    else:
        return feature.zeros(1)
    if feature.is_ragged:
        return [np.asarray(value)]
    column = np.asarray(feature.zeros(1))
    column[0] = value
    return column


def _ends(episode: Episode) -> _Ends:
    """Returns the flags of the first step and of the last; what was cut ends there."""
    is_last = episode.end is not End.OPEN
    if episode.given is None:
        return bool(episode.step_types[0] == FIRST_STEP), is_last, _is_terminal(episode)
    is_terminal = episode.given.is_terminal and episode.end is End.LAST
    return episode.given.is_first, is_last, is_terminal


def _is_terminal(episode: Episode) -> bool:
    """Whether the environment ended the episode, and said that nothing comes after: discount 0."""
    if episode.end is not End.LAST:
        return False
    discounts = [_end(episode.columns[path], -1) for path in episode.pattern.last_discounts]
    with np.errstate(invalid="ignore"):  # a NaN is not 0, whatever kind of NaN it is
        return bool(discounts) and not any(np.any(value != 0) for value in discounts)


# --- what restores the logged values ---------------------------------------------------------------


def _restore(episode: Episode) -> str:
    """Returns the JSON of the feature `envlogger`; `docs/format.md` describes it."""
    metadata = json.dumps(structure.to_json(episode.metadata_structure), separators=(",", ":"))
    end = episode.end.value
    restore = f'"end":"{end}",{episode.pattern.json},"metadata":{metadata}'
    # The action, reward and discount of the first row have no place in RLDS. As a rule they are
    # None; an environment that gives some, or a scheduler that skips steps, finds them again.
    if paths := episode.pattern.first_paths:
        first = {
            "/".join(path): json_codec.encode(_bytes_to_list(_end(episode.columns[path], 0)))
            for path in paths
        }
        restore += f',"first":{json.dumps(first)}'
    if episode.keeps_types:
        restore += f',"types":{json.dumps(episode.step_types.tolist())}'
    if episode.pattern.is_aligned:
        restore += ',"aligned":true'
    return f"{{{restore}}}"


def _bytes_to_list(row: Any) -> Any:
    """Returns a row as a value for JSON: object arrays of bytes as nested lists."""
    array = np.asarray(row, dtype_of(row))
    return array.tolist() if array.dtype == features.STRING else array
