# SPDX-License-Identifier: Apache-2.0
"""What becomes of the steps where processes end, are killed or cannot be started."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings

import helpers
import processes
import pytest

import envlogger
from envlogger.testing import catch_env
from envlogger.tfds import (
    dataset,
    example,
    helper,
    session,
    shards,
    step_log,
    writing_session,
)


@pytest.fixture(autouse=True)
def _writers_look_after_their_helpers_at_each_episode(monkeypatch):
    # Otherwise they do so every 20 ms, and the episodes here are shorter.
    monkeypatch.setattr(writing_session, "_CHECK_SECONDS", 0.0)


def _make(directory, **options):
    count = itertools.count()
    return envlogger.EnvLogger(
        catch_env.Catch(rows=5, columns=3),
        step_fn=lambda timestep, action, env: next(count),
        data_directory=directory,
        **options,
    )


def _flags(directory, name):
    """Returns a flag of each episode, as it lies in the records."""
    contents = dataset.load(str(directory))
    found = []
    for index, length in enumerate(contents.info.shard_lengths["train"]):
        path = os.path.join(directory, contents.info.shard_name("train", index))
        for record in shards.read_all(path, length):
            found.append(example.decode_int64s(example.parse(record)[name]).tolist())
    return found


_EPISODES = [list(range(5 * i, 5 * i + 5)) for i in range(8)]


# --- the helper ------------------------------------------------------------------------------------


def test_a_killed_helper_is_replaced(tmp_path):
    with _make(tmp_path / "log", max_episodes_per_file=2) as env:
        helpers.play_whole(env, 2)
        first = processes.helper_of_this_process()
        processes.kill(first)
        helpers.play_whole(env, 3)
        second = processes.helper_of_this_process()
        assert second != first
        helpers.play_whole(env, 3)
    assert processes.numbers(tmp_path / "log") == _EPISODES


def test_where_helpers_die_again_and_again_the_process_seals(tmp_path):
    with _make(tmp_path / "log", max_episodes_per_file=2) as env:
        for _ in range(2):
            helpers.play_whole(env, 1)
            processes.kill(processes.helper_of_this_process())
        helpers.play_whole(env, 1)
        processes.kill(processes.helper_of_this_process())
        with pytest.warns(UserWarning, match="has died 3 times") as caught:
            helpers.play_whole(env, 3)
        assert processes.helpers_of(os.getpid()) == []
        assert len(processes.numbers(tmp_path / "log")) >= 4  # published while it goes on
        helpers.play_whole(env, 2)
    assert len(caught) == 1
    assert processes.numbers(tmp_path / "log") == _EPISODES


def test_a_helper_that_dies_while_flush_waits_for_it(tmp_path):
    with _make(tmp_path / "log") as env:
        helpers.play_whole(env, 1)
        helper_pid = processes.helper_of_this_process()
        os.kill(helper_pid, signal.SIGSTOP)
        timer = threading.Timer(0.3, os.kill, (helper_pid, signal.SIGKILL))
        timer.start()
        env.flush()
        timer.join()

        assert processes.numbers(tmp_path / "log") == _EPISODES[:1]


def test_a_helper_whose_answers_nobody_reads_still_ends(tmp_path, monkeypatch):
    # As many errors as fill the pipe, as of a disk that is full while the writer is idle.
    pipe = os.pipe

    def small_pipe():
        ends = pipe()
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
        return ends

    monkeypatch.setattr(os, "pipe", small_pipe)
    with _make(tmp_path / "log") as env:
        monkeypatch.undo()
        helpers.play_whole(env, 8)
        its_helper = env._backend._session._sealing._helper
        pid = processes.helper_of_this_process()
        [written] = {
            int(fd)
            for fd in os.listdir(f"/proc/{pid}/fd")
            if fd != "0"
            and os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), os.fstat(its_helper._answers))
        }
        full = os.open(f"/proc/{pid}/fd/{written}", os.O_WRONLY | os.O_NONBLOCK)
        os.write(full, b" " * 4096)
        os.close(full)
        its_helper._send(helper.PUBLISH)  # which is answered, in the end
        processes.wait_for(lambda: processes.numbers(tmp_path / "log") == _EPISODES)
    assert processes.numbers(tmp_path / "log") == _EPISODES


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- >&- 2>&-"])
def test_a_process_without_standard_streams(tmp_path, closed):
    source = f"""
import os, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import envlogger
    from envlogger.testing import catch_env
    with envlogger.EnvLogger(catch_env.Catch(), data_directory={str(tmp_path / "log")!r}) as env:
        env.reset()
        env.flush()
        is_alive = env._backend._session._sealing._helper.is_alive
with open({str(tmp_path / "result")!r}, "w") as file:
    print(is_alive, *(item.message for item in caught), file=file)
