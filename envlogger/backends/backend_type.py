# SPDX-License-Identifier: Apache-2.0
"""The backends that can be chosen by name."""

from __future__ import annotations

import enum


class BackendType(enum.IntEnum):
    """Where steps go, or come from.

    The numbers of RIEGELI and IN_MEMORY are those of EnvLogger 1.x and never change.
    """

    # Logs of EnvLogger 1.x, which can be read and converted.
    RIEGELI = 0
    # Python lists in this process, for tests.
    IN_MEMORY = 1
    # A TFDS dataset in RLDS form, in ArrayRecord shards.
    TFDS = 2
