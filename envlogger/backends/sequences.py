# SPDX-License-Identifier: Apache-2.0
"""Sequences whose items are fetched when they are asked for."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, SupportsIndex, TypeVar, overload

import numpy as np
import numpy.typing as npt

from envlogger import errors, step_data

T_co = TypeVar("T_co", covariant=True)


class LazySequence(Sequence[T_co], Generic[T_co]):
    """A read-only sequence that calls a function for each item.

    It keeps neither items nor a position: any number of loops may run over it at once, nested or
    abandoned half-way, and each begins at the start. It is as safe to share between threads as the
    two functions are.

    Args:
        count: The number of items, or a function that returns it for sequences that grow. A loop
            goes over the items there were when it began.
        get: Returns the item at an index in [0, count). Called each time an item is asked for.
        scan: Yields the items at a range of indices, where that is faster than one by one.

    Raises:
        ValueError: If `count` is negative.
    """

    __slots__ = ("_count", "_get", "_scan")

    def __init__(
        self,
        count: int | Callable[[], int],
        get: Callable[[int], T_co],
        scan: Callable[[range], Iterator[T_co]] | None = None,
    ) -> None:
        if not callable(count) and count < 0:
            raise ValueError(f"count must not be negative, got {count}")
        self._count = count
        self._get = get
        self._scan = scan or functools.partial(map, get)

    def __len__(self) -> int:
        return self._count() if callable(self._count) else self._count

    @overload
    def __getitem__(self, index: SupportsIndex) -> T_co: ...

    @overload
    def __getitem__(self, index: slice[Any, Any, Any]) -> list[T_co]: ...

    def __getitem__(self, index: SupportsIndex | slice[Any, Any, Any]) -> T_co | list[T_co]:
        """Returns an item, or for a slice a list of items.

        Args:
            index: A slice, or an integer (numpy's too). A negative one counts from the end.

        Raises:
            IndexError: If there is no such item.
            TypeError: If `index` is neither an integer nor a slice.
        """
        count = len(self)
        if isinstance(index, slice):
            return list(self._scan(range(*index.indices(count))))
        i = operator.index(index)
        if not -count <= i < count:
            raise IndexError(
                f"index {i} is out of range: there are {count} items"
                + (f", {-count} to {count - 1}" if count else "")
            )
        return self._get(i + count if i < 0 else i)

    # The base class would stop quietly at an IndexError from within `get`.
    def __iter__(self) -> Iterator[T_co]:
        return self._scan(range(len(self)))

    def __reversed__(self) -> Iterator[T_co]:
        return self._scan(range(len(self))[::-1])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} items>"


class EpisodeSteps(LazySequence[step_data.StepData]):
    """The steps of an episode, which can also be had as columns.

    Args:
        count: As for `LazySequence`, as are `get` and `scan`.
        get: Returns a step.
        scan: Yields steps.
        columns: Returns columns, as the method of that name; its arguments have been checked.
        scan_whole: Yields all steps, where that is faster than to ask how many there are before.
    """

    __slots__ = ("_columns", "_scan_whole")

    def __init__(
        self,
        count: int | Callable[[], int],
        get: Callable[[int], step_data.StepData],
        scan: Callable[[range], Iterator[step_data.StepData]] | None,
        columns: Callable[[Sequence[str] | None, Any], dict[str, Any]],
        scan_whole: Callable[[], Iterator[step_data.StepData]] | None = None,
    ) -> None:
        super().__init__(count, get, scan)
        self._columns = columns
        self._scan_whole = scan_whole

    def __iter__(self) -> Iterator[step_data.StepData]:
        return super().__iter__() if self._scan_whole is None else self._scan_whole()

    def columns(
        self,
        fields: Sequence[str] | None = None,
        rows: slice | Sequence[int] | npt.NDArray[np.integer[Any]] | None = None,
    ) -> dict[str, Any]:
        """Returns the steps as columns: numpy arrays of shape (T, ...), in the alignment of RLDS.

            episode = reader.episodes[0].columns()
            episode["observation"]["camera"]  # uint8 (T, 84, 84, 3)
            episode["reward"]  # float64 (T,)

        Step t holds observation t, the action taken in it, and the reward and discount that came of it;
        in the last step, these three are padding (zeros), unless another writer put something there.
        (In a `StepData`, they stand beside the observation they led to.)

        The keys are those of the dataset's steps, as TFDS has them: `observation`, `action`, `reward`,
        `discount`, `is_first`, `is_last`, `is_terminal`, as far as there are any, the metadata of the
        steps, and `present`: where a value was None, there are zeros, and False under its name in
        `present`. Lists and tuples are dicts by position (`"0"`, `"1"`). Strings are bytes (str as
        UTF-8), in object arrays (T, ...). Where rows differ in shape, a column is an object array (T,)
        of arrays. All arrays belong to the caller.

        Args:
            fields: The fields to return, such as `observation` or `observation/camera`; by default all.
                Nothing else is decoded.
            rows: Which steps: a slice, or indices; by default all.

        Raises:
            OptionError: There is no such field, or `rows` is neither a slice nor a list of integers.
            IndexError: There is no such step.
            CorruptDatasetError: The episode is damaged.
        """
        return self._columns(fields, self._check_rows(rows))

    def _check_rows(self, rows: Any) -> slice | npt.NDArray[np.int64]:
        if rows is None:
            return slice(None)
        if isinstance(rows, slice):
            return rows
        indices = np.asarray(rows)
        if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
            raise errors.OptionError(
                f"rows: got {rows!r}, expected a slice or a list of integers, such as [0, 1]."
            )
        count = len(self)
        indices = indices.astype(np.int64)
        if indices.size and not -count <= indices.min() <= indices.max() < count:
            raise IndexError(
                f"rows: got indices from {indices.min()} to {indices.max()}; the episode has {count} "
                "steps."
            )
        return np.where(indices < 0, indices + count, indices)
