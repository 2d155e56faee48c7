# SPDX-License-Identifier: Apache-2.0
"""Episodes as records. That values come back bit by bit is shown in `tests/test_round_trip.py`."""

from __future__ import annotations

import contextlib
import dataclasses

import dm_env
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envlogger import errors
from envlogger.testing.comparison import assert_same
from envlogger.tfds import example, record, schema, stored_episode, structure
from envlogger.tfds.episode import SLOTS, End, Episode, Pattern

FIRST, MID, LAST = map(int, dm_env.StepType)


def _episode(of, rows, *, end=End.LAST, metadata=None):
    """Returns an episode of rows (step type, observation, action, reward, discount, custom data)."""
    structures, columns = [], {}
    for i, (_, *values) in enumerate(rows):
        found = []
        for slot, value in zip(SLOTS, values, strict=True):
            leaves = {}
            path = () if slot == schema.CUSTOM_DATA and isinstance(value, dict) else (slot,)
            found.append(structure.flatten(value, path, leaves))
            for leaf_path, array in leaves.items():
                if leaf_path not in of.steps:
                    of.add(of.infer(leaf_path, array, array.shape))
                column = columns.setdefault(leaf_path, of.steps[leaf_path].zeros(len(rows)))
                column[i] = array[()]
        structures.append(tuple(found))
    leaves = {}
    path = () if isinstance(metadata, dict) else (schema.CUSTOM_DATA,)
    shape = structure.flatten(metadata, path, leaves)
    for leaf_path, array in leaves.items():
        if leaf_path not in of.episode:
            of.add(of.infer(leaf_path, array, array.shape), to_episode=True)
    return Episode(
        episode_id="id-0",
        end=end,
        step_types=np.array([row[0] for row in rows], np.uint8),
        pattern=Pattern(structures, [(i, 1) for i in range(len(rows))]),
        columns=columns,
        metadata_structure=shape,
        metadata=leaves,
    )


ROWS = [
    (FIRST, {"a": np.float32(0)}, None, None, None, {"t": 0}),
    (MID, {"a": np.float32(1)}, 10, 0.5, 1.0, {"t": 1}),
    (LAST, {"a": np.float32(2)}, 11, 1.5, 0.0, {"t": 2}),
]


def _ints(data, name):
    return example.decode_int64s(example.parse(data)[name]).tolist()


def test_the_alignment_of_rlds():
    of = schema.Schema()

    data = record.encode(_episode(of, ROWS), of)

    assert example.decode_floats(example.parse(data)["steps/observation/a"]).tolist() == [0, 1, 2]
    assert _ints(data, "steps/action") == [10, 11, 0]
    assert example.decode_rows(
        example.parse(data)["steps/reward"], np.dtype("f8"), ()
    ).tolist() == [0.5, 1.5, 0.0]
    assert _ints(data, "steps/t") == [0, 1, 2]
    assert _ints(data, "steps/is_first") == [1, 0, 0]
    assert _ints(data, "steps/is_last") == [0, 0, 1]
    assert _ints(data, "steps/is_terminal") == [0, 0, 1]
    assert _ints(data, "invalid") == [0]
    assert bytes(example.decode_bytes(example.parse(data)["episode_id"])[0]) == b"id-0"


@pytest.mark.parametrize(
    ("end", "discount", "is_terminal", "invalid"),
    [
        (End.LAST, 0.0, 1, 0),
        (End.LAST, -0.0, 1, 0),
        (End.LAST, 0, 1, 0),
        (End.LAST, {"a": np.zeros(2), "b": 0}, 1, 0),
        (End.LAST, {"a": np.zeros(2), "b": 1}, 0, 0),
        (End.LAST, 1.0, 0, 0),
        (End.LAST, 1e-300, 0, 0),
        (End.LAST, float("nan"), 0, 0),
        (End.LAST, None, 0, 0),
        (End.RESET, 0.0, 0, 0),
        (End.KILLED, 0.0, 0, 1),
    ],
)
def test_how_an_episode_ended(end, discount, is_terminal, invalid):
    of = schema.Schema()
    last = LAST if end is End.LAST else MID
    rows = [ROWS[0], (last, {"a": np.float32(0)}, 1, 0.5, discount, {"t": 1})]
    episode = _episode(of, rows, end=end)

    data = record.encode(episode, of)

    assert _ints(data, "steps/is_last") == [0, 1]
    assert _ints(data, "steps/is_terminal") == [0, is_terminal]
    assert _ints(data, "invalid") == [invalid]
    back = stored_episode.decode(data, of)
    assert back.end is end
    assert list(map(int, back.step_types)) == [FIRST, last]


