"""How the C library hands out memory."""

import ctypes
from contextlib import suppress

_M_ARENA_MAX = -8


def share_one_arena() -> None:
    """Let all threads allocate from one pool; does nothing where the C library is not glibc.

    glibc would keep a pool for every thread, and what one thread allocates and another frees would
    pile up in each. To be called before threads are started.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, 1)
