"""Which types cross the wire, and as what. Types of layers above register themselves here.

A value that is not a plain scalar crosses as a list ``[tag, item, ...]``: only what is registered under a tag
can arrive, and nothing that arrives is code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from fedlightning.workers.remote.codecs.packing import Packer, Unpacker

Pack: TypeAlias = "Callable[[Any, Packer], list[Any]]"
Unpack: TypeAlias = "Callable[[list[Any], Unpacker], Any]"


@dataclass(frozen=True, slots=True)
class Codec:
    """Say how values of one type cross the wire.

    Args:
        tag: Names the type on the wire.
        pack: Makes plain items of a value; items are packed already.
        unpack: Makes a value of the items; items are still packed.
    """

    tag: str
    pack: Pack
    unpack: Unpack


_BY_TYPE: dict[type, Codec] = {}
_FAMILIES: list[tuple[type, Codec]] = []
_BY_TAG: dict[str, Codec] = {}


def register(kind: type, tag: str, pack: Pack, unpack: Unpack) -> None:
    """Let values of exactly one type cross the wire.

    Args:
        kind: The type; its subclasses are not meant.
        tag: Names it on the wire, the same on both sides.
        pack: Makes plain items of a value.
        unpack: Makes a value of the items, and trusts none of them.

    Raises:
        ValueError: The tag is taken by another type.

    Example:
        >>> from fractions import Fraction
        >>> def pack(value, packer):
        ...     return [packer.pack(value.numerator), packer.pack(value.denominator)]
        >>> def unpack(items, unpacker):
        ...     numerator, denominator = (int(unpacker.unpack(item)) for item in items)
        ...     return Fraction(numerator, denominator)
        >>> register(Fraction, "fractions:Fraction", pack, unpack)
        >>> codec_for(Fraction).tag
        'fractions:Fraction'
    """
    _BY_TYPE[kind] = _tagged(Codec(tag, pack, unpack), kind)


def register_family(base: type, tag: str, pack: Pack, unpack: Unpack) -> None:
    """Let values of a type and of all its subclasses cross the wire, where ``pack`` accepts them.

    Args:
        base: The type.
        tag: Names it on the wire.
        pack: Makes plain items of a value.
        unpack: Makes a value of the items, and trusts none of them.

    Raises:
        ValueError: The tag is taken by another type.
    """
    _FAMILIES.append((base, _tagged(Codec(tag, pack, unpack), base)))


def codec_for(kind: type) -> Codec | None:
    """Return how values of a type cross the wire; None if they do not."""
    codec = _BY_TYPE.get(kind)
    if codec is None:
        codec = next((codec for base, codec in _FAMILIES if issubclass(kind, base)), None)
    return codec


def codec_of(tag: str) -> Codec | None:
    """Return what is registered under a tag; None if nothing is."""
    return _BY_TAG.get(tag)


_OWNERS: dict[str, str] = {}


def _tagged(codec: Codec, kind: type) -> Codec:
    owner = f"{kind.__module__}.{kind.__qualname__}"
    # The same type again is a module that was loaded again, as in a notebook.
    if _OWNERS.setdefault(codec.tag, owner) != owner:
        raise ValueError(f"tag={codec.tag!r} already names {_OWNERS[codec.tag]}: choose another for {owner}")
    _BY_TAG[codec.tag] = codec
    return codec
