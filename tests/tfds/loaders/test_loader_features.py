# SPDX-License-Identifier: Apache-2.0
"""Each feature by itself: the loaders give the bits that stock TFDS gives."""

from __future__ import annotations

import functools
import warnings

import foreign
import numbered
import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
    import ml_dtypes
    import tensorflow as tf
    import tensorflow_datasets as tfds

import envlogger.tfds
from envlogger import errors
from envlogger.tfds import example, shard_pool
from envlogger.tfds.loaders import on_disk

F = tfds.features
LENGTHS = (3, 1, 6, 2)


def _tensor(shape, dtype, encoding="none"):
    return F.Tensor(shape=shape, dtype=dtype, encoding=encoding)


def _any(shape, dtype):
    """Makes values of all bits."""

    def make(rng):
        dims = tuple(rng.integers(0, 5) if dim is None else dim for dim in shape)
        if np.dtype(dtype) == np.bool_:
            return rng.integers(0, 2, dims).astype(bool)
        size = int(np.prod(dims)) * np.dtype(dtype).itemsize
        return np.frombuffer(rng.bytes(size), dtype).reshape(dims)

    return make


def _floats(shape, dtype):
    """Makes values that go through float32, as TFDS stores them."""
    return lambda rng: rng.standard_normal(shape).astype(dtype)


def _string(rng):
    return rng.bytes(rng.integers(0, 40))


def _list_of(make):
    return lambda rng: [make(rng) for _ in range(rng.integers(0, 4))]


def _pixels(shape, dtype=np.uint8):
    return lambda rng: rng.integers(0, 256, shape).astype(dtype)


_PLAIN = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
_RAW = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint64")
_RAW_FLOATS = ("float16", "float32", "float64", "complex64", "complex128")
BFLOAT16 = ml_dtypes.bfloat16

