# SPDX-License-Identifier: Apache-2.0
"""The helper process: seals a session while the environment runs.

It runs at a lower priority, in a session of its own, so that the terminal's Ctrl-C does not reach it. It
ends when the writer has closed, or is dead, and everything is sealed. See `helper` for the writer's end,
which this module does not need: all that it imports is CPU time of every recording.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from typing import Any

from envlogger import errors
from envlogger.tfds import dataset, session
from envlogger.tfds.sealer import Sealer

# What the writer sends.
WAKE, PRESSURE, PUBLISH, CLOSE = b"w", b"p", b"f", b"c"

# How long the helper sleeps where nobody wakes it. Work that comes seldom, and more at a time, takes less.
POLL_SECONDS = 0.5
# How long it waits before it tries again to write to a disk that was full.
_RETRY_SECONDS = 1.0
_NICENESS = 10
_MAX_ERROR = 500  # characters: what a pipe takes in one piece, as a line of JSON


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
        # It was removed; or the writer died early, and somebody has recovered it already.
        sys.exit(1)
    _Loop(target, task).run()
    lock.release()


class _Loop:
    """Waits for commands, for rows, and for the end of the writer."""

    def __init__(self, target: dataset.DatasetDirectory, task: dict[str, Any]) -> None:
        self._target = target
        self._session_id = task["session"]
        self._commands = task["commands"]
        self._answers = task["answers"]
        os.set_blocking(self._answers, False)  # a writer that is idle does not read them
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
            is_over = is_over or CLOSE in commands or self._is_writer_gone()
            try:
                sealer = sealer or Sealer(self._target, self._session_id)
                sealer.seal(under_pressure=PRESSURE in commands)
                if PUBLISH in commands:
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
                self._answer({"error": str(error)[:_MAX_ERROR]})
                if sealer is not None:
                    sealer.close()
                    sealer = None
                time.sleep(_RETRY_SECONDS)

    def _wait(self) -> bytes:
        timeout = POLL_SECONDS
        if self._sync_interval is not None:
            timeout = min(max(self._next_sync - time.monotonic(), 0.0), timeout)
        ready = {descriptor for descriptor, _ in self._poll.poll(timeout * 1000)}
        # At its end, the writer has closed, or died.
        return (os.read(self._commands, 4096) or CLOSE) if self._commands in ready else b""

    def _is_writer_gone(self) -> bool:
        if self._writer < 0:
            return True
        return bool(select.select([self._writer], [], [], 0)[0])

    def _sync(self, sealer: Sealer) -> None:
        if self._sync_interval is not None and time.monotonic() >= self._next_sync:
            sealer.sync()
            self._next_sync = time.monotonic() + self._sync_interval

    def _acknowledge(self, commands: bytes) -> None:
        if PUBLISH in commands or PRESSURE in commands:
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