def test_masks_are_asked_for_where_there_is_padding():
    of = schema.Schema()
    _episode(of, ROWS, metadata={"score": 1})
    rows = [
        (FIRST, {"a": np.float32(0)}, None, None, None, None),
        (MID, {"a": np.float32(1)}, 1, None, 1.0, {"t": 1}),
        (LAST, {"a": np.float32(1)}, 1, 1.0, 0.0, {"t": 1}),
    ]

    assert record.Encoder(of).masks(_episode(of, ROWS, metadata={"score": 2})) == ([], [])
    steps, episode = record.Encoder(of).masks(_episode(of, rows))

    assert (sorted(steps), episode) == ([("reward",), ("t",)], [("score",)])


def test_masks_say_what_is_there():
    of = schema.Schema()
    rows = [
        (FIRST, {"a": np.float32(0)}, None, None, None, {"t": 1}),
        (MID, {"a": np.float32(1)}, 1, None, 1.0, None),
        (LAST, {"a": np.float32(1)}, 1, 1.0, 0.0, {"t": 2}),
    ]
    episode = _episode(of, rows, metadata={"score": 1})
    for path in record.Encoder(of).masks(episode)[0]:
        of.add_mask(path)
    of.add_mask(("score",), to_episode=True)

    data = record.encode(episode, of)

    assert _ints(data, "steps/present/reward") == [0, 1, 0]
    assert _ints(data, "steps/present/t") == [1, 0, 1]
    assert _ints(data, "present/score") == [1]


def test_an_encoder_gives_what_a_new_one_gives():
    """It keeps what pads the metadata that an episode lacks: where keys are many, that is most of it."""
    of = schema.Schema()
    metadata = [{f"key{i}": value} for i, value in enumerate((1, "x", np.zeros(3), [True, 2.0]))]
    episodes = [_episode(of, ROWS, metadata=item) for item in [*metadata, None, *metadata[::-1]]]
    episodes.append(dataclasses.replace(episodes[0], end=End.KILLED))
    for path in record.Encoder(of).masks(_episode(of, ROWS))[1]:
        of.add_mask(path, to_episode=True)
    encoder = record.Encoder(of)
    for episode in episodes:
        data = encoder.encode(episode)
        assert data == record.encode(episode, of)
        back = stored_episode.decode(data, of)
        assert back.end is episode.end
        for path in episodes[0].metadata | episodes[1].metadata:
            assert _ints(data, f"present/{path[0]}") == [path in episode.metadata]


def test_a_value_on_first_is_restored():
    of = schema.Schema()
    rows = [
        (FIRST, 0.5, {"x": ["word", np.zeros((0, 2), "U1")]}, np.array(["a", "b"]), -0.0, None),
        (MID, 0.5, {"x": ["more", np.zeros((0, 2), "U1")]}, np.array(["c", "d"]), 1.0, None),
    ]
    episode = _episode(of, rows, end=End.RESET)

    back = stored_episode.decode(record.encode(episode, of), of)

    for i, (_, observation, action, reward, discount, custom) in enumerate(rows):
        step = back.step(i)
        assert_same(
            (step.timestep.observation, step.action, step.timestep.reward, step.timestep.discount),
            (observation, action, reward, discount),
        )
        assert step.custom_data is custom