# Name: the feature, and what makes a value of it.
FEATURES = {
    **{t: (_tensor((2,), np.dtype(t).type), _any((2,), t)) for t in _PLAIN},
    "float16": (_tensor((2, 3), np.float16), _floats((2, 3), np.float16)),
    "float32": (_tensor((2, 3), np.float32), _any((2, 3), "float32")),
    "float64_narrowed": (_tensor((), np.float64), lambda rng: np.float64(rng.standard_normal())),
    "scalar": (F.Scalar(np.int64), lambda rng: np.int64(rng.integers(-9, 9))),
    **{
        f"{t}_bytes": (_tensor((2, 3), np.dtype(t).type, "bytes"), _any((2, 3), t))
        for t in (*_RAW, *_RAW_FLOATS)
    },
    "float64_zlib": (_tensor((2, 3), np.float64, "zlib"), _any((2, 3), "float64")),
    "uint64_zlib": (_tensor((2, 3), np.uint64, "zlib"), _any((2, 3), "uint64")),
    "bfloat16_bytes": (_tensor((3,), BFLOAT16, "bytes"), _any((3,), BFLOAT16)),
    "large_bytes": (_tensor((64, 64, 4), np.uint8, "bytes"), _any((64, 64, 4), "uint8")),
    "large_zlib": (_tensor((600,), np.float64, "zlib"), _any((600,), "float64")),
    "scalar_bytes": (_tensor((), np.float64, "bytes"), _any((), "float64")),
    "empty_bytes": (_tensor((0, 2), np.float64, "bytes"), _any((0, 2), "float64")),
    "text": (F.Text(), _string),
    "strings": (_tensor((2,), np.object_), lambda rng: np.array([_string(rng)] * 2, object)),
    "label": (F.ClassLabel(num_classes=5), lambda rng: int(rng.integers(5))),
    "box": (F.BBoxFeature(), lambda rng: F.BBox(0.0, 0.25, float(rng.random()), 1.0)),
    "png": (F.Image(shape=(5, 4, 3)), _pixels((5, 4, 3))),
    "png_grey": (F.Image(shape=(5, 4, 1)), _pixels((5, 4, 1))),
    "png_alpha": (F.Image(shape=(5, 4, 4)), _pixels((5, 4, 4))),
    "png_uint16": (F.Image(shape=(5, 4, 1), dtype=np.uint16), _pixels((5, 4, 1), np.uint16)),
    "png_float": (F.Image(shape=(5, 4, 1), dtype=np.float32), _floats((5, 4, 1), np.float32)),
    "png_one_size": (F.Image(shape=(None, None, 3)), _pixels((5, 4, 3))),
    "jpeg": (F.Image(shape=(16, 8, 3), encoding_format="jpeg"), _pixels((16, 8, 3))),
    "list": (F.Sequence(np.int64), _list_of(lambda rng: rng.integers(9))),
    "list_uint32": (F.Sequence(F.Scalar(np.uint32)), _list_of(_any((), "uint32"))),
    "list_text": (F.Sequence(F.Text()), _list_of(_string)),
    "list_rows": (F.Sequence(_tensor((2,), np.float32)), _list_of(_any((2,), "float32"))),
    "list_dict": (
        F.Sequence({"a": np.int64, "b": F.Text()}),
        lambda rng: [{"a": 1, "b": _string(rng)} for _ in range(rng.integers(0, 3))],
    ),
    "list_bytes": (F.Sequence(_tensor((2,), np.float64, "bytes")), _list_of(_any((2,), "float64"))),
    "list_list": (F.Sequence(F.Sequence(np.int64)), _list_of(lambda rng: [1] * rng.integers(3))),
    "varying_first": (_tensor((None, 3), np.float64, "bytes"), _any((None, 3), "float64")),
    "varying_last": (_tensor((3, None), np.uint64, "bytes"), _any((3, None), "uint64")),
    "varying_only": (_tensor((None,), np.float32, "zlib"), _any((None,), "float32")),
    "dict": (
        F.FeaturesDict({"x": np.int64, "y": {"z": _tensor((2,), np.float64, "bytes")}}),
        lambda rng: {"x": 1, "y": {"z": rng.standard_normal(2)}},
    ),
}
# Images of any size, and tensors with two unknown dimensions: single steps only.
SINGLE = {
    "png_any_size": (
        F.Image(shape=(None, None, 3)),
        lambda rng: rng.integers(0, 256, (*rng.integers(1, 5, 2), 3)).astype(np.uint8),
    ),
    "varying_twice": (_tensor((None, None), np.int32, "bytes"), _any((None, None), "int32")),
}
# Their columns are ragged.
RAGGED = {name for name in FEATURES if name.startswith(("list", "varying"))}


@functools.cache
def _values():
    rng = np.random.default_rng(0)
    features = {**FEATURES, **SINGLE}
    return [
        [{name: make(rng) for name, (_, make) in features.items()} for _ in range(length)]
        for length in LENGTHS
    ]


# Of large episodes, images are left on disk until they are decoded; here, of all that lie there as they
# are, which those of TFRecord do.
@pytest.fixture(scope="module", params=["parsed", "on disk"])
def directory(tmp_path_factory, request):
    with pytest.MonkeyPatch.context() as patch:
        file_format = "array_record"
        if request.param == "on disk":
            file_format = "tfrecord"
            patch.setattr(shard_pool, "_IN_PARTS", 1)
            patch.setattr(example, "_LARGE_LIST", 1)
            patch.setattr(on_disk, "_LARGE_ROW", 1)
        yield _write(tmp_path_factory, file_format)


