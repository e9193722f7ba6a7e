"""The federated round that messages are stamped with. What a round consists of is decided far above."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_round: ContextVar[int | None] = ContextVar("federated_round", default=None)

current_round = _round.get


@contextmanager
def in_round(number: int | None) -> Iterator[None]:
    """Stamp every message of the enclosed block with a federated round.

    Args:
        number: The round, counted from 0; None for work outside of any round.

    Example:
        >>> with in_round(7):
        ...     current_round()
        7
    """
    token = _round.set(number)
    try:
        yield
    finally:
        _round.reset(token)