def test_adapting_adds_padding_with_masks():
    have, want = schema.Schema(), schema.Schema()
    data = record.encode(_episode(have, ROWS), have)
    wide = [(*row[:-1], {**row[-1], "new": np.zeros((0, 3), "f2")}) for row in ROWS]
    _episode(want, wide, metadata={"score": "x"})
    for path, to_episode in ((("new",), False), (("score",), True), (("reward",), False)):
        want.add_mask(path, to_episode=to_episode)

    adapted = record.adapt(data, have, want)

    assert adapted.startswith(data)
    assert _ints(adapted, "steps/present/new") == [0, 0, 0]
    assert _ints(adapted, "steps/present/reward") == [1, 1, 0]
    assert _ints(adapted, "present/score") == [0]
    back, before = stored_episode.decode(adapted, want), stored_episode.decode(data, have)
    assert [back.step(i) for i in range(3)] == [before.step(i) for i in range(3)]
    assert back.metadata_value() is None
    assert record.adapt(data, have, have) == data


def test_counting_steps():
    of = schema.Schema()

    assert record.count_steps(record.encode(_episode(of, ROWS), of), of) == 3


def test_a_value_that_the_schema_lacks_is_refused():
    episode = _episode(schema.Schema(), ROWS)

    with pytest.raises(errors.ValueMismatchError, match=r"action.*no feature for"):
        record.encode(episode, schema.Schema())


def test_episode_fields_of_another_type_are_the_callers():
    of = schema.Schema()
    array = np.int64(7)
    of.add(of.infer(("episode_id",), np.asarray(array), ()), to_episode=True)

    given = stored_episode.decode(
        record.encode(_episode(of, ROWS, metadata={"episode_id": 7}), of), of
    )
    missing = _episode(of, ROWS)

    assert given.metadata_value() == {"episode_id": 7}
    assert record.Encoder(of).masks(missing)[1] == [("episode_id",)]
    assert _ints(record.encode(missing, of), "episode_id") == [0]


def test_records_of_others_give_dicts_of_numpy_values():
    of = schema.Schema()
    rows = [(*row[:-1], {"t": np.int64(row[-1]["t"]), "text": "x"}) for row in ROWS]
    data = record.encode(_episode(of, rows, metadata={"score": 3}), of)
    theirs = dataclasses.replace(of, episode=dict(of.episode))
    del theirs.episode[(schema.RESTORE,)]
    raw = example.parse(data)
    data = example.serialize({name: raw[name] for name in raw if name != schema.RESTORE})

    back = stored_episode.decode(data, theirs)

    first, middle, last = (back.step(i) for i in range(3))
    assert_same(first.timestep, dm_env.restart({"a": np.float32(0)}))
    assert_same(
        middle.timestep, dm_env.transition(np.float64(0.5), {"a": np.float32(1)}, np.float64(1))
    )
    assert last.timestep.last()
    assert_same([first.action, middle.action, last.action], [None, np.int64(10), np.int64(11)])
    assert_same(last.custom_data, {"t": np.int64(2), "text": b"x"})
    assert back.metadata_value()["score"] == 3


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.data())
def test_damage_gives_one_kind_of_error(data):
    of = schema.Schema()
    damaged = bytearray(record.encode(_episode(of, ROWS, metadata={"score": "x"}), of))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]

    with contextlib.suppress(errors.CorruptDatasetError):
        episode = stored_episode.decode(bytes(damaged), of)
        for read in (
            lambda: list(episode.rows(0, len(episode))),
            lambda: episode.columns(None, slice(None)),
            episode.metadata_value,
        ):
            with contextlib.suppress(errors.CorruptDatasetError):
                read()


def test_columns_of_different_lengths_are_refused():
    of = schema.Schema()
    raw = example.parse(record.encode(_episode(of, ROWS), of))
    short = {**raw, "steps/action": example.int64_feature(np.arange(2))}

    episode = stored_episode.decode(example.serialize(short), of)
    with pytest.raises(
        errors.CorruptDatasetError, match=r"steps/action: a record has 2 .*expected 3"
    ):
        list(episode.rows(0, 3))
