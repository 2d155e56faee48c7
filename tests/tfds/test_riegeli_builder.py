# SPDX-License-Identifier: Apache-2.0
"""TFDS's own way to make datasets of EnvLogger 1.x's logs, which calls `envlogger.Reader`."""

from __future__ import annotations

import pytest
import riegeli_builder


@pytest.mark.filterwarnings("ignore")  # TFDS's own
def test_tfds_makes_datasets_of_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(riegeli_builder.LogsOfEnvLogger1, "logs", tmp_path / "logs")
    builder = riegeli_builder.LogsOfEnvLogger1(
        data_dir=tmp_path / "data", file_format="array_record"
    )

    riegeli_builder.check(builder, tmp_path / "logs")
