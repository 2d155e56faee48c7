# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import helpers
import numpy as np
import pytest
import tensorflow_datasets as tfds

from envlogger import errors
from envlogger.tfds import schema, structure
from envlogger.tfds.features import Encoding, Feature
from envlogger.tfds.schema import Schema

OBSERVATION = ("observation", "a")


def _schema(**arrays):
    """Returns a schema with a feature of the steps for each value."""
    result = Schema()
    for name, value in arrays.items():
        _add(result, (name,), value)
    return result


def _add(to, path, value, *, to_episode=False):
    _, array = structure.encode_leaf(value, path)
    to.add(to.infer(path, array, array.shape), to_episode=to_episode)


def _conform(feature_value, value):
    code, array = structure.encode_leaf(value, ("x",))
    return schema.conform(_schema(x=feature_value).steps[("x",)], code, array)


@pytest.mark.parametrize(
    ("before", "value"),
    [
        (np.int8(0), 5),
        (np.uint64(0), 2**63 - 1),
        (np.float32(0), 0.5),
        (np.float32(0), float("nan")),
        (np.float16(0), float("-inf")),
        (np.float32(0), -0.0),
        (0.5, 3),
        (0.5, True),
        (0, 3.0),
        (False, 1),
        (np.zeros(2), np.ones(2)),
    ],
)
def test_exact_conversions(before, value):
    stored = _conform(before, value)

    assert stored.dtype == np.asarray(before).dtype
    assert np.array_equal(stored, value, equal_nan=True)
    if stored.shape == ():
        assert np.signbit(float(stored)) == np.signbit(float(value))


@pytest.mark.parametrize(
    ("before", "value", "got", "expected"),
    [
        (np.int8(0), 128, "int64 of shape () (value 128)", "int8 of shape ()"),
        (np.uint8(0), -1, "int64", "uint8"),
        (np.float32(0), 0.1, "float64", "float32"),
        (0.5, 2**53 + 1, "int64", "float64"),
        (0, 0.5, "float64", "int64"),
        (0, -0.0, "float64", "int64"),
        (0, float("nan"), "float64", "int64"),
        (False, 2, "int64", "bool"),
        (np.float32(0), np.float64(0), "float64", "float32"),
        (np.int32(0), np.int64(0), "int64", "int32"),
        (np.zeros(2), np.zeros(3), "float64 of shape (3,)", "float64 of shape (2,)"),
        (np.zeros(()), np.zeros(1), "float64 of shape (1,)", "float64 of shape ()"),
        (0.5, "x", "string of shape ()", "float64 of shape ()"),
        ("x", 0.5, "float64 of shape ()", "string of shape ()"),
        (1j, 0.5, "float64", "complex128"),
    ],
)
def test_what_does_not_fit(before, value, got, expected):
    with pytest.raises(errors.ValueMismatchError) as raised:
        _conform(before, value)

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, f"x: got {got}", f"expected {expected}", "Convert the value")


def _varying(value, other):
    of = _schema(x=value)
    array = structure.encode_leaf(other, ("x",))[1]
    shape = schema.generalise(of.steps[("x",)], array.shape)
    return of.infer(("x",), array, shape)


def test_dimensions_that_vary():
    assert _varying(np.zeros((2, 3)), np.zeros((5, 3))).shape == (None, 3)
    assert _varying(np.zeros((2, 3)), np.zeros((2, 3))).shape == (2, 3)
    assert schema.generalise(_schema(x=np.zeros(2)).steps[("x",)], (2, 2)) is None


def test_images_that_vary_are_still_images():
    feature = _varying(np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8))

    assert feature.encoding is Encoding.PNG
    assert schema.conform(feature, "a", np.zeros((1, 8, 3), np.uint8)).shape == (1, 8, 3)
    for height in (0, 70_000):  # there is no PNG of these
        with pytest.raises(errors.ValueMismatchError):
            schema.conform(feature, "a", np.zeros((height, 8, 3), np.uint8))


@pytest.mark.parametrize("ours", ["png", "raw", "jpeg"])
@pytest.mark.parametrize("theirs", ["png", "raw", "jpeg"])
def test_images_of_one_size_go_to_those_that_vary_but_for_a_loss(ours, theirs):
    image, path = np.zeros((16, 8, 3), np.uint8), ("x",)
    fixed, varying = Schema(image_format=ours), Schema(image_format=theirs)
    fixed.add(fixed.infer(path, image, image.shape))
    varying.add(varying.infer(path, image, (None, 8, 3)))

    found = schema.with_varying(fixed, varying).steps[path]

    is_lossy = theirs == "jpeg" != ours
    assert found == (fixed if is_lossy else varying).steps[path]


