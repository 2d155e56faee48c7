# SPDX-License-Identifier: Apache-2.0
"""Recording processes that do what they are told, one call at a time, until they are killed.

    python recorder.py SOCKET

Each connection to the socket is served by a process of its own, a fork of this one: that takes
milliseconds, so a test can kill hundreds of them.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import dm_env

import envlogger
from envlogger import errors

_PATIENCE_SECONDS = 60


class Recorders:
    """Starts recorders."""

    def __init__(self) -> None:
        self._place = tempfile.TemporaryDirectory()
        self._address = os.path.join(self._place.name, "socket")
        tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        path = os.pathsep.join([os.path.dirname(tests), tests])
        # A process that has threads must not be forked.
        self._process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), self._address],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path},
        )
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not os.path.exists(self._address):
            assert time.monotonic() < give_up, "the process does not begin"
            time.sleep(0.01)

    def start(self, directory: str, **options: Any) -> Recorder:
        """Returns a process that has a logger open."""
        return Recorder(self._address, directory, options)

    def close(self) -> None:
        """Ends them all."""
        self._process.kill()
        self._process.wait()
        self._place.cleanup()


class Recorder:
    """A process that records."""

    def __init__(self, address: str, directory: str, options: dict[str, Any]) -> None:
        self._connection: Connection = Client(address)
        self._pid = self._connection.recv()
        self._handle = os.pidfd_open(self._pid)
        self._ask("open", directory, options)

    def call(
        self, name: str, timestep: dm_env.TimeStep, action: Any, custom: Any, meta: Any
    ) -> Any:
        """Has it call `reset` or `step` of the logger of an environment that gives `timestep`."""
        return self._ask("call", name, timestep, action, custom, meta)

    def flush(self) -> None:
        """Has it flush the logger."""
        self._ask("flush")

    def close(self) -> None:
        """Has it close the logger and end."""
        self._ask("close")
        self._wait()

    def kill(self) -> None:
        """Kills it, and waits until the kernel has let go of all that it had."""
        os.kill(self._pid, signal.SIGKILL)
        self._wait()

    def _wait(self) -> None:
        ready, _, _ = select.select([self._handle], [], [], _PATIENCE_SECONDS)
        assert ready, "the process does not end"
        os.close(self._handle)
        self._connection.close()

    def _ask(self, *request: Any) -> Any:
        self._connection.send(request)
        problem, result = self._connection.recv()
        assert problem is None, problem
        return result


class _Env(dm_env.Environment):
    """Gives whatever timestep was put into it."""

    def __init__(self) -> None:
        self.timestep: dm_env.TimeStep | None = None
        self.custom: Any = None
        self.metadata: Any = None

    def reset(self) -> dm_env.TimeStep:
        return self.timestep

    def step(self, action: Any) -> dm_env.TimeStep:
        return self.timestep

    def observation_spec(self) -> Any:
        return {}

    action_spec = reward_spec = discount_spec = observation_spec


def _serve(connection: Connection) -> None:
    """Does what one connection asks for, until it ends."""
    warnings.simplefilter("ignore")
    env = _Env()
    logger: Any = None
    connection.send(os.getpid())
    while True:
        kind, *arguments = connection.recv()
        problem = result = None
        try:
            if kind == "open":
                directory, options = arguments
                if options["helper"]:
                    _recover_elsewhere(directory)
                logger = envlogger.EnvLogger(
                    env,
                    lambda timestep, action, env: env.custom,
                    lambda timestep, action, env: env.metadata,
                    data_directory=directory,
                    **options,
                )
            elif kind == "call":
                name, env.timestep, action, env.custom, env.metadata = arguments
                result = logger.reset() if name == "reset" else logger.step(action)
            else:
                getattr(logger, kind)()
        except Exception:
            problem = traceback.format_exc()
        connection.send((problem, result))
        if kind == "close":
            os._exit(0)


def _recover_elsewhere(directory: str) -> None:
    """Recovers in a process of its own.

    Sealing starts threads, and then this process must not be forked: not even for its helper, which
    here, and here only, is a fork.
    """
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(errors.DatasetError):
            envlogger.recover(directory)
        os._exit(0)
    os.waitpid(pid, 0)


def main(address: str) -> None:
    from crash import faults

    faults.fork_helpers(None)
    listener = Listener(address)
    while True:
        connection = listener.accept()
        if os.fork() == 0:
            with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
                _serve(connection)
            os._exit(1)
        connection.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    main(sys.argv[1])
