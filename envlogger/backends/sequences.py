# SPDX-License-Identifier: Apache-2.0
"""Sequences whose items are fetched when they are asked for."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, SupportsIndex, TypeVar, overload

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

    Raises:
        ValueError: If `count` is negative.
    """

    __slots__ = ("_count", "_get")

    def __init__(self, count: int | Callable[[], int], get: Callable[[int], T_co]) -> None:
        if not callable(count) and count < 0:
            raise ValueError(f"count must not be negative, got {count}")
        self._count = count
        self._get = get

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
            return [self._get(i) for i in range(*index.indices(count))]
        i = operator.index(index)
        if not -count <= i < count:
            raise IndexError(
                f"index {i} is out of range: there are {count} items"
                + (f", {-count} to {count - 1}" if count else "")
            )
        return self._get(i + count if i < 0 else i)

    # The base class would stop quietly at an IndexError from within `get`.
    def __iter__(self) -> Iterator[T_co]:
        return map(self._get, range(len(self)))

    def __reversed__(self) -> Iterator[T_co]:
        return map(self._get, reversed(range(len(self))))

    def __repr__(self) -> str:
        return f"<LazySequence of {len(self)} items>"
