# SPDX-License-Identifier: Apache-2.0
"""Compares a dataset with what was acknowledged."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence
from typing import Any

import dm_env
import numpy as np

import envlogger
from envlogger import errors, step_data
from envlogger.testing.comparison import assert_same
from envlogger.tfds import dataset, example, shards

from . import scripts
from .recording import Outcome


class LossError(AssertionError):
    """The dataset is not what it must be."""


@dataclasses.dataclass
class _Episode:
    """An episode as it was found; one that was split into several records is one here."""

    steps: list[step_data.StepData]
    metadata: Any
    is_invalid: bool

    @property
    def numbers(self) -> list[int]:
        return [step.custom_data["n"] for step in self.steps]


def check_all(directory: str, outcomes: Sequence[Outcome], *, with_tfds: bool = False) -> None:
    """Raises unless each acknowledged step is there, to the bit, and every episode once."""
    found = _load(directory, with_tfds)
    for outcome in outcomes:
        episodes = _join(outcome, found.pop(outcome.plan.seed, []))
        numbers = _check_values(outcome, episodes)
        missing = set(outcome.acknowledged) - set(numbers)
        if missing:
            raise LossError(f"session {outcome.plan.seed}: the calls {_some(missing)} are lost")
        if outcome.is_closed:
            invalid = [i for i, episode in enumerate(episodes) if episode.is_invalid]
        else:
            invalid = [i for i, episode in enumerate(episodes[:-1]) if episode.is_invalid]
        if invalid:
            raise LossError(
                f"session {outcome.plan.seed}: the episodes {_some(invalid)} are invalid"
            )
        if episodes and not outcome.is_closing:
            last = episodes[-1]
            if last.is_invalid == last.steps[-1].timestep.last():
                raise LossError(
                    f"session {outcome.plan.seed}: invalid is {last.is_invalid} at the end"
                )
    if found:
        raise LossError(f"there are episodes of the sessions {sorted(found)}, which never were")


def check_readable(directory: str, outcomes: Sequence[Outcome], *, with_tfds: bool = False) -> None:
    """Raises unless a reader sees whole episodes only, whatever has become of their writers."""
    found = _load(directory, with_tfds)
    for outcome in outcomes:
        episodes = _join(outcome, found.pop(outcome.plan.seed, []))
        _check_values(outcome, episodes)
        if "max_backlog_bytes" in outcome.plan.options:
            continue  # parts of an episode that is too large for the backlog may come first
        for episode in episodes:
            script = scripts.script(outcome.plan.kind, outcome.plan.seed)
            after = script[episode.numbers[-1] + 1]
            # What a dead writer left may have been sealed already; and after a call that could not
            # be stored, another episode begins.
            is_end = after.number > max(outcome.acknowledged, default=-1)
            if not (after.is_reset or is_end or after.number not in outcome.acknowledged):
                raise LossError(f"session {outcome.plan.seed}: call {after.number} is not there")
    if found:
        raise LossError(f"there are episodes of the sessions {sorted(found)}, which never were")


def _check_values(outcome: Outcome, episodes: Sequence[_Episode]) -> list[int]:
    """Raises unless the steps are those of the script; returns the numbers of their calls."""
    script = scripts.script(outcome.plan.kind, outcome.plan.seed)
    numbers = [number for episode in episodes for number in episode.numbers]
    name = f"session {outcome.plan.seed}"
    if any(a >= b for a, b in itertools.pairwise(numbers)):
        raise LossError(f"{name}: the calls come twice, or in another order: {_some(numbers)}")
    acknowledged = outcome.acknowledged
    begun = max(acknowledged, default=-1) + 2  # one may have been under way
    failed = set(range(begun)) - set(acknowledged)
    if extra := set(numbers) - set(acknowledged) - failed:
        raise LossError(f"{name}: the calls {_some(extra)} are there, but never were")
    for episode in episodes:
        for number, step in zip(episode.numbers, episode.steps, strict=True):
            call = script[number]
            assert_same(step, call.data)
            if call.episode != script[episode.numbers[0]].episode:
                raise LossError(f"{name}: call {number} is in the wrong episode")
        _check_metadata(name, outcome, episode)
    return numbers


def _check_metadata(name: str, outcome: Outcome, episode: _Episode) -> None:
    script = scripts.script(outcome.plan.kind, outcome.plan.seed)
    # Where the call was not acknowledged, its metadata need not be there, even if its step is.
    allowed: list[Any] = [None]
    for number in episode.numbers:
        value = script[number].metadata
        if value is not None:
            allowed = [value] if number in outcome.acknowledged else [*allowed, value]
    for value in allowed:
        try:
            assert_same(episode.metadata, value)
        except AssertionError:
            continue
        return
    raise LossError(
        f"{name}, calls {episode.numbers[0]} to {episode.numbers[-1]}: the metadata is "
        f"{episode.metadata}, expected {allowed}"
    )


def _load(directory: str, with_tfds: bool) -> dict[int, list[_Episode]]:
    """Returns the episodes by session. Where there is no dataset yet, there are none."""
    try:
        reader = envlogger.Reader(directory)
    except errors.CorruptDatasetError:
        raise
    except errors.DatasetError:
        return {}
    found: dict[int, list[_Episode]] = {}
    with reader:
        steps = [list(episode) for episode in reader.episodes]
        metadata = list(reader.episode_metadata())
    if sum(map(len, steps)) != len(reader.steps):
        raise LossError(
            f"the index says {len(reader.steps)} steps, there are {sum(map(len, steps))}"
        )
    flags = load_flags(directory)
    # Where writers are at it, there may be more by now.
    if len(flags) < len(steps):
        raise LossError(f"there are {len(flags)} records and {len(steps)} episodes")
    if with_tfds:
        _compare_to_tfds(directory, steps, flags)
    for rows, value, record in zip(steps, metadata, flags, strict=False):
        check_flags(rows, record)
        episodes = found.setdefault(rows[0].custom_data["session"], [])
        episodes.append(_Episode(rows, value, record["invalid"]))
    return found


def _join(outcome: Outcome, found: Sequence[_Episode]) -> list[_Episode]:
    """Returns the episodes of a session, those of several records as one.

    Only what is too large for its backlog is split, and what had a call that could not be stored.
    """
    script = scripts.script(outcome.plan.kind, outcome.plan.seed)
    may_split = "max_backlog_bytes" in outcome.plan.options
    joined: list[_Episode] = []
    for piece in found:
        first = script[piece.numbers[0]]
        if first.is_reset:
            joined.append(piece)
            continue
        if first.number - 1 in outcome.acknowledged and not may_split:
            raise LossError(
                f"session {outcome.plan.seed}: an episode begins with call {first.number}"
            )
        whole = joined[-1] if joined else None
        if whole is None or script[whole.numbers[-1]].episode != first.episode:
            joined.append(piece)
            continue
        whole.steps += piece.steps
        whole.metadata = whole.metadata if piece.metadata is None else piece.metadata
        whole.is_invalid = piece.is_invalid
    return joined


def load_flags(directory: str) -> list[dict[str, Any]]:
    """Returns RLDS's flags of each episode as they lie in its record."""
    contents = dataset.load(directory)
    flags = []
    for split, lengths in sorted(contents.info.shard_lengths.items()):
        for index, length in enumerate(lengths):
            path = os.path.join(directory, contents.info.shard_name(split, index))
            for record in shards.read_all(path, length):
                raw = example.parse(record)
                names = {"invalid": "invalid"}
                names |= {key: f"steps/{key}" for key in ("is_first", "is_last", "is_terminal")}
                values = {
                    key: np.asarray(example.decode_int64s(raw[name])).astype(bool)
                    for key, name in names.items()
                }
                flags.append({**values, "invalid": bool(values["invalid"][0])})
    return flags


