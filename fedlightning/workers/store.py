"""The objects that one worker holds, and what people call them. Whose data they are is in `labels`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fedlightning.pointers.messages import ObjectDescription, Ref, TensorDescription
from fedlightning.pointers.tensor import PointerTensor
from fedlightning.workers.policy import EgressKind


@dataclass(frozen=True, slots=True)
class Card:
    """Say what an object is called.

    Args:
        tags: Words to find it by.
        description: For people.
        kind: As what it leaves, where the program that made it has said so.
    """

    tags: tuple[str, ...] = ()
    description: str = ""
    kind: EgressKind | None = None


NAMELESS = Card()
_CONTAINERS = frozenset({list, dict, slice})

Held: TypeAlias = tuple[int, Any]
"""An object of the worker, with its identifier."""


class MissingObject(LookupError):
    """Tell that a worker does not hold an object."""


class TakenIdentifier(LookupError):
    """Tell that an object would overwrite another."""


class ObjectStore:
    """Hold a worker's objects by identifier, in the order of their arrival.

    Args:
        holder: The worker's name and generation, which pointers among the objects bear.

    Attributes:
        registered: Identifiers of what data owners have placed here.
    """

    def __init__(self, holder: tuple[str, int]) -> None:
        self._holder = holder
        # A finalizer may take an object out at any moment, in any thread. Who goes through them takes a copy,
        # made by `copy()`, which is one step: `list(objects.items())` makes room for finalizers.
        # Cards are kept apart: most objects are intermediate results and have none.
        self.objects: dict[int, Any] = {}
        self.cards: dict[int, Card] = {}
        self.registered: set[int] = set()

    def put(self, object_id: int, value: Any, card: Card = NAMELESS) -> None:
        """Place an object.

        Raises:
            TakenIdentifier: There is an object of this identifier.
        """
        if object_id in self.objects:
            raise TakenIdentifier(f"object {object_id} exists already")
        if card is not NAMELESS and card != NAMELESS:
            self.cards[object_id] = card
        if type(value) is PointerTensor:
            value._handle.held_by(self._holder, object_id)
        self.objects[object_id] = value

    def unregistered(self) -> list[int]:
        """Return the identifiers of all objects but those that data owners have placed here."""
        return [object_id for object_id in list(self.objects) if object_id not in self.registered]

    def name(self, object_id: int, tags: tuple[str, ...] | None, description: str | None) -> Card:
        """Say what an object is called.

        Args:
            object_id: Its identifier.
            tags: Words to find it by; None to keep those it has.
            description: For people; None likewise.
        """
        old = self.card(object_id)
        card = replace(
            old,
            tags=old.tags if tags is None else tags,
            description=old.description if description is None else description,
        )
        self.cards[object_id] = card
        return card

    def get(self, object_id: int) -> Any:
        """Return an object.

        Raises:
            MissingObject: There is none of this identifier.
        """
        try:
            return self.objects[object_id]
        except KeyError:
            raise _missing(object_id) from None

    def drop(self, object_id: int) -> None:
        """Let an object go; one that is gone already is passed over."""
        self.objects.pop(object_id, None)
        if self.cards:
            self.cards.pop(object_id, None)
        if self.registered:
            self.registered.discard(object_id)

    def card(self, object_id: int) -> Card:
        """Return what an object is called."""
        return self.cards.get(object_id, NAMELESS)

    def resolve(self, value: Any, found: list[Held]) -> Any:
        """Replace each reference in nested tuples, lists, dicts and slices by its object.

        Args:
            value: A part of a message.
            found: Where each object that it leads to is added.

        Raises:
            MissingObject: One of them is not here.
        """
        kind = type(value)
        if kind is Ref:
            return self.resolve_each((value,), found)[0]
        if kind is list or kind is tuple:
            return kind(self.resolve_each(value, found))
        if kind is dict:
            return {key: self.resolve(item, found) for key, item in value.items()}
        if kind is slice:
            return slice(*(self.resolve(part, found) for part in (value.start, value.stop, value.step)))
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return kind(*[self.resolve(item, found) for item in value])
        return value

    def resolve_each(self, values: Iterable[Any], found: list[Held]) -> list[Any]:
        """Do what `resolve` does for each of several values; most are references, which costs no call here.

        Args:
            values: Parts of a message.
            found: Where each object that they lead to is added.

        Raises:
            MissingObject: One of them is not here.
        """
        objects, resolved = self.objects, []
        for value in values:
            if type(value) is Ref:
                object_id = value.object_id
                try:
                    value = objects[object_id]
                except KeyError:
                    raise _missing(object_id) from None
                found.append((object_id, value))
            elif type(value) in _CONTAINERS or isinstance(value, tuple):
                value = self.resolve(value, found)
            resolved.append(value)
        return resolved

    def with_gradient(self) -> frozenset[int]:
        """Return the identifiers of the tensors that have a gradient."""
        return frozenset(key for key, value in self.objects.copy().items() if _has_gradient(value))

    def search(self, tags: tuple[str, ...]) -> list[int]:
        """Return the identifiers of the objects that carry all of the tags."""
        return [object_id for object_id, card in self.cards.copy().items() if set(tags) <= set(card.tags)]

    def describe(self, object_id: int) -> TensorDescription | ObjectDescription:
        """Tell what a pointer may know of an object."""
        value, card = self.get(object_id), self.card(object_id)
        if isinstance(value, Tensor):
            return describe_tensor(value, object_id)
        return ObjectDescription(object_id, type(value).__name__, card.tags, card.description)


def _missing(object_id: int) -> MissingObject:
    return MissingObject(f"no object {object_id} here: it was fetched, deleted, or never arrived")


def _has_gradient(value: Any) -> bool:
    try:
        return isinstance(value, Tensor) and (value.is_leaf or value.retains_grad) and value.grad is not None
    except RuntimeError:
        # One of several views, made invalid by a change in place to what they were views of.
        return False


def describe_tensor(value: Tensor, object_id: int) -> TensorDescription:
    """Tell what a pointer may know of a tensor, never its values.

    Args:
        value: A tensor of any shape and dtype.
        object_id: Its identifier in the store.
    """
    layout = value.layout
    strided = layout is _STRIDED
    requires_grad = value.requires_grad
    return TensorDescription(
        object_id,
        value.shape,
        value.stride() if strided else None,
        int(value.storage_offset()) if strided else None,
        value.dtype,
        layout,
        value.device,
        requires_grad,
        not requires_grad or value.is_leaf,
    )


_STRIDED = torch.strided
