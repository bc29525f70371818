"""How the C library and Python look after memory."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# Blocks of this size go back to the system when they are freed: usually as glibc itself comes to
# it, and where what is between a model's layers would else stay.
_USUAL_BYTES, _SMALL_BYTES = 32 * 2**20, 2**18


def share_one_arena() -> None:
    """Let all threads allocate from one pool; does nothing where the C library is not glibc.

    glibc would keep a pool for every thread, and what one thread allocates and another frees would
    pile up in each. To be called before threads are started.
    """
    _set(_M_ARENA_MAX, 1)


@contextmanager
def given_back() -> Iterator[None]:
    """Let memory that is freed in the block go back to the system, as far as glibc can.

    What a test of a model takes for the values between the layers would stay with the process.
    """
    _set(_M_MMAP_THRESHOLD, _SMALL_BYTES)
    try:
        yield
    finally:
        _set(_M_MMAP_THRESHOLD, _USUAL_BYTES)
        _set(_M_TRIM_THRESHOLD, 2 * _USUAL_BYTES)
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _set(parameter: int, value: int) -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(parameter, value)


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
