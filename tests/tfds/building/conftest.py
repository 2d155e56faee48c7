# SPDX-License-Identifier: Apache-2.0
"""Runs, and the dataset that a builder makes of them."""

from __future__ import annotations

import pytest
import runs_builders


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    return runs_builders.record_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def merged(runs, tmp_path_factory):
    return runs_builders.build(runs_builders.SplitRuns, tmp_path_factory.mktemp("merged"), runs)