"""
    (tmp_path / "program.py").write_text(source)
    subprocess.run(f"{sys.executable} {tmp_path}/program.py {closed}", shell=True, check=True)

    assert (tmp_path / "result").read_text() == "True\n"


@pytest.mark.parametrize("executable", ["/nowhere/python", "", None])
def test_where_no_helper_can_be_started_the_process_seals(tmp_path, monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.warns(UserWarning, match="could not be started") as caught:
        env = _make(tmp_path / "log")
    with env:
        helpers.play_whole(env, 8)
    assert len(caught) == 1
    assert processes.numbers(tmp_path / "log") == _EPISODES


def test_where_the_process_cannot_fork_it_seals(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.warns(UserWarning, match="Resource temporarily unavailable"):
        env = _make(tmp_path / "log")
    with env:
        helpers.play_whole(env, 8)
    assert processes.numbers(tmp_path / "log") == _EPISODES


def test_a_helper_that_cannot_run_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whether three have died before the end depends on luck
        with _make(tmp_path / "log") as env:
            helpers.play_whole(env, 8)
    assert processes.numbers(tmp_path / "log") == _EPISODES


def test_a_closed_logger_is_done_even_if_nobody_hears_of_the_helpers_end(tmp_path, monkeypatch):
    """A program that ignores SIGCHLD cannot learn how the helper ended: every end looks good."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with _make(tmp_path / "log") as env:
            helpers.play_whole(env, 8)
            processes.kill(processes.helper_of_this_process())
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert processes.numbers(tmp_path / "log") == _EPISODES


def test_many_open_files_do_not_disturb(tmp_path):
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with _make(tmp_path / "log") as env:
            helpers.play_whole(env, 8)
            env.flush()
    finally:
        for descriptor in files:
            os.close(descriptor)
    assert processes.numbers(tmp_path / "log") == _EPISODES


# --- the end of the process ------------------------------------------------------------------------


def test_after_a_killed_writer_the_helper_completes_the_dataset(tmp_path):
    path = tmp_path / "catch" / "1.0.0"
    program = processes.Program("play(make())", path, tmp_path)
    program.wait_for_calls(333)
    program.wait_for_helper()
    program.kill()
    processes.wait_for(lambda: not processes.sessions(path))
    processes.assert_complete(path, program, may_have_more=True)
    *others, last = _flags(path, "invalid")
    was_last = helpers.read(path)[-1][-1].timestep.last()
    assert others == [[0]] * len(others)
    assert last == [int(not was_last)]


@pytest.mark.parametrize("with_helper", [True, False])
@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise ValueError", "del env"])
def test_ending_without_close_loses_nothing(tmp_path, ending, with_helper):
    program = processes.Program(
        f"env = make(helper={with_helper}); play(env, 123); {ending}", tmp_path / "log", tmp_path
    )
    program.wait()
    assert processes.sessions(tmp_path / "log") == []
    processes.assert_complete(tmp_path / "log", program)
    assert not any(flag for (flag,) in _flags(tmp_path / "log", "invalid"))


@pytest.mark.parametrize("how", ["play(make())", "with make() as env: play(env)"])
def test_ctrl_c_loses_nothing(tmp_path, how):
    program = processes.Program(how, tmp_path / "log", tmp_path)
    program.wait_for_calls(222)
    program.wait_for_helper()
    os.killpg(program.process.pid, signal.SIGINT)
    program.wait()
    assert "KeyboardInterrupt" in program.stderr
    assert processes.sessions(tmp_path / "log") == []
    processes.assert_complete(tmp_path / "log", program, may_have_more=True)


def test_sigterm_loses_nothing(tmp_path):
    program = processes.Program("play(make())", tmp_path / "log", tmp_path)
    program.wait_for_calls(222)
    program.wait_for_helper()
    program.process.terminate()
    assert program.wait() == -signal.SIGTERM
    processes.wait_for(lambda: not processes.sessions(tmp_path / "log"))
    processes.assert_complete(tmp_path / "log", program, may_have_more=True)


# --- forks -----------------------------------------------------------------------------------------


def test_a_fork_that_goes_on_stepping_is_refused(tmp_path):
    program = processes.run(
        """
        env = make()
        play(env, 33)
        child = os.fork()
        if not child:
            for call in (env.reset, lambda: env.step(1), env.flush):
                try:
                    call()
                except envlogger.errors.EnvLoggerError as error:
                    assert "fork" in str(error)
                else:
                    os._exit(1)
            env.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        play(env, 34)
        env.close()
        """,
        tmp_path / "log",
        tmp_path,
    )
    processes.assert_complete(tmp_path / "log", program)


def test_forked_workers_leave_the_session_alone(tmp_path):
    program = processes.run(
        """
        import multiprocessing

        def work(i):
            return i

        env = make(max_episodes_per_file=2)
        play(env, 33)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(work, range(9)) == list(range(9))
            play(env, 34)
        if not (child := os.fork()):
            sys.exit()  # with all that an interpreter does at its end
        assert os.waitpid(child, 0)[1] == 0
        play(env, 35)
        env.close()
        """,
        tmp_path / "log",
        tmp_path,
    )
    processes.assert_complete(tmp_path / "log", program)


