# SPDX-License-Identifier: Apache-2.0
"""Kills recording processes, and looks whether every acknowledged step is there afterwards.

    python -m tests.crash --trials 1000     kills at random times
    python -m tests.crash --sweep           kills at each sub-step of publishing, one after the other

A recording process plays a script that its seed determines, and notes outside of the dataset each
call of `reset()` and `step()` that has returned. So whoever comes after its death can compute what
must be in the dataset, to the bit, and nothing else may be there than the call that was under way.
"""
