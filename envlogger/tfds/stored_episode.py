# SPDX-License-Identifier: Apache-2.0
"""An episode as it lies in a record, decoded as far as it is asked for.

A column is decoded when it is first needed, all its rows at once; images, and whatever else each row
has to be decoded for by itself, row by row. Steps are built from stretches of columns, by functions
that are made once for each structure (see `structure`), since most episodes have the same ones.

`record` writes what is read here, and shows how logged rows and the steps of RLDS are aligned.
"""

from __future__ import annotations

import bisect
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import dm_env
import numpy as np
import numpy.typing as npt

from envlogger import errors, step_data
from envlogger.converters import json_codec
from envlogger.options import select_names
from envlogger.tfds import (
    example,
    features,
    images,
    moulds,
    row_forms,
    schema,
    step_types,
    structure,
    views,
)
from envlogger.tfds.episode import End, slot_path
from envlogger.tfds.features import Column, EncodedColumn, Encoding, Feature
from envlogger.tfds.partial_record import PartialRecord, Places, RecordOnDisk
from envlogger.tfds.structure import Path

# Steps are built in stretches of about so many bytes: so many are in memory at a time.
_STRETCH_BYTES = 1 << 22

_PLACE_BYTES = 150  # a tuple of integers, and its place in a list or dict
_POINTER_BYTES = 8  # of a tuple, to the type of a step
# Columns up to this size are kept for the next time that their episode is opened.
_SMALL_COLUMN = 1 << 14
_IMAGES = (Encoding.PNG, Encoding.JPEG)

_LAST = dm_env.StepType.LAST
_IS_FIRST = f"{schema.STEPS}/{schema.IS_FIRST}"

_START = operator.itemgetter(0)
_ALL = slice(None)


class Outline:
    """What was found out about an episode, for the next time that it is opened. Threads may share it.

    Attributes:
      places: Where what is in its record.
      form: How its values were logged.
      num_steps: How many rows it has, once they were counted.
      step_types: The type of each row, once they were asked for.
      columns: Small columns, by path, as far as they were asked for.
    """

    def __init__(self, places: Places, form: row_forms.Form) -> None:
        self.places = places
        self.form = form
        self.num_steps = form.num_steps
        self.step_types = form.step_types
        self.columns: dict[Path, npt.NDArray[Any]] = {}


class Decoder:
    """Decodes the records of one schema.

    Args:
      of: The schema; it must not change meanwhile.
    """

    def __init__(self, of: schema.Schema) -> None:
        self.steps = {
            path: (feature, "/".join((schema.STEPS, *path))) for path, feature in of.steps.items()
        }
        self.paths = {"/".join(path): path for path in of.steps}
        self.metadata = {f.path: f for f in of.metadata_features()}
        self.row_bytes = sum(_row_bytes(feature) for feature in of.steps.values()) or 1
        self.kept_bytes = sum(_kept_bytes(feature) for feature in of.steps.values())
        self.num_encoded = sum(f.encoding in _IMAGES for f in of.steps.values())
        self.has_large_rows = any(map(features.has_large_rows, of.steps.values()))
        self.images = [path for path, feature in of.steps.items() if _is_large_image(feature)]
        self._parser = example.Parser()
        self._foreign = row_forms.foreign_form(of)

    def decode(self, record: bytes, where: str) -> StoredEpisode:
        """Returns the episode in a record.

        Records of other writers, which say nothing of types and nesting, give dicts of numpy values.

        Args:
          record: A serialized Example.
          where: The file that it is in, for messages.

        Raises:
          CorruptDatasetError: The record is not one of an episode. What its features hold is seen
            when they are asked for.
        """
        try:
            layout = self._parser.layout_of(record)
            if layout.notes is None:
                layout.notes = moulds.Likeness()
            form = self._form_of(layout.list_in(record, schema.RESTORE))
            return StoredEpisode(self, record, layout, form, len(record), where)
        except row_forms.DAMAGE as error:
            raise _located(where, error) from error

    def open(
        self, record: RecordOnDisk, where: str, outline: Outline | None = None
    ) -> StoredEpisode:
        """Returns the episode in a record of which parts are read when they are asked for.

        Args:
          record: A serialized Example.
          where: The file that it is in, for messages.
          outline: What is known of it: the `outline` of an episode that it held before.

        Raises:
          CorruptDatasetError: The record is not one of an episode.
        """
        try:
            raw = PartialRecord(record, None if outline is None else outline.places)
            if outline is None:
                outline = Outline(raw.places, self._form_of(raw.list_bytes(schema.RESTORE)))
            size, form = raw.num_bytes, outline.form
            return StoredEpisode(self, raw, raw.layout, form, size, where, outline)
        except row_forms.DAMAGE as error:
            raise _located(where, error) from error

    def _form_of(self, texts: bytes) -> row_forms.Form:
        return row_forms.form_of(texts) or self._foreign


