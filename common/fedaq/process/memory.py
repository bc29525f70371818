"""How the C library and Python look after memory."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_M_ARENA_MAX = -8


def share_one_arena() -> None:
    """Let all threads allocate from one pool; does nothing where the C library is not glibc.

    glibc would keep a pool for every thread, and what one thread allocates and another frees would
    pile up in each. To be called before threads are started.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, 1)


@contextmanager
def all_so_far_kept() -> Iterator[None]:
    """Let the garbage collector leave alone, in the block, what was there before it.

    Of some 200,000 objects, most of them PyTorch's, hardly one becomes garbage; looking through
    all of them again and again would take time from every round.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
