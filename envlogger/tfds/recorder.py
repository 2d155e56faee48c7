# SPDX-License-Identifier: Apache-2.0
"""From logged steps to episodes: checks each value against the schema, which it extends."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import dm_env
import numpy as np
import numpy.typing as npt

from envlogger import errors, step_data
from envlogger.converters.varying_array import VaryingArray
from envlogger.tfds import features, schema, structure
from envlogger.tfds.episode import Row
from envlogger.tfds.structure import Leaves, Path, Structure

_SPEC_NAMES = {
    schema.OBSERVATION: "observation_spec",
    schema.ACTION: "action_spec",
    schema.REWARD: "reward_spec",
    schema.DISCOUNT: "discount_spec",
}

# What RLDS has as a float, whatever the first value of it is.
_FLOATS = ((schema.REWARD,), (schema.DISCOUNT,))


class Recorder:
    """Turns what the environment and the callbacks gave into rows that fit the schema.

    Args:
      of: The schema; extended in place as new features turn up.
      specs: The environment's specs by name (`observation_spec`, …), where known.
      is_aligned: Whether the rows are steps of RLDS, which no environment gave.
    """

    def __init__(
        self, of: schema.Schema, specs: Mapping[str, Any], *, is_aligned: bool = False
    ) -> None:
        self.schema = of
        self._is_aligned = is_aligned
        self._specs: dict[Path, Any] = {}
        for slot, name in _SPEC_NAMES.items():
            self._specs.update(spec_leaves(specs.get(name), (slot,)))
        # Features that have had one value only, and the stream that had it: the second may show that a
        # dimension varies.
        self._young: dict[Path, int] = {}
        # Of metadata the last value of an episode counts, and it may have grown till then.
        self._young_metadata: dict[Path, set[int]] = {}
        self._warned_first = False

    def begin_episode(self, stream: int) -> None:
        """Fixes shapes: the stream's episode before may be published, with the features as they are."""
        self._young = {path: of for path, of in self._young.items() if of != stream}
        self._young_metadata = {
            path: streams for path, streams in self._young_metadata.items() if stream not in streams
        }

    def whole(
        self, steps: Iterable[step_data.StepData], metadata: Any, stream: int
    ) -> tuple[list[Row], tuple[Structure, Leaves] | None]:
        """Returns all steps of an episode as rows, and its metadata; or raises, and knows no more of it.

        A dimension may vary anywhere in it. The rows hold copies: steps may share a buffer.

        Raises:
          ValueMismatchError, UnsupportedValueError, NameConflictError: As for `row`.
        """
        self.begin_episode(stream)
        steps_before, episode_before = self.schema.steps, self.schema.episode
        rows: list[Row] = []
        young: dict[Path, int] = {}
        is_step = False
        try:
            note = None if metadata is None else self.metadata(metadata, stream)
            is_step = True
            for data in steps:
                row = self.row(data, stream)
                row.leaves = {path: array.copy() for path, array in row.leaves.items()}
                rows.append(row)
                young |= self._young
                self._young |= young  # none of them is stored yet
        except BaseException as error:
            self.schema.steps, self.schema.episode = steps_before, episode_before
            if isinstance(error, errors.EnvLoggerError):
                place = f"step {len(rows)} of the episode" if is_step else "the episode's metadata"
                raise type(error)(f"{error} It is in {place}, which was not recorded.") from error
            raise
        finally:
            self.begin_episode(stream)
        return rows, note

    def row(self, data: step_data.StepData, stream: int) -> Row:
        """Returns a step of a stream as a row.

        Raises:
          ValueMismatchError: A value does not fit what was recorded before.
          UnsupportedValueError: A value cannot be stored.
          NameConflictError: A key is reserved or collides.
        """
        timestep = data.timestep
        if timestep.step_type not in tuple(dm_env.StepType):
            raise errors.UnsupportedValueError(
                f"step_type: got {timestep.step_type!r}, expected a dm_env.StepType: FIRST, MID or LAST."
            )
        values = {
            schema.OBSERVATION: timestep.observation,
            schema.ACTION: data.action,
            schema.REWARD: timestep.reward,
            schema.DISCOUNT: timestep.discount,
            schema.CUSTOM_DATA: data.custom_data,
        }
        leaves: Leaves = {}
        structures: list[Structure] = []
        draft = self.schema.copy()  # a step that raises leaves the schema as it was
        young = dict(self._young)
        surprises: list[str] = []
        for slot, value in values.items():
            found: Leaves = {}
            if slot == schema.CUSTOM_DATA and isinstance(value, Mapping):
                schema.check_names(value, "a step" if self._is_aligned else "step_fn")
            path = () if slot == schema.CUSTOM_DATA and isinstance(value, Mapping) else (slot,)
            shape = structure.flatten(value, path, found)
            structures.append(shape)
            for leaf_path, array in found.items():
                code = _code(shape, path, leaf_path)
                leaves[leaf_path] = self._fit(
                    draft, leaf_path, code, array, young, stream, surprises
                )
            if slot != schema.CUSTOM_DATA and value is not None:
                _check_same_leaves(draft, self.schema, slot, found)
        self.schema.steps = draft.steps
        self._young = young
        self._warn(surprises, timestep)
        return Row(int(timestep.step_type), tuple(structures), leaves)

    def metadata(self, value: Any, stream: int) -> tuple[Structure, Leaves]:
        """Returns what `episode_fn` gave of a stream's episode, as structure and leaves that fit the schema.

        Raises:
          ValueMismatchError, UnsupportedValueError, NameConflictError: As for `row`.
        """
        is_dict = isinstance(value, Mapping)
        if is_dict:
            schema.check_names(value, "an episode" if self._is_aligned else "episode_fn")
        path = () if is_dict else (schema.CUSTOM_DATA,)
        found: Leaves = {}
        shape = structure.flatten(value, path, found)
        draft = self.schema.copy()
        for leaf_path, array in found.items():
            known = draft.episode.get(leaf_path)
            if known is None:
                self._refuse_if_given(leaf_path)
                known = draft.infer(leaf_path, array, array.shape)
                draft.add(known, to_episode=True)
                self._young_metadata[leaf_path] = {stream}
            elif leaf_path in self._young_metadata:
                self._young_metadata[leaf_path].add(stream)
                if wider := schema.widened(known, array):
                    known = draft.infer(leaf_path, array, wider)
                    draft.add(known, to_episode=True)
            found[leaf_path] = schema.conform(known, _code(shape, path, leaf_path), array)
        self.schema.episode = draft.episode
        return shape, found

    def _fit(
        self,
        draft: schema.Schema,
        path: Path,
        code: str,
        array: npt.NDArray[Any],
        young: dict[Path, int],
        stream: int,
        surprises: list[str],
    ) -> npt.NDArray[Any]:
        """Returns a leaf as its feature stores it; adds or widens the feature where that is due."""
        feature = draft.steps.get(path)
        if feature is None:
            self._refuse_if_given(path)
            spec = self._specs.get(path)
            is_float = self._is_aligned and path in _FLOATS
            if spec is not None:
                is_float = np.issubdtype(spec.dtype, np.floating)
            # `reward = 0` where the spec says float: the next one may be 0.5.
            sample = array.astype(np.float64) if code == "i" and is_float else array
            known: features.Shape = array.shape
            if isinstance(spec, VaryingArray) and known:
                known = (None, *known[1:])
            feature = draft.infer(path, sample, known)
            draft.add(feature)
            young[path] = stream
            if surprise := _compare_to_spec(path, code, sample, spec):
                surprises.append(surprise)
            return schema.conform(feature, code, array)
        if path in young:
            del young[path]
            if wider := schema.widened(feature, array):
                draft.add(draft.infer(path, array, wider))
                return array
        return schema.conform(feature, code, array)

    def _refuse_if_given(self, path: Path) -> None:
        if self.schema.is_given:
            raise errors.ValueMismatchError(
                f"{errors.format_path(path)}: got a value, but what was given (ds_config or features) "
                "has no feature there. Add one, or give nothing to have the features inferred."
            )

    def _warn(self, surprises: list[str], timestep: dm_env.TimeStep) -> None:
        if surprises:
            warnings.warn(
                "What the environment returns differs from its specs; it is recorded as it is. "
                + "; ".join(surprises),
                UserWarning,
                stacklevel=6,
            )
        if timestep.first() and not (self._warned_first or self._is_aligned):
            given = [
                n for n in (schema.REWARD, schema.DISCOUNT) if getattr(timestep, n) is not None
            ]
            if given:
                self._warned_first = True
                warnings.warn(
                    f"{' and '.join(given)}: got a value on a FIRST step, where dm_env has None. "
                    "RLDS has no place for it; only envlogger.Reader returns it.",
                    UserWarning,
                    stacklevel=6,
                )


