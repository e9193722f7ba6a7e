"""Samples inside what is not declared as data: a module's metrics, for instance, may have kept every score.

Which types those are is for the layers above to say; here is only the question.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any


@singledispatch
def kept_samples(value: Any) -> str:
    """Say which values per sample an object holds, and what to do so that it holds none.

    What has some leaves its worker as data, whatever its type or program says. A type of a layer above
    registers itself: ``@kept_samples.register``.

    Args:
        value: What is about to leave.

    Returns:
        A sentence for the error's remedy; nothing if no such values are known of.
    """
    return ""
