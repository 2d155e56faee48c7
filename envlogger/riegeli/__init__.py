# SPDX-License-Identifier: Apache-2.0
"""Reads Riegeli/records files, and the logs of EnvLogger 1.x in them; in Python and numpy."""

from envlogger.riegeli.log import LogWarning
from envlogger.riegeli.verification import verify

__all__ = ["LogWarning", "verify"]
