# SPDX-License-Identifier: Apache-2.0
"""Compiles the step path: Python code that checks and stores rows of one structure.

Walking through a nest, and asking of each leaf what it is, takes longer than copying the row. But
nearly all rows of a run look alike. So once a row has gone through the general path
(`recorder.Recorder`, `log_writer.LogWriter.append`), a function is made, in the way of `dataclasses`,
that does the very same for rows of that structure and nothing else: straight-line code which compares
types, dtypes and shapes, copies the leaves and commits. Given any other row it stores nothing and
returns False, and the general path decides.

For an observation (10, 5) of float32 and an int action it reads:

    def write(timestep, action, custom_data, flags):
        step_type, reward, discount, observation = timestep
        if step_type not in STEP_TYPES: return False
        if custom_data is not None: return False
        if observation.__class__ is not T0 or observation.dtype is not D0 or observation.shape != S0: return False
        if action.__class__ is not T1: return False
        …
        place = header[0]
        if place == CAPACITY: return False
        pack_into(buffer, BASE + place * STRIDE, ID, step_type, flags, action, reward, discount)
        at = COLUMN + place * SIZE
        try: buffer[at : at + SIZE] = observation
        except (ValueError, BufferError): C0[place] = observation
        header[0] = place + 1
        return True
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import dm_env
import numpy as np

from envlogger import step_data
from envlogger.tfds import schema, step_log
from envlogger.tfds.features import STRING
from envlogger.tfds.step_log import Layout, Segment
from envlogger.tfds.structure import Path

# (timestep, action, custom_data, flags) -> whether the row was stored.
Write: TypeAlias = Callable[[dm_env.TimeStep, Any, Any, int], bool]
Bind: TypeAlias = Callable[[Segment], Write]

# How `struct` writes a Python or numpy number into a field of the record, bit for bit.
_PACKED: dict[tuple[type, str], str] = {
    (bool, "bool"): "?",
    (int, "int64"): "q",
    (float, "float64"): "d",
    (np.float64, "float64"): "d",
    (np.int64, "int64"): "q",
}
# The one that nearly all rows have is found first.
_STEP_TYPES = (dm_env.StepType.MID, dm_env.StepType.FIRST, dm_env.StepType.LAST)
# Ints up to here are floats, too: `reward = 0` where the column is float64.
_EXACT_INT = 1 << 53


class _UnsupportedError(Exception):
    """The structure has a leaf that only the general path can store."""


def compile_row(data: step_data.StepData, structure_id: int, layout: Layout) -> Bind | None:
    """Returns what makes, for a segment, the function that stores rows like this one.

    Args:
      data: A row that the general path has stored.
      structure_id: The number of its structure.
      layout: The layout of the segments.

    Returns:
      A function from a segment to a `Write`, or None if such rows need the general path.
    """
    compiler = _Compiler(layout)
    timestep = data.timestep
    try:
        compiler.value("observation", timestep.observation, (schema.OBSERVATION,))
        compiler.value("action", data.action, (schema.ACTION,))
        compiler.value("reward", timestep.reward, (schema.REWARD,))
        compiler.value("discount", timestep.discount, (schema.DISCOUNT,))
        custom = data.custom_data
        path = () if isinstance(custom, Mapping) else (schema.CUSTOM_DATA,)
        compiler.value("custom_data", custom, path)
    except _UnsupportedError:
        return None
    return compiler.finish(structure_id)


class _Compiler:
    """Collects the lines that check and store the leaves of a row."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._features = {feature.path: feature for feature in layout.features}
        self._checks: list[str] = []
        self._stores: list[str] = []
        self._packed: dict[Path, str] = {}  # the fields of the record that `struct` writes
        self._formats: dict[Path, str] = {}
        self._columns: list[Path] = []
        self._constants: dict[str, Any] = {}
        self._num_values = 0

    def value(self, name: str, value: Any, path: Path) -> None:
        """Adds a value, held by the local variable `name`, and what it contains."""
        if value is None:
            self._checks.append(f"if {name} is not None: return False")
            return
        self._check(f"{name}.__class__ is not {self._constant('T', type(value))}")
        if isinstance(value, Mapping):
            if hasattr(type(value), "__missing__"):
                raise _UnsupportedError  # a Counter has any key that it is asked for
            self._check(f"len({name}) != {len(value)}")
            items: list[tuple[Any, str, Any]] = [
                (key, str(key), item) for key, item in value.items()
            ]
        elif isinstance(value, list | tuple):
            self._check(f"len({name}) != {len(value)}")
            items = [(i, str(i), item) for i, item in enumerate(value)]
        else:
            self._leaf(name, value, path)
            return
        for key, part, item in items:
            self._num_values += 1
            local = f"v{self._num_values}"
            self._checks.append(f"{local} = {name}[{self._constant('K', key)}]")
            self.value(local, item, (*path, part))

    def finish(self, structure_id: int) -> Bind:
        """Returns the compiled function."""
        layout = self._layout
        fields = ["H", "B", "B"]  # structure, step type, flags
        values = [str(structure_id), "step_type", "flags"]
        for feature in layout.features:
            if not step_log.in_record(feature):
                continue
            if feature.path in self._packed:
                fields.append(self._formats[feature.path])
                values.append(self._packed[feature.path])
            else:
                # Written as a column, or not there; `struct` leaves it as it is only if it may skip.
                size = 16 if step_log.is_varying(feature) else feature.dtype.itemsize
                fields.append(f"{size}x")
        body = [
            "step_type, reward, discount, observation = timestep",
            "if step_type not in STEP_TYPES: return False",
            *self._checks,
            "place = header[0]",
            f"if place == {layout.capacity}: return False",
            f"pack_into(buffer, {layout.records_offset} + place * {layout.record.itemsize}, "
            f"{', '.join(values)})",
            *self._stores,
            "header[0] = place + 1",
            "return True",
        ]
        columns = "".join(f", C{i}" for i in range(len(self._columns)))
        source = "\n".join(
            [
                f"def bind(pack_into, header, buffer{columns}):",
                "    def write(timestep, action, custom_data, flags):",
                "        try:",
                *(f"            {line}" for line in body),
                # A key is missing, an int is too large, a str has no UTF-8, a time step has a fifth
                # field: not such a row.
                "        except (LookupError, Error, ValueError, TypeError, AttributeError):",
                "            return False",
                "    return write",
            ]
        )
        scope = {
            **self._constants,
            "Error": struct.error,
            "STEP_TYPES": _STEP_TYPES,
            "HEAP": layout.heap_offset,
            "HEAP_BYTES": layout.heap_bytes,
        }
        exec(compile(source, "<row_compiler>", "exec"), scope)
        make = scope["bind"]
        pack_into = struct.Struct("<" + "".join(fields)).pack_into
        paths = tuple(self._columns)

        def bind(segment: Segment) -> Write:
            columns = [segment.columns[path] for path in paths]
            write: Write = make(pack_into, segment.header, segment.buffer, *columns)
            return write

        return bind

    def _leaf(self, name: str, value: Any, path: Path) -> None:
        feature = self._features.get(path)
        if feature is None:
            raise _UnsupportedError
        if type(value) is np.ndarray:
            if value.dtype != feature.dtype or step_log.is_varying(feature):
                raise _UnsupportedError
            if not value.dtype.isnative:
                raise _UnsupportedError
            self._check(f"{name}.dtype is not {self._constant('D', value.dtype)}")
            self._check(f"{name}.shape != {value.shape!r}")
            if feature.shape == ():
                self._store_column(name, path)
            else:
                self._store_array(name, path, value.nbytes)
        elif type(value) in (str, bytes) and feature.dtype == STRING and feature.shape == ():
            self._store_string(name, value, path)
        elif (key := (type(value), feature.dtype.name)) in _PACKED:
            self._packed[path], self._formats[path] = name, _PACKED[key]
        elif type(value) is int and feature.dtype == np.float64:
            self._check(f"not {-_EXACT_INT} <= {name} <= {_EXACT_INT}")
            self._packed[path], self._formats[path] = name, "d"
        elif isinstance(value, np.generic) and value.dtype == feature.dtype != STRING:
            self._store_column(name, path)
        else:
            raise _UnsupportedError

    def _store_column(self, name: str, path: Path) -> None:
        self._stores.append(f"C{len(self._columns)}[place] = {name}")
        self._columns.append(path)

    def _store_array(self, name: str, path: Path, size: int) -> None:
        """Copies an array as bytes: half the time of numpy's way, which is for those with gaps."""
        self._stores += [
            f"at = {self._layout.column_offsets[path]} + place * {size}",
            f"try: buffer[at : at + {size}] = {name}",
            f"except (ValueError, BufferError): C{len(self._columns)}[place] = {name}",
        ]
        self._columns.append(path)

    def _store_string(self, name: str, value: Any, path: Path) -> None:
        """Puts a string into the heap, as `step_log.pack_varying` does."""
        local = f"s{len(self._packed)}"
        encoded = f"{name}.encode()" if isinstance(value, str) else name
        pack = self._constant("P", struct.Struct("<I").pack)
        used = f"header[{step_log.HEAP_USED}]"
        # The heap's use is raised before the row counts: space that a torn row took is not missed.
        self._checks += [
            f"{local} = {encoded}",
            f"{local} = {pack}(len({local})) + {local}",
            f"{local}a = {used}",
            f"{local}n = len({local})",
            f"if {local}a + {local}n > HEAP_BYTES: return False",
            f"buffer[HEAP + {local}a : HEAP + {local}a + {local}n] = {local}",
            f"{used} = {local}a + {local}n",
        ]
        self._packed[path], self._formats[path] = f"{local}a, {local}n", "qq"

    def _check(self, condition: str) -> None:
        self._checks.append(f"if {condition}: return False")

    def _constant(self, prefix: str, value: Any) -> str:
        name = f"{prefix}{len(self._constants)}"
        self._constants[name] = value
        return name
