# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import collections.abc
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envlogger.backends import sequences


def _squares(count=5):
    return sequences.LazySequence(count, lambda i: i * i)


def test_is_a_sequence():
    squares = _squares()

    assert isinstance(squares, collections.abc.Sequence)
    assert len(squares) == 5
    assert list(squares) == [0, 1, 4, 9, 16]
    assert list(reversed(squares)) == [16, 9, 4, 1, 0]
    assert 9 in squares
    assert squares.index(9) == 3
    assert repr(squares) == "<LazySequence of 5 items>"


@given(st.integers(0, 6), st.data())
def test_indexes_and_slices_like_a_list(count, data):
    lazy, plain = _squares(count), [i * i for i in range(count)]

    slice_ = data.draw(st.slices(count))
    assert lazy[slice_] == plain[slice_]
    for index in range(-count, count):
        assert lazy[index] == plain[index]
        assert lazy[np.int64(index)] == plain[index]


@pytest.mark.parametrize(
    ("count", "index", "message"),
    [(3, 3, "3 is out.*3 items, -3 to 2"), (3, -4, "-4 is out"), (0, 0, "there are 0 items$")],
)
def test_index_out_of_range(count, index, message):
    with pytest.raises(IndexError, match=message):
        _squares(count)[index]


@pytest.mark.parametrize("index", [1.0, "1", None, (0, 1)])
def test_index_of_another_type(index):
    with pytest.raises(TypeError):
        _squares()[index]


def test_nested_and_abandoned_loops_do_not_disturb_each_other():
    squares = _squares(3)

    for _ in squares:
        break
    assert list(itertools.product(squares, squares)) == list(
        itertools.product([0, 1, 4], [0, 1, 4])
    )
    assert [(x, y) for x in squares for y in squares][3] == (1, 0)
    assert list(squares) == [0, 1, 4]


def test_fetches_only_what_is_asked_for():
    fetched = []
    lazy = sequences.LazySequence(1000, lambda i: fetched.append(i) or i)

    assert (len(lazy), lazy[-1], next(iter(lazy))) == (1000, 999, 0)
    assert fetched == [999, 0]


def test_growing_count():
    items = [1, 2]
    lazy = sequences.LazySequence(lambda: len(items), lambda i: items[i])

    for item in lazy:
        items.append(item)

    assert items == [1, 2, 1, 2]
    assert lazy[-1] == 2
    assert len(lazy) == 4


def test_index_error_from_within_is_not_the_end():
    def fail(i):
        raise IndexError("corrupt index")

    with pytest.raises(IndexError, match="corrupt index"):
        list(sequences.LazySequence(3, fail))


def test_cannot_be_changed():
    squares = _squares()

    with pytest.raises(TypeError):
        squares[0] = 1
    with pytest.raises(AttributeError):
        squares.extra = 1


def test_negative_count():
    with pytest.raises(ValueError, match="-1"):
        _squares(-1)
