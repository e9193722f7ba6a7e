"""Identifiers of objects and pointers. Who holds which object is the workers' business, not this module's."""

from __future__ import annotations

import os
import struct

_LOWEST = 10**10
_SPAN = 9 * 10**10
_BLOCK = 256

_pool: list[int] = []
# A forked process would hand out the same identifiers as its parent and overwrite objects.
os.register_at_fork(after_in_child=_pool.clear)


def new_id() -> int:
    """Draw an identifier of 11 digits from the system's random source.

    Returns:
        An integer in ``[10**10, 10**11)``; unrelated to `torch.manual_seed` and `random.seed`.

    Example:
        >>> len(str(new_id()))
        11
    """
    try:
        return _pool.pop()
    except IndexError:
        # One system call per block: a call for each identifier would cost more than a small tensor operation.
        _pool.extend(_LOWEST + n % _SPAN for n in struct.unpack(f"{_BLOCK}Q", os.urandom(8 * _BLOCK)))
        # From the beginning: other threads may have taken all of it by now.
        return new_id()
