"""How a batched step says that it cannot be taken; the visits are then carried out one by one."""

from __future__ import annotations


class NotBatchable(Exception):
    """The steps of several workers cannot be taken as one; the message says why, in a few words."""


def in_few_words(error: Exception) -> str:
    """Return the first sentence of what was raised, or of its cause if it has one."""
    text = str(error.__cause__ or error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0][:200]
