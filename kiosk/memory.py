"""glibc's allocator, told to give memory back: frames come and go for years.

By default it takes a threshold for each size that was freed, and an arena for each thread: a
daemon of 130 MiB grew to 220 within minutes and stayed there.
"""

from __future__ import annotations

import ctypes

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# Smaller blocks are used again; a larger one is mapped for its time, which costs a fraction of a
# millisecond.
_THRESHOLD_BYTES = 1024 * 1024
_ARENAS = 2


def keep_small() -> bool:
    """Set the allocator's limits for this process; False where there is no glibc to set them in.

    To be called before threads are started.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    library.mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    settings = (
        (_M_ARENA_MAX, _ARENAS),
        (_M_MMAP_THRESHOLD, _THRESHOLD_BYTES),
        (_M_TRIM_THRESHOLD, _THRESHOLD_BYTES),
    )
    return all(library.mallopt(option, value) == 1 for option, value in settings)
