# SPDX-License-Identifier: Apache-2.0
"""TFDS builders over logged runs: many runs become one dataset, with a version and a page of its own.

    sources ──▶ runs ──▶ encoding      logs and runs that are mapped become records, in a scratch directory
                  │         │
                  └────┬────┘
                planning.survey        what is in the records, and which episodes are taken
                       │
                planning.plan          which episodes go where: splits, shards
                       │
                planning.write         records are copied, byte for byte, into the shards of the dataset

logged_runs_builder   the base class
hooks                 what a builder may say of each step and episode
runs                  the runs: how they are found, and what they have in common
encoding              makes records of what is not there as records, or not as it is to be stored
episodes              the episodes of runs as steps, for the hooks to see and change
planning              which episodes a dataset has, in which splits and in which shards
engines               where the work is done: in this process, or by Beam
documentation         what `features.json` says of the fields of RLDS
"""
