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
    codec = _tagged(Codec(tag, pack, unpack), base)
    _FAMILIES.append((base, codec))
    # Most values of a family are of its base, such as plain tensors: they need not be searched for.
    _BY_TYPE.setdefault(base, codec)


codec_for_exactly: Callable[[type], Codec | None] = _BY_TYPE.get
"""Return how values of a type cross the wire, where the type itself is registered; else None."""


def codec_for(kind: type) -> Codec | None:
    """Return how values of a type cross the wire, as themselves or as of a family; None if they do not."""
    return codec_for_exactly(kind) or next(
        (codec for base, codec in _FAMILIES if issubclass(kind, base)), None
    )


codec_of: Callable[[str], Codec | None] = _BY_TAG.get
"""Return what is registered under a tag; None if nothing is."""

_OWNERS: dict[str, str] = {}


def _tagged(codec: Codec, kind: type) -> Codec:
    owner = f"{kind.__module__}.{kind.__qualname__}"
    # The same type again is a module that was loaded again, as in a notebook.
    if _OWNERS.setdefault(codec.tag, owner) != owner:
        raise ValueError(f"tag={codec.tag!r} already names {_OWNERS[codec.tag]}: choose another for {owner}")
    _BY_TAG[codec.tag] = codec
    return codec
