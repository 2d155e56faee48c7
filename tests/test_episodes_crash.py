# SPDX-License-Identifier: Apache-2.0
"""Kills processes that write episodes, and compares what they acknowledged with what is there, bit by bit."""

from __future__ import annotations

import errno
import os
from typing import Any
from unittest import mock

import helpers
import numpy as np
import processes
import pytest

import envlogger
from envlogger.testing.comparison import assert_same
from envlogger.tfds import EpisodeWriter, log_writer, recovery, step_log

_LENGTH = 7  # of an episode that ends

_STEPS = f"""
import itertools
import numpy as np

def step(number):
    rng = np.random.default_rng(number)
    is_last = number % {_LENGTH} == {_LENGTH} - 1
    return {{
        "observation": {{
            "image": rng.integers(0, 256, (8, 8, 3), np.uint8),
            "state": rng.normal(size=3),
        }},
        "action": rng.normal(size=2).astype(np.float32),
        "reward": float(rng.normal()),
        "discount": float(rng.normal()),
        "is_last": is_last,
        "is_terminal": is_last,
        "text": "№ " * int(rng.integers(4)),
        "number": number,
    }}

def episode(number):
    return [step(number * {_LENGTH} + t) for t in range({_LENGTH})]
"""

_LIVE = """
from envlogger.tfds import EpisodeWriter

writer = EpisodeWriter(directory, max_episodes_per_file=3, helper={helper})
for number in numbers:
    writer.add_step(step(number), {{"latest": number}})
    os.write(notes, b".")
"""

_WHOLE = """
from envlogger.tfds import EpisodeWriter

writer = EpisodeWriter(directory, max_episodes_per_file=3, helper={helper})
for number in numbers:
    writer.add_episode(episode(number), {{"latest": number * {length} + {length} - 1}})
    os.write(notes, b".")
"""

_scope: dict[str, Any] = {}
exec(_STEPS, _scope)
_step, _episode = _scope["step"], _scope["episode"]


def _check(directory: Any) -> tuple[list[int], list[bool]]:
    """Compares all that is there with what was written; returns the numbers, and who is invalid."""
    report = recovery.recover(directory)
    assert not report.failed
    assert not report.live
    found, invalid = [], []
    with envlogger.Reader(directory) as reader:
        flags = [bool(episode["invalid"]) for episode in helpers.data_source(directory)]
        for index, episode in enumerate(reader.episodes):
            columns = episode.columns()
            numbers = columns["number"].tolist()
            steps = [_step(number) for number in numbers]
            assert numbers[0] % _LENGTH == 0
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            for field in ("action", "reward", "discount", "is_terminal"):
                assert_same(columns[field], np.array([step[field] for step in steps]))
            for field in ("image", "state"):
                expected = np.stack([step["observation"][field] for step in steps])
                assert_same(columns["observation"][field], expected)
            assert columns["text"].tolist() == [step["text"].encode() for step in steps]
            assert columns["is_first"].tolist() == [t == 0 for t in range(len(steps))]
            assert columns["is_last"].tolist() == [t == len(steps) - 1 for t in range(len(steps))]
            metadata = reader.episode_metadata()[index] or {"latest": numbers[0] - 1}
            assert metadata["latest"] in (numbers[-1], numbers[-1] - 1)  # the last may lack its own
            invalid.append(flags[index])
            assert invalid[-1] == (len(numbers) < _LENGTH)
            found += numbers
    return found, invalid


