"""Comparing things by whether they are the same, rather than equal."""

from __future__ import annotations

from typing import Any


class Same:
    """A thing that equals only itself, and that is kept as long as anybody compares with it.

    Args:
        value: The thing.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    __hash__ = None  # type: ignore[assignment]  # as of all that is equal without being the same
