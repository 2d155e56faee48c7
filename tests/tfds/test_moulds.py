# SPDX-License-Identifier: Apache-2.0
"""Episodes that are alike are read by compiled code, and give what the general path gives."""

from __future__ import annotations

import glob

import dm_env
import helpers
import nests
import numpy as np
import pytest
import repeatable
from hypothesis import given
from hypothesis import strategies as st

import envlogger
from envlogger import errors
from envlogger.testing.comparison import assert_same
from envlogger.tfds import dataset, example, features, moulds, schema, shards, stored_episode
from envlogger.tfds.features import Encoding, Feature


@pytest.fixture
def casts(monkeypatch):
    """What moulds have made: the names of attributes of `Likeness`; moulds are made at once."""
    found = []

    def spied(name):
        compile_ = getattr(moulds._Compiler, name)

        def compile_spied(self, *args):
            mould = compile_(self, *args)

            def cast(record, rows):
                made = mould(record, rows)
                if made is not None:
                    found.append(name.removeprefix("compile_"))
                return made

            return cast

        return compile_spied

    for name in ("compile_steps", "compile_columns"):
        monkeypatch.setattr(moulds._Compiler, name, spied(name))
    monkeypatch.setattr(moulds, "_WORTH_IT", 1)
    return found


def _observation(rng):
    return {
        "f4": rng.standard_normal((2, 3)).astype("f4"),
        "f8": rng.standard_normal(4),
        "u1": rng.integers(0, 256, (4, 5, 3)).astype("u1"),
        "i8": rng.integers(0, 100, 3),
        "flags": rng.integers(0, 2, 2).astype(bool),
        "text": "é" * int(rng.integers(1, 3)),
        "big": rng.standard_normal(2).astype(">f8"),
        "nested": (float(rng.standard_normal()), [int(rng.integers(100)), bool(rng.integers(2))]),
        "scalars": {7: np.float32(rng.standard_normal()), "n": np.int64(rng.integers(100))},
        "empty": {},
        "nothing": None,
    }


def _episode(rng, length):
    steps = [helpers.first(_observation(rng))]
    for _ in range(length - 2):
        steps.append(helpers.mid(_observation(rng), float(rng.standard_normal()), 0.5))
    if length > 1:
        steps.append(helpers.last(_observation(rng), float(rng.standard_normal())))
    return steps


