# SPDX-License-Identifier: Apache-2.0
"""An encoder that has seen episodes of a kind gives the bytes that a new one gives."""

from __future__ import annotations

import dm_env
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from envlogger.tfds import record, schema, structure
from envlogger.tfds.episode import SLOTS, End, Episode, Pattern
from envlogger.tfds.features import Chunks

FIRST, MID, LAST = map(int, dm_env.StepType)
STEPS = 5


def _make(leaves):
    """Returns a schema, a pattern and a way to make episodes of columns (STEPS, ...)."""
    of = schema.Schema()
    tree = {}
    for path, column in leaves.items():
        array = np.asarray(column[0])
        of.add(of.infer(path, array, array.shape))
        shape = structure.flatten(column[0], path, {})
        if len(path) == 1:
            tree[path[0]] = shape
        else:
            tree.setdefault(path[0], {})[path[1]] = shape
    slots = [tree.get(name) for name in SLOTS]
    pattern = Pattern([(slots[0], None, None, None, None), tuple(slots)], [(0, 1), (1, STEPS - 1)])

    def episode(columns, number=0, end=End.LAST, last=LAST):
        return Episode(
            episode_id=f"id-{number}",
            end=end,
            step_types=np.array([FIRST, *[MID] * (STEPS - 2), last], np.uint8),
            pattern=pattern,
            columns=columns,
        )

    return of, episode


def _values(dtype, shape=()):
    """Returns columns of any bits."""
    dtype = np.dtype(dtype)
    size = STEPS * int(np.prod(shape, dtype=int)) * dtype.itemsize
    if dtype == np.bool_:
        return hnp.arrays(np.bool_, (STEPS, *shape))
    return st.binary(min_size=size, max_size=size).map(
        lambda raw: np.frombuffer(raw, dtype).reshape(STEPS, *shape)
    )


COLUMNS = {
    ("observation", "f4"): _values(np.float32, (2, 3)),
    ("observation", "f8"): _values(np.float64, (3,)),
    ("observation", "scalar"): _values(np.float64),
    ("observation", "none"): _values(np.float64, (0,)),
    ("observation", "u1"): _values(np.uint8, (4,)),
    ("observation", "u8"): _values(np.uint64),
    ("observation", "c8"): _values(np.complex64, (2,)),
    ("observation", "bool"): _values(np.bool_, (2,)),
    ("observation", "bf16"): _values(ml_dtypes.bfloat16, (2,)),
    # Mostly varints of one byte, sometimes of more.
    ("action",): hnp.arrays(np.int64, STEPS, elements=st.integers(-1, 140)),
    ("reward",): _values(np.float64),
    ("discount",): st.just(np.array([1.0, 1.0, 1.0, 1.0, 0.0])),
}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_template_gives_the_same_bytes(data):
    chosen = data.draw(st.sets(st.sampled_from(sorted(COLUMNS)), min_size=1))
    drawn = [
        {path: data.draw(COLUMNS[path]) for path in sorted(chosen | {("discount",)})}
        for _ in range(4)
    ]
    of, episode = _make(drawn[0])
    encoder = record.Encoder(of)

    for number, columns in enumerate(drawn):
        other = episode(columns, number)
        assert encoder.encode(other) == record.encode(other, of)


@pytest.mark.parametrize("value", [127, 128, -1, 2**40])
def test_an_integer_of_more_bytes_goes_the_other_way(value):
    of, episode = _make({("action",): np.arange(STEPS)})
    encoder = record.Encoder(of)
    for number in range(3):
        encoder.encode(episode({("action",): np.arange(STEPS)}, number))
    odd = episode({("action",): np.array([0, 1, value, 3, 4])}, 7)

    assert encoder.encode(odd) == record.encode(odd, of)
    plain = episode({("action",): np.arange(STEPS)}, 8)
    assert encoder.encode(plain) == record.encode(plain, of)


def test_how_an_episode_ended_is_not_taken_over():
    of, episode = _make({("discount",): np.ones(STEPS)})
    encoder = record.Encoder(of)
    ends = [
        (End.LAST, LAST, 0.0),
        (End.LAST, LAST, 1.0),
        (End.KILLED, MID, 1.0),
        (End.RESET, MID, 0.0),
    ]

    for number, (end, last, discount) in enumerate(ends * 3):
        columns = {("discount",): np.full(STEPS, discount)}
        other = episode(columns, number, end, last)
        assert encoder.encode(other) == record.encode(other, of)


def test_an_id_of_another_length():
    of, episode = _make({("action",): np.arange(STEPS)})
    encoder = record.Encoder(of)

    for number in (1, 2, 3, 10, 4, 100):
        other = episode({("action",): np.arange(STEPS)}, number)
        assert encoder.encode(other) == record.encode(other, of)


def test_large_rows_in_chunks_after_a_template():
    large = np.arange(STEPS * 3000, dtype=np.float64).reshape(STEPS, 3000)
    of, episode = _make({("observation",): large})
    encoder = record.Encoder(of)
    for number in range(3):
        encoder.encode(episode({("observation",): large}, number))
    parts = episode({("observation",): Chunks([large[:2], large[2:]])}, 4)

    assert encoder.encode(parts) == record.encode(parts, of)


def test_from_the_third_episode_on_nothing_else_is_worked_out(monkeypatch):
    of, episode = _make({("action",): np.arange(STEPS), ("reward",): np.arange(5.0)})
    encoder = record.Encoder(of)
    for number in range(2):
        encoder.encode(episode({("action",): np.arange(5), ("reward",): np.ones(5)}, number))
    third = episode({("action",): np.arange(5) * 2, ("reward",): np.zeros(5)}, 3)
    expected = record.encode(third, of)
    monkeypatch.delattr(record.Encoder, "_raw")

    assert encoder.encode(third) == expected
