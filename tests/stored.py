# SPDX-License-Identifier: Apache-2.0
"""Compares what TFDS reads from a dataset with what was logged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import dm_env
import helpers
import nests
import numpy as np

import envlogger

_SHIFTED = ("action", "reward", "discount")


def check(
    episodes: Sequence[Any],
    run: Sequence[Sequence[envlogger.StepData]],
    metadata_of_all: Sequence[Any],
    *,
    is_numpy_path: bool,
) -> None:
    """Fails unless episodes, as TFDS reads them, hold what was logged, in the alignment of RLDS.

    Args:
      episodes: What TFDS gave, as numpy.
      run: The steps that were logged, by episode.
      metadata_of_all: What `episode_fn` returned last in each episode.
      is_numpy_path: Whether TFDS read them without TensorFlow.
    """
    assert len(episodes) == len(run)
    features: dict[tuple[str, ...], np.ndarray] = {}
    for logged in run:
        for row in logged:
            features.update(_row_leaves(row))
    for episode, logged, metadata in zip(episodes, run, metadata_of_all, strict=True):
        steps = list(episode["steps"])
        assert len(steps) == len(logged)
        end = logged[-1].timestep
        for t, step in enumerate(steps):
            is_last = t == len(logged) - 1
            assert step["is_first"] == (t == 0)
            assert step["is_last"] == is_last
            assert step["is_terminal"] == (is_last and _is_terminal(end))
            came = {} if is_last else _row_leaves(logged[t + 1])
            here = _row_leaves(logged[t])
            leaves = {path: (came if path[0] in _SHIFTED else here).get(path) for path in features}
            padded = [path for path in features if is_last and path[0] in _SHIFTED]
            _check_step(step, leaves, features, padded, is_numpy_path)
        assert not episode["invalid"]
        _check_metadata(episode, metadata, is_numpy_path)


def check_steps(
    episodes: Sequence[Any],
    run: Sequence[Sequence[dict[Any, Any]]],
    metadata_of_all: Sequence[Any],
    *,
    is_numpy_path: bool,
) -> None:
    """Fails unless episodes, as TFDS reads them, hold steps that were in the form of RLDS already.

    Args:
      episodes: What TFDS gave, as numpy.
      run: The steps, without their flags, by episode.
      metadata_of_all: The metadata of each episode.
      is_numpy_path: Whether TFDS read them without TensorFlow.
    """
    assert len(episodes) == len(run)
    features = {
        path: leaf
        for given in run
        for step in given
        for path, leaf in nests.stored_leaves(step).items()
    }
    for episode, given, metadata in zip(episodes, run, metadata_of_all, strict=True):
        steps = list(episode["steps"])
        assert len(steps) == len(given)
        for step, values in zip(steps, given, strict=True):
            _check_step(step, nests.stored_leaves(values), features, (), is_numpy_path)
        _check_metadata(episode, metadata, is_numpy_path)


def _row_leaves(row: envlogger.StepData) -> dict[tuple[str, ...], np.ndarray]:
    custom = row.custom_data
    found = nests.stored_leaves(custom, () if isinstance(custom, dict) else ("custom_data",))
    for name in ("observation", "reward", "discount"):
        found.update(nests.stored_leaves(getattr(row.timestep, name), (name,)))
    found.update(nests.stored_leaves(row.action, ("action",)))
    return found


def _check_step(
    step: Any,
    leaves: Mapping[tuple[str, ...], np.ndarray | None],
    features: Mapping[tuple[str, ...], np.ndarray],
    padded: Collection[tuple[str, ...]],
    is_numpy_path: bool,
) -> None:
    """Fails unless a step holds the leaves; what is missing has a mask, unless it is padded."""
    found = helpers.flat(step)
    for path, example in features.items():
        value = leaves.get(path)
        _check_leaf(found[path], value, example, is_numpy_path, path)
        if ("present", *path) in found:
            assert bool(found["present", *path]) == (value is not None)
        else:
            assert value is not None or path in padded


def _check_metadata(episode: Any, metadata: Any, is_numpy_path: bool) -> None:
    found = helpers.flat(episode)
    root = () if isinstance(metadata, dict) else ("custom_data",)
    for path, value in nests.stored_leaves(metadata, root).items():
        _check_leaf(found[path], value, value, is_numpy_path, path)


def _check_leaf(
    got: Any, value: np.ndarray | None, example: np.ndarray, is_numpy_path: bool, path: Any
) -> None:
    if is_numpy_path and type(got) in (bool, int, float):
        got = example.dtype.type(got)  # TFDS gives scalars of an episode as Python's
    got = np.asarray(got, object if example.dtype == object else None)
    if isinstance(value, np.ndarray):
        # TFDS gives a Sequence (strings, uint32 of varying length) as a list, and an empty one has
        # no shape beyond that.
        is_empty_list = is_numpy_path and got.shape == (0,) and value.shape[:1] == (0,)
        assert got.shape == value.shape or is_empty_list, path
        expected = value
    else:  # padding
        expected = np.full(got.shape, b"" if example.dtype == object else 0, example.dtype)
    if example.dtype == object:
        assert got.tolist() == expected.tolist(), path
        return
    if not got.size and got.dtype != example.dtype:
        return  # an empty list has no dtype
    assert got.dtype == example.dtype, path
    if is_numpy_path and got.dtype == np.float32:
        # TFDS passes single floats through Python's, which makes signalling NaNs quiet.
        expected = _quiet(expected)
        got = _quiet(got)
    assert got.tobytes() == np.ascontiguousarray(expected).tobytes(), path


def _quiet(array: np.ndarray) -> np.ndarray:
    bits = np.array(array, np.float32).view(np.uint32)
    return np.where(np.isnan(array), bits | np.uint32(1 << 22), bits)


def _is_terminal(end: dm_env.TimeStep) -> bool:
    leaves = nests.stored_leaves(end.discount)
    with np.errstate(invalid="ignore"):
        return bool(end.last() and leaves and not any(np.any(v != 0) for v in leaves.values()))
