# SPDX-License-Identifier: Apache-2.0
"""`transitions`: one element per step that has a next one, with its n-step return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from envlogger import errors
from envlogger.options import check_count, check_fraction
from envlogger.tfds import schema
from envlogger.tfds.loaders import (
    blocks,
    columns,
    decoding,
    episode_rows,
    on_disk,
    returns,
    sources,
)
from envlogger.tfds.loaders.columns import Column, Rows, Tensor
from envlogger.tfds.loaders.shuffling import Shuffle

NEXT_OBSERVATION = "next_observation"
NEXT_IS_LAST = "next_is_last"
NEXT_IS_TERMINAL = "next_is_terminal"

_COMPUTED = (schema.REWARD, schema.DISCOUNT)
_DEFAULT_FIELDS = (schema.OBSERVATION, schema.ACTION)


def transitions(
    source: sources.Source,
    split: Any = "train",
    *,
    n_step: int = 1,
    gamma: float = 1.0,
    fields: Sequence[str] | None = None,
    batch_size: int | None = None,
    drop_remainder: bool = False,
    shuffle: Shuffle | None = None,
    interleave: int = 1,
    read_config: Any = None,
) -> Any:
    """Returns transitions: what an agent needs to learn from a step and those that follow it.

    Step t of an episode of T steps (0 <= t < T) holds, as RLDS aligns them, observation o_t, the action
    a_t taken in it, and the reward r_t and discount d_t that came of it. The last step's action, reward
    and discount are padding, so that an episode gives T - 1 transitions, of t = 0 ... T - 2, and none
    out of the last step. With n = `n_step`, g = `gamma` and m = min(n, T - 1 - t), which is less than n
    where the episode ends earlier, that of t is

        observation       o_t
        action            a_t
        reward            R = r_t + g d_t r_t+1 + ... + g^(m-1) d_t ... d_t+m-2 r_t+m-1
        discount          D = g^m d_t ... d_t+m-1, or 0 if step t + m is terminal
        next_observation  o_t+m
        next_is_last      whether t + m = T - 1
        next_is_terminal  whether step t + m is terminal

    so that R + D * V(next_observation) estimates the return. Note that D has all of the discounting.

    Ends of episodes differ in D only. Where the environment terminated, `is_terminal` is set, D is 0,
    and what V says of the last observation does not count; datasets of others often have discount 1
    there. Where the episode was cut short (a time limit, an early reset, a run that died), the last
    step has `is_last` without `is_terminal`, D is as everywhere else, and V stands for the rest. An agent
    that is to learn of no truncated end leaves out what has `next_is_last` and not `next_is_terminal`.

    A dataset without `discount` is read as if it were 1 everywhere; one without `is_terminal` as if
    `discount` told all.

    R and D are computed in float64 and rounded once to the dtype of the recorded ones, where these are
    floating; whole numbers and bools become float32, or float64 where float32 doesn't hold them all. With
    n = 1 and g = 1, R is the recorded reward, bit for bit; else TensorFlow takes subnormal numbers for
    zero. Rewards may be arrays or nested dicts; a discount per reward must then be nested likewise.

    Args:
      source: As in `steps`, as are the other arguments.
      split: The episodes to read.
      n_step: How many rewards to sum up.
      gamma: The discount of the agent, on top of the environment's; in [0, 1].
      fields: The fields of step t to load; `observation`, or a part of it, is loaded of step t + m, too.
        By default `observation` and `action`. The others of the table are there in any case.
      batch_size: How many transitions to batch; None for single ones.
      drop_remainder: Whether to leave out a last batch that is not full.
      shuffle: What to shuffle, and with which seed; `steps` is of transitions.
      interleave: The transitions of so many episodes alternate.
      read_config: A `tfds.ReadConfig`.

    Returns:
      A `tf.data.Dataset` of dicts with the keys above and the other `fields`. Images whose size is
      unknown must be of one size.

    Raises:
      OptionError, DatasetError, UnsupportedValueError: As in `steps`.
      DatasetError: The steps have no reward; or neither discount nor is_terminal, so that termination
        cannot be told from truncation; or no observation or action, and `fields` is not given; or only
        some of the datasets have discount, or is_terminal.
      UnsupportedValueError: Rewards or discounts are no numbers, vary in shape, or don't fit each other.
    """
    n_step = check_count("n_step", n_step)
    gamma = check_fraction("gamma", gamma)
    batching = blocks.Batching.of(batch_size, drop_remainder, shuffle, interleave, read_config)
    parts = sources.open_source(source, split, "transitions")
    chosen, signals = _open(parts, fields)
    chosen = on_disk.leave_on_disk(parts, chosen)
    loaded = {column.name: column for column in (*chosen, *signals.all())}

    def cut(rows: dict[str, Rows], lengths: Tensor) -> blocks.Cut:
        values = {
            c.name: decoding.decode(c, rows[c.name]) if decoding.is_late(c) else rows[c.name]
            for c in signals.all()
        }
        found = returns.n_step(signals, values, lengths, n_step, gamma)
        extras = {
            NEXT_IS_LAST: found.is_last,
            NEXT_IS_TERMINAL: found.is_terminal,
            schema.REWARD: found.rewards,
            schema.DISCOUNT: found.discounts,
        }
        at = found.at
        if interleave > 1:
            elements = episode_rows.members(tf.maximum(lengths - 1, 0))
            order = episode_rows.interleaved(elements, interleave)
            at, extras = blocks.take((at, extras), order)
        return blocks.Cut({c.name: rows[c.name] for c in chosen}, at, extras)

    seen = [c for c in chosen if c.path[0] == schema.OBSERVATION]
    widths = {c.name: 2 if c in seen else 1 for c in chosen}

    def build(values: blocks.Values, extras: dict[str, Any]) -> dict[str, Any]:
        first = {name: values.nth(name, 0) for name in widths}
        first |= {c.name: x for c, x in zip(signals.rewards, extras[schema.REWARD], strict=True)}
        computed = [*signals.rewards, *signals.discounts]
        if signals.discounts:
            pairs = zip(signals.discounts, extras[schema.DISCOUNT], strict=True)
            first |= {c.name: x for c, x in pairs}
        result = columns.pack(first, [*chosen, *computed])
        if not signals.discounts:
            [result[schema.DISCOUNT]] = extras[schema.DISCOUNT]
        if seen:
            second = {c.name: values.nth(c.name, 1) for c in seen}
            result[NEXT_OBSERVATION] = columns.pack(second, seen)[schema.OBSERVATION]
        return {**result, **{name: extras[name] for name in (NEXT_IS_LAST, NEXT_IS_TERMINAL)}}

    return blocks.elements(
        blocks.chunks(parts, list(loaded.values()), batching),
        cut,
        build,
        chosen,
        widths=widths,
        is_overlapping=True,
        batching=batching,
    )


def _open(
    parts: Sequence[sources.Part], fields: Sequence[str] | None
) -> tuple[list[Column], returns.Signals]:
    """Returns the columns to load as they are, and those that returns are computed from."""
    known = _find_signals(parts, fields)
    names = _DEFAULT_FIELDS if fields is None else fields
    chosen = columns.open_columns(parts, names, "transitions")
    where = parts[0].where
    for column in chosen:
        if column.path[0] in (NEXT_OBSERVATION, NEXT_IS_LAST, NEXT_IS_TERMINAL):
            raise errors.NameConflictError(
                f"transitions: the steps of {where} have a field {column.name!r}, which is the name of "
                "a field of the transition. Leave it out of `fields`."
            )
    found = columns.open_columns(parts, known, "transitions")
    terminal = [column for column in found if column.path == (schema.IS_TERMINAL,)]
    signals = returns.Signals(
        [column for column in found if column.path[0] == schema.REWARD],
        [column for column in found if column.path[0] == schema.DISCOUNT],
        terminal[0] if terminal else None,
    )
    signals.check(where)
    return [column for column in chosen if column.path[0] not in _COMPUTED], signals


def _find_signals(parts: Sequence[sources.Part], fields: Sequence[str] | None) -> list[str]:
    """Returns which of reward, discount and is_terminal the steps have.

    Raises:
      DatasetError: Something is missing, or not all of the datasets have it.
    """
    for part in parts:
        features = part.step_features
        for name in (schema.REWARD, *(_DEFAULT_FIELDS if fields is None else ())):
            if name not in features:
                raise errors.DatasetError(_lacks(repr(name), features, part.where))
        if schema.DISCOUNT not in features and schema.IS_TERMINAL not in features:
            either = f"{schema.DISCOUNT!r} or {schema.IS_TERMINAL!r}"
            raise errors.DatasetError(_lacks(either, features, part.where))
        for name in (schema.DISCOUNT, schema.IS_TERMINAL):
            if (name in features) != (name in parts[0].step_features):
                has, lacks = (part, parts[0]) if name in features else (parts[0], part)
                raise errors.DatasetError(
                    f"transitions: the steps of {has.where} have a field {name!r}, those of "
                    f"{lacks.where} have none. Load them apart, and join them: "
                    "transitions(a).concatenate(transitions(b))."
                )
    known = (schema.REWARD, schema.DISCOUNT, schema.IS_TERMINAL)
    return [name for name in known if name in parts[0].step_features]


def _lacks(name: str, features: Any, where: str) -> str:
    return (
        f"transitions: the steps of {where} have no field {name}, only {', '.join(features)}. Use "
        "`steps` or `windows`, which need none, or pass `fields` to load others."
    )
