"""How the C library hands out memory."""

import ctypes
from contextlib import suppress

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def keep_memory_small() -> None:
    """Make glibc give back what is freed; other C libraries are left alone.

    It would keep a pool for every thread, and chunks that gRPC's threads allocate and ours free
    would pile up in all of them: with 50 clients, 40 MB.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_M_ARENA_MAX, 1)
        library.mallopt(_M_MMAP_THRESHOLD, 64 * 1024)
