# SPDX-License-Identifier: Apache-2.0
"""The writer's end of the helper process, which seals a session while the environment runs.

The other end is `helper_process`. Between them are two pipes: the writer sends single bytes, the helper
answers in JSON lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys

from envlogger.tfds import dataset, session
from envlogger.tfds.helper_process import CLOSE, POLL_SECONDS, PRESSURE, PUBLISH, WAKE

# The libraries for linear algebra that numpy may come with start a thread for each core, which is half
# of the time that the helper takes to start; it has no use for them.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

# What is imported is not looked through for garbage. And it ends at once: to take the interpreter down in
# good order costs as much as a thousand steps.
_BOOTSTRAP = """
import gc, json, os, sys
sys.path[:] = json.loads(sys.argv[1])
gc.disable()
from envlogger.tfds import helper_process
gc.freeze()
gc.enable()
helper_process.main(json.loads(sys.argv[2]))
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
        commands, self._commands = map(session.above_standard, os.pipe())
        self._answers, answers = map(session.above_standard, os.pipe())
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

    def wake(self) -> None:
        """Says that there are rows to seal."""
        self._send(WAKE)

    def check(self) -> None:
        """Raises what went wrong in the helper since the last call; the rows are safe.

        Raises:
          OSError: The helper could not write.
        """
        self._read()

    def wait_for_space(self) -> None:
        """Has the helper publish what it can, and waits until it has tried."""
        self._ask(PRESSURE)

    def publish(self) -> bool:
        """Has the helper publish the episodes that are finished; returns False if it died over that.

        Raises:
          OSError: The helper could not write.
        """
        return self._ask(PUBLISH)

    def finish(self) -> bool:
        """Has the helper seal and publish everything, waits for its end; returns whether it did."""
        self._send(CLOSE)
        self.close()  # which says the same, where the pipe was full
        has_failed = self._process.wait() > 0  # it may also have been killed, when all was done
        return not has_failed and not os.path.exists(self._session_path)

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

    def _ask(self, command: bytes) -> bool:
        before = self._num_acknowledged
        answers = select.poll()  # select() ends at 1024 open files
        answers.register(self._answers, select.POLLIN)
        self._send(command)
        while self._num_acknowledged == before and self.is_alive:
            answers.poll(POLL_SECONDS * 1000)
            self._read()
        return self._num_acknowledged != before

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
