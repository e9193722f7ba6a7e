"""How a batched step says that it cannot be taken; the visits are then carried out one by one."""

from __future__ import annotations


class NotBatchable(Exception):
    """The steps of several workers cannot be taken as one; the message says why, in a few words."""