def test_a_worker_that_outlives_a_killed_parent_does_not_keep_its_session(tmp_path):
    program = processes.Program(
        """
        env = make(helper=False)
        play(env, 55)
        if not os.fork():
            signal.pause()
        play(env)
        """,
        tmp_path / "log",
        tmp_path,
    )
    program.wait_for_calls(60)
    worker = program.wait_for_child()
    try:
        program.kill()
        report = envlogger.recover(tmp_path / "log")
    finally:
        os.kill(worker, signal.SIGKILL)
    assert len(report.recovered) == 1
    processes.assert_complete(tmp_path / "log", program, may_have_more=True)


# --- losses of power -------------------------------------------------------------------------------


def test_flush_publishes_what_is_finished(tmp_path):
    with _make(tmp_path / "log") as env:
        helpers.play_whole(env, 3)
        env.reset()
        env.flush()
        assert processes.numbers(tmp_path / "log") == _EPISODES[:3]
        env.flush()
        assert processes.numbers(tmp_path / "log") == _EPISODES[:3]


def test_flush_syncs_rows_then_journal_then_directory(tmp_path, monkeypatch):
    calls = []

    def spy(owner, name, label):
        original = getattr(owner, name)

        def call(*arguments):
            calls.append(label)
            return original(*arguments)

        monkeypatch.setattr(owner, name, call)

    with _make(tmp_path / "log", helper=False) as env:
        helpers.play_whole(env, 3)
        spy(step_log.Segment, "sync", "rows")
        spy(session.Journal, "sync", "journal")
        spy(session, "sync_directory", "directory")
        spy(dataset.DatasetDirectory, "publish", "publish")
        env.flush()
    kinds = [label for label, _ in itertools.groupby(calls)]
    assert kinds[:4] == ["rows", "journal", "directory", "publish"]


def test_sync_interval_syncs_again_and_again(tmp_path, monkeypatch):
    _inject(
        monkeypatch,
        f"""
        from envlogger.tfds import sealer
        sync = sealer.Sealer.sync
        def spy(self):
            sync(self)
            open({str(tmp_path / "syncs")!r}, "a").write(".")
        sealer.Sealer.sync = spy
        """,
    )
    with _make(tmp_path / "log", sync_interval=0.05) as env:
        helpers.play_whole(env, 1)
        processes.wait_for(lambda: (tmp_path / "syncs").exists())
        before = len((tmp_path / "syncs").read_text())
        processes.wait_for(lambda: len((tmp_path / "syncs").read_text()) > before + 2)


# --- large episodes and small processes ------------------------------------------------------------


@pytest.mark.parametrize("with_helper", [True, False])
def test_an_episode_that_is_too_large_becomes_several_records(tmp_path, monkeypatch, with_helper):
    monkeypatch.setattr(step_log, "EPISODE_BYTES", 20_000)
    _inject(monkeypatch, "from envlogger.tfds import step_log; step_log.EPISODE_BYTES = 20_000")
    count = itertools.count()
    with envlogger.EnvLogger(
        catch_env.Catch(rows=1000, columns=1),  # 4 kB a step
        step_fn=lambda timestep, action, env: next(count),
        data_directory=tmp_path / "log",
        helper=with_helper,
    ) as env:
        helpers.play_whole(env, 2)
    episodes = processes.numbers(tmp_path / "log")
    assert [number for episode in episodes for number in episode] == list(range(2000))
    assert len(episodes) > 100
    assert 1000 in [episode[0] for episode in episodes]
    for flags in _flags(tmp_path / "log", "steps/is_last"):
        assert flags == [0] * (len(flags) - 1) + [1]
    firsts = [i for flags in _flags(tmp_path / "log", "steps/is_first") for i in flags]
    assert [i for i, flag in enumerate(firsts) if flag] == [0, 1000]
    terminals = [i for flags in _flags(tmp_path / "log", "steps/is_terminal") for i in flags]
    assert [i for i, flag in enumerate(terminals) if flag] == [999, 1999]


def test_recording_takes_less_than_100_mb(tmp_path):
    program = processes.run(
        """
        env = make()
        play(env, 20_000)
        status = open("/proc/self/status").read()
        resident = int(status.partition("VmRSS:")[2].split()[0])
        assert resident < 100_000, f"{resident} kB"
        assert "tensorflow" not in sys.modules
        """,
        tmp_path / "log",
        tmp_path,
    )
    processes.assert_complete(tmp_path / "log", program)


def _inject(monkeypatch, source):
    """Has helpers run something before they begin."""
    code = textwrap.dedent(source)
    begin, _, end = helper._BOOTSTRAP.partition("from envlogger.tfds import helper_process")
    patched = f"{begin}exec({code!r}); from envlogger.tfds import helper_process{end}"
    monkeypatch.setattr(helper, "_BOOTSTRAP", patched)
