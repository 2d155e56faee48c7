# SPDX-License-Identifier: Apache-2.0
"""Recovers what sessions left behind whose processes died."""

from __future__ import annotations

import dataclasses
import os

from envlogger import errors
from envlogger.options import check_path
from envlogger.tfds import dataset, session
from envlogger.tfds.sealer import Sealer


@dataclasses.dataclass
class Report:
    """What a recovery found and did.

    Attributes:
      recovered: The episodes that were added to the dataset, by session.
      live: The sessions that are being written right now; they were left alone.
      failed: What went wrong, by session; nothing of these was lost or changed.
    """

    recovered: dict[str, int] = dataclasses.field(default_factory=dict)
    live: list[str] = dataclasses.field(default_factory=list)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        """Returns the report for people."""
        lines = [f"{name}: recovered {count} episodes" for name, count in self.recovered.items()]
        lines += [f"{name}: is being written; left alone" for name in self.live]
        lines += [f"{name}: not recovered: {reason}" for name, reason in self.failed.items()]
        return "\n".join(lines) or "Nothing to recover."


def recover(directory: str | os.PathLike[str]) -> Report:
    """Publishes what dead sessions left in a dataset's directory.

    It may run at any time, beside writers and readers, and more than once.

    Args:
      directory: What was passed to `EnvLogger` as `data_directory`.

    Returns:
      What was found and done.

    Raises:
      DatasetError: Nothing was ever logged there.
    """
    path = check_path("directory", directory)
    # In this order: a helper may be at the first publication, which renames the one to the other.
    if not os.path.isdir(dataset.staging_path(path)) and not os.path.isdir(path):
        raise errors.DatasetError(
            f"{path}: there is no such directory. Pass the data_directory that was logged into."
        )
    target = dataset.DatasetDirectory(path)
    try:
        target.finish_publishing()
        return recover_sessions(target)
    finally:
        target.close()


def recover_sessions(target: dataset.DatasetDirectory) -> Report:
    """Does what `recover` does, in a dataset that is open for writing."""
    report = Report()
    for session_id in target.session_ids():
        directory = target.session_path(session_id)
        sealing = session.Lock(directory, session.SEALER_LOCK)
        writer = None
        try:
            writer = target.take_over(session_id)
            if writer is None:
                report.live.append(session_id)
                continue
            # A helper that outlived its writer is at it already; when it is done, nothing is left.
            sealing.acquire()
            if os.path.isdir(directory):
                report.recovered[session_id] = _recover_session(target, session_id)
        except Exception as error:  # whatever it is, the other sessions are recovered
            if os.path.isdir(directory):  # otherwise a helper has just finished it
                report.failed[session_id] = str(error) or repr(error)
        finally:
            sealing.release()
            if writer is not None:
                writer.release()
    return report


def _recover_session(target: dataset.DatasetDirectory, session_id: str) -> int:
    sealer = Sealer(target, session_id)
    try:
        sealer.finish()
    finally:
        sealer.close()
    return sealer.num_episodes
