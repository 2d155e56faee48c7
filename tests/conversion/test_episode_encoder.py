# SPDX-License-Identifier: Apache-2.0
"""Whatever a log holds comes back bit by bit from the records that it is encoded as."""

from __future__ import annotations

import dm_env
import helpers
import nests
import numpy as np
import pytest
import repeatable
from hypothesis import given
from hypothesis import strategies as st

import envlogger
from envlogger.conversion import growing_schema, tasks
from envlogger.conversion.episode_encoder import EpisodeEncoder, parts_of
from envlogger.testing.comparison import assert_same
from envlogger.tfds import features, schema, stored_episode
from envlogger.tfds.episode import End


def _step(observation=0.0, action=None, reward=None, custom_data=None, kind="mid", discount=None):
    step_type = getattr(dm_env.StepType, kind.upper())
    timestep = dm_env.TimeStep(step_type, reward, discount, observation)
    return envlogger.StepData(timestep, action, custom_data)


def _encode(episodes, of=None):
    """Encodes (steps, metadata) until the schema has room for all; returns it and the records."""
    encoder = EpisodeEncoder(of or schema.Schema())
    while True:
        records, versions = [], []
        for number, (steps, metadata) in enumerate(episodes):
            records.append(encoder.encode(f"session-{number:09d}", steps, metadata))
            versions.append(encoder.version)
        if versions[0] == versions[-1]:
            return encoder.schema, records


def _check(episodes, of, records):
    for (steps, metadata), record in zip(episodes, records, strict=True):
        found = stored_episode.decode(record, of)
        # Dicts with the same keys come back with these in the same order.
        rows, value = list(found.rows(0, len(found))), found.metadata_value()
        assert_same(helpers.sort_keys(rows), helpers.sort_keys(steps))
        assert_same(helpers.sort_keys(value), helpers.sort_keys(metadata))


class _Log:
    """A log in which a value may be of one of several templates, from row to row."""

    def __init__(self, draw):
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))

        templates = draw(st.lists(st.none() | nests.nests(optional=True), min_size=1, max_size=3))
        fields = [rng.choice(len(templates), rng.integers(1, 3)) for _ in range(6)]
        count = 0

        def value(field):
            return nests.draw(templates[rng.choice(field)], count, rng)

        self.episodes = []
        for length in rng.integers(1, 5, rng.integers(1, 4)):
            steps = []
            for _ in range(length):
                count += 1
                kind = ("first", "mid", "last")[rng.integers(3)]
                parts = [value(field) for field in fields[:5]]
                steps.append(_step(*parts[:3], parts[3], kind, parts[4]))
            self.episodes.append((steps, value(fields[5])))

    def __repr__(self):
        return f"_Log({self.episodes})"


@repeatable.settings(100)
@given(log=st.composite(lambda draw: _Log(draw))())
def test_logs_of_any_values(log):
    of, records = _encode(log.episodes)
    _check(log.episodes, of, records)
    assert schema.Schema.from_json(of.to_json()).steps.keys() == of.steps.keys()


@repeatable.settings(40)
@given(log=st.composite(lambda draw: _Log(draw))())
def test_parts_of_a_log_need_not_know_of_each_other(log):
    schemas = [_encode([episode])[0] for episode in log.episodes]
    united = schemas[0]
    for other in schemas[1:]:
        united = growing_schema.unite(united, other)
    of, records = _encode(log.episodes, united)
    _check(log.episodes, of, records)
    again, _ = _encode(log.episodes, of)
    assert growing_schema.is_same(again, of)  # so this comes to an end
    restored = tasks.schema_from_json(tasks.schema_to_json(of))
    assert growing_schema.is_same(restored, of)


@repeatable.settings(40)
@given(log=st.composite(lambda draw: _Log(draw))())
def test_fitting_finds_the_features_that_encoding_finds(log):
    fitting, encoding = EpisodeEncoder(schema.Schema()), EpisodeEncoder(schema.Schema())
    for number, (steps, metadata) in enumerate(log.episodes):
        fitting.fit(f"session-{number}", steps, metadata)
        record = encoding.encode(f"session-{number}", steps, metadata)
        assert growing_schema.is_same(fitting.schema, encoding.schema)
        assert fitting.version == encoding.version
    assert fitting.encode(f"session-{number}", steps, metadata) == record


def _feature(values, path=("custom_data",)):
    """Returns the feature that values of `step_fn`, one in each episode, come to have."""
    episodes = [([_step(custom_data=value)], None) for value in values]
    of, records = _encode(episodes)
    _check(episodes, of, records)
    return of.steps[path]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 0.5], np.float64),
        ([0.5, 1], np.float64),
        ([True, 2], np.int64),
        ([np.float32(0.1), np.float64(0.1)], np.float64),
        ([np.array([1], np.int8), np.array([300], np.int16)], np.int16),
        ([np.float32(0.1), 0.5], np.float32),
    ],
)
def test_numbers_widen(values, dtype):
    feature = _feature(values)
    assert feature.dtype == dtype
    assert feature.encoding is not features.Encoding.STRING


@pytest.mark.parametrize(
    "values",
    [
        [2**53 + 1, 0.5],
        [2**70],
        ["a", 1],
        [1j, 0.5],
        [np.zeros(2), np.zeros((2, 2))],
        [np.zeros((1, 2)), np.zeros((2, 3))],
        [np.uint32(0x7FA00001).view(np.float32), np.float64(1)],  # a NaN that would become quiet
        [{"action": 1}],
        [{("a", 1): 2}],
        [{1: 2, "1": 3}],
        [{"a/b": 1, "a": {"b": 2}}],
    ],
    ids=range(11),
)
def test_what_has_no_form_in_common_becomes_json(values):
    feature = _feature(values)
    assert feature.dtype == features.STRING
    assert feature.description.startswith("JSON")


def test_a_dimension_may_vary_late():
    feature = _feature([np.zeros(3, np.int32)] * 5 + [np.zeros(4, np.int32)])
    assert feature.shape == (None,)


def test_an_image_without_pixels_is_no_image():
    feature = _feature([np.zeros((2, 3, 3), np.uint8), np.zeros((0, 3, 3), np.uint8)])
    assert (feature.shape, feature.encoding) == ((None, 3, 3), features.Encoding.BYTES)


def test_the_keys_of_a_dict_may_come_in_any_order():
    steps = [_step(custom_data={"a": 1, "b": 2}), _step(custom_data={"b": 3, "a": 4})]
    of, (record,) = _encode([(steps, None)])
    found = [step.custom_data for step in stored_episode.decode(record, of).rows(0, 2)]
    assert found == [{"a": 1, "b": 2}, {"a": 4, "b": 3}]


def test_an_observation_may_lack_a_key():
    episodes = [([_step({"a": 1}), _step({"a": 1, "b": 2.0})], None), ([_step(None)], None)]
    of, records = _encode(episodes)
    _check(episodes, of, records)
    assert ("present", "observation", "b") in of.steps


def test_episodes_that_are_too_large_come_in_parts():
    steps = [_step(np.full(1000, i)) for i in range(10)]
    parts = list(parts_of(iter(steps), 25_000))
    assert [len(part) for part, _ in parts] == [3, 3, 3, 1]
    assert [end for _, end in parts] == [End.SPLIT] * 3 + [End.RESET]
    assert_same([step for part, _ in parts for step in part], steps)
