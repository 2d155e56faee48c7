# SPDX-License-Identifier: Apache-2.0
"""Forks of a process in which another thread reads a log, as PyTorch's loaders make them."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import riegeli_samples as samples

import envlogger
from envlogger.fork_safe_lock import ForkSafeLock
from envlogger.riegeli import chunks, values_file

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")


def _ends_well_in_a_fork(work):
    pid = os.fork()
    if not pid:
        signal.alarm(20)  # it ends the child
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


class _Held:
    """While it is entered, a thread is in the middle of a call of a method, and stays there."""

    def __init__(self, monkeypatch, owner, name, work):
        self._is_there, self._may_go = threading.Event(), threading.Event()
        call = getattr(owner, name)
        pid = os.getpid()

        def wait(*args, **kwargs):
            if os.getpid() == pid and threading.current_thread() is self._thread:
                self._is_there.set()
                assert self._may_go.wait(60)
            return call(*args, **kwargs)

        self._thread = threading.Thread(target=work)
        monkeypatch.setattr(owner, name, wait)

    def __enter__(self):
        self._thread.start()
        assert self._is_there.wait(60)

    def __exit__(self, *_):
        self._may_go.set()
        self._thread.join(60)


# In each of these, a thread has one of the locks.
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (chunks.ChunkFile, "read_header"),
        (values_file.ChunkCache, "_drop_passed"),
        (values_file.ValuesFile, "__init__"),
        (values_file.read_ahead.ReadAhead, "take"),
    ],
)
def test_a_fork_reads_what_another_thread_was_reading(monkeypatch, owner, name):
    log = samples.log("opt_transpose_tinychunk")
    with envlogger.Reader(log) as reader:
        expected = [repr(step) for step in reader.steps]
        reader.close()
        iterator = iter(reader.steps)

        def read():
            assert repr(reader.steps[5]) == expected[5]
            assert [repr(step) for step in iterator] == expected

        with _Held(monkeypatch, owner, name, lambda: reader.steps[0]):
            assert _ends_well_in_a_fork(read)
        read()


def test_a_lock_that_another_thread_holds_is_free_in_a_fork():
    lock = ForkSafeLock()
    is_held, may_go = threading.Event(), threading.Event()

    def hold():
        with lock:
            is_held.set()
            may_go.wait(60)

    def take():
        with lock, lock:  # it is reentrant
            pass

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait(60)
    assert _ends_well_in_a_fork(take)
    may_go.set()
    thread.join(60)
    take()