def _write(tmp_path_factory, file_format):
    path = tmp_path_factory.mktemp("features") / "toy" / "1.0.0"
    step = {name: feature for name, (feature, _) in {**FEATURES, **SINGLE}.items()}
    episodes = [
        {
            "steps": [{**step, "is_first": not t} for t, step in enumerate(steps)],
            "episode_metadata": {"path": f"file {i}", "numbers": [0.5] * i},
        }
        for i, steps in enumerate(_values())
    ]
    return foreign.write(
        path,
        {**step, "is_first": np.bool_},
        episodes,
        file_format,
        {"episode_metadata": {"path": F.Text(), "numbers": F.Sequence(np.float32)}},
        per_shard=3,
    )


@pytest.fixture(scope="module")
def stock(directory):
    """All steps of the episodes, as stock TFDS reads them; of numpy arrays."""
    dataset = tfds.builder_from_directory(directory).as_dataset(split="train")
    return [[_numpy(step) for step in episode["steps"]] for episode in dataset]


def _numpy(value):
    if isinstance(value, dict):
        return {key: _numpy(item) for key, item in value.items()}
    return value.to_list() if isinstance(value, tf.RaggedTensor) else value.numpy()


def _assert_same(got, expected):
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for key, item in expected.items():
            _assert_same(got[key], item)
    elif isinstance(expected, list) or isinstance(got, list):
        # Of shape (3, None): ragged in a column, a tensor in single steps.
        assert _as_list(got) == _as_list(expected)
    else:
        got, expected = np.asarray(got), np.asarray(expected)
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        if got.dtype == object:
            assert got.tolist() == expected.tolist()
        else:
            assert got.tobytes() == expected.tobytes()


def _as_list(value):
    return value if isinstance(value, list) else np.asarray(value).tolist()


