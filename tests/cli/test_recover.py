# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal

import helpers
import processes
import pytest

import envlogger
from envlogger.cli import main
from envlogger.tfds import leftovers

_KILLED = """
    import os, signal, sys
    import envlogger
    from envlogger.testing import catch_env

    env = envlogger.EnvLogger(catch_env.Catch(), data_directory=sys.argv[1], helper=False)
    for _ in range(3):
        timestep = env.reset()
    env.step(1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path):
    """A dataset of which all is still in a dead session: three episodes of 1, 1 and 2 steps."""
    path = tmp_path / "catch" / "1.0.0"
    processes.python(_KILLED, path, status=-signal.SIGKILL)
    return path


def test_recovers_what_a_killed_process_left(killed, capsys):
    assert not killed.exists()
    assert main.main(["recover", str(killed)]) == 0
    assert "recovered 3 episodes" in capsys.readouterr().out
    assert [len(episode) for episode in helpers.read(killed)] == [1, 1, 2]


def test_does_nothing_the_second_time(killed, capsys):
    main.main(["recover", str(killed)])
    capsys.readouterr()
    assert main.main(["recover", str(killed)]) == 0
    assert capsys.readouterr().out == "Nothing to recover.\n"
    assert [len(episode) for episode in helpers.read(killed)] == [1, 1, 2]


def test_leaves_live_sessions_alone(tmp_path, capsys):
    script = helpers.ScriptedEnv([[helpers.first(0.0), helpers.last(1.0)]])
    env = envlogger.EnvLogger(script, data_directory=tmp_path / "log", helper=False)
    env.reset()
    assert main.main(["recover", str(tmp_path / "log")]) == 0
    assert "is being written; left alone" in capsys.readouterr().out
    env.step(0)
    env.close()
    assert [len(episode) for episode in helpers.read(tmp_path / "log")] == [2]


@pytest.mark.parametrize("name", ["journal", "progress"])
def test_says_what_it_could_not_recover(killed, capsys, name):
    staged = killed.parent / "incomplete.envlogger_1.0.0" / ".envlogger"
    (session,) = (staged / "sessions").iterdir()
    (session / name).write_bytes(b"damaged\n")
    assert leftovers.find(str(staged.parent)) == [session.name]
    assert main.main(["recover", str(killed)]) == 1
    assert f"{session.name}: not recovered: " in capsys.readouterr().out
    assert (session / "segment-0-0").exists()


def test_a_directory_that_is_not_there_is_an_error(tmp_path, capsys):
    assert main.main(["recover", str(tmp_path / "nothing")]) == 1
    assert "there is no such directory" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_needs_a_command(capsys):
    with pytest.raises(SystemExit, match="2"):
        main.main([])
    assert "recover" in capsys.readouterr().err