@pytest.mark.parametrize("heights", [(0, 4), (4, 0)])
def test_images_of_which_one_is_empty_are_kept_as_bytes(heights):
    feature = _varying(*(np.zeros((height, 8, 3), np.uint8) for height in heights))

    assert feature.encoding is Encoding.BYTES


@pytest.mark.parametrize(
    ("one", "other", "error"),
    [
        (("a/b",), ("a", "b"), errors.NameConflictError),
        (("a", "b/c"), ("a/b", "c"), errors.NameConflictError),
        (("a",), ("a", "b"), errors.ValueMismatchError),
        (("a", "b"), ("a",), errors.ValueMismatchError),
    ],
)
@pytest.mark.parametrize("to_episode", [False, True])
def test_names_that_collide(one, other, error, to_episode):
    of = Schema()
    _add(of, one, 0, to_episode=to_episode)

    with pytest.raises(error, match=r"^a(/b(/c)?)?: "):
        _add(of, other, 0, to_episode=to_episode)


@pytest.mark.parametrize("name", [*sorted(schema.RESERVED), "steps/observation", "present/x"])
def test_reserved_names(name):
    with pytest.raises(errors.NameConflictError) as raised:
        schema.check_names([name], "step_fn")

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, name, "step_fn", "reserved", "Rename it")


def test_names_that_are_free():
    schema.check_names(["timestamp", "observations", "a/steps", 3, "episode_id"], "step_fn")


def _full():
    of = _schema(
        reward=0.5,
        action=np.int32(0),
        text="x",
        names=np.array(["x"], "U1"),
        image=np.zeros((4, 4, 3), np.uint8),
        empty=np.zeros((0, 3)),
    )
    _add(of, OBSERVATION, np.zeros(3, np.float32))
    _add(of, ("observation", "ü b"), np.float16(0))
    _add(of, ("score",), 0.5, to_episode=True)
    of.add_mask(("reward",))
    of.add_mask(("score",), to_episode=True)
    return of


def test_the_json_comes_back():
    of = _full()

    back = Schema.from_json(json.loads(json.dumps(of.to_json())))

    assert back.steps == of.steps
    assert back.episode == of.episode


def test_tfds_reads_the_json_and_writes_the_same(tmp_path):
    of = _full()
    written = of.to_json()

    features = tfds.features.FeaturesDict.from_json(written)
    features.save_config(str(tmp_path))

    assert json.loads((tmp_path / "features.json").read_text()) == written
    assert set(features["steps"].feature.keys()) == {
        *("observation", "action", "reward", "is_first", "is_last", "is_terminal", "present"),
        *("text", "names", "image", "empty"),
    }


def test_a_dataset_that_is_not_rlds():
    with pytest.raises(errors.DatasetError, match=r"no nested feature 'steps'.*Read it with"):
        Schema.from_json({"featuresDict": {"features": {}}})


def test_merging_with_itself_changes_nothing():
    of = _full()

    assert schema.merge(of, of) == of


def test_merging_adds_what_one_lacks_with_a_mask():
    one, other = Schema(), Schema()
    _add(one, OBSERVATION, 0.5)
    _add(other, OBSERVATION, 0.5)
    _add(one, ("mine",), 1)
    _add(other, ("theirs",), "x", to_episode=True)

    merged = schema.merge(one, other)

    assert {("mine",), ("present", "mine"), OBSERVATION} <= merged.steps.keys()
    assert {("theirs",), ("present", "theirs")} <= merged.episode.keys()
    assert ("present", *OBSERVATION) not in merged.steps
    assert ("mine",) not in other.steps


def test_merging_what_differs_is_refused():
    with pytest.raises(errors.ValueMismatchError) as raised:
        schema.merge(_schema(x=np.zeros(3)), _schema(x=np.zeros(2)))

    helpers.check_message(
        raised,
        "x: got float64 of shape (3,)",
        "has float64 of shape (2,)",
        "another data_directory",
    )


def test_merging_needs_the_same_observations():
    one, other = Schema(), Schema()
    _add(one, OBSERVATION, 0.5)

    with pytest.raises(errors.ValueMismatchError, match=r"observation/a: not all episodes"):
        schema.merge(one, other)


def test_a_copy_can_be_extended():
    of = _full()
    copy = of.copy()

    _add(copy, ("new",), 1)
    _add(copy, ("new",), 1, to_episode=True)

    assert ("new",) not in of.steps
    assert ("new",) not in of.episode


def test_what_the_library_fills():
    fields = {path[0]: feature for path, feature in Schema().episode.items()}

    assert all(map(schema.is_ours, fields.values()))
    assert not schema.is_ours(Feature(("episode_id",), np.dtype(np.int64), (), Encoding.PLAIN))
    assert not schema.is_ours(Feature(("score",), np.dtype(np.int64), (), Encoding.PLAIN))
