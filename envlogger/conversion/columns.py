# SPDX-License-Identifier: Apache-2.0
"""From the values of many rows to columns, and a structure that the rows have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from envlogger import errors
from envlogger.conversion.growing_schema import NOT_METADATA, FeatureTable
from envlogger.converters import exact
from envlogger.tfds import features, schema, structure
from envlogger.tfds.features import Column
from envlogger.tfds.structure import Path, Structure

Columns: TypeAlias = dict[Path, Column]

# Python's numbers, which take any dtype that holds them exactly.
_PYTHON_NUMBERS: dict[type, tuple[str, Any]] = {
    bool: ("b", np.bool_),
    int: ("i", np.int64),
    float: ("f", np.float64),
}


class MixedError(Exception):
    """The rows have no structure in common: there must be fewer of them."""


class Flattener:
    """Turns values of rows that look alike into columns, one for each leaf.

    Args:
      table: The features, which are extended as values need it.
    """

    def __init__(self, table: FeatureTable) -> None:
        self._table = table
        # Logs of EnvLogger 1.x have the keys of a dict in any order: the first one stands for all.
        self._orders: dict[tuple[Path, frozenset[Any]], list[Any]] = {}

    def flatten_slot(self, name: str, values: list[Any], into: Columns) -> Structure:
        """Does what `flatten` does for a field of the rows; dicts of metadata lie directly in them."""
        path: Path = (name,)
        if name != schema.CUSTOM_DATA or self._table.is_json(path):
            return self.flatten(values, path, into)
        if not _all_alike([isinstance(value, Mapping) for value in values]):
            raise MixedError
        if not isinstance(values[0], Mapping):
            return self.flatten(values, path, into)
        if any(str(key).partition("/")[0] in NOT_METADATA for value in values for key in value):
            self._table.make_json(path)
        return self.flatten(values, (), into)

    def flatten(self, values: list[Any], path: Path, into: Columns) -> Structure:
        """Adds the leaves of values, one for each row, to `into`; returns their structure.

        Raises:
          MixedError: The rows have no structure in common.
          WidenedError: A feature had to change; begin anew.
        """
        first = values[0]
        if not _all_alike([value is None for value in values]):
            raise MixedError
        if first is None:
            return None
        if self._table.is_json(path):
            into[path] = structure.object_array(
                [structure.encode_as_json(value) for value in values]
            )
            return "j"
        if isinstance(first, Mapping):
            return self._flatten_dicts(values, path, into)
        if isinstance(first, list | tuple):
            return self._flatten_lists(values, path, into)
        try:
            code, column = _encode_leaves(values, path)
        except (errors.UnsupportedValueError, OverflowError):
            self._table.make_json(path)
        return self._fit(path, code, column, into)

    def _flatten_dicts(self, values: list[Any], path: Path, into: Columns) -> Structure:
        if not all(isinstance(value, Mapping) for value in values):
            raise MixedError
        kept = values[0].keys()
        if not all(value.keys() == kept for value in values):
            raise MixedError
        keys = self._orders.setdefault((path, frozenset(kept)), list(kept))
        try:
            names = [structure.check_key(key, path) for key in keys]
        except errors.NameConflictError:
            self._table.make_json(path or (schema.CUSTOM_DATA,))
        if len(set(map(str, names))) < len(names):  # 1 and '1'
            self._table.make_json(path or (schema.CUSTOM_DATA,))
        return {
            name: self.flatten([value[key] for value in values], (*path, str(name)), into)
            for key, name in zip(keys, names, strict=True)
        }

    def _flatten_lists(self, values: list[Any], path: Path, into: Columns) -> Structure:
        kind = list if isinstance(values[0], list) else tuple
        count = len(values[0])
        if not all(isinstance(value, kind) and len(value) == count for value in values):
            raise MixedError
        return kind(
            self.flatten([value[i] for value in values], (*path, str(i)), into)
            for i in range(count)
        )

    def _fit(self, path: Path, code: str, column: Column, into: Columns) -> str:
        """Adds a column as its feature has it; returns the code that restores it."""
        dtype = column[0].dtype if isinstance(column, list) else column.dtype
        shapes = {row.shape for row in column} if isinstance(column, list) else {column.shape[1:]}
        known = self._table.features.get(path)
        is_number = code in ("b", "i", "f")
        if known is not None and dtype != known.dtype and is_number and known.dtype.kind != "c":
            # `reward = 0` among floats is stored as one of them.
            converted = _convert(column, known.dtype)
            if converted is not None:
                column, dtype = converted, known.dtype
        dims = zip(*shapes, strict=True) if len(set(map(len, shapes))) == 1 else None
        if dims is None:
            raise MixedError  # one by one; then the second rank is seen not to fit the first
        shape = tuple(dim[0] if _all_alike(list(dim)) else None for dim in dims)
        can_be_image = all(map(features.is_image_shape, shapes))
        feature = self._table.fit(path, dtype, shape, can_be_image=can_be_image)
        if dtype != feature.dtype:
            wide = _convert(column, feature.dtype)
            if wide is None or not (is_number or code in ("a", "g")):
                self._table.make_json(path)
            column = wide
            if code in ("a", "g"):
                code += dtype.str
        into[path] = column
        return code


def _encode_leaves(values: list[Any], path: Path) -> tuple[str, Column]:
    """Returns the code that leaves have in common, and the column that stores them."""
    kind = type(values[0])
    if not all(type(value) is kind for value in values):
        raise MixedError
    if kind in _PYTHON_NUMBERS:
        code, dtype = _PYTHON_NUMBERS[kind]
        return code, np.array(values, dtype)
    if issubclass(kind, np.ndarray | np.generic):
        dtype = values[0].dtype
        if not all(value.dtype == dtype for value in values):
            raise MixedError
        # What numpy holds as it is stored; the others have codes that say more.
        if dtype.isnative and dtype.kind in "biufc" and dtype.itemsize <= 16:
            code, _ = structure.encode_leaf(values[0], path)
            if kind is not np.ndarray:
                return code, np.frombuffer(b"".join([v.tobytes() for v in values]), dtype)
            if code == "a" and _all_alike([value.shape for value in values]):
                return code, np.stack(values)
    encoded = [structure.encode_leaf(value, path) for value in values]
    code = encoded[0][0]
    if not all(other == code for other, _ in encoded):
        raise MixedError
    arrays = [array for _, array in encoded]
    if _all_alike([array.shape for array in arrays]):
        return code, np.stack(arrays)
    return code, arrays


def _convert(column: Column, dtype: np.dtype[Any]) -> Column | None:
    """Returns a column of numbers with another dtype, or None where that is not exact."""
    if isinstance(column, list):
        rows = [_convert(row, dtype) for row in column]
        return None if any(row is None for row in rows) else rows  # type: ignore[return-value]
    return exact.convert(column, dtype)


def _all_alike(items: list[Any]) -> bool:
    return items.count(items[0]) == len(items)