def check_flags(rows: Sequence[step_data.StepData], flags: dict[str, Any]) -> None:
    number = rows[0].custom_data["n"]
    last = rows[-1].timestep
    is_last = [False] * (len(rows) - 1) + [True]
    is_terminal = [False] * (len(rows) - 1) + [last.last() and last.discount == 0]
    expected = {
        "is_first": [row.timestep.step_type == dm_env.StepType.FIRST for row in rows],
        "is_last": is_last,
        "is_terminal": is_terminal,
    }
    for key, values in expected.items():
        if flags[key].tolist() != values:
            raise LossError(f"{key} of the episode of call {number} is {flags[key].tolist()}")
    if flags["invalid"] and any(is_terminal):
        raise LossError(f"the episode of call {number} is invalid and terminal")


def _compare_to_tfds(
    directory: str, episodes: Sequence[Sequence[step_data.StepData]], flags: Sequence[Any]
) -> None:
    """Raises unless TFDS finds the same steps; the bits of all values are tested elsewhere."""
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(directory).as_data_source("train")
    if len(source) < len(episodes):
        raise LossError(f"TFDS finds {len(source)} episodes, not {len(episodes)}")
    for found, rows, record in zip(source, episodes, flags, strict=False):
        steps = list(found["steps"])
        if [int(step["n"]) for step in steps] != [row.custom_data["n"] for row in rows]:
            raise LossError(f"TFDS finds other steps than {[row.custom_data['n'] for row in rows]}")
        if bool(found["invalid"]) != record["invalid"]:
            raise LossError("TFDS finds another value of invalid")
        for step, row in zip(steps, rows, strict=True):
            _compare_bits(step["observation"], row.timestep.observation)


def _compare_bits(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        for key, value in expected.items():
            _compare_bits(found[key], value)
    elif isinstance(expected, str):
        if found != expected.encode():
            raise LossError(f"TFDS finds {found!r}, not {expected!r}")
    elif np.asarray(found).tobytes() != np.asarray(expected).tobytes():
        raise LossError(f"TFDS finds {found!r}, not {expected!r}")


def _some(numbers: Any) -> str:
    shown = sorted(numbers) if isinstance(numbers, set) else list(numbers)
    return ", ".join(map(str, shown[:12])) + (", …" if len(shown) > 12 else "")
