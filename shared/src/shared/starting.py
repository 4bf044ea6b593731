"""A quick start: what importing makes is kept as long as the process, so the garbage collector need not look at it.

Left to itself it looks again and again while there is ever more, which is a quarter of a start's processor time
(docs/performance.md), and ever after with each full collection, while the process answers nobody.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def nothing_is_garbage() -> Iterator[None]:
    """Import within it what the process is made of."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
