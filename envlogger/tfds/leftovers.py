# SPDX-License-Identifier: Apache-2.0
"""Tells what dead writers have left in a dataset, for those who only read it: nothing is changed."""

from __future__ import annotations

import glob
import os

from envlogger import errors
from envlogger.tfds import dataset, session, step_log


def find(directory: str) -> list[str]:
    """Returns the sessions of dead writers that have steps which are in no published shard.

    `recovery.recover` publishes these, unless they belong to an episode that counts only as a whole. What
    a helper is still at, or may not be read, is not among them.

    Args:
      directory: A dataset, published or not.
    """
    state = os.path.join(directory, dataset.STATE)
    sessions = os.path.join(state, "sessions")
    found = []
    lock = session.Lock(state, "lock")
    try:
        # Who recovers a session holds this lock while it looks for a writer, and so never finds this one.
        lock.acquire(is_shared=True)
        for name in sorted(os.listdir(sessions)):
            path = os.path.join(sessions, name)
            if _is_free(path) and _has_steps(path):
                found.append(name)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # nobody has recorded there, or nobody has left anything, or it is not for us to know
    finally:
        lock.release()
    return found


def _is_free(directory: str) -> bool:
    """Whether nobody writes a session, or seals it."""
    for name in (session.WRITER_LOCK, session.SEALER_LOCK):
        lock = session.Lock(directory, name)
        try:
            if not lock.acquire(wait=False, is_shared=True):
                return False
        except FileNotFoundError:
            continue  # nobody ever had it
        finally:
            lock.release()
    return True


def _has_steps(directory: str) -> bool:
    """Whether a session has rows that are in no published shard."""
    journal = session.Journal(directory)
    try:
        journal.refresh()
        if journal.options is None:
            return False  # it died before its first row
        published = session.read_progress(directory, journal.options.num_streams)
    except (ValueError, KeyError, errors.CorruptDatasetError):
        return True  # it is damaged; `recovery.recover` says how
    return any(
        step_log.count_rows(path) > rows
        for stream, rows in enumerate(published)
        for path in glob.glob(step_log.segment_path(glob.escape(directory), stream, "*"))
    )