def spec_leaves(spec: Any, path: Path) -> dict[Path, Any]:
    """Returns the specs in a nest of dicts, lists and tuples by the paths of their values."""
    if spec is None:
        return {}
    if isinstance(spec, Mapping):
        items = [(str(key), item) for key, item in spec.items()]
    elif isinstance(spec, list | tuple):
        items = [(str(i), item) for i, item in enumerate(spec)]
    else:
        return {path: spec}
    leaves: dict[Path, Any] = {}
    for key, item in items:
        leaves.update(spec_leaves(item, (*path, key)))
    return leaves


def _code(shape: Structure, prefix: Path, path: Path) -> str:
    """Returns the code of the leaf at `path` of a structure that begins at `prefix`."""
    node = shape
    for key in path[len(prefix) :]:
        if isinstance(node, dict):
            node = node[key] if key in node else node[int(key)]
        else:
            node = node[int(key)]
    return str(node)


def _check_same_leaves(
    draft: schema.Schema, before: schema.Schema, slot: str, found: Leaves
) -> None:
    """Refuses a field of the environment whose nesting is not what it was."""
    expected = {feature.path for feature in before.slot(slot)}
    if not expected or expected == found.keys():
        return
    missing = ", ".join(sorted(map(errors.format_path, expected - found.keys()))) or "none"
    extra = ", ".join(sorted(map(errors.format_path, found.keys() - expected))) or "none"
    raise errors.ValueMismatchError(
        f"{slot}: got another nesting than recorded before (missing: {missing}; new: {extra}). "
        "Give all of its values at each step, or record into another data_directory."
    )


def _compare_to_spec(path: Path, code: str, array: npt.NDArray[Any], spec: Any) -> str | None:
    """Returns how a value differs from its spec, or None."""
    if spec is None:
        return None
    dtype, shape = structure.logged_form(code, array)
    wanted = np.dtype(spec.dtype)
    if code == "i":
        fits = wanted.kind in "iuf"  # a Python number has no width of its own
    elif code in "bfc" or dtype.kind in "OUS":
        fits = wanted.kind == dtype.kind or {wanted.kind, dtype.kind} <= set("OUS")
    else:
        fits = dtype == wanted
    varies = isinstance(spec, VaryingArray) and len(shape) == len(spec.shape)
    if fits and shape[varies:] == tuple(spec.shape)[varies:]:
        return None
    got = schema.describe(dtype, shape)
    return f"{errors.format_path(path)}: got {got}, the spec says {wanted} of shape {spec.shape}"


__all__ = ["Recorder", "spec_leaves"]
