# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import collections
import json
import types

import dm_env
import ml_dtypes
import numpy as np
import pytest
from dm_env import specs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from envlogger import errors
from envlogger.converters import json_codec, spec_codec
from envlogger.testing import catch_env


def _through_json(encoded):
    return json_codec.decode(json.loads(json.dumps(json_codec.encode(encoded), allow_nan=False)))


def _describe(spec):
    """Returns everything there is to a nest of specs, bounds as bytes, in a form that compares."""
    if isinstance(spec, dict):
        return {key: _describe(value) for key, value in spec.items()}
    if isinstance(spec, list | tuple):
        return type(spec), [_describe(value) for value in spec]
    bounds = [getattr(spec, name, None) for name in ("minimum", "maximum")]
    return (
        type(spec),
        spec.shape,
        spec.dtype,
        spec.name,
        [None if b is None else (b.dtype, b.shape, b.tobytes()) for b in bounds],
        getattr(spec, "num_values", None),
        getattr(spec, "string_type", None),
    )


names = st.none() | st.text(max_size=5)
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3).map(tuple)
numeric_dtypes = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(),
    st.just(np.dtype(ml_dtypes.bfloat16)),
)


@st.composite
def bounded_arrays(draw):
    shape = draw(shapes)
    # Not bfloat16: Hypothesis can't draw it.
    dtype = draw(numeric_dtypes.filter(lambda dtype: dtype.kind != "V"))
    low, high = (
        draw(hnp.arrays(dtype, draw(st.sampled_from([(), shape[-1:], shape])))) for _ in range(2)
    )
    low, high = np.fmin(low, high), np.fmax(low, high)  # Both NaN where both were.
    if draw(st.booleans()) and dtype.kind == "f":
        low = np.full_like(low, draw(st.sampled_from([np.nan, -np.inf])))
    return specs.BoundedArray(shape, dtype, low, high, draw(names))


arrays = st.builds(specs.Array, shapes, numeric_dtypes | st.just(np.dtype(object)), names)
discrete_arrays = st.builds(
    specs.DiscreteArray,
    st.integers(1, 127),
    st.sampled_from([np.int8, np.uint8, ">i4", int]),
    names,
)
string_arrays = st.builds(specs.StringArray, shapes, st.sampled_from([str, bytes]), names)
# Keys which look like an encoded spec's are fine as names of observations.
keys = st.sampled_from(["shape", "dtype", "name", "minimum", "maximum", "num_values"]) | st.text()
nests = st.recursive(
    arrays | bounded_arrays() | discrete_arrays | string_arrays,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=300)
@given(nests)
def test_round_trip(spec):
    encoded = spec_codec.encode(spec)

    assert _describe(spec_codec.decode(encoded)) == _describe(spec)
    assert _describe(spec_codec.decode(_through_json(encoded))) == _describe(spec)


@pytest.mark.parametrize(
    "bounds",
    [
        (np.nan, np.nan),
        (-np.inf, np.inf),
        (-0.0, 0.0),
        ([0.1, np.nan], [0.3, 1.0]),
        (np.float32(0.1), [np.inf, 2.0]),
    ],
)
def test_bounds_are_bit_exact(bounds):
    spec = specs.BoundedArray((3, 2), np.float32, *bounds, name="x")

    assert _describe(spec_codec.decode(_through_json(spec_codec.encode(spec)))) == _describe(spec)


def test_bfloat16_bounds():
    spec = specs.BoundedArray((2,), ml_dtypes.bfloat16, -1, [1, 2])

    assert _describe(spec_codec.decode(_through_json(spec_codec.encode(spec)))) == _describe(spec)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (specs.Array((2, 3), np.float32), {"dtype": "float32", "name": None}),
        (
            specs.BoundedArray((2, 3), np.uint8, 0, [1, 2, 3], "pixels"),
            {"dtype": "uint8", "name": "pixels", "minimum": 0, "maximum": [1, 2, 3]},
        ),
        (
            specs.DiscreteArray(5, name="moves"),
            {"dtype": "int32", "name": "moves", "minimum": 0, "maximum": 4, "num_values": 5},
        ),
        (
            specs.StringArray((1,), bytes),
            {"dtype": "object", "name": None, "string_type": "bytes"},
        ),
    ],
)
def test_encoded_form(spec, expected):
    encoded = spec_codec.encode(spec)

    shape = encoded.pop("shape")
    assert shape.dtype == np.int64
    assert tuple(shape) == spec.shape
    for bound in {"minimum", "maximum"} & expected.keys():
        assert encoded[bound].dtype == spec.dtype
    np.testing.assert_equal(encoded, expected)


@pytest.mark.parametrize(
    ("encoded", "spec"),
    [
        # 1.x's storage gave None for empty arrays and scalars for arrays of shape ().
        ({"shape": None, "dtype": "float32", "name": "a"}, specs.Array((), np.float32, "a")),
        (
            {
                "shape": None,
                "dtype": "float64",
                "name": "discount",
                "minimum": np.float64(0),
                "maximum": np.float64(1),
            },
            specs.BoundedArray((), float, 0, 1, "discount"),
        ),
        (
            {"shape": [2, 0], "dtype": "int8", "name": None, "minimum": None, "maximum": None},
            specs.BoundedArray((2, 0), np.int8, np.zeros((2, 0)), np.zeros((2, 0))),
        ),
        (
            {
                "shape": None,
                "dtype": "int64",
                "name": "action",
                "minimum": np.int64(0),
                "maximum": np.int64(2),
                "num_values": np.int32(3),
            },
            specs.DiscreteArray(3, np.int64, "action"),
        ),
        ({"shape": (3,), "dtype": "object", "name": "s"}, specs.Array((3,), object, "s")),
    ],
)
def test_reads_what_envlogger_1_wrote(encoded, spec):
    assert _describe(spec_codec.decode(encoded)) == _describe(spec)