class StoredEpisode:
    """An episode of T steps in a record. Threads may share one.

    Args:
      decoder: Of the schema.
      record: The record.
      layout: Where its features are.
      form: How its values were logged.
      size: How many bytes of the record are in memory.
      where: The file that it is in, for messages.
      outline: What is known of the episode, if parts of the record are read when they are asked for.

    All methods raise CorruptDatasetError where the record does not hold what the schema says.
    """

    # A dict of attributes for each would take as long as a column.
    __slots__ = (
        "_columns",
        "_decoder",
        "_form",
        "_known_types",
        "_layout",
        "_num_steps",
        "_record",
        "_where",
        "num_bytes",
        "outline",
    )

    def __init__(
        self,
        decoder: Decoder,
        record: bytes | PartialRecord,
        layout: example.Layout,
        form: row_forms.Form,
        size: int,
        where: str,
        outline: Outline | None = None,
    ) -> None:
        self.outline = outline
        self._decoder = decoder
        self._where = where
        self._record = record
        self._layout = layout
        self._form = form
        self._columns: dict[Path, Column | EncodedColumn] = {}
        known = form if outline is None else outline
        self._known_types = known.step_types
        if outline is not None:
            self._columns.update(outline.columns)
        self._num_steps = self._count() if known.num_steps is None else known.num_steps
        if outline is not None:
            outline.num_steps = self._num_steps
        # What it takes in memory once all its columns have been asked for.
        self.num_bytes = size + self._num_steps * decoder.kept_bytes

    def __len__(self) -> int:
        """Returns the number of steps."""
        return self._num_steps

    @property
    def is_partial(self) -> bool:
        """Whether most of the record is on disk, and read when it is asked for."""
        return isinstance(self._record, PartialRecord)

    @property
    def outline_bytes(self) -> int:
        """About how much memory `outline` takes once all columns have been asked for."""
        count = self._num_steps
        places = len(self._layout) + count * self._decoder.num_encoded
        columns = (count * _row_bytes(feature) for feature, _ in self._decoder.steps.values())
        kept = sum(size for size in columns if size <= _SMALL_COLUMN)
        return _PLACE_BYTES * places + kept + _POINTER_BYTES * count

    @property
    def end(self) -> End:
        """How the episode ended; for records of others, LAST if its last step is."""
        if self._form.end is not None:
            return self._form.end
        return End.LAST if self.step_types[-1:] == (_LAST,) else End.RESET

    @property
    def step_types(self) -> tuple[dm_env.StepType, ...]:
        """The type of each row."""
        types = self._known_types
        if types is None:
            if self._form.is_aligned:
                types = self._types_by_flags()
            else:
                record = self._record
                flags = (
                    record.list_bytes(_IS_FIRST)
                    if isinstance(record, PartialRecord)
                    else self._layout.list_in(record, _IS_FIRST)
                )
                types = step_types.of_rows(flags, self._num_steps, self._form.end is End.LAST)
            self._known_types = types
            if self.outline is not None:
                self.outline.step_types = types
        return types

    def step(self, index: int) -> step_data.StepData:
        """Returns a step as it was logged."""
        return next(self.rows(index, index + 1))

    def rows(self, start: int, stop: int) -> Iterator[step_data.StepData]:
        """Yields steps [start, stop), as they were logged."""
        size = max(_STRETCH_BYTES // self._decoder.row_bytes, 1)
        if start == 0 and 0 < stop == self._num_steps <= size:
            return self._build_all()
        if 0 < stop - start <= size:
            return self._build(start, stop)
        stretches = (self._build(i, min(i + size, stop)) for i in range(start, stop, size))
        return itertools.chain.from_iterable(stretches)

    def columns(self, fields: Sequence[str] | None, rows: Any) -> dict[str, Any]:
        """Returns columns in the alignment of RLDS; see `backends.sequences.EpisodeSteps.columns`."""
        record = self._record
        is_whole = fields is None and isinstance(rows, slice) and rows == _ALL
        if not is_whole or isinstance(record, PartialRecord):
            return self._make_columns(fields, rows)
        likeness: moulds.Likeness = self._layout.notes
        mould = likeness.columns.get(self._form)
        columns = None if mould is None else mould(record, self)
        if columns is None:
            columns = self._make_columns(fields, rows)
            likeness.learn_columns(self._form, record, self._num_steps, self._decoder.steps)
        return columns

    def _make_columns(self, fields: Sequence[str] | None, rows: Any) -> dict[str, Any]:
        paths = self._decoder.paths
        names = select_names("fields", fields, paths, "the steps")
        return structure.nest({paths[name]: self.column(paths[name], rows) for name in names})

    def column(self, path: Path, rows: Any) -> npt.NDArray[Any]:
        """Returns rows (a slice, or an array of indices) of a column, as an array of its own."""
        try:
            column = self._column(path)
            if isinstance(column, np.ndarray):
                # An index array gives a copy already; a slice gives a view.
                return column[rows].copy() if isinstance(rows, slice) else column[rows]
            return self._stack(path, column, rows)
        except row_forms.DAMAGE as error:
            raise _located(self._where, error) from error

    def _stack(
        self, path: Path, column: list[npt.NDArray[Any]] | EncodedColumn, rows: Any
    ) -> npt.NDArray[Any]:
        """Returns rows of a column that is not an array as one."""
        feature, _ = self._decoder.steps[path]
        places = range(len(column))[rows] if isinstance(rows, slice) else rows
        if isinstance(column, EncodedColumn):
            return column.stack(places, feature)
        return features.stack([column[i].copy() for i in places], feature)

    def metadata_value(self) -> Any:
        """Returns what `episode_fn` returned last, or None."""
        value = self._form.metadata
        if self._form.end is None:  # of another writer, whose features may be optional
            value = row_forms.without(value, self._layout)
        path = slot_path(schema.CUSTOM_DATA, value)
        try:
            return structure.unflatten(value, path, self._metadata_leaf)
        except row_forms.DAMAGE as error:
            raise _located(self._where, error) from error

    def stored(self, path: Path, start: int, stop: int) -> Any:
        """Returns what the steps [start, stop) have at a path: an array, or a list of them."""
        column = self._column(path)
        if isinstance(column, np.ndarray):
            return column[start:stop]
        if isinstance(column, list):
            return [row.copy() for row in column[start:stop]]
        return [column.row(start)] if stop - start == 1 else column[start:stop]

    def first(self, path: Path) -> Any:
        """Returns what came of the action of the first row, which no step has; an array (1, ...)."""
        feature, _ = self._decoder.steps[path]
        value = json_codec.decode(self._form.first["/".join(path)])
        shape = [-1 if dim is None else dim for dim in feature.shape]
        row = np.array(value, feature.dtype).reshape(shape)
        return [row] if feature.is_ragged else row[None]

    @property
    def _raw(self) -> Mapping[str, example.RawFeature]:
        """The features of the record."""
        record = self._record
        if isinstance(record, PartialRecord):
            return record
        return example.ParsedRecord(record, self._layout)

    def _build_all(self) -> Iterator[step_data.StepData]:
        record = self._record
        if isinstance(record, PartialRecord):
            return self._build(0, self._num_steps)
        likeness: moulds.Likeness = self._layout.notes
        mould = likeness.steps.get(self._form)
        try:
            steps = None if mould is None else mould(record, self)
        except row_forms.DAMAGE as error:
            raise _located(self._where, error) from error
        if steps is None:
            steps = self._build(0, self._num_steps)
            likeness.learn_steps(self._form, record, self._layout, self.step_types)
        return steps

    def _build(self, start: int, stop: int) -> Iterator[step_data.StepData]:
        try:
            if stop - start == 1 and len(self._decoder.images) > 1:
                columns = map(self._column, self._decoder.images)
                encoded = [column for column in columns if isinstance(column, EncodedColumn)]
                EncodedColumn.decode_together(encoded, start)
            slots = [self._values(stretches, start, stop) for stretches in self._form.slots]
            return moulds.assemble(self.step_types[start:stop], *slots)
        except row_forms.DAMAGE as error:
            raise _located(self._where, error) from error

    def _values(
        self, stretches: Sequence[row_forms.Stretch], start: int, stop: int
    ) -> Iterable[Any]:
        """Returns the values that rows [start, stop) have in a slot."""
        number = bisect.bisect_right(stretches, start, key=_START) - 1 if start else 0
        stretch = stretches[number]
        if stop <= stretch.stop:
            return stretch.values(self, start, stop)
        parts = []
        while stop > stretch.stop:
            parts.append(stretch.values(self, start, stretch.stop))
            number += 1
            stretch = stretches[number]
            start = stretch.start
        return itertools.chain(*parts, stretch.values(self, start, stop))

    def _column(self, path: Path) -> Column | EncodedColumn:
        column = self._columns.get(path)
        if column is None:
            if path not in self._decoder.steps:
                raise errors.CorruptDatasetError(
                    f"{'/'.join(path)}: a record has values of this name, but features.json has no "
                    "such feature."
                )
            column = self._decode(path)
            if len(column) != self._num_steps:
                raise errors.CorruptDatasetError(
                    f"{self._decoder.steps[path][1]}: a record has {len(column)} steps of this feature, expected "
                    f"{self._num_steps} as of the others."
                )
            self._columns[path] = column
            if self.outline is not None and _is_small(column):
                self.outline.columns[path] = column
        return column

    def _decode(self, path: Path) -> Column | EncodedColumn:
        record = self._record
        if isinstance(record, PartialRecord):
            feature, name = self._decoder.steps[path]
            return features.decode_column(feature, record, name, nested=True)
        known: dict[Path, views.View | None] = self._layout.notes.views
        view = known.get(path)
        if view is not None and (found := view.column(record)) is not None:
            return found
        feature, name = self._decoder.steps[path]
        column = features.decode_column(feature, self._raw, name, nested=True)
        if path not in known and name in self._layout:
            _, start, stop = self._layout[name]
            known[path] = views.find(feature, column, record, start, stop)
        return column

    def _count(self) -> int:
        """Returns the number of steps of a record that does not say it."""
        if not self._decoder.steps:
            return 0
        path: Path = (schema.IS_FIRST,)
        if path not in self._decoder.steps:  # what is decoded fastest
            path = min(self._decoder.steps, key=lambda path: _cost(self._decoder.steps[path][0]))
        self._columns[path] = column = self._decode(path)
        return len(column)

    def _types_by_flags(self) -> tuple[dm_env.StepType, ...]:
        first, last = (
            self.column(path, _ALL) if path in self._decoder.steps else None
            for path in ((schema.IS_FIRST,), (schema.IS_LAST,))
        )
        return step_types.of_flags(first, last, self._num_steps)

    def _metadata_leaf(self, path: Path) -> Any:
        feature, name = self._decoder.metadata[path], "/".join(path)
        row = features.decode_column(feature, self._raw, name, nested=False)[0]
        dtype = feature.dtype if feature.dtype == features.STRING else None
        return np.array(row, dtype)


def decode(record: bytes, of: schema.Schema) -> StoredEpisode:
    """Returns the episode in a record; for many of one schema a `Decoder` is faster."""
    return Decoder(of).decode(record, f"A record of {len(record)} bytes")


def _located(where: str, error: Exception) -> errors.CorruptDatasetError:
    is_ours = isinstance(error, errors.CorruptDatasetError)
    detail = str(error) if is_ours else f"a record does not hold an episode: {error!r}."
    return errors.CorruptDatasetError(f"{where}: {detail}")


def _is_small(column: Column | EncodedColumn) -> TypeGuard[npt.NDArray[Any]]:
    """Whether a column may be kept: an array that has its memory to itself, or nearly so."""
    return (
        isinstance(column, np.ndarray)
        and column.dtype != features.STRING
        and column.nbytes <= _SMALL_COLUMN
    )


def _is_large_image(feature: Feature) -> bool:
    """Whether to decode an image takes so long that threads pay."""
    is_encoded = feature.encoding in _IMAGES
    return is_encoded and not feature.is_ragged and _row_bytes(feature) >= images.LARGE_BYTES


def _row_bytes(feature: Feature) -> int:
    """Returns about how much memory a decoded row takes."""
    overhead = 64 if feature.dtype == features.STRING or feature.is_ragged else 0
    return feature.size * feature.dtype.itemsize + overhead


def _kept_bytes(feature: Feature) -> int:
    """Returns about how much memory a row of a decoded column takes beside the record."""
    encoding = feature.encoding
    if encoding is Encoding.BYTES and not feature.is_ragged:
        return 0  # a view into the record
    if encoding in (Encoding.PLAIN, Encoding.STRING):
        return _row_bytes(feature)
    return 200 + (
        0 if feature.is_ragged and encoding is not Encoding.SEQUENCE else _row_bytes(feature)
    )


def _cost(feature: Feature) -> int:
    return _row_bytes(feature) + (1 << 20 if feature.encoding is Encoding.SEQUENCE else 0)
