"""What is freed only by the garbage collector, whose full collections are rare in a worker."""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def none_of_the_gateway() -> Iterator[None]:
    """Whatever of the product ends inside must be freed by then, without the collector."""
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert not Counter(type(each).__name__ for each in gc.garbage if type(each).__module__.startswith("gateway."))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
