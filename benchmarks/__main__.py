# SPDX-License-Identifier: Apache-2.0
"""Compares recording with its peers: `python -m benchmarks` (or `make bench`)."""

from benchmarks import recording

recording.main()
