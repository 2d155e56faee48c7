# SPDX-License-Identifier: Apache-2.0
"""TFDS builders over logged runs: many runs become one dataset, with a version and a page of its own.

    sources ──▶ runs ──▶ encoding      logs and runs that are mapped become records, in a scratch directory
                  │         │
                  └────┬────┘
                    surveying          which episodes go where: filters, splits, shards
                       │
                    writing            records are copied, byte for byte, into the shards of the dataset

logged_runs_builder   the base class
hooks                 what a builder may say of each step and episode
engines               where the work is done: in this process, or by Beam
documentation         what `features.json` says of the fields of RLDS
"""
