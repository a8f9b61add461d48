"""Who runs on which processor: the gate's worker has one of its own, so that what bots wait for is its doing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def others_together() -> Iterator[int | None]:
    """Leave one processor free of this process and of all that it starts from now on.

    :return: that processor; ``None`` on a machine of one
    """
    all_of_them = os.sched_getaffinity(0)
    own = min(all_of_them)
    if len(all_of_them) == 1:
        yield None
        return
    os.sched_setaffinity(0, all_of_them - {own})
    try:
        yield own
    finally:
        os.sched_setaffinity(0, all_of_them)


def place(process: int, processor: int | None) -> None:
    """Let a process run there alone, with all of its threads."""
    if processor is not None:
        for thread in Path(f"/proc/{process}/task").iterdir():
            with suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(int(thread.name), {processor})
