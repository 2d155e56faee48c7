# SPDX-License-Identifier: Apache-2.0
"""Hypothesis without anything that depends on the machine's speed or on luck."""

from __future__ import annotations

from typing import Any

import hypothesis


def settings(max_examples: int, **options: Any) -> hypothesis.settings:
    """Returns settings by which a test sees the same examples in each run."""
    return hypothesis.settings(
        max_examples=max_examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        **options,
    )
