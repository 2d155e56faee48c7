# SPDX-License-Identifier: Apache-2.0
"""A disk, or a machine, that is too slow for a while: the loop goes on until the backlog is full."""

from __future__ import annotations

import os
import signal
import time

import helpers
import processes
import pytest

import envlogger


def test_a_stopped_helper_does_not_disturb_until_the_backlog_is_full(tmp_path):
    path = tmp_path / "log"
    program = processes.Program(
        """
        env = make(catch_env.Catch(rows=1000, columns=5), max_backlog_bytes=40_000_000)
        play(env, 4_000)  # of 20 kB
        env.close()
        """,
        path,
        tmp_path,
    )
    helper = program.wait_for_helper()
    os.kill(helper, signal.SIGSTOP)
    try:
        processes.wait_for(lambda: "wait to be sealed" in program.stderr)
        waits_since = program.num_acknowledged
        assert 1_000 < waits_since < 4_000  # up to 40 MB
        time.sleep(0.5)  # it could go on, but must not
        assert program.num_acknowledged == waits_since
        assert program.process.poll() is None
    finally:
        os.kill(helper, signal.SIGCONT)
    assert program.wait() == 0, program.stderr
    assert program.num_acknowledged == 4_000
    assert program.stderr.count("wait to be sealed") == 1
    processes.assert_complete(path, program)


def test_a_helper_that_is_stopped_and_then_killed_loses_nothing(tmp_path):
    path = tmp_path / "log"
    program = processes.Program(
        """
        env = make(catch_env.Catch(rows=1000, columns=5), max_backlog_bytes=20_000_000)
        play(env, 2_000)
        env.close()
        """,
        path,
        tmp_path,
    )
    helper = program.wait_for_helper()
    os.kill(helper, signal.SIGSTOP)
    processes.wait_for(lambda: "wait to be sealed" in program.stderr)
    os.kill(helper, signal.SIGKILL)
    assert program.wait() == 0, program.stderr
    processes.assert_complete(path, program)


@pytest.mark.parametrize("calls", [1, 2, 6, 7, 8])
def test_killed_while_it_waits_for_space(tmp_path, calls):
    path = tmp_path / "log"
    program = processes.Program(
        f"""
        env = make(helper=False)  # the process seals itself, as a helper does that is asked for space
        play(env, {calls})
        env._backend._session._sealing.wait_for_space()
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        path,
        tmp_path,
    )
    assert program.wait() == -signal.SIGKILL, program.stderr

    envlogger.recover(path)

    processes.assert_complete(path, program)
    invalid = [bool(episode["invalid"]) for episode in helpers.data_source(path)]
    assert invalid[-1]
    assert sum(invalid) == 1
