# SPDX-License-Identifier: Apache-2.0
"""TFDS's builders of EnvLogger 1.x's logs on Apache Beam."""

from __future__ import annotations

import pytest
import riegeli_builder
import tensorflow_datasets as tfds
from tensorflow_datasets.rlds import rlds_base

beam = tfds.core.lazy_imports.apache_beam


class LogsByBeam(riegeli_builder.LogsOfEnvLogger1):
    """The builder, whose examples are a collection of Beam's."""

    def _generate_examples(self, path):
        return rlds_base.generate_beam_examples(path)


@pytest.mark.filterwarnings("ignore")  # Beam's and TFDS's own
def test_tfds_makes_datasets_of_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(LogsByBeam, "logs", tmp_path / "logs")
    builder = LogsByBeam(data_dir=tmp_path / "data", file_format="array_record")
    options = beam.options.pipeline_options.PipelineOptions(["--runner=DirectRunner"])

    riegeli_builder.check(
        builder,
        tmp_path / "logs",
        download_config=tfds.download.DownloadConfig(beam_options=options),
    )