def _actions(rng, length):
    return [
        {"torque": rng.standard_normal(3), "grip": bool(rng.integers(2))} for _ in range(length)
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Thirty episodes of 1 to 4 steps, and what was logged."""
    path = tmp_path_factory.mktemp("run") / "alike" / "1.0.0"
    rng = np.random.default_rng(0)
    episodes = [_episode(rng, 4 - i % 4) for i in range(30)]
    actions = [_actions(rng, len(episode) - 1) for episode in episodes]
    helpers.record(path, episodes, actions, image_format="raw")
    return path, [helpers.expected_steps(*pair) for pair in zip(episodes, actions, strict=True)]


def test_episodes_that_are_alike_come_back_as_they_were(run, casts):
    path, logged = run
    assert_same(helpers.read(path), logged)
    with envlogger.Reader(path) as reader:
        for _ in range(2):
            casts.clear()
            assert_same(list(reader.steps), [step for episode in logged for step in episode])
    assert casts == ["steps"] * 30


def test_columns_of_episodes_that_are_alike(run, casts):
    path, _ = run
    with envlogger.Reader(path) as reader:
        expected = [{**episode.columns(rows=range(len(episode)))} for episode in reader.episodes]
        assert not casts
        for _ in range(2):
            casts.clear()
            for episode, columns in zip(reader.episodes, expected, strict=True):
                found = episode.columns()
                assert_same(found, columns)
                assert list(found) == list(columns)
                _overwrite(found)
    assert casts == ["columns"] * 30


def _overwrite(columns):
    for value in columns.values():
        if isinstance(value, dict):
            _overwrite(value)
        else:
            assert value.flags.owndata
            assert value.flags.aligned
            assert value.flags.c_contiguous
            value[...] = 0


def test_a_mould_is_made_once_it_is_worth_it(run, monkeypatch):
    path, logged = run
    compiled = helpers.spy(monkeypatch, moulds._Compiler, "compile_steps")
    with envlogger.Reader(path) as reader:
        for _ in range(moulds._WORTH_IT - 1):
            assert_same(list(reader.episodes[0]), logged[0])
            assert not compiled
        for _ in range(3):
            assert_same(list(reader.episodes[0]), logged[0])
            assert len(compiled) == 1


def test_arrays_of_steps_are_their_own(run, casts):
    path, logged = run
    with envlogger.Reader(path) as reader:
        for _ in range(2):
            for episode in reader.episodes:
                for step in episode:
                    for name in ("f4", "f8", "u1", "i8", "flags"):
                        array = step.timestep.observation[name]
                        assert array.flags.writeable
                        assert array.flags.aligned
                        assert array.flags.owndata
                        array[...] = 0
        assert casts
        assert_same([list(episode) for episode in reader.episodes], logged)


def test_values_that_came_before_the_first_action(tmp_path, casts):
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(4):
        first = dm_env.TimeStep(dm_env.StepType.FIRST, 0.5, np.array([1.0, 2.0]), rng.bytes(2))
        rest = [rng.bytes(2), float(rng.standard_normal()), rng.standard_normal(2)]
        episodes.append([first, helpers.mid(*rest), helpers.last(*rest)])
    with pytest.warns(UserWarning, match="FIRST step"):
        helpers.record(tmp_path, episodes)
    expected = [helpers.expected_steps(episode, [0, 1]) for episode in episodes]
    assert_same(helpers.read(tmp_path), expected)
    assert casts


@repeatable.settings(40)
@given(st.data())
def test_steps_of_any_nests(casts, data):
    observation, action = data.draw(nests.nests()), data.draw(nests.nests())
    custom = data.draw(st.none() | nests.nests(optional=True, of=nests.leaves(can_vary=False)))
    length = data.draw(st.integers(3, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    custom = {"custom": custom}
    episodes, actions, extras = [], [], []
    for _ in range(4):
        draws = [nests.draw(observation, t, rng) for t in range(length)]
        middle = [helpers.mid(value, float(t)) for t, value in enumerate(draws[1:-1])]
        episodes.append([helpers.first(draws[0]), *middle, helpers.last(draws[-1])])
        actions.append([nests.draw(action, t, rng) for t in range(length - 1)])
        extras.append([nests.draw(custom, t, rng) for t in range(length)])
    values = iter([value for extra in extras for value in extra])
    with helpers.scratch() as path:
        helpers.record(path, episodes, actions, step_fn=lambda *_: next(values))
        expected = [
            helpers.expected_steps(*parts) for parts in zip(episodes, actions, extras, strict=True)
        ]
        with envlogger.Reader(path) as reader:
            for _ in range(2):
                assert_same([list(episode) for episode in reader.episodes], expected)
                for episode in reader.episodes:
                    assert_same(episode.columns(), episode.columns(rows=range(length)))


def _outcome(decoder, record):
    """Returns what a decoder makes of a record: steps and columns, or None where it is damaged."""
    try:
        episode = decoder.decode(record, "here")
        steps = list(episode.rows(0, len(episode)))
    except errors.CorruptDatasetError:
        steps = None
    try:
        columns = decoder.decode(record, "here").columns(None, slice(None))
    except errors.CorruptDatasetError:
        columns = None
    return steps, columns


@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_a_damaged_record_reads_as_if_none_had_been_read_before(tmp_path, casts, bit):
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(2).astype("f4") for _ in range(3)]
    episode = [helpers.first(values[0]), helpers.mid(values[1]), helpers.last(values[2])]
    helpers.record(tmp_path, [episode] * 3)
    (path,) = glob.glob(f"{tmp_path}/*.array_record-*")
    of = dataset.load(str(tmp_path)).schema
    warm = stored_episode.Decoder(of)
    records = list(shards.read_all(path, 3))
    for record in records:
        assert None not in _outcome(warm, record)
    casts.clear()

    differ = 0
    for place in range(len(records[0])):
        damaged = bytearray(records[0])
        damaged[place] ^= bit
        found = _outcome(warm, bytes(damaged))
        expected = _outcome(stored_episode.Decoder(of), bytes(damaged))
        assert_same(found, expected)
        differ += expected[0] is None
    assert 0 < differ < len(records[0])
    assert {"steps", "columns"} <= {*casts}  # some damage is to values alone


def test_the_types_of_steps_are_those_of_each_record(tmp_path, casts):
    episode = [helpers.first(), helpers.mid(), helpers.mid(), helpers.last()]
    with helpers.scripted_logger(tmp_path, [episode] * 6) as logger:
        for number in range(6):  # each other is left before its end
            logger.reset()
            for _ in range(3 if number % 2 else 2):
                logger.step(0)
    first, mid, last = dm_env.StepType
    with envlogger.Reader(tmp_path) as reader:
        for _ in range(2):
            types = [[step.timestep.step_type for step in episode] for episode in reader.episodes]
            assert types == [[first, mid, mid], [first, mid, mid, last]] * 3
    assert casts


def test_records_of_one_layout_may_differ_in_their_number_of_steps(casts):
    """Two strings can take as many bytes as one."""
    text = Feature(("text",), features.STRING, (), Encoding.STRING)
    of = schema.Schema()
    of.steps = {text.path: text}
    decoder = stored_episode.Decoder(of)
    for _ in range(3):
        for strings in ([b"abcde"], [b"ab", b"c"], [b"c", b"ab"]):
            column = np.array(strings, object)
            raw = features.encode_column(text, column, nested=True)
            record = example.serialize({"steps/text": raw[""]})
            episode = decoder.decode(record, "")
            steps = list(episode.rows(0, len(episode)))
            assert [step.custom_data for step in steps] == [{"text": item} for item in strings]
            first, _, last = dm_env.StepType
            types = [step.timestep.step_type for step in steps]
            assert types == ([first, last] if len(strings) == 2 else [first])
            assert_same(episode.columns(None, slice(None)), {"text": column})
    assert {"steps", "columns"} <= {*casts}
