# SPDX-License-Identifier: Apache-2.0
"""Many processes record into one dataset, some of them are killed, and readers look on."""

from __future__ import annotations

import itertools
import os
import pathlib
import signal

import processes

import envlogger
from envlogger.tfds import dataset, recovery

_NUM_WRITERS, _NUM_EPISODES, _ROWS = 8, 200, 5

_KILLED = ("writer1", "writer2")

_WRITE = """
    name = os.path.basename(sys.argv[2]).partition(".")[0]
    env = envlogger.EnvLogger(
        catch_env.Catch(rows={rows}, columns=3),
        step_fn=lambda timestep, action, env: {{"writer": name, "n": next(numbers)}},
        data_directory=directory,
        max_episodes_per_file=20,
    )
    for _ in range({num_calls}):
        play(env, 1)
        time.sleep(0.001)
    env.close()
"""


_OPEN_AND_CLOSE = """
    for _ in range(150):
        envlogger.EnvLogger(catch_env.Catch(), data_directory=directory, helper=False).close()
"""


def test_writers_that_open_and_close_without_an_episode(tmp_path):
    path = tmp_path / "catch" / "1.0.0"
    programs = [processes.Program(_OPEN_AND_CLOSE, path, tmp_path, f"writer{i}") for i in range(3)]

    for program in programs:
        assert program.wait() == 0, program.stderr
    assert not path.exists()


def test_eight_writers_of_which_two_are_killed(tmp_path):
    path = tmp_path / "catch" / "1.0.0"
    source = _WRITE.format(rows=_ROWS, num_calls=_ROWS * _NUM_EPISODES)
    programs = {
        f"writer{i}": processes.Program(source, path, tmp_path, f"writer{i}")
        for i in range(_NUM_WRITERS)
    }
    _kill_with_its_helper(programs["writer1"])
    programs["writer2"].wait_for_calls(300)
    programs["writer2"].kill()  # its helper goes on
    reads = itertools.cycle([_read, _read_with_tfds])
    while any(program.process.poll() is None for program in programs.values()):
        _check(next(reads)(path))
    for name, program in programs.items():
        if name not in _KILLED:
            assert program.wait() == 0, program.stderr
    report = envlogger.recover(path)
    assert not report.failed
    assert not report.live

    found = _read(path)
    _check(found)
    for name, program in programs.items():
        numbers = [n for writer, numbers in found if writer == name for n in numbers]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) - program.num_acknowledged in ((0, 1) if name in _KILLED else (0,))
    assert programs["writer0"].num_acknowledged == _ROWS * _NUM_EPISODES
    assert _read_with_tfds(path) == found


def test_recovery_and_new_writers_at_once(tmp_path):
    """Many processes find what a dead one left, and each wants to recover it."""
    path = tmp_path / "log"
    dead = processes.Program("play(make(helper=False))", path, tmp_path, "dead")
    dead.wait_for_calls(500)
    dead.kill()
    source = """
        for _ in range(5):
            envlogger.recover(directory)
            env = catch_env.Catch(rows=5, columns=3)
            with envlogger.EnvLogger(
                env, step_fn=lambda *_: -1, data_directory=directory, helper=False
            ) as env:
                env.reset()
    """
    programs = [processes.Program(source, path, tmp_path, f"new{i}") for i in range(4)]
    for program in programs:
        assert program.wait() == 0, program.stderr
    found = processes.numbers(path)
    assert [episode for episode in found if episode == [-1]] == [[-1]] * 20
    numbers = [number for episode in found for number in episode if number >= 0]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) - dead.num_acknowledged in (0, 1)


def _kill_with_its_helper(program: processes.Program) -> None:
    program.wait_for_calls(100)
    helper = program.wait_for_helper()
    program.process.send_signal(signal.SIGSTOP)
    os.kill(helper, signal.SIGKILL)
    program.kill()


def _read(path: pathlib.Path) -> list[tuple[str, list[int]]]:
    """Returns the writer and the numbers of each episode."""
    if not path.exists():
        return []
    with envlogger.Reader(path) as reader:
        episodes = [[step.custom_data for step in episode] for episode in reader.episodes]
    return [(rows[0]["writer"], [row["n"] for row in rows]) for rows in episodes]


def _read_with_tfds(path: pathlib.Path) -> list[tuple[str, list[int]]]:
    import tensorflow_datasets as tfds

    if not path.exists():
        return []
    source = tfds.builder_from_directory(str(path)).as_data_source("train")
    episodes = [list(episode["steps"]) for episode in source]
    return [(rows[0]["writer"].decode(), [int(row["n"]) for row in rows]) for rows in episodes]


def _check(found: list[tuple[str, list[int]]]) -> None:
    """Raises unless all episodes are whole, and none is there twice."""
    ends: dict[str, int] = dict.fromkeys((writer for writer, _ in found), 0)
    for writer, numbers in found:
        assert numbers[0] == ends[writer]
        assert all(b == a + 1 for a, b in itertools.pairwise(numbers))
        ends[writer] = numbers[-1] + 1
    for writer, end in ends.items():
        assert writer in _KILLED or end % _ROWS == 0
    for writer, numbers in found:
        assert len(numbers) == _ROWS or (writer in _KILLED and numbers[-1] == ends[writer] - 1)


def test_a_recovery_finds_a_dataset_that_is_being_published_for_the_first_time(
    tmp_path, monkeypatch
):
    path = os.fspath(tmp_path / "catch" / "1.0.0")
    staging = dataset.staging_path(path)
    os.makedirs(os.path.join(staging, dataset.STATE, "sessions"))
    is_directory = os.path.isdir

    def publish_after(name):
        found = is_directory(name)
        if is_directory(staging):
            os.rename(staging, path)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(recovery.os.path, "isdir", publish_after)
        report = recovery.recover(path)
    assert str(report) == "Nothing to recover."
    assert is_directory(path)