def test_environment_specs_round_trip():
    env = catch_env.Catch()

    encoded = spec_codec.encode_environment_specs(env)
    decoded = spec_codec.decode_environment_specs(_through_json(encoded))

    assert list(encoded) == ["observation_spec", "action_spec", "reward_spec", "discount_spec"]
    assert decoded.keys() == encoded.keys()
    for name, spec in decoded.items():
        assert _describe(spec) == _describe(getattr(env, name)())


def test_environment_specs_without_environment():
    nothing = dict.fromkeys(("observation_spec", "action_spec", "reward_spec", "discount_spec"))

    assert spec_codec.encode_environment_specs(None) == {}
    assert spec_codec.decode_environment_specs({}) == nothing
    assert spec_codec.decode_environment_specs(None) == nothing


def test_some_environment_specs_may_be_missing():
    reward = specs.Array((), float)

    decoded = spec_codec.decode_environment_specs({"reward_spec": spec_codec.encode(reward)})

    assert decoded.pop("reward_spec") == reward
    assert set(decoded.values()) == {None}


def test_an_environment_that_is_false_has_specs():
    class Empty(catch_env.Catch):
        def __len__(self):
            return 0

    assert len(spec_codec.encode_environment_specs(Empty())) == 4


def test_mappings_are_dicts():
    spec = specs.Array((1,), int)
    nest = collections.OrderedDict(b=types.MappingProxyType({"c": spec}), a=spec)

    encoded = spec_codec.encode(nest)

    assert type(encoded) is dict
    assert type(encoded["b"]) is dict
    assert list(encoded) == ["b", "a"]
    assert spec_codec.decode(types.MappingProxyType(encoded)) == {"b": {"c": spec}, "a": spec}


Pair = collections.namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (None, "NoneType"),
        (3, "int"),
        (np.zeros(3), "ndarray"),
        ({1, 2}, "set"),
        (Pair(specs.Array((), int), specs.Array((), int)), "Pair"),
        (catch_env.Catch(), "Catch"),
    ],
)
def test_other_types_are_refused(value, got):
    with pytest.raises(
        errors.UnsupportedValueError, match=rf"at 'arm/1/x': got {got}; supported are"
    ):
        spec_codec.encode({"arm": [specs.Array((), int), ({"x": value})]})
    with pytest.raises(errors.UnsupportedValueError, match=f"at the top level: got {got}"):
        spec_codec.encode(value)


def test_refusal_names_the_environments_spec():
    class Odd(catch_env.Catch):
        def action_spec(self):
            return {"grip": None}

    with pytest.raises(errors.UnsupportedValueError, match="at 'action_spec/grip': got NoneType"):
        spec_codec.encode_environment_specs(Odd())


def test_dtypes_with_fields_are_refused():
    with pytest.raises(errors.UnsupportedValueError, match=r"at 'x'.*without fields"):
        spec_codec.encode({"x": specs.Array((), [("a", "f4")])})


def test_bounds_that_crossed_when_cast_are_refused():
    spec = specs.BoundedArray((), np.uint8, np.array(-1), np.array(5))  # 255 to 5.

    with pytest.raises(ValueError, match="at 'x': as uint8, its minimum 255 exceeds its maximum 5"):
        spec_codec.encode({"x": spec})


def test_specs_of_other_types_are_encoded_as_their_base():
    class Angle(specs.BoundedArray):
        pass

    with pytest.warns(UserWarning, match=r"at 'x' is a .*Angle.*recorded as its base BoundedArray"):
        encoded = spec_codec.encode({"x": Angle((2,), float, 0, 1, "angle")})

    decoded = spec_codec.decode(encoded)["x"]
    assert type(decoded) is specs.BoundedArray
    assert decoded == specs.BoundedArray((2,), float, 0, 1)


@pytest.mark.parametrize("value", [None, 3, "text", np.zeros(3), specs.Array((), int)])
def test_decode_refuses_other_types(value):
    with pytest.raises(TypeError, match="at 'x/0': got"):
        spec_codec.decode({"x": [value]})


@pytest.mark.parametrize(
    "broken",
    [
        {"shape": [2], "dtype": "no_such_dtype"},
        {"shape": 3, "dtype": "int8"},
        {"shape": [2], "dtype": "int8", "minimum": None, "maximum": 3},
        {"shape": [2], "dtype": "int8", "minimum": 5, "maximum": 3},
        {"shape": [2], "dtype": "int8", "minimum": 0, "maximum": 300},
        {"shape": [2], "dtype": "float32", "minimum": [0, 0, 0], "maximum": 1},
        {"shape": [], "dtype": "int8", "num_values": 0},
        {"shape": [], "dtype": "object", "string_type": "bytearray"},
    ],
)
def test_decode_refuses_impossible_specs(broken):
    with pytest.raises(ValueError, match=r"Cannot decode the spec at 'x' from \{"):
        spec_codec.decode({"x": broken})


def test_specs_of_dm_envs_defaults():
    class Minimal(dm_env.Environment):
        reset = step = None

        def observation_spec(self):
            return ()

        def action_spec(self):
            return []

    decoded = spec_codec.decode_environment_specs(
        _through_json(spec_codec.encode_environment_specs(Minimal()))
    )

    assert decoded["observation_spec"] == ()
    assert decoded["action_spec"] == []
    assert _describe(decoded["discount_spec"]) == _describe(Minimal().discount_spec())
