# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import collections
import enum
import json
import types

import helpers
import immutabledict
import nests
import numpy as np
import pytest
import repeatable
from hypothesis import given
from hypothesis import strategies as st

from envlogger import errors
from envlogger.testing.comparison import assert_same
from envlogger.tfds import structure

_settings = repeatable.settings(200)


def _restore(value):
    leaves = {}
    shape = structure.flatten(value, ("root",), leaves)
    assert set(structure.leaf_paths(shape, ("root",))) == leaves.keys()
    shape = structure.from_json(json.loads(json.dumps(structure.to_json(shape))))
    return structure.unflatten(shape, ("root",), leaves.__getitem__)


@_settings
@given(nests.nests(optional=True), st.integers(0, 5), st.integers(0, 2**32))
def test_values_come_back(template, n, seed):
    value = nests.draw(template, n, np.random.default_rng(seed))

    assert_same(_restore(value), value)


@_settings
@given(nests.nests(), st.integers(0, 5), st.integers(0, 2**32))
def test_leaves_are_native_and_of_dtypes_that_tfds_has(template, n, seed):
    leaves = {}
    value = nests.draw(template, n, np.random.default_rng(seed))
    structure.flatten(value, (), leaves)

    expected = nests.stored_leaves(value)
    assert leaves.keys() == expected.keys()
    for path, array in leaves.items():
        assert array.dtype == expected[path].dtype
        assert array.dtype.isnative
        assert array.flags.c_contiguous
        assert_same(array, expected[path])


class _Color(enum.IntEnum):
    RED = 3


class _Name(str, enum.Enum):  # noqa: UP042 (its str() is not its value)
    A = "a"


class _Float(float):
    pass


class _Text(str):
    pass


class _Array(np.ndarray):
    pass


class _ArrayLike:
    def __array__(self, dtype=None, copy=None):
        return np.arange(3, dtype=dtype or np.int16)


_Pair = collections.namedtuple("_Pair", "one other")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (_Color.RED, 3),
        (_Name.A, "a"),
        (_Float(0.5), 0.5),
        (_Text("x"), "x"),
        (bytearray(b"x\0"), b"x\0"),
        (memoryview(b"x\0"), b"x\0"),
        (np.arange(3.0).view(_Array), np.arange(3.0)),
        (_ArrayLike(), np.arange(3, dtype=np.int16)),
        (_Pair(1, 2.0), (1, 2.0)),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (immutabledict.immutabledict(a=1), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (
            {_Name.A: 1, _Color.RED: 2, np.int64(5): 3, np.str_("s"): 4},
            {"a": 1, 3: 2, 5: 3, "s": 4},
        ),
    ],
)
def test_subclasses_come_back_as_what_they_derive_from(value, expected):
    assert_same(_restore(value), expected)


def test_a_matrix_comes_back_as_an_array():
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix([[1, 2]])

    assert_same(_restore(matrix), np.array([[1, 2]]))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12).reshape(3, 4).T,
        np.arange(12)[::-2],
        np.broadcast_to(np.float32(2), (2, 3)),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(["x", "yz"])[::-1],
    ],
)
def test_views_of_any_layout(array):
    array.flags.writeable = False

    assert_same(_restore(array), np.ascontiguousarray(array))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 2), (0, 0)])
@pytest.mark.parametrize("dtype", ["<U5", ">U5", "S2", object, "uint32", ">u4", "f8", "M8[s]"])
def test_arrays_without_elements(shape, dtype):
    array = np.empty(shape, dtype)

    assert_same(_restore(array), array)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (object(), "builtins.object"),
        ({1, 2}, "builtins.set"),
        (range(3), "builtins.range"),
        (np.ma.masked_array([1, 2], [True, False]), "numpy.ma.MaskedArray"),
        (np.array([1, "a"], object), "an object array of int, str"),
        (np.array([None], object), "an object array of NoneType"),
        (np.zeros(2, "f4,i4"), "dtype"),
        (np.zeros(2, np.longdouble), "dtype"),
        (np.void(b"ab"), "dtype"),
        (2**63, "the int 9223372036854775808, expected one of 64 bits"),
        (-(2**63) - 1, "the int -9223372036854775809, expected one of 64 bits"),
    ],
)
def test_what_cannot_be_stored_without_loss_is_refused(value, got):
    with pytest.raises(errors.UnsupportedValueError) as raised:
        structure.flatten({"x": [value]}, ("observation",), {})

    assert isinstance(raised.value, TypeError)
    helpers.check_message(raised, "observation/x/0", got)


def test_an_array_of_text_that_is_not_initialised():
    array = np.full(1, 0x7FFFFFFF, np.uint32).view("<U1")

    with pytest.raises(
        errors.UnsupportedValueError, match="a: got an array of <U1 that is not text"
    ):
        structure.flatten(array, ("a",), {})


@pytest.mark.parametrize("key", ["", True, 1.5, None, ("a",), b"a", "\ud800"])
def test_keys_that_cannot_be_names_are_refused(key):
    with pytest.raises(errors.NameConflictError) as raised:
        structure.flatten({key: 1}, ("step",), {})

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, "step: got the key", repr(key), "expected a str", "Rename it")


@pytest.mark.parametrize("value", [{1: 0.0, "1": 0.0}, {1: [0.0], "1": {"0": 0.0}}])
def test_keys_that_name_the_same_leaf_are_refused(value):
    with pytest.raises(errors.NameConflictError, match=r"Two values are named 'a/1"):
        structure.flatten(value, ("a",), {})


def test_a_reader_may_write_to_what_it_gets():
    value = _restore({"a": np.array(["x"]), "b": np.zeros((0, 2), "U2")})

    assert value["a"].flags.writeable
    assert value["b"].flags.writeable


def test_the_form_that_a_leaf_had():
    for value in (np.zeros((2, 0), "<U3"), np.zeros(2, ">f4"), np.zeros(3, "M8[s]"), np.float16(1)):
        code, stored = structure.encode_leaf(value, ())

        assert structure.logged_form(code, stored) == (value.dtype, value.shape)
