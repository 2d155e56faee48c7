# SPDX-License-Identifier: Apache-2.0
"""Compiles what makes the steps or columns of an episode, where episodes like it were read before.

In a short episode, most of the time goes into finding out what is where, and of what type. But most
episodes of a run are alike: their records have the same layout (see `example.Parser`), and say the same
of how their values were logged (see `row_forms`). For these there is a mould, made in the way of
`row_compiler`, as `template` is for writing: straight-line code which compares what stands between the
values (see `views`), takes the columns and makes the steps of them. Given a record that differs, it returns
None, and the general path (`stored_episode.StoredEpisode`) decides.

For an observation (10, 5) of float32 and an int action it reads:

    def cast(record, rows):
        if record[25:37] != C0: return None
        if record[135:138] != C1: return None
        if record[2158:2160] != C2: return None
        if not record[2160:2170].isascii(): return None
        …
        return assemble(
            TYPES,
            [row.copy() for row in ndarray(C3, C4, record, 138, C5)],
            chain(repeat(None, 1), record[2160:2169]),
            chain(repeat(None, 1), C6(record, 2192)),
            …
        )

Columns that have to be decoded anew in each record, such as strings, are.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

import dm_env
import numpy as np
import numpy.typing as npt

from envlogger import step_data
from envlogger.tfds import row_forms, schema, structure, views
from envlogger.tfds.episode import SLOTS
from envlogger.tfds.example import Layout
from envlogger.tfds.structure import Path, Structure

Made = TypeVar("Made")
# Of a record, and of its rows, the steps or the columns; None where it is not like the others.
Mould: TypeAlias = Callable[[bytes, row_forms.Rows], Made | None]

# To compile a mould takes as long as it saves in so many short episodes, or a little longer.
_WORTH_IT = 16
# Records of one length with the same features, as a rule say the same of how they were logged.
_MAX_FORMS = 16

# `TimeStep(*values)` takes half as long again.
_NEW: Callable[[Any, Any], Any] = tuple.__new__
_TIME_STEPS, _STEPS = itertools.repeat(dm_env.TimeStep), itertools.repeat(step_data.StepData)

_DOUBLE = np.dtype("<f8")
_MAX_UNPACKED = 1 << 10  # `struct` takes memory for each
_FLAGS = [f"{schema.STEPS}/{name}" for name in (schema.IS_FIRST, schema.IS_LAST)]


def assemble(
    types: Iterable[dm_env.StepType],
    observation: Iterable[Any],
    action: Iterable[Any],
    reward: Iterable[Any],
    discount: Iterable[Any],
    custom_data: Iterable[Any],
) -> Iterator[step_data.StepData]:
    """Yields the steps that have these values."""
    timesteps = map(_NEW, _TIME_STEPS, zip(types, reward, discount, observation, strict=False))
    return map(_NEW, _STEPS, zip(timesteps, action, custom_data, strict=False))


class Likeness:
    """What records of one layout have in common. Threads may share it.

    Attributes:
      views: What takes columns out of them, by path; None where they have to be decoded.
      steps: By how their values were logged, what makes their steps.
      columns: The same for their columns, as `backends.sequences.EpisodeSteps.columns` has them.
    """

    def __init__(self) -> None:
        self.views: dict[Path, views.View | None] = {}
        self.steps: dict[row_forms.Form, Mould[Iterator[step_data.StepData]]] = {}
        self.columns: dict[row_forms.Form, Mould[dict[str, Any]]] = {}
        self._seen: dict[tuple[str, row_forms.Form], int] = {}

    def learn_steps(
        self,
        form: row_forms.Form,
        record: bytes,
        layout: Layout,
        types: tuple[dm_env.StepType, ...],
    ) -> None:
        """Takes notice of a record whose steps have been made without a mould.

        Args:
          form: How its values were logged.
          record: The record.
          layout: Its layout, which is that of the others.
          types: The types of its rows.
        """
        if form not in self.steps and self._is_worth_it("steps", form):
            compiler = _Compiler(form, self.views, record, len(types))
            self.steps[form] = compiler.compile_steps(layout, types)

    def learn_columns(
        self, form: row_forms.Form, record: bytes, num_steps: int, paths: Iterable[Path]
    ) -> None:
        """Takes notice of a record whose columns have been made without a mould.

        Args:
          form: How its values were logged.
          record: The record.
          num_steps: How many rows it has.
          paths: The columns, which are all of them.
        """
        if form not in self.columns and self._is_worth_it("columns", form):
            compiler = _Compiler(form, self.views, record, num_steps)
            self.columns[form] = compiler.compile_columns(paths)

    def _is_worth_it(self, what: str, form: row_forms.Form) -> bool:
        seen = self._seen.get((what, form), 0) + 1
        if seen == 1 and len(self._seen) >= _MAX_FORMS:
            self._seen.clear()
            self.steps.clear()
            self.columns.clear()
        self._seen[what, form] = seen
        return seen >= _WORTH_IT


class _Compiler:
    """Collects the lines of a mould.

    Args:
      form: How the values of the records were logged.
      known: The views of columns.
      record: One of the records.
      num_steps: How many rows it has.
    """

    def __init__(
        self,
        form: row_forms.Form,
        known: Mapping[Path, views.View | None],
        record: bytes,
        num_steps: int,
    ) -> None:
        self._form = form
        self._views = known
        self._record = record
        self._num_steps = num_steps
        self._checks: dict[str, None] = {}  # in order, and each once
        if form.num_steps is None:
            self._checks[f"if len(rows) != {num_steps}: return None"] = None
        self._constants: dict[str, Any] = {
            "ALL": slice(None),
            "assemble": assemble,
            "chain": itertools.chain,
            "decode_leaves": structure.decode_leaves,
            "ndarray": np.ndarray,
            "repeat": itertools.repeat,
        }

    def compile_steps(
        self, layout: Layout, types: tuple[dm_env.StepType, ...]
    ) -> Mould[Iterator[step_data.StepData]]:
        """Returns what makes steps."""
        slots = [
            self._slot(int(name in schema.SHIFTED), stretches)
            for name, stretches in zip(SLOTS, self._form.slots, strict=True)
        ]
        return self._finish(f"assemble({', '.join([self._types(layout, types), *slots])})")

    def compile_columns(self, paths: Iterable[Path]) -> Mould[dict[str, Any]]:
        """Returns what makes columns, each an array of its own."""
        rows = range(self._num_steps)
        leaves = {}
        for path in paths:
            found = self._find(path)
            if found is None:
                leaves[path] = f"rows.column({path!r}, ALL)"
            else:
                copy = ".copy()" if found[0].varints is None else ""
                leaves[path] = self._array(*found, rows) + copy
        return self._finish(_display(structure.nest(leaves)))

    def _finish(self, result: str) -> Mould[Any]:
        lines = ["def cast(record, rows):", *self._checks, f"return {result}"]
        exec(compile("\n    ".join(lines), "<moulds>", "exec"), self._constants)
        mould: Mould[Any] = self._constants["cast"]
        return mould

    def _types(self, layout: Layout, types: tuple[dm_env.StepType, ...]) -> str:
        """Returns an expression for the types of the rows, which follow from two of the flags."""
        if not all(name in layout for name in _FLAGS):
            return "rows.step_types"
        for name in _FLAGS:
            _, start, stop = layout[name]
            self._compare(slice(start, stop), self._record[start:stop])
        return self._constant(types)

    def _slot(self, shift: int, stretches: Iterable[row_forms.Stretch]) -> str:
        """Returns an expression for the values of a slot."""
        parts = []
        for stretch in stretches:
            start, stop = stretch.start, min(stretch.stop, self._num_steps)
            if start < stop:
                rows = range(start - shift, stop - shift)
                parts.append(self._values(stretch.structure, stretch.path, rows))
        return parts[0] if len(parts) == 1 else f"chain({', '.join(parts)})"

    def _values(self, value: Structure, path: Path, rows: range) -> str:
        """Returns an expression for the values of rows of one structure."""
        if value is None:
            return f"repeat(None, {len(rows)})"
        items = row_forms.items_of(value)
        if items is None:
            return self._leaf(value, path, rows)
        make = self._constant(row_forms.maker_of(value))
        parts = [self._values(item, (*path, str(key)), rows) for key, item in items]
        return f"map({make}, {', '.join(parts)})" if parts else f"[{make}() for _ in {rows}]"

    def _leaf(self, code: str, path: Path, rows: range) -> str:
        if rows.start < 0:
            return f"decode_leaves({code!r}, rows.first({path!r}))"
        found = self._find(path)
        if found is None:
            return f"decode_leaves({code!r}, rows.stored({path!r}, {rows.start}, {rows.stop}))"
        view, column = found
        decode = structure.leaf_decoder(code, column.dtype, column.ndim)
        if decode is np.ndarray.tolist:
            stride = view.strides[0]
            start = view.offset + rows.start * stride
            if view.varints is not None:
                numbers = f"record[{start}:{start + len(rows)}]"
                return f"map(bool, {numbers})" if column.dtype == np.bool_ else numbers
            if view.dtype == _DOUBLE and len(rows) <= _MAX_UNPACKED:
                gap = f"{stride - _DOUBLE.itemsize}x"
                unpack = struct.Struct(f"<{gap.join('d' * len(rows))}").unpack_from
                return f"{self._constant(unpack)}(record, {start})"
        array = self._array(view, column, rows)
        if decode is structure.copy_rows:
            return f"[row.copy() for row in {array}]"
        return f"{self._constant(decode)}({array})"

    def _find(self, path: Path) -> tuple[views.View, npt.NDArray[Any]] | None:
        """Returns the view of a column, which is compared from now on, and what it is in the record."""
        view = self._views.get(path)
        column = None if view is None else view.column(self._record)
        if view is None or column is None or len(column) != self._num_steps:
            return None
        for where, expected in view.fixed:
            self._compare(where, expected)
        if view.varints is not None:
            self._checks[f"if not record[{_index(view.varints)}].isascii(): return None"] = None
        return view, column

    def _array(self, view: views.View, column: npt.NDArray[Any], rows: range) -> str:
        """Returns an expression for rows of a column; an array of its own if they are varints."""
        shape = self._constant((len(rows), *column.shape[1:]))
        strides, dtype = self._constant(view.strides), self._constant(view.dtype)
        start = view.offset + rows.start * view.strides[0]
        array = f"ndarray({shape}, {dtype}, record, {start}, {strides})"
        return array if view.varints is None else f"{array}.astype({self._constant(column.dtype)})"

    def _compare(self, where: slice, expected: bytes) -> None:
        check = f"if record[{_index(where)}] != {self._constant(expected)}: return None"
        self._checks[check] = None

    def _constant(self, value: Any) -> str:
        name = f"C{len(self._constants)}"
        self._constants[name] = value
        return name


def _display(tree: Any) -> str:
    """Returns a nest of dicts, whose leaves are expressions, as one expression."""
    if not isinstance(tree, dict):
        return str(tree)
    return f"{{{', '.join(f'{key!r}: {_display(item)}' for key, item in tree.items())}}}"


def _index(where: slice) -> str:
    step = "" if where.step is None else f":{where.step}"
    return f"{where.start}:{where.stop}{step}"
