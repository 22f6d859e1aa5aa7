"""The number of threads to compute with."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MOST_THREADS = 16  # a step has too little work for more
CGROUP = Path("/sys/fs/cgroup")


def usual_threads() -> int:
    """Return the number of threads: the cores that may be used, at most `MOST_THREADS` and OMP_NUM_THREADS."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # "4,2": 4, then 2 in each of them
    limit = int(wanted) if wanted.isdecimal() and int(wanted) else MOST_THREADS
    return max(1, min(len(os.sched_getaffinity(0)), limit, MOST_THREADS, *_container_cores()))


def _container_cores() -> Iterator[int]:
    """Yield the cores that the control group's quota allows, rounded down; nothing without a quota.

    More threads than that would all be stopped for the rest of each period.
    """
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()  # "max 100000" without a quota
        yield int(quota) // int(period)
    with suppress(OSError, ValueError):  # version 1
        quota, period = ((CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:
            yield int(quota) // int(period)
