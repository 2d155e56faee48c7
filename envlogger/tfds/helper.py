# SPDX-License-Identifier: Apache-2.0
"""The helper process: seals a session while the environment runs.

The writer's end (`Helper`) and the loop of the process (`main`) stand side by side; between them are
two pipes. The writer sends single bytes, the helper answers in JSON lines.

The helper runs at a lower priority, in a session of its own, so that the terminal's Ctrl-C does not
reach it. It ends when the writer has closed, or is dead, and everything is sealed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from typing import Any

from envlogger import errors
from envlogger.tfds import dataset, session
from envlogger.tfds.sealer import Sealer

_WAKE, _PRESSURE, _PUBLISH, _CLOSE = b"w", b"p", b"f", b"c"

# How long the helper sleeps where nobody wakes it.
_POLL_SECONDS = 0.1
# How long it waits before it tries again to write to a disk that was full.
_RETRY_SECONDS = 1.0
_NICENESS = 10
# The libraries for linear algebra that numpy may come with start a thread for each core, which is half
# of the time that the helper takes to start; it has no use for them.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

# It ends at once: to take the interpreter down in good order costs as much as a thousand steps.
_BOOTSTRAP = """
import json, os, sys
sys.path[:] = json.loads(sys.argv[1])
from envlogger.tfds import helper
helper.main(json.loads(sys.argv[2]))
os._exit(0)
"""


class Helper:
    """The writer's end of a helper process.

    Args:
      target: The dataset.
      session_id: The session that the helper is to seal.
      sync_interval: Seconds after which rows are made to survive a loss of power, again and again;
        None for never.

    Raises:
      OSError: The process cannot be started.
    """

    def __init__(
        self, target: dataset.DatasetDirectory, session_id: str, sync_interval: float | None
    ) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        os.set_blocking(self._commands, False)
        os.set_blocking(self._answers, False)
        task = {
            "directory": target.directory,
            "identity": [target.identity.name, target.identity.version],
            "descriptor": target.descriptor,
            "session": session_id,
            "writer": os.getpid(),
            "commands": commands,
            "answers": answers,
            "sync_interval": sync_interval,
        }
        arguments = [
            json.dumps([path for path in sys.path if isinstance(path, str)]),
            json.dumps(task),
        ]
        try:
            self._process = subprocess.Popen(
                # An interpreter that is embedded in a program does not know where it is.
                [sys.executable or "", "-c", _BOOTSTRAP, *arguments],
                # Whoever waits for the end of the job's output must not wait for the helper.
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD},
                pass_fds=(target.descriptor, commands, answers),
                start_new_session=True,
            )
        except BaseException:
            os.close(self._commands)
            os.close(self._answers)
            raise
        finally:
            os.close(commands)
            os.close(answers)
        self._session_path = target.session_path(session_id)
        self._buffer = b""
        self._num_acknowledged = 0

    @property
    def is_alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def wake(self) -> None:
        """Says that there are rows to seal."""
        self._send(_WAKE)

    def check(self) -> None:
        """Raises what went wrong in the helper since the last call; the rows are safe.

        Raises:
          OSError: The helper could not write.
        """
        self._read()

    def wait_for_space(self) -> None:
        """Has the helper publish what it can, and waits until it has tried."""
        self._ask(_PRESSURE)

    def publish(self) -> None:
        """Has the helper publish the episodes that are finished, and waits for it.

        Raises:
          OSError: The helper could not write.
        """
        self._ask(_PUBLISH)

    def finish(self) -> bool:
        """Has the helper seal and publish everything, waits for its end; returns whether it did."""
        self._send(_CLOSE)
        self._process.wait()
        self.close()
        return not os.path.exists(self._session_path)

    def close(self) -> None:
        """Closes the pipes."""
        for descriptor in (self._commands, self._answers):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._commands = self._answers = -1

    def _send(self, command: bytes) -> None:
        # A full pipe has commands enough; a broken one is seen by `is_alive`.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._commands, command)

    def _ask(self, command: bytes) -> None:
        before = self._num_acknowledged
        answers = select.poll()  # select() ends at 1024 open files
        answers.register(self._answers, select.POLLIN)
        self._send(command)
        while self._num_acknowledged == before and self.is_alive:
            answers.poll(_POLL_SECONDS * 1000)
            self._read()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._answers, 4096):
                self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            answer = json.loads(line)
            if "error" in answer:
                raise OSError(
                    f"Sealing failed; the steps are safe in the step log. {answer['error']}"
                )
            self._num_acknowledged += 1


def main(task: dict[str, Any]) -> None:
    """Seals a session until its writer is gone and everything is published."""
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    target = dataset.DatasetDirectory(
        task["directory"], *task["identity"], descriptor=task["descriptor"]
    )
    lock = session.Lock(target.session_path(task["session"]), session.SEALER_LOCK)
    try:
        lock.acquire()
    except FileNotFoundError:
        return  # the writer died early, and somebody has recovered its session already
    _Loop(target, task).run()
    lock.release()


class _Loop:
    """Waits for commands, for rows, and for the end of the writer."""

    def __init__(self, target: dataset.DatasetDirectory, task: dict[str, Any]) -> None:
        self._target = target
        self._session_id = task["session"]
        self._commands = task["commands"]
        self._answers = task["answers"]
        self._sync_interval = task["sync_interval"]
        self._next_sync = time.monotonic() + (self._sync_interval or 0.0)
        self._poll = select.poll()
        self._poll.register(self._commands, select.POLLIN)
        self._writer = _watch(task["writer"])
        if self._writer >= 0:
            self._poll.register(self._writer, select.POLLIN)

    def run(self) -> None:
        sealer: Sealer | None = None
        is_over = False
        while True:
            commands = b"" if is_over else self._wait()
            is_over = is_over or _CLOSE in commands or self._is_writer_gone()
            try:
                sealer = sealer or Sealer(self._target, self._session_id)
                sealer.seal(under_pressure=_PRESSURE in commands)
                if _PUBLISH in commands:
                    sealer.flush()
                self._sync(sealer)
                if is_over:
                    sealer.finish()
                    return
                with contextlib.suppress(OSError):  # where there is no space, the writer says so
                    sealer.make_spares()
                self._acknowledge(commands)
            except (OSError, errors.EnvLoggerError) as error:
                # A full disk, as a rule. The step log has everything: begin anew from there.
                if is_over:
                    sys.exit(1)  # the writer that waits says why; the next one recovers the session
                self._answer({"error": str(error)})
                if sealer is not None:
                    sealer.close()
                    sealer = None
                time.sleep(_RETRY_SECONDS)

    def _wait(self) -> bytes:
        ready = {descriptor for descriptor, _ in self._poll.poll(_POLL_SECONDS * 1000)}
        return os.read(self._commands, 4096) if self._commands in ready else b""

    def _is_writer_gone(self) -> bool:
        if self._writer < 0:
            return True
        return bool(select.select([self._writer], [], [], 0)[0])

    def _sync(self, sealer: Sealer) -> None:
        if self._sync_interval is not None and time.monotonic() >= self._next_sync:
            sealer.sync()
            self._next_sync = time.monotonic() + self._sync_interval

    def _acknowledge(self, commands: bytes) -> None:
        if _PUBLISH in commands or _PRESSURE in commands:
            self._answer({})

    def _answer(self, answer: dict[str, str]) -> None:
        with contextlib.suppress(OSError):  # the writer may be gone
            os.write(self._answers, json.dumps(answer).encode() + b"\n")


def _watch(writer: int) -> int:
    """Returns a descriptor that becomes readable when the writer ends, or -1 if it has ended."""
    try:
        descriptor = os.pidfd_open(writer)
    except ProcessLookupError:
        return -1
    # If the writer had died before, the number may be another process's now; it is not our parent.
    return descriptor if os.getppid() == writer else -1
