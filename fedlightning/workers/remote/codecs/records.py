"""Dataclasses and named tuples that cross the wire as their fields. Layers above register their own here."""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from fedlightning.workers.remote.codecs.packing import Packer, Unpacker
from fedlightning.workers.remote.codecs.registry import register
from fedlightning.workers.remote.errors import MalformedMessageError

C = TypeVar("C", bound=type)
Check: TypeAlias = Callable[[Any], bool]


def record(kind: C, tag: str = "") -> C:
    """Let a dataclass or named tuple of data cross the wire; a decorator.

    Making it must have no effect beyond itself: its fields are checked against their types, but not trusted.

    Args:
        kind: The class.
        tag: Names it on the wire; ``module:class``, if none is given, by which the other side finds it.

    Returns:
        The class, unchanged.

    Raises:
        TypeError: It is neither.
        ValueError: Another class has this tag.

    Example:
        >>> from dataclasses import dataclass
        >>> @record
        ... @dataclass(frozen=True)
        ... class Dose:
        ...     patient: int
        ...     milligrams: float
        >>> from fedlightning.workers.remote.codecs.packing import Surroundings
        >>> Packer(Surroundings()).pack(Dose(1, 5.0))[1:]  # what crosses the wire, behind the tag
        [1, 5.0]
    """
    names = _field_names(kind)

    def pack(value: Any, packer: Packer) -> list[Any]:
        return packer.pack_each([getattr(value, name) for name in names])

    def unpack(items: list[Any], unpacker: Unpacker) -> Any:
        if len(items) != len(names):
            raise MalformedMessageError(f"{kind.__name__} has {len(names)} fields, got {len(items)}")
        values = unpacker.unpack_each(items)
        for position, sure, check in _checks(kind):
            if type(values[position]) not in sure and not check(values[position]):
                found = type(values[position]).__name__
                raise MalformedMessageError(f"{kind.__name__}.{names[position]} is no {found}")
        return kind(*values)

    register(kind, tag or f"{kind.__module__}:{kind.__qualname__}", pack, unpack)
    return kind


def _field_names(kind: type) -> tuple[str, ...]:
    if is_dataclass(kind):
        return tuple(field.name for field in fields(kind))
    names = getattr(kind, "_fields", None)
    if not isinstance(names, tuple):
        raise TypeError(
            f"{kind.__qualname__} is neither a dataclass nor a named tuple: register() it instead"
        )
    return names


@cache
def _checks(kind: type) -> tuple[tuple[int, frozenset[type], Check], ...]:
    """Return the positions of a record's fields that may not be just anything, each with two checks.

    Values of the types in the first, which takes no call, need not pass the second.
    """
    # Read late: a hint may name a class that is defined after this one.
    hints = get_type_hints(kind)
    places = [(position, hints[name]) for position, name in enumerate(_field_names(kind))]
    return tuple(
        (position, _sure_types(hint), check_for(hint)) for position, hint in places if hint is not Any
    )


def _sure_types(hint: Any) -> frozenset[type]:
    """Return types all of whose values are of a type hint."""
    if get_origin(hint) in (Union, types.UnionType):
        return frozenset().union(*map(_sure_types, get_args(hint)))
    if get_origin(hint) is tuple and get_args(hint) == (Any, ...):
        return frozenset({tuple})
    return frozenset({hint}) if isinstance(hint, type) and get_origin(hint) is None else frozenset()


def check_for(hint: Any) -> Check:
    """Make a check for a type hint.

    Args:
        hint: A class, or a hint of unions, literals, tuples, lists, sets and mappings of such. What cannot be
            checked, such as a callable's signature, passes.

    Returns:
        A function that tells whether a value is of that type. Numbers are exact: True is no int.
    """
    if hint is Any:
        return lambda value: True
    if hint is None or hint is type(None):
        return lambda value: value is None
    if hint is int:
        return lambda value: type(value) is int
    if hint is float:
        return lambda value: type(value) in (float, int)
    if isinstance(hint, type) and get_origin(hint) is None:
        return lambda value: isinstance(value, hint)
    return _check_for_generic(get_origin(hint), get_args(hint))


def _check_for_generic(origin: Any, arguments: tuple[Any, ...]) -> Check:
    if origin is Literal:
        return lambda value: type(value) in (str, int, bool) and value in arguments
    if origin in (Union, types.UnionType):
        checks = [check_for(argument) for argument in arguments]
        return lambda value: any(check(value) for check in checks)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _items(tuple, arguments[0])
    if origin in (list, set, frozenset):
        return _items(origin, arguments[0])
    if origin in (dict, collections.abc.Mapping):
        key, item = map(check_for, arguments)
        return lambda value: (
            isinstance(value, dict) and all(map(key, value)) and all(map(item, value.values()))
        )
    return lambda value: True


def _items(kind: type[Any], hint: Any) -> Check:
    sure, check = _sure_types(hint), check_for(hint)
    return lambda value: type(value) is kind and (sure.issuperset(map(type, value)) or all(map(check, value)))
