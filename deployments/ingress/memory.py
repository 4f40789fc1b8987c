"""Memory of large bodies, given back to the system as soon as it is free."""

import ctypes

M_MMAP_THRESHOLD = -3
"""`mallopt`'s parameter, in glibc's malloc.h."""
LARGE_BLOCK_BYTES = 1024 * 1024


def return_large_blocks() -> bool:
    """Let glibc map each large block apart, and unmap it when it is freed.

    By default glibc raises that bound to the size of the largest block that was ever freed. Then bodies of
    some megabytes lie in its arenas, between small objects that keep their memory from the system.

    Returns:
        Whether it is in effect; not with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES))