def _rows(column):
    """Returns the values of a column, one by one."""
    if isinstance(column, dict):
        columns = {key: _rows(item) for key, item in column.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return list(column)


# One pass over all features for each way to load: TensorFlow takes seconds to start one.


def _check_each(names, check):
    for name in names:
        try:
            check(name)
        except AssertionError as error:
            error.add_note(f"It was the feature {name!r}.")
            raise


# Lists, and tensors that vary in length, are never left on disk; some lie beside what is.
@pytest.fixture(scope="module")
def fields(directory):
    is_on_disk = tfds.builder_from_directory(directory).info.file_format.value == "tfrecord"
    left_out = RAGGED - {"list_list", "list_text", "varying_last"} if is_on_disk else set()
    return [name for name in FEATURES if name not in left_out]


def test_single_steps(directory, stock):
    got = [_numpy(step) for step in envlogger.tfds.steps(directory)]
    expected = [step for episode in stock for step in episode]

    assert len(got) == len(expected) == sum(LENGTHS)

    def check(name):
        for one, other in zip(got, expected, strict=True):
            _assert_same(one[name], other[name])

    _check_each([*FEATURES, *SINGLE], check)


def test_columns_of_episodes(directory, stock):
    episodes = list(envlogger.tfds.episodes(directory, fields=list(FEATURES)))

    assert len(episodes) == len(stock)

    def check(name):
        for episode, expected in zip(episodes, stock, strict=True):
            column = episode["steps"][name]
            assert isinstance(column, tf.RaggedTensor) == (name in RAGGED - {"list_dict"})
            rows = _rows(column)
            assert len(rows) == len(expected)
            for got, step in zip(rows, expected, strict=True):
                _assert_same(_numpy(got), step[name])

    _check_each(FEATURES, check)


# A buffer of 1 takes the way that shuffled elements take, and keeps the order.
@pytest.mark.parametrize("buffer", [0, 1], ids=["in order", "shuffled"])
def test_batches(directory, stock, fields, buffer):
    shuffle = envlogger.tfds.Shuffle(steps=buffer)
    dataset = envlogger.tfds.steps(directory, fields=fields, batch_size=5, shuffle=shuffle)
    batches = list(dataset)
    expected = [step for episode in stock for step in episode]

    def check(name):
        got = [row for batch in batches for row in _rows(batch[name])]
        assert len(got) == len(expected)
        for value, step in zip(got, expected, strict=True):
            _assert_same(_numpy(value), step[name])

    _check_each(fields, check)


@pytest.mark.parametrize(("stride", "buffer"), [(1, 0), (3, 1)], ids=["slices", "rows"])
def test_windows(directory, stock, fields, stride, buffer):
    dataset = envlogger.tfds.windows(
        directory,
        length=2,
        stride=stride,
        pad=True,
        fields=fields,
        batch_size=4,
        shuffle=envlogger.tfds.Shuffle(steps=buffer),
    )
    batches = list(dataset)
    expected = [
        episode[window] for episode in stock for window in numbered.windows(len(episode), 2, stride)
    ]
    masks = [mask.tolist() for batch in batches for mask in batch["mask"].numpy()]
    assert masks == [[t < len(steps) for t in range(2)] for steps in expected]

    def check(name):
        got = [_rows(window) for batch in batches for window in _rows(batch[name])]
        for window, steps in zip(got, expected, strict=True):
            for value, step in zip(window, steps, strict=False):
                _assert_same(_numpy(value), step[name])
            for padding in window[len(steps) :]:
                _assert_zero(_numpy(padding))

    _check_each(fields, check)


def _assert_zero(value):
    if isinstance(value, dict):
        for item in value.values():
            _assert_zero(item)
    else:
        assert not np.any(np.asarray(value).astype(bool))


@pytest.mark.parametrize("shuffled", [0, 1])
def test_full_batches_have_static_shapes(directory, shuffled):
    fields = [name for name in FEATURES if name not in RAGGED]
    shuffle = envlogger.tfds.Shuffle(steps=shuffled)
    options = {"fields": fields, "batch_size": 4, "drop_remainder": True, "shuffle": shuffle}

    steps = envlogger.tfds.steps(directory, **options)
    windows = envlogger.tfds.windows(directory, length=2, **options)

    for dataset, lead in [(steps, (4,)), (windows, (4, 2))]:
        for spec in tf.nest.flatten(dataset.element_spec):
            assert tuple(spec.shape[: len(lead)]) == lead
    assert [len(batch["int8"]) for batch in steps] == [4, 4, 4]


def test_fields_of_the_episode(directory):
    dataset = envlogger.tfds.episodes(directory, fields=["is_first"])

    metadata = [_numpy(episode["episode_metadata"]) for episode in dataset]

    assert [item["path"] for item in metadata] == [b"file %d" % i for i in range(len(LENGTHS))]
    assert [item["numbers"].tolist() for item in metadata] == [[0.5] * i for i in range(4)]


def test_images_of_different_sizes_in_one_batch_are_an_error(directory):
    fields = ["png_any_size"]
    message = r"png_any_size: images differ in size.*Leave the field out \(`fields`\)"
    for dataset in (
        envlogger.tfds.episodes(directory, fields=fields),
        envlogger.tfds.steps(directory, fields=fields, batch_size=2),
        envlogger.tfds.windows(directory, fields=fields, length=2),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            list(dataset)


@pytest.mark.parametrize(
    "feature",
    [
        F.Sequence(np.int64, length=2),
        _tensor((None,), np.int64),
        _tensor((0, 2), np.float32),
        _tensor((2,), np.complex64),
    ],
    ids=str,
)
def test_what_tfds_cannot_read_is_named(tmp_path, feature):
    step = {"odd": feature, "is_first": np.bool_}
    foreign.describe(tmp_path, F.FeaturesDict({"steps": F.Dataset(step)}))

    with pytest.raises(errors.UnsupportedValueError, match=r"steps: steps/odd of .*fields="):
        envlogger.tfds.steps(tmp_path)
    # Without it, the dataset could be read, were there any files.
    with pytest.raises(errors.CorruptDatasetError, match=r"toy-train.*: this shard is missing"):
        envlogger.tfds.windows(tmp_path, length=1, fields=["is_first"])
