# SPDX-License-Identifier: Apache-2.0
"""Ends tf.data's iterators before the interpreter ends.

An iterator works ahead, in threads of its own. If its pipeline calls Python, and the interpreter is gone,
such a thread is ended in the middle of TensorFlow: the process then aborts, or waits for it for ever. That
is what comes of a script which is at its end, or fails, while an iterator is alive.
"""

from __future__ import annotations

import atexit
import functools
import gc
import sys


@functools.cache
def end_at_exit() -> None:
    """Sees to it, once, that the iterators of this process are ended while the interpreter is there."""
    atexit.register(_end_all)


def _end_all() -> None:
    module = sys.modules.get("tensorflow.python.data.ops.iterator_ops")
    kind = getattr(module, "OwnedIterator", None)
    if kind is None:
        return
    for iterator in [item for item in gc.get_objects() if type(item) is kind]:
        # The last reference to what it is in C++, which waits for its threads. TensorFlow has no public way.
        vars(iterator).pop("_iterator_resource", None)
