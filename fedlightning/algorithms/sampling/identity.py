"""What a way of sampling is, as text that can be kept in a checkpoint and compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from os import PathLike

_LONGEST = 80


def identity_of(value: object) -> str:
    """Describe a setting by what decides its draws.

    The same setting gives the same text in every process. Functions are known by name alone: that one was
    rewritten is not noticed. What is long is given as a digest.

    Args:
        value: A frozen dataclass, a function, or plain values and collections of them.

    Example:
        >>> identity_of({"bob": 2, "alice": 1})
        "{'alice': 1, 'bob': 2}"
    """
    if is_dataclass(value):
        given = {field.name: getattr(value, field.name) for field in fields(value)}
        parts = (f"{name}={_short(identity_of(own))}" for name, own in given.items() if name[0] != "_")
        return f"{type(value).__name__}({', '.join(parts)})"
    if callable(value):
        name = getattr(value, "__qualname__", type(value).__qualname__)
        return f"{getattr(value, '__module__', '')}:{name}"
    if isinstance(value, str | int | float | None):
        return repr(value)
    if isinstance(value, PathLike):
        return repr(str(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(sorted(f"{key!r}: {identity_of(own)}" for key, own in value.items())) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(identity_of, value))) + "}"
    if isinstance(value, Iterable):
        return "[" + ", ".join(map(identity_of, value)) + "]"
    return type(value).__qualname__


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else blake2b(text.encode(), digest_size=8).hexdigest()