@pytest.mark.parametrize(
    ("helper", "count"), [(True, 1), (True, 40), (True, 500), (False, 8), (False, 500)]
)
def test_killed_while_it_adds_steps(tmp_path, helper, count):
    directory = tmp_path / "arm" / "1.0.0"
    program = processes.Program(_STEPS + _LIVE.format(helper=helper), directory, tmp_path)
    if helper and count == 40:
        processes.kill(program.wait_for_helper())
    program.wait_for_calls(count)
    program.kill()

    found, invalid = _check(directory)

    assert found == list(range(len(found)))
    assert len(found) - program.num_acknowledged in (0, 1)
    assert invalid == [False] * (len(found) // _LENGTH) + [True] * bool(len(found) % _LENGTH)


@pytest.mark.parametrize("helper", [True, False])
def test_killed_while_it_adds_episodes(tmp_path, helper):
    directory = tmp_path / "arm" / "1.0.0"
    source = _STEPS + _WHOLE.format(helper=helper, length=_LENGTH)
    program = processes.Program(source, directory, tmp_path)
    program.wait_for_calls(50)
    program.kill()

    found, invalid = _check(directory)

    assert not any(invalid)
    assert found == list(range(len(found)))
    assert len(found) // _LENGTH - program.num_acknowledged in (0, 1)


_KILL = """
from envlogger.tfds import log_writer

calls = itertools.count()

def kill_at(name, place):
    original = getattr(log_writer.LogWriter, name)
    def replacement(*args):
        if next(calls) == place:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)
    setattr(log_writer.LogWriter, name, replacement)

kill_at({name!r}, {place})
"""


@pytest.mark.parametrize(
    ("name", "place"),
    # Before each row of the second episode, before its metadata, and before it is complete.
    [
        *(("append", _LENGTH + t) for t in (0, 1, _LENGTH - 1)),
        ("add_note", 1),
        ("end_episode", 1),
    ],
)
def test_an_episode_is_there_as_a_whole_or_not_at_all(tmp_path, name, place):
    source = _STEPS + _KILL.format(name=name, place=place)
    source += _WHOLE.format(helper=False, length=_LENGTH)
    program = processes.Program(source, tmp_path / "data", tmp_path)
    assert program.wait() == -9, program.stderr
    assert program.num_acknowledged == 1

    found, invalid = _check(tmp_path / "data")

    assert found == list(range(_LENGTH))
    assert invalid == [False]
    with EpisodeWriter(tmp_path / "data", helper=False) as writer:
        writer.add_episode(_episode(1), {"latest": 2 * _LENGTH - 1})
    assert _check(tmp_path / "data")[0] == list(range(2 * _LENGTH))


@pytest.mark.parametrize("helper", [True, False])
def test_an_episode_beyond_the_backlog_is_there_as_a_whole_or_not_at_all(tmp_path, helper):
    source = (
        _STEPS
        + _KILL.format(name="end_episode", place=1)
        + """
    from envlogger.tfds import EpisodeWriter

    image = np.zeros((512, 512, 3), np.uint8)
    writer = EpisodeWriter(directory, max_backlog_bytes=8 << 20, helper={helper})
    for count in (2, 60):
        writer.add_episode([{{"observation": image, "reward": 1.0}}] * count)
        os.write(notes, b".")
    """.replace("\n    ", "\n").format(helper=helper)
    )
    program = processes.Program(source, tmp_path / "data", tmp_path)
    assert program.wait() == -9, program.stderr
    assert program.num_acknowledged == 1

    recovery.recover(tmp_path / "data")

    with envlogger.Reader(tmp_path / "data") as reader:
        assert [len(episode) for episode in reader.episodes] == [2]


_KILL_AT_LATE_FEATURE = """
from envlogger.tfds import EpisodeWriter, log_writer

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

with EpisodeWriter(directory, helper=False) as writer:
    for number in range({count}):
        writer.add_step({{"reward": number, "is_last": True}}, {{"text": "x" * 100_000 * 3**number}})
        os.write(notes, b".")
    {patch}
    writer.add_step({{"reward": 1.0, "is_last": True, "new": 1}})
"""


@pytest.mark.parametrize(
    "patch", ["log_writer.os.unlink = kill", "log_writer.Segment.add_note = kill"]
)
def test_metadata_in_a_segment_of_its_own_survives(tmp_path, patch):
    # The row after it needs another layout: its segment is left, and the metadata goes along.
    source = _KILL_AT_LATE_FEATURE.format(count=4, patch=patch)
    program = processes.Program(source, tmp_path / "data", tmp_path)
    assert program.wait() == -9, program.stderr
    assert program.num_acknowledged == 4

    assert set(recovery.recover(tmp_path / "data").recovered.values()) == {4}

    with envlogger.Reader(tmp_path / "data") as reader:
        assert list(reader.episode_metadata()) == [{"text": "x" * 100_000 * 3**i} for i in range(4)]


def test_a_full_disk_leaves_no_part_of_an_episode(tmp_path):
    reserve = step_log.reserve
    is_full = False

    def full(path, size):
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        reserve(path, size)

    with (
        mock.patch.object(step_log, "_SEGMENT_BYTES", 16 << 10),
        mock.patch.object(step_log, "reserve", full),
        mock.patch.object(log_writer.LogWriter, "_recycle", return_value=None),
        EpisodeWriter(tmp_path, helper=False) as writer,
    ):
        num_parts = 0
        for number in range(60):
            metadata = {"latest": number * _LENGTH + _LENGTH - 1}
            is_full = number > 5 and number % 2 == 1
            before = writer._stream._log.num_rows
            try:
                writer.add_episode(_episode(number), metadata)
            except OSError:
                num_parts += writer._stream._log.num_rows > before
                is_full = False
                writer.add_episode(_episode(number), metadata)
    assert num_parts >= 2

    found, invalid = _check(tmp_path)

    assert found == list(range(60 * _LENGTH))
    assert not any(invalid)


def test_a_killed_episode_is_never_terminal(tmp_path):
    program = processes.Program(
        """
        from envlogger.tfds import EpisodeWriter
        writer = EpisodeWriter(directory, helper=False)
        writer.add_step({"observation": 1, "discount": 0.0, "is_terminal": True}, {"invalid": False})
        writer.add_step({"observation": 2, "discount": 0.0}, {"invalid": False})
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path / "data",
        tmp_path,
    )
    assert program.wait() == -9, program.stderr
    envlogger.recover(tmp_path / "data")
    with envlogger.Reader(tmp_path / "data") as reader:
        ends = [episode.columns(["is_last", "is_terminal"]) for episode in reader.episodes]
        assert [bool(end["is_terminal"][-1]) for end in ends] == [True, False]
        assert [bool(end["is_last"][-1]) for end in ends] == [True, True]
        assert [m["invalid"] for m in reader.episode_metadata()] == [False, True]
